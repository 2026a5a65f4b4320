"""Model selection on validation: best epoch, early stopping and plateau decay, for each seed on its own.

Plain numpy with a leading seed axis, kept in the checkpoint, so that N seeds in one program stop, decay and
select exactly as N single runs would.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass
class Selection:
    """best (N,) value so far and its epoch, epochs without improvement, which seeds still run, plateau counters.

    `best` is kept so that larger is better: values of a metric such as mae or loss are negated.
    patience and plateau_patience are numbers of epochs without improvement; 0 switches either off.
    """

    seeds: int
    higher_is_better: bool
    patience: int = 0
    plateau_patience: int = 0
    plateau_factor: float = 0.1

    def __post_init__(self):
        self.best = np.full(self.seeds, -np.inf)
        self.best_epoch = np.zeros(self.seeds, np.int64)
        self.epochs = np.zeros(self.seeds, np.int64)
        self.plateau = np.zeros(self.seeds, np.int64)
        self.running = np.ones(self.seeds, bool)
        self.lr_scale = np.ones(self.seeds)

    def update(self, epoch: int, values: np.ndarray) -> np.ndarray:
        """Takes the validation values (N,) of an epoch (counted from 1); returns which seeds improved, (N,) bool.

        The first of equal epochs wins. A seed that has stopped never improves again.
        """
        values = np.asarray(values, np.float64)
        if not np.isfinite(values[self.running]).all():
            raise FloatingPointError(f'validation of epoch {epoch} gave {values.tolist()}, expected finite values')
        comparable = values if self.higher_is_better else -values
        improved = self.running & (comparable > self.best)
        self.best = np.where(improved, comparable, self.best)
        self.best_epoch = np.where(improved, epoch, self.best_epoch)
        self.epochs = np.where(self.running, epoch, self.epochs)
        if self.plateau_patience:
            self.plateau = np.where(improved, 0, self.plateau + 1)
            decay = self.running & (self.plateau > self.plateau_patience)
            self.lr_scale = np.where(decay, self.lr_scale * self.plateau_factor, self.lr_scale)
            self.plateau = np.where(decay, 0, self.plateau)
        if self.patience:
            self.running = self.running & (epoch - self.best_epoch < self.patience)
        return improved

    def record(self, values: np.ndarray, measured: Mapping[int, Mapping[str, Any]]) -> None:
        """Told at each epoch: the values (N,), and all metrics of each seed that was running. Kept by Curves alone."""

    def to_json(self) -> dict[str, Any]:
        names = ('best_epoch', 'epochs', 'plateau', 'running', 'lr_scale')
        # -inf (nothing evaluated yet) has no place in JSON.
        best = [None if np.isinf(value) else value for value in self.best.tolist()]
        return {'best': best, **{name: getattr(self, name).tolist() for name in names}}

    def restore(self, value: dict[str, Any]) -> None:
        for name, numbers in value.items():
            numbers = [-np.inf if number is None else number for number in numbers]
            setattr(self, name, np.asarray(numbers, getattr(self, name).dtype))


class Curves(Selection):
    """Of an inner fold: what validation gave at each epoch is kept, and nobody is chosen by it alone.

    curve: by epoch and seed {'value': by which is chosen, 'measured': all metrics}.
    """

    def __post_init__(self):
        super().__post_init__()
        self.curve: list[list[dict[str, Any]]] = []

    def record(self, values: np.ndarray, measured: Mapping[int, Mapping[str, Any]]) -> None:
        """Keeps them; all seeds run to the end."""
        self.curve.append([{'value': v, 'measured': dict(measured[n])} for n, v in enumerate(values.tolist())])

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), 'curve': self.curve}

    def restore(self, value: dict[str, Any]) -> None:
        super().restore({name: numbers for name, numbers in value.items() if name != 'curve'})
        self.curve = value['curve']


class Chosen(Selection):
    """Of the training that follows inner folds: each seed stops at its epoch, which is known."""

    def __init__(self, epochs: Sequence[int], higher_is_better: bool):
        super().__init__(len(epochs), higher_is_better)
        self.chosen = np.asarray(epochs, np.int64)

    def update(self, epoch: int, values: np.ndarray) -> np.ndarray:
        """As Selection.update, with the mean of the inner folds at this epoch as `values`."""
        comparable = np.asarray(values, np.float64) if self.higher_is_better else -np.asarray(values, np.float64)
        now = self.running & (epoch == self.chosen)
        self.best = np.where(now, comparable, self.best)
        self.best_epoch = np.where(now, epoch, self.best_epoch)
        self.epochs = np.where(self.running, epoch, self.epochs)
        self.running = self.running & (epoch < self.chosen)
        return now
