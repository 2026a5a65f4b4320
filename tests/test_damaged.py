"""Damaged files of a workdir: the step before is used where it is whole, everything else is one line."""

import json
import re
import shutil

import numpy as np
import pytest

from mmer_jax import evaluate, figures, report
from mmer_jax.files import read_arrays
from mmer_jax.run import checkpoint, finished
from mmer_jax.run.checkpoint import SUMS, Checkpoints
from mmer_jax.train import train_and_evaluate
from tests.small_run import small_config
from tests.test_train import assert_same_run

# Small enough to compile in no time: a run of each test goes on.
MODEL = {'name': 'unimodal', 'encoder': {'name': 'vector_encoder', 'sizes': (3,)}}


def config_of(directory, **changes):
    options = {
        'epochs': 3,
        'seeds': 1,
        'data__max_shapes': 1,
        'data__normalize': ('audio',),
        'modalities': ('audio',),
        **changes,
    }
    return small_config(directory, **options, model=MODEL)


@pytest.fixture(scope='module')
def whole(tiny, tmp_path_factory):
    """A finished run; its batches are those of small_config, its checkpoints of the last two epochs."""
    folder = tmp_path_factory.mktemp('damaged') / 'run'
    train_and_evaluate(config_of(tiny), folder)
    return folder


@pytest.fixture
def begun(whole, tmp_path):
    """A copy without its results, as a run that has not ended: (folder, newest step, step before)."""
    folder = shutil.copytree(whole, tmp_path / 'run')
    (folder / 'results.json').unlink()
    newest, before = steps_of(folder)
    return folder, folder / 'checkpoints' / str(newest), folder / 'checkpoints' / str(before)


