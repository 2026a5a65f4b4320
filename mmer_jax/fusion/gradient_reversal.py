"""Gradient reversal (Ganin and Lempitsky 2015): the identity forward, the gradient times -scale backward."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def reverse_gradient(x: Array, scale: Array | float = 1.0) -> Array:
    """x itself; what lies before it is trained to raise the loss that what lies behind it lowers.

    `scale` is a number, or an array of x's rank that broadcasts to x, such as (B, 1) for a weight a row. It may be
    traced: an annealed one is computed in the step, as in the paper 2 / (1 + exp(-10 p)) - 1 at the share p of the
    training, without compiling again. It gets no gradient itself.
    """
    del scale
    return x


def _forward(x, scale):
    return x, scale


def _backward(scale, gradient):
    return -jnp.asarray(scale, gradient.dtype) * gradient, None  # None: a gradient of 0


reverse_gradient.defvjp(_forward, _backward)
