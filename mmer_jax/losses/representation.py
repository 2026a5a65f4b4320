"""Losses of specific and agnostic representations (MFSA paper, section 3.5, equations 13 to 15)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = Any
Outputs = Mapping[str, Array]


def read(outputs: Outputs, loss: str, *keys: str) -> list[Array]:
    """The extras that a loss needs; ValueError where the model gives none of that name."""
    missing = [key for key in keys if key not in outputs]
    if missing:
        raise ValueError(
            f'loss {loss!r} reads {", ".join(missing)}, which this model does not give; it gives {", ".join(outputs)}: '
            'leave the loss out of config.losses or choose another model'
        )
    return [outputs[key] for key in keys]


def separation(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Soft orthogonality of specific and agnostic representations, one value for the batch, given to every row.

    Equation 13 as MISA and domain separation networks compute it: over the rows that count, both are centred and
    brought to unit length (the length taken as constant), and the squared entries of their (D, D) correlation are
    averaged; summed over modalities. Extras `specific` and `agnostic`, (B, M, D).
    """
    specific_BMD, agnostic_BMD = read(outputs, 'separation', 'specific', 'agnostic')
    counted_B11 = (batch['weight'] > 0)[:, None, None]
    total = jnp.maximum(counted_B11.sum(), 1)

    def unit(x_BMD):
        x_BMD = jnp.where(counted_B11, x_BMD.astype(jnp.float32), 0)
        x_BMD = jnp.where(counted_B11, x_BMD - x_BMD.sum(0, keepdims=True) / total, 0)
        length_BM1 = jax.lax.stop_gradient(jnp.linalg.norm(x_BMD, axis=-1, keepdims=True))
        return x_BMD / (length_BM1 + 1e-6)

    correlation_MDD = jnp.einsum('bmd,bme->mde', unit(specific_BMD), unit(agnostic_BMD))
    return jnp.broadcast_to(jnp.square(correlation_MDD).mean((1, 2)).sum(), batch['weight'].shape)


def separation_literal(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Equation 13 as printed, for each example: the sum over modalities of the squared product (h_s^T h_a)^2."""
    specific_BMD, agnostic_BMD = read(outputs, 'separation_literal', 'specific', 'agnostic')
    product_BM = jnp.einsum('bmd,bmd->bm', specific_BMD.astype(jnp.float32), agnostic_BMD.astype(jnp.float32))
    return jnp.square(product_BM).sum(-1)


def agnostic_adversarial(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Equation 14: the modality discriminator's cross-entropy on agnostic representations, weighted by importance.

    The gradient that reaches the agnostic encoder is the reversed one; extras of DoubleDiscriminator.
    """
    logits_BMM, omega_BM = read(outputs, 'agnostic_adversarial', 'agnostic_logits', 'importance')
    return (omega_BM * _modality_cross_entropy(logits_BMM)).sum(-1)


def specific_adversarial(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Equation 15: the modality discriminator's cross-entropy on the specific representations."""
    (logits_BMM,) = read(outputs, 'specific_adversarial', 'specific_logits')
    return _modality_cross_entropy(logits_BMM).sum(-1)


def importance(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Cross-entropy of the importance discriminator, which trains that discriminator and nothing else."""
    (logits_BMM,) = read(outputs, 'importance', 'importance_logits')
    return _modality_cross_entropy(logits_BMM).sum(-1)


def _modality_cross_entropy(logits_BMM):
    """-log of the probability of modality m in row m, (B, M)."""
    return -jnp.diagonal(jax.nn.log_softmax(logits_BMM), axis1=1, axis2=2)
