"""The gated modality-mixing network of RAVEN (Wang et al. 2019, section 3.2): nonverbal behaviour shifts a word."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.fusion.checks import shown


class GatedShift(nn.Module):
    """Words (B, T, D) and one state (B, T, H_m) a word for each nonverbal modality m -> shifted words (B, T, D).

    w_m = sigmoid(W [h_m; e] + b), one number; h = sum over m of W_m (w_m h_m) + b; alpha = min(beta |e| / |h|, 1);
    the result is e + alpha h. beta bounds the shift relative to the word's own length.

    As the published code: gate_activation = 'none' (gates are linear, so they may be negative or large);
    scaling = 'floored' (alpha = beta |e| / max(|h|, 1), without an upper bound); cut_gradient = True (no gradient
    reaches what the shift is computed from, so gates, shift and nonverbal encoders stay at initialisation).
    """

    beta: float = 0.2
    gate_activation: str = 'sigmoid'
    scaling: str = 'capped'
    cut_gradient: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, word_BTD: Array, states: Sequence[Array]) -> Array:
        if self.gate_activation not in ('sigmoid', 'none'):
            raise ValueError(f"gate_activation = {self.gate_activation!r}: expected 'sigmoid' or 'none'")
        if self.scaling not in ('capped', 'floored'):
            raise ValueError(f"scaling = {self.scaling!r}: expected 'capped' or 'floored'")
        listed = isinstance(states, (list, tuple))
        fits = getattr(word_BTD, 'ndim', None) == 3 and listed and states
        if not fits or any(getattr(x, 'shape', ())[:-1] != word_BTD.shape[:2] for x in states):
            found = f'[{", ".join(map(shown, states))}]' if listed else shown(states)
            raise ValueError(
                f'GatedShift: words of shape {shown(word_BTD)} and states {found}, expected (B, T, D) and one or more '
                '(B, T, H)'
            )
        weighted = []
        for number, state_BTH in enumerate(states):
            gate = nn.Dense(1, dtype=self.dtype, name=f'gate_{number}')
            weight_BT1 = gate(jnp.concatenate([state_BTH, word_BTD], -1))
            weight_BT1 = nn.sigmoid(weight_BT1) if self.gate_activation == 'sigmoid' else weight_BT1
            weighted.append(weight_BT1 * state_BTH)
        # One matrix over the concatenation is the sum of one matrix a modality.
        shift = nn.Dense(word_BTD.shape[-1], dtype=self.dtype, name='shift')
        shift_BTD = shift(jnp.concatenate(weighted, -1))
        word_norm, shift_norm = _norm(word_BTD), _norm(shift_BTD)
        if self.scaling == 'capped':
            alpha_BT1 = jnp.minimum(self.beta * word_norm / shift_norm, 1)
        else:
            alpha_BT1 = self.beta * word_norm / jnp.maximum(shift_norm, 1)
        shift_BTD = alpha_BT1.astype(shift_BTD.dtype) * shift_BTD
        return word_BTD + (jax.lax.stop_gradient(shift_BTD) if self.cut_gradient else shift_BTD)


def _norm(x_BTD):
    """Length in float32, (B, T, 1); never 0, so that its gradient at a padded step is 0 and not NaN."""
    square_BT1 = jnp.square(x_BTD.astype(jnp.float32)).sum(-1, keepdims=True)
    return jnp.sqrt(jnp.maximum(square_BT1, 1e-24))
