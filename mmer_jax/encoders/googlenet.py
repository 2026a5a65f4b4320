"""GoogLeNet (Szegedy et al. 2015) as torchvision has it, one of the 2-D networks of the shared-encoder report."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.encoders.convolution import BatchNorm, max_pool
from mmer_jax.encoders.pictures import (
    Conv2D,
    PictureEncoder,
    adaptive_mean,
    by_frame,
    flatten_channels_first,
    max_pool_ceil,
)
from mmer_jax.layers import mask_steps, masked_mean

EPSILON = 1e-3
# name: channels of the branches 1x1, 3x3 (reduced to, then), 5x5 (reduced to, then) and pooling
INCEPTIONS = {
    '3a': (64, 96, 128, 16, 32, 32),
    '3b': (128, 128, 192, 32, 96, 64),
    '4a': (192, 96, 208, 16, 48, 64),
    '4b': (160, 112, 224, 24, 64, 64),
    '4c': (128, 128, 256, 24, 64, 64),
    '4d': (112, 144, 288, 32, 64, 64),
    '4e': (256, 160, 320, 32, 128, 128),
    '5a': (256, 160, 320, 32, 128, 128),
    '5b': (384, 192, 384, 48, 128, 128),
}
STAGES = {1: ('3a', '3b'), 2: ('4a',), 3: ('4b', '4c', '4d'), 4: ('4e', '5a', '5b')}
POOL_BEFORE = {'4a': 3, '5a': 2}  # size of the maximum, with stride 2, in front of a block
STEM_FEATURES = (64, 64, 192)
AUXILIARY_SIDE, AUXILIARY_FEATURES, AUXILIARY_HIDDEN = 4, 128, 1024


class NormedConv(nn.Module):
    """Convolution, batch norm and ReLU; bare: the convolution alone."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    bare: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid_N: Array, train: bool) -> Array:
        x = Conv2D(self.features, self.kernel_size, self.stride, dtype=self.dtype, name='conv')(x)
        if self.bare:
            return x
        return nn.relu(BatchNorm(epsilon=EPSILON, dtype=self.dtype, name='norm')(x, valid_N, train=train))


class Inception(nn.Module):
    """Four branches side by side in the channels. The third has 3x3, not the paper's 5x5, as torchvision's weights."""

    sizes: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid_N: Array, train: bool) -> Array:
        point, reduce3, conv3, reduce5, conv5, pooled = self.sizes

        def conv(x, features, size, *, name):
            return NormedConv(features, size, dtype=self.dtype, name=name)(x, valid_N, train)

        branches = [
            conv(x, point, 1, name='branch1'),
            conv(conv(x, reduce3, 1, name='branch2_reduce'), conv3, 3, name='branch2'),
            conv(conv(x, reduce5, 1, name='branch3_reduce'), conv5, 3, name='branch3'),
            conv(max_pool(x, 3, stride=1, padding=1), pooled, 1, name='branch4'),
        ]
        return jnp.concatenate(branches, -1)


class AuxiliaryHead(nn.Module):
    """A map (N, H, W, C) -> logits (N, num_outputs): means over 4x4 parts, 1x1 convolution, two dense layers."""

    num_outputs: int
    features: int
    hidden_size: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid_N: Array, train: bool) -> Array:
        conv = NormedConv(self.features, dtype=self.dtype, name='conv')
        x_ND = flatten_channels_first(conv(adaptive_mean(x, AUXILIARY_SIDE), valid_N, train))
        x_ND = nn.relu(nn.Dense(self.hidden_size, dtype=self.dtype, name='dense1')(x_ND))
        x_ND = Dropout(self.dropout)(x_ND, deterministic=not train)
        return nn.Dense(self.num_outputs, dtype=self.dtype, name='dense2')(x_ND)


