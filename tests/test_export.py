"""An exported run: it runs with jax and numpy alone, says what the run says, and is written whole or not at all."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from configs import own_audio_vision
from data_prep import clips
from mmer_jax import export, load_predictor
from mmer_jax.prediction import exported
from mmer_jax.readers import Clip, read_record
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.train import train_and_evaluate
from tests.own_clips import write_clips

SEEDS = 2
FILES = {'README.md', 'model.jax_export', 'params.safetensors', 'preprocess.json', 'run.py'}


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """A folder with media/, run/ (one fold, two seeds, the sound normalised) and model/, its export."""
    folder = tmp_path_factory.mktemp('own')
    table = write_clips(folder)
    rows = list(csv.reader(table.read_text().splitlines()))
    with open(table, 'w', newline='') as file:
        parts = ['split', *(('train', 'train', 'validation', 'test')[n // 3 % 4] for n in range(len(rows) - 1))]
        csv.writer(file).writerows([*row, part] for row, part in zip(rows, parts, strict=True))
    flags = ['--size=16', '--frames=2', '--num_mfcc=8', '--num_mels=16', '--workers=0']
    assert clips.main([f'--csv={table}', f'--media={folder / "media"}', f'--output={folder / "mine"}', *flags]) == 0
    config = own_audio_vision.get_config()
    config.data.directory = str(folder / 'mine')
    config.model.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 4})
    config.update({'epochs': 1, 'seeds': SEEDS, 'tensorboard': False})
    config.data.batch_size, config.data.max_shapes = 6, 1
    train_and_evaluate(config, folder / 'run')
    assert export.main([str(folder / 'run'), f'--output={folder / "model"}', '--no_cache']) == 0
    return folder


@pytest.fixture(scope='module')
def predictor(own):
    return load_predictor(own / 'run')


def arrays_of(predictor, path):
    """What the readers make of a clip, raw, as preprocess.json asks for."""
    found, _, _ = read_record(Clip(str(path), path), predictor.readers)
    return {m: np.asarray(array) for m, array in found.items() if array is not None}


def test_the_folder_runs_with_jax_and_numpy_alone(own, predictor, tmp_path):
    """In another place, without the toolkit or any other package: only what jax itself imports can be found."""
    shutil.copytree(own / 'model', tmp_path / 'model')
    packages = tmp_path / 'packages'
    packages.mkdir()
    site = Path(np.__file__).parents[1]
    for name in (
        'jax',
        'jaxlib',
        'numpy',
        'numpy.libs',
        'ml_dtypes',
        'scipy',
        'scipy.libs',
        'opt_einsum',
        'flatbuffers',
    ):
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    environment = {**os.environ, 'PYTHONPATH': str(packages), 'JAX_PLATFORMS': 'cpu'}
    for name in ('s1/clip_01.mp4', 's0/clip_06.wav'):
        path = own / 'media' / name
        np.savez(tmp_path / 'clip.npz', **arrays_of(predictor, path))
        command = [sys.executable, '-S', 'model/run.py', 'clip.npz']  # -S: nothing of the environment is found
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found, wanted = json.loads(done.stdout), predictor(path).scores
        assert list(found) == list(wanted)
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), atol=1e-5)


def test_a_changed_file_is_refused(own, tmp_path):
    about = json.loads((own / 'model' / 'preprocess.json').read_text())
    for name in ('preprocess.json', 'model.jax_export', 'params.safetensors'):
        folder = tmp_path / name
        shutil.copytree(own / 'model', folder)
        if name == 'preprocess.json':
            (folder / name).write_text(json.dumps({**about, 'labels': about['labels'][::-1]}))
        else:
            content = bytearray((folder / name).read_bytes())
            content[-1] ^= 1
            (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=f'{name} was changed since it was exported .*: export the run again'):
            exported.run_exported.read(folder)
    assert exported.run_exported.read(own / 'model')[0] == about


def test_the_script_is_short():
    text = Path(exported.run_exported.__file__).read_text()
    assert len([line for line in text.splitlines() if line.strip() and not line.strip().startswith('"""')]) <= 50
    assert 'mmer_jax' not in text


