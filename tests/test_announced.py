"""Announced against decoded length in every container, and time stamps: what is cut is refused, what begins later
begins later, what says nothing that counts is read to its end."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from mmer_jax.media import MediaError, announced, audio, video

SECONDS, FPS = 3.0, 20
# name: (coder of the pictures, coder of the sound, its rate, options of the container)
CONTAINERS = {
    'front.mp4': ('libx264', 'aac', 16000, {'movflags': 'faststart'}),
    'fragments.mp4': ('libx264', 'aac', 16000, {'movflags': 'frag_keyframe+empty_moov'}),
    'x.m4a': (None, 'aac', 16000, {'movflags': 'faststart'}),
    'x.flv': ('flv', 'aac', 44100, {}),
    'silent_header.flv': ('flv', 'aac', 44100, {'flvflags': 'no_duration_filesize'}),
    'x.avi': ('mpeg4', 'libmp3lame', 16000, {}),
    'pcm.avi': ('mpeg4', 'pcm_s16le', 16000, {}),
    'x.mkv': ('mpeg4', 'pcm_s16le', 16000, {}),
    'x.webm': ('libvpx', 'libopus', 48000, {}),
    'x.opus': (None, 'libopus', 48000, {}),
    'x.mp3': (None, 'libmp3lame', 16000, {}),
    'x.aiff': (None, 'pcm_s16be', 16000, {}),
    'x.au': (None, 'pcm_s16be', 16000, {}),
    'x.caf': (None, 'pcm_s16le', 16000, {}),
    'x.w64': (None, 'pcm_s16le', 16000, {}),
    'x.wav': (None, 'pcm_s16le', 16000, {}),
    'rf64.wav': (None, 'pcm_s16le', 16000, {'rf64': 'always'}),
}


def write_media(path, pictures, sound, rate, options=None, *, seconds=SECONDS, sound_at=0.0, pictures_at=0.0, gap=0.0):
    """A tone of 440 Hz and pictures that differ from one another, each beginning at its time.

    gap: seconds without sound after the first second of it. Frame k is of level 10 (k % 25) beside noise.
    """
    with av.open(str(path), 'w', options=options or {}) as container:
        if pictures:
            video_stream = container.add_stream(pictures, rate=FPS)
            video_stream.width, video_stream.height, video_stream.pix_fmt = 64, 48, 'yuv420p'
            video_stream.codec_context.time_base = video_stream.time_base = Fraction(1, FPS)
        if sound:
            audio_stream = container.add_stream(sound, rate=rate, layout='mono')
        if pictures:
            noise = np.random.default_rng(0)
            for number in range(round(seconds * FPS)):
                array = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
                array[:, 32:] = 10 * (number % 25)
                frame = av.VideoFrame.from_ndarray(array)
                frame.pts, frame.time_base = number + round(pictures_at * FPS), Fraction(1, FPS)
                container.mux(video_stream.encode(frame))
            container.mux(video_stream.encode(None))
        if sound:
            tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.int16)
            for start in range(0, len(tone), 1000):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1000], 's16', 'mono')
                later = sound_at + (gap if start >= rate else 0)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(later * rate)
                container.mux(audio_stream.encode(frame))
            container.mux(audio_stream.encode(None))
    return path


@pytest.fixture(scope='module')
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp('media')
    return {name: write_media(folder / name, *how) for name, how in CONTAINERS.items()}


def seconds_of(path, **options):
    samples, rate = audio.load_audio(path, **options)
    return len(samples) / rate


@pytest.mark.parametrize('name', CONTAINERS)
def test_a_whole_file_is_read_and_a_cut_one_refused_with_both_lengths(media, tmp_path, name):
    path, pictures = media[name], CONTAINERS[name][0]
    assert seconds_of(path) == pytest.approx(SECONDS, abs=0.1)  # a coder's own delay and padding
    if pictures:
        assert len(video.read_frames(path, how='all')[0]) == SECONDS * FPS
    whole, cut = path.read_bytes(), tmp_path / name
    for share in (0.85 if name.endswith('avi') else 0.95, 0.5, 0.1):  # an AVI ends in its index
        cut.write_bytes(whole[: int(share * len(whole))])
        for read in (audio.load_audio, *([lambda p: video.read_frames(p, 4)] if pictures else [])):
            with pytest.raises(MediaError) as caught:
                read(cut)
            found, detail = caught.value.reason, caught.value.detail
            assert found in ('truncated', 'cannot be decoded')
            if found == 'truncated':
                assert ' s found' in detail
                assert ('announced' in detail) != (name == 'silent_header.flv')
    with pytest.raises(MediaError, match='truncated|cannot be decoded'):  # a part that is there is no reason to read it
        audio.load_audio(cut, offset=0.01, duration=0.02)


def test_both_lengths_are_those_of_the_file(media, tmp_path):
    for name, stated in (('x.wav', '3.000'), ('front.mp4', '3.000'), ('x.flv', '3.0'), ('x.mkv', '3.00')):
        whole = media[name].read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(MediaError, match=rf'truncated; {stated}\d* s announced, 1\.\d+ s found; copy'):
            audio.load_audio(tmp_path / name)


def test_a_flac_that_ends_early_says_how_far_it_goes(tmp_path):
    soundfile.write(tmp_path / 'x.flac', np.random.default_rng(0).normal(size=40000) * 0.1, 16000)
    whole = (tmp_path / 'x.flac').read_bytes()
    (tmp_path / 'x.flac').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r'cannot be decoded; .* 2\.500 s announced, (1\.\d+|0\.[1-9]\d*) s found'):
        audio.load_audio(tmp_path / 'x.flac')


@pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS'])
def test_an_ogg_that_ends_within_a_page(tmp_path, subtype):
    samples = np.random.default_rng(0).normal(size=48000 * 2) * 0.1
    soundfile.write(tmp_path / 'x.ogg', samples, 48000, format='OGG', subtype=subtype)
    assert seconds_of(tmp_path / 'x.ogg') == 2
    whole = (tmp_path / 'x.ogg').read_bytes()
    for share in (0.95, 0.6):
        (tmp_path / 'x.ogg').write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(MediaError, match=r'truncated; \d\.\d+ s announced, \d\.\d+ s found|cannot be decoded'):
            audio.load_audio(tmp_path / 'x.ogg')


# ---- badly announced, but whole ------------------------------------------------------------------------------


def variable_mp3(path, rate=16000):
    """10 s of faint and 4 s of loud noise at a variable bit rate, without the frame that counts the others."""
    generator = np.random.default_rng(0)
    levels = np.repeat([30, 9000], [10 * rate, 4 * rate])
    samples = (levels * generator.standard_normal(14 * rate)).clip(-32000, 32000).astype(np.int16)
    with av.open(str(path), 'w', format='mp3', options={'write_xing': '0', 'id3v2_version': '0'}) as container:
        stream = container.add_stream('libmp3lame', rate=rate, layout='mono', options={'compression_level': '5'})
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 4 * 118
        for start in range(0, len(samples), 1152):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1152], 's16', 'mono')
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_an_mp3_without_counts_is_read_to_its_end_whatever_its_name(tmp_path):
    path = variable_mp3(tmp_path / 'x.mp3')
    assert not announced.counts_its_frames(path)
    assert abs(soundfile.info(path).duration - 14) > 1  # what the first frame's bit rate makes one guess
    assert seconds_of(path) == pytest.approx(14, abs=0.2)
    for name in ('x.wav', 'x.mp4', 'x.flac', 'without_ending'):
        (tmp_path / name).write_bytes(path.read_bytes())
        assert seconds_of(tmp_path / name) == seconds_of(path)
    part, rate = audio.load_audio(path, offset=12.5, duration=1.0)  # behind where the guess ends
    np.testing.assert_array_equal(part, audio.load_audio(path)[0][int(12.5 * rate) : int(13.5 * rate)])


def test_counts_of_an_mp3_behind_its_title(media, tmp_path):
    assert announced.counts_its_frames(media['x.mp3'])
    tag = b'ID3\4\0\0\0\0\x01\x00' + bytes(128)  # 128 bytes: seven bits a byte
    (tmp_path / 'x.mp3').write_bytes(tag + media['x.mp3'].read_bytes())
    assert announced.counts_its_frames(tmp_path / 'x.mp3')
    assert seconds_of(tmp_path / 'x.mp3') == 3


@pytest.mark.parametrize('subtype', ['PCM_16', 'PCM_24', 'FLOAT', 'PCM_U8'])
@pytest.mark.parametrize('size', [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_of_a_stream_is_read_whole(tmp_path, subtype, size):
    """0 (written before the length was known) and the largest numbers (FFmpeg, SoX and ALSA into a pipe)."""
    samples = 0.4 * np.sin(np.arange(3 * 16000) / 9)
    soundfile.write(tmp_path / 'whole.wav', samples, 16000, subtype=subtype)
    content = bytearray((tmp_path / 'whole.wav').read_bytes())
    place = content.find(b'data')
    struct.pack_into('<I', content, place + 4, size)
    struct.pack_into('<I', content, 4, size)
    (tmp_path / 'stream.wav').write_bytes(content)
    found, rate = audio.load_audio(tmp_path / 'stream.wav')
    np.testing.assert_array_equal(found, audio.load_audio(tmp_path / 'whole.wav')[0])
    assert (len(found), rate) == (48000, 16000)
    np.testing.assert_array_equal(audio.load_audio(tmp_path / 'stream.wav', offset=2.5)[0], found[40000:])


def test_chunks_behind_the_samples_are_no_sound(tmp_path):
    """A list of chunks that ends where the file does is metadata; else, where a chunk says 0 or too little, sound."""
    soundfile.write(tmp_path / 'x.wav', 0.4 * np.sin(np.arange(16000) / 9), 16000)
    content = (tmp_path / 'x.wav').read_bytes()
    title = b'LIST' + struct.pack('<I', 5000) + b'INFO' + bytes(4996)
    (tmp_path / 'title.wav').write_bytes(content + title)
    assert seconds_of(tmp_path / 'title.wav') == 1
    early = bytearray(content)
    struct.pack_into('<I', early, content.find(b'data') + 4, 8000)  # as it stood after the first quarter
    (tmp_path / 'early.wav').write_bytes(early)
    assert seconds_of(tmp_path / 'early.wav') == 1
    empty = content[: content.find(b'data') + 4] + bytes(4) + title
    (tmp_path / 'empty.wav').write_bytes(empty)
    with pytest.raises(MediaError, match='no samples'):
        audio.load_audio(tmp_path / 'empty.wav')


@pytest.mark.parametrize('rate', [1, 999, 800_000])
def test_sample_rates_that_cannot_be(tmp_path, rate):
    soundfile.write(tmp_path / 'x.wav', np.zeros(2000), rate)
    with pytest.raises(MediaError, match=f'the header says {rate} Hz, expected 1000 to 768000'):
        audio.load_audio(tmp_path / 'x.wav', 16000)


# ---- time stamps ---------------------------------------------------------------------------------------------


def onset(samples, rate):
    """Seconds to the first sample of a tenth of the tone's loudness."""
    return float(np.argmax(np.abs(samples) > 0.03)) / rate


