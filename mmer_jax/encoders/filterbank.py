"""Log-mel filterbank of Kaldi, as AST (Gong et al. 2021) was trained on: 16 kHz samples -> 100 frames a second.

Equal to `compute-fbank-feats` with a Hann window, no dither, no energy and frames that lie wholly within the sound,
which is what Hugging Face's ASTFeatureExtractor computes; no mean is subtracted. In float32, as torchaudio: a band some
70 dB below the frame's loudest is true to about 0.001.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.layers import mask_steps

SAMPLE_RATE = 16000
FRAME_LENGTH, FRAME_SHIFT, FFT_LENGTH = 400, 160, 512  # samples: 25 ms every 10 ms, to the next power of two
BLOCK = 80  # divides both, so that frames are strided slices of blocks
PREEMPHASIS = 0.97
LOWEST_HERTZ = 20.0
SMALLEST = float(np.finfo(np.float32).eps)  # of a band's energy, before the logarithm


def num_frames(samples: int) -> int:
    """Frames that lie wholly within so many samples."""
    return max((samples - FRAME_LENGTH) // FRAME_SHIFT + 1, 0)


def mel_bands(num_bands: int) -> np.ndarray:
    """Triangles in mel between 20 Hz and half the sample rate, float32 (FFT_LENGTH / 2 + 1, num_bands)."""

    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)

    mel_F1 = mel(np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE / FFT_LENGTH)[:, None]
    edges = np.linspace(mel(LOWEST_HERTZ), mel(SAMPLE_RATE / 2), num_bands + 2)[None]
    left, centre, right = edges[:, :-2], edges[:, 1:-1], edges[:, 2:]
    rising, falling = (mel_F1 - left) / (centre - left), (right - mel_F1) / (right - centre)
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def cut_frames(x_BS: Array) -> Array:
    """Overlapping frames (B, T, FRAME_LENGTH), by slices: a gather and its gradient are slow."""
    steps, shift = num_frames(x_BS.shape[1]), FRAME_SHIFT // BLOCK
    parts = FRAME_LENGTH // BLOCK
    blocks_BNs = x_BS[:, : ((steps - 1) * shift + parts) * BLOCK].reshape(len(x_BS), -1, BLOCK)
    return jnp.concatenate([blocks_BNs[:, k : k + (steps - 1) * shift + 1 : shift] for k in range(parts)], -1)


def kaldi_fbank(samples_BS: Array, mask_BS: Array, *, num_bands: int = 128) -> tuple[Array, Array]:
    """Samples in [-1, 1) at 16 kHz, (B, S) -> log energies of mel bands, float32 (B, T, num_bands), mask (B, T).

    T = (S - 400) // 160 + 1, and 1 where S < 400. A frame is valid if all its samples are; others are 0. A row shorter
    than a frame has no valid one.
    """
    missing = max(FRAME_LENGTH - samples_BS.shape[1], 0)
    samples_BS, mask_BS = (jnp.pad(x, ((0, 0), (0, missing))) for x in (samples_BS, mask_BS))
    mask_BT = cut_frames(mask_BS).all(-1)
    frames_BTs = cut_frames(mask_steps(samples_BS.astype(jnp.float32), mask_BS))
    frames_BTs = frames_BTs - frames_BTs.mean(-1, keepdims=True)
    before_BTs = jnp.concatenate([frames_BTs[..., :1], frames_BTs[..., :-1]], -1)
    window = np.hanning(FRAME_LENGTH).astype(np.float32)[None, None]
    spectrum_BTF = jnp.fft.rfft((frames_BTs - PREEMPHASIS * before_BTs) * window, FFT_LENGTH, axis=-1)
    power_BTF = jnp.square(spectrum_BTF.real) + jnp.square(spectrum_BTF.imag)
    energy_BTF = jnp.matmul(power_BTF, mel_bands(num_bands), precision=jax.lax.Precision.HIGHEST)
    return mask_steps(jnp.log(jnp.maximum(energy_BTF, SMALLEST)), mask_BT), mask_BT
