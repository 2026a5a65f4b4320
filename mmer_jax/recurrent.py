"""LSTM over right-padded sequences (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

Parameters are those of flax.linen.OptimizedLSTMCell, by name, shape and first values. What the inputs give to the gates
is one product over all steps; both directions go through one loop, whose step is one operation.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.kernels import product_and_sum
from mmer_jax.layers import check_mask, mask_steps
from mmer_jax.whole import recomputed

GATES = ('i', 'f', 'g', 'o')  # input, forget, cell, output


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
    def __call__(self, x_BTD: Array, mask_BT: Array, train: bool) -> Array:
        mask_BT = check_mask(self, x_BTD, mask_BT)
        x_BTD = mask_steps(x_BTD, mask_BT)
        for layer in range(self.num_layers):
            if layer:
                x_BTD = Dropout(self.dropout)(x_BTD, deterministic=not train)
            x_BTD = mask_steps(self._layer(x_BTD, mask_BT, layer), mask_BT)
        return x_BTD

    def _layer(self, x_BTD, mask_BT, layer):
        directions, (rows, steps, width) = 1 + self.bidirectional, x_BTD.shape
        kind = jnp.promote_types(self.dtype, jnp.float32)  # of parameters, and of the recurrent state too
        numbers = range(layer * directions, (layer + 1) * directions)
        cells = [_Cell(self.hidden_size, kind, name=f'OptimizedLSTMCell_{n}')(width) for n in numbers]
        arrays = _side_by_side(*(gate for cell in cells for gate in cell))
        kernel, recurrent_NHG, bias = (array.astype(self.dtype) for array in arrays)
        gates = product_and_sum(x_BTD.astype(self.dtype), kernel, bias)
        gates_TNBG = jnp.transpose(gates.reshape(rows, steps, directions, -1), (1, 2, 0, 3))
        mask_TNB = jnp.broadcast_to(mask_BT.T[:, None], (steps, directions, rows))

        def step(state, one):
            cell_NBH, hidden_NBH = _step(*state, *one, recurrent_NHG)
            return (cell_NBH, hidden_NBH), hidden_NBH

        nothing_NBH = jnp.zeros((directions, rows, self.hidden_size), kind)
        each = _one_way(gates_TNBG), _one_way(mask_TNB)
        _, hidden_TNBH = jax.lax.scan(step, (nothing_NBH, nothing_NBH), each)
        return jnp.transpose(_one_way(hidden_TNBH), (2, 0, 1, 3)).reshape(rows, steps, -1)


def _one_way(x_TN: Array) -> Array:
    """The second direction, where there is one, from the last step to the first; or back again."""
    return jnp.concatenate([x_TN[:, :1], jax.lax.rev(x_TN[:, 1:], (0,))], 1) if x_TN.shape[1] > 1 else x_TN


@recomputed
def _side_by_side(*gates):
    """What `_Cell` gives for each direction -> kernel of the inputs (D, N 4 H), of the state (N, H, 4 H), bias."""
    inputs, states, biases = (
        [jnp.concatenate(gates[n : n + 4], -1) for n in range(first, len(gates), 12)] for first in (0, 4, 8)
    )
    return [jnp.concatenate(inputs, -1), jnp.stack(states), jnp.concatenate(biases, -1)]


@recomputed
def _step(cell_NBH, hidden_NBH, gates_NBG, mask_NB, recurrent_NHG):
    """A padded step ends with the state 0: where a row's steps come last to first, they come before all others."""
    gates_NBG = gates_NBG + jnp.einsum('nbh,nhg->nbg', hidden_NBH.astype(recurrent_NHG.dtype), recurrent_NHG)
    enter, keep, new, leave = jnp.split(gates_NBG, 4, -1)
    cell_NBH = jax.nn.sigmoid(keep) * cell_NBH + jax.nn.sigmoid(enter) * jnp.tanh(new)
    valid_NB1 = mask_NB[..., None]
    return [jnp.where(valid_NB1, x, 0) for x in (cell_NBH, jax.nn.sigmoid(leave) * jnp.tanh(cell_NBH))]


class _Cell(nn.Module):
    """Parameters of a direction, each for four gates: of the inputs (D, H), of the state (H, H), biases (H,)."""

    hidden_size: int
    dtype: Any

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, ...]:
        orthogonal, usual = nn.initializers.orthogonal(), nn.linear.default_kernel_init
        inputs = [_Gate((width, self.hidden_size), usual, False, self.dtype, name=f'i{gate}')()[0] for gate in GATES]
        states = [
            _Gate((self.hidden_size, self.hidden_size), orthogonal, True, self.dtype, name=f'h{gate}')()
            for gate in GATES
        ]
        recurrent, biases = zip(*states, strict=True)
        return (*inputs, *recurrent, *biases)


class _Gate(nn.Module):
    shape: tuple[int, int]
    kernel_init: Any
    use_bias: bool
    dtype: Any

    @nn.compact
    def __call__(self) -> tuple[Array, Any]:
        kernel = self.param('kernel', self.kernel_init, self.shape, self.dtype)
        bias = self.param('bias', nn.initializers.zeros, self.shape[1:], self.dtype) if self.use_bias else None
        return kernel, bias
