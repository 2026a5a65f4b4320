"""Convolution whose gradients are fast on CPU inside a loop too.

XLA's compiler for CPUs hands a convolution to a library where its axes stand in one order, and brings other orders into
that one, but only outside loops. JAX writes the gradients of a convolution in other orders. So in a loop, such as that
over layers that repeat, they become plain nested loops, ten and more times slower: `python -m benchmarks.convolutions`.
Here the gradients are written in that order. Numbers are those of jax.lax.conv_general_dilated, and on accelerators it
is that function.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


class Conv(nn.Module):
    """As flax.linen.Conv: (N, *spatial, C) -> (N, *spatial', features); the same parameters."""

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] | None = None
    padding: str | Sequence[tuple[int, int]] = 'SAME'
    kernel_dilation: Sequence[int] | None = None
    use_bias: bool = True
    dtype: Any = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param('kernel', self.kernel_init, shape)
        bias = self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolve(x, kernel, strides=self.strides, padding=self.padding, dilation=self.kernel_dilation)
        return y if bias is None else y + jnp.expand_dims(bias, range(y.ndim - 1))


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = 'SAME',
    dilation: Sequence[int] | None = None,
) -> Array:
    """x (N, *spatial, C) by kernel (*taps, C, F) -> (N, *spatial', F); one to three spatial axes.

    strides and dilation (of the kernel): 1 by default. padding: 'SAME', 'VALID', or zeros (before, behind) on each
    axis. On CPU it has no forward-mode derivative (jax.jvp).
    """
    axes = x.ndim - 2
    strides, dilation = tuple(strides or (1,) * axes), tuple(dilation or (1,) * axes)
    if isinstance(padding, str):
        reach = [(taps - 1) * spread + 1 for taps, spread in zip(kernel.shape, dilation, strict=False)]
        padding = lax.padtype_to_pads(x.shape[1:-1], reach, strides, padding)
    pads = tuple((int(before), int(behind)) for before, behind in padding)
    function = _convolve if jax.default_backend() == 'cpu' else _plain
    return function(x, kernel, strides, pads, dilation)


def by_input(gradient: Array, kernel: Array, sizes: Sizes, strides: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """The gradient by x, whose spatial axes have these sizes, of that by the result."""
    ones, found = (1,) * len(strides), []
    axes = zip(sizes, kernel.shape, gradient.shape[1:], strides, dilation, pads, strict=False)
    for size, taps, results, stride, spread, (before, _) in axes:
        reach = (taps - 1) * spread
        found.append((reach - before, size + before - (results - 1) * stride - 1))
    flipped = lax.rev(jnp.swapaxes(kernel, -1, -2), tuple(range(len(strides))))
    return _plain(gradient, flipped, ones, tuple(found), dilation, apart=strides)


def by_kernel(x: Array, gradient: Array, taps: Sizes, strides: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """The gradient by the kernel, whose spatial axes have these sizes: x and the gradient, their rows as channels."""
    axes, found = len(strides), []
    of_axes = zip(x.shape[1:-1], taps, gradient.shape[1:-1], strides, dilation, pads, strict=True)
    for size, count, results, stride, spread, (before, _) in of_axes:
        found.append((before, (count - 1) * spread + (results - 1) * stride + 1 - size - before))
    spatial = range(1, axes + 1)
    x, gradient = jnp.transpose(x, (axes + 1, *spatial, 0)), jnp.transpose(gradient, (*spatial, 0, axes + 1))
    by = _plain(x, gradient, dilation, tuple(found), strides)
    return jnp.transpose(by, (*spatial, 0, axes + 1))


def _plain(x, kernel, strides, pads, dilation, apart=None):
    letters = 'DHW'[3 - len(strides) :]
    return lax.conv_general_dilated(
        x, kernel, strides, pads, lhs_dilation=apart, rhs_dilation=dilation,
        dimension_numbers=(f'N{letters}C', f'{letters}IO', f'N{letters}C'),
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, pads, dilation):
    return _plain(x, kernel, strides, pads, dilation)


def _forward(x, kernel, strides, pads, dilation):
    return _plain(x, kernel, strides, pads, dilation), (x, kernel)


def _backward(strides, pads, dilation, saved, gradient):
    x, kernel = saved
    fixed = (strides, pads, dilation)
    return (
        by_input(gradient, kernel, x.shape[1:-1], *fixed),
        by_kernel(x, gradient, kernel.shape[: len(strides)], *fixed),
    )


_convolve.defvjp(_forward, _backward)
