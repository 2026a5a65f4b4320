"""Multimodal compact bilinear pooling (Fukui et al. 2016): the outer product of vectors, sketched, never formed."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.fusion.checks import check_vectors

TINY = 1e-8  # bounds the root's gradient, which would make much of the transforms' rounding


def hashes(features: int, sketch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `features` inputs the place in the sketch that it goes to and its sign, both random and fixed."""
    generator = np.random.default_rng(seed)
    place_D = generator.integers(sketch_size, size=features)
    sign_D = generator.integers(2, size=features) * 2 - 1
    return place_D.astype(np.int32), sign_D.astype(np.float32)


def count_sketch(x_BD: Array, place_D: np.ndarray, sign_D: np.ndarray, sketch_size: int) -> Array:
    """(B, D) -> (B, sketch_size): every input, with its sign, added at its place."""
    return jnp.zeros((len(x_BD), sketch_size), x_BD.dtype).at[:, place_D].add(x_BD * sign_D[None])


def signed_sqrt(x: Array) -> Array:
    """sign(x) sqrt(|x|), with a finite gradient at 0."""
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x) + TINY)


class CompactBilinear(nn.Module):
    """Vectors [(B, D_m)] of one or more modalities -> (B, sketch_size), float32, of length 1.

    Each vector is count-sketched by hashes of its own; the circular convolution of the sketches, a product of their
    Fourier transforms, is the count sketch of the vectors' outer product (algorithm 1). Then signed square root and L2
    normalisation. There are no parameters: the hashes are constants drawn from `seed`, part of the model's config.
    """

    sketch_size: int = 16000
    seed: int = 0

    @nn.compact
    def __call__(self, vectors: Sequence[Array]) -> Array:
        check_vectors('CompactBilinear', vectors)
        transforms = []
        for number, x_BD in enumerate(vectors):
            place_D, sign_D = hashes(x_BD.shape[-1], self.sketch_size, self.seed + number)
            sketch_BD = count_sketch(x_BD.astype(jnp.float32), place_D, sign_D, sketch_size=self.sketch_size)
            transforms.append(jnp.fft.rfft(sketch_BD))
        root_BD = signed_sqrt(jnp.fft.irfft(math.prod(transforms[1:], start=transforms[0]), self.sketch_size))
        return root_BD / jnp.sqrt(jnp.square(root_BD).sum(-1, keepdims=True) + TINY)
