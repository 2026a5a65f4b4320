"""Video files: frames by time, variable rates, rotation, sizes, and every kind of unusable file named."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmer_jax.media import MediaError, video


def write_video(path, frames=20, *, times=None, size=(48, 64), rotation=0, sound=False, options=None, seconds=1.0):
    """An mp4: frame k is grey of level 10 (k % 25), red in its upper left quarter; `times` in ms, else 20 a second."""
    times = range(0, 50 * frames, 50) if times is None else times
    with av.open(str(path), 'w', options=options or {}) as container:
        stream = container.add_stream('libx264', rate=20, options={'crf': '10', 'g': '5'})
        stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p'
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        tone = container.add_stream('aac', rate=16000, layout='mono') if sound else None
        for number, time in zip(range(frames), times, strict=True):
            array = np.full((*size, 3), 10 * (number % 25), np.uint8)
            array[: size[0] // 2, : size[1] // 2] = (250, 20, 20)
            frame = av.VideoFrame.from_ndarray(array)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone:
            samples = (0.3 * np.sin(np.arange(int(16000 * seconds)) / 5)).astype(np.float32)
            for start in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format='fltp', layout='mono')
                frame.sample_rate, frame.pts = 16000, start
                container.mux(tone.encode(frame))
            container.mux(tone.encode(None))
    return path


def levels(frames):
    """The number of each frame, read from its grey."""
    return (frames[:, -4:, -4:].mean((1, 2, 3)) / 10).round().astype(int).tolist()


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp('video') / 'clip.mp4', sound=True)


def test_all_frames_and_what_the_file_says(clip):
    frames, info = video.read_frames(clip, how='all')
    assert (frames.shape, frames.dtype) == ((20, 48, 64, 3), np.uint8)
    assert levels(frames) == list(range(20))
    np.testing.assert_allclose(info.timestamps, np.arange(20) / 20, atol=1e-3)
    assert info.duration == pytest.approx(1.0, abs=0.01)
    assert info.fps == pytest.approx(20, rel=0.02)
    assert (info.height, info.width, info.has_audio, info.rotation) == (48, 64, True, 0)
    assert np.abs(frames[10, 4, 4].astype(int) - [250, 20, 20]).max() < 30  # RGB, not BGR


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ({'count': 4}, [2, 7, 12, 17]),  # the middles of four quarters
        ({'count': 4, 'how': 'starts'}, [0, 5, 10, 15]),
        ({'count': 2, 'how': 'starts', 'start': 0.5}, [10, 15]),
        ({'count': 20}, list(range(20))),
        ({'count': 20, 'how': 'starts'}, list(range(20))),
        ({'count': 40}, [k // 2 for k in range(40)]),  # twice each
        ({'count': 2, 'start': 0.5}, [12, 17]),
        ({'count': 2, 'start': 0.5, 'end': 0.7}, [11, 13]),
        ({'count': 3, 'how': 'consecutive'}, [0, 1, 2]),
        ({'count': 3, 'how': 'consecutive', 'start': 0.9}, [18, 19]),
        ({'how': 'all', 'start': 0.25, 'end': 0.4}, [5, 6, 7]),
        ({'how': 'all', 'fps': 5}, [0, 4, 8, 12, 16]),
        ({'how': 'all', 'fps': 40, 'end': 0.2}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({'count': 2, 'how': 'consecutive', 'fps': 10, 'start': 0.1}, [2, 4]),
    ],
)
def test_which_frames(clip, arguments, expected):
    assert levels(video.read_frames(clip, **arguments)[0]) == expected


def test_variable_frame_rates_go_by_time(tmp_path):
    """Ten frames in the first 0.1 s, then one every 0.3 s: half of the clip's time shows the late frames."""
    times = [*range(0, 100, 10), *range(100, 1600, 300)]
    path = write_video(tmp_path / 'x.mp4', frames=15, times=times)
    frames, info = video.read_frames(path, 5)
    middles = (np.arange(5) + 0.5) / 5 * info.duration  # how long the last frame is shown, the file decides
    assert levels(frames) == (np.searchsorted(times, 1000 * middles, 'right') - 1).tolist()
    assert min(levels(frames)) >= 10
    assert levels(video.read_frames(path, how='all', fps=5)[0])[:6] == [0, 10, 11, 11, 12, 13]


def test_reading_from_the_middle_of_a_long_file(tmp_path):
    path = write_video(tmp_path / 'long.mp4', frames=25, times=range(0, 25000, 1000))
    frames, info = video.read_frames(path, 3, 'consecutive', start=12.5)
    assert levels(frames) == [13, 14, 15]
    assert info.timestamps == (13, 14, 15)


def test_streaming_holds_one_frame(clip):
    stream = video.iterate_frames(clip, fps=10, max_side=32)
    time, frame = next(stream)
    assert (time, frame.shape) == (0, (24, 32, 3))
    assert [round(t, 2) for t, _ in stream] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(('max_side', 'shape'), [(32, (24, 32)), (64, (48, 64)), (500, (48, 64))])
