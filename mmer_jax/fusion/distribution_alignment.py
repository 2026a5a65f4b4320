"""What MICA aligns (Liang et al. 2021, "Attention is not enough"), an interpretation.

Of that paper only the abstract was at hand: the marginal distributions of the query and key vectors of different
modalities, and the elements with high-confidence correlations, are aligned over their common space. How, is ours.
The losses that read these quantities are in mmer_jax/losses/distribution.py.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from mmer_jax.fusion.gradient_reversal import reverse_gradient
from mmer_jax.layers import MLP, masked_mean


class PairStatistics(NamedTuple):
    """Of one layer that attends from one modality to another, for each example of a batch."""

    query_BD: Array  # mean of the target's query vectors over its valid steps
    key_BD: Array  # mean of the source's key vectors over its valid steps
    distance_B: Array  # mean squared distance of queries and keys of unit length that attend to each other strongly
    map_BKTS: Array


def pair_statistics(
    query_BTD: Array, key_BSD: Array, map_BKTS: Array, pairs_BTS: Array, *, threshold: float
) -> PairStatistics:
    """Observes a layer of cross-modal attention (CrossModalTransformer.observe).

    Distributions are compared through one vector an example, the mean over time: B vectors a side, where all steps
    would give matrices of B T by B S. High confidence is attention above `threshold` times that of uniform attention
    over the steps the target may see (an absolute threshold would depend on the length); which pairs these are is
    taken as given, so no gradient flows through the choice. Heads are compared one by one; an example without such a
    pair has distance 0.
    """
    query_BD = masked_mean(query_BTD.astype(jnp.float32), pairs_BTS.any(2))
    key_BD = masked_mean(key_BSD.astype(jnp.float32), pairs_BTS.any(1))
    uniform_BT1 = 1 / jnp.maximum(pairs_BTS.sum(2, keepdims=True), 1)
    strong_BKTS = lax.stop_gradient(map_BKTS) > threshold * uniform_BT1[:, None]
    heads = map_BKTS.shape[1]
    cosine_BKTS = jnp.einsum('btkd,bskd->bkts', _unit(query_BTD, heads), _unit(key_BSD, heads))
    sum_B = jnp.where(strong_BKTS, 2 - 2 * cosine_BKTS, 0).sum((1, 2, 3))
    distance_B = sum_B / jnp.maximum(strong_BKTS.sum((1, 2, 3)), 1).astype(jnp.float32)
    return PairStatistics(query_BD=query_BD, key_BD=key_BD, distance_B=distance_B, map_BKTS=map_BKTS)


def _unit(x_BTD, heads):
    x_BTKd = x_BTD.astype(jnp.float32).reshape(*x_BTD.shape[:2], heads, -1)
    return x_BTKd * lax.rsqrt(jnp.square(x_BTKd).sum(-1, keepdims=True) + 1e-12)


class SideDiscriminator(nn.Module):
    """Which side of its pair does a mean vector come from? (B, A, D) -> logits (B, A), positive for the queries.

    A counts the aligned layers; each has a discriminator of its own, one hidden layer behind gradient reversal, so
    that what it learns drives queries and keys together.
    """

    hidden_size: int = 64
    reversal: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BAD: Array, train: bool) -> Array:
        def discriminate(mlp, x_BD):
            return mlp(x_BD, train=train)

        each = nn.vmap(discriminate, in_axes=1, out_axes=1, variable_axes={'params': 0}, split_rngs={'params': True})
        mlp = MLP((self.hidden_size, 1), dtype=self.dtype, name='layers')
        return each(mlp, reverse_gradient(x_BAD, self.reversal))[..., 0].astype(jnp.float32)
