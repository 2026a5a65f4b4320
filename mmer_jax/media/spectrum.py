"""Mel spectra, decibels and cepstra in numpy, by the definitions of librosa.

librosa itself takes three seconds and 180 MB in each process, and up to a minute where it was never called before
(`python -m benchmarks.media --sound`): a prediction of one clip would mostly wait for it. Functionals of sound, which
want more of it, use it (media/functionals.py). tests/test_audio.py compares these with librosa's.
"""

import functools
import warnings

import numpy as np

BLOCK = 32  # frames transformed at a time: the working set stays in cache
LEAST = 1e-10  # power below which decibels are not told apart
# Slaney's mel scale (Auditory Toolbox, 1998): linear up to the knee, then 27 steps to 6.4 times the knee.
MEL_HZ, KNEE_HZ, LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def mel_power(
    samples: np.ndarray, sample_rate: int, *, n_fft: int, hop_length: int, num_mels: int, fmin: float, fmax: float
) -> np.ndarray:
    """float32 samples (S,) -> mel power spectrum, float32 (num_mels, T), T = 1 + S // hop_length (n_fft even).

    Frames of n_fft samples, Hann window, centred at each hop_length, with zeros around the samples.
    """
    filters, half = mel_filters(sample_rate, n_fft, num_mels, fmin, fmax), n_fft // 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, half), n_fft)[::hop_length]
    power = np.empty((num_mels, len(frames)), np.float32)
    for start in range(0, len(frames), BLOCK):
        spectrum = np.fft.rfft(frames[start : start + BLOCK] * window, axis=1)  # in double precision
        power[:, start : start + BLOCK] = filters @ (spectrum.real**2 + spectrum.imag**2).astype(np.float32).T
    return power


@functools.lru_cache(maxsize=16)
def mel_filters(sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangles of unit area between steps of Slaney's scale, float32 (num_mels, n_fft // 2 + 1)."""
    edges = _to_hz(np.linspace(_to_mel(fmin), _to_mel(fmax), num_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    if not triangles.any(1).all():
        empty = int((~triangles.any(1)).sum())
        warnings.warn(
            f'{empty} of {num_mels} mel filters lie between two bins of the spectrum and stay 0: take fewer filters '
            f'(num_mels) or a longer window (n_fft, {n_fft} at {sample_rate} Hz)',
            stacklevel=4,
        )
    return (triangles * (2 / (upper - lower))).astype(np.float32)


def _to_mel(hz: float) -> float:
    if hz <= KNEE_HZ:
        return hz / MEL_HZ
    return KNEE_HZ / MEL_HZ + np.log(hz / KNEE_HZ) / LOG_STEP


def _to_hz(mel: np.ndarray) -> np.ndarray:
    knee = KNEE_HZ / MEL_HZ
    return np.where(mel <= knee, mel * MEL_HZ, KNEE_HZ * np.exp(LOG_STEP * (np.maximum(mel, knee) - knee)))


def decibels(power: np.ndarray, reference: float, top_db: float | None) -> np.ndarray:
    """10 log10(power / reference), both LEAST at least; values top_db below the greatest are raised to that."""
    found = 10 * np.log10(np.maximum(power, np.float32(LEAST))) - np.float32(10 * np.log10(max(reference, LEAST)))
    return found if top_db is None else np.maximum(found, found.max() - np.float32(top_db))


def cepstrum(levels: np.ndarray, count: int) -> np.ndarray:
    """The first `count` coefficients of the orthonormal DCT-II over the first axis: (N, T) -> (count, T)."""
    return _cosines(len(levels), count) @ levels


@functools.lru_cache(maxsize=16)
def _cosines(size: int, count: int) -> np.ndarray:
    cosines = np.cos(np.pi / size * np.arange(count)[:, None] * (np.arange(size) + 0.5)) * np.sqrt(2 / size)
    cosines[0] /= np.sqrt(2)
    return cosines.astype(np.float32)
