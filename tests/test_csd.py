"""data_prep.csd and data_prep.cmu_sdk on small files of the SDK's format: cutting, every kind of bad input, shards."""

import json

import h5py
import numpy as np
import pytest

from data_prep import cmu_sdk, csd
from data_prep.pool import PreparationError
from mmer_jax.data.protocols import make_folds
from mmer_jax.data.records import RecordSource, read_manifest, verify
from mmer_jax.media import MediaError
from tests.conftest import SHARED_DATA


def write_csd(path, videos, root='Sequence'):
    """{video: (features, intervals)} -> an HDF5 file; a str list becomes (T, 1) bytes, as in the published files."""
    with h5py.File(path, 'w') as file:
        file.create_dataset(f'{root}/metadata/root name', data=[b'asdf'])
        for video, (features, intervals) in videos.items():
            if len(features) and isinstance(features[0], str):
                features = np.array([word.encode() for word in features])[:, None]
            file[f'{root}/data/{video}/features'] = features
            file[f'{root}/data/{video}/intervals'] = intervals
    return path


def write_glove(path, words, size=4, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((len(words), size)).round(4)
    path.write_text(''.join(f'{w} {" ".join(map(str, v))}\n' for w, v in zip(words, vectors, strict=True)))
    return path


# ---- the reader ----------------------------------------------------------------------------------------------


def test_reads_numbers_and_words_video_by_video(tmp_path):
    times = [[0, 1], [1, 2.5]]
    numbers = write_csd(
        tmp_path / 'a.csd', {'v1': (np.arange(6.0).reshape(2, 3), times), 'v2': (np.ones((1, 3)), [[0, 9]])}
    )
    with csd.Sequence(numbers) as sequence:
        assert (sequence.videos, sequence.size, sequence.is_text) == (('v1', 'v2'), 3, False)
        features, intervals = sequence.read('v1')
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, [[0, 1, 2], [3, 4, 5]])
        np.testing.assert_array_equal(intervals, times)
        with pytest.raises(KeyError, match='v3'):
            sequence.read('v3')
    words = write_csd(tmp_path / 'w.csd', {'v1': (['sp', 'café'], times)})
    with csd.Sequence(words) as sequence:
        assert sequence.is_text
        assert sequence.read('v1')[0].tolist() == ['sp', 'café']


def test_a_video_without_steps_is_empty_and_does_not_decide_the_size(tmp_path):
    path = write_csd(tmp_path / 'a.csd', {'v0': (np.zeros(0), np.zeros(0)), 'v1': (np.ones((1, 3)), [[0, 9]])})
    with csd.Sequence(path) as sequence:
        assert sequence.size == 3
        assert [part.shape for part in sequence.read('v0')] == [(0, 3), (0, 2)]


def test_too_large_for_float32_becomes_infinite_without_a_warning(tmp_path):
    path = write_csd(tmp_path / 'a.csd', {'v': (np.array([[1e300]]), [[0, 1]])})
    with csd.Sequence(path) as sequence:
        assert np.isinf(sequence.read('v')[0]).all()


INTERVALS = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])


def test_segment_takes_what_overlaps():
    letters = np.array(list('abcd'))
    found, times = csd.segment(letters, INTERVALS, 1.5, 3.0)  # d only touches the end
    assert found.tolist() == ['b', 'c']
    np.testing.assert_allclose(times, [[0, 0.5], [0.5, 1.5]])
    assert csd.segment(letters, INTERVALS, 9, 10)[0].tolist() == []
    assert csd.segment(letters, INTERVALS, 2.5, 2.5)[0].tolist() == ['c']  # CMU-MOSI has a segment of no duration


