"""MFCC in numpy and scipy, to measure and to check librosa against: what mmer_jax/media/audio.py computed itself once.

The same definitions (Hann window, centred frames, zero padding, Slaney mel filters, orthonormal DCT-II), the transform
in double precision, the filters sparse and kept between calls.
"""

import functools

import numpy as np
import scipy.fft
import scipy.sparse

BLOCK = 32  # frames transformed at a time: the working set stays in cache
MEL_HZ, KNEE_HZ, LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27  # Slaney: linear up to the knee, 27 steps to 6.4 kHz


def mfcc(
    samples: np.ndarray, sample_rate: int, *, num_mfcc: int = 13, n_fft: int = 2048, hop_length: int = 512
) -> np.ndarray:
    """Samples (S,) -> float32 (1 + S // hop_length, num_mfcc), of 128 mel bands and a floor of 80 dB."""
    decibels = 10 * np.log10(np.maximum(mel_power(samples, sample_rate, n_fft, hop_length), np.float32(1e-10)))
    decibels = np.maximum(decibels, decibels.max() - np.float32(80))
    return scipy.fft.dct(decibels, type=2, norm='ortho', axis=1)[:, :num_mfcc].copy()


def mel_power(samples: np.ndarray, sample_rate: int, n_fft: int, hop_length: int, num_mels: int = 128) -> np.ndarray:
    """Mel power spectrum, float32 (T, num_mels)."""
    filters, half = _filters(sample_rate, n_fft, num_mels), n_fft // 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.zeros(len(samples) + 2 * half)
    padded[half : half + len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    power = np.empty((len(frames), num_mels), np.float32)
    for start in range(0, len(frames), BLOCK):
        spectrum = scipy.fft.rfft(frames[start : start + BLOCK] * window, axis=1)
        energy = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        power[start : start + BLOCK] = (filters @ energy.T).T
    return power


@functools.lru_cache(maxsize=16)
def _filters(sample_rate: int, n_fft: int, num_mels: int) -> scipy.sparse.csr_array:
    """Triangles of unit area on Slaney's mel scale, (num_mels, n_fft // 2 + 1)."""
    knee = KNEE_HZ / MEL_HZ
    top = knee + np.log(sample_rate / 2 / KNEE_HZ) / LOG_STEP if sample_rate / 2 > KNEE_HZ else sample_rate / 2 / MEL_HZ
    mel = np.linspace(0, top, num_mels + 2)
    edges = np.where(mel < knee, mel * MEL_HZ, KNEE_HZ * np.exp(LOG_STEP * (np.maximum(mel, knee) - knee)))
    bins = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (upper - lower))
    return scipy.sparse.csr_array(filters.astype(np.float32).T)
