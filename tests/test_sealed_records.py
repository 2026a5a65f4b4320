"""What a shard directory says of its own files: sums compared at opening and by verify, damage named in one line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mmer_jax.data import records
from mmer_jax.data.records import Feature, Label, RecordError, RecordSource, RecordWriter, Schema
from mmer_jax.files import sums
from mmer_jax.records import main as command
from tests.conftest import write_dataset

OWN = ('files', 'sha256')


@pytest.fixture(params=['classes', 'regression', 'binary'])
def sealed(tmp_path, request):
    return write_dataset(tmp_path / 'data', records=12, kind=request.param)


@pytest.fixture
def directory(tmp_path):
    return write_dataset(tmp_path / 'data', records=12)


def unseal(directory):
    """As version 0.2 wrote it."""
    path = directory / 'features.json'
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in OWN}))
    return directory


def change(directory, column, value, record=3):
    path = directory / 'manifest.csv'
    lines = [line.split(',') for line in path.read_text().splitlines()]
    cell = lines[0].index(column)
    lines[record + 1][cell] = value(lines[record + 1][cell]) if callable(value) else value
    path.write_text('\n'.join(','.join(line) for line in lines) + '\n')


def test_every_file_has_its_size_and_sum(directory):
    content = json.loads((directory / 'features.json').read_text())
    assert set(content['files']) == set(os.listdir(directory)) - {'features.json'}
    for name, expected in content['files'].items():
        assert expected == sums.sum_of(directory / name)
    assert RecordSource(directory).is_sealed


def test_a_label_that_is_not_the_records_is_a_fault_of_verify(sealed, capsys):
    """Also in a directory without sums: there the record itself is asked."""
    assert records.verify(sealed) == []
    other = {'classes': lambda x: str((int(x) + 1) % 3), 'regression': '0.5', 'binary': lambda x: x[::-1]}
    kind = RecordSource(sealed).schema.label.kind
    labels = RecordSource(sealed).manifest['label']
    record = next(n for n in range(12) if kind != 'binary' or labels[n] in ('0 1', '1 0'))
    change(sealed, 'label', other[kind], record)
    with pytest.raises(RecordError, match=r'manifest.csv .*: bring it back'):
        RecordSource(sealed)
    assert command(['verify', str(sealed)]) == 1
    assert command(['seal', str(sealed)]) == 1  # never where it is wrong
    assert f'record {record} (clip_{record:03d}) has label' in capsys.readouterr().err
    unseal(sealed)
    assert command(['verify', str(sealed)]) == 1
    shown = capsys.readouterr()
    assert f'fault: record {record} (clip_{record:03d}) has label' in shown.err
    assert shown.err.count('has no sums of its files') == 1
    assert '1 faults' in shown.out


@pytest.mark.parametrize('column', ['split', 'speaker'])
def test_changed_splits_are_refused_until_they_are_accepted(directory, column, capsys):
    change(directory, column, lambda cell: cell[:-1] + 'x')  # of the same length: only the content tells
    with pytest.raises(RecordError, match=rf'holds other bytes than were written.*records seal {directory}'):
        RecordSource(directory)
    assert command(['verify', str(directory)]) == 1
    assert capsys.readouterr().err.count('\n') == 1
    assert command(['seal', str(directory)]) == 0
    assert RecordSource(directory).manifest[column][3].endswith('x')
    assert records.verify(directory) == []


def test_a_directory_of_version_0_2_is_read_and_sealed(directory, capsys):
    unseal(directory)
    assert not RecordSource(directory).is_sealed
    assert command(['verify', str(directory)]) == 0
    assert f'python -m mmer_jax.records seal {directory} adds them' in capsys.readouterr().err
    assert command(['seal', str(directory)]) == 0
    assert RecordSource(directory).is_sealed
    assert command(['verify', str(directory)]) == 0
    assert 'no sums' not in capsys.readouterr().err


def test_class_names_that_change_places_are_refused(directory):
    path = directory / 'features.json'
    path.write_text(path.read_text().replace('"calm"', '"x"').replace('"sad"', '"calm"').replace('"x"', '"sad"'))
    with pytest.raises(RecordError, match=r'features.json was changed since it was written'):
        RecordSource(directory)


@pytest.mark.parametrize(
    ('column', 'value', 'message'),
    [
        ('label', '9', "the label of record 3 is '9', expected one of 0..2"),
        ('label', '-1', "the label of record 3 is '-1'"),
        ('label', 'x', "the label of record 3 is 'x'"),
        ('label', '', "the label of record 3 is ''"),
        ('label', '1.5', "the label of record 3 is '1.5'"),
        ('label', '9' * 30, 'the label of record 3'),
        ('length_text', '-3', 'column length_text of record 3 is -3'),
        ('length_text', 'x', 'column length_text: invalid literal'),
        ('record', '7', 'column record must count 0..11'),
        ('id', 'a,b', 'record 3 has 10 values, expected 9'),
    ],
)
def test_a_cell_that_cannot_be_is_named_without_sums(directory, column, value, message):
    unseal(directory)
    change(directory, column, value)
    with pytest.raises(RecordError, match=rf'manifest.csv: {message}.*: bring it back|{message}'):
        RecordSource(directory)


@pytest.mark.parametrize(
    'content',
    [b'', b'[1]', b'{', b'\xff\xfe', b'[' * 100_000, b'{"format": 1}', b'{"format": 1, "name": "x", "features": 3}'],
)
@pytest.mark.parametrize('name', ['features.json', 'manifest.csv', 'data-00000-of-00003.index.npy'])
def test_damaged_metadata_is_one_line_that_names_the_file(directory, name, content, capsys):
    if name != 'features.json':
        unseal(directory)
    (directory / name).write_bytes(content)
    assert command(['verify', str(directory)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith('error: ')
    assert shown.count('\n') == 1
    assert name in shown
    assert 'bring it back' in shown or 'rebuild it' in shown or 'not a whole' in shown


@pytest.mark.parametrize(
    'shards',
    [
        [],
        [{'file': '../x.tfrecord', 'records': 12, 'bytes': 1}],
        [{'file': '/etc/passwd', 'records': 12, 'bytes': 1}],
        [{'file': 'data-00000-of-00001.tfrecord', 'records': 5, 'bytes': 1}],
        [{'records': 12}],
        7,
    ],
)
def test_shards_that_cannot_be_are_refused(directory, shards):
    unseal(directory)
    path = directory / 'features.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'shards': shards}))
    with pytest.raises(RecordError, match=r'features.json is damaged \(.*: bring it back'):
        RecordSource(directory)


@pytest.mark.parametrize(
    ('offsets', 'message'),
    [
        (np.array([0, 5, 10, 15, 20]), 'do not rise'),
        (np.zeros((5, 1), np.int64), 'expected int64'),
        (np.zeros(5, np.float32), 'expected int64'),
        (np.arange(3), 'lists 2 records'),
        (np.array([None] * 5), 'Python objects'),
    ],
)
def test_an_index_that_cannot_be_is_refused(directory, offsets, message):
    np.save(unseal(directory) / 'data-00000-of-00003.index.npy', offsets)
    with pytest.raises(RecordError, match=rf'index.npy .*{message}.*rebuild it: python -m mmer_jax.records index'):
        RecordSource(directory)


def test_an_index_that_announces_an_array_of_any_size_takes_no_memory(directory):
    path = unseal(directory) / 'data-00000-of-00003.index.npy'
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'shape': (5,), }            ", b"'shape': (500000000000,), } "))
    assert path.read_bytes() != content
    with pytest.raises(RecordError, match=r'4000000000000 bytes, is announced; 40 bytes follow'):
        RecordSource(directory)


def test_a_record_of_another_schema_with_a_valid_sum_is_named(directory, tmp_path):
    """Bytes whose CRC fits and that are no record of this schema, as a stranger can write them."""
    schema = Schema('other', {'audio': Feature((2,), 'int16')}, Label('classes', ('a',)))
    with RecordWriter(tmp_path / 'other', schema, num_shards=3) as writer:
        for number in range(12):
            writer.write({'id': str(number), 'label': 0, 'audio': np.ones(2, np.int16)})
    for path in (tmp_path / 'other').glob('data-*'):
        (directory / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RecordError, match=r"record 0 \(id 'clip_000'\) is not what features.json says"):
        RecordSource(unseal(directory))[0]


def test_a_shard_cut_short_during_a_run_is_an_error(directory):
    """A mapped file would end the process by SIGBUS."""
    code = (
        'import os, sys; from mmer_jax.data.records import RecordSource; s = RecordSource(sys.argv[1]); s[0]\n'
        'os.truncate(s.directory / s.shards[0]["file"], 100)\n'
        'try: s[9]\n'
        'except ValueError as error: print(error)'
    )
    done = subprocess.run([sys.executable, '-c', code, directory], capture_output=True, text=True, check=True)
    assert 'data-00000-of-00003.tfrecord, record 9' in done.stdout
    assert 'was cut short since it was opened' in done.stdout


def test_opening_reads_no_shard(directory):
    """It compares sizes, so that a large data set opens at once (benchmarks/input_pipeline.py); `verify` reads all."""
    shards = sorted(directory.glob('*.tfrecord'))
    for shard in shards:
        size = shard.stat().st_size
        os.truncate(shard, 0)
        os.truncate(shard, size)  # zeros
    assert len(RecordSource(directory)) == 12
    assert len(records.verify(directory)) >= len(shards)