def test_segment_sorts_keeps_overlapping_steps_and_ignores_steps_without_time():
    intervals = np.array([[3, 4], [np.nan, 1], [0, 2], [1, 3], [-np.inf, np.inf], [2, 2], [4, 4]])
    found, times = csd.segment(np.array(list('abcdefg')), intervals, 0, 4)
    assert found.tolist() == ['c', 'd', 'f', 'a']
    np.testing.assert_array_equal(times, [[0, 2], [1, 3], [2, 2], [3, 4]])


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (lambda p: p.write_text('version https://git-lfs.github.com/spec/v1\nsize 9\n'), 'git-LFS pointer'),
        (lambda p: p.write_text('\n<!DOCTYPE html><html>Sign in</html>'), 'HTML page'),
        (lambda p: p.write_bytes(b''), 'empty file'),
        (lambda p: p.write_bytes(b'PK\x03\x04...'), 'zip archive'),
        (lambda p: p.write_text('just text'), 'not an HDF5 file'),
        (lambda p: p.mkdir(), 'a folder'),
        (lambda p: None, 'no such file'),
        (lambda p: h5py.File(p, 'w').close(), 'at its top: nothing'),
        (lambda p: write_csd(p, {}), 'at its top: Sequence'),
        (lambda p: h5py.File(p, 'w').create_group('r/data').file.close(), 'no videos'),
        (
            lambda p: h5py.File(p, 'w').create_dataset('r/data/v/features', data=np.ones((2, 3))).file.close(),
            'intervals missing',
        ),
        (
            lambda p: h5py.File(p, 'w').create_dataset('r/data/v/intervals', data=np.ones((2, 2))).file.close(),
            'features missing',
        ),
        (
            lambda p: write_csd(p, {'v': (np.ones((2, 3)), np.ones((3, 2)))}),
            r'features \(2, 3\) and intervals \(3, 2\)',
        ),
        (lambda p: write_csd(p, {'v': (np.ones((2, 3)), np.ones(2))}), r'intervals \(2,\)'),
        (lambda p: write_csd(p, {'v': (np.ones((2, 3, 4)), np.ones((2, 2)))}), r'features \(2, 3, 4\)'),
    ],
)
def test_bad_files_are_named(tmp_path, write, message):
    path = tmp_path / 'bad.csd'
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        csd.Sequence(path)
    assert str(path) in str(error.value)


def test_truncated_and_overwritten_files_are_named(tmp_path):
    path = write_csd(tmp_path / 'a.csd', {f'v{n}': (np.ones((50, 3)), np.ones((50, 2))) for n in range(9)})
    whole = path.read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f'{path.name}: truncated'):
            csd.Sequence(path)
    path.write_bytes(whole[:512] + bytes(len(whole) - 512))
    with pytest.raises(ValueError, match=f'{path.name}: (damaged|not a computational)'):
        csd.Sequence(path)


def test_a_later_video_of_another_shape_is_named(tmp_path):
    path = write_csd(
        tmp_path / 'a.csd', {'v1': (np.ones((2, 3)), INTERVALS[:2]), 'v2': (np.ones((2, 4)), INTERVALS[:2])}
    )
    with (
        csd.Sequence(path) as sequence,
        pytest.raises(ValueError, match=r'v2/features is \(2, 4\).*expected numbers \(T, 3\)'),
    ):
        sequence.read('v2')


# ---- folds ---------------------------------------------------------------------------------------------------

FOLDS = {'standard_train_fold': ['v1', 'v2'], 'standard_valid_fold': ['v3'], 'standard_test_fold': ['v4']}


def test_folds_as_json_and_as_the_sdk_writes_them(tmp_path):
    expected = {'v1': 'train', 'v2': 'train', 'v3': 'validation', 'v4': 'test'}
    (tmp_path / 'f.json').write_text(json.dumps(FOLDS))
    assert csd.read_folds(tmp_path / 'f.json') == expected
    lines = [f'{key}={value!r}' for key, value in FOLDS.items()]
    (tmp_path / 'f.py').write_text('\n'.join(['raise SystemExit("never run")', *lines]))
    assert csd.read_folds(tmp_path / 'f.py') == expected


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({**FOLDS, 'standard_test_fold': ['v4', 'v1']}, "'v1' is in train and in test"),
        ({**FOLDS, 'standard_test_fold': []}, 'standard_test_fold'),
        ({**FOLDS, 'standard_valid_fold': [3]}, 'standard_valid_fold'),
        ({'train': ['v1']}, 'it has: train'),
        (['v1'], 'it has: list'),
        ('{', 'cannot be read as JSON; line 1: '),
    ],
)
def test_bad_folds(tmp_path, content, message):
    (tmp_path / 'f.json').write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises((PreparationError, MediaError), match=message):
        csd.read_folds(tmp_path / 'f.json')


# ---- non-finite values ---------------------------------------------------------------------------------------


def test_nonfinite_values_are_replaced_or_refused():
    array = np.array([[1, np.nan], [3, -np.inf], [np.inf, np.nan]], np.float32)
    parts = [array, np.array([[5, np.nan]], np.float32)]
    zero, count = cmu_sdk.replace_nonfinite(array, cmu_sdk.make_fill('zero', parts), 'x')
    assert count == 4
    np.testing.assert_array_equal(zero, [[1, 0], [3, 0], [0, 0]])
    mean, _ = cmu_sdk.replace_nonfinite(array, cmu_sdk.make_fill('mean', parts), 'x')
    np.testing.assert_array_equal(mean, [[1, 0], [3, 0], [3, 0]])
    assert mean.dtype == zero.dtype == np.float32
    vector, _ = cmu_sdk.replace_nonfinite(array[2], cmu_sdk.make_fill('mean', parts), 'x')
    np.testing.assert_array_equal(vector, [3, 0])
    with pytest.raises(PreparationError, match='v1, audio: 4 of 6'):
        cmu_sdk.replace_nonfinite(array, cmu_sdk.make_fill('refuse', parts), 'v1, audio')
    assert cmu_sdk.replace_nonfinite(zero, None, 'x') == (zero, 0)
    with pytest.raises(ValueError, match='median'):
        cmu_sdk.make_fill('median', parts)


