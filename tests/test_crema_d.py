"""data_prep.crema_d: both layouts, labels and votes, the human rows, every unusable file named."""

import re
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from data_prep import crema_d, crema_d_layout, ravdess_video
from data_prep.pool import PreparationError
from mmer_jax.data import protocols
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.media import audio, spectrogram_image
from tests.conftest import SHARED_DATA
from tests.test_video import levels

RATE = 16000
CODES = crema_d_layout.CODES
BAD_HERE = ('1064_TIE_SAD_XX', '1076_MTI_SAD_XX')
POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'
NAMES = (
    '1001_IEO_ANG_HI',
    '1001_TSI_NEU_XX',
    '1002_DFA_SAD_XX',
    '1002_IEO_HAP_LO',
    '1003_WSI_DIS_XX',
    '1003_WSI_FEA_XX',
)


def write_flv(path, frames=29, size=(48, 64)):
    """Flash video at 30 a second, as CREMA-D's: frame k is grey of level 10 (k % 25), red in its upper left quarter."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('flv', rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *size, 'yuv420p', 4_000_000
        stream.codec_context.time_base = stream.time_base = Fraction(1, 30)
        for number in range(frames):
            array = np.full((*size, 3), 10 * (number % 25), np.uint8)
            array[: size[0] // 2, : size[1] // 2] = (250, 20, 20)
            frame = av.VideoFrame.from_ndarray(array)
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_wav(path, seconds=1.0):
    """A tone that rises from 200 to 3,000 Hz."""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (200 * time + 1400 * time**2 / seconds)
    soundfile.write(path, 0.3 * np.sin(phase), RATE)
    return path


def write_tables(folder):
    """Demographics of three actors and votes: the last clip's tie for those who saw and heard it."""
    (folder / 'processedResults').mkdir(exist_ok=True)
    header = '"ActorID","Age","Sex","Race","Ethnicity"\n'
    people = '1001,51,"Male","Caucasian","Not Hispanic"\n1002,21,"Female","Asian","Hispanic"\n'
    (folder / 'VideoDemographics.csv').write_text(f'{header}{people}1003,40,"Female","Unknown","Not Hispanic"\n')
    lines = ['"","A","D","F","H","N","S","fileName","numResponses"']
    for prefix in (1, 2, 3):
        for number, name in enumerate(NAMES):
            counts = [prefix] * 6
            counts[(number + prefix) % 6] += 3 * (name != NAMES[-1] or prefix != 3)
            lines.append(f'"{prefix}{number + 1:05d}",{",".join(map(str, counts))},"{name}",9')
    (folder / 'processedResults' / 'tabulatedVotes.csv').write_text('\n'.join(lines) + '\n')
    names = [f'{number + 1},"{name}"' for number, name in enumerate([*NAMES, '1004_IEO_ANG_HI'])]
    (folder / 'SentenceFilenames.csv').write_text('\n'.join(['"Stimulus_Number","Filename"', *names]) + '\n')


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Three actors: six usable clips of one second, the last one half a second, and every kind of unusable file."""
    root = tmp_path_factory.mktemp('CREMA-D')
    for name in crema_d_layout.FOLDERS:
        (root / name).mkdir()
    wav, flv = (lambda name: root / 'AudioWAV' / f'{name}.wav'), (lambda name: root / 'VideoFlash' / f'{name}.flv')
    write_wav(wav(NAMES[0])), write_flv(flv(NAMES[0]))
    write_wav(wav(NAMES[5]), 0.5), write_flv(flv(NAMES[5]), 14)
    bad = (*BAD_HERE, '1005_IEO_ANG_LO', '1005_IEO_ANG_MD', '1005_IEO_ANG_HI')
    for name in (*NAMES[1:5], *bad, '1092_IEO_ANG_HI'):
        shutil.copy(wav(NAMES[0]), wav(name)), shutil.copy(flv(NAMES[0]), flv(name))
    wav('1040_ITH_SAD_X').write_text(POINTER), flv('1040_ITH_SAD_XX').write_text(POINTER)
    flv('1005_IEO_ANG_LO').write_bytes(b'FLV\x01' + bytes(range(256)) * 20)
    flv('1005_IEO_ANG_MD').write_text(POINTER)
    wav('1005_IEO_ANG_HI').unlink()
    (root / 'VideoFlash' / 'readme.txt').write_text('x')
    (root / 'AudioWAV' / '._1001_IEO_ANG_HI.wav').write_text('x')
    write_tables(root)
    return root


def run(source, output, *options):
    settings = ['--size', 32, '--crop', 'none', '--workers', 0, '--num_shards', 2]
    return crema_d.main(list(map(str, ['--source', source, '--output', output, *settings, *options])))


@pytest.fixture(scope='module')
def flat(source, tmp_path_factory):
    output = tmp_path_factory.mktemp('out') / 'flat'
    assert run(source, output) == 0
    return RecordSource(output)


@pytest.fixture(scope='module')
def sequences(source, tmp_path_factory):
    output = tmp_path_factory.mktemp('out') / 'sequences'
    assert run(source, output, '--layout', '3d', '--frames', 30, '--encoding', 'raw') == 0
    return RecordSource(output)


def test_2d_has_the_middle_frame_and_the_whole_spectrogram(source, flat):
    assert verify(flat.directory) == []
    assert (flat.schema.name, flat.schema.label.names) == ('crema_d_2d', crema_d_layout.EMOTIONS)
    assert flat.manifest['id'].tolist() == list(NAMES)
    assert flat.manifest['label'].astype(int).tolist() == [0, 4, 5, 3, 1, 2]
    assert flat.manifest['speaker'].tolist() == ['1001', '1001', '1002', '1002', '1003', '1003']
    record = flat[0]
    assert record['vision'].shape == record['audio'].shape == (1, 32, 32, 3)
    assert levels(record['vision']) == [14]
    assert np.abs(record['vision'][0, :12, :12].astype(int) - [250, 20, 20]).max() < 40  # upright, RGB
    samples, rate = audio.load_audio(source / 'AudioWAV' / f'{NAMES[0]}.wav', 22050)
    drawn = spectrogram_image.draw(audio.log_mel(samples, rate), 32, 32)
    assert np.abs(record['audio'][0].astype(int) - drawn).mean() < 2  # JPEG
    loudest = drawn[..., 0].argmax(0)
    assert loudest[2] > loudest[-3] + 5  # the rising tone: time to the right, low frequencies at the bottom


def strip_peaks(pictures):
    """The mean row of the brightest band of each picture (T, H, W, C): 0 is the highest."""
    return pictures[..., 0].astype(int).mean(2).argmax(1)


def test_3d_frames_in_order_with_a_strip_each_and_blank_ones_at_the_end(sequences):
    assert verify(sequences.directory) == []
    assert sequences.schema.name == 'crema_d_3d'
    assert sequences.manifest['frames'].tolist() == ['24'] * 5 + ['12']
    assert sequences.manifest['length_vision'].tolist() == sequences.manifest['length_audio'].tolist() == [30] * 6
    record = sequences[0]
    shown = np.array(levels(record['vision']))
    expected = (np.arange(24) * 1.25).astype(int)  # 30 frames a second seen at 24
    assert np.isin((expected - shown[:24]) % 25, (0, 1)).all()
    assert (np.diff(np.unwrap(shown[:24], period=25)) > 0).all()
    assert np.abs(record['vision'][:24, :12, :12].astype(int) - [250, 20, 20]).max() < 40
    assert not record['vision'][24:].any()
    assert not record['audio'][24:].any()
    assert record['audio'][:24].any((1, 2, 3)).all()
    peaks = strip_peaks(record['audio'][1:23])
    assert (np.diff(peaks) <= 0).all()  # the tone rises
    assert peaks[0] > peaks[-1] + 5
    assert not sequences[5]['audio'][12:].any()


def test_long_clips_give_frames_evenly_spread_and_strips_of_all_their_sound(source, sequences, tmp_path):
    options = ('--layout', '3d', '--frames', 8, '--encoding', 'raw')
    assert run(source, tmp_path / 'a', *options) == 0
    assert run(source, tmp_path / 'b', *options, '--strips', 'frames') == 0
    few, published, every = RecordSource(tmp_path / 'a')[0], RecordSource(tmp_path / 'b')[0], sequences[0]
    numbers = spectrogram_image.spread(24, 8)
    assert numbers.tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    np.testing.assert_array_equal(few['vision'], every['vision'][numbers])
    np.testing.assert_array_equal(published['vision'], few['vision'])
    np.testing.assert_array_equal(published['audio'], every['audio'][numbers])
    samples, rate = audio.load_audio(source / 'AudioWAV' / f'{NAMES[0]}.wav', 22050)
    np.testing.assert_array_equal(few['audio'], spectrogram_image.draw_strips(audio.log_mel(samples, rate), 8, 32, 32))


@pytest.mark.parametrize(('fill', 'lengths'), [('repeat', [30, 30]), ('none', [24, 12])])
def test_short_clips(source, sequences, tmp_path, fill, lengths):
    assert run(source, tmp_path / 'out', '--layout', '3d', '--frames', 30, '--encoding', 'raw', '--fill', fill) == 0
    records = RecordSource(tmp_path / 'out')
    assert records.manifest['length_vision'][[0, 5]].tolist() == lengths
    assert records.manifest['length_audio'].tolist() == records.manifest['length_vision'].tolist()
    assert records.manifest['distinct_frames'][[0, 5]].tolist() == ['24', '12']
    numbers = spectrogram_image.spread(12, lengths[1])
    np.testing.assert_array_equal(records[5]['vision'], sequences[5]['vision'][numbers])
    assert records[5]['audio'].any((1, 2, 3)).all()


def test_sizes_colour_and_bands(source, tmp_path):
    options = ('--layout', '3d', '--frames', 4, '--vision_width', 26, '--audio_width', 6, '--color', 'grey')
    assert run(source, tmp_path / 'out', *options, '--num_mels', 40) == 0
    assert verify(tmp_path / 'out') == []
    record = RecordSource(tmp_path / 'out')[0]
    assert (record['vision'].shape, record['audio'].shape) == ((4, 32, 26, 1), (4, 32, 6, 1))
    assert levels(record['vision'])[0] == 3
    assert np.abs(record['vision'][:, :12, :10].astype(int) - 89).max() < 12  # the red of the corner in grey


def test_defaults_are_the_reports():
    default = crema_d.make_schema(crema_d.Settings())
    assert default.features['vision'].shape == default.features['audio'].shape == (None, 224, 224, 3)
    arguments = crema_d.parse_arguments(['--source', 'a', '--output', 'b', '--layout', '3d'])
    assert (arguments.frames, arguments.crop, arguments.fill) == (135, 'none', 'blank')
    arguments = crema_d.parse_arguments(['--source', 'a', '--output', 'b'])
    assert (arguments.frames, arguments.crop, arguments.num_mels) == (1, 'mtcnn', 128)


def test_every_unusable_file_is_named(source, tmp_path, capsys):
    assert run(source, tmp_path / 'out') == 0
    out = capsys.readouterr().out
    for line in (
        '6 clips of 3 actors',
        'by emotion, intended: anger 1, disgust 1, fear 1, happy 1, neutral 1, sad 1',
        '1 of the 7 clips of SentenceFilenames.csv are not in it',
        'skipped: 9',
        'recording error, dropped by the report too: 1064_TIE_SAD_XX',
        'silent and without a face: 1076_MTI_SAD_XX',
        'cannot be decoded: 1005_IEO_ANG_LO',
        'git-LFS pointer: 1005_IEO_ANG_MD, 1040_ITH_SAD_XX',
        'no file in AudioWAV: 1005_IEO_ANG_HI',
        'the name is not actor_sentence_emotion_level: 1092_IEO_ANG_HI.wav, 1092_IEO_ANG_HI.flv',
        'not a .flv or .mp4 file in VideoFlash: readme.txt',
        'python -m mmer_jax.records verify',
        '--config=configs/resnet18_crema_d.py',
    ):
        assert line in out


def test_known_bad_clips_on_request(source):
    for drop, kept in (('known', []), ('published', ['1076_MTI_SAD_XX']), ('none', list(BAD_HERE))):
        clips, _ = crema_d_layout.list_clips(source, drop)
        assert [clip.id for clip in clips if clip.id in crema_d_layout.BAD] == kept


def test_demographics_votes_and_voted_labels(source, flat, tmp_path, capsys):
    manifest = flat.manifest
    assert manifest['age'].tolist() == ['51', '51', '21', '21', '40', '40']
    assert [manifest[name][2] for name in ('sex', 'race', 'ethnicity')] == ['Female', 'Asian', 'Hispanic']
    assert (manifest['level'][0], manifest['sentence'][0], manifest['emotion'][3]) == ('high', 'IEO', 'happy')
    assert manifest['votes_face'][0] == '2 2 5 2 2 2'
    assert (manifest['voted_face'][0], manifest['voted_voice'][0]) == ('fear', 'disgust')
    assert manifest['voted_both'][5] == 'anger:disgust:fear:happy:neutral:sad'
    assert run(source, tmp_path / 'both', '--labels', 'voted') == 0
    assert 'the votes tie: 1003_WSI_FEA_XX' in capsys.readouterr().out
    assert RecordSource(tmp_path / 'both').manifest['label'].astype(int).tolist() == [3, 4, 5, 0, 1]
    assert run(source, tmp_path / 'voice', '--labels', 'voted', '--voted_by', 'voice') == 0
    assert RecordSource(tmp_path / 'voice').manifest['label'].astype(int).tolist() == [1, 2, 3, 4, 5, 0]
    assert RecordSource(tmp_path / 'voice').manifest['emotion'].tolist() == manifest['emotion'].tolist()


def test_without_tables(source, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert run(source, tmp_path / 'out', '--tables', tmp_path / 'empty') == 0
    out = capsys.readouterr().out
    assert 'without the columns of VideoDemographics.csv' in out
    assert 'without the columns of tabulatedVotes.csv' in out
    assert not {'age', 'votes_face'} & set(RecordSource(tmp_path / 'out').manifest)
    assert run(source, tmp_path / 'voted', '--tables', tmp_path / 'empty', '--labels', 'voted') == 1
    assert 'error: --labels voted needs tabulatedVotes.csv' in capsys.readouterr().err
    assert not (tmp_path / 'voted').exists()


def test_faces(source, tmp_path, monkeypatch, capsys):
    """A detector that finds the red quarter is used; a clip where it finds nothing is named."""

    class Fake:
        def __init__(self):
            self.calls = 0

        def detect(self, frames):
            self.calls += 1
            found = np.array([[0, 0, frames.shape[2] / 2, frames.shape[1] / 2, 1.0]])
            return [found if self.calls > 1 else found[:0]] * len(frames)

    fake = Fake()
    for module in (crema_d, ravdess_video):  # the second one looks whether the weights are there
        monkeypatch.setattr(module, 'make_detector', lambda min_face: fake)
    assert run(source, tmp_path / 'out', '--crop', 'mtcnn') == 0
    assert f'no face found: {NAMES[0]}' in capsys.readouterr().out
    assert np.abs(RecordSource(tmp_path / 'out')[0]['vision'][:, 4:-4, 4:-4].astype(int) - [250, 20, 20]).max() < 40


def test_worker_processes_write_the_same_bytes(source, flat, tmp_path):
    assert run(source, tmp_path / 'out', '--workers', 2) == 0
    contents = [{path.name: path.read_bytes() for path in d.iterdir()} for d in (flat.directory, tmp_path / 'out')]
    assert contents[0] == contents[1]


def test_protocols(tmp_path):
    """Leave speakers out in five folds, and random clips 70/30 and 80/20 as published, on a manifest of ten actors."""
    rows = [(f'{1001 + number // 6}', number % 6) for number in range(60)]
    manifest = {
        'record': np.arange(60),
        'id': np.array([f'{actor}_IEO_{crema_d_layout.CODES[label]}_HI' for actor, label in rows]),
        'speaker': np.array([actor for actor, _ in rows]),
        'session': np.array([''] * 60),
        'split': np.array([''] * 60),
        'label': np.array([label for _, label in rows]),
    }
    folds = protocols.make_folds(manifest, 'leave_speakers_out', folds=5)
    assert [len(fold.test) for fold in folds] == [12] * 5
    assert all(not fold.marks for fold in folds)
    for test_fraction, count in ((0.3, 18), (0.2, 12)):
        options = {'test_fraction': test_fraction, 'selection': 'test'}
        (fold,) = protocols.make_folds(manifest, 'random_clips_shared_speakers', **options)
        assert (len(fold.train), len(fold.test)) == (60 - count, count)
        assert 'selected on test' in fold.marks
        assert any(mark.startswith('speakers shared') for mark in fold.marks)


def test_protocols_of_a_prepared_manifest(flat):
    folds = protocols.make_folds(flat.manifest, 'leave_speakers_out', folds=3, validation_speakers=1)
    assert [flat.manifest['speaker'][fold.test].tolist() for fold in folds] == [
        [a, a] for a in ('1001', '1002', '1003')
    ]
    (fold,) = protocols.make_folds(flat.manifest, 'random_clips_shared_speakers', test_fraction=0.3, selection='test')
    assert (len(fold.train), len(fold.test)) == (4, 2)


@pytest.fixture(scope='module')
def real_tables():
    folder = SHARED_DATA / 'cremad'
    if not folder.is_dir():
        pytest.skip(f"CREMA-D's tables are not here ({folder})")
    return folder


def test_real_human_rows(real_tables, capsys):
    """40.0, 57.4 and 63.1 % were measured independently; Cao et al. 2014 print 40.9, 58.2 and 63.6."""
    assert crema_d.main(['human', '--tables', str(real_tables)]) == 0
    _, header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ['seen', 'votes', 'accuracy', 'published']
    assert [line.split()[:4] for line in lines] == [
        ['voice', '68568', '40.0', '40.9'],
        ['face', '71654', '57.4', '58.2'],
        ['both', '71778', '63.1', '63.6'],
    ]


def test_real_tables(real_tables):
    """All names are understood, and the winners are those of summaryTable.csv."""
    tables = crema_d_layout.read_tables(real_tables)
    assert len(tables.names) == len(tables.votes) == 7442
    assert tables.names == set(tables.votes) >= set(crema_d_layout.BAD)
    assert all(crema_d_layout.parse_name(name) == name for name in tables.names)
    assert set(tables.actors) == {str(1001 + number) for number in range(91)}
    columns = {'voice': 'VoiceVote', 'face': 'FaceVote', 'both': 'MultiModalVote'}
    rows = crema_d_layout.read_rows(real_tables, 'summaryTable.csv', ('FileName', *columns.values()))
    for _, row in rows:
        for seen, column in columns.items():
            most = crema_d_layout.winners(tables.votes[row['FileName']][seen])
            assert ':'.join(crema_d_layout.CODES[number][0] for number in most) == row[column]


def test_human_rows_by_hand():
    votes = {f'1001_IEO_{code}_XX': dict.fromkeys(('voice', 'face', 'both'), (0,) * 6) for code in CODES}
    for number, code in enumerate(CODES):
        counts = [1] * 6
        counts[number] = 5 if number else 1
        votes[f'1001_IEO_{code}_XX']['voice'] = votes[f'1001_IEO_{code}_XX']['face'] = tuple(counts)
        votes[f'1001_IEO_{code}_XX']['both'] = tuple(2 * np.eye(6, dtype=int)[number])
    voice, _, both = crema_d_layout.human_rows(votes)
    assert voice['votes'] == 5 * 10 + 6
    assert voice['accuracy'] == pytest.approx(100 * 26 / 56)
    assert voice['uar'] == pytest.approx((100 / 6 + 5 * 50) / 6)
    assert voice['majority'] == pytest.approx(100 * 5 / 6)  # anger ties
    assert (both['accuracy'], both['majority']) == (100, 100)


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('VideoDemographics.csv', 'ActorID,Age,Sex,Race\n', "has no column 'Ethnicity'"),
        ('VideoDemographics.csv', POINTER, 'git-LFS pointer'),
        ('tabulatedVotes.csv', ',A,D,F,H,N,S,fileName\n100001,0,x,0,0,0,0,1001_IEO_NEU_XX\n', 'line 2: expected whole'),
        ('tabulatedVotes.csv', ',A,D,F,H,N,S,fileName\n400001,0,0,0,0,0,0,1001_IEO_NEU_XX\n', "found '400001'"),
        ('tabulatedVotes.csv', ',A,D,F,H,N,S,fileName\n1,0,0\n', 'line 2: expected 8 values'),
        ('tabulatedVotes.csv', ',A,D,F,H,N,S,fileName\n' + '1,0,0,0,0,0,0,1001_IEO_NEU_XX\n' * 2, 'a second row of'),
    ],
)
def test_damaged_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(PreparationError, match=message):
        crema_d_layout.read_tables(tmp_path)


def test_errors_of_the_source(source, tmp_path, capsys):
    assert run(tmp_path / 'nowhere', tmp_path / 'out') == 1
    assert 'is missing; expected the folders AudioWAV and VideoFlash' in capsys.readouterr().err
    (tmp_path / 'AudioWAV').mkdir()
    assert run(tmp_path, tmp_path / 'out') == 1
    assert 'holds no folder VideoFlash' in capsys.readouterr().err
    (tmp_path / 'VideoFlash').mkdir()
    (tmp_path / 'AudioWAV' / '1001_IEO_ANG_HI.wav').write_text(POINTER)
    assert run(tmp_path, tmp_path / 'out') == 1
    assert 'no usable clip' in (error := capsys.readouterr().err)
    assert 'no file in VideoFlash' in error
    assert not (tmp_path / 'out').exists()
    (tmp_path / 'out').mkdir()
    assert run(source, tmp_path / 'out') == 1
    assert 'exists; choose another output' in capsys.readouterr().err
    assert crema_d.main(['human', '--tables', str(tmp_path)]) == 1
    assert 'holds no tabulatedVotes.csv' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--frames', 8], '--frames 8 needs --layout 3d'),
        (['--size', 8], '--size: found 8, expected a whole number from 16'),
    ],
)
def test_errors_of_the_options(source, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run(source, tmp_path / 'out', *options)
    assert message in capsys.readouterr().err


def test_strips_cover_the_whole_spectrogram_in_order():
    """A ramp in time: the mean of the strips is the whole picture's, and each is brighter than the one before."""
    ramp = np.repeat(np.linspace(-80, 0, 43)[:, None], 10, 1).astype(np.float32)
    strips = spectrogram_image.draw_strips(ramp, 24, 10, 7, channels=1).astype(int)
    assert (np.diff(strips.mean((1, 2, 3))) > 5).all()
    assert strips.mean() == pytest.approx(spectrogram_image.draw(ramp, 10, 43, channels=1).mean(), abs=1)
    assert strips[0].min() == 0
    assert strips[-1].max() == 255
    for step in (0, 17, 42):  # a click is seen in its own strip most
        click = np.full((43, 10), -80.0)
        click[step] = 0
        assert spectrogram_image.draw_strips(click, 24, 10, 7).mean((1, 2, 3)).argmax() == int((step + 0.5) * 24 / 43)


