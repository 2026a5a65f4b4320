"""mmer_jax.media.audio: equality with librosa, containers, and one clear error for every kind of bad file."""

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mmer_jax.media import MediaError, audio, spectrum

DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'ravdess'
SOUND = 'Audio_Speech_Actors_01-24/Actor_01/03-01-05-02-01-01-01.flac'
VIDEO = 'Video_Speech_Actor_01/Actor_01/01-01-01-01-01-01-01.mp4'


def real(name):
    if not (DATA / name).is_file():
        pytest.skip(f'the RAVDESS clip {name} is not here')
    return DATA / name


@pytest.fixture(scope='module')
def librosa():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import librosa
        import librosa.feature
    return librosa


def librosa_load(librosa, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # librosa 0.11 imports the deprecated aifc on the way
        return librosa.load(*arguments, res_type='soxr_hq', **options)


def signal(length, rate=22050, seed=0):
    """A tone that fades over 80 dB, over faint noise: dB values from the maximum down to the floor."""
    time = np.arange(length) / rate
    noise = np.random.default_rng(seed).normal(size=length) * 1e-5
    return (0.5 * 10 ** (-4 * time / max(time[-1], 1e-3)) * np.sin(2 * np.pi * 440 * time) + noise).astype(np.float32)


def tone(path, rate=16000, seconds=1.0, channels=1, **options):
    samples = 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(rate * seconds)) / rate)
    soundfile.write(path, np.stack([samples * (k + 1) / channels for k in range(channels)], axis=1), rate, **options)
    return samples


def write_container(
    path, *, codec, rate=16000, seconds=2.0, sound=True, video=False, layout='mono', options=None, title=''
):
    """A small file of a tone, a black picture, or both, through FFmpeg."""
    with av.open(str(path), 'w', options=options or {}) as container:
        container.metadata['title'] = title
        if video:
            pictures = container.add_stream('mpeg4', rate=10)
            pictures.width = pictures.height = 32
            pictures.pix_fmt = 'yuv420p'
        if sound:
            stream = container.add_stream(codec, rate=rate, layout=layout)
        if video:
            for _ in range(5):
                container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            container.mux(pictures.encode())
        if sound:
            channels = 1 if layout == 'mono' else 2
            wave = (8000 * np.sin(2 * np.pi * 220 * np.arange(int(rate * seconds)) / rate)).astype(np.int16)
            for start in range(0, len(wave), 1000):
                piece = np.repeat(wave[None, start : start + 1000], channels, axis=0)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), 's16p', layout)
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return wave / 32768 if sound else None


# ---- features


@pytest.mark.parametrize('length', [1, 37, 511, 2047, 2048, 5000, 44100])
@pytest.mark.parametrize(
    ('rate', 'n_fft', 'hop'), [(22050, 2048, 512), (16000, 2048, 160), (44100, 4096, 441), (16000, 401, 160)]
)
def test_mfcc_and_log_mel_equal_librosa(librosa, length, rate, n_fft, hop):
    samples = signal(length, rate)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # librosa warns where the clip is shorter than the window
        power = librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=n_fft, hop_length=hop)
        cepstrum = librosa.feature.mfcc(y=samples, sr=rate, n_mfcc=20, n_fft=n_fft, hop_length=hop).T
        relative = librosa.power_to_db(power, ref=np.max).T
        absolute = librosa.power_to_db(power, ref=1.0, top_db=None).T
    options = {'n_fft': n_fft, 'hop_length': hop}
    assert len(cepstrum) == 1 + length // hop
    found = audio.mfcc(samples, rate, num_mfcc=20, **options)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cepstrum, rtol=0, atol=2e-3)
    found = audio.log_mel(samples, rate, **options)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, relative, rtol=0, atol=1e-4)
    found = audio.log_mel(samples, rate, reference=1.0, top_db=None, **options)
    # Without the floor the faintest bands, 100 dB down, keep the rounding noise of single precision.
    np.testing.assert_allclose(found, absolute, rtol=0, atol=1e-3)


def test_mel_range_and_number_equal_librosa(librosa):
    samples = signal(30000, 16000)
    power = librosa.feature.melspectrogram(y=samples, sr=16000, n_mels=64, fmin=50, fmax=7000)
    found = audio.log_mel(samples, 16000, num_mels=64, fmin=50, fmax=7000, reference=1.0)
    np.testing.assert_allclose(found, librosa.power_to_db(power).T, rtol=0, atol=1e-4)


