"""A multi-layer perceptron over vectors: facial action units, acoustic functionals and the like."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.layers import check_mask, mask_steps, masked_mean


class VectorEncoder(nn.Module):
    """(B, T, D) -> (B, T, sizes[-1]), each step by itself; `pool` is the mean over the valid steps.

    For one vector a clip (T = 1), as OpenFace's 35 action units averaged over a clip, or short sequences of them.
    Dense layers of `sizes`, each with ReLU and dropout.
    """

    sizes: tuple[int, ...] = (64, 64)
    dropout: float = 0.2
    dtype: Any = jnp.float32

    stages = ()

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        mask_BT = check_mask(self, x_BTD, mask_BT)
        x_BTD = mask_steps(x_BTD, mask_BT)
        for size in self.sizes:
            x_BTD = nn.relu(nn.Dense(size, dtype=self.dtype)(x_BTD))
            x_BTD = Dropout(self.dropout)(x_BTD, deterministic=not train)
        return mask_steps(x_BTD, mask_BT), mask_BT

    def pool(self, features_BTD: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, D) -> (B, D)."""
        del train
        return masked_mean(features_BTD, mask_BT)
