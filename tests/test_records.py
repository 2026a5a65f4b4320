"""Shard directories: round trip, other readers, atomic writing, and every kind of damage named."""

import json
import os
import signal
import subprocess
import sys
import time

import grain
import numpy as np
import pytest

from mmer_jax.data import records
from mmer_jax.data.records import Feature, Label, RecordError, RecordSource, RecordWriter, Schema
from mmer_jax.records import main as command
from tests.conftest import REPOSITORY, write_dataset

SCHEMA = Schema(
    'mixed',
    {
        'audio': Feature((None, 3)),
        'vision': Feature((4,)),
        'pcm': Feature((None,), 'int16'),
        'frames': Feature((None, 2, 2), 'uint8'),
    },
    Label('classes', ('calm', 'happy')),
    info={'rate': 16000},
)


def record(number, steps=3):
    generator = np.random.default_rng(number)
    return {
        'id': f'r{number}',
        'label': number % 2,
        'audio': generator.standard_normal((steps, 3)).astype(np.float32),
        'vision': generator.standard_normal(4).astype(np.float32),
        'pcm': generator.integers(-32768, 32767, steps, dtype=np.int16),
        'frames': generator.integers(0, 255, (steps, 2, 2), dtype=np.uint8),
    }


@pytest.fixture
def directory(tmp_path):
    with RecordWriter(tmp_path / 'mixed', SCHEMA, num_shards=3) as writer:
        for number in range(10):
            writer.write(record(number, steps=number + 1), speaker=f's{number % 3}', session='1', split='train')
    return tmp_path / 'mixed'


def test_round_trip_of_every_dtype(directory):
    source = RecordSource(directory)
    assert len(source) == 10
    for number in range(10):
        expected, found = record(number, steps=number + 1), source[number]
        assert found['id'] == expected['id']
        assert found['label'] == expected['label']
        for key in SCHEMA.features:
            np.testing.assert_array_equal(found[key], expected[key])
            assert found[key].dtype == expected[key].dtype


def test_schema_and_manifest_come_back(directory):
    source = RecordSource(directory)
    assert source.schema == SCHEMA
    assert source.manifest['length_audio'].tolist() == list(range(1, 11))
    assert source.manifest['speaker'].tolist() == [f's{n % 3}' for n in range(10)]
    assert list(source.manifest)[:6] == ['record', 'id', 'label', 'speaker', 'session', 'split']


def test_other_readers_open_the_shards(directory):
    shards = sorted(directory.glob('*.tfrecord'))
    by_grain = [data for path in shards for data in grain.experimental.TFRecordIterDataset(str(path))]
    ids = {SCHEMA.decode(data)['id'] for data in by_grain}
    assert ids == {f'r{n}' for n in range(10)}


@pytest.mark.parametrize('kind', ['classes', 'regression', 'binary'])
def test_labels_of_every_kind(tiny_of_kind, kind):
    source = RecordSource(tiny_of_kind[kind])
    label = source[3]['label']
    assert label.shape == ((2,) if kind == 'binary' else ())
    assert source.schema.label.num_outputs == {'classes': 3, 'regression': 1, 'binary': 4}[kind]


def test_a_source_can_be_pickled_with_open_files(directory):
    import pickle

    source = RecordSource(directory)
    first = source[0]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[0]['audio'], first['audio'])


def test_verify_passes_and_command_line_says_so(directory, capsys):
    assert command(['verify', str(directory)]) == 0
    assert '10 records in 3 shards, 0 faults' in capsys.readouterr().out
    assert command(['show', str(directory)]) == 0


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(bytes(data))


def test_a_flipped_byte_is_refused_and_named(directory, capsys):
    flip(directory / 'data-00001-of-00003.tfrecord', 40)  # in the first record of shard 1: record 1
    source = RecordSource(directory)
    with pytest.raises(RecordError, match=r"data-00001-of-00003.tfrecord, record 1 \(id 'r1'\): CRC 0x"):
        source[1]
    assert source[0]['id'] == 'r0'
    assert command(['verify', str(directory)]) == 1
    assert '1 faults' in capsys.readouterr().out


