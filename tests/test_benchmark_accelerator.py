"""The table of an accelerator: what it plans, what it shows, and that it keeps to its time."""

import re
from pathlib import Path

import pytest

from benchmarks import accelerator
from benchmarks.accelerator import Row
from mmer_jax import main
from tests.conftest import REPOSITORY


def test_every_row_is_a_command_that_exists(tmp_path):
    from benchmarks import seeds, sequence_models

    pytest.importorskip('torch', reason='benchmarks/conv3d.py reads its flags behind its imports')
    from benchmarks import conv3d

    for tiny in (True, False):
        for row in accelerator.rows(tiny, tmp_path):
            module, *flags = row.arguments
            path = REPOSITORY / f'{module.replace(".", "/")}.py'
            assert path.is_file(), row
            known = {
                'benchmarks.conv3d': conv3d.parse_arguments,
                'benchmarks.seeds': seeds.parse_arguments,
                'benchmarks.sequence_models': sequence_models.parse_arguments,
            }
            if module in known:
                known[module](list(flags))
            elif module != main.__name__:  # those of encoders need torch
                texts = path.read_text()
                assert all(f"'{flag.split('=')[0]}'" in texts for flag in flags if flag.startswith('--'))
    names = [row.key for row in accelerator.rows(False, tmp_path)]
    assert list(dict.fromkeys(names)) == [
        'quickstart', 'mfsa', 'mult', 'seeds', 'bert', 'wav2vec2', 'vit', 'videomae', 'resnet18', 'i3d', 'resnext3d'
    ]  # fmt: skip


def fake(name, code, tmp_path, monkeypatch, **fields):
    """A row whose command is a small program of its own."""
    (tmp_path / f'{name}.py').write_text(code)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    return Row(name, (name,), r'shown.*', **fields)


def test_rows_are_told_as_they_end_and_what_is_late_or_fails_is_named(tmp_path, monkeypatch, capsys):
    made = [
        fake('quick', "print('hidden'); print('shown 3')", tmp_path, monkeypatch),
        fake('broken', "raise ValueError('no such device')", tmp_path, monkeypatch, compiles=False),
        fake('lacking', '', tmp_path, monkeypatch, needs=('no_such_module',)),
        fake('slow', 'import time; time.sleep(60)', tmp_path, monkeypatch, compiles=False),
        fake('after', "print('shown 4')", tmp_path, monkeypatch, compiles=False),
    ]
    monkeypatch.setattr(accelerator, 'rows', lambda tiny, folder: made)
    monkeypatch.setattr(accelerator, 'write_data', lambda folder, tiny: None)
    monkeypatch.setattr(accelerator, 'ROOT', tmp_path)
    assert accelerator.main(['--minutes=0.08']) == 1
    found = capsys.readouterr()
    assert found.out.splitlines()[0].split(None, 1) == ['lacking', 'not measured: no_such_module is not installed']
    assert 'shown 3' in found.out
    assert 'hidden' not in found.out
    assert 'failed: ValueError: no such device' in found.out
    assert found.out.splitlines()[-1] == 'no time for: slow; after (--minutes 0.08)'
    assert found.err.splitlines()[-1] == 'error: failed: broken'


def test_a_case_of_sequences_is_told_in_words():
    case = '{"records": 8, "shapes": [{"batches": 2, "seconds": 0.5, "peak": 1.5, "compile": 3.0}]}'
    assert accelerator.shown(case) == '8.0 samples/s, 0.500 s per step, peak 1.50 GiB, first steps 3.0 s more'
    row = next(row for row in accelerator.rows(True, Path()) if row.key == 'mfsa')
    assert re.match(row.shown, case)
    assert not re.match(row.shown, "{'text': 7, 'audio': 47}: first step 24 s")  # told on the way, no JSON


def test_a_wrong_row_is_refused(capsys):
    with pytest.raises(SystemExit):
        accelerator.main(['--only', 'no_such'])
    assert "invalid choice: 'no_such'" in capsys.readouterr().err


def test_records_that_cannot_be_written_are_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(accelerator, 'ROOT', Path(__file__).parent)  # no package `benchmarks` there
    monkeypatch.delenv('PYTHONPATH', raising=False)
    assert accelerator.main(['--minutes=1', '--tiny', '--only', 'mfsa']) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith('error: the records to be read were not written: ModuleNotFoundError: No module named')
