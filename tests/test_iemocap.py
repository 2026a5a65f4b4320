"""data_prep.iemocap on a small release: the right half at the right time, labels, folds, every fault named."""

import contextlib
import dataclasses
import re
import shutil

import av
import numpy as np
import pytest
import soundfile

from data_prep import iemocap, iemocap_layout
from data_prep.pool import PreparationError
from mmer_jax.data.protocols import make_folds
from mmer_jax.data.records import RecordSource, verify
from tests import iemocap_release
from tests.iemocap_release import BLUE, LENGTH, POINTER, RED, green, write_release, write_tokenizer
from tests.test_announced import write_media

LOSS = 40  # what MPEG-4, JPEG and half the colour resolution may change of a value; RED and BLUE differ by 200


@pytest.fixture(scope='module')
def release(tmp_path_factory):
    """(folder with IEMOCAP_full_release in it, {id: Spoken})."""
    folder = tmp_path_factory.mktemp('iemocap')
    return folder, {one.id: one for one in write_release(folder / 'IEMOCAP_full_release')}


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp('weights') / 'tiny_bert')


@pytest.fixture
def copied(release, tmp_path):
    """A copy to damage: (folder, {id: Spoken with its paths in the copy})."""
    original, copy = release[0] / 'IEMOCAP_full_release', tmp_path / 'release'
    shutil.copytree(original, copy)

    def moved(one):
        files = {name: copy / getattr(one, name).relative_to(original) for name in ('wav', 'avi')}
        return dataclasses.replace(one, **files)

    return copy, {identity: moved(one) for identity, one in release[1].items()}


def run(source, output, *options):
    settings = ['--workers', 0, '--num_shards', 2, '--size', 16, '--num_frames', 3, *options]
    return iemocap.main(list(map(str, ['--source', source, '--output', output, *settings])))


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope='module')
def prepared(release, tokenizer, tmp_path_factory):
    """(records of all three modalities, what was printed)."""
    output, printed = tmp_path_factory.mktemp('prepared') / 'out', tmp_path_factory.mktemp('log') / 'out.txt'
    with open(printed, 'w') as file, contextlib.redirect_stdout(file):
        assert run(release[0], output, '--tokenizer', tokenizer) == 0
    return RecordSource(output), printed.read_text()


# ---- what is written -----------------------------------------------------------------------------------------


def test_four_classes_of_five_sessions(release, prepared):
    records, printed = prepared
    manifest = records.manifest
    assert verify(records.directory) == []
    assert records.schema.name == 'iemocap_raw'
    assert records.schema.label.names == ('neutral', 'happy', 'angry', 'sad')
    assert list(records.schema.features) == ['text', 'audio', 'vision']
    expected = [one for one in release[1].values() if one.label in ('neu', 'hap', 'exc', 'ang', 'sad')]
    expected.sort(key=lambda one: one.id[:5])  # the dialogs were written in order
    assert manifest['id'].tolist() == [one.id for one in expected]
    label = {'neu': 0, 'hap': 1, 'exc': 1, 'ang': 2, 'sad': 3}
    assert manifest['label'].astype(int).tolist() == [label[one.label] for one in expected]
    assert manifest['emotion'].tolist() == [one.label for one in expected]
    assert '50 utterances of 10 speakers' in printed
    assert 'by class: neutral 10, happy 20, angry 10, sad 10' in printed
    assert 'by session: Session1 10, Session2 10, Session3 10, Session4 10, Session5 10' in printed
    assert re.search(r'left out, of no class: .*no agreement \(xxx\) 10', printed)
    assert 'note: the full release has 5531: neutral 1708, happy 1636, angry 1103, sad 1084' in printed
    assert 'skipped: 0' in printed
    assert f'next: python -m mmer_jax.records verify {records.directory}' in printed
    command = f'--config=configs/bert_iemocap.py --config.data.directory={records.directory}'
    assert f'{command} --config.pretrained.encoder=' in printed