@pytest.mark.parametrize(
    ('name', 'pictures', 'sound', 'rate'),
    [
        ('x.mp4', 'libx264', 'aac', 16000),
        ('x.mkv', 'mpeg4', 'pcm_s16le', 16000),
        ('x.flv', 'flv', 'libmp3lame', 44100),
    ],
)
def test_what_begins_later_begins_later(tmp_path, name, pictures, sound, rate):
    how = (pictures, sound, rate, {})
    together = write_media(tmp_path / f'a_{name}', *how, seconds=1.5)
    late_sound = write_media(tmp_path / f'b_{name}', *how, seconds=1.5, sound_at=0.5)
    late_pictures = write_media(tmp_path / f'c_{name}', *how, seconds=1.5, pictures_at=0.5)
    begins = onset(*audio.load_audio(together))
    assert begins < 0.1
    samples, found_rate = audio.load_audio(late_sound)
    assert onset(samples, found_rate) == pytest.approx(begins + 0.5, abs=0.03)
    assert not samples[: int(0.4 * found_rate)].any()
    assert len(samples) / found_rate == pytest.approx(2.0, abs=0.1)
    part, _ = audio.load_audio(late_sound, offset=0.6, duration=0.5)
    np.testing.assert_array_equal(part, samples[int(0.6 * found_rate) :][: int(0.5 * found_rate)])
    assert onset(*audio.load_audio(late_pictures)) == pytest.approx(begins, abs=0.03)

    info = video.read_info(late_pictures)
    assert (info.start, info.end) == pytest.approx((0.5, 2.0), abs=0.05)
    assert info.sound == pytest.approx((0.0, 1.5), abs=0.1)
    assert video.read_info(late_sound).sound == pytest.approx((0.5, 2.0), abs=0.1)
    frames, info = video.read_frames(late_pictures, how='all')
    assert len(frames) == 30
    np.testing.assert_allclose(info.timestamps, 0.5 + np.arange(30) / FPS, atol=0.05)
    _, info = video.read_frames(late_pictures, 3)  # spread over the pictures, not over the wait for them
    np.testing.assert_allclose(info.timestamps, [0.74, 1.24, 1.74], atol=0.06)
    _, info = video.read_frames(late_pictures, how='all', fps=10)
    assert len(info.timestamps) == pytest.approx(20, abs=1)  # of 2 s; the first one is held until it begins
    with pytest.raises(MediaError, match='no frames'):
        video.read_frames(late_pictures, 2, end=0.3)


