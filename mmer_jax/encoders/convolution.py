"""What the convolutional encoders share: 3-D convolutions that are fast on CPU too, batch norm, pooling, pictures."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.convolve import by_input, by_kernel, convolve

Triple = tuple[int, int, int]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
METHODS = ('auto', 'native', 'frames')
DENSE_CHANNELS = 16  # groups are merged until a dense block has so many input channels
LARGE_MAP, PARTS = 2**16, 16  # values of a picture from which conv2d sums its kernel's gradient over so many parts
kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def scale_images(x: Array, mean: Sequence[float], std: Sequence[float], dtype: Any) -> Array:
    """uint8 pictures (..., C) -> (x / 255 - mean) / std; pictures of floats are taken as normalised already.

    Pictures joined by channel (6 channels, `mean` has 3) are scaled one after the other; where the numbers do not
    divide, as with grey ones, the mean of `mean` and of `std` is used.
    """
    if x.dtype != jnp.uint8:
        return x.astype(dtype)
    mean_C, std_C = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    if x.shape[-1] % len(mean) == 0:
        mean_C, std_C = (jnp.tile(values, x.shape[-1] // len(mean)) for values in (mean_C, std_C))
    else:
        mean_C, std_C = mean_C.mean(keepdims=True), std_C.mean(keepdims=True)
    shape = (1,) * (x.ndim - 1) + (-1,)
    return ((x.astype(jnp.float32) / 255 - mean_C.reshape(shape)) / std_C.reshape(shape)).astype(dtype)


class Conv3D(nn.Module):
    """3-D convolution (B, T, H, W, C) -> (B, T', H', W', features), padded by `padding` on both sides as in PyTorch.

    On GPU and TPU it is the native operation. On CPU XLA's gradient of a strided 3-D convolution, and a grouped one,
    are up to two hundred times slower than they need be (benchmarks/conv3d.py), so there it is one 2-D convolution over
    frames with the temporal taps stacked into the channels, groups merged into dense blocks. The parameter is the same,
    `kernel` (kt, kh, kw, C / groups, features). method: 'auto', or 'native' or 'frames' by name.
    """

    features: int
    kernel_size: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)
    padding: tuple[int, int, int] = (0, 0, 0)
    groups: int = 1
    use_bias: bool = False
    method: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: Array) -> Array:
        if self.method not in METHODS:
            raise ValueError(f'method {self.method!r} of a 3-D convolution: expected one of {", ".join(METHODS)}')
        channels = x_BTHWC.shape[-1]
        if channels % self.groups or self.features % self.groups:
            raise ValueError(f'{self.groups} groups do not divide {channels} and {self.features} channels')
        shape = (*self.kernel_size, channels // self.groups, self.features)
        kernel = self.param('kernel', kaiming_fan_out, shape, jnp.float32).astype(self.dtype)
        frames = self.method == 'frames' or (self.method == 'auto' and jax.default_backend() == 'cpu')
        run = conv3d_frames if frames else conv3d_native
        y = run(x_BTHWC.astype(self.dtype), kernel, strides=self.strides, padding=self.padding, groups=self.groups)
        if self.use_bias:
            bias_C = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias_C.astype(self.dtype)[None, None, None, None]
        return y


def conv3d_native(x: Array, kernel: Array, strides: Triple, padding: Triple, groups: int) -> Array:
    """XLA's own 3-D convolution."""
    pads = [(p, p) for p in padding]
    if groups == 1:
        return convolve(x, kernel, strides=strides, padding=pads)
    layout = ('NDHWC', 'DHWIO', 'NDHWC')
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout, feature_group_count=groups)


def conv3d_frames(x: Array, kernel: Array, strides: Triple, padding: Triple, groups: int) -> Array:
    """The same sums as one 2-D convolution over frames: each frame beside its temporal neighbours, as channels."""
    if groups == 1:
        return _stacked(x, kernel, strides=strides, padding=padding)
    inputs, outputs = kernel.shape[3], kernel.shape[4] // groups
    merged = max(DENSE_CHANNELS // inputs, 1)
    while groups % merged:
        merged -= 1
    kernel = kernel.reshape(*kernel.shape[:3], inputs, groups, outputs)
    eye, parts = jnp.eye(merged, dtype=kernel.dtype), []
    for first in range(0, groups, merged):
        block = kernel[..., first : first + merged, :]
        dense = jnp.einsum('thwipo,pq->thwqipo', block, eye).swapaxes(3, 4)  # zeros between one group and another
        dense = jnp.moveaxis(dense, 4, 3).reshape(*kernel.shape[:3], merged * inputs, merged * outputs)
        channels = x[..., first * inputs : (first + merged) * inputs]
        parts.append(_stacked(channels, dense, strides=strides, padding=padding))
    return jnp.concatenate(parts, -1)


def _stacked(x_BTHWC, kernel, *, strides, padding):
    taps, (stride, *spatial) = kernel.shape[0], strides
    if kernel.shape[:3] == (1, 1, 1) and not any(padding):  # a product of matrices: XLA's gradient is twice as fast
        x = x_BTHWC[:, ::stride, :: spatial[0], :: spatial[1]]
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0, 0]).reshape(*x.shape[:-1], -1)
    pad = padding[0]
    x = jnp.pad(x_BTHWC, ((0, 0), (pad, pad), (0, 0), (0, 0), (0, 0))) if pad else x_BTHWC
    steps = (x.shape[1] - taps) // stride + 1
    rows = [x[:, k : k + stride * (steps - 1) + 1 : stride] for k in range(taps)]
    x = jnp.concatenate(rows, -1) if taps > 1 else rows[0]
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
    y = conv2d(x.reshape(-1, *x.shape[2:]), kernel, strides=tuple(spatial), padding=tuple(padding[1:]))
    return y.reshape(-1, steps, *y.shape[1:])


