"""What the campaign of docs/reliability.md found in the readers: each is one line that names the file."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import quickstart
from data_prep import csd, mult_pickle, synthetic
from mmer_jax.data.records import RecordError, RecordSource
from mmer_jax.data.schema import Feature, Label, Schema
from mmer_jax.files import atomic, read_arrays
from mmer_jax.media import MediaError
from mmer_jax.readers import given
from mmer_jax.results import run_page, runs
from mmer_jax.run.workdir import read_config
from tests.campaign.readers_data import make_unsealed, mult_content
from tests.conftest import REPOSITORY
from tests.finished_runs import classification_run


def test_an_odd_value_in_a_pickle_is_a_fault_of_the_file(tmp_path, capsys):
    content = mult_content()
    content['train']['id'][1] = ['a', ['b', 'c'], 'd']  # NumPy makes no array of it
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(content))
    call = ['--source', str(tmp_path / 'x.pkl'), '--output', str(tmp_path / 'out'), '--dataset', 'mosi']
    assert mult_pickle.main(call) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {tmp_path / "x.pkl"} holds values of another kind')
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_an_output_that_another_process_writes_is_one_line(tmp_path, capsys):
    code = """
import sys, time
from pathlib import Path
from mmer_jax.files import atomic, locks
with locks.hold(atomic.lock_of(Path(sys.argv[1])), Path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, '-c', code, str(tmp_path / 'out')]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, cwd=REPOSITORY, **pipes) as other:
        assert other.stdout.readline() == 'held\n'
        assert synthetic.main(['--output', str(tmp_path / 'out'), '--like', 'mosi']) == 1
        error = capsys.readouterr().err
        other.stdin.close()
    assert error.startswith(f'error: {tmp_path / "out"} is in use by process {other.pid}')
    assert error.count('\n') == 1


@pytest.mark.parametrize('header', [b"{'descr': '<f4', 'shape': (2,", b'(' * 60])
def test_a_header_of_npy_that_never_closes(tmp_path, header):
    """numpy's tokenizer raises an error of its own."""
    text = header.ljust(117) + b'\n'
    (tmp_path / 'x.npy').write_bytes(b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text)
    with pytest.raises(ValueError, match=r'x\.npy'):
        given.read_features(tmp_path / 'x.npy')


@pytest.mark.parametrize('place', [4, 6, 8])  # version, flags (encrypted), method of compression
def test_a_zip_that_this_python_cannot_read(tmp_path, place):
    np.savez(tmp_path / 'x.npz', a=np.ones(3))
    content = bytearray((tmp_path / 'x.npz').read_bytes())
    start = content.index(b'PK\x01\x02') + place + 2
    content[start : start + 2] = b'\xff\xff'
    (tmp_path / 'x.npz').write_bytes(content)
    with pytest.raises(ValueError, match=r'x\.npz is damaged'):
        read_arrays(tmp_path / 'x.npz', ['a'])


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (('features', 'vision', 'shape'), [None, 8, [[]], 3]),
        (('features', 'text', 'shape'), [None, True]),
        (('features', 'text', 'shape'), [None, -3]),
        (('features', 'vector', 'optional'), 'x'),
        (('label', 'names'), ['a', 2, 'c']),
        (('name',), None),
    ],
)
def test_a_schema_of_another_kind_is_damage(tmp_path, place, value):
    folder = tmp_path / 'data'
    folder.mkdir()
    make_unsealed(folder)
    content = json.loads((folder / 'features.json').read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / 'features.json').write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r'features.json is damaged'):
        RecordSource(folder)


@pytest.mark.parametrize('key', ['id', 'label', 'v', 't'])
def test_a_record_that_lacks_a_feature_says_which(key):
    features = {'v': Feature((3,)), 't': Feature((None, 2))}
    schema = Schema('lacking', features, Label('classes', ('a', 'b')), {})
    values = {'id': 'x', 'label': 1, 'v': np.ones(3, np.float32), 't': np.ones((4, 2), np.float32)}
    name = bytes([len(key)]) + key.encode()
    data = schema.encode(values)
    assert data.count(name) == 1
    with pytest.raises(RecordError, match=f'no {key} in it'):
        schema.decode(data.replace(name, name[:-1] + b'#'))


@pytest.mark.parametrize('values', [np.array([[b'a', b'b']] * 2), np.ones((2, 2), complex), np.ones((2, 2), bool)])
def test_intervals_of_a_csd_are_numbers(tmp_path, values):
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'x.csd', 'w') as file:
        file['words/data/v/features'], file['words/data/v/intervals'] = np.ones((2, 3)), values
    with pytest.raises(MediaError, match=r'x\.csd: values of another kind; /words/data/v/intervals holds'):
        csd.Sequence(tmp_path / 'x.csd')


def test_a_full_disk_names_the_file(tmp_path):
    """/dev/full takes what is written and has no room for it."""
    full = Path('/dev/full')
    with pytest.raises(OSError, match=f"No space left on device: '{full}'"), atomic.naming(full):
        full.write_bytes(b'x')
    with pytest.raises(OSError, match=r'a.json') as told, atomic.writing(tmp_path / 'a.json'):
        raise OSError(28, 'No space left on device')
    assert '\n' not in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('change', [{'epoch': 'x'}, {'loss': [1]}, {'accuracy': '0.5'}, {'seed': {}}])
def test_a_curve_of_no_numbers_names_the_line(tmp_path, change):
    run = runs.read_run(classification_run(tmp_path / 'run'))
    path = tmp_path / 'run' / 'fold_0' / 'metrics.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(''.join(json.dumps(row) + '\n' for row in [{'step': 1, 'loss': 2.0}, {**rows[1], **change}]))
    with pytest.raises(
        runs.ReportError, match=rf'metrics.jsonl, line 2: {next(iter(change))} is .*, expected a number'
    ):
        run_page.draw_curves(run, tmp_path / 'x.png')


@pytest.mark.parametrize('key', ['..', 'a.b'])
def test_a_key_that_no_config_can_have_names_the_file(tmp_path, key):
    path = tmp_path / 'config.json'
    path.write_text(json.dumps({**quickstart.get_config().to_dict(), key: 1}))
    with pytest.raises(ValueError, match=re.escape(f'{path} is damaged (')):
        read_config(tmp_path)
