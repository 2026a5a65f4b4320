"""The sound of a clip: MFCC, log-mel frames, samples, or functionals, one vector for the whole of it."""

import dataclasses

import numpy as np

from mmer_jax.data.schema import Feature
from mmer_jax.media import MediaError, audio, functionals
from mmer_jax.readers.clip import Clip, Reading

FEATURES = ('mfcc', 'log_mel', 'waveform', 'functionals')
PCM_SCALE = 32768  # int16 = float * 32768, so 16-bit files come back unchanged
NO_SOUND = 'no audio stream'  # MediaError.reason of a file with pictures alone


@dataclasses.dataclass(frozen=True)
class Sound:
    """`features` of the sound at `sample_rate` Hz from `offset` seconds of the clip on, `duration` of them (0: all).

    mfcc (T, num_mfcc) and log_mel (T, num_mels) have a frame every `hop_length` samples, of `n_fft`; waveform (S,) is
    int16; functionals (645,) are those of mmer_jax.media.functionals. Silence is missing.
    """

    features: str = 'mfcc'
    sample_rate: int = 44100
    num_mfcc: int = 13
    hop_length: int = 512
    offset: float = 0.0
    duration: float = 0.0
    n_fft: int = 2048
    num_mels: int = 128

    modality = 'audio'

    def __post_init__(self):
        if self.features not in FEATURES:
            raise ValueError(f'sound features {self.features!r}: the known ones are {", ".join(FEATURES)}')
        if self.features == 'functionals' and self.sample_rate != functionals.SAMPLE_RATE:
            raise ValueError(f'functionals are of {functionals.SAMPLE_RATE} Hz, found sample_rate {self.sample_rate}')

    def check(self) -> None:
        return None

    def feature(self) -> Feature:
        frames = f'one frame every {self.hop_length} samples at {self.sample_rate} Hz'
        if self.n_fft != Sound.n_fft:
            frames += f', {self.n_fft} samples long'
        if self.features == 'waveform':
            description = f'{self.sample_rate} Hz mono, float = int16 / {PCM_SCALE}'
            return Feature((None,), 'int16', description=description, optional=True)
        if self.features == 'functionals':
            description = f'functionals of the sound at {functionals.SAMPLE_RATE} Hz (mmer_jax.media.functionals)'
            return Feature((functionals.SIZE,), description=description, optional=True)
        if self.features == 'mfcc':
            return Feature((None, self.num_mfcc), description=f'MFCC (librosa defaults), {frames}', optional=True)
        return Feature((None, self.num_mels), description=f'mel power in dB of full scale, {frames}', optional=True)

    def read(self, clip: Clip) -> Reading:
        if clip.path is None:
            return Reading(None, missing='no file')
        start = clip.start + self.offset
        lengths = [self.duration or None, None if clip.end is None else clip.end - start]
        duration = min((seconds for seconds in lengths if seconds is not None), default=None)
        rate = self.sample_rate
        try:
            if clip.end is None or duration is None:
                samples, rate = audio.load_audio(clip.path, rate, offset=start, duration=duration)
            else:
                samples, rate = audio.load_window(clip.path, rate, offset=start, duration=duration)
        except MediaError as error:
            if error.reason != NO_SOUND:
                raise
            return Reading(None, missing='no sound in the file', fault=error)
        columns = {'duration': round(len(samples) / rate, 6)}
        if audio.is_silent(samples):
            return Reading(None, columns, 'silence')
        return Reading(self._array(samples, rate), columns)

    def _array(self, samples: np.ndarray, rate: int) -> np.ndarray:
        frames = {'hop_length': self.hop_length, 'n_fft': self.n_fft}
        match self.features:
            case 'mfcc':
                return audio.mfcc(
                    samples, rate, num_mfcc=self.num_mfcc, num_mels=max(self.num_mels, self.num_mfcc), **frames
                )
            case 'log_mel':
                # Decibels of full scale, not of the clip's own maximum: loudness tells anger from sadness.
                return audio.log_mel(samples, rate, num_mels=self.num_mels, reference=1.0, **frames)
            case 'waveform':
                return as_int16(samples)
            case _:
                return functionals.functionals(samples)


def as_int16(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as int16: those of a 16-bit file come back unchanged."""
    return np.clip(np.round(samples * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
