"""Losses of specific and agnostic representations (MFSA paper, section 3.5, equations 13 to 15)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.losses.inputs import check_mapping, of_batch

Outputs = Mapping[str, Array]


def read(outputs: Outputs, loss: str, *keys: str) -> list[Array]:
    """The extras that a loss needs; ValueError where the model gives none of that name."""
    check_mapping(loss, outputs)
    missing = [key for key in keys if key not in outputs]
    if missing:
        raise ValueError(
            f'loss {loss!r} reads {", ".join(missing)}, which this model does not give; it gives {", ".join(outputs)}: '
            'leave the loss out of config.losses or choose another model'
        )
    return [outputs[key] for key in keys]


def separation(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Soft orthogonality of specific and agnostic representations, one value for the batch, given to every row.

    Equation 13, the squared entries of H_s^T H_a summed, for each modality, of the matrices (B, D) of the rows that
    count, centred and each row brought to unit length, divided by the number of rows. It lies between 0 (no dimension
    of one side correlates with one of the other) and B for each modality. Extras `specific` and `agnostic`, (B, M, D).

    Why this scale: with the paper's weight of 0.01, at its sizes and fresh weights, its gradient is 3 % of the task's;
    that of equation 13 of the vectors as they are (`separation_literal`) is 9 times the task's and rules it, and that
    of MISA's mean over the D x D entries (`separation_misa`) 0.03 %, so that nothing is separated. Measured by
    `python -m benchmarks.separation`.
    """
    specific_BMD, agnostic_BMD, total = _centred(outputs, batch, 'separation')
    return _given_to_all(_squared_correlation(_unit(specific_BMD), _unit(agnostic_BMD)).sum() / total, batch)


def separation_misa(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Equation 13 as MISA and domain separation networks compute it; one value for the batch, given to every row.

    As `separation`, but the mean over the D x D entries in place of their sum over the rows, and the length of a row
    taken as constant. MISA weighs it with 0.3.
    """
    specific_BMD, agnostic_BMD, _ = _centred(outputs, batch, 'separation_misa')
    specific_BMD, agnostic_BMD = _unit(specific_BMD, constant=True), _unit(agnostic_BMD, constant=True)
    size = specific_BMD.shape[-1] ** 2
    return _given_to_all(_squared_correlation(specific_BMD, agnostic_BMD).sum() / size, batch)


def _centred(outputs, batch, name):
    """`specific` and `agnostic`, at least float32, less their means over the rows that count; the number of these."""
    specific_BMD, agnostic_BMD = read(outputs, name, 'specific', 'agnostic')
    counted_B11 = (of_batch(name, batch, 'weight') > 0)[:, None, None]
    total = jnp.maximum(counted_B11.astype(jnp.float32).sum(), 1)

    def centre(x_BMD):
        x_BMD = jnp.where(counted_B11, x_BMD.astype(jnp.promote_types(x_BMD.dtype, jnp.float32)), 0)
        return jnp.where(counted_B11, x_BMD - x_BMD.sum(0, keepdims=True) / total, 0)

    return centre(specific_BMD), centre(agnostic_BMD), total


def _unit(x_BMD, *, constant=False):
    """Rows of length 1; those of zeros stay so. The root is taken of no 0, whose gradient would be NaN."""
    square_BM1 = jnp.square(x_BMD).sum(-1, keepdims=True)
    length_BM1 = jnp.where(square_BM1 > 0, jnp.sqrt(jnp.where(square_BM1 > 0, square_BM1, 1)), 0)
    return x_BMD / ((jax.lax.stop_gradient(length_BM1) if constant else length_BM1) + 1e-6)


def _squared_correlation(a_BMD, b_BMD):
    """Squared Frobenius norm of A^T B for each modality, (M,)."""
    return jnp.square(jnp.einsum('bmd,bme->mde', a_BMD, b_BMD)).sum((1, 2))


def _given_to_all(value, batch):
    return jnp.broadcast_to(value, batch['weight'].shape)


def separation_literal(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """Equation 13 as printed, for each example: the sum over modalities of the squared product (h_s^T h_a)^2.

    It grows with the fourth power of the vectors' length: `separation` says what that does to the task.
    """
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