def test_more_strips_than_columns():
    strips = spectrogram_image.draw_strips(np.array([[-80.0], [0.0]]), 8, 3, 3, channels=1)
    assert strips.shape == (8, 3, 3, 1)
    assert (np.diff(strips.astype(int).mean((1, 2, 3))) >= 0).all()


def test_levels_of_grey():
    levels = spectrogram_image.to_levels(np.array([[-100.0, -40.0], [-20.0, -20.0]]), top_db=80)
    assert levels.tolist() == [[191, 255], [0, 255]]  # high band first, time to the right
    assert not spectrogram_image.to_levels(np.zeros((4, 3))).any()  # silence
    for wrong in (np.zeros(3), np.zeros((0, 3)), np.array([[np.nan]])):
        with pytest.raises(ValueError, match='expected finite decibels'):
            spectrogram_image.to_levels(wrong)
    with pytest.raises(ValueError, match='channels must be 1'):
        spectrogram_image.draw(np.zeros((2, 2)), channels=2)
    with pytest.raises(ValueError, match='1 or more, found 0, 224'):
        spectrogram_image.draw_strips(np.zeros((2, 2)), 0)


def test_spread():
    assert spectrogram_image.spread(135, 32)[[0, -1]].tolist() == [2, 132]
    assert spectrogram_image.spread(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert spectrogram_image.spread(5, 5).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match='found 0 and 1'):
        spectrogram_image.spread(0, 1)


