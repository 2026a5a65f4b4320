"""Encoders in front of any model: a pretrained text network before MFSA, fine-tuned with it or frozen."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.protocol import Encoder
from mmer_jax.layers import check_batch


class Encoded(nn.Module):
    """`text`, `audio` and `vision` are encoders or None; `model` is any model and sees their features as its input.

    A modality without an encoder reaches the model as it is. Parameters: text/..., model/...; outputs are the model's.
    To freeze an encoder, set its dropout to 0 and config.optimizer.freeze to ('^text/',): what only its gradient needs
    is compiled away.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    model: nn.Module
    text: Encoder | None = None
    audio: Encoder | None = None
    vision: Encoder | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        encoders = {m: getattr(self, m) for m in ('text', 'audio', 'vision') if getattr(self, m) is not None}
        unused = [m for m in encoders if m not in self.modalities]
        if unused or not encoders:
            raise ValueError(
                f'encoded has encoders of {tuple(encoders)} and modalities {self.modalities}: give it at least one '
                'encoder, and none of a modality that it does not see'
            )
        batch = check_batch(self, batch, self.modalities)
        encoded = dict(batch)
        for m, encoder in encoders.items():
            features, encoded[f'{m}_mask'] = encoder(batch[m], batch[f'{m}_mask'], train=train)
            encoded[m] = features.astype(jnp.float32)
        return self.model(encoded, train=train)
