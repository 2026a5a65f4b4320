"""Losses: (outputs, batch) -> (B,) per example. Their weighted mean is taken once, in total_loss.

A loss of the task reads `prediction`, an auxiliary one the extras that its model puts beside it. Auxiliary losses
are the same whatever the labels; one that is defined on a whole batch gives its value to every row.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.losses.alignment import ctc_alignment, ctc_alignment_padded
from mmer_jax.losses.distribution import alignment_adversary, correlation_pull, distribution_alignment
from mmer_jax.losses.ordinal import ordinal
from mmer_jax.losses.representation import (
    agnostic_adversarial,
    importance,
    separation,
    separation_literal,
    separation_misa,
    specific_adversarial,
)
from mmer_jax.losses.task import binary_cross_entropy, cross_entropy, double_softmax, l1, mse, true_class_score
from mmer_jax.losses.translation import cycle_translation, second_translation, translation
from mmer_jax.losses.unimodal_l1 import unimodal_l1

Loss = Callable[[Mapping[str, Array], Mapping[str, Array]], Array]

LOSSES: dict[str, Loss] = {
    'cross_entropy': cross_entropy,
    'double_softmax': double_softmax,
    'true_class_score': true_class_score,
    'l1': l1,
    'mse': mse,
    'ordinal': ordinal,
    'binary_cross_entropy': binary_cross_entropy,
    'separation': separation,
    'separation_misa': separation_misa,
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
    'unimodal_l1': unimodal_l1,
}

__all__ = [
    'COUPLED',
    'LOSSES',
    'Loss',
    'WeightedLoss',
    'agnostic_adversarial',
    'alignment_adversary',
    'binary_cross_entropy',
    'check_outputs',
    'correlation_pull',
    'cross_entropy',
    'ctc_alignment',
    'ctc_alignment_padded',
    'cycle_translation',
    'distribution_alignment',
    'double_softmax',
    'importance',
    'keys_read',
    'l1',
    'make_loss',
    'mse',
    'ordinal',
    'second_translation',
    'separation',
    'separation_literal',
    'separation_misa',
    'specific_adversarial',
    'total_loss',
    'translation',
    'true_class_score',
    'unimodal_l1',
]

# Losses whose value for a row depends on other rows. A step that splits its batch (config.accumulate) shows them the
# whole of it all the same; tests/test_coupled_losses.py finds one that is missing here.
COUPLED = frozenset({'separation', 'separation_misa', 'distribution_alignment'})


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """The weighted sum of losses by name, a Loss itself: (outputs, batch) -> (B,). smoothing: of cross_entropy."""

    weights: tuple[tuple[str, float], ...]
    smoothing: float = 0.0

    def __call__(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
        return jnp.stack([weight * self._one(name)(outputs, batch) for name, weight in self.weights]).sum(0)

    def _one(self, name: str) -> Loss:
        if self.smoothing and name == 'cross_entropy':
            return functools.partial(cross_entropy, smoothing=self.smoothing)
        return LOSSES[name]

    @property
    def own(self) -> 'WeightedLoss | None':
        """The losses of each row by itself, None where there are none."""
        return self._those(coupled=False)

    @property
    def coupled(self) -> 'WeightedLoss | None':
        """The losses that couple the rows of a batch, None where there are none."""
        return self._those(coupled=True)

    def _those(self, *, coupled: bool) -> 'WeightedLoss | None':
        found = tuple((name, weight) for name, weight in self.weights if (name in COUPLED) == coupled)
        return WeightedLoss(found, self.smoothing) if found else None


def make_loss(weights: Mapping[str, float], *, smoothing: float = 0.0) -> WeightedLoss:
    """{'cross_entropy': 1.0, ...} -> their weighted sum, per example (B,); an unknown name lists the known ones.

    smoothing: of the labels of cross_entropy, in training (config.label_smoothing).
    """
    if not hasattr(weights, 'items'):
        raise ValueError(
            f"the losses are {weights!r}, expected a dictionary of weights, such as {{'cross_entropy': 1.0}}"
        )
    unknown = [name for name in weights if name not in LOSSES]
    if unknown or not weights:
        raise ValueError(f'losses {list(weights)}: name one or more of {", ".join(LOSSES)}, each with its weight')
    if smoothing and 'cross_entropy' not in weights:
        raise ValueError(
            f'config.label_smoothing: found {smoothing}, expected 0 without cross_entropy ({", ".join(weights)})'
        )
    return WeightedLoss(tuple(weights.items()), smoothing)


def keys_read(loss: Loss, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> list[str]:
    """The outputs of a model that a loss looks at, sorted; arrays or jax.ShapeDtypeStruct, nothing is computed."""
    read: set[str] = set()

    class Recorded(dict):
        def __getitem__(self, key):
            read.add(key)
            return super().__getitem__(key)

        def get(self, key, default=None):
            return self[key] if super().__contains__(key) else default

        def values(self):
            return [self[key] for key in self]

        def items(self):
            return [(key, self[key]) for key in self]

    jax.eval_shape(lambda outputs, batch: loss(Recorded(outputs), batch), dict(outputs), dict(batch))
    return sorted(read)


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
