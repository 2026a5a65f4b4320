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

from mmer_jax.convolve import convolve
from mmer_jax.dropout import keep_from
from mmer_jax.kernels import Dense, LayerNorm
from mmer_jax.layers import attend, attention_logits, check_mask, feed_forward, mask_steps, masked_softmax, over_sources
from mmer_jax.whole import recomputed

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
        norm_BTD = LayerNorm(dtype=self.dtype, name='norm')(z_BTD)

        def dense(name):
            return Dense(features, use_bias=False, dtype=self.dtype, name=name)(norm_BTD)

        fixed: Any = {'num_heads': self.num_heads, 'mu': self.mu, 'literal': self.mix == 'literal'}
        fixed['scale'] = (features // self.num_heads if self.scale == 'head' else features) ** -0.5
        predicted = [] if previous_BKTT is None else [self._predict(previous_BKTT, mask_BT)]
        maps_BKTT = _maps(dense('query'), dense('key'), mask_BT, *predicted, **fixed)[0]
        rate = self.dropout if train else 0.0
        words = jax.random.key_data(self.make_rng('dropout')).reshape(-1) if rate else jnp.zeros(2, jnp.uint32)
        mixed_BTD = _attend(maps_BKTT, dense('value'), mask_BT, words, rate=rate)[0]
        kept_BTD = norm_BTD if self.residual == 'norm' else z_BTD.astype(norm_BTD.dtype)
        mixed_BTD = kept_BTD + mixed_BTD  # equation 3
        inner_BTD = LayerNorm(dtype=self.dtype, name='feed_forward_norm')(mixed_BTD)
        inner_BTD = feed_forward(inner_BTD, self.feed_forward, self.dropout, dtype=self.dtype, train=train)
        z_BTD = inner_BTD + mixed_BTD  # equation 4
        return mask_steps(z_BTD, mask_BT), maps_BKTT, masked_softmax(maps_BKTT, over_sources(mask_BT))

    def _predict(self, previous_BKTT, mask_BT):
        """The prediction chain: a 3 x 3 convolution from K maps to K maps, and GELU."""
        kernel, bias = Weights((3, 3, self.num_heads, self.num_heads), name='prediction')()
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return _convolve(previous_BKTT, mask_BT, kernel, bias)[0]


class Weights(nn.Module):
    """The parameters of a convolution, made as flax.linen.Conv makes them."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        kernel = self.param('kernel', nn.initializers.lecun_normal(), self.shape)
        return kernel, self.param('bias', nn.initializers.zeros, self.shape[-1:])


@recomputed
def _convolve(maps_BKTT, mask_BT, kernel, bias):
    pairs_BTT1 = (mask_BT[:, :, None] & mask_BT[:, None, :])[..., None]
    image_BTTK = jnp.where(pairs_BTT1, jnp.moveaxis(maps_BKTT, 1, -1), 0).astype(kernel.dtype)
    found_BTTK = convolve(image_BTTK, kernel) + bias[None, None, None]
    return [jax.nn.gelu(jnp.moveaxis(found_BTTK, -1, 1).astype(maps_BKTT.dtype), approximate=False)]


@recomputed
def _maps(query_BTD, key_BTD, mask_BT, *predicted, num_heads, mu, literal, scale):
    """Equation 2 without its outer softmax, in float32 at least."""
    current_BKTT = attention_logits(query_BTD, key_BTD, num_heads)
    current_BKTT = current_BKTT.astype(jnp.promote_types(current_BKTT.dtype, jnp.float32)) * scale
    if predicted and literal:
        current_BKTT = masked_softmax(current_BKTT, over_sources(mask_BT))
    return [mu * predicted_BKTT + (1 - mu) * current_BKTT for predicted_BKTT in predicted] or [current_BKTT]


@recomputed
def _attend(maps_BKTT, value_BTD, mask_BT, words, *, rate):
    weights_BKTT = masked_softmax(maps_BKTT, over_sources(mask_BT))
    if rate:
        weights_BKTT = jnp.where(keep_from(words, np.uint32(0), weights_BKTT.shape, rate), weights_BKTT / (1 - rate), 0)
    return [attend(weights_BKTT, value_BTD)]
