"""Predictive self-attention, PSA (MFSA paper, section 3.3, equations 2 to 4).

Each layer's attention maps are predicted from those of the layer before by a convolution over them, so that a layer
only learns what its predecessor's pattern leaves to be said (after Wang et al. 2020, Predictive Attention Transformer).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.layers import attend, attention_logits, check_mask, feed_forward, mask_steps, masked_softmax, over_sources

MIXES = ('literal', 'logits')
SCALES = ('head', 'model')
RESIDUALS = ('norm', 'input')


class PredictiveSelfAttention(nn.Module):
    """One PSA layer: z (B, T, D), the maps of the layer before (B, K, T, T) or None -> z, its maps, its attention.

    mix='literal' is equation 2 as printed, softmax(mu GELU(conv(A_pre)) + (1 - mu) softmax(A_cur)): what the layer
    adds lies between 0 and 1, so over long sequences its attention is near uniform (no pair gets more than
    e^(1 - mu) times another from the dot products). mix='logits' leaves out the inner softmax, as the work it builds
    on does. The maps handed on are those before the outer softmax; the first layer has none to predict from and is
    a plain softmax of its dot products. `scale` divides them by the root of a head's width, or of the model's ('model',
    as printed). Padded steps are seen by neither softmax and are zero in the convolution.

    residual='norm' is equation 3 as printed: attention is added to the layer norm of z, so that the size of z is lost
    here, and with it the weight that a weighted attention layer before gave it. residual='input' adds it to z itself,
    as transformers with the norm first do; that weight then acts.
    """

    num_heads: int
    mu: float = 0.25
    mix: str = 'literal'
    scale: str = 'head'
    feed_forward: int = 0  # 0: four times the width
    dropout: float = 0.0
    dtype: Any = jnp.float32
    residual: str = 'norm'

    @nn.compact
    def __call__(
        self, z_BTD: Array, mask_BT: Array, previous_BKTT: Array | None, train: bool
    ) -> tuple[Array, Array, Array]:
        if self.mix not in MIXES or self.scale not in SCALES:
            raise ValueError(f'mix {self.mix!r} and scale {self.scale!r}: expected one of {MIXES} and one of {SCALES}')
        if self.residual not in RESIDUALS:
            raise ValueError(f'residual {self.residual!r}: expected one of {RESIDUALS}')
        mask_BT, features = check_mask(self, z_BTD, mask_BT, name='z'), z_BTD.shape[-1]
        norm_BTD = nn.LayerNorm(dtype=self.dtype, name='norm')(z_BTD)

        def dense(name):
            return nn.Dense(features, use_bias=False, dtype=self.dtype, name=name)(norm_BTD)

        current_BKTT = attention_logits(dense('query'), dense('key'), self.num_heads).astype(jnp.float32)
        current_BKTT /= np.sqrt(features // self.num_heads if self.scale == 'head' else features)
        sources = over_sources(mask_BT)
        maps_BKTT = current_BKTT
        if previous_BKTT is not None:
            predicted_BKTT = self._predict(previous_BKTT, mask_BT)
            kept_BKTT = masked_softmax(current_BKTT, sources) if self.mix == 'literal' else current_BKTT
            maps_BKTT = self.mu * predicted_BKTT + (1 - self.mu) * kept_BKTT  # the argument of equation 2's softmax
        attention_BKTT = masked_softmax(maps_BKTT, sources)
        weights_BKTT = Dropout(self.dropout)(attention_BKTT, deterministic=not train)
        kept_BTD = norm_BTD if self.residual == 'norm' else z_BTD.astype(norm_BTD.dtype)
        mixed_BTD = kept_BTD + attend(weights_BKTT, dense('value'))  # equation 3
        inner_BTD = nn.LayerNorm(dtype=self.dtype, name='feed_forward_norm')(mixed_BTD)
        inner_BTD = feed_forward(inner_BTD, self.feed_forward, self.dropout, dtype=self.dtype, train=train)
        z_BTD = inner_BTD + mixed_BTD  # equation 4
        return mask_steps(z_BTD, mask_BT), maps_BKTT, attention_BKTT

    def _predict(self, previous_BKTT, mask_BT):
        """The prediction chain: a 3 x 3 convolution from K maps to K maps, and GELU."""
        pairs_BTT1 = (mask_BT[:, :, None] & mask_BT[:, None, :])[..., None]
        image_BTTK = jnp.where(pairs_BTT1, jnp.moveaxis(previous_BKTT, 1, -1), 0)
        conv = nn.Conv(self.num_heads, (3, 3), dtype=self.dtype, name='prediction')
        return jax.nn.gelu(jnp.moveaxis(conv(image_BTTK), -1, 1).astype(jnp.float32), approximate=False)