def test_silence_is_the_floor(librosa):
    samples = np.zeros(3000, np.float32)
    np.testing.assert_allclose(audio.log_mel(samples, 22050, reference=1.0), -100, atol=1e-4)
    np.testing.assert_allclose(audio.mfcc(samples, 22050), librosa.feature.mfcc(y=samples, n_mfcc=13).T, atol=1e-3)


def test_real_clip_equals_librosa(librosa):
    path = real(SOUND)
    expected, _ = librosa_load(librosa, path, sr=44100, offset=0.5, duration=2.45)
    samples, rate = audio.load_audio(path, 44100, offset=0.5, duration=2.45)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-6)
    found = audio.mfcc(samples, rate)
    assert found.shape == (212, 13)  # the CFN-SR paper's audio
    np.testing.assert_allclose(found, librosa.feature.mfcc(y=expected, sr=44100, n_mfcc=13).T, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    'bad', [np.zeros(0, np.float32), np.zeros((2, 9), np.float32), np.zeros(9, np.int16), np.array([0.0, np.nan])]
)
def test_features_refuse_bad_samples(bad):
    for function in (audio.mfcc, audio.log_mel):
        with pytest.raises(ValueError, match=r'samples .*shape \(') as caught:
            function(bad, 16000)
        assert str(bad.shape) in str(caught.value)


def test_features_refuse_bad_options():
    samples = signal(4000)
    with pytest.raises(ValueError, match='num_mfcc must be in'):
        audio.mfcc(samples, 22050, num_mfcc=129)
    with pytest.raises(ValueError, match='hop_length'):
        audio.mfcc(samples, 22050, hop_length=0)
    with pytest.raises(ValueError, match="reference must be 'max'"):
        audio.log_mel(samples, 22050, reference='min')
    with pytest.raises(ValueError, match='0 <= fmin < fmax'):
        audio.log_mel(samples, 22050, fmin=5000, fmax=4000)
    with pytest.warns(UserWarning, match='mel filters lie between two bins'):
        audio.log_mel(samples, 22050, n_fft=256)


@pytest.mark.parametrize(
    ('n_fft', 'num_mels', 'fmin', 'fmax'), [(2048, 128, 0, 750), (512, 20, 600, 1300), (501, 40, 0, 8000)]
)
def test_filters_equal_librosa(librosa, n_fft, num_mels, fmin, fmax):
    """Below the knee of the scale alone, across it, and of an odd window."""
    expected = librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # some filters are narrower than a bin
        found = spectrum.mel_filters(16000, n_fft, num_mels, fmin, fmax)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('length', [1, 2047])
