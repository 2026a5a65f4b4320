"""Sound files -> samples -> MFCC or log-mel frames.

The features are those of librosa's defaults (Hann window, centred frames, zero padding, Slaney mel filters, orthonormal
DCT-II), computed by media/spectrum.py.
"""

import contextlib
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
import threadpoolctl

from mmer_jax.media import MediaError, announced, spectrum
from mmer_jax.media.download import check_download

__all__ = ['MediaError', 'is_silent', 'load_audio', 'load_window', 'log_mel', 'mfcc']
LEAST_RATE, MOST_RATE = 1000, 768000  # Hz; a header outside is damaged, and resampling would multiply the samples
SILENCE = 2.0**-15  # of full scale: the least step of 16-bit sound
GAP = 0.1  # seconds without sound in the middle of a stream before it is filled; below it, clocks are not that exact
HELD = 3600.0  # seconds: an hour at 48 kHz is 700 MB
LONGEST_GAP = 600.0  # seconds of silence to fill in at most
# Titles that are not UTF-8 are no reason to refuse the sound; PyAV 19 dropped the option with the strictness.
AV_OPTIONS: dict[str, Any] = {'metadata_errors': 'ignore'} if int(av.__version__.split('.')[0]) < 19 else {}


def load_audio(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    *,
    offset: float = 0.0,
    duration: float | None = None,
) -> tuple[np.ndarray, int]:
    """Reads the sound of an audio or video file: (samples float32 (S,), samples per second).

    Channels are averaged. `offset` and `duration` in seconds cut before resampling, as librosa.load does; a clip
    shorter than asked gives what there is. `sample_rate=None` keeps the file's own rate; otherwise soxr's 'HQ'
    resamples to S = ceil(n * sample_rate / own rate), equal to librosa.load(res_type='soxr_hq') within 1e-6.
    Samples are nominally in [-1, 1]; a lossy codec or resampling may overshoot slightly, and nothing is clipped.
    The format is told by the content, whatever the name ends in. soundfile reads WAV, FLAC, Ogg, AIFF and the like and
    seeks to `offset`; PyAV decodes the rest (MP3, mp4, m4a, flv, avi, ...) from the start, since a lossy decoder's
    output depends on what it decoded before. Second 0 is where the file's first sound or picture begins: sound that
    begins later than the pictures has silence in front, a gap in its time stamps of more than 0.1 s is silence too.

    A file that holds less than it says is refused, whatever part of it is asked for (announced.py: what each container
    says); one that says nothing that counts, such as a WAV file of a pipe, is read to its end.

    MediaError names the file and the fault (missing, empty, git-LFS pointer, no audio stream, damaged, truncated,
    offset beyond the end, non-finite samples, a sample rate that cannot be); ValueError: an argument makes no sense.
    """
    if sample_rate is not None and sample_rate <= 0:
        raise ValueError(f'sample_rate must be positive, found {sample_rate}')
    if offset < 0 or (duration is not None and duration <= 0):
        raise ValueError(f'offset must be 0 or more and duration positive (seconds), found {offset} and {duration}')
    path = Path(path)
    check_file(path)
    chunk = announced.find_samples(path)
    found = _read_soundfile(path, offset, duration, chunk)
    samples, rate = _read_container(path, offset, duration, chunk) if found is None else found
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise MediaError(path, 'non-finite samples', f'{count} of {samples.size} are NaN or infinite; export it again')
    if sample_rate is None or sample_rate == rate:
        return samples, rate
    return _resample(samples, rate, sample_rate), sample_rate


def load_window(path: str | os.PathLike, sample_rate: int, *, offset: float, duration: float) -> tuple[np.ndarray, int]:
    """load_audio for one of many windows of a file: what can only be decoded from its start is decoded once.

    The sound of the last such file, as long as HELD seconds at most, stays in memory. The samples are load_audio's.
    """
    path = Path(path)
    check_file(path)
    status = path.stat()
    held = _whole(path, status.st_size, status.st_mtime_ns)
    if held is None:
        return load_audio(path, sample_rate, offset=offset, duration=duration)
    samples, rate = held
    start, count = _window(path, offset, duration, rate)
    _check_length(path, start, offset, len(samples), rate)
    part = samples[start : start + (count or 0)]
    return (part, rate) if rate == sample_rate else (_resample(part, rate, sample_rate), sample_rate)


