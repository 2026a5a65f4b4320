"""Training that diverges: parameters that are no longer finite end the run, a loss that grew a thousandfold is told."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

GROWN = 1000  # times the loss of the first step
LEAST = 1e-3  # a first loss below it counts as this
ADVICE = 'lower config.optimizer.learning_rate, or clip gradients (config.optimizer.clip_norm)'


class Divergence:
    """The first loss of each seed, and the step at which one had grown GROWN-fold, 0 for none; part of a checkpoint."""

    def __init__(self, seeds: np.ndarray):
        self.seeds = seeds
        self.first, self.grew_at = np.full(len(seeds), np.nan), np.zeros(len(seeds), np.int64)

    def account(self, step: int, loss: np.ndarray, running: np.ndarray, *, tell: bool) -> None:
        """Takes in the finite losses (N,) of a step, counted from 1; `tell` says once per seed that it has grown."""
        self.first = np.where(np.isnan(self.first) & running, loss, self.first)
        bound = GROWN * np.maximum(np.abs(self.first), LEAST)
        grown = running & (self.grew_at == 0) & (loss > bound)
        self.grew_at[grown] = step
        for n in np.flatnonzero(grown) if tell else ():
            print(
                f'seed {self.seeds[n]}, step {step}: the loss is {loss[n]:.3g}, of the first step {self.first[n]:.3g}: '
                f'training diverges; {ADVICE}',
                file=sys.stderr,
                flush=True,
            )

    def check_parameters(self, step: int, params: Any, running: np.ndarray, rates: np.ndarray) -> None:
        """FloatingPointError where parameters of a running seed (their first axis) are not finite behind `step`.

        rates: the learning rate (N,) of that step.
        """
        wrong = np.flatnonzero(running & are_not_finite(params, len(self.seeds)))
        if len(wrong):
            raise FloatingPointError(
                f'step {step}: parameters are no longer finite (seeds {self.seeds[wrong].tolist()}, learning rate '
                f'{", ".join(f"{rates[n]:g}" for n in wrong)}); {ADVICE}'
            )

    def mark(self, rows: list[dict[str, Any]]) -> None:
        """Says in the rows of results.json, one per seed, where the loss grew; the other rows stay as they are."""
        for row, step in zip(rows, self.grew_at.tolist(), strict=True):
            if step:
                row['loss_grew_at_step'] = step

    def to_json(self) -> dict[str, Any]:
        first = [None if np.isnan(value) else value for value in self.first.tolist()]
        return {'first': first, 'grew_at': self.grew_at.tolist()}

    def restore(self, value: dict[str, Any] | None) -> None:
        """From a checkpoint; of one of version 0.2, which has none, growth counts from where the run goes on."""
        if value is not None:
            self.first = np.array([np.nan if number is None else number for number in value['first']])
            self.grew_at = np.array(value['grew_at'], np.int64)


def are_not_finite(params: Any, seeds: int) -> np.ndarray:
    """(N,) bool: which seeds have a parameter that is NaN or infinite, as far as it lies on devices of this process."""
    wrong = np.zeros(seeds, bool)
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        for shard in leaf.addressable_shards:
            values = np.asarray(shard.data)
            start = shard.index[0].start or 0
            wrong[start : start + len(values)] |= ~np.isfinite(values.reshape(len(values), -1)).all(1)
    return wrong
