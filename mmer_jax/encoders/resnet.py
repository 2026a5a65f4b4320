"""ResNet-18 (He et al. 2016) as torchvision has it, one of the 2-D networks of the shared-encoder report."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.convolution import BatchNorm, max_pool
from mmer_jax.encoders.pictures import Conv2D, PictureEncoder


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first of which takes the stride, added to the input (shortcut B)."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid_N: Array, train: bool) -> Array:
        def conv(size, stride, name):
            return Conv2D(self.features, size, stride, dtype=self.dtype, name=name)

        def norm(x, name):
            return BatchNorm(dtype=self.dtype, name=name)(x, valid_N, train=train)

        y = nn.relu(norm(conv(3, self.stride, 'conv1')(x), 'norm1'))
        y = norm(conv(3, 1, 'conv2')(y), 'norm2')
        if self.stride != 1 or x.shape[-1] != self.features:
            x = norm(conv(1, self.stride, 'shortcut')(x), 'shortcut_norm')
        return nn.relu(x + y)


class ResNet18(PictureEncoder):
    """Pictures (B, T, H, W, C) -> map (B, T, H / 32, W / 32, 512); `pool` is its mean (B, 512).

    With torchvision's head of 1000 classes 11,689,512 parameters; with six, as the report replaces it, 11,179,590 for
    three channels and 11,173,318 for one. The report's new first layer is the old one with the channels of its data
    (one of a face or a spectrogram, two of both), at its initialisation. 64 channels after `stem` and `stage1`, then
    128, 256 and 512.
    """

    block_counts: tuple[int, int, int, int] = (2, 2, 2, 2)
    planes: tuple[int, int, int, int] = (64, 128, 256, 512)
    stem_features: int = 64

    def setup(self):
        self.conv1 = Conv2D(self.stem_features, 7, 2, dtype=self.dtype)
        self.norm1 = BatchNorm(dtype=self.dtype)
        stages = [
            [BasicBlock(features, 2 if number == 0 and stage > 0 else 1, self.dtype) for number in range(count)]
            for stage, (count, features) in enumerate(zip(self.block_counts, self.planes, strict=True))
        ]
        self.blocks1, self.blocks2, self.blocks3, self.blocks4 = stages

    def _stem(self, x: Array, valid_N: Array, train: bool) -> Array:
        return max_pool(nn.relu(self.norm1(self.conv1(x), valid_N, train=train)), 3, stride=2, padding=1)

    def _stage(self, number: int, x: Array, valid_N: Array, train: bool) -> Array:
        for block in (self.blocks1, self.blocks2, self.blocks3, self.blocks4)[number - 1]:
            x = block(x, valid_N, train)
        return x
