"""I3D (Carreira and Zisserman 2017), the RGB stream: Inception with filters inflated into time."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.encoders.convolution import BatchNorm, Conv3D, scale_images
from mmer_jax.encoders.googlenet import INCEPTIONS, STEM_FEATURES
from mmer_jax.encoders.protocol import STAGES
from mmer_jax.layers import check_mask, fix_length, mask_steps

Triple = tuple[int, int, int]
EPSILON, MOMENTUM = 1e-3, 0.99
HALF = (0.5, 0.5, 0.5)  # as mean and deviation of pictures in 0..1 they give -1..1
# It is GoogLeNet's blocks inflated, each under the name of the next letter: 3a is 3b here.
MIXED = dict(zip(('3b', '3c', '4b', '4c', '4d', '4e', '4f', '5b', '5c'), INCEPTIONS.values(), strict=True))
MIXED_OF = {2: ('3b', '3c'), 3: ('4b', '4c', '4d', '4e', '4f'), 4: ('5b', '5c')}
# size and strides of the maximum behind a block, part of it so that remat keeps the small map only
SPACE = ((1, 3, 3), (1, 2, 2))
POOL_AFTER = {'3c': ((3, 3, 3), (2, 2, 2)), '4f': ((2, 2, 2), (2, 2, 2))}


def same_padding(side: int, size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, (before, after): ceil(side / stride) windows, the odd one after."""
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


def max_pool_same(x: Array, size: Triple, strides: Triple) -> Array:
    """Maximum over windows of (B, T, H, W, C) with SAME padding; on CPU axis by axis, as `convolution.max_pool`.

    What is beyond the border never wins. The PyTorch port pads with 0, which is the same behind a ReLU.
    """
    if jax.default_backend() != 'cpu':
        return nn.max_pool(x, size, strides=strides, padding='SAME')
    for axis in reversed(range(1, 4)):
        window, stride = size[axis - 1], strides[axis - 1]
        if window == stride == 1:
            continue
        width = [(0, 0)] * x.ndim
        width[axis] = same_padding(x.shape[axis], window, stride)
        x = jnp.pad(x, width, constant_values=-jnp.inf)
        last = (x.shape[axis] - window) // stride * stride
        x = functools.reduce(
            jnp.maximum, [jax.lax.slice_in_dim(x, k, k + last + 1, stride=stride, axis=axis) for k in range(window)]
        )
    return x


class Unit(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU, and a maximum behind them where `pool` = (size, strides)."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    pool: tuple[Triple, Triple] | None = None
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, rows_B: Array, train: bool) -> Array:
        time, height, width = (same_padding(side, self.kernel_size, self.stride) for side in x.shape[1:4])
        if any(before != after for before, after in (time, height, width)):  # Conv3D pads both sides alike
            x = jnp.pad(x, [(0, 0), *((0, after - before) for before, after in (time, height, width)), (0, 0)])
        x = Conv3D(
            self.features,
            kernel_size=(self.kernel_size,) * 3,
            strides=(self.stride,) * 3,
            padding=(time[0], height[0], width[0]),
            method=self.convolution,
            dtype=self.dtype,
            name='conv',
        )(x)
        norm = BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, dtype=self.dtype, name='norm')
        x = nn.relu(norm(x, rows_B, train=train))
        return max_pool_same(x, *self.pool) if self.pool else x


class Inception(nn.Module):
    """Four branches side by side in the channels, and a maximum behind them where `pool` = (size, strides)."""

    sizes: tuple[int, ...]
    pool: tuple[Triple, Triple] | None = None
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, rows_B: Array, train: bool) -> Array:
        point, reduce1, conv1, reduce2, conv2, pooled = self.sizes

        def unit(x, features, size, *, name):
            made = Unit(features, size, convolution=self.convolution, dtype=self.dtype, name=name)
            return made(x, rows_B, train)

        branches = [
            unit(x, point, 1, name='branch0'),
            unit(unit(x, reduce1, 1, name='branch1_reduce'), conv1, 3, name='branch1'),
            unit(unit(x, reduce2, 1, name='branch2_reduce'), conv2, 3, name='branch2'),
            unit(max_pool_same(x, (3, 3, 3), (1, 1, 1)), pooled, 1, name='branch3'),
        ]
        x = jnp.concatenate(branches, -1)
        return max_pool_same(x, *self.pool) if self.pool else x


