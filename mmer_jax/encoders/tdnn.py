"""A time-delay network over log-mel frames with attentive statistics pooling, as speaker verification uses them.

The layers are those of x-vectors (Snyder et al. 2018, doi 10.1109/ICASSP.2018.8461375), convolutions over time that
become wider by dilation; the pooling is that of Okabe et al. 2018 (arXiv 1803.10963).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.convolve import Conv
from mmer_jax.dropout import Dropout
from mmer_jax.layers import check_mask, mask_steps, masked_mean, masked_softmax

SMALLEST = 1e-5  # of a variance, before the root: its gradient is finite


class Tdnn(nn.Module):
    """Frames (B, T, F) -> (B, ceil(T / stride), width); `pool` gives (B, 2 width).

    A convolution of `kernel` frames every `stride` of them, then one of three steps for each of `dilations`, added to
    what it reads; each with batch normalisation, ReLU and dropout. `pool` weighs the steps by attention and takes their
    weighted mean and deviation, then `head_dropout`. With `center` each clip's own mean of every feature is taken away
    first: in decibels that is the voice and the microphone more than what is done with them, and the loudness. Frames
    want mean 0 and deviation 1 (config.data.normalize). Padded steps are 0 before each layer and left out of all
    statistics, and so are padding rows.
    """

    width: int = 128
    kernel: int = 7
    stride: int = 4
    dilations: tuple[int, ...] = (1, 2, 3)
    attention_size: int = 64
    center: bool = True
    dropout: float = 0.1
    head_dropout: float = 0.3
    dtype: Any = jnp.float32

    stages = ()

    def setup(self):
        def conv(kernel, stride=1, dilation=1):
            reach = dilation * (kernel // 2)  # of the frames before; so step t is centred on stride * t
            return Conv(
                self.width, (kernel,), (stride,), kernel_dilation=(dilation,),
                padding=[(reach, dilation * (kernel - 1) - reach)], use_bias=False, dtype=self.dtype,
            )  # fmt: skip

        self.convolutions = [conv(self.kernel, self.stride), *(conv(3, dilation=d) for d in self.dilations)]
        self.norms = [nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=self.dtype) for _ in self.convolutions]
        self.drop, self.head_drop = Dropout(self.dropout), Dropout(self.head_dropout)
        self.hidden = nn.Dense(self.attention_size, dtype=self.dtype)
        self.score = nn.Dense(1, dtype=self.dtype)

    def pool(self, features_BTD: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, D) -> (B, 2 D): mean and deviation over the valid steps, by attention; 0 where there is none."""
        scores_BT = self.score(jnp.tanh(self.hidden(features_BTD)))[..., 0]
        weight_BT1 = masked_softmax(scores_BT, mask_BT)[..., None]
        features_BTD = mask_steps(features_BTD, mask_BT).astype(jnp.float32)
        mean_BD = (weight_BT1 * features_BTD).sum(1)
        variance_BD = (weight_BT1 * jnp.square(features_BTD - mean_BD[:, None])).sum(1)
        deviation_BD = jnp.where(mask_BT.any(1)[:, None], jnp.sqrt(jnp.maximum(variance_BD, SMALLEST)), 0)
        pooled_BD = jnp.concatenate([mean_BD, deviation_BD], -1).astype(self.dtype)
        return self.head_drop(pooled_BD, deterministic=not train)

    def __call__(self, x_BTF: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        mask_BT = check_mask(self, x_BTF, mask_BT)
        x_BTF = mask_steps(x_BTF, mask_BT)
        if self.center:
            x_BTF = mask_steps(x_BTF - masked_mean(x_BTF, mask_BT)[:, None], mask_BT)
        x_BTD = self.convolutions[0](x_BTF)
        mask_BT = mask_BT[:, :: self.stride]
        x_BTD = self._activate(0, x_BTD, mask_BT, train=train)
        for number in range(1, len(self.convolutions)):
            x_BTD = x_BTD + self._activate(number, self.convolutions[number](x_BTD), mask_BT, train=train)
        return x_BTD, mask_BT

    def _activate(self, number, x_BTD, mask_BT, *, train):
        # A batch of padding alone (a part of an accumulated one) takes all steps: the mean of none is NaN.
        counted_BT1 = (mask_BT | ~mask_BT.any())[..., None]
        x_BTD = nn.relu(self.norms[number](x_BTD, use_running_average=not train, mask=counted_BT1))
        return mask_steps(self.drop(x_BTD, deterministic=not train), mask_BT)