# ---- sequences -> shards -------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """MOSEI-like files: v1 to v4 in the folds and v9 in none; faults in v2's segments; v5 in the folds, unlabelled."""
    labels = {f'v{n}': (np.tile([n - 2.4, 1, 0, 2 / 3, 0, 0, 0], (2, 1)), [[0, 2], [2, 4]]) for n in (1, 3, 4, 9)}
    target = np.tile([0.5, 0, 0, 0, 0, 0, 1], (6, 1))
    target[4, 0] = np.nan
    labels['v2'] = (target, [[2, 4], [0, 2], [50, 60], [4, 6], [0, 2], [3, 1]])  # not in the order of time
    words = {v: (['the', 'sp', 'Film', 'zyx'], INTERVALS) for v in labels}
    words['v2'] = (['the', 'sp', 'Film', 'zyx', 'sp'], np.vstack([INTERVALS, [[4, 6]]]))
    frames = np.arange(40).reshape(40, 1) / 10 + [[0, 0.1]]
    audio = {v: (np.stack([np.arange(40.0), np.ones(40)], axis=1), frames.copy()) for v in labels if v != 'v4'}
    audio['v1'][0][3] = [-np.inf, np.nan]
    audio['v3'][1][5] = np.nan
    vision = {v: (np.full((4, 3), n), INTERVALS[::-1]) for n, v in enumerate(labels, start=1)}
    folds = {**FOLDS, 'standard_test_fold': ['v4', 'v5']}
    (tmp_path / 'folds.json').write_text(json.dumps(folds))
    return {
        'labels': write_csd(tmp_path / 'labels.csd', labels, 'All Labels'),
        'words': write_csd(tmp_path / 'words.csd', words, 'words'),
        'audio': write_csd(tmp_path / 'audio.csd', audio, 'COVAREP'),
        'vision': write_csd(tmp_path / 'vision.csd', vision, 'FACET 4.2'),
        'glove': write_glove(tmp_path / 'glove.txt', ['film', 'other', 'the']),
        'folds': tmp_path / 'folds.json',
    }


def run(files, output, *options, leave_out=(), dataset='mosei'):
    arguments = [text for key, path in files.items() if key not in leave_out for text in (f'--{key}', str(path))]
    return cmu_sdk.main(['--dataset', dataset, '--output', str(output), '--num_shards', '2', *arguments, *options])


def test_records_are_cut_by_time(files, tmp_path, capsys):
    assert run(files, tmp_path / 'out', leave_out=['audio']) == 0
    assert verify(tmp_path / 'out') == []
    source = RecordSource(tmp_path / 'out')
    assert source.schema.name == 'mosei_text_vision'
    assert {key: feature.shape for key, feature in source.schema.features.items()} == {
        'text': (None, 4),
        'vision': (None, 3),
    }
    manifest = source.manifest
    assert manifest['id'].tolist() == [
        *('v1[0]', 'v1[1]', 'v2[0]', 'v2[1]', 'v3[0]', 'v3[1]', 'v4[0]', 'v4[1]'),
    ]
    assert manifest['split'].tolist() == ['train'] * 4 + ['validation'] * 2 + ['test'] * 2
    assert manifest['speaker'].tolist()[:3] == ['v1', 'v1', 'v2']
    assert manifest['text'].tolist()[:4] == ['the', 'Film zyx', 'Film zyx', 'the']
    assert (manifest['label'][0], manifest['start'][2], manifest['end'][2]) == ('-1.4', '2.0', '4.0')
    assert manifest['length_text'].tolist()[:4] == [1, 2, 2, 1]
    assert manifest['length_vision'].tolist()[:4] == [2, 2, 2, 2]
    vectors = {line.split()[0]: line.split()[1:] for line in files['glove'].read_text().splitlines()}
    expected = np.array([vectors['film'], ['0'] * 4]).astype(np.float32)  # Film in lower case, zyx without a vector
    np.testing.assert_array_equal(source[1]['text'], expected)
    printed = capsys.readouterr().out
    for line in (
        '8 segments of 4 videos',
        'train 4, validation 2, test 2',
        'words: 12, of which 66.7% have a vector (most missed: zyx 4)',
        'not finite: none',
        'videos of the folds without labels: 1 (v5)',
        'skipped: 5',
        'the video is in no fold: v9',
        'no words in the segment: v2[2], v2[3]',
        'the label is not finite: v2[4]',
        'the label has no usable time: v2[5]',
    ):
        assert line in printed, line
    fold = make_folds(manifest, 'official_split')[0]
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [4, 2, 2]


