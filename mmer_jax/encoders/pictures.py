"""What the 2-D image networks share: a clip's frames one by one, 2-D convolutions, pooling as PyTorch rounds it."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.encoders.convolution import IMAGENET_MEAN, IMAGENET_STD, conv2d, kaiming_fan_out, max_pool, scale_images
from mmer_jax.encoders.protocol import STAGES
from mmer_jax.layers import check_mask, mask_steps, masked_mean


class Conv2D(nn.Module):
    """2-D convolution (N, H, W, C) -> (N, H', W', features), padded by half the kernel's size on both sides.

    The parameter is `kernel` (k, k, C, features). One of 1 x 1 is a product of matrices, whose gradient is faster on
    CPU.
    """

    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_NHWC: Array) -> Array:
        size = self.kernel_size
        kernel = self.param('kernel', kaiming_fan_out, (size, size, x_NHWC.shape[-1], self.features), jnp.float32)
        x_NHWC, kernel = x_NHWC.astype(self.dtype), kernel.astype(self.dtype)
        if size == 1:
            y_NHWC = x_NHWC[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        else:
            y_NHWC = conv2d(x_NHWC, kernel, strides=(self.stride,) * 2, padding=(size // 2,) * 2)
        if self.use_bias:
            bias_C = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
            y_NHWC = y_NHWC + bias_C.astype(self.dtype)[None, None, None]
        return y_NHWC


def max_pool_ceil(x_NHWC: Array, size: int, stride: int) -> Array:
    """Maximum over windows that may reach over the end: PyTorch's ceil_mode without padding."""
    extra = [-(side - size) % stride if side > size else size - side for side in x_NHWC.shape[1:3]]
    # A last window that would begin behind the end does not exist; with stride <= size there is none.
    width = [(0, 0), (0, extra[0]), (0, extra[1]), (0, 0)]
    return max_pool(jnp.pad(x_NHWC, width, constant_values=-jnp.inf), size, stride=stride, padding=0)


def adaptive_mean(x_NHWC: Array, size: int) -> Array:
    """(N, H, W, C) -> (N, size, size, C): means over parts i H / size to (i + 1) H / size, rounded outwards."""
    if x_NHWC.shape[1:3] == (size, size):
        return x_NHWC
    rows, columns = (jnp.asarray(_parts(side, size), x_NHWC.dtype) for side in x_NHWC.shape[1:3])
    return jnp.einsum('nhwc,ih,jw->nijc', x_NHWC, rows, columns, precision='highest')


def _parts(side, size):
    """(size, side) weights of the mean of each part."""
    first = np.arange(size) * side // size
    last = -(-(np.arange(size) + 1) * side // size)
    where = np.arange(side)[None]
    inside = (where >= first[:, None]) & (where < last[:, None])
    return inside / inside.sum(1, keepdims=True)


def flatten_channels_first(x_NHWC: Array) -> Array:
    """(N, H, W, C) -> (N, C H W), the order in which torchvision's dense layers take a map."""
    return jnp.moveaxis(x_NHWC, -1, 1).reshape(len(x_NHWC), -1)


def by_frame(function: Callable[..., Array], x: Array, mask: Array, train: bool) -> Array:
    """function(frames (N, ...), valid frames (N,), train) on all frames of x (B, T, ...), N = B T.

    mask: the valid frames (B, T), or the real rows (B,), whose frames then all count.
    """
    mask_BT = jnp.broadcast_to(mask.reshape(len(x), -1), x.shape[:2])
    y = function(x.reshape(-1, *x.shape[2:]), mask_BT.reshape(-1), train)
    return y.reshape(*x.shape[:2], *y.shape[1:])


class PictureEncoder(nn.Module):
    """Pictures (B, T, H, W, C), or one a row (B, H, W, C), uint8 or normalised -> a map (B, T, H', W', C').

    Every frame is seen by itself, normally one a clip; `pool` is the mean over the valid frames. The number of
    channels is that of the data: 3 of colour pictures, 1 of grey ones or spectrograms, more where modalities are laid
    over each other. Padded frames and rows have no part in batch statistics and are 0 in the end. A subclass has
    `_stem(x, valid_N, train)` and `_stage(number, x, valid_N, train)` on frames (N, H, W, C).
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    dtype: Any = jnp.float32

    stages = STAGES
    masks_steps = True  # stages take the mask of the frames (B, T), not of the rows

    def prepare(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """Normalised pictures (B, T, H, W, C), padded ones 0, and the mask (B, T)."""
        mask = check_mask(self, x, mask, layouts=('BTHWC', 'BHWC'))
        x, mask_BT = x if x.ndim == 5 else x[:, None], mask.reshape(len(x), -1)
        return mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), mask_BT), mask_BT

    def stem(self, x: Array, mask_BT: Array, *, train: bool) -> Array:
        return by_frame(self._stem, x, mask_BT, train=train)

    def stage1(self, x: Array, mask_BT: Array, *, train: bool) -> Array:
        return by_frame(functools.partial(self._stage, 1), x, mask_BT, train=train)

    def stage2(self, x: Array, mask_BT: Array, *, train: bool) -> Array:
        return by_frame(functools.partial(self._stage, 2), x, mask_BT, train=train)

    def stage3(self, x: Array, mask_BT: Array, *, train: bool) -> Array:
        return by_frame(functools.partial(self._stage, 3), x, mask_BT, train=train)

    def stage4(self, x: Array, mask_BT: Array, *, train: bool) -> Array:
        return by_frame(functools.partial(self._stage, 4), x, mask_BT, train=train)

    def pool(self, features: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, H', W', C) -> (B, C), the mean over all positions and the valid frames."""
        del train
        return masked_mean(features.mean((2, 3)), mask_BT)

    def __call__(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        x, mask_BT = self.prepare(x, mask)
        for stage in (self.stem, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x, mask_BT, train=train)
        return mask_steps(x, mask_BT), mask_BT

    def _stem(self, x: Array, valid_N: Array, train: bool) -> Array:
        raise NotImplementedError

    def _stage(self, number: int, x: Array, valid_N: Array, train: bool) -> Array:
        raise NotImplementedError
