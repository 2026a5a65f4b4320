"""Functionals of a clip's sound: one vector of statistics for classifiers that want no sequence.

Statistics of 64 log-mel bands, 20 MFCC and six low-level descriptors over the active part (within 35 dB of its loudest
frame), of the pitch (YIN) and of the whole. Spectra, mel bands, MFCC, pitch and zero crossings are librosa's.
"""

import warnings

import numpy as np

SAMPLE_RATE = 16000
N_FFT, HOP, PITCH_FRAME = 512, 256, 1024  # samples
NUM_MELS, NUM_MFCC = 64, 20
LOWEST_PITCH, HIGHEST_PITCH = 65.0, 700.0  # Hz
ACTIVE, VOICED, PEAK = 35.0, 22.0, 20.0  # dB below the loudest frame
PERCENTILES = (10, 50, 90)
LOW_LEVEL = 6  # energy, centre and width of the spectrum, flatness, balance around 1 kHz, zero crossings
SIZE = (len(PERCENTILES) + 4) * (NUM_MELS + NUM_MFCC + LOW_LEVEL) + 10 + 5  # 645
FLOOR = 1e-9


def functionals(samples: np.ndarray) -> np.ndarray:
    """Samples (S,) at 16 kHz in [-1, 1] -> float32 (645,); a clip shorter than 1,024 samples continues with zeros.

    ValueError where the samples are not a finite vector, or silent.
    """
    import librosa.feature

    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all() or not np.any(samples):
        raise ValueError(f'expected finite samples (S,) that are not all zero, found {samples.dtype} {samples.shape}')
    samples = np.pad(samples, (0, max(PITCH_FRAME - len(samples), 0)))
    power = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP)) ** 2
    mel = librosa.feature.melspectrogram(S=power, sr=SAMPLE_RATE, n_mels=NUM_MELS, fmin=50, fmax=SAMPLE_RATE / 2)
    mel = 10 * np.log10(mel + FLOOR)
    energy = 10 * np.log10(power.sum(0) + FLOOR)
    active = np.flatnonzero(energy > energy.max() - ACTIVE)
    first, last = active[0], active[-1] + 1
    part, loud = power[:, first:last], energy[first:last]
    voiced = loud > loud.max() - VOICED
    crossings = librosa.feature.zero_crossing_rate(samples, frame_length=N_FFT, hop_length=HOP)[0][first:last]
    low_level = np.concatenate([loud[None], _shape_of(part), crossings[None]])
    cepstrum = librosa.feature.mfcc(S=mel[:, first:last], n_mfcc=NUM_MFCC)
    inner = loud[1:-1]
    peaks = ((inner > loud[:-2]) & (inner > loud[2:]) & (inner > loud.max() - PEAK)).sum() / len(loud)
    whole = [np.log(len(loud)), peaks, voiced.mean(), loud.max(), _slope(loud)]
    melody = _melody(samples, slice(first, last), voiced)
    found = [*map(_statistics, (mel[:, first:last], cepstrum, low_level)), melody, np.array(whole)]
    return np.concatenate(found).astype(np.float32)


def _statistics(x_DT: np.ndarray) -> np.ndarray:
    """(D, T) -> (7 D,): mean, deviation, percentiles, deviation and mean size of the change; of one step no change."""
    change = np.diff(x_DT, axis=1) if x_DT.shape[1] > 1 else np.zeros((len(x_DT), 1))
    spread = [np.percentile(x_DT, p, axis=1) for p in PERCENTILES]
    return np.concatenate([x_DT.mean(1), x_DT.std(1), *spread, change.std(1), np.abs(change).mean(1)])


def _shape_of(power_FT: np.ndarray) -> np.ndarray:
    """Centre and width (kHz), log flatness, energy above against below 1 kHz (dB) of each frame's spectrum: (4, T)."""
    share = power_FT / (power_FT.sum(0)[None] + 1e-12)
    kilohertz = np.linspace(0, SAMPLE_RATE / 2000, len(power_FT))[:, None]
    centre = (share * kilohertz).sum(0)
    width = np.sqrt((share * (kilohertz - centre[None]) ** 2).sum(0))
    flatness = np.exp(np.log(power_FT + 1e-12).mean(0)) / (power_FT.mean(0) + 1e-12)
    border = N_FFT * 1000 // SAMPLE_RATE
    balance = 10 * np.log10((power_FT[border:].sum(0) + FLOOR) / (power_FT[:border].sum(0) + FLOOR))
    return np.stack([centre, width, np.log(flatness + FLOOR), balance])


def _melody(samples: np.ndarray, part: slice, voiced: np.ndarray) -> np.ndarray:
    """(10,): mean, deviation, percentiles, change and slope of log2 of the pitch over the voiced frames."""
    import librosa

    with warnings.catch_warnings():  # a clip of two periods of the lowest pitch is enough for YIN
        warnings.simplefilter('ignore', UserWarning)
        pitch = librosa.yin(
            samples, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=SAMPLE_RATE, frame_length=PITCH_FRAME, hop_length=HOP
        )
    log_pitch = np.log2(np.maximum(pitch[part], 50))
    if voiced[: len(log_pitch)].sum() > 4:
        log_pitch = log_pitch[voiced[: len(log_pitch)]]
    change = np.diff(log_pitch) if len(log_pitch) > 1 else np.zeros(1)
    quantiles = np.percentile(log_pitch, [5, 25, 50, 75, 95])
    spread = [log_pitch.mean(), log_pitch.std(), *quantiles, change.std(), np.abs(change).mean()]
    return np.array([*spread, _slope(log_pitch)])


def _slope(values: np.ndarray) -> float:
    """Of a straight line through the values over the time from 0 to 1; 0 of one value."""
    if len(values) < 2:
        return 0.0
    time = np.linspace(-0.5, 0.5, len(values))
    return float((time * (values - values.mean())).sum() / (time**2).sum())