def test_columns(prepared):
    manifest = prepared[0].manifest
    row = {
        name: str(column[manifest['id'].tolist().index('Ses04M_script01_1_F001')]) for name, column in manifest.items()
    }
    expected = {'speaker': 'Ses04F', 'session': 'Session4', 'split': 'validation', 'dialog': 'Ses04M_script01_1'}
    assert row.items() >= (expected | {'emotion': 'ang', 'text': 'so, good bad so.'}).items()
    numbers = {'start': 2.8, 'end': 3.4, 'valence': 2.7, 'activation': 3.25, 'dominance': 4.0, 'duration': LENGTH}
    assert {name: float(row[name]) for name in numbers} == pytest.approx(numbers)


def test_folds_by_session(prepared):
    manifest = prepared[0].manifest
    (fold,) = make_folds(manifest, 'official_split')
    parts = ('train', 'validation', 'test')
    of_sessions = {name: sorted(set(manifest['session'][getattr(fold, name)].tolist())) for name in parts}
    expected = {'train': ['Session1', 'Session2', 'Session3'], 'validation': ['Session4'], 'test': ['Session5']}
    assert (of_sessions, fold.marks) == (expected, ())
    folds = make_folds(manifest, 'leave_sessions_out')
    assert [sorted(set(manifest['session'][fold.test].tolist())) for fold in folds] == [
        [f'Session{number}'] for number in range(1, 6)
    ]
    for fold in folds:
        assert (len(fold.train), len(fold.validation), len(fold.test), fold.marks) == (30, 10, 10, ())


@pytest.mark.parametrize(
    ('identity', 'left'),
    [
        ('Ses01F_impro01_F000', True),
        ('Ses01F_impro01_M000', False),
        ('Ses05M_script01_1_F000', False),
        ('Ses05M_script01_1_M001', True),
    ],
)
def test_the_half_of_the_speaker_at_the_time_of_the_utterance(release, prepared, identity, left):
    records = prepared[0]
    frames = records[records.manifest['id'].tolist().index(identity)]['vision'].astype(int)
    assert frames.shape == (3, 16, 16, 3)
    place = release[1][identity].place
    assert np.abs(frames - [RED if left else 0, green(place), 0 if left else BLUE]).max() < LOSS
    # Greens of neighbouring utterances are 20 apart, and 0 between them: the mean is far nearer to its own.
    assert frames[..., 1].mean((1, 2)) == pytest.approx(green(place), abs=9)


def test_whole_screen_and_frames_spread_over_the_utterance(release, tmp_path):
    assert run(release[0], tmp_path / 'out', '--modalities', 'vision', '--screen', 'whole', '--num_frames', 6) == 0
    records = RecordSource(tmp_path / 'out')
    assert (list(records.schema.features), records.schema.info['screen']) == (['vision'], 'whole')
    frames = records[1]['vision'].astype(int)
    assert frames.shape == (6, 16, 16, 3)
    edge = 2  # JPEG blurs the seam in the middle
    place = release[1][records[1]['id']].place
    assert np.abs(frames[:, :, : 8 - edge] - [RED, green(place), 0]).max() < LOSS
    assert np.abs(frames[:, :, 8 + edge :] - [0, green(place), BLUE]).max() < LOSS
    assert records.manifest['distinct_frames'].tolist() == ['6'] * len(records)  # 0.6 s at 10 frames a second


