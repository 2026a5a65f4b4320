"""A number told through ordered levels: any model, its scores of the levels, and their expected value."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

LEVELS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # of CMU-MOSI's and MOSEI's sentiment


class Ordinal(nn.Module):
    """`model` scores the `levels`; the prediction (B, 1) is their mean under the softmax of the scores.

    Trained by l1 or mse of that mean and by `ordinal`, the cross-entropy of the scores (mmer_jax/losses/ordinal.py).
    The same is known of ages as expectation over a label distribution (Rothe et al. 2015; Gao et al. 2018). A
    prediction lies between the first level and the last. Extras: those of the model, its scores `level_logits` (B, L)
    and the `levels` (B, L), the same in every row. Parameters: model/... `model` has one output per level; build_model
    sees to it.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    model: nn.Module
    levels: tuple[float, ...] = LEVELS
    dtype: Any = jnp.float32

    @classmethod
    def outputs_inside(cls, fields: dict[str, Any]) -> int:
        """The num_outputs of `model`."""
        return len(fields.get('levels', cls.levels))

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        if self.num_outputs != 1:
            raise ValueError(f'ordinal predicts one number, the data have {self.num_outputs} outputs: they are classes')
        if len(self.levels) < 2 or any(a >= b for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError(f'ordinal: levels = {self.levels}, expected two or more that rise')
        outputs = self.model(batch, train=train)
        logits_BL, levels_L = outputs['prediction'], jnp.asarray(self.levels, jnp.float32)
        if logits_BL.shape[1:] != levels_L.shape:
            raise ValueError(
                f'ordinal: the model inside gives {logits_BL.shape[1:]} outputs, expected one per level: '
                f'num_outputs={len(self.levels)}'
            )
        levels_BL = jnp.broadcast_to(levels_L[None], logits_BL.shape)
        expected_B1 = (jax.nn.softmax(logits_BL) * levels_BL).sum(-1, keepdims=True)
        return {**outputs, 'prediction': expected_B1, 'level_logits': logits_BL, 'levels': levels_BL}