@functools.lru_cache(maxsize=1)
def _whole(path: Path, size: int, changed: int) -> tuple[np.ndarray, int] | None:
    """All of the sound of a file that cannot be read from its middle; None where it can, or is too long."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.format != 'MP3':
                return None
    except soundfile.LibsndfileError:
        with contextlib.suppress(av.FFmpegError), av.open(str(path), **AV_OPTIONS) as container:
            if (container.duration or 0) / av.time_base > HELD:
                return None
    return load_audio(path)


def check_file(path: Path) -> None:
    check_download(path, 'a sound or video file')


def _window(path: Path, offset: float, duration: float | None, rate: int) -> tuple[int, int | None]:
    """First sample and number of samples (None: to the end), truncated to whole samples as librosa does."""
    count = None if duration is None else int(duration * rate)
    if count == 0:
        raise ValueError(f'{path}: a duration of {duration} s is less than one sample at {rate} Hz')
    return int(offset * rate), count


def _check_length(path: Path, start: int, offset: float, total: int, rate: int) -> None:
    if total == 0:
        raise MediaError(path, 'no samples', 'the file is truncated or holds no sound; copy or download it again')
    if start >= total:
        found = f'offset {offset:g} s, but the sound is {total / rate:.3f} s long'
        raise MediaError(path, 'offset beyond the end', f'{found}; lower the offset')


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples in [-1, 1] hold no sound: all of them are equal to less than a step of 16 bits, 0 or not."""
    return bool(np.ptp(samples) < SILENCE) if len(samples) else True