def test_scaled_by_the_short_side_and_cropped_in_the_centre():
    columns = np.broadcast_to(np.arange(90, dtype=np.uint8)[None, :, None], (30, 90, 3))
    frames = np.stack([columns, columns + 100])
    resized = iemocap.resize(frames, 30)
    np.testing.assert_array_equal(resized, frames[:, :, 30:60])
    upright = np.ascontiguousarray(frames.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(iemocap.resize(upright, 30), upright[:, 30:60])
    assert iemocap.resize(frames, 60).shape == (2, 60, 60, 3)
    even = iemocap.resize(frames, 15)[0, 0, :, 0].astype(int)  # columns 30 to 59, every second one
    np.testing.assert_allclose(even, 30.5 + 2 * np.arange(15), atol=1)


def test_sound_is_the_wav_itself_cut_and_resampled(release, copied, tmp_path, capsys):
    first, other, short, long = (f'Ses02F_impro01_{name}' for name in ('F000', 'M000', 'F001', 'M001'))
    paths = copied[1]
    iemocap_release.write_wav(paths[other].wav, LENGTH, 44100, pitch=240)
    iemocap_release.write_wav(paths[short].wav, 0.3)
    iemocap_release.write_wav(paths[long].wav, 0.9)
    loud = np.array([32767, -32768, 0, 12345] * 100, np.int16)
    soundfile.write(paths['Ses02F_impro01_F002'].wav, loud, 16000)
    assert run(copied[0], tmp_path / 'out', '--modalities', 'audio', '--max_seconds', 0.5) == 0
    records = RecordSource(tmp_path / 'out')
    place = {identity: number for number, identity in enumerate(records.manifest['id'].tolist())}
    assert verify(tmp_path / 'out') == []
    stored = {name: records[place[name]]['audio'] for name in (first, other, short, long, 'Ses02F_impro01_F002')}
    assert {name: (len(array), array.dtype) for name, array in stored.items()} == {
        first: (8000, np.int16),
        other: (8000, np.int16),  # 22,050 samples resampled
        short: (4800, np.int16),
        long: (8000, np.int16),
        'Ses02F_impro01_F002': (400, np.int16),
    }
    samples, _ = soundfile.read(release[1][first].wav, dtype='int16')
    np.testing.assert_array_equal(stored[first], samples[:8000])
    np.testing.assert_array_equal(stored['Ses02F_impro01_F002'], loud)
    same = 16384 * np.sin(2 * np.pi * 240 * np.arange(8000) / 16000)  # the tone of the 44.1 kHz file
    assert np.abs(stored[other] - same)[100:-100].max() < 100
    assert float(records.manifest['duration'][place[short]]) == pytest.approx(0.3)
    printed = capsys.readouterr().out
    assert f'sound shorter than the evaluation says: 2\n      {short}: 0.300 s of 0.500 s\n' in printed
    assert 'configs/bert_iemocap.py' not in printed  # it needs text


def test_text_is_the_ids_of_the_tokenizer(prepared, tokenizer):
    records = prepared[0]
    words = (tokenizer / 'vocab.txt').read_text().split()
    number = records.manifest['id'].tolist().index('Ses03M_script01_1_F001')
    record = records[number]
    assert record['text'].dtype == np.int32
    assert [words[i] for i in record['text']] == ['[CLS]', 'so', ',', 'good', 'bad', 'so', '.', '[SEP]']
    assert records.schema.info['tokenizer'] == 'tiny_bert'


@pytest.mark.parametrize(
    ('classes', 'count', 'names'),
    [
        ('six', 60, ('neutral', 'happy', 'angry', 'sad', 'excited', 'frustrated')),
        ('all', 70, iemocap.Settings(classes='all').class_names),
    ],
)
def test_more_classes(release, tokenizer, tmp_path, capsys, classes, count, names):
    options = ['--modalities', 'text', '--tokenizer', tokenizer, '--classes', classes]
    assert run(release[0], tmp_path / 'out', *options) == 0
    records = RecordSource(tmp_path / 'out')
    assert (len(records), records.schema.label.names) == (count, names)
    label = dict(zip(records.manifest['emotion'].tolist(), records.manifest['label'].astype(int).tolist(), strict=True))
    assert 'xxx' not in label
    assert {code: names[place] for code, place in label.items()} == {
        code: iemocap_layout.EMOTIONS[code] for code in label
    }
    assert 'no agreement (xxx) 10' in capsys.readouterr().out


def test_counts_of_the_full_release():
    """Published counts: 5,531 for the four classes; 10,039 evaluations with 2,507 without agreement."""
    assert sum(iemocap.RELEASE_FOUR.values()) == 5531
    assert sum(iemocap.RELEASE.values()) == 10039 - 2507
    assert set(iemocap.RELEASE) == set(iemocap.CLASSES['all'])
    assert sum(iemocap.RELEASE[code] for code in iemocap.CLASSES['four']) == 5531
    assert sum(iemocap.RELEASE[code] for code in iemocap.CLASSES['six']) == 7380


def test_the_same_bytes_by_any_number_of_workers_and_from_the_inner_folder(release, prepared, tokenizer, tmp_path):
    options = ['--tokenizer', tokenizer, '--workers', 2]
    assert run(release[0] / 'IEMOCAP_full_release', tmp_path / 'out', *options) == 0
    assert contents(tmp_path / 'out') == contents(prepared[0].directory)


# ---- what cannot be used -------------------------------------------------------------------------------------


def skipped_lines(printed):
    """{reason: names} of the summary."""
    found = re.findall(r'^ +\d+  ([^:]+): (.*)$', printed.split('skipped: ')[1], flags=re.MULTILINE)
    return {reason: names.split(', ') for reason, names in found}


def test_files_that_cannot_be_used_are_named_and_the_rest_is_prepared(copied, tokenizer, tmp_path, capsys):
    folder, paths = copied
    paths['Ses01F_impro01_F000'].wav.unlink()
    paths['Ses01F_impro01_M000'].wav.write_text(POINTER)
    transcripts = folder / 'Session1' / 'dialog' / 'transcriptions' / 'Ses01F_impro01.txt'
    transcripts.write_text(re.sub(r'Ses01F_impro01_F001 .*\n', '', transcripts.read_text()))
    paths['Ses02F_impro01_F000'].avi.write_text(POINTER)
    paths['Ses02M_script01_1_F000'].avi.unlink()
    damaged = paths['Ses03F_impro01_F000'].avi
    damaged.write_bytes(b'RIFF' + bytes(range(256)) * 20)
    shutil.rmtree(folder / 'Session5')
    for path in (folder / 'Session4' / 'dialog' / 'EmoEvaluation').glob('Ses*.txt'):
        path.unlink()
    assert run(folder, tmp_path / 'out', '--tokenizer', tokenizer) == 0
    skipped = skipped_lines(capsys.readouterr().out)
    four = ['F000', 'M000', 'F001', 'M001', 'F002']
    assert skipped == {
        'missing session': ['Session5'],
        'no EmoEvaluation files': ['Session4'],
        'no wav of the utterance': ['Ses01F_impro01_F000'],
        'no transcript': ['Ses01F_impro01_F001'],
        'no avi of the dialog': [f'Ses02M_script01_1_{name}' for name in four],
        'cannot be decoded': [f'Ses03F_impro01_{name}' for name in four],
        'git-LFS pointer': ['Ses01F_impro01_M000', 'Ses02F_impro01_F000', 'Ses02F_impro01_M000']
        + ['Ses02F_impro01_F001', 'Ses02F_impro01_M001 and 1 more'],
    }
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    assert sorted(set(records.manifest['dialog'].tolist())) == [
        'Ses01F_impro01',
        'Ses01M_script01_1',
        'Ses03M_script01_1',
    ]
    assert len(records) == 2 + 5 + 5


def test_only_the_files_of_what_is_stored_are_needed(copied, tmp_path, capsys):
    folder, _ = copied
    for session in folder.iterdir():
        shutil.rmtree(session / 'dialog' / 'avi')
        shutil.rmtree(session / 'dialog' / 'transcriptions')
    assert run(folder, tmp_path / 'out', '--modalities', 'audio') == 0
    assert 'skipped: 0' in capsys.readouterr().out
    assert len(RecordSource(tmp_path / 'out')) == 50


def test_lines_that_cannot_be_used_are_named(copied):
    folder, _ = copied
    path = folder / 'Session1' / 'dialog' / 'EmoEvaluation' / 'Ses01F_impro01.txt'
    lines = {
        'evaluation line of another form': '[9.0 - ]\tSes01F_impro01_F100\tneu\t[2.5, 2.5, 2.5]',
        'the id is not that of an utterance': '[9.0 - 9.5]\tnobody\tneu\t[2.5, 2.5, 2.5]',
        "the id's session is not the folder's": '[9.0 - 9.5]\tSes02F_impro01_F100\tneu\t[2.5, 2.5, 2.5]',
        'unknown label': '[9.0 - 9.5]\tSes01F_impro01_F101\tbored\t[2.5, 2.5, 2.5]',
        'the end is not after the start': '[9.5 - 9.5]\tSes01F_impro01_F102\tneu\t[2.5, 2.5, 2.5]',
        'a second evaluation of the same utterance': '[9.0 - 9.5]\tSes01F_impro01_F000\tsad\t[2.5, 2.5, 2.5]',
    }
    path.write_text(path.read_text() + '\n'.join(lines.values()) + '\n')
    (path.parent / 'Ses01M_script01_1.txt').write_text(POINTER)
    transcripts = folder / 'Session1' / 'dialog' / 'transcriptions' / 'Ses01F_impro01.txt'
    transcripts.write_bytes(transcripts.read_bytes().replace(b'good, good.', b'Caf\xe9.'))  # not UTF-8
    utterances, skipped = iemocap_layout.list_utterances(folder)
    assert [result.reason for _, result in skipped] == [*lines, 'git-LFS pointer']
    assert all(str(path) in result.detail for _, result in skipped[:-1])
    assert skipped[0][0].startswith('Ses01F_impro01.txt:')
    assert skipped[-1][0] == 'EmoEvaluation/Ses01M_script01_1.txt'
    first = next(one for one in utterances if one.id == 'Ses01F_impro01_F000')
    assert (first.emotion, first.text) == ('neu', 'Caf\xe9.')
    assert len(utterances) == 80 - 8


def test_video_that_ends_early(copied, tmp_path, capsys):
    """Utterances behind its end are named, the one it ends in is kept and counted."""
    folder, paths = copied
    spans = [(1.2, 1.8, green(0)), (2.0, 2.6, green(1))]
    iemocap_release.write_avi(paths['Ses01F_impro01_F000'].avi, 2.3, spans)
    assert run(folder, tmp_path / 'out', '--modalities', 'vision') == 0
    printed = capsys.readouterr().out
    behind = ['Ses01F_impro01_F001', 'Ses01F_impro01_M001', 'Ses01F_impro01_F002']
    assert skipped_lines(printed) == {'start beyond the end': behind}
    assert 'pictures end before the utterance: 1\n      Ses01F_impro01_M000: 0.300 s of 0.600 s\n' in printed
    manifest = RecordSource(tmp_path / 'out').manifest
    seconds = dict(zip(manifest['id'].tolist(), manifest['video_seconds'].astype(float).tolist(), strict=True))
    assert seconds['Ses01F_impro01_M000'] == pytest.approx(0.3)
    assert seconds['Ses01F_impro01_F000'] == pytest.approx(LENGTH)


def test_silence_and_black_pictures_are_missing(copied, tmp_path, capsys):
    folder, paths = copied
    soundfile.write(paths['Ses01F_impro01_F000'].wav, np.zeros(9600), 16000)
    with av.open(str(paths['Ses02F_impro01_F000'].avi), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 48, 'yuv420p'
        for _ in range(90):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 96, 3), np.uint8), format='rgb24')))
        container.mux(stream.encode(None))
    assert run(folder, tmp_path / 'out', '--modalities', 'audio', 'vision') == 0
    printed = capsys.readouterr().out
    assert 'audio is missing (silence; masked in batches): 1\n      Ses01F_impro01_F000\n' in printed
    assert 'vision is missing (black pictures; masked in batches): 5\n      Ses02F_impro01_F000, ' in printed
    records = RecordSource(tmp_path / 'out')
    lengths = {
        m: dict(zip(records.manifest['id'], records.manifest[f'length_{m}'], strict=True)) for m in ('audio', 'vision')
    }
    assert [name for name, length in lengths['audio'].items() if not length] == ['Ses01F_impro01_F000']
    assert [lengths['vision'][f'Ses02F_impro01_{k}'] for k in ('F000', 'M000', 'F001', 'M001', 'F002')] == [0] * 5
    assert sum(lengths['vision'].values()) == 3 * 45
    assert verify(tmp_path / 'out') == []


