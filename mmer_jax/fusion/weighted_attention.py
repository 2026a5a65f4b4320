"""Weighted attention layer, WAL (MFSA paper, equations 5 and 6; PMR weighs its messages in the same way).

Each modality gets one adaptive weight per example, a softmax over the modalities, by which its sequence is scaled.
A block behind it that begins with a layer norm and keeps nothing else of its input takes the weight off again, as
predictive self-attention does where its equation 3 is taken as printed (PredictiveSelfAttention.residual).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.layers import check_masks, fix_length, masked_mean

LITERAL_LIMIT = 2048  # T x D: beyond, one weight matrix alone has more than four million entries


class WeightedAttention(nn.Module):
    """{m: (B, T_m, D)}, {m: (B, T_m) bool} -> ({m: psi_m x sequence}, psi (B, M)), the modalities in their order.

    kind='pooled' (default): gamma_m = p_m^T tanh(W_m masked_mean(Z_m) + b_m) with W_m (D, D), which is the form that
    can be trained. kind='literal' is equation 5 as printed, over all T x D values, W_m (T D, T D): at the paper's
    lengths 629 million parameters a layer (REFERENCE: MOSI), so it is refused above T x D = 2048; it needs `steps`,
    the fixed T of each modality, to which sequences are cut or filled with zeros.
    """

    kind: str = 'pooled'
    steps: tuple[int, ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, z: Mapping[str, Array], masks: Mapping[str, Array], train: bool = False
    ) -> tuple[dict[str, Array], Array]:
        del train  # it is called as its neighbours are
        masks = check_masks(self, z, masks)
        psi_BM = jax.nn.softmax(jnp.stack([self._gamma(m, z[m], masks[m], number=n) for n, m in enumerate(z)], -1))
        weighted = {m: psi_BM[:, n, None, None].astype(z[m].dtype) * z[m] for n, m in enumerate(z)}
        return weighted, psi_BM

    def _gamma(self, m, z_BTD, mask_BT, *, number):
        if self.kind == 'pooled':
            x = masked_mean(z_BTD, mask_BT)
        elif self.kind == 'literal':
            x = self._flat(m, z_BTD, mask_BT, number=number)
        else:
            raise ValueError(f"weighted attention kind {self.kind!r}: expected 'pooled' or 'literal'")
        hidden = jnp.tanh(nn.Dense(x.shape[-1], dtype=self.dtype, name=f'{m}_hidden')(x))
        gamma_B1 = nn.Dense(1, use_bias=False, dtype=self.dtype, name=f'{m}_weight')(hidden)
        return gamma_B1[:, 0].astype(jnp.float32)

    def _flat(self, m, z_BTD, mask_BT, *, number):
        if number >= len(self.steps):
            raise ValueError(f"kind='literal' needs steps, one number a modality; found {self.steps}, none for {m}")
        steps, features = self.steps[number], z_BTD.shape[-1]
        if steps * features > LITERAL_LIMIT:
            raise ValueError(
                f"kind='literal' of {m}: {steps} steps x {features} features = {steps * features} > {LITERAL_LIMIT} "
                f"would need {(steps * features) ** 2:,} weights a layer; use kind='pooled' or fewer steps"
            )
        z_BTD = jnp.where(mask_BT[..., None], z_BTD, 0)
        return fix_length(z_BTD, steps).reshape(len(z_BTD), steps * features)