def test_every_single_flipped_byte_is_found(tmp_path):
    schema = Schema('x', {'audio': Feature((2,))}, Label('classes', ('a', 'b')))
    with RecordWriter(tmp_path / 'x', schema, num_shards=1) as writer:
        writer.write({'id': 'only', 'label': 1, 'audio': np.ones(2, np.float32)})
    path = tmp_path / 'x' / 'data-00000-of-00001.tfrecord'
    whole = path.read_bytes()
    for position in range(len(whole)):
        flip(path, position)
        with pytest.raises(RecordError):
            RecordSource(tmp_path / 'x')[0]
        path.write_bytes(whole)


def test_a_truncated_shard_is_refused(directory):
    path = directory / 'data-00002-of-00003.tfrecord'
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RecordError, match=rf'has {size - 7} bytes, expected {size}'):
        RecordSource(directory)
    with pytest.raises(RecordError, match='truncated'):
        records.build_index(path)


def test_a_shard_without_index_is_refused_and_can_be_mended(directory, capsys):
    index = directory / 'data-00000-of-00003.index.npy'
    before = np.load(index)
    index.unlink()
    with pytest.raises(RecordError, match='python -m mmer_jax.records index'):
        RecordSource(directory)
    assert command(['index', str(directory)]) == 0
    np.testing.assert_array_equal(np.load(index), before)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda d: [p.unlink() for p in d.iterdir()] and d, 'has no features.json'),
        (lambda d: d / 'elsewhere', 'is missing'),
        (lambda d: (d / 'manifest.csv').unlink() or d, 'manifest.csv is missing'),
        (lambda d: (d / 'features.json').write_text('{') and d, 'is damaged'),
        (lambda d: (d / 'data-00000-of-00003.tfrecord').unlink() or d, 'data-00000-of-00003.tfrecord is missing'),
        (
            lambda d: np.save(d / 'data-00000-of-00003.index.npy', np.arange(3)) or d,
            'rebuild it: python -m mmer_jax.rec',
        ),
    ],
)
def test_missing_or_damaged_parts_are_named(directory, damage, message):
    with pytest.raises(RecordError, match=message):
        RecordSource(damage(directory))


def test_a_manifest_that_lost_rows_is_refused(directory):
    path = directory / 'manifest.csv'
    path.write_text(''.join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(RecordError, match=r'manifest.csv has \d+ bytes, expected \d+: bring it back'):
        RecordSource(directory)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'audio': np.full((2, 3), np.nan, np.float32)}, r"'bad', feature 'audio' has 6 NaN and 0 infinite of 6"),
        ({'audio': np.array([[1, -np.inf, 2]], np.float32)}, r'0 NaN and 1 infinite'),
        ({'audio': np.zeros((2, 4), np.float32)}, r'has shape \(2, 4\), expected \(None, 3\)'),
        ({'audio': np.zeros((2, 3))}, r'has dtype float64, expected float32'),
        ({'audio': np.zeros((0, 3), np.float32)}, 'is empty'),
        ({'label': 2}, r'in 0..1, found'),
        ({'label': 0.5}, r'must be int'),
        ({'surplus': 1}, r'has the keys'),
    ],
)
def test_wrong_records_are_refused_before_anything_is_kept(tmp_path, change, message):
    with pytest.raises(RecordError, match=message), RecordWriter(tmp_path / 'out', SCHEMA) as writer:
        writer.write(record(0))
        writer.write({**record(1), 'id': 'bad', **change})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_feature_is_none_and_comes_back_as_no_steps(tmp_path):
    """Sequences and vectors of every encoding; what is not optional cannot be missing."""
    features = {
        'audio': Feature((None, 3), optional=True),
        'vector': Feature((4,), optional=True),
        'pcm': Feature((None,), 'int16', optional=True),
        'codes': Feature((2,), 'int64', optional=True),
        'always': Feature((None, 2)),
    }
    schema = Schema('x', features, Label('regression'))
    full = {key: np.ones([n or 2 for n in f.shape], f.dtype) for key, f in features.items()}
    none = {key: None for key in features if key != 'always'}
    with RecordWriter(tmp_path / 'x', schema, num_shards=2) as writer:
        writer.write({'id': 'full', 'label': 0.5, **full})
        writer.write({'id': 'none', 'label': 0.5, **none, 'always': full['always']})
        writer.write(
            {'id': 'empty', 'label': 0.5, **{key: features[key].missing() for key in none}, 'always': full['always']}
        )
        with pytest.raises(RecordError, match="feature 'always' is None, but the feature is not optional"):
            writer.write({'id': 'bad', 'label': 0.5, **full, 'always': None})
        with pytest.raises(RecordError, match="feature 'always' is empty: a sequence needs at least one step"):
            writer.write({'id': 'bad', 'label': 0.5, **full, 'always': np.zeros((0, 2), np.float32)})
        with pytest.raises(RecordError, match=r"feature 'vector' has shape \(0, 5\), expected \(4,\)"):
            writer.write({'id': 'bad', 'label': 0.5, **full, 'vector': np.zeros((0, 5), np.float32)})
    source = RecordSource(tmp_path / 'x')
    assert source.schema == schema
    assert records.verify(tmp_path / 'x') == []
    for key, feature in features.items():
        assert source[0][key].shape == full[key].shape
        if key in none:
            lengths = [2 if feature.is_sequence else 1, 0, 0]
            assert source.manifest[f'length_{key}'].tolist() == lengths
            assert source[1][key].shape == source[2][key].shape == (0, *feature.step_shape)
            assert source[1][key].dtype == np.dtype(feature.dtype)