class GoogLeNet(PictureEncoder):
    """Pictures (B, T, H, W, C) -> map (B, T, H / 32, W / 32, 1024); `pool` is its mean (B, 1024), with dropout.

    With torchvision's head of 1000 classes 6,624,904 parameters, and 13,004,888 with auxiliary heads of 1000; with a
    head of six, and none, 5,606,054. Sizes are rounded up at each maximum, as there. `stem` ends at a side of H / 8
    with 192 channels, `stage1` with block 3b (480), `stage2` with 4a (512) and `stage3` with 4d (528), the two maps
    that the auxiliary heads read, `stage4` with 5b.

    auxiliary: number of outputs of the two auxiliary heads, 0 for none. Their parameters are made with the encoder's;
    their logits are computed only where a model calls `with_auxiliary` instead of the encoder, and hands them on as an
    extra for its losses (the original adds 0.3 of each head's cross-entropy in training). The report has the heads and
    never asks them. Weights of torchvision are without them: name '^auxiliary' in config.fresh.

    torchvision's weights want pictures in -1..1 (its transform_input makes them of what was normalised for ImageNet):
    mean = std = (0.5, 0.5, 0.5), which their converter sets. bare_first_layer leaves out batch norm and ReLU behind
    the first convolution, as happened where the report replaced it. Every width is divided by `divisor`, up to 8.
    """

    divisor: int = 1
    auxiliary: int = 0
    dropout: float = 0.2
    auxiliary_dropout: float = 0.7
    bare_first_layer: bool = False

    def setup(self):
        def width(features):
            if features % self.divisor:
                raise ValueError(f'divisor = {self.divisor} of GoogLeNet does not divide {features}, expected 1 to 8')
            return features // self.divisor

        first, second, third = map(width, STEM_FEATURES)
        self.conv1 = NormedConv(first, 7, 2, bare=self.bare_first_layer, dtype=self.dtype)
        self.conv2 = NormedConv(second, dtype=self.dtype)
        self.conv3 = NormedConv(third, 3, dtype=self.dtype)
        self.inception = {name: Inception(tuple(map(width, s)), self.dtype) for name, s in INCEPTIONS.items()}
        self.drop = Dropout(self.dropout)
        if self.auxiliary:
            sizes = (self.auxiliary, width(AUXILIARY_FEATURES), width(AUXILIARY_HIDDEN), self.auxiliary_dropout)
            self.auxiliary1, self.auxiliary2 = (AuxiliaryHead(*sizes, self.dtype) for _ in range(2))

    def _stem(self, x: Array, valid_N: Array, train: bool) -> Array:
        x = self.conv2(max_pool_ceil(self.conv1(x, valid_N, train), 3, 2), valid_N, train)
        return max_pool_ceil(self.conv3(x, valid_N, train), 3, 2)

    def _stage(self, number: int, x: Array, valid_N: Array, train: bool) -> Array:
        for name in STAGES[number]:
            if name in POOL_BEFORE:
                x = max_pool_ceil(x, POOL_BEFORE[name], 2)
            x = self.inception[name](x, valid_N, train)
        return x

    def pool(self, features: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, H', W', 1024) -> (B, 1024)."""
        return self.drop(super().pool(features, mask_BT, train=train), deterministic=not train)

    def with_auxiliary(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array, tuple[Array, Array]]:
        """(map, mask (B, T), logits (B, auxiliary) of both heads, float32, the mean over the valid frames)."""
        if not self.auxiliary:
            raise ValueError('auxiliary = 0: this GoogLeNet has no auxiliary heads; set it to their number of outputs')
        x, mask_BT = self.prepare(x, mask)
        x = self.stage1(self.stem(x, mask_BT, train=train), mask_BT, train=train)
        first = self.stage2(x, mask_BT, train=train)
        second = self.stage3(first, mask_BT, train=train)
        x = self.stage4(second, mask_BT, train=train)
        pairs = ((self.auxiliary1, first), (self.auxiliary2, second))
        logits1_BC, logits2_BC = (
            masked_mean(by_frame(head, y, mask_BT, train=train).astype(jnp.float32), mask_BT) for head, y in pairs
        )
        return mask_steps(x, mask_BT), mask_BT, (logits1_BC, logits2_BC)

    def __call__(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        if self.auxiliary and self.is_initializing():
            return self.with_auxiliary(x, mask, train=train)[:2]
        return super().__call__(x, mask, train=train)
