"""Every command ends with the same exit status: 0 ok, 1 failed, 2 wrong call, 130 interrupted; in one line."""

import argparse
import importlib
import signal
import subprocess
import sys

import pytest

from data_prep import pool
from mmer_jax.settings import command
from tests.conftest import REPOSITORY
from tests.test_ranges import commands

# A call of each command whose input is missing; {} is a folder where nothing lies.
MISSING = {
    'benchmarks.predict': '--run={}/x --media={}',
    'data_prep.clips': '--csv={}/x.csv --output={}/out',
    'data_prep.cmu_sdk': '--dataset=mosi --labels={}/a --words={}/b --glove={}/c --folds={}/d --output={}/out',
    'data_prep.convert_weights.__main__': 'resnext3d --source={}/x.pth --output={}/out',
    'data_prep.convert_weights.mtcnn': '--source={}/x.whl --output={}/out',
    'data_prep.crema_d': '--source={}/x --output={}/out',
    'data_prep.from_tfds': '--source={}/x --output={}/out',
    'data_prep.iemocap': '--source={}/x --output={}/out --modalities audio',
    'data_prep.look': '{}/x --output={}/out.png',
    'data_prep.mmsa_pickle': '--source={}/x.pkl --output={}/out',
    'data_prep.mosi': '--source={}/x --output={}/out',
    'data_prep.mult_pickle': '--source={}/x.pkl --output={}/out',
    'data_prep.ravdess': '--source={}/x --output={}/out',
    'data_prep.ravdess_openface': '--table={}/x.csv --output={}/out --audio=values',
    'mmer_jax.classifiers': '--features audio={}/x --output={}/out',
    'mmer_jax.evaluate': '{}/x',
    'mmer_jax.export': '{}/x --output={}/out',
    'mmer_jax.extract': '{}/x',
    'mmer_jax.figures': 'attention {}/x',
    'mmer_jax.main': '--config=configs/quickstart.py --config.data.directory={}/x --workdir={}/out',
    'mmer_jax.predict': '{}/x --text=a',
    'mmer_jax.records': 'verify {}/x',
    'mmer_jax.report': '{}/x',
    'mmer_jax.robustness': '{}/x --output={}/out',
    'mmer_jax.search': '--config=configs/own_audio_vision.py --config.data.directory={}/x --workdir={}/out',
    'benchmarks.fine_tuning': '--data={}/x --source={}/x',
    'benchmarks.input_pipeline': '--data={}/x',
    'benchmarks.media': '--source={}/x',
}
# They read nothing, or say of each row by itself what is missing (tests/test_table.py).
WITHOUT_INPUT = {
    'data_prep.synthetic': '--output=x',
    'mmer_jax.doctor': '',
    'mmer_jax.table': '--table=x',
    **dict.fromkeys((f'benchmarks.{name}' for name in (
        'accelerator', 'conv3d', 'convert', 'convolutions', 'encoders', 'encoders_2d_3d', 'seeds', 'separation',
        'sequence_models',
    )), ''),
}  # fmt: skip
ALL = sorted({*commands(), 'mmer_jax.main'})


def end(name, argv):
    """The exit status of a command, argparse's own included."""
    if name.startswith('benchmarks.'):
        pytest.importorskip('torch')
    try:
        return importlib.import_module(name).main(argv)
    except SystemExit as error:
        return error.code


def test_every_command_is_walked():
    assert set(ALL) == {*MISSING, *WITHOUT_INPUT}


@pytest.mark.parametrize('name', ALL)
def test_help_is_0_and_a_wrong_flag_2(name, capsys):
    assert end(name, ['--help']) == 0
    assert 'usage: python -m ' in capsys.readouterr().out
    call = {**MISSING, **WITHOUT_INPUT}[name].format(*'xxxxx').split()
    assert end(name, [*call, '--no_such_flag']) == 2
    assert 'no_such_flag' in capsys.readouterr().err


@pytest.mark.parametrize('name', sorted(MISSING))
def test_a_missing_input_is_1_and_one_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path))
    assert end(name, MISSING[name].format(*[tmp_path] * 5).split()) == 1
    said = capsys.readouterr().err
    assert said.startswith('error: ')
    assert said.count('\n') == 1
    assert str(tmp_path) in said
    assert not (tmp_path / 'out' / 'features.json').exists()


@pytest.mark.parametrize(
    ('error', 'status', 'said'),
    [
        (ValueError('first\n  second'), 1, 'error: first second\n'),
        (
            FileNotFoundError(2, 'No such file or directory', 'x'),
            1,
            "error: [Errno 2] No such file or directory: 'x'\n",
        ),
        (OSError(), 1, 'error: OSError\n'),
        (command.WrongCall('--x 3: expected less'), 2, 'error: --x 3: expected less\n'),
        (KeyboardInterrupt(), 130, 'interrupted; the same command begins anew\n'),
    ],
)
def test_how_work_ends_is_the_exit_status(error, status, said, capsys):
    def work(arguments):
        raise error

    assert command.run(work, None) == status
    assert capsys.readouterr().err == said


def test_what_work_returns_is_the_exit_status(capsys):
    assert command.run(lambda arguments: None, None) == 0
    assert command.run(lambda arguments: arguments, 1) == 1
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('error', [KeyError('x'), ValueError('x')])
def test_a_fault_of_the_toolkit_keeps_its_traceback(error):
    """Of a preparation a ValueError that no reader raised is one; with debug, everything is."""

    def work(arguments):
        raise error

    with pytest.raises(type(error)):
        pool.run_command(work, argparse.Namespace())
    with pytest.raises(type(error)):
        command.run(work, argparse.Namespace(debug=True))


def test_what_is_wrong_with_a_config_is_a_wrong_call(tmp_path, capsys):
    for call in ('--config=nowhere.py', '--config=configs/quickstart.py --config.no=1'):
        assert end('mmer_jax.main', call.split()) == 2
    for call in ('--table=nowhere.py', '--table=configs/tables/synthetic.py --rows=nobody --list'):
        assert end('mmer_jax.table', call.split()) == 2
    assert capsys.readouterr().err.count('\n') == 4


def test_ctrl_c_ends_a_process_in_one_line():
    code = (
        'import signal, sys, time; from mmer_jax.settings import command\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'  # a shell's background jobs ignore it
        'def work(arguments): print("begun", flush=True); time.sleep(60)\n'
        'sys.exit(command.run(work, None, go_on="the same command goes on"))'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == 'begun\n'
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, 'interrupted; the same command goes on\n')