def test_schemas_without_optional_features_are_written_as_before(directory):
    content = json.loads((directory / 'features.json').read_text())
    assert set(content['features']['audio']) == {'shape', 'dtype', 'encoding', 'description'}


def test_repeated_ids_and_empty_output_are_refused(tmp_path):
    with pytest.raises(RecordError, match="'r0' was written before"), RecordWriter(tmp_path / 'a', SCHEMA) as writer:
        writer.write(record(0))
        writer.write(record(0))
    with pytest.raises(RecordError, match='no record was written'), RecordWriter(tmp_path / 'b', SCHEMA):
        pass
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept_unless_overwritten(directory):
    before = json.loads((directory / 'features.json').read_text())
    with pytest.raises(FileExistsError, match='--overwrite'):
        RecordWriter(directory, SCHEMA)
    with pytest.raises(RuntimeError, match='interrupted'), RecordWriter(directory, SCHEMA, overwrite=True) as writer:
        writer.write(record(0))
        raise RuntimeError('interrupted')
    assert json.loads((directory / 'features.json').read_text()) == before
    with RecordWriter(directory, SCHEMA, overwrite=True) as writer:
        writer.write(record(5))
    assert len(RecordSource(directory)) == 1
    assert [p.name for p in directory.parent.iterdir()] == [directory.name]


KILLED = """
import sys, time
sys.path.insert(0, {repository!r})
from tests.test_records import SCHEMA, record
from mmer_jax.data.records import RecordWriter
with RecordWriter({output!r}, SCHEMA) as writer:
    for number in range(1000000):
        writer.write(record(number))
        if number == 20:
            print('writing', flush=True)
"""


def test_a_killed_writer_leaves_nothing_that_looks_like_data(tmp_path):
    output = tmp_path / 'data' / 'out'
    script = KILLED.format(repository=str(REPOSITORY), output=str(output))
    process = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'writing\n'
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not output.exists()
    leftover = list(output.parent.iterdir())
    assert {path.name for path in leftover} == {'.out.incomplete', '.out.lock'}
    with pytest.raises(RecordError, match='is missing'):
        RecordSource(output)
    write_dataset(output)  # the next run clears what the killed one left
    assert [p.name for p in output.parent.iterdir()] == ['out']


def test_schema_mistakes_are_named():
    with pytest.raises(ValueError, match=r'only the first axis'):
        Feature((3, None))
    with pytest.raises(ValueError, match=r"or 'values' with float32"):
        Feature((None,), 'int16', encoding='values')
    with pytest.raises(ValueError, match='the known ones are classes, regression, binary'):
        Label('class', ('a',))
    with pytest.raises(ValueError, match='needs the names'):
        Label('classes')
