"""Gradient reversal (Ganin and Lempitsky 2015): the identity forward, the gradient times -scale backward."""

import functools
from typing import Any

import jax

Array = Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def reverse_gradient(x: Array, scale: float = 1.0) -> Array:
    """x itself; what lies before it is trained to raise the loss that what lies behind it lowers."""
    del scale
    return x


def _forward(x, scale):
    del scale
    return x, None


def _backward(scale, _, gradient):
    return (-scale * gradient,)


reverse_gradient.defvjp(_forward, _backward)