@pytest.mark.parametrize('layout', ['2d', '3d'])
def test_a_cut_video_is_refused_by_its_header_or_by_the_sound(source, tmp_path, capsys, layout):
    """To a tenth of its bytes: the header states 1 s; without a header, the wav beside it is far longer."""
    for name in crema_d_layout.FOLDERS:
        keep = {f'{one}.{suffix}' for one in NAMES[:3] for suffix in ('wav', 'flv')}
        shutil.copytree(source / name, tmp_path / name, ignore=lambda _, names, keep=keep: set(names) - keep)
    path = tmp_path / 'VideoFlash' / f'{NAMES[0]}.flv'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 10])
    write_flv(tmp_path / 'VideoFlash' / f'{NAMES[1]}.flv', frames=9)  # whole, but not of a sound of 1 s
    assert run(tmp_path, tmp_path / 'out', '--layout', layout, '--frames', 1 if layout == '2d' else 8) == 0
    assert RecordSource(tmp_path / 'out').manifest['id'].tolist() == [NAMES[2]]
    assert f'truncated: {NAMES[0]}, {NAMES[1]}' in capsys.readouterr().out
    (tmp_path / 'VideoFlash' / f'{NAMES[2]}.flv').unlink()
    assert run(tmp_path, tmp_path / 'none') == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf'the first cause: {path}: truncated; 0\.9\d+ s announced, 0\.[01]\d+ s found', error), error
    assert 'no file in VideoFlash (1), truncated (2)' in error


