"""Losses: (outputs, batch) -> (B,) per example. Their weighted mean is taken once, in total_loss.

A loss of the task reads `prediction`, an auxiliary one the extras that its model puts beside it. Auxiliary losses
are the same whatever the labels; one that is defined on a whole batch gives its value to every row.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from mmer_jax.losses.alignment import ctc_alignment, ctc_alignment_padded
from mmer_jax.losses.distribution import alignment_adversary, correlation_pull, distribution_alignment
from mmer_jax.losses.representation import (
    agnostic_adversarial,
    importance,
    separation,
    separation_literal,
    specific_adversarial,
)
from mmer_jax.losses.task import binary_cross_entropy, cross_entropy, double_softmax, l1, mse, true_class_score
from mmer_jax.losses.translation import cycle_translation, second_translation, translation

Array = Any
Loss = Callable[[Mapping[str, Array], Mapping[str, Array]], Array]

LOSSES: dict[str, Loss] = {
    'cross_entropy': cross_entropy,
    'double_softmax': double_softmax,
    'true_class_score': true_class_score,
    'l1': l1,
    'mse': mse,
    'binary_cross_entropy': binary_cross_entropy,
    'separation': separation,
    'separation_literal': separation_literal,
    'agnostic_adversarial': agnostic_adversarial,
    'specific_adversarial': specific_adversarial,
    'importance': importance,
    'ctc_alignment': ctc_alignment,
    'ctc_alignment_padded': ctc_alignment_padded,
    'distribution_alignment': distribution_alignment,
    'correlation_pull': correlation_pull,
    'alignment_adversary': alignment_adversary,
    'translation': translation,
    'cycle_translation': cycle_translation,
    'second_translation': second_translation,
}


def make_loss(weights: Mapping[str, float]) -> Loss:
    """{'cross_entropy': 1.0, ...} -> their weighted sum, per example (B,); an unknown name lists the known ones."""
    unknown = [name for name in weights if name not in LOSSES]
    if unknown or not weights:
        raise ValueError(f'losses {list(weights)}: name one or more of {", ".join(LOSSES)}, each with its weight')
    terms = [(LOSSES[name], weight) for name, weight in weights.items()]

    def loss(outputs, batch):
        return jnp.stack([weight * term(outputs, batch) for term, weight in terms]).sum(0)

    return loss


def check_outputs(outputs: Any, batch: Mapping[str, Array]) -> None:
    """ValueError where a model did not return {'prediction': (B, ...), ...} for a batch of B rows.

    It looks at names and shapes only, which are known when a step is traced.
    """
    expected = "expected a dictionary {'prediction': (B, num_outputs), ...}"
    if not isinstance(outputs, Mapping):
        found = (
            f'{type(outputs).__name__} of shape {outputs.shape}'
            if hasattr(outputs, 'shape')
            else type(outputs).__name__
        )
        raise ValueError(f'the model returned {found}, {expected}')
    if 'prediction' not in outputs:
        raise ValueError(f'the model returned a dictionary of {", ".join(outputs) or "nothing"}, {expected}')
    rows, shape = len(batch['weight']) if 'weight' in batch else None, getattr(outputs['prediction'], 'shape', ())
    if not shape or (rows is not None and shape[0] != rows):
        raise ValueError(f"the model's 'prediction' has shape {tuple(shape)} for a batch of {rows} rows, {expected}")


def total_loss(loss_B: Array, weight_B: Array, total_weight: Array | None = None) -> Array:
    """Mean over the rows that count: sum(loss x weight) / sum(weight); padding rows have weight 0.

    total_weight replaces the divisor where the rows are one part of a larger batch (gradient accumulation).
    A padding row's loss may be anything, NaN included: it is left out, not multiplied by 0. Its gradient is only
    finite where its loss is, which the pipeline's rows of zeros see to.
    """
    total = weight_B.sum() if total_weight is None else total_weight
    return jnp.where(weight_B > 0, loss_B * weight_B, 0).sum() / jnp.maximum(total, 1e-9)