def _read_soundfile(
    path: Path, offset: float, duration: float | None, chunk: announced.Chunk | None
) -> tuple[np.ndarray, int] | None:
    """Samples and rate, or None where libsndfile does not know the format, or guesses its length."""
    streamed = chunk is not None and chunk.announced is None and path.stat().st_size < 0xFFFFFFFF
    with open(path, 'rb') as opened:
        is_wav = opened.read(4) in (b'RIFF', b'RIFX', b'RF64', b'BW64')
    try:
        source = io.BytesIO(announced.with_true_size(path, chunk)) if chunk and streamed and is_wav else path
        file = soundfile.SoundFile(source)
    except soundfile.LibsndfileError:
        return None
    with file:
        if file.format == 'MP3' or file.frames > 2**40:  # without a count: MP3 (guessed), FLAC (the largest number)
            return None
        _check_rate(path, file.samplerate)
        _check_announced(path, file, chunk)
        start, count = _window(path, offset, duration, file.samplerate)
        _check_length(path, start, offset, file.frames, file.samplerate)
        expected = file.frames - start if count is None else min(count, file.frames - start)
        try:
            file.seek(start)
            samples = file.read(expected, dtype='float32', always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _damaged(path, f'{error} {_how_far(path, file)}') from error
        if len(samples) < expected:
            raise announced.truncated(path, file.frames / file.samplerate, (start + len(samples)) / file.samplerate)
        return samples.mean(axis=1), file.samplerate


def _how_far(path: Path, file: soundfile.SoundFile) -> str:
    """What is stated and what can be decoded of a file that fails on the way."""
    found = 0
    with soundfile.SoundFile(path) as again, contextlib.suppress(soundfile.LibsndfileError):
        while len(block := again.read(1024)):
            found += len(block)
    return f'{file.frames / file.samplerate:.3f} s announced, {found / file.samplerate:.3f} s found'


def _check_rate(path: Path, rate: int) -> None:
    if not LEAST_RATE <= rate <= MOST_RATE:
        expected = f'expected {LEAST_RATE} to {MOST_RATE}; its header is damaged, export it again'
        raise MediaError(path, 'a sample rate that cannot be', f'the header says {rate} Hz, {expected}')


def _check_announced(path: Path, file: soundfile.SoundFile, chunk: announced.Chunk | None) -> None:
    """libsndfile takes what is there for all, so what is stated is asked of the file itself."""
    found = file.frames / file.samplerate
    _check_chunk(path, chunk, found)
    if file.format == 'OGG' and (granule := announced.cut_page(path)) is not None:
        raise announced.truncated(path, max(granule / file.samplerate, found), found)


def _check_chunk(path: Path, chunk: announced.Chunk | None, found: float) -> None:
    if chunk is not None and chunk.announced is not None and 0 < chunk.available < chunk.announced:
        raise announced.truncated(path, found * chunk.announced / chunk.available, found)


def _damaged(path: Path, error: Exception | str) -> MediaError:
    return MediaError(path, 'cannot be decoded', f'damaged or not a media file ({error}); copy or download it again')


def _read_container(
    path: Path, offset: float, duration: float | None, chunk: announced.Chunk | None
) -> tuple[np.ndarray, int]:
    """Samples and rate of the first audio stream of anything FFmpeg decodes."""
    try:
        with av.open(str(path), **AV_OPTIONS) as container:
            if not container.streams.audio:
                kinds = ', '.join(stream.type for stream in container.streams) or 'no stream at all'
                raise MediaError(path, 'no audio stream', f'found {kinds}; use the version of the clip with sound')
            span = announced.scan(path, container)[container.streams.audio[0].index]
            _check_chunk(path, chunk, span.end)
        with av.open(str(path), **AV_OPTIONS) as container:
            return _decode(path, container, offset, duration, span)
    except av.FFmpegError as error:
        raise _damaged(path, error) from error


def _decode(
    path: Path, container: Any, offset: float, duration: float | None, span: announced.Span
) -> tuple[np.ndarray, int]:
    stream = container.streams.audio[0]
    pieces: list[np.ndarray] = []
    total = first = start = rate = 0
    count, finished = None, True
    for rate, piece in _pieces(path, container, stream):
        if count is None and not total:
            start, count = _window(path, offset, duration, rate)
        if total + len(piece) > start:
            first = first if pieces else total
            pieces.append(piece)
        total += len(piece)
        if count is not None and total >= start + count:
            finished = False
            break
    if finished and rate:
        if total < (span.end - announced.TOLERANCE) * rate:
            found = f'{total / rate:.3f} s of {span.end:.3f} s could be'
            raise MediaError(path, 'cannot be decoded', f'{found}; {announced.AGAIN}')
        if stream.duration and 'mp4' in container.format.name:
            # The mp4 family states the exact length; FFmpeg versions differ in whether they drop the padding of the
            # last AAC frame.
            end = round((max(span.start, 0) + stream.duration * float(stream.time_base)) * rate)
            total = end if end < total < end + 2048 else total
    _check_length(path, start, offset, total, rate or 1)
    stop = total if count is None else min(start + count, total)
    return np.concatenate(pieces)[start - first : stop - first], rate


def _pieces(path: Path, container: Any, stream: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, mono samples) one after another from second 0 of the file on, silence where no sound is."""
    zero = announced.origin(container)
    total = rate = 0
    for frame in container.decode(stream):
        if not rate:
            rate = frame.sample_rate
            _check_rate(path, rate)
        elif frame.sample_rate != rate:
            found = f'{rate} Hz, then {frame.sample_rate} Hz'
            raise MediaError(path, 'the sample rate changes', f'{found}; encode the file again with one rate')
        missing = 0 if frame.time is None else round((frame.time - zero) * rate) - total
        if missing > LONGEST_GAP * rate:
            found = f'{missing / rate:.1f} s without sound from {total / rate:.3f} s on'
            raise MediaError(path, 'a gap in the sound', f'{found}, expected {LONGEST_GAP:g} or less; encode it again')
        if missing > (GAP * rate if total else 0):
            yield rate, np.zeros(missing, np.float32)
            total += missing
        yield rate, _frame_to_mono(frame)
        total += frame.samples


def _frame_to_mono(frame: Any) -> np.ndarray:
    """A decoded audio frame -> float32 (samples,): integer formats scaled to [-1, 1), channels averaged."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    if array.dtype == np.uint8:  # 8-bit sound is unsigned, 128 is silence
        array = (array.astype(np.float32) - 128) / 128
    elif array.dtype.kind == 'i':
        array = array / np.float64(2 ** (8 * array.dtype.itemsize - 1))
    return array.astype(np.float32).mean(axis=0)


def _resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    length = int(np.ceil(len(samples) * (float(target) / rate)))
    resampled = soxr.resample(samples, rate, target, quality='HQ')[:length]
    return np.pad(resampled, (0, length - len(resampled)))


def mfcc(
    samples: np.ndarray,
    sample_rate: int,
    *,
    num_mfcc: int = 13,
    n_fft: int = 2048,
    hop_length: int = 512,
    num_mels: int = 128,
    top_db: float | None = 80.0,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> np.ndarray:
    """Mel-frequency cepstral coefficients: samples (S,) -> float32 (T, num_mfcc), T = 1 + S // hop_length.

    As librosa.feature.mfcc(...).T: the orthonormal DCT-II of the log-mel spectrum (reference 1). `fmax` None is half
    the sample rate. ValueError where samples are not a finite, non-empty float vector.
    """
    if not 0 < num_mfcc <= num_mels:
        raise ValueError(f'num_mfcc must be in 1..num_mels ({num_mels}), found {num_mfcc}')
    power = _mel_power(samples, sample_rate, n_fft, hop_length, num_mels, fmin, fmax)
    with _one_thread().limit(limits=1):
        return np.ascontiguousarray(spectrum.cepstrum(_decibels(power, 1.0, top_db), num_mfcc).T)


def log_mel(
    samples: np.ndarray,
    sample_rate: int,
    *,
    n_fft: int = 2048,
    hop_length: int = 512,
    num_mels: int = 128,
    top_db: float | None = 80.0,
    reference: float | str = 'max',
    fmin: float = 0.0,
    fmax: float | None = None,
) -> np.ndarray:
    """Mel power spectrum in decibels: samples (S,) -> float32 (T, num_mels), T = 1 + S // hop_length.

    As librosa.power_to_db(librosa.feature.melspectrogram(...)).T. `reference` is the power of 0 dB, or 'max' for the
    clip's own maximum (which discards its loudness); values more than `top_db` below the maximum are raised to that
    floor. ValueError where samples are not a finite, non-empty float vector.
    """
    power = _mel_power(samples, sample_rate, n_fft, hop_length, num_mels, fmin, fmax)
    if isinstance(reference, str) and reference != 'max':
        raise ValueError(f"reference must be 'max' or a power, found {reference!r}")
    return np.ascontiguousarray(_decibels(power, power.max() if isinstance(reference, str) else reference, top_db).T)


def _decibels(power: np.ndarray, reference: float, top_db: float | None) -> np.ndarray:
    if top_db is not None and top_db < 0:
        raise ValueError(f'top_db must be 0 or more, or None, found {top_db}')
    return spectrum.decibels(power, reference, top_db)


def _mel_power(
    samples: np.ndarray, sample_rate: int, n_fft: int, hop_length: int, num_mels: int, fmin: float, fmax: float | None
) -> np.ndarray:
    """Mel power spectrum, float32 (num_mels, T)."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind != 'f':
        found = f'shape {samples.shape} and dtype {samples.dtype}'
        raise ValueError(f'samples must be a non-empty float vector (S,) in [-1, 1], found {found}')
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise ValueError(f'samples of shape {samples.shape} have {count} NaN or infinite values, expected none')
    if sample_rate <= 0 or n_fft < 2 or hop_length < 1:
        found = f'{sample_rate}, {n_fft} and {hop_length}'
        raise ValueError(f'sample_rate, n_fft (2 or more) and hop_length must be positive, found {found}')
    fmax = sample_rate / 2 if fmax is None else fmax
    if num_mels < 1 or not 0 <= fmin < fmax:
        raise ValueError(f'expected num_mels > 0 and 0 <= fmin < fmax, found {num_mels}, {fmin} and {fmax}')
    with _one_thread().limit(limits=1):
        return spectrum.mel_power(
            samples.astype(np.float32),
            sample_rate,
            n_fft=n_fft,
            hop_length=hop_length,
            num_mels=num_mels,
            fmin=fmin,
            fmax=fmax,
        )


@functools.cache
def _one_thread() -> threadpoolctl.ThreadpoolController:
    """Holds BLAS to one thread: those of several worker processes would wait for one another."""
    return threadpoolctl.ThreadpoolController()
