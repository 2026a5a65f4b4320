"""TFDS's metadata beside a shard directory, opened by tfds's own builder and parser, those of numpy: no TensorFlow.

as_dataset, which needs TensorFlow, was tried by hand: docs/commands.md (mmer_jax.records) says with which versions.
"""

import json
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmer_jax.data import records
from mmer_jax.data.records import Feature, Label, RecordError, RecordSource, RecordWriter, Schema
from mmer_jax.files import sums
from mmer_jax.records import main as command

LABELS = {
    'classes': (Label('classes', ('calm', 'very angry', 'glad')), lambda n: n % 3),
    'regression': (Label('regression'), lambda n: n / 7 - 1),
    'binary': (Label('binary', ('joy', 'fear')), lambda n: [n % 2, n // 2 % 2]),
}
FEATURES = {
    'text': Feature((None, 4), description='word vectors', optional=True),
    'audio': Feature((None,), 'int16', optional=True),
    'vision': Feature((None, 6, 5, 3), 'uint8', 'jpeg', optional=True),
    'face': Feature((6, 5, 1), 'uint8', 'jpeg'),
    'mouth': Feature((6, 5, 3), 'uint8', 'jpeg', optional=True),
    'values': Feature((3,)),
    'vector': Feature((3,), optional=True),
    'counts': Feature((2, 2), 'uint8'),
    'odd': Feature((2,), 'uint32'),
}


def write(directory, kind='classes', count=7, shards=3):
    generator = np.random.default_rng(0)
    label, of = LABELS[kind]
    with RecordWriter(directory, Schema('mine', FEATURES, label), num_shards=shards) as writer:
        for n in range(count):
            record = {
                'text': generator.standard_normal((2 + n, 4)).astype(np.float32) if n % 4 else None,
                'audio': generator.integers(-32768, 32768, 5 * n).astype(np.int16) if n else None,
                'vision': generator.integers(0, 256, (1 + n % 3, 6, 5, 3)).astype(np.uint8) if n % 3 else None,
                'face': generator.integers(0, 256, (6, 5, 1)).astype(np.uint8),
                'mouth': generator.integers(0, 256, (6, 5, 3)).astype(np.uint8) if n % 2 else None,
                'values': generator.standard_normal(3).astype(np.float32),
                'vector': generator.standard_normal(3).astype(np.float32) if n % 2 else None,
                'counts': generator.integers(0, 256, (2, 2)).astype(np.uint8),
                'odd': np.array([n, 2**31 + n], np.uint32),
            }
            writer.write({'id': f'clip_{n}', 'label': of(n), **record}, speaker=f's{n}')
    return directory


@pytest.mark.parametrize('kind', LABELS)
def test_tfds_opens_a_shard_directory_and_reads_the_same_records(tmp_path, kind):
    """Sequences of unequal length, missing ones, pictures, 16-bit sound; each label; a shard with no record."""
    directory = write(tmp_path / 'data', kind, shards=9)
    builder, source = tfds.builder_from_directory(directory), RecordSource(directory)
    split = builder.info.splits['records']
    assert (builder.name, split.num_examples) == ('mine', len(source))
    assert split.shard_lengths == [shard['records'] for shard in source.shards]
    assert [str(path) for path in split.filepaths] == [str(directory / shard['file']) for shard in source.shards]
    features = builder.info.features
    for number in range(len(source)):
        ours, theirs = source[number], features.deserialize_example_np(source.read_bytes(number))
        assert theirs.pop('id').decode() == ours['id']
        assert theirs.pop('odd') == ours['odd'].astype('<u4').tobytes()  # no dtype that TFDS decodes
        for key, found in theirs.items():
            expected = ours[key]
            if key in ('vector', 'mouth'):  # an axis of steps: 0 or 1
                expected = expected.reshape(-1, *FEATURES[key].shape)
            if key in ('vision', 'mouth') and not len(expected):  # the parser of TensorFlow gives (0, 6, 5, 3)
                found = np.reshape(found, (0, 6, 5, 3)).astype(np.uint8)
            assert np.shape(found) == expected.shape, key
            np.testing.assert_array_equal(found, expected, key)
            if key != 'label':
                assert np.asarray(found).dtype == expected.dtype, key
    label = features['label']
    assert label.np_dtype == {'classes': np.int64, 'regression': np.float32, 'binary': np.int64}[kind]
    if kind == 'classes':
        assert label.names == ['calm', 'very angry', 'glad']
    else:
        assert not (directory / 'label.labels.txt').exists()
    assert features['text'].doc.desc == 'word vectors'


@pytest.mark.parametrize('names', [('a', ' b'), ('a', 'b\nc'), ('a', 'a'), ('a', '')])
def test_names_that_tfds_cannot_read_from_lines_are_left_out(tmp_path, names):
    schema = Schema('mine', {'audio': Feature((None, 2))}, Label('classes', names))
    with RecordWriter(tmp_path / 'data', schema) as writer:
        writer.write({'id': 'a', 'label': 1, 'audio': np.zeros((1, 2), np.float32)})
    assert tfds.builder_from_directory(tmp_path / 'data').info.features['label'].names == ['0', '1']


def test_sums_cover_the_metadata_and_seal_writes_them_anew(tmp_path, capsys):
    directory = write(tmp_path / 'data')
    files = json.loads((directory / 'features.json').read_text())['files']
    assert {'dataset_info.json', 'label.labels.txt'} < set(files)
    assert records.verify(directory) == []
    for name in ('dataset_info.json', 'label.labels.txt'):
        whole = (directory / name).read_bytes()
        (directory / name).write_bytes(whole.replace(b'a', b'b'))  # of the same size: verify reads it
        assert [name in fault for fault in records.verify(directory)] == [True]
        (directory / name).unlink()
        with pytest.raises(RecordError, match=rf'{name} is missing: write it anew: python -m mmer_jax.records seal'):
            RecordSource(directory)
        assert command(['seal', str(directory)]) == 0
        assert (directory / name).read_bytes() == whole
    assert records.verify(directory) == []
    assert json.loads((directory / 'features.json').read_text())['files'] == files
    capsys.readouterr()


def test_a_directory_without_metadata_is_read_and_gets_them_by_seal(tmp_path, capsys):
    """As versions before 0.3 wrote it, and as some of 0.3 did: with sums, without metadata."""
    directory = write(tmp_path / 'data')
    before = {name: (directory / name).read_bytes() for name in ('dataset_info.json', 'label.labels.txt')}
    for name in before:
        (directory / name).unlink()
    path = directory / 'features.json'
    content = json.loads(path.read_text())
    names = set(content['files']) - set(before)
    for older in (
        sums.seal(content, directory, names),
        {k: v for k, v in content.items() if k not in ('files', 'sha256')},
    ):
        path.write_text(json.dumps(older))
        assert len(RecordSource(directory)) == 7
        assert records.verify(directory) == []
        assert command(['seal', str(directory)]) == 0
        assert {name: (directory / name).read_bytes() for name in before} == before
        assert records.verify(directory) == []
        for name in before:
            (directory / name).unlink()
    (directory / 'dataset_info.json').write_text('{"name": "of somebody else"}')
    path.write_text(json.dumps(older))
    assert command(['seal', str(directory)]) == 1
    assert 'dataset_info.json is not of this toolkit: it is not replaced' in capsys.readouterr().err
    assert 'somebody' in (directory / 'dataset_info.json').read_text()


def test_overwrite_replaces_its_own_metadata_and_no_others(tmp_path):
    directory = write(tmp_path / 'data')
    schema = RecordSource(directory).schema
    record = RecordSource(directory)[1]
    with RecordWriter(directory, schema, overwrite=True) as writer:
        writer.write(record)
    assert os.listdir(tmp_path) == ['data']  # nothing is left of the old one
    assert tfds.builder_from_directory(directory).info.splits['records'].num_examples == 1
    path = directory / 'features.json'
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in ('files', 'sha256')}))
    with pytest.raises(FileExistsError, match=r'also holds dataset_info.json, label.labels.txt'):
        RecordWriter(directory, schema, overwrite=True)
