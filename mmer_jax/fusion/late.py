"""Late fusion of class logits, one set a modality, and the fusion of features by concatenation.

The functions take logits (B, M, C) and give class scores (B, C), float32, larger for the likelier class.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.fusion.checks import check_shape, check_vectors


def averaging(logits_BMC: Array) -> Array:
    """The mean of the modalities' logits."""
    check_shape('averaging', logits_BMC, 'BMC', name='logits')
    return logits_BMC.astype(jnp.float32).mean(1)


def multiplication(logits_BMC: Array) -> Array:
    """The log of the product of the modalities' probabilities, not normalised; their softmax is the fused probability.

    ValueError for fewer than two classes.
    """
    return _log_probability(logits_BMC, 'multiplication').sum(1)


def multiplicative(logits_BMC: Array, beta: float = 0.3) -> Array:
    """Scores of the multiplicative layer (Liu et al. 2018): sum_m q_m log p_m, each class for itself.

    q_m = prod_{n != m} (1 - p_n) ^ (beta / (M - 1)) weighs a modality down, for a class, where the others are certain
    of it already; no gradient goes through q, as in the authors' code. beta = 0 is `multiplication`; so is a single
    modality. The paper trains on the negative score of the true class and predicts the class of the largest score.
    ValueError for fewer than two classes.
    """
    log_p_BMC = _log_probability(logits_BMC, 'multiplicative')
    modalities = log_p_BMC.shape[1]
    if modalities == 1:
        return log_p_BMC[:, 0]
    # log(1 - p), kept finite where p rounds to 1.
    log_rest_BMC = jnp.log(jnp.maximum(-jnp.expm1(log_p_BMC), jnp.finfo(jnp.float32).tiny))
    others_BMC = log_rest_BMC.sum(1, keepdims=True) - log_rest_BMC
    weight_BMC = jax.lax.stop_gradient(jnp.exp(beta / (modalities - 1) * others_BMC))
    return (weight_BMC * log_p_BMC).sum(1)


def _log_probability(logits_BMC, name):
    check_shape(name, logits_BMC, 'BMC', name='logits')
    if logits_BMC.shape[-1] < 2:
        raise ValueError(
            f'{name} fuses class probabilities and needs two or more classes, found num_outputs = '
            f'{logits_BMC.shape[-1]}: for one output use averaging or concat_fc'
        )
    return jax.nn.log_softmax(logits_BMC.astype(jnp.float32))


class ConcatFc(nn.Module):
    """Vectors [(B, D_m)] side by side, a dense layer of `hidden_size`, ReLU, a dense layer -> float32 (B, num_outputs).

    The fusion of features of Ortega et al. (2019), as sized in CFN-SR's table: 3712 -> 256 -> 8.
    """

    num_outputs: int
    hidden_size: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, vectors: Sequence[Array]) -> Array:
        check_vectors('ConcatFc', vectors)
        joined_BD = jnp.concatenate(vectors, -1)
        hidden_BD = nn.relu(nn.Dense(self.hidden_size, dtype=self.dtype, name='hidden')(joined_BD))
        return nn.Dense(self.num_outputs, dtype=self.dtype, name='out')(hidden_BD).astype(jnp.float32)