def test_every_file_says_what_it_is(own, predictor):
    folder = own / 'model'
    assert {path.name for path in folder.iterdir()} == FILES
    about = json.loads((folder / 'preprocess.json').read_text())
    assert about['labels'] == list(predictor.class_names)
    assert about['platforms'] == ['cpu', 'cuda', 'tpu']
    assert about['models'] == [['all', 0], ['all', 1]]
    assert about['inputs']['audio']['reader']['kind'] == 'sound'
    assert about['inputs']['audio']['steps'] is None
    assert about['batch'] == 'any'
    assert about['files']['params.safetensors']['bytes'] == (folder / 'params.safetensors').stat().st_size
    params = load_file(folder / 'params.safetensors')
    assert {array.shape[0] for array in params.values()} == {SEEDS}
    assert {name.split('/')[1] for name in params} >= {'params'}
    card = (folder / 'README.md').read_text()
    for words in ('| answers | ', 'floor', 'What it is for', 'Limits', 'mmer_jax.export', 'parameters', 'Protocol'):
        assert words in card
    assert str(own) not in card + (folder / 'preprocess.json').read_text()  # no paths of this machine


def test_any_batch_and_any_length_and_what_lies_in_the_padding_has_no_part(own, predictor):
    program = exported.make_program(predictor)
    path = own / 'media' / 's1' / 'clip_01.mp4'
    arrays, wanted = arrays_of(predictor, path), predictor(path).scores
    batch = {}
    for m, x in arrays.items():
        steps = program.steps[m] or len(x) + 4
        batch[m] = np.full((3, steps, *x.shape[1:]), 7, x.dtype)
        batch[m][1, : len(x)] = x
        batch[f'{m}_mask'] = np.zeros((3, steps), bool)
        batch[f'{m}_mask'][1, : len(x)] = True
    found = np.asarray(program.exported.call(program.params, batch))
    np.testing.assert_allclose(found[1], list(wanted.values()), atol=1e-5)


def test_a_model_that_needs_one_length_is_exported_with_it(predictor, monkeypatch):
    """What the symbols cannot pass becomes the run's longest steps, then one row; the fault is told at the end."""
    real, tried = exported.export.export, []

    def refuse(times):
        def make(function, **options):
            def call(shapes, inputs):
                tried.append(inputs['audio'].shape)
                if len(tried) <= times:
                    raise ValueError('no symbols, please')
                return real(function, **options)(shapes, inputs)

            return call

        return make

    monkeypatch.setattr(exported.export, 'export', refuse(1))
    program = exported.make_program(predictor)
    assert program.steps == {m: predictor.steps[m] for m in predictor.modalities}
    assert program.any_batch
    assert exported.describe(predictor, program)['inputs']['audio']['longest'] == predictor.steps['audio']
    tried.clear()
    monkeypatch.setattr(exported.export, 'export', refuse(3))
    with pytest.raises(ValueError, match='the model cannot be exported: no symbols, please'):
        exported.make_program(predictor)
    assert tried[-1][0] == 1


def test_nothing_is_written_where_the_program_says_something_else(own, predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(exported, '_scores', lambda kind, outputs, temperature: outputs)
    with pytest.raises(ValueError, match='the exported program differs by .* from the run on a random clip'):
        exported.write(tmp_path / 'out', predictor, lambda program: '')
    assert list(tmp_path.iterdir()) == []


def test_foreign_folders_stay_as_they_are(own, predictor, tmp_path, capsys):
    output, run = tmp_path / 'model', str(own / 'run')
    output.mkdir()
    (output / 'mine.txt').write_text('keep')
    assert export.main([run, f'--output={output}']) == 1
    assert 'mine.txt: it is not replaced' in capsys.readouterr().err
    (output / 'mine.txt').rename(output / 'README.md')
    assert export.main([run, f'--output={output}']) == 1
    assert 'README.md: it is not replaced' in capsys.readouterr().err
    shutil.rmtree(output)
    shutil.copytree(own / 'model', output)
    (output / 'notes.txt').write_text('keep')
    assert export.main([run, f'--output={output}']) == 1
    assert 'also holds notes.txt' in capsys.readouterr().err
    (output / 'notes.txt').unlink()
    (output / 'params.safetensors').write_bytes(b'old')
    monkey = exported.write(output, predictor, lambda program: 'made by mmer_jax.export')
    assert monkey[0] == output
    assert {path.name for path in output.iterdir()} == FILES
    assert (output / 'params.safetensors').stat().st_size > 100
    assert [path.name for path in tmp_path.iterdir()] == ['model']


def test_a_run_is_opened_on_one_device_whatever_it_was_trained_on(own, monkeypatch):
    """A checkpoint of eight devices names them; where it is opened there may be one."""
    asked, restore = [], Checkpoints.restore_best

    def record(self, best):
        asked.extend(jax.tree.leaves(best))
        return restore(self, best)

    monkeypatch.setattr(Checkpoints, 'restore_best', record)
    load_predictor(own / 'run')
    assert {len(leaf.sharding.device_set) for leaf in asked} == {1}