def test_audio_is_cleaned_counted_and_missing_audio_skips(files, tmp_path, capsys):
    assert run(files, tmp_path / 'out', '--nonfinite', 'mean', '--times') == 0
    source = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    assert source.manifest['id'].tolist() == ['v1[0]', 'v1[1]', 'v2[0]', 'v2[1]', 'v3[0]', 'v3[1]']
    record = source[0]
    assert record['audio'].shape == (20, 2)
    of_training = np.delete(np.arange(80) % 40, 3)  # the frames of v1 and v2
    np.testing.assert_allclose(record['audio'][3], [of_training.mean(), 1], rtol=1e-6)
    np.testing.assert_allclose(source[1]['audio_times'][[0, -1]], [[0, 0.1], [1.9, 2]], atol=1e-6)
    np.testing.assert_allclose(source[1]['text_times'], [[0, 1], [1, 2]])
    np.testing.assert_allclose(source[1]['vision_times'], [[0, 1], [1, 2]])  # sorted by time
    assert source.manifest['length_audio'].tolist() == [20, 20, 20, 20, 19, 20]
    printed = capsys.readouterr().out
    assert 'not finite: audio 2' in printed
    assert 'without a finite time, left out: audio 1' in printed
    assert 'the video has no audio: v4[0], v4[1]' in printed
    assert 'configs/mfsa_mosei.py' in printed


def test_a_modality_of_zeros_is_missing_with_its_times(files, tmp_path, capsys):
    """v1 has no face (zeros), v3 words without a vector; the other modalities and records are as they were."""
    with csd.Sequence(files['vision']) as vision:
        content = {name: vision.read(name) for name in vision.videos}
    content['v1'][0][:] = 0
    files['vision'] = write_csd(tmp_path / 'zeros.csd', content)
    assert run(files, tmp_path / 'before', '--times') == 0
    with csd.Sequence(files['words']) as words:
        content = {name: words.read(name) for name in words.videos}
    content['v3'][0][:] = 'zyx'
    files['words'] = write_csd(tmp_path / 'zyx.csd', content)
    assert run(files, tmp_path / 'out', '--times') == 0
    assert verify(tmp_path / 'out') == []
    source, before = RecordSource(tmp_path / 'out'), RecordSource(tmp_path / 'before')
    assert source.manifest['length_vision'].tolist() == [0, 0, 2, 2, 2, 2]
    assert source.manifest['length_text'][4:].tolist() == [0, 0]
    assert (source[0]['vision'].shape, source[0]['vision_times'].shape) == ((0, 3), (0, 2))
    assert (source[4]['text'].shape, source[4]['text_times'].shape) == ((0, 4), (0, 2))
    for key in ('audio', 'audio_times', 'text', 'text_times'):
        np.testing.assert_array_equal(source[0][key], before[0][key])
    printed = capsys.readouterr().out
    assert 'vision is missing (zeros throughout; masked in batches): 2\n      v1[0], v1[1]' in printed
    assert 'text is missing (zeros throughout; masked in batches): 2\n      v3[0], v3[1]' in printed


def test_emotions_pauses_and_dropped_words(files, tmp_path, capsys):
    options = ('--label', 'emotions', '--keep_pauses', '--unknown', 'drop')
    assert run(files, tmp_path / 'out', *options, leave_out=['audio', 'vision']) == 0
    source = RecordSource(tmp_path / 'out')
    assert source.schema.label.names == cmu_sdk.EMOTIONS
    assert source[0]['label'].tolist() == [1, 0, 1, 0, 0, 0]
    assert source[2]['label'].tolist() == [0, 0, 0, 0, 0, 1]
    lengths = dict(zip(source.manifest['id'].tolist(), source.manifest['length_text'].tolist(), strict=True))
    assert (lengths['v1[0]'], lengths['v1[1]']) == (2, 1)  # the sp; Film zyx
    np.testing.assert_array_equal(source[0]['text'][1], np.zeros(4))
    assert source.manifest['text'][0] == 'the'