def test_large_frames_are_shrunk(clip, max_side, shape):
    assert video.read_frames(clip, 2, max_side=max_side)[0].shape == (2, *shape, 3)


@pytest.mark.parametrize(('rotation', 'corner'), [(90, (-4, 4)), (-90, (4, -4)), (180, (-4, -4))])
def test_rotation_is_applied(tmp_path, rotation, corner):
    """The red quarter, stored at the upper left, comes to lie where a player shows it (counter-clockwise)."""
    path = write_video(tmp_path / 'x.mp4', frames=3, rotation=rotation)
    frames, info = video.read_frames(path, 2)
    shape = (64, 48) if rotation % 180 else (48, 64)
    assert frames.shape == (2, *shape, 3)
    assert (info.height, info.width, info.rotation % 360) == (*shape, rotation % 360)
    reds = {c for c in [(4, 4), (4, -4), (-4, 4), (-4, -4)] if frames[0][c][0] > 150}
    assert reds == {corner}


def test_a_file_without_sound(tmp_path):
    frames, info = video.read_frames(write_video(tmp_path / 'x.mp4'), 3)
    assert len(frames) == 3
    assert not info.has_audio


def spoil(clip, path, kind):
    whole = clip.read_bytes()
    if kind == 'sound only':
        with av.open(str(path), 'w') as container:
            stream = container.add_stream('aac', rate=16000, layout='mono')
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    elif kind == 'no frames':
        write_video(path, frames=0, sound=True)
    elif kind == 'truncated':  # with its index at the front, so that it opens
        write_video(path, frames=40, options={'movflags': 'faststart'})
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    elif kind != 'missing':
        content = {
            'cut': whole[: len(whole) // 2],
            'empty': b'',
            'noise': b'no video' * 500,
            'pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n',
        }
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('missing', 'no such file'),
        ('empty', 'empty file; 0 bytes'),
        ('pointer', "git-LFS pointer; .*'git lfs pull'"),
        ('noise', 'cannot be decoded; damaged or not a media file'),
        ('cut', 'cannot be decoded; damaged or not a media file'),
        ('sound only', 'no video stream; found audio'),
        ('no frames', 'no video stream; found audio'),
        ('truncated', r'truncated; \d\.\d+ s announced'),
    ],
)
def test_unusable_files_are_named(clip, tmp_path, kind, message):
    path = spoil(clip, tmp_path / 'bad.mp4', kind)
    with pytest.raises(MediaError, match=f'^{path}: {message}'):
        video.read_frames(path, 5)
    with pytest.raises(MediaError, match='bad.mp4: '):
        list(video.iterate_frames(path))


def test_a_folder_is_named(tmp_path):
    with pytest.raises(MediaError, match='a folder'):
        video.read_frames(tmp_path, 5)


def test_a_start_beyond_the_end(clip):
    for arguments in ({'count': 3}, {'how': 'all'}):
        with pytest.raises(MediaError, match=r'start beyond the end; start 5 s, but the video is 1.000 s long'):
            video.read_frames(clip, start=5, **arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'count': 3, 'how': 'random'}, "how='random' is unknown; the known ones are even, starts, consecutive, all"),
        ({'count': 0}, 'count must be 1 or more'),
        ({}, 'count must be 1 or more'),
        ({'count': 3, 'how': 'all'}, "None for how='all' alone"),
        ({'count': 3, 'start': 2, 'end': 1}, 'expected 0 <= start < end'),
        ({'count': 3, 'fps': 10}, "cannot go with how='even'"),
        ({'count': 3, 'fps': 10, 'how': 'starts'}, "cannot go with how='starts'"),
        ({'count': 3, 'max_side': 0}, 'max_side must be 1 or more'),
    ],
)
def test_senseless_arguments(clip, arguments, message):
    with pytest.raises(ValueError, match=message):
        video.read_frames(clip, **arguments)


def test_memory_stays_that_of_the_frames_asked_for(tmp_path):
    """Two of 300 frames of 270 kB: what is allocated in Python stays far below all of them (81 MB)."""
    import tracemalloc

    path = write_video(tmp_path / 'x.mp4', frames=300, size=(240, 376))
    tracemalloc.start()
    frames, _ = video.read_frames(path, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames.shape == (2, 240, 376, 3)
    assert peak < 4e6


def test_real_clips(ravdess):
    paths = sorted(Path(ravdess / 'Video_Speech_Actor_01' / 'Actor_01').iterdir())
    assert len(paths) == 18
    for path in paths[::6]:
        frames, info = video.read_frames(path, 30)
        assert frames.shape == (30, 360, 640, 3)
        assert info.fps == pytest.approx(30000 / 1001, rel=1e-3)
        assert len(set(info.timestamps)) == 30
    path = sorted(Path(ravdess / 'Face_Clips_Actor_01' / 'Actor_01').iterdir())[0]
    frames, _ = video.read_frames(path, 20)
    np.testing.assert_array_equal(frames, video.read_frames(path, how='all')[0])
