"""data_prep.ravdess with pictures: frames, crops, sound beside them, every unusable file named; data_prep.look."""

import re
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from data_prep import look, ravdess, ravdess_video
from mmer_jax.data import batches
from mmer_jax.data.records import Feature, RecordSource, verify
from mmer_jax.media import audio, video
from tests.test_announced import write_media
from tests.test_faces import write_table
from tests.test_video import levels, write_video

SECONDS = 1.2


def clip(folder, name, *, sound=True, frames=24):
    folder.mkdir(parents=True, exist_ok=True)
    return write_video(folder / name, frames=frames, sound=sound, seconds=SECONDS)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two actors: five usable clips with sound, one without, a song, and every kind of unusable file."""
    root = tmp_path_factory.mktemp('raw')
    one, two = root / 'Video_Speech_Actor_01' / 'Actor_01', root / 'Actor_02'
    first = clip(one, '01-01-01-01-01-01-01.mp4')
    for name in ('01-01-03-01-01-01-01', '02-01-01-01-01-01-01', '02-01-05-01-01-01-01', '01-02-03-01-01-01-01'):
        shutil.copy(first, one / f'{name}.mp4')
    for emotion in ('01', '03', '08'):
        two.mkdir(exist_ok=True)
        shutil.copy(first, two / f'01-01-{emotion}-01-01-01-02.mp4')
    clip(two, '01-01-04-01-01-01-02.mp4', sound=False)
    clip(two, '01-01-05-01-01-01-02.mp4', frames=0)
    (two / '01-01-06-01-01-01-02.mp4').write_bytes(first.read_bytes()[:2000])
    (two / '01-01-07-01-01-01-02.mp4').write_text('version https://git-lfs.github.com/spec/v1\nsize 9\n')
    shutil.copy(first, two / '03-01-02-01-01-01-02.wav')
    return root


def run(source, output, *options):
    settings = ['--vision', 'frames', '--frames', 6, '--size', 32, '--offset', 0.2, '--duration', 0.5, '--workers', 0]
    arguments = ['--source', source, '--output', output, *settings, '--num_shards', 2, *options]
    return ravdess.main(list(map(str, arguments)))


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_sound_and_pictures(source, tmp_path, capsys):
    assert run(source, tmp_path / 'out') == 0
    out = capsys.readouterr().out
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    assert list(records.schema.features) == ['audio', 'vision']
    assert records.schema.name == 'ravdess_mfcc_frames'
    assert records.schema.info['vision'] == {
        'frames': 6,
        'frame_choice': 'even',
        'crop': 'none',
        'size': 32,
        'quality': 95,
        'min_face': 20,
    }
    ids = ['01-01-01-01-01-01-01', '01-01-03-01-01-01-01', *(f'01-01-{e}-01-01-01-02' for e in ('01', '03', '08'))]
    assert records.manifest['id'].tolist() == ids
    assert records.manifest['speaker'].tolist() == ['01', '01', '02', '02', '02']
    assert records.manifest['length_vision'].tolist() == [6] * 5
    assert records.manifest['face_share'].astype(float).tolist() == [1.0] * 5
    path = source / 'Actor_02' / f'{ids[3]}.mp4'
    record = records[3]
    samples, rate = audio.load_audio(path, 44100, offset=0.2, duration=0.5)
    np.testing.assert_array_equal(record['audio'], audio.mfcc(samples, rate))
    assert (record['vision'].shape, record['vision'].dtype) == ((6, 32, 32, 3), np.uint8)
    assert levels(record['vision']) == levels(video.read_frames(path, 6)[0]) == [2, 6, 10, 14, 18, 22]
    for line in (
        'skipped: 8',
        'video only, no sound: 02-01-01-01-01-01-01.mp4, 02-01-05-01-01-01-01.mp4',
        'song, not speech (--song takes both): 01-02-03-01-01-01-01.mp4',
        'sound only, no pictures: 03-01-02-01-01-01-02.wav',
        'no audio stream: 01-01-04-01-01-01-02.mp4',
        'no video stream: 01-01-05-01-01-01-02.mp4',
        'cannot be decoded: 01-01-06-01-01-01-02.mp4',
        'git-LFS pointer: 01-01-07-01-01-01-02.mp4',
        'python -m data_prep.look',
    ):
        assert line in out


def test_pictures_alone_take_files_without_sound(source, tmp_path, capsys):
    assert run(source, tmp_path / 'a', '--features', 'none') == 0
    assert 'video only, no sound: 02-01-01-01-01-01-01.mp4, 02-01-05' in capsys.readouterr().out
    assert run(source, tmp_path / 'b', '--features', 'none', '--video_only') == 0
    assert 'found again without sound; the file with sound was taken: 02-01-01' in capsys.readouterr().out
    first, second = RecordSource(tmp_path / 'a'), RecordSource(tmp_path / 'b')
    assert list(first.schema.features) == list(second.schema.features) == ['vision']
    assert '01-01-04-01-01-01-02' in first.manifest['id']  # of modality 01, but without sound
    assert set(second.manifest['id']) - set(first.manifest['id']) == {'02-01-05-01-01-01-01'}
    assert 'duration' not in first.manifest
    assert first.manifest['distinct_frames'].tolist() == ['6'] * 6


def test_sound_alone_is_as_before(source, tmp_path):
    assert run(source, tmp_path / 'out', '--vision', 'none') == 0
    records = RecordSource(tmp_path / 'out')
    assert list(records.schema.features) == ['audio']
    assert 'vision' not in records.schema.info


def test_worker_processes_write_the_same_bytes(source, tmp_path):
    assert run(source, tmp_path / 'a', '--crop', 'center') == 0
    assert run(source, tmp_path / 'b', '--crop', 'center', '--workers', 2) == 0
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_frames_from_the_beginning_and_more_than_there_are(source, tmp_path, capsys):
    options = ('--features', 'none', '--frame_choice', 'consecutive', '--frames')
    assert run(source, tmp_path / 'a', *options, 4) == 0
    assert levels(RecordSource(tmp_path / 'a')[0]['vision']) == [0, 1, 2, 3]
    assert run(source, tmp_path / 'b', *options, 40) == 0
    assert RecordSource(tmp_path / 'b').manifest['length_vision'].tolist() == [24] * 6
    assert run(source, tmp_path / 'c', '--features', 'none', '--frames', 40) == 0
    assert RecordSource(tmp_path / 'c').manifest['length_vision'].tolist() == [40] * 6
    assert 'with fewer than 40 frames of their own: 6' in capsys.readouterr().out


def test_landmarks(source, tmp_path, capsys):
    """The red quarter is the face; two clips have a table, one of them loses the face half way."""
    tables = tmp_path / 'FacialTracking' / 'Actor_01'
    tables.mkdir(parents=True)
    seconds = np.arange(0, 1.2, 0.05)
    found = [(t, 1, 200, 100) for t in seconds]
    write_table(tables / '01-01-01-01-01-01-01.csv', found)
    write_table(tables / '01-01-03-01-01-01-01.csv', [(t, int(t < 0.55), x, y) for t, _, x, y in found])
    write_table(tables / '01-01-01-01-01-01-02.csv', [(t, 0, 0, 0) for t in seconds])
    assert 'success' not in (tables / '01-01-01-01-01-01-01.csv').read_text()  # as the published tables
    options = ('--features', 'none', '--crop', 'landmarks', '--landmarks', tables.parent)
    assert run(source, tmp_path / 'out', *options) == 0
    out = capsys.readouterr().out
    records = RecordSource(tmp_path / 'out')
    assert records.manifest['id'].tolist() == ['01-01-01-01-01-01-01', '01-01-03-01-01-01-01']
    assert records.manifest['face_share'].astype(float).tolist() == [1.0, 0.5]
    for number in range(2):
        assert np.abs(records[number]['vision'][:, 8:-8, 8:-8].astype(int) - [250, 20, 20]).max() < 40
    assert 'a face in 75.00 % of all frames; 1 clips have frames that borrowed a box' in out
    assert 'no face found: 01-01-01-01-01-01-02.mp4' in out
    assert 'no landmarks: 01-01-03-01-01-01-02.mp4' in out


def test_the_first_cause_of_no_clip_at_all_is_its_own_table(source, tmp_path, capsys):
    """Not one of the files without sound, which nobody wanted to read."""
    tables = tmp_path / 'FacialTracking'
    tables.mkdir()
    for path in sorted(source.glob('*/Actor_01/01-01-*.mp4')) + sorted(source.glob('Actor_02/01-01-*.mp4')):
        write_table(tables / f'{path.stem}.csv', [(0.0, 1, 200, 100)], names=['frame', 'timestamp', 'x_0'])
    options = ('--features', 'none', '--crop', 'landmarks', '--landmarks', tables)
    assert run(source, tmp_path / 'out', *options) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    first = tables / '01-01-01-01-01-01-01.csv'
    assert error.startswith(
        f'error: no usable clip below {source}; the first cause: {first}: landmarks cannot be read; '
    )
    assert "135 of them are missing, such as 'x_1'" in error
    assert 'video only, no sound (2)' in error
    assert not (tmp_path / 'out').exists()


def test_lengths_and_starts_of_sound_and_pictures_are_compared(tmp_path, capsys):
    """Clip by clip, with the times of both; black pictures and silence are missing, not steps of zeros."""
    folder = tmp_path / 'raw' / 'Actor_01'
    folder.mkdir(parents=True)
    how = ('libx264', 'aac', 16000, {})
    write_media(folder / '01-01-01-01-01-01-01.mp4', *how, seconds=1.2)
    write_media(folder / '01-01-03-01-01-01-01.mp4', *how, seconds=1.2, sound_at=0.5)
    write_media(folder / '01-01-04-01-01-01-01.mp4', *how, seconds=1.2, pictures_at=0.5)
    clip(folder, '01-01-05-01-01-01-01.mp4', frames=10)  # half a second of pictures, 1.2 s of sound
    write_silent_black(folder / '01-01-06-01-01-01-01.mp4')
    assert run(tmp_path / 'raw', tmp_path / 'out') == 0
    printed = capsys.readouterr().out
    apart = printed.split('sound and pictures more than 0.2 s apart: 3\n')[1].splitlines()
    found = {line.split(':')[0].strip(): [float(x) for x in re.findall(r'\d+\.\d+', line)] for line in apart[:3]}
    assert found == {
        '01-01-03-01-01-01-01': pytest.approx([0.5, 1.7, 0, 1.2], abs=0.1),
        '01-01-04-01-01-01-01': pytest.approx([0, 1.2, 0.5, 1.7], abs=0.1),
        '01-01-05-01-01-01-01': pytest.approx([0, 1.2, 0, 0.5], abs=0.1),
    }
    for m, why in (('audio', 'silence'), ('vision', 'black pictures')):
        assert f'{m} is missing ({why}; masked in batches): 1\n      01-01-06-01-01-01-01\n' in printed
    assert 'every modality is missing: 1\n      01-01-06-01-01-01-01\n' in printed
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    assert records.manifest['length_vision'].tolist() == [6, 6, 6, 6, 0]
    assert (records.manifest['length_audio'] > 0).tolist() == [True] * 4 + [False]
    assert (records[4]['vision'].shape, records[4]['audio'].shape) == ((0, 32, 32, 3), (0, 13))
    assert records.manifest['video_start'].astype(float) == pytest.approx([0, 0, 0.5, 0, 0], abs=0.05)
    # The landmarks count from the first picture: a table of it crops the pictures that begin later, too.
    table = write_table(tmp_path / '01-01-04-01-01-01-01.csv', [(t, 1, 640, 360) for t in np.arange(0, 0.7, 0.05)])
    vision = ravdess_video.Vision(frames=6, size=32, crop='landmarks')
    path = folder / '01-01-04-01-01-01-01.mp4'
    _, columns, _ = ravdess_video.read_pictures(path, vision, {path.stem[3:]: table})
    assert columns['face_share'] == pytest.approx(4 / 6, abs=0.01)  # it ends 0.65 s after they began, and NEAREST
    assert look.main([str(tmp_path / 'out'), '--output', str(tmp_path / 'x.png')]) == 0


def write_silent_black(path):
    with av.open(str(path), 'w') as container:
        pictures = container.add_stream('libx264', rate=20)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, 'yuv420p'
        sound = container.add_stream('aac', rate=16000, layout='mono')
        for _ in range(24):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        container.mux(pictures.encode(None))
        for start in range(0, 19200, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, min(1024, 19200 - start)), np.float32), 'fltp', 'mono')
            frame.sample_rate, frame.pts = 16000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(
    ('options', 'status', 'message'),
    [
        (['--crop', 'landmarks'], 2, '--crop landmarks needs --landmarks DIR'),
        (['--crop', 'landmarks', '--landmarks', 'absent'], 1, '--landmarks absent is no folder'),
        (['--crop', 'mtcnn'], 1, '--crop mtcnn: .*params.safetensors is missing; convert them once'),
    ],
)
def test_what_a_crop_needs_is_asked_for_before_the_work(
    source, tmp_path, capsys, monkeypatch, options, status, message
):
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path))
    assert run(source, tmp_path / 'out', *options) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert message.split('.*')[0] in error
    assert message.split('.*')[-1] in error
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--frames', 0], 'argument --frames: found 0, expected a whole number from 1 to 10000'),
        (['--quality', 100], 'argument --quality: found 100, expected a whole number from 1 to 95'),
        (['--features', 'none', '--vision', 'none'], '--features none needs --vision frames'),
        (['--video_only'], '--video_only needs --features none: those files have no mfcc'),
        (['--video_only', '--vision', 'none'], '--video_only needs --vision frames'),
    ],
)
def test_senseless_options(source, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run(source, tmp_path / 'out', *options)
    assert message in capsys.readouterr().err


def test_batches_of_both(source, tmp_path):
    assert run(source, tmp_path / 'out') == 0
    records = RecordSource(tmp_path / 'out')
    lengths = batches.record_lengths(records, ('audio', 'vision'), {'vision': 4})
    plan = batches.BatchPlan(np.arange(5), lengths, batches.plan_shapes(lengths, 1), batch_size=5)
    batch = next(iter(batches.read_batches(batches.LoadBatch(records, ('audio', 'vision'), plan, {}, {'vision': 4}))))
    assert (batch['vision'].shape, batch['vision'].dtype) == ((5, 4, 32, 32, 3), np.uint8)
    assert batch['audio_mask'].all()


def test_look(source, tmp_path, tiny, capsys):
    assert run(source, tmp_path / 'out') == 0
    assert look.main([str(tmp_path / 'out'), '--output', str(tmp_path / 'g' / 'x.png'), '--columns', '3']) == 0
    assert '5 of 5 records' in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / 'g' / 'x.png'))
    step, drawn = look.TILE + look.GAP, look.DRAWN + look.GAP
    frames = picture.shape[1] - look.APART - 3 * step  # left edge of the first of three
    text = frames - look.APART - drawn  # and the right one of the text
    assert picture.shape[0] == look.HEAD + 5 * (look.TILE + 2 * look.GAP)
    first = picture[look.HEAD + look.TILE - 4, frames + look.TILE - 4 :: step]
    assert first[:3, 0].tolist() == sorted(first[:3, 0].tolist())  # frames in order: they get brighter
    assert first[0, 0] < first[2, 0]
    assert (picture[look.HEAD :, :text] < 100).any()
    assert (picture[look.HEAD :, text - look.APART : text] == 255).all()  # no text runs into the pictures
    assert look.make_grid(RecordSource(tiny), 2).size[0] > 3 * look.DRAWN
    assert look.main([str(tmp_path / 'absent'), '--output', str(tmp_path / 'y.png')]) == 1
    assert 'is missing' in capsys.readouterr().err


def test_look_keeps_the_shape_of_a_picture():
    frames, feature = np.zeros((3, 40, 10, 3), np.uint8), Feature((None, 40, 10, 3), 'uint8')
    assert [tile.size for tile in look.draw_feature(frames, feature, 2)] == [(look.TILE // 4, look.TILE)] * 2


def test_look_draws_a_waveform():
    tone = (20000 * np.sin(np.arange(16000) / 8)).astype(np.int16)
    assert look.draw_values(tone).size == (look.DRAWN, look.TILE)
    assert look.pick(20, 3).tolist() == [0, 10, 19]
    assert look.pick(2, 5).tolist() == [0, 1]


def test_real_clips(ravdess, tmp_path):
    actor = ravdess / 'Face_Clips_Actor_01' / 'Actor_01'
    (tmp_path / 'Actor_01').mkdir()
    for path in sorted(actor.iterdir())[::13]:
        shutil.copy(path, tmp_path / 'Actor_01')
    options = ('--frames', 20, '--size', 224, '--offset', 0.5, '--duration', 2.45)
    assert run(tmp_path, tmp_path / 'out', *options) == 0
    records = RecordSource(tmp_path / 'out')
    assert records.manifest['length_audio'].tolist() == [212] * 4
    assert records.manifest['distinct_frames'].tolist() == ['20'] * 4
    pictures = records[0]['vision'].astype(int)
    assert pictures.shape == (20, 224, 224, 3)
    assert np.ptp(pictures, -1).mean() < 2  # grey