def test_a_segment_of_dropped_words_only_is_skipped(files, tmp_path, capsys):
    write_glove(files['glove'], ['film'])
    assert run(files, tmp_path / 'out', '--unknown', 'drop', leave_out=['audio', 'vision']) == 0
    assert 'no word with a vector in the segment: v1[0]' in capsys.readouterr().out
    assert 'v1[0]' not in read_manifest(tmp_path / 'out' / 'manifest.csv')['id']


def test_files_that_the_sdk_has_aligned(files, tmp_path, capsys):
    """After `align`, every key is one segment; sequences that are still whole are cut by time."""
    labels = {f'v{n}[{k}]': (np.full((1, 7), 1.0), [[2 * k, 2 * k + 2]]) for n in (1, 3, 4) for k in (0, 1)}
    files['labels'] = write_csd(tmp_path / 'aligned.csd', labels)
    files['vision'] = write_csd(
        tmp_path / 'aligned_vision.csd', {v: (np.ones((1, 3)), times) for v, (_, times) in labels.items()}
    )
    assert run(files, tmp_path / 'out', leave_out=['audio']) == 0
    manifest = read_manifest(tmp_path / 'out' / 'manifest.csv')
    assert manifest['id'].tolist() == list(labels)
    assert manifest['speaker'].tolist() == ['v1', 'v1', 'v3', 'v3', 'v4', 'v4']
    assert manifest['length_vision'].tolist() == [1] * 6
    assert manifest['text'].tolist()[:2] == ['the', 'Film zyx']


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (None, ['--nonfinite', 'refuse'], 'v1[0], audio: 2 of 40'),
        (None, ['--label', 'emotions', '--dataset', 'mosi'], 'only mosei has emotions'),
        (None, ['--dataset', 'mosi'], 'labels.csd has 7 numbers a segment, expected 1'),
        (lambda f: f['folds'].write_text(json.dumps({key: [key] for key in FOLDS})), [], 'folds of another data set'),
        (
            lambda f: write_csd(f['words'], {'v1': (np.ones((2, 3)), INTERVALS[:2])}),
            [],
            '3 numbers a step, expected words',
        ),
        (lambda f: write_csd(f['audio'], {'v1': (['a'], [[0, 1]])}), [], 'holds words, expected numbers for --audio'),
        (lambda f: write_glove(f['glove'], ['nothing']), [], 'a vector for none of the'),
        (lambda f: f['vision'].write_text('version https://git-lfs.github.com/spec/v1'), [], 'git-LFS pointer'),
        (lambda f: write_csd(f['words'], {'v1': (['the'], [[90, 91]])}), [], 'no usable segment'),
    ],
)
def test_mistakes_end_in_one_sentence_and_no_output(files, tmp_path, capsys, change, options, message):
    if change:
        change(files)
    assert run(files, tmp_path / 'out', *options) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ')
    assert message in error
    assert not (tmp_path / 'out').exists()


def test_an_existing_output_is_kept_unless_told(files, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    assert run(files, tmp_path / 'out') == 1
    assert '--overwrite' in capsys.readouterr().err
    assert run(files, tmp_path / 'out', '--overwrite') == 0


def test_the_real_mosi_sequences(tmp_path, capsys):
    """Three videos: one with a segment of no duration, one whose segments are not in the order of time."""
    source = SHARED_DATA / 'mosi'
    if not source.is_dir():
        pytest.skip(f'the real CMU-MOSI files are not here ({source})')
    names = ['2WGyTLYerpo', 'VbQk4H8hgr0', '03bSnISJMiM']
    (tmp_path / 'folds.json').write_text(json.dumps({key: [v] for key, v in zip(csd.FOLDS, names, strict=True)}))
    files = {
        'labels': source / 'CMU_MOSI_Opinion_Labels.csd',
        'words': source / 'CMU_MOSI_ModifiedTimestampedWords.csd',
        'glove': source / 'glove.subset.300d.txt',
        'folds': tmp_path / 'folds.json',
    }
    assert run(files, tmp_path / 'out', dataset='mosi') == 0
    manifest = read_manifest(tmp_path / 'out' / 'manifest.csv')
    count = {name: int(np.sum(manifest['speaker'] == name)) for name in names}
    with csd.Sequence(files['labels']) as labels:
        assert count == {name: len(labels.read(name)[0]) for name in names}
    place = manifest['id'].tolist().index('2WGyTLYerpo[43]')
    assert (manifest['start'][place], manifest['text'][place]) == (manifest['end'][place], 'shes')
    assert (manifest['text'][0], manifest['label'][0]) == ('get her anyhow it was really', '2.4')
    assert 'the video is in no fold: ' in capsys.readouterr().out