def test_a_gap_in_the_sound_is_silence(tmp_path):
    path = write_media(tmp_path / 'x.mkv', 'mpeg4', 'pcm_s16le', 16000, seconds=2.0, gap=0.75)
    samples, rate = audio.load_audio(path)
    assert len(samples) / rate == pytest.approx(2.75, abs=0.01)
    (quiet,) = np.nonzero(np.lib.stride_tricks.sliding_window_view(np.abs(samples), 500).max(1) == 0)
    assert (quiet[0] / rate, (quiet[-1] + 500) / rate) == pytest.approx((1.0, 1.75), abs=0.02)
    whole = audio.load_audio(write_media(tmp_path / 'y.mkv', 'mpeg4', 'pcm_s16le', 16000, seconds=2.0))[0]
    np.testing.assert_array_equal(samples[samples != 0], whole[whole != 0])


def test_a_jump_of_the_clock_is_refused(tmp_path):
    path = write_media(tmp_path / 'x.mkv', 'mpeg4', 'pcm_s16le', 16000, seconds=2.0, gap=5000.0)
    with pytest.raises(MediaError, match=r'a gap in the sound; 5000\.\d s without sound from 1\.\d+ s on'):
        audio.load_audio(path)


def test_silence_and_black():
    for level in (0.0, 0.25):
        assert audio.is_silent(np.full(1000, level, np.float32))
        assert audio.is_silent(level + 1e-6 * np.sin(np.arange(1000)))  # what a lossy coder leaves
        assert not audio.is_silent(level + 2.0**-15 * (np.arange(1000) % 2))  # the faintest 16-bit sound
    black = np.zeros((2, 4, 4, 3), np.uint8)
    assert video.is_black(black)
    assert video.is_black(black + 2)
    black[1, 2, 3, 1] = 3
    assert not video.is_black(black)
