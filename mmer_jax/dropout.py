"""Dropout whose random numbers cost little to draw and little to compile.

flax's draws threefry bits for every element. In attention over long sequences that is most of a training step on CPU,
and since XLA copies the twenty rounds into each place that reads a mask, forward and backward, half of its compilation.
Here threefry makes the key of each mask, as everywhere in jax, and an element's bits are a hash of that key and of the
element's number: the 32-bit finaliser `lowbias32` (Wellons 2018, hash-prospector) twice, a word of the key before each.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mmer_jax.whole import whole


class Dropout(nn.Module):
    """As flax.linen.Dropout, from other random numbers: an element is 0 with probability `rate`, else over 1 - rate.

    Draws from the collection 'dropout'. rate is exact to 2**-32.
    """

    rate: float
    deterministic: bool | None = None
    rng_collection: str = 'dropout'

    @nn.compact
    def __call__(self, x: Array, deterministic: bool | None = None) -> Array:
        if nn.merge_param('deterministic', self.deterministic, deterministic) or self.rate == 0:
            return x
        if not 0 <= self.rate <= 1:
            raise ValueError(f'dropout rate {self.rate}: expected a number from 0 to 1')
        if self.rate == 1:
            return jnp.zeros_like(x)
        return drop(x, jax.random.key_data(self.make_rng(self.rng_collection)).reshape(-1), self.rate)


def keep(key: Array, shape: tuple[int, ...], rate: float) -> Array:
    """A mask of `shape`, True with probability 1 - rate, of a key of jax.random."""
    return keep_from(jax.random.key_data(key).reshape(-1), np.uint32(0), shape, rate)


def keep_from(words: Any, start: Any, shape: tuple[int, ...], rate: float) -> Array:
    """Part of a mask of `keep`: the elements from number `start` on, in the given shape. words: the key's data."""
    return _keep(words, start, size=math.prod(shape), rate=rate)[0].reshape(shape)


@whole
def _keep(words: Any, start: Any, *, size: int, rate: float) -> list[Array]:
    numbers = lax.iota(np.uint32, size) + (words[0] + start)
    bits = _mix(_mix(numbers)[0] ^ words[-1])[0]
    return [bits >= np.uint32(min(round(rate * 2**32), 2**32 - 1))]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def drop(x: Array, words: Array, rate: float) -> Array:
    """Dropout of x. The mask is made again in the backward pass, which is dropout of the gradient: nothing is kept."""
    return _drop(x, words, rate=rate)[0]


@whole
def _drop(x: Array, words: Array, *, rate: float) -> list[Array]:
    kept = keep_from(words, np.uint32(0), x.shape, rate)
    return [lax.select(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))]


drop.defvjp(lambda x, words, rate: (drop(x, words, rate), words), lambda rate, words, g: (drop(g, words, rate), None))


@whole
def _mix(x: Array) -> list[Array]:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return [x ^ (x >> np.uint32(16))]
