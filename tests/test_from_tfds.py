"""data_prep.from_tfds: directories in the layout of TensorFlow Datasets -> shards; what it says of damaged ones.

Directories that TFDS itself wrote, with TensorFlow, were tried by hand: docs/commands.md.
"""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from tensorflow_datasets import features

from data_prep import from_tfds
from mmer_jax.data.protocols import make_folds
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.data.tfds_directory import Described, read_directory
from mmer_jax.data.tfrecord import frame
from mmer_jax.readers import Clip, from_info
from tests.test_tfds_metadata import write as write_shards
from tests.tfds_corpus import NAMES, NEW, OLD, RATE, samples_of, write_corpus

SPEAKERS = [*['1001'] * 2, *['1002'] * 2, *['1003'] * 2, *['1004'] * 2]


def prepare(source, output, *flags):
    return from_tfds.main([f'--source={source}', f'--output={output}', '--workers=0', '--audio=waveform', *flags])


def by_number(source):
    """{number of the example as it was written: (record, its row of the manifest)}: lengths tell them apart."""
    rows = [{name: column[n] for name, column in source.manifest.items()} for n in range(len(source))]
    return {(len(source[n]['audio']) - 1200) // 160: (source[n], rows[n]) for n in range(len(source))}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp('tfds') / 'crema_d' / '1.0.0')


@pytest.mark.parametrize('kind', ['tfrecord', 'array_record', 'old'])
def test_samples_labels_speakers_and_splits_are_those_of_tfds(tmp_path, capsys, kind):
    """Both formats of shards, and both ways in which versions of TFDS wrote features.json."""
    corpus = write_corpus(tmp_path / 'in', array_record=kind == 'array_record', described=OLD if kind == 'old' else NEW)
    assert prepare(corpus, tmp_path / 'data') == 0
    said = capsys.readouterr().out
    assert '8 clips of 4 speakers' in said
    assert 'label: NEU 2, HAP 2, SAD 1, ANG 1, FEA 1, DIS 1' in said
    assert 'splits of TFDS (the official split): train 4, validation 2, test 2' in said
    assert 'skipped: 0' in said
    source = RecordSource(tmp_path / 'data')
    assert verify(source.directory) == []
    assert source.schema.label.names == NAMES
    found = by_number(source)
    assert sorted(found) == list(range(8))
    for number, (record, row) in found.items():
        np.testing.assert_array_equal(record['audio'], samples_of(number))
        assert record['label'] == number % 6
        assert row['speaker'] == SPEAKERS[number]
        assert row['split'] == row['tfds_split'] == ['train', 'train', 'validation', 'test'][number // 2]
    file_format = 'array_record' if kind == 'array_record' else 'tfrecord'
    assert source.manifest['id'][2] == f'crema_d-train.{file_format}-00001-of-00002__0'  # TFDS's own tfds_id
    (fold,) = make_folds(source.manifest, 'by_what_is_known')
    assert (len(fold.train), len(fold.validation), len(fold.test), fold.marks) == (4, 2, 2, ())


def test_sound_is_read_as_that_of_a_wav_file_and_prediction_reads_it_so(corpus, tmp_path):
    flags = ['--sample_rate=8000', '--offset=0.02', '--duration=0.1']  # resampled and cut, as features are
    assert prepare(corpus, tmp_path / 'data', *flags) == 0
    source = RecordSource(tmp_path / 'data')
    (reader,) = from_info(json.loads(json.dumps(source.schema.info)), ('audio',))
    assert reader.feature() == source.schema.features['audio']
    soundfile.write(tmp_path / 'x.wav', samples_of(0), RATE, subtype='PCM_16')
    first = next(n for n in range(8) if source[n]['label'] == 0 and source.manifest['speaker'][n] == '1001')
    np.testing.assert_array_equal(source[first]['audio'], reader.read(Clip('x', tmp_path / 'x.wav')).array)


def test_speaker_folds_leave_the_splits_out(corpus, tmp_path, capsys):
    assert prepare(corpus, tmp_path / 'data', '--speaker_folds', '--name=mine') == 0
    assert 'splits of TFDS (not used: folds are over speakers)' in capsys.readouterr().out
    source = RecordSource(tmp_path / 'data')
    assert source.schema.name == 'mine'
    folds = make_folds(source.manifest, 'by_what_is_known')
    assert len(folds) == 4
    for fold in folds:
        assert not set(source.manifest['speaker'][fold.train]) & set(source.manifest['speaker'][fold.test])


def test_what_has_no_label_no_samples_or_silence_is_skipped_and_named(tmp_path, capsys):
    def change(number, example):
        if number == 1:
            example['label'] = np.int64(-1)
        if number == 2:
            example['audio'] = np.zeros(0, np.int64)
        if number == 3:
            example['audio'] = np.zeros(1000, np.int64)
        return example

    assert prepare(write_corpus(tmp_path / 'in', change=change), tmp_path / 'data') == 0
    said = capsys.readouterr().out
    assert 'skipped: 3' in said
    for reason in ('no label', 'no samples', 'nothing to store'):
        assert f'1  {reason}: crema_d-train.tfrecord-' in said
    assert len(RecordSource(tmp_path / 'data')) == 5


def test_numbers_channels_and_sound_files_are_taken_too(tmp_path, capsys):
    """A label of one float, two channels, and a sound kept as the file it was (lazy_decode)."""
    file = io.BytesIO()
    soundfile.write(file, samples_of(3), RATE, format='FLAC', subtype='PCM_16')
    of = {'audio': features.Text(), 'label': features.Scalar(np.float32)}
    stereo = np.stack([samples_of(3), samples_of(3)], 1).astype(np.int64)
    for name, kind, value, settings in (
        ('lazy', features.Text(), file.getvalue(), {'shape': [None], 'dtype': 'int64', 'lazy_decode': True}),
        ('stereo', features.Tensor(shape=(None, 2), dtype=np.int64), stereo, {'shape': [None, 2], 'dtype': 'int64'}),
    ):
        entry = {'type': 'x.Audio', 'content': {**settings, 'sample_rate': None}}
        number = {'type': 'x.Tensor', 'content': {'shape': [], 'dtype': 'float32'}}
        corpus = write_corpus(tmp_path / name, described={**OLD, 'content': {'audio': entry, 'label': number}})
        encoder = features.FeaturesDict({**of, 'audio': kind})
        for path in corpus.glob('*.tfrecord*'):
            count = 2 if 'train' in path.name else 1
            path.write_bytes(frame(encoder.serialize_example({'audio': value, 'label': np.float32(0.25)})) * count)
        output = tmp_path / f'{name}_data'
        if name == 'stereo':
            assert prepare(corpus, output) == 1
            assert 'no sample rate' in capsys.readouterr().err
        assert prepare(corpus, output, *([f'--source_rate={RATE}'] if name == 'stereo' else [])) == 0
        source = RecordSource(output)
        np.testing.assert_array_equal(source[0]['audio'], samples_of(3))
        assert (source.schema.label.kind, source[5]['label']) == ('regression', 0.25)
        shown = capsys.readouterr().out
        assert 'label: numbers from 0.25 to 0.25' in shown


def test_what_features_json_says_is_what_tfds_reads_in_it(tmp_path):
    """On a shard directory of ours, whose features TFDS makes without TensorFlow, since it has no Audio."""
    directory = write_shards(tmp_path / 'data')
    ours, theirs = read_directory(directory), tfds.builder_from_directory(directory).info
    assert list(ours.splits) == list(theirs.splits)
    assert [path for path, _ in ours.splits['records']] == [Path(path) for path in theirs.splits['records'].filepaths]
    assert set(ours.features) == set(theirs.features)
    assert ours.class_names('label') == tuple(theirs.features['label'].names)
    for key, feature in ours.features.items():
        if feature.kind == 'Tensor':
            assert (feature.shape, np.dtype(feature.dtype)) == (
                theirs.features[key].shape,
                theirs.features[key].np_dtype,
            )
    assert Described('Audio', {'sampleRate': '8000'}).get('sample_rate') == '8000'


def edit(name, old, new):
    def change(path):
        file = path / name
        content = file.read_bytes()
        assert old in content
        file.write_bytes(content.replace(old, new, 1))

    return change


def cut(path):
    file = path / 'crema_d-train.tfrecord-00000-of-00002'
    file.write_bytes(file.read_bytes()[:-20])


def flip(path):
    file = path / 'crema_d-test.tfrecord-00001-of-00002'
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ('change', 'flags', 'said'),
    [
        (lambda path: (path / 'dataset_info.json').unlink(), [], r'has no dataset_info.json; expected the folder'),
        (lambda path: (path / 'features.json').unlink(), [], r'features.json is missing'),
        (edit('features.json', b'{', b'['), [], r'features.json is damaged'),
        (edit('features.json', b'FeaturesDict', b'Sequence'), [], r'it describes a Sequence, not a FeaturesDict'),
        (edit('features.json', b'16000', b'16k'), [], r"features.json is damaged .*'16k'"),
        (edit('dataset_info.json', b'splits', b'slips'), [], r"dataset_info.json is damaged .*'splits'"),
        (edit('dataset_info.json', b'{DATASET}', b'../{DATASET}'), [], r'lies outside'),
        (edit('dataset_info.json', b'{DATASET}', b'{DATASET.x}'), [], r'DATASET.x.* is missing; dataset_info'),
        (edit('dataset_info.json', b'tfrecord', b'riegeli'), [], r'format riegeli; this reads tfrecord and'),
        (edit('dataset_info.json', b'"2"', b'"3"'), [], r'has 2 examples, dataset_info.json says 3'),
        (edit('label.labels.txt', b'DIS\n', b''), [], r'label.labels.txt has 5 names, features.json says 6 classes'),
        (cut, [], r'crema_d-train.tfrecord-00000-of-00002 is truncated'),
        (flip, [], r'00001-of-00002, example 0: CRC 0x.* bytes have changed; prepare it with'),
        (None, ['--label_key=emotion'], r"has no feature 'emotion': it has audio \(Audio\), label .*--label_key"),
        (None, ['--audio_key=label'], r"'label' is ClassLabel int64 \(\), expected an Audio of whole numbers"),
        (None, ['--label_key=speaker_id'], r"'speaker_id' is Tensor string \(\), expected a ClassLabel or one float"),
        (None, ['--speaker_key=audio'], r"'audio' is Audio int64 \(None,\), expected a text"),
        (edit('features.json', b'"16000"', b'"0"'), [], r"no sample rate of 'audio'; give it with --source_rate"),
        (edit('features.json', b'"int64"', b'"float32"'), [], r"'audio' is Audio float32"),
        (edit('features.json', b'"NONE"', b'"ZLIB"'), [], r'not compressed'),  # a few bytes may become gigabytes
        (edit('features.json', b'"16000"', b'"5000000000"'), [], r'sample rate .* found 5000000000, expected'),
        (edit('features.json', b'"6"', b'"60000000000"'), [], r"60000000000 classes of 'label', expected 1000 at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_and_nothing_is_written(tmp_path, capsys, change, flags, said):
    corpus = write_corpus(tmp_path / 'in')
    if change:
        change(corpus)
    assert prepare(corpus, tmp_path / 'data', *flags) == 1
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(shown) == 1
    assert str(tmp_path) in shown[0]
    assert re.search(said, shown[0]), shown[0]
    assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize(('at', 'said'), [(slice(-20, None), 'has 0 examples'), (slice(300, 301), 'hash mismatch')])
def test_a_damaged_array_record_is_one_line(tmp_path, capsys, at, said):
    corpus = write_corpus(tmp_path / 'in', array_record=True)
    path = corpus / 'crema_d-test.array_record-00001-of-00002'
    content = bytearray(path.read_bytes())
    content[at] = b'\xff' if at.stop else b''
    path.write_bytes(content)
    assert prepare(corpus, tmp_path / 'data') == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert path.name in errors[0]
    assert said in errors[0]


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('label', np.int64(6), r'example 0: label is 6, expected 0 to 5 (NEU, HAP, SAD, ANG, FEA, DIS)'),
        ('audio', np.array([0, 70000]), r'has values from 0 to 70000, expected samples of 16 bits'),
    ],
)
def test_examples_beyond_what_the_metadata_say_are_one_line(tmp_path, capsys, key, value, said):
    def change(number, example):
        return {**example, key: value} if number == 5 else example

    assert prepare(write_corpus(tmp_path / 'in', change=change), tmp_path / 'data') == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'data').exists()


def test_the_folder_above_is_told_where_the_version_lies(corpus, tmp_path, capsys):
    assert prepare(corpus.parents[1], tmp_path / 'data') == 1
    assert f'has no dataset_info.json; give {corpus}' in capsys.readouterr().err
