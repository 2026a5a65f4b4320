"""Simple3D, the small 3-D network of the shared-encoder report: six convolutions, each halving time and space."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.convolution import IMAGENET_MEAN, IMAGENET_STD, Conv3D, max_pool, scale_images
from mmer_jax.encoders.protocol import STAGES
from mmer_jax.layers import check_mask, fix_length, mask_steps

BLOCKS = 6


class Block(nn.Module):
    """3x3x3 convolution, ReLU and the maximum over 2x2x2, which drops an odd last frame, row or column."""

    features: int
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size, padding = (3, 3, 3), (1, 1, 1)
        conv = Conv3D(
            self.features, size, padding=padding, use_bias=True, method=self.convolution, dtype=self.dtype, name='conv'
        )
        return max_pool(nn.relu(conv(x)), 2, stride=2, padding=0)


class Simple3D(nn.Module):
    """Clips (B, T, H, W, C), uint8 or normalised -> map (B, T / 64, H / 64, W / 64, 8); `pool` flattens it.

    The network looks at exactly `num_frames` frames: longer clips are cut, shorter ones continue with zeros. The report
    feeds faces or spectrogram strips as 135 frames of 224 x 224 (144 values after `pool`), and both side by side as
    224 x 448 (336). There the one second convolution was called five times where the text has six layers:
    shared_convolution=True, and with a head of six outputs 3,262 parameters, or 4,414 for both modalities, as the
    report counts. By default each layer has its own weights: 10,206 and 11,358.

    The report also fed pictures as 0..255: mean=(0, 0, 0) and std=(1 / 255, 1 / 255, 1 / 255). `stem` is the first
    block, `stage1` to `stage3` are one block each and `stage4` two. There is no remat: nearly all memory is that of the
    first block. convolution: 'auto', 'native' or 'frames', see Conv3D.
    """

    num_frames: int = 135
    features: int = 8
    shared_convolution: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    stages = STAGES
    masks_steps = False

    def setup(self):
        count = 2 if self.shared_convolution else BLOCKS
        self.block = [Block(self.features, self.convolution, self.dtype) for _ in range(count)]

    def prepare(self, x: Array, mask_BT: Array) -> tuple[Array, Array]:
        """Normalised pictures of exactly num_frames frames, padded ones 0, and the mask of real clips.

        ValueError where a clip is too small to be halved six times.
        """
        mask_BT = check_mask(self, x, mask_BT, layouts=('BTHWC',))
        if min(self.num_frames, *x.shape[2:4]) < 2**BLOCKS:
            raise ValueError(
                f'Simple3D found clips of shape {x.shape} and num_frames = {self.num_frames}, expected '
                f'(B, T, H, W, C) with num_frames, H and W of {2**BLOCKS} or more, for it halves them {BLOCKS} times'
            )
        x = mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), mask_BT)
        x = fix_length(x, self.num_frames)
        return x, jnp.broadcast_to(mask_BT.any(1)[:, None], x.shape[:2])

    def stem(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        """(B, T, H, W, C) -> (B, T / 2, H / 2, W / 2, 8). No layer mixes rows or knows of training."""
        del rows_B, train
        return self._run(x, 0)

    def stage1(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        del rows_B, train
        return self._run(x, 1)

    def stage2(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        del rows_B, train
        return self._run(x, 2)

    def stage3(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        del rows_B, train
        return self._run(x, 3)

    def stage4(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        del rows_B, train
        return self._run(x, 4, 5)

    def pool(self, features: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T', H', W', C) -> (B, C T' H' W'), in the order in which PyTorch flattens."""
        del mask_BT, train  # the window is fixed
        return jnp.moveaxis(features, -1, 1).reshape(len(features), -1)

    def __call__(self, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        x, mask_BT = self.prepare(x, mask_BT)
        rows_B = mask_BT.any(1)
        for stage in (self.stem, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x, rows_B, train=train)
        return x, jnp.broadcast_to(rows_B[:, None], x.shape[:2])

    def _run(self, x, *numbers):
        for number in numbers:
            x = self.block[min(number, len(self.block) - 1)](x)
        return x
