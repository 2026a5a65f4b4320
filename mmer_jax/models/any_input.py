"""Any record into any model of sequences: what a modality needs in front is told by its shape and type."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.filterbank import kaldi_fbank
from mmer_jax.encoders.frame_cnn import FrameCnn
from mmer_jax.encoders.wav2vec2 import prepare_waveform
from mmer_jax.layers import check_batch

LAYOUTS = ('BTD', 'BTHWC', 'BT')
MEAN, DEVIATION = -7.0, 4.0  # of log energies of speech in mel bands, to about mean 0 and deviation 1


class AnyInput(nn.Module):
    """`model` sees each modality as a sequence of vectors (B, T, D), made from what the data have:

    vectors (B, T, D) of float as they are; pictures (B, T, H, W, C) by a small CNN, frame by frame (frame_cnn);
    samples (B, S) of int16 or float at 16 kHz as log-mel bands, `bands` of them, one step per `hop` frames of 10 ms;
    token ids (B, T) of int32 as vectors learnt from the start, `embedding` wide, of `vocabulary` rows (an id beyond
    them shares a row). Parameters: vision_cnn/..., text_embedding/..., model/...; outputs are the model's.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    model: nn.Module
    bands: int = 64
    hop: int = 4
    embedding: int = 64
    vocabulary: int = 32768
    dropout: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        batch = check_batch(self, batch, self.modalities, layouts=LAYOUTS)
        for m in self.modalities:
            x, mask_BT = self._sequence(m, batch[m], batch[f'{m}_mask'], train=train)
            batch = {**batch, m: x.astype(jnp.float32), f'{m}_mask': mask_BT}
        return self.model(batch, train=train)

    def _sequence(self, m: str, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        if x.ndim == 5:
            return FrameCnn(dropout=self.dropout, dtype=self.dtype, name=f'{m}_cnn')(x, mask_BT, train=train)
        if x.ndim == 3:
            return x, mask_BT
        if x.dtype == jnp.int32:
            embed = nn.Embed(self.vocabulary, self.embedding, dtype=self.dtype, name=f'{m}_embedding')
            return embed(x % self.vocabulary), mask_BT
        bands_BTD, mask_BT = kaldi_fbank(prepare_waveform(x, mask_BT, normalize=False), mask_BT, num_bands=self.bands)
        bands_BTD = jnp.where(mask_BT[..., None], (bands_BTD - MEAN) / DEVIATION, 0)
        return _thinned(bands_BTD, mask_BT, self.hop)


def _thinned(x_BTD: Array, mask_BT: Array, hop: int) -> tuple[Array, Array]:
    """The mean of each `hop` steps, over the valid ones: (B, ceil(T / hop), D) and its mask."""
    missing = -x_BTD.shape[1] % hop
    x_BTD, mask_BT = jnp.pad(x_BTD, ((0, 0), (0, missing), (0, 0))), jnp.pad(mask_BT, ((0, 0), (0, missing)))
    parts, valid = x_BTD.reshape(len(x_BTD), -1, hop, x_BTD.shape[-1]), mask_BT.reshape(len(x_BTD), -1, hop)
    count = valid.sum(2, keepdims=True).astype(x_BTD.dtype)
    return jnp.where(valid[..., None], parts, 0).sum(2) / jnp.maximum(count, 1), valid.any(2)
