"""What a metric and a kind of metrics say of themselves: names, titles, units, directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Metric(NamedTuple):
    """What is said of one metric wherever its number is shown, selected by or compared."""

    title: str
    percent: bool = True  # a fraction, shown in percent; False: shown as it is
    lower_is_better: bool = False
    undefined_as: float | None = None  # the value of an undefined one where an epoch is chosen by it; None: refused


@dataclasses.dataclass(frozen=True)
class Kind:
    """The metrics of one kind of task.

    `measure(predictions, labels, names)` and `floors(labels, names)` return the same keys: those of `whole`, then
    '<metric>_<name>' for each class or emotion and each metric of `each`.
    """

    measure: Callable[..., dict[str, float]]
    floors: Callable[..., dict[str, float]]
    whole: Mapping[str, Metric]  # of the whole split
    labels: str  # the kind of label that it measures: 'classes', 'binary' or 'regression', as in features.json
    goodness: Callable[[np.ndarray, np.ndarray], np.ndarray]  # predictions, labels (R, ...) -> (R,), higher is better
    tell: Callable[[np.ndarray, np.ndarray, Sequence[str]], str]  # one record's prediction, label, names -> words
    each: Mapping[str, Metric] = dataclasses.field(default_factory=dict)  # of each class or emotion
    largest: float = np.inf  # the largest size of a label that the definitions are made for
    fits: Callable[[np.ndarray], bool] = lambda labels: True  # whether the definitions fit all labels of a data set

    def names(self, classes: Sequence[str] = ()) -> list[str]:
        """What is measured, in order, of a task with these classes or emotions."""
        return [*self.whole, *(f'{metric}_{name}' for name in classes for metric in self.each)]


def as_json(measured: Mapping[str, float]) -> dict[str, float | None]:
    """Undefined metrics as None; a loss that is NaN stays one, for it is a fault."""
    return {key: None if key != 'loss' and np.isnan(value) else float(value) for key, value in measured.items()}


def right_answer(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probability of the right class, (..., C) scores and (...) class numbers -> (...)."""
    shifted = scores - scores.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.take_along_axis(log_p, labels[..., None].astype(int), -1)[..., 0]