def conv2d(x: Array, kernel: Array, strides: tuple[int, int], padding: tuple[int, int]) -> Array:
    """2-D convolution (N, H, W, C) by (kh, kw, C, F) -> (N, H', W', F), padded by `padding` on both sides.

    On CPU the whole batch is transposed for the gradient by the kernel, which is two to three times slower for large
    maps than the sum of the same over few pictures at a time (benchmarks/encoders_2d_3d.py times the networks). There
    the gradient is that sum, in at most PARTS parts.
    """
    if jax.default_backend() != 'cpu' or len(x) == 1 or x[0].size < LARGE_MAP:
        return _conv2d(x, kernel, strides=strides, padding=padding)
    return conv2d_in_parts(x, kernel, strides, padding)


def _conv2d(x, kernel, *, strides, padding):
    return convolve(x, kernel, strides=strides, padding=[(p, p) for p in padding])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d_in_parts(x: Array, kernel: Array, strides: tuple[int, int], padding: tuple[int, int]) -> Array:
    """`conv2d` whose gradient by the kernel is summed over parts of the batch; no forward-mode derivative."""
    return _conv2d(x, kernel, strides=strides, padding=padding)


def _in_parts_forward(x, kernel, strides, padding):
    return _conv2d(x, kernel, strides=strides, padding=padding), (x, kernel)


def _in_parts_backward(strides, padding, saved, gradient):
    x, kernel = saved
    fixed = {'strides': strides, 'pads': tuple((p, p) for p in padding), 'dilation': (1, 1)}
    by_x = by_input(gradient, kernel, x.shape[1:3], **fixed)
    total, count = jnp.zeros(kernel.shape, jnp.promote_types(kernel.dtype, jnp.float32)), -(-len(x) // PARTS)
    for first in range(0, len(x), count):
        pictures, of_part = x[first : first + count], gradient[first : first + count]
        total += by_kernel(pictures, of_part, kernel.shape[:2], **fixed).astype(total.dtype)
    return by_x, total.astype(kernel.dtype)


conv2d_in_parts.defvjp(_in_parts_forward, _in_parts_backward)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, by statistics of the rows that are no padding.

    PyTorch's defaults (momentum 0.1 there is 0.9 here). Where no row is real, as in a part of an accumulated batch,
    all are taken, for the mean of none is NaN.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, rows_B: Array, *, train: bool) -> Array:
        rows_B = rows_B | ~rows_B.any()
        norm = nn.BatchNorm(momentum=self.momentum, epsilon=self.epsilon, dtype=self.dtype, name='norm')
        return norm(x, use_running_average=not train, mask=rows_B.reshape(-1, *(1,) * (x.ndim - 1)))


def max_pool(x: Array, size: int, stride: int, padding: int) -> Array:
    """Maximum over windows of `size` on every axis between the first and the last, as PyTorch pads and rounds.

    On CPU axis by axis over shifted slices, for there XLA's own gradient takes four times as long (benchmarks/conv3d.py
    times it). Equal values share the gradient.
    """
    if jax.default_backend() != 'cpu':
        axes = x.ndim - 2
        return nn.max_pool(x, (size,) * axes, strides=(stride,) * axes, padding=((padding, padding),) * axes)
    for axis in reversed(range(1, x.ndim - 1)):
        width = [(padding, padding) if a == axis else (0, 0) for a in range(x.ndim)]
        x = jnp.pad(x, width, constant_values=-jnp.inf)
        last = (x.shape[axis] - size) // stride * stride
        parts = [jax.lax.slice_in_dim(x, k, k + last + 1, stride=stride, axis=axis) for k in range(size)]
        x = functools.reduce(jnp.maximum, parts)
    return x
