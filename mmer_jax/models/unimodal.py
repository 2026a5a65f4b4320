"""One modality, one encoder, one linear head: the unimodal baselines of every paper."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.protocol import Encoder
from mmer_jax.layers import check_batch


class Unimodal(nn.Module):
    """encoder -> pool -> linear head; predictions (B, num_outputs).

    Extras: `features` (B, D), the head's input; of an encoder of sequences also its `steps` (B, T, D) and their mask
    `steps_mask` (B, T).
    """

    modalities: tuple[str, ...]
    num_outputs: int
    encoder: Encoder
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        if len(self.modalities) != 1:
            raise ValueError(f'a unimodal model takes one modality, found modalities = {self.modalities}')
        batch = check_batch(self, batch, self.modalities)
        (m,) = self.modalities
        features, mask = self.encoder(batch[m], batch[f'{m}_mask'], train=train)
        pooled_BD = self.encoder.pool(features, mask, train=train)
        logits_BC = nn.Dense(self.num_outputs, dtype=self.dtype, name='head')(pooled_BD)
        outputs = {'prediction': logits_BC.astype(jnp.float32), 'features': pooled_BD}
        if features.ndim == 3:
            outputs |= {'steps': features, 'steps_mask': mask}
        return outputs
