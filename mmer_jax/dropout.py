"""Dropout whose random numbers cost little to draw and little to compile.

flax's draws threefry bits for every element. In attention over long sequences that is most of a training step on CPU,
and since XLA copies the twenty rounds into each place that reads a mask, forward and backward, half of its compilation.
Here threefry makes the key of each mask, as everywhere in jax, and an element's bits are a hash of that key and of the
element's number: the 32-bit finaliser `lowbias32` (Wellons 2018, hash-prospector) twice, a word of the key before each.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


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
        kept = keep(self.make_rng(self.rng_collection), x.shape, self.rate)
        return jnp.where(kept, x / jnp.asarray(1 - self.rate, x.dtype), jnp.zeros((), x.dtype))


def keep(key: Array, shape: tuple[int, ...], rate: float) -> Array:
    """A mask of `shape`, True with probability 1 - rate, of a key of jax.random."""
    return _keep(jax.random.key_data(key).reshape(-1), shape, rate)


@partial(jax.jit, static_argnums=(1, 2))  # of one shape, one function that is called: XLA reads it once
def _keep(words: Any, shape: tuple[int, ...], rate: float) -> Array:
    numbers = lax.iota(np.uint32, int(np.prod(shape)))
    bits = _mix(_mix(numbers + words[0]) ^ words[-1])
    return (bits >= np.uint32(min(round(rate * 2**32), 2**32 - 1))).reshape(shape)


def _mix(x: Array) -> Array:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
