"""What three or more encoders, fusion blocks and models share. Masks are True where a step is valid."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

Array = Any


def masked_mean(x_BTD: Array, mask_BT: Array) -> Array:
    """Mean over the valid steps, (B, D); 0 for a row without valid steps."""
    count_B1 = mask_BT.sum(1, keepdims=True).astype(x_BTD.dtype)
    return mask_steps(x_BTD, mask_BT).sum(1) / jnp.maximum(count_B1, 1)


def last_valid(x_BTD: Array, mask_BT: Array) -> Array:
    """The last valid step, (B, D), of right-padded sequences; 0 for a row without valid steps."""
    length_B = mask_BT.sum(1)
    index_B11 = jnp.maximum(length_B - 1, 0)[:, None, None]
    last_BD = jnp.take_along_axis(x_BTD, index_B11, axis=1)[:, 0]
    return jnp.where(length_B[:, None] > 0, last_BD, 0)


def final_state(h_BTH: Array, mask_BT: Array, *, bidirectional: bool = False) -> Array:
    """Where an LSTM's outputs have read the whole sequence, (B, H): the last valid step, but the first step for the
    backward half of a bidirectional one (its last valid step has read one step only)."""
    if not bidirectional:
        return last_valid(h_BTH, mask_BT)
    forward_BTH, backward_BTH = jnp.split(h_BTH, 2, axis=-1)
    return jnp.concatenate([last_valid(forward_BTH, mask_BT), backward_BTH[:, 0]], -1)


def mask_steps(x_BTD: Array, mask_BT: Array) -> Array:
    """x with padded steps set to 0, so that what follows cannot see what stood there (NaN included)."""
    mask = mask_BT.reshape(mask_BT.shape + (1,) * (x_BTD.ndim - mask_BT.ndim))
    return jnp.where(mask, x_BTD, 0)


def fix_length(x_BTD: Array, steps: int) -> Array:
    """x cut, or padded with 0 on the right, to exactly `steps` steps."""
    x_BTD = x_BTD[:, :steps]
    missing = steps - x_BTD.shape[1]
    return jnp.pad(x_BTD, ((0, 0), (0, missing)) + ((0, 0),) * (x_BTD.ndim - 2)) if missing else x_BTD


class LSTM(nn.Module):
    """Stacked LSTM over right-padded sequences, (B, T, D) -> (B, T, H); outputs at padded steps are 0.

    bidirectional gives (B, T, 2 H) with the backward direction starting at each row's last valid step.
    """

    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array, *, train: bool) -> Array:
        length_B, x_BTD = mask_BT.sum(1), mask_steps(x_BTD, mask_BT)
        for layer in range(self.num_layers):
            if layer:
                x_BTD = nn.Dropout(self.dropout)(x_BTD, deterministic=not train)
            forward = nn.RNN(nn.OptimizedLSTMCell(self.hidden_size, dtype=self.dtype))
            if self.bidirectional:
                backward = nn.RNN(nn.OptimizedLSTMCell(self.hidden_size, dtype=self.dtype))
                x_BTD = nn.Bidirectional(forward, backward)(x_BTD, seq_lengths=length_B)
            else:
                x_BTD = forward(x_BTD, seq_lengths=length_B)
            x_BTD = mask_steps(x_BTD, mask_BT)
        return x_BTD


class MLP(nn.Module):
    """Dense layers with ReLU and dropout between them, none behind the last."""

    sizes: Sequence[int]
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        for size in self.sizes[:-1]:
            x = nn.relu(nn.Dense(size, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return nn.Dense(self.sizes[-1], dtype=self.dtype)(x)