def test_a_clip_shorter_than_the_window_warns_of_nothing(length):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert audio.mfcc(signal(length), 22050).shape == (1 + length // 512, 13)
        assert np.isfinite(audio.log_mel(np.zeros(length, np.float32), 22050)).all()


def test_mfcc_and_log_mel_do_not_wait_for_librosa():
    """Its first call takes seconds, or a minute in a new installation."""
    code = (
        'import sys, numpy; from mmer_jax.media import audio; import data_prep.ravdess; '
        'assert not {"librosa", "numba", "jax"} & set(sys.modules); '
        'audio.mfcc(numpy.ones(9000, "float32"), 16000); audio.log_mel(numpy.ones(9000, "float32"), 16000); '
        'assert not {"librosa", "numba", "scipy", "jax"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).resolve().parents[1])


# ---- reading


@pytest.mark.parametrize('target', [None, 8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize(('offset', 'duration'), [(0.0, None), (0.3, None), (0.25, 0.333), (0.7, 9.0)])
def test_load_equals_librosa(librosa, tmp_path, target, offset, duration):
    tone(tmp_path / 'x.wav', rate=16000, channels=2)
    expected, expected_rate = librosa_load(librosa, tmp_path / 'x.wav', sr=target, offset=offset, duration=duration)
    samples, rate = audio.load_audio(tmp_path / 'x.wav', target, offset=offset, duration=duration)
    assert (samples.dtype, samples.shape, rate) == (np.float32, expected.shape, expected_rate)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', ['x.wav', 'x.flac', 'x.ogg', 'x.mp3'])
def test_stereo_is_averaged_in_every_sound_format(tmp_path, name):
    samples = tone(tmp_path / name, channels=2)
    found, rate = audio.load_audio(tmp_path / name)
    assert (found.shape, rate) == ((16000,), 16000)
    assert np.abs(found - 0.75 * samples).mean() < 0.01  # lossy formats differ; the mean of 1/2 and 2/2 is 3/4


@pytest.mark.parametrize(
    ('name', 'codec', 'layout', 'video'),
    [
        ('x.mp4', 'aac', 'mono', True),
        ('x.m4a', 'aac', 'stereo', False),
        ('x.avi', 'pcm_s16le', 'stereo', True),
        ('x.mkv', 'pcm_u8', 'mono', False),
        ('x.mkv', 'pcm_f32le', 'stereo', True),
    ],
)
def test_sound_of_containers(tmp_path, name, codec, layout, video):
    wave = write_container(tmp_path / name, codec=codec, layout=layout, video=video)
    whole, rate = audio.load_audio(tmp_path / name)
    assert (whole.dtype, rate) == (np.float32, 16000)
    assert abs(len(whole) - len(wave)) <= 2048  # an encoder's own delay and padding
    spectrum = np.abs(np.fft.rfft(whole[4000:20000]))
    assert spectrum.argmax() == 220
    assert np.abs(whole[4000:20000]).max() == pytest.approx(8000 / 32768, rel=0.03)
    part, _ = audio.load_audio(tmp_path / name, offset=0.5, duration=0.4)
    np.testing.assert_array_equal(part, whole[8000:14400])


def test_titles_that_are_not_utf8(tmp_path):
    write_container(tmp_path / 'x.avi', codec='pcm_s16le', title='MARKER')
    data = (tmp_path / 'x.avi').read_bytes()
    assert b'MARKER' in data
    (tmp_path / 'x.avi').write_bytes(data.replace(b'MARKER', b'caf\xe9 \xff'))
    assert len(audio.load_audio(tmp_path / 'x.avi')[0]) == 32000


def test_real_mp4():
    path = real(VIDEO)
    whole, rate = audio.load_audio(path)
    assert (len(whole), rate) == (158688, 48000)  # the length that the file states, not that of its last AAC frame
    assert 0.01 < np.abs(whole).max() < 1
    part, _ = audio.load_audio(path, offset=1.5, duration=0.5)
    np.testing.assert_array_equal(part, whole[72000:96000])
    tail, _ = audio.load_audio(path, offset=3.0, duration=5.0)
    np.testing.assert_array_equal(tail, whole[144000:])
    # The audio-only release of the same take, 16 kHz here: the same sound up to coding.
    other, _ = audio.load_audio(real(f'Audio_Speech_Actors_01-24/Actor_01/03{path.stem[2:]}.flac'))
    low, _ = audio.load_audio(path, 16000)
    length = min(len(low), len(other))
    lags = np.fft.irfft(np.fft.rfft(low[:length], 1 << 17) * np.conj(np.fft.rfft(other[:length], 1 << 17)))
    assert lags.max() > 0.9 * np.linalg.norm(low) * np.linalg.norm(other)


# ---- faults


def refused(path, reason, *words, **options):
    with pytest.raises(MediaError) as caught:
        audio.load_audio(path, **options)
    assert caught.value.reason == reason
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_missing_empty_folder_and_pointer(tmp_path):
    refused(tmp_path / 'absent.wav', 'no such file')
    refused(tmp_path, 'a folder')
    (tmp_path / 'empty.wav').touch()
    refused(tmp_path / 'empty.wav', 'empty file', 'copy or download it again')
    pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n'
    (tmp_path / 'pointer.mp4').write_text(pointer)
    refused(tmp_path / 'pointer.mp4', 'git-LFS pointer', 'git lfs pull')


def test_not_media_and_no_sound(tmp_path):
    (tmp_path / 'text.wav').write_text('hello world ' * 20)
    refused(tmp_path / 'text.wav', 'cannot be decoded', 'damaged or not a media file')
    write_container(tmp_path / '02-01.mp4', codec='', sound=False, video=True)
    refused(tmp_path / '02-01.mp4', 'no audio stream', 'found video')


def test_damaged_and_truncated(tmp_path):
    noise = np.random.default_rng(0).normal(size=40000) * 0.1
    for name in ('x.flac', 'x.mp3', 'x.wav'):
        soundfile.write(tmp_path / name, noise, 16000)
    flac, mp3, wav = ((tmp_path / name).read_bytes() for name in ('x.flac', 'x.mp3', 'x.wav'))
    (tmp_path / 'half.flac').write_bytes(flac[: len(flac) // 2])
    refused(tmp_path / 'half.flac', 'cannot be decoded')
    (tmp_path / 'junk.flac').write_bytes(flac[:9000] + b'\x5a' * (len(flac) - 9000))
    refused(tmp_path / 'junk.flac', 'cannot be decoded')
    (tmp_path / 'half.mp3').write_bytes(mp3[: len(mp3) // 2])
    refused(tmp_path / 'half.mp3', 'truncated', '2.500 s announced')
    (tmp_path / 'head.wav').write_bytes(wav[:44])
    refused(tmp_path / 'head.wav', 'no samples', 'truncated')
    write_container(tmp_path / 'x.mp4', codec='aac')
    mp4 = (tmp_path / 'x.mp4').read_bytes()
    (tmp_path / 'half.mp4').write_bytes(mp4[: len(mp4) // 2])  # its index, at the end, is gone
    refused(tmp_path / 'half.mp4', 'cannot be decoded')


def test_truncated_file_with_its_index_in_front(tmp_path):
    for name, codec in {'x.mp4': 'aac', 'x.mov': 'pcm_s16le'}.items():
        write_container(tmp_path / name, codec=codec, seconds=4.0, options={'movflags': 'faststart'})
        whole = (tmp_path / name).read_bytes()
        assert whole.find(b'moov') < whole.find(b'mdat')
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    for name in ('x.mp4', 'x.mov'):
        refused(tmp_path / name, 'truncated', '4.000 s announced')
        refused(tmp_path / name, 'truncated', '4.000 s announced', offset=0.5, duration=0.5)  # that is there, but


@pytest.mark.parametrize('name', ['x.wav', 'x.mp4'])
def test_offset_beyond_the_end(tmp_path, name):
    if name == 'x.wav':
        tone(tmp_path / name, seconds=2.0)
    else:
        write_container(tmp_path / name, codec='aac')
    refused(tmp_path / name, 'offset beyond the end', 'offset 5 s', 'sound is 2.', offset=5)
    assert len(audio.load_audio(tmp_path / name, offset=1.9, duration=2.45)[0]) > 0


def test_non_finite_samples(tmp_path):
    samples = np.zeros(1000)
    samples[5] = np.nan
    soundfile.write(tmp_path / 'x.wav', samples, 16000, subtype='FLOAT')
    refused(tmp_path / 'x.wav', 'non-finite samples', '1 of 1000')


@pytest.mark.parametrize('options', [{'offset': -1}, {'duration': 0}, {'sample_rate': 0}, {'duration': 1e-9}])
def test_senseless_arguments(tmp_path, options):
    tone(tmp_path / 'x.wav')
    with pytest.raises(ValueError, match=r'must be|less than one sample') as caught:
        audio.load_audio(tmp_path / 'x.wav', **options)
    assert not isinstance(caught.value, MediaError)


def test_media_error_survives_pickling():
    error = pickle.loads(pickle.dumps(MediaError(Path('a/b.wav'), 'empty file', 'copy it again')))
    assert (str(error), error.reason) == ('a/b.wav: empty file; copy it again', 'empty file')


@pytest.mark.parametrize('name', ['a.wav', 'a.mp4'])
def test_windows_are_the_parts_that_load_audio_gives(tmp_path, name):
    from mmer_jax.media import audio
    from tests.test_video import write_video

    path = tmp_path / name
    if name.endswith('wav'):
        tone(path, rate=22050, seconds=2.0)
    else:
        write_video(path, 40, sound=True, seconds=2.0)
    decoded = []
    original = audio._read_container
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, '_read_container', lambda *a: decoded.append(1) or original(*a))
        for offset in (0.0, 0.37, 1.1):
            found, rate = audio.load_window(path, 8000, offset=offset, duration=0.5)
            wanted, _ = audio.load_audio(path, 8000, offset=offset, duration=0.5)
            assert rate == 8000
            np.testing.assert_array_equal(found, wanted)
    assert len(decoded) == (0 if name.endswith('wav') else 4)  # once for the windows, thrice to compare
    with pytest.raises(MediaError, match='offset beyond the end'):
        audio.load_window(path, 8000, offset=9.0, duration=0.5)