def test_a_dialog_that_is_cut_is_refused_with_both_lengths(copied, tmp_path, capsys):
    folder, paths = copied
    avi = paths['Ses01F_impro01_F000'].avi
    write_media(avi, 'mpeg4', None, 16000, seconds=8.0)
    avi.write_bytes(avi.read_bytes()[: avi.stat().st_size // 2])
    for session in ('Session2', 'Session3', 'Session4', 'Session5'):
        shutil.rmtree(folder / session)
    paths['Ses01M_script01_1_F000'].avi.unlink()
    assert run(folder, tmp_path / 'out', '--modalities', 'vision') == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf'the first cause: {avi}: truncated; 8\.000 s announced, [1-5]\.\d+ s found', error), error
    assert 'no avi of the dialog (5), truncated (5)' in error


def test_existing_output_and_failure(release, tmp_path, capsys, monkeypatch):
    output = tmp_path / 'out'
    audio = ['--modalities', 'audio']
    assert run(release[0], output, *audio) == 0
    before = contents(output)
    assert run(release[0], output, *audio) == 1
    assert '--overwrite' in capsys.readouterr().err
    read, calls = iemocap.read_utterance, []

    def stop(job):
        calls.append(job)
        if len(calls) > 5:
            raise OSError('disk')
        return read(job)

    monkeypatch.setattr(iemocap, 'read_utterance', stop)
    assert run(release[0], output, *audio, '--max_seconds', 0.2, '--overwrite') == 1
    assert 'error: disk' in capsys.readouterr().err
    assert contents(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    monkeypatch.undo()
    assert run(release[0], output, *audio, '--max_seconds', 0.2, '--overwrite') == 0
    assert set(RecordSource(output).manifest['length_audio'].tolist()) == {3200}


def test_source_folders(release, tmp_path):
    assert iemocap_layout.find_release(release[0]).name == 'IEMOCAP_full_release'
    with pytest.raises(PreparationError, match='is missing'):
        iemocap_layout.find_release(tmp_path / 'nothing')
    with pytest.raises(PreparationError, match='found none'):
        iemocap_layout.find_release(tmp_path)
    for name in ('one', 'two'):
        (tmp_path / name / 'Session1').mkdir(parents=True)
    with pytest.raises(PreparationError, match='found 2 folders with them'):
        iemocap_layout.find_release(tmp_path)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'text needs --tokenizer NAME'),
        (['--modalities', 'audio', '--tokenizer', 'x'], 'needs text among --modalities'),
        (
            ['--modalities', 'audio', '--max_seconds', 0.01],
            '--max_seconds: found 0.01, expected a finite number of at least 0.1, or 0',
        ),
        (['--modalities', 'vision', '--num_frames', 0], '--num_frames: found 0, expected a whole number'),
        (['--modalities', 'smell'], 'invalid choice'),
    ],
)
def test_senseless_options(release, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run(release[0], tmp_path / 'out', *options)
    assert message in capsys.readouterr().err


def test_mistakes_end_in_one_sentence_and_no_output(release, tmp_path, capsys):
    assert run(release[0], tmp_path / 'out', '--tokenizer', tmp_path / 'no_model') == 1
    assert 'no_model' in capsys.readouterr().err
    empty = tmp_path / 'empty'
    (empty / 'Session1').mkdir(parents=True)
    assert run(empty, tmp_path / 'out', '--modalities', 'audio') == 1
    error = capsys.readouterr().err
    assert 'no usable utterance' in error
    assert 'missing session (4), no EmoEvaluation files (1)' in error
    assert 'the first cause: expected .txt files in' in error
    assert [path.name for path in tmp_path.iterdir()] == ['empty']
