"""3-D ResNeXt (Hara et al. 2018), the video network of CFN-SR and MSAF: a clip in, a spatio-temporal map out."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.convolution import IMAGENET_MEAN, IMAGENET_STD, BatchNorm, Conv3D, max_pool, scale_images
from mmer_jax.encoders.protocol import STAGES
from mmer_jax.layers import check_mask, fix_length, mask_steps

EXPANSION = 2


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 (which takes the stride) and 1x1x1 convolution, added to the input (shortcut B)."""

    planes: int
    cardinality: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, rows_B: Array, train: bool) -> Array:
        middle, out = self.cardinality * (self.planes // 32), self.planes * EXPANSION
        strides = (self.stride,) * 3

        def conv(features, size, name, **options):
            return Conv3D(features, (size,) * 3, padding=(size // 2,) * 3, dtype=self.dtype, name=name, **options)

        def norm(x, name):
            return BatchNorm(dtype=self.dtype, name=name)(x, rows_B, train=train)

        y = nn.relu(norm(conv(middle, 1, 'conv1')(x), 'norm1'))
        y = nn.relu(norm(conv(middle, 3, 'conv2', strides=strides, groups=self.cardinality)(y), 'norm2'))
        y = norm(conv(out, 1, 'conv3')(y), 'norm3')
        if self.stride != 1 or x.shape[-1] != out:
            x = norm(conv(out, 1, 'shortcut', strides=strides)(x), 'shortcut_norm')
        return nn.relu(x + y)


class ResNeXt3D(nn.Module):
    """Pictures (B, T, H, W, 3), uint8 or normalised -> map (B, T / 16, H / 32, W / 32, 2048); `pool` is its mean.

    The network looks at exactly `num_frames` frames: longer clips are cut, shorter ones continue with black-as-mean
    frames (zeros after normalisation). 3-D ResNeXt-50, cardinality 32, shortcut B: 25,865,664 parameters, and with a
    head of eight classes 25,882,056, as CFN-SR counts. The stages are those where MSAF, MMTM and CFN-SR meet it:
    64 channels after `stem`, then 256, 512, 1024 and 2048. remat recomputes each block in the backward pass.

    stem_activation=False leaves out the ReLU behind the first normalisation, as the published fused networks do, though
    the network they start from has it.
    """

    num_frames: int = 30
    block_counts: tuple[int, int, int, int] = (3, 4, 6, 3)
    cardinality: int = 32
    planes: tuple[int, int, int, int] = (128, 256, 512, 1024)
    stem_features: int = 64
    stem_activation: bool = True
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    remat: bool = False
    dtype: Any = jnp.float32

    stages = STAGES
    masks_steps = False

    def setup(self):
        self.conv1 = Conv3D(self.stem_features, (7, 7, 7), strides=(1, 2, 2), padding=(3, 3, 3), dtype=self.dtype)
        self.norm1 = BatchNorm(dtype=self.dtype)
        block = nn.remat(Bottleneck, static_argnums=(3,)) if self.remat else Bottleneck
        stages = [
            [
                block(planes, self.cardinality, stride=2 if number == 0 and stage > 0 else 1, dtype=self.dtype)
                for number in range(count)
            ]
            for stage, (count, planes) in enumerate(zip(self.block_counts, self.planes, strict=True))
        ]
        self.blocks1, self.blocks2, self.blocks3, self.blocks4 = stages

    def prepare(self, x: Array, mask_BT: Array) -> tuple[Array, Array]:
        """Normalised pictures of exactly num_frames frames, padded ones 0, and the mask of real clips."""
        mask_BT = check_mask(self, x, mask_BT, layouts=('BTHWC',))
        x = mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), mask_BT)
        x = fix_length(x, self.num_frames)
        return x, jnp.broadcast_to(mask_BT.any(1)[:, None], x.shape[:2])

    def stem(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        """(B, T, H, W, 3) -> (B, T / 2, H / 4, W / 4, 64). rows_B: rows that are no padding."""
        x = self.norm1(self.conv1(x), rows_B, train=train)
        return max_pool(nn.relu(x) if self.stem_activation else x, 3, stride=2, padding=1)

    def stage1(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return _run(self.blocks1, x, rows_B, train=train)

    def stage2(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return _run(self.blocks2, x, rows_B, train=train)

    def stage3(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return _run(self.blocks3, x, rows_B, train=train)

    def stage4(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return _run(self.blocks4, x, rows_B, train=train)

    def pool(self, features: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T', H', W', C) -> (B, C), the mean over all positions."""
        del mask_BT, train  # the window is fixed
        return features.mean((1, 2, 3))

    def __call__(self, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        x, mask_BT = self.prepare(x, mask_BT)
        rows_B = mask_BT.any(1)
        x = self.stem(x, rows_B, train=train)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x, rows_B, train=train)
        return x, jnp.broadcast_to(rows_B[:, None], x.shape[:2])


def _run(blocks, x, rows_B, *, train):
    for block in blocks:
        x = block(x, rows_B, train)  # by position, for remat holds it static
    return x