def steps_of(folder):
    with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
        return checkpoints.steps()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b'')


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(step):
    return max((path for path in step.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def test_two_steps_are_kept(whole):
    newest, before = steps_of(whole)
    assert newest == 3 * before // 2
    assert {p.name for p in (whole / 'checkpoints').iterdir()} == {str(newest), str(before)}
    assert checkpoint.fault_of(whole / 'checkpoints' / str(newest)) == ''


@pytest.mark.parametrize(
    ('damage', 'said'),
    [
        (lambda step: cut(largest(step)), r'\d+ bytes, \d+ were written'),
        (lambda step: flip(largest(step)), 'holds other bytes than were written'),
        (lambda step: empty(step / 'host' / 'metadata'), '0 bytes'),
        (lambda step: shutil.rmtree(step / 'best'), 'is missing'),
        (lambda step: cut(step / SUMS), SUMS),
        (lambda step: [path.unlink() for path in step.rglob('*') if path.is_file()], 'Error|missing'),
    ],
)
def test_the_step_before_is_used_and_the_run_ends_the_same(tiny, whole, begun, damage, said, capsys):
    folder, newest, before = begun
    damage(newest)
    train_and_evaluate(config_of(tiny), folder)
    error = capsys.readouterr().err
    line = next(line for line in error.splitlines() if 'is damaged' in line)
    assert line.startswith(f'checkpoint {newest.name} in {folder}')
    assert line.endswith(f'it is removed, and the run goes on from checkpoint {before.name}')
    assert re.search(said, line)
    assert_same_run(folder, whole)


@pytest.mark.parametrize('damage', [cut, empty, lambda path: path.unlink()])
def test_a_step_without_sums_is_judged_by_orbax(tiny, whole, begun, damage):
    """Of an older version, or of a run that was killed before they were written."""
    folder, newest, _ = begun
    (newest / SUMS).unlink()
    for path in sorted((newest / 'state').rglob('*')):
        if path.is_file():
            damage(path)
    train_and_evaluate(config_of(tiny), folder)
    assert_same_run(folder, whole)


def test_where_no_step_is_whole_one_line_says_what_to_remove(tiny, whole, begun):
    folder, newest, before = begun
    for step in (newest, before):
        cut(largest(step))
    with pytest.raises(
        ValueError, match=r'no checkpoint is whole \(\d+: .*; \d+: .*\); remove .*checkpoints to'
    ) as told:
        train_and_evaluate(config_of(tiny), folder)
    assert '\n' not in str(told.value)
    shutil.rmtree(folder / 'checkpoints')
    train_and_evaluate(config_of(tiny), folder)
    assert_same_run(folder, whole)


def test_a_fault_that_is_none_of_the_checkpoint_removes_none(begun, monkeypatch):
    """Every byte is as it was written: no memory, say."""
    folder, newest, _ = begun
    with Checkpoints(folder / 'checkpoints') as checkpoints:
        monkeypatch.setattr(checkpoints, '_restore', lambda *_: (_ for _ in ()).throw(MemoryError('no memory')))
        with pytest.raises(MemoryError):
            checkpoints.restore_newest(state={}, best={})
    assert newest.is_dir()


def test_the_variables_of_a_finished_run_are_never_an_older_steps(tiny, whole, begun, capsys):
    """The line says what to do, and that helps."""
    folder, newest, before = begun
    shutil.copy(whole / 'results.json', folder)
    cut(largest(newest))
    assert evaluate.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: checkpoint {newest.name} in {folder / "checkpoints"} is damaged (')
    assert f'remove {folder / "results.json"} and start the run again' in error
    assert error.endswith(f'it goes on from checkpoint {before.name} and ends with the same numbers\n')
    assert error.count('\n') == 1
    with pytest.raises(ValueError, match='is damaged'):
        finished.chosen_variables(finished.open_run(folder))
    (folder / 'results.json').unlink()
    train_and_evaluate(config_of(tiny), folder)
    assert evaluate.main([str(folder)]) == 0
    shutil.rmtree(folder / 'checkpoints' / before.name)
    cut(largest(newest))
    with pytest.raises(ValueError, match=r'remove .*checkpoints and .*results.json, and train again'):
        evaluate.evaluate_checkpoint(folder)
    shutil.rmtree(folder / 'checkpoints')
    (folder / 'checkpoints').write_text('')
    with pytest.raises(ValueError, match='is a file, expected the folder of the checkpoints'):
        finished.chosen_variables(finished.open_run(folder))


@pytest.mark.parametrize('content', [b'', b'{"format": 1', b'[]', b'{}', b'{"rows": []}', b'\xff\xfe'])
@pytest.mark.parametrize('name', ['results.json', 'config.json'])
def test_damaged_json_is_one_line(tiny, whole, tmp_path, capsys, name, content):
    folder = shutil.copytree(whole, tmp_path / 'run')
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} (is damaged|has no rows)') as told:
        train_and_evaluate(config_of(tiny), folder)
    assert '\n' not in str(told.value)
    if name == 'config.json':
        for command, arguments in ((evaluate.main, []), (figures.main, ['representations'])):
            assert command([*arguments, str(folder)]) == 1
            assert 'config.json is damaged' in (error := capsys.readouterr().err)
            assert error.count('\n') == 1


@pytest.mark.parametrize('damage', [cut, empty, lambda path: path.unlink()])
def test_damaged_arrays_are_one_line(whole, tmp_path, capsys, damage):
    folder = shutil.copytree(whole, tmp_path / 'run')
    damage(folder / 'statistics.npz')
    assert evaluate.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert 'statistics.npz' in error
    assert error.count('\n') == 1
    shutil.copy(whole / 'statistics.npz', folder)
    damage(folder / 'predictions' / 'test.npz')
    assert report.main([str(folder), '--output', str(tmp_path / 'report')]) != 0
    error = capsys.readouterr().err
    assert 'test.npz' in error
    assert error.count('\n') == 1


def test_an_array_that_is_missing_is_named(tmp_path):
    np.savez(tmp_path / 'some.npz', a=np.zeros(2))
    assert list(read_arrays(tmp_path / 'some.npz', ['a'])) == ['a']
    with pytest.raises(ValueError, match=r'some.npz is damaged .*b.*: remove results.json'):
        read_arrays(tmp_path / 'some.npz', ['a', 'b'])


def test_lost_rows_of_metrics_are_told(tiny, begun, capsys):
    folder, newest, _ = begun
    shutil.rmtree(newest)
    lines = (folder / 'metrics.jsonl').read_bytes().splitlines(keepends=True)
    (folder / 'metrics.jsonl').write_bytes(b''.join(lines[2:]))
    train_and_evaluate(config_of(tiny), folder)
    assert 'metrics.jsonl has' in (said := capsys.readouterr().err)
    assert 'it was changed or lost' in said
    assert (folder / 'metrics.jsonl').read_bytes() == b''.join(lines[2:])
    (folder / 'results.json').unlink()
    content = (folder / 'metrics.jsonl').read_text().splitlines()
    (folder / 'metrics.jsonl').write_text('\n'.join(['{"step": 1, ', *content]) + '\n')
    with pytest.raises(ValueError, match=r'metrics.jsonl, line 1: not a JSON object'):
        train_and_evaluate(config_of(tiny), folder)
    assert json.loads((folder / 'config.json').read_text())['epochs'] == 3