class I3D(nn.Module):
    """Clips (B, T, H, W, C), uint8 or in -1..1 -> map (B, T / 8, H / 32, W / 32, 1024), sizes rounded up.

    The network looks at exactly `num_frames` frames: longer clips are cut, shorter ones continue with zeros. `pool` is
    the average over windows of 2 x 7 x 7 (`pool_window`; a smaller map is one window), dropout on each, and their mean
    (B, 1024); a linear head behind it gives the mean of the logits of the windows, as I3D predicts. With a head of six
    outputs 12,293,414 parameters, as the shared-encoder report counts. Pictures may be of any size, such as 224 x 224
    of one modality and 224 x 448 of two side by side.

    The stages end where the map shrinks: `stem` at (T / 2, H / 4) with 64 channels, `stage1` at H / 8 with 192,
    `stage2` (blocks 3b, 3c) at (T / 4, H / 16) with 480, `stage3` (4b to 4f) at (T / 8, H / 32) with 832, `stage4`
    (5b, 5c) there with 1024. Every width is divided by `divisor`, up to 8. convolution: 'auto', 'native' or 'frames',
    see Conv3D. remat recomputes each convolution of the first two stages and each Inception block in the backward pass;
    on CPU XLA drops the barriers that this needs, unless XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander.

    The report fed pictures as 0..255 to a network that expects -1..1: mean=(0, 0, 0) and std=(1 / 255,) * 3.
    """

    num_frames: int = 135
    divisor: int = 1
    dropout: float = 0.5
    pool_window: tuple[int, int, int] = (2, 7, 7)
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    remat: bool = False
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    stages = STAGES
    masks_steps = False

    def setup(self):
        def width(features):
            if features % self.divisor:
                raise ValueError(f'divisor = {self.divisor} of I3D does not divide {features}, expected 1, 2, 4 or 8')
            return features // self.divisor

        unit = nn.remat(Unit, static_argnums=(3,)) if self.remat else Unit
        inception = nn.remat(Inception, static_argnums=(3,)) if self.remat else Inception
        options: dict[str, Any] = {'convolution': self.convolution, 'dtype': self.dtype}
        first, second, third = map(width, STEM_FEATURES)
        self.conv1a = unit(first, 7, 2, pool=SPACE, **options)
        self.conv2b = unit(second, **options)
        self.conv2c = unit(third, 3, pool=SPACE, **options)
        self.mixed = {
            name: inception(tuple(map(width, sizes)), POOL_AFTER.get(name), **options) for name, sizes in MIXED.items()
        }
        self.drop = Dropout(self.dropout)

    def prepare(self, x: Array, mask_BT: Array) -> tuple[Array, Array]:
        """Pictures in -1..1 of exactly num_frames frames, padded ones 0, and the mask of real clips."""
        mask_BT = check_mask(self, x, mask_BT, layouts=('BTHWC',))
        x = mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), mask_BT)
        x = fix_length(x, self.num_frames)
        return x, jnp.broadcast_to(mask_BT.any(1)[:, None], x.shape[:2])

    def stem(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        """(B, T, H, W, C) -> (B, T / 2, H / 4, W / 4, 64). rows_B: rows that are no padding."""
        return self.conv1a(x, rows_B, train)

    def stage1(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return self.conv2c(self.conv2b(x, rows_B, train), rows_B, train)

    def stage2(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return self._mix(2, x, rows_B, train=train)

    def stage3(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return self._mix(3, x, rows_B, train=train)

    def stage4(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        return self._mix(4, x, rows_B, train=train)

    def pool(self, features: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T', H', W', 1024) -> (B, 1024)."""
        del mask_BT  # the window is fixed
        window = tuple(min(pair) for pair in zip(self.pool_window, features.shape[1:4], strict=True))
        x = nn.avg_pool(features.astype(jnp.float32), window)
        return self.drop(x, deterministic=not train).mean((1, 2, 3)).astype(self.dtype)

    def __call__(self, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        x, mask_BT = self.prepare(x, mask_BT)
        rows_B = mask_BT.any(1)
        for stage in (self.stem, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x, rows_B, train=train)
        return x, jnp.broadcast_to(rows_B[:, None], x.shape[:2])

    def _mix(self, stage, x, rows_B, *, train):
        for name in MIXED_OF[stage]:
            x = self.mixed[name](x, rows_B, train)
        return x
