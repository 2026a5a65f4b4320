"""Losses that bridge the distributions of two modalities' query and key vectors (MICA, an interpretation).

They read the extras of models/mica.py, with A aligned layers; fusion/distribution_alignment.py says what is in them.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.losses.inputs import of_batch
from mmer_jax.losses.representation import read

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the Gaussian kernels, times the mean squared distance of the batch


def squared_mmd(x_BD: Array, y_BD: Array, weight_B: Array) -> Array:
    """Squared maximum mean discrepancy of two sets of vectors (Gretton et al. 2012), a scalar; 0 for equal sets.

    The kernel is the mean of Gaussians exp(-d^2 / bandwidth), the bandwidths BANDWIDTHS times the mean squared distance
    between two vectors of both sets (taken as constant), as deep adaptation networks do (Long et al. 2015). The
    biased estimate, so never negative; rows of weight 0 are left out.
    """
    counted_B = weight_B > 0
    z_ND = jnp.where(jnp.tile(counted_B, 2)[:, None], jnp.concatenate([x_BD, y_BD]).astype(jnp.float32), 0)
    share_B = counted_B.astype(jnp.float32)
    probability_N = jnp.tile(share_B / jnp.maximum(share_B.sum(), 1), 2) / 2  # over both sets together
    z_ND -= probability_N[None] @ z_ND  # distances stay, and lose less to rounding
    square_N = jnp.square(z_ND).sum(-1)
    product_NN = jnp.matmul(z_ND, z_ND.T, precision='highest')
    distance_NN = jnp.maximum(square_N[:, None] + square_N[None] - 2 * product_NN, 0)
    pair_NN = probability_N[:, None] * probability_N[None] * (1 - jnp.eye(len(z_ND)))
    mean = jax.lax.stop_gradient((pair_NN * distance_NN).sum() / jnp.maximum(pair_NN.sum(), 1e-9))
    scaled_NN = distance_NN / jnp.maximum(mean, 1e-9)
    kernel_NN = jnp.stack([jnp.exp(-scaled_NN / bandwidth) for bandwidth in BANDWIDTHS]).mean(0)
    sign_N = 2 * probability_N * jnp.repeat(jnp.array([1.0, -1.0]), len(x_BD))
    return sign_N @ kernel_NN @ sign_N


def distribution_alignment(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Squared MMD between queries and keys over the batch, averaged over layers; one value, given to every row.

    Extras `queries` and `keys`, (B, A, D): mean query and key vectors. A batch of one row has no distribution.
    """
    queries_BAD, keys_BAD = read(outputs, 'distribution_alignment', 'queries', 'keys')
    weight_B = of_batch('distribution_alignment', batch, 'weight')
    mmd_A = jax.vmap(squared_mmd, in_axes=(1, 1, None))(queries_BAD, keys_BAD, weight_B)
    return jnp.broadcast_to(mmd_A.mean(), weight_B.shape)


def correlation_pull(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Mean squared distance of the query-key pairs that attend to each other strongly, averaged over layers.

    Extra `correlation_distance` (B, A).
    """
    (distance_BA,) = read(outputs, 'correlation_pull', 'correlation_distance')
    return distance_BA.mean(-1)


def alignment_adversary(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Binary cross-entropy of the discriminators that tell queries from keys, averaged over layers and both sides.

    The gradient that reaches queries and keys is the reversed one: it takes the place of distribution_alignment.
    Extras `query_logits` and `key_logits` (B, A), which a model gives with adversarial=True.
    """
    query_BA, key_BA = read(outputs, 'alignment_adversary', 'query_logits', 'key_logits')
    return (jax.nn.softplus(-query_BA) + jax.nn.softplus(key_BA)).mean(-1) / 2