def test_silence_lengths_apart_and_long_clips_are_reported(source, tmp_path, monkeypatch, capsys):
    for name in crema_d_layout.FOLDERS:
        shutil.copytree(source / name, tmp_path / name, ignore=lambda _, names: set(names) - {f'{NAMES[0]}.flv'})
    soundfile.write(tmp_path / 'AudioWAV' / f'{NAMES[0]}.wav', np.zeros(2 * RATE), RATE)
    assert run(tmp_path, tmp_path / 'out') == 0
    out = capsys.readouterr().out
    assert f'audio is missing (silence; masked in batches): 1\n      {NAMES[0]}\n' in out
    times = rf'{NAMES[0]}: sound 0\.000 to 2\.000 s, pictures 0\.000 to 0\.9\d+ s'
    assert re.search(rf'sound and pictures more than 0\.2 s apart: 1\n      {times}\n', out), out
    assert verify(tmp_path / 'out') == []
    records = RecordSource(tmp_path / 'out')
    assert (records.manifest['length_audio'].tolist(), records.manifest['length_vision'].tolist()) == ([0], [1])
    assert records[0]['audio'].shape == (0, 32, 32, 3)
    monkeypatch.setattr(crema_d, 'LONGEST', 0.9)
    assert run(tmp_path, tmp_path / 'long', '--layout', '3d', '--frames', 8) == 1
    assert 'too long for a clip of CREMA-D' in capsys.readouterr().err
