"""The paired permutation test: the answers of two runs are swapped, unit by unit, and the difference measured again.

If two runs were equally good, either's answers to a speaker could as well be the other's. p is the share of such swaps
with a difference as large as the one found, in either direction (Fisher 1935, section 21; for metrics of a whole test
set Noreen 1989); a speaker's records are swapped together, as his clips are alike. numpy only.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mmer_jax.metrics import KINDS
from mmer_jax.metrics.confusion import summaries
from mmer_jax.results.units import Fold, Units, swaps

ENOUGH = 25  # larger differences, after which a slow metric's p is known well enough
NEAR = 1e-12

Values = Mapping[str, np.ndarray | float]


def pairs(first: Fold, second: Fold) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions (R, ...) of one seed of each run, paired: each seed equally often, where the runs have other numbers
    of seeds."""
    a, b = first['prediction'], second['prediction']
    for n in range(math.lcm(len(a), len(b))):
        yield a[n % len(a)], b[n % len(b)]


def p_of_counts(
    first: Sequence[Fold], second: Sequence[Fold], units: Units, *, classes: int, draws: int, keys: Sequence[bytes]
) -> dict[str, float]:
    """metric -> p of what a confusion matrix gives (metrics/confusion.py), all swaps at once."""
    swapped, whole = swaps(units, draws, keys)
    swapped = np.concatenate([np.zeros((1, units.count), bool), swapped])
    total: dict[str, np.ndarray] = {}
    for a, b, places in zip(first, second, units.of_folds, strict=True):
        taken, weight = swapped[:, places].astype(np.float32), 1 / (len(first) * math.lcm(*map(_seeds, (a, b))))
        for one, other in pairs(a, b):
            mine, others = (_one_hot(scores, a['label'], classes) for scores in (one, other))
            moved, shape = (taken @ (others - mine)).astype(np.float64), (len(taken), classes, classes)
            found = [summaries((base.sum(0) + step).reshape(shape)) for base, step in ((mine, moved), (others, -moved))]
            for metric in found[0]:
                total[metric] = total.get(metric, 0.0) + weight * (found[0][metric] - found[1][metric])
    return {metric: _p(values[0], values[1:], whole) for metric, values in total.items()}


def _one_hot(scores: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(R, C * C): the place of each record in the confusion matrix."""
    place = labels.astype(np.int64) * classes + scores.argmax(-1)
    return (place[:, None] == np.arange(classes**2)).astype(np.float32)


def _seeds(fold: Fold) -> int:
    return len(fold['prediction'])


def _p(observed: float, values: np.ndarray, whole: bool) -> float:
    rare = int((~(np.abs(values) < abs(observed) - NEAR)).sum())  # undefined counts as large
    # Of some swaps the one that was found is a further one, so that p is never 0 (Phipson and Smyth 2010).
    return rare / len(values) if whole else (1 + rare) / (1 + len(values))


def p_of_measures(
    first: Sequence[Fold], second: Sequence[Fold], units: Units, *, kind: str, class_names: Sequence[str],
    names: Sequence[str], draws: int, keys: Sequence[bytes],
) -> dict[str, float]:  # fmt: skip
    """metric -> p of any metric, one swap after another; ended early where every p is plainly large, which keeps it a
    p value (Besag and Clifford 1991)."""
    swapped, whole = swaps(units, draws, keys)
    measure = KINDS[kind].measure

    def difference(swap: np.ndarray) -> np.ndarray:
        by_fold = []
        for a, b, places in zip(first, second, units.of_folds, strict=True):
            found = []
            for one, other in pairs(a, b):
                taken = swap[places].reshape(-1, *(1,) * (one.ndim - 1))
                both = np.where(taken, other, one), np.where(taken, one, other)
                mine, others = (measure(scores, a['label'], class_names) for scores in both)
                found.append([mine.get(name, np.nan) - others.get(name, np.nan) for name in names])
            by_fold.append(np.mean(found, 0))
        return np.mean(by_fold, 0)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a correlation of equal numbers is undefined
        return _one_by_one(difference, swapped, names, whole=whole)


def _one_by_one(
    difference: Callable[[np.ndarray], np.ndarray], swapped: np.ndarray, names: Sequence[str], *, whole: bool
) -> dict[str, float]:
    observed = np.abs(difference(np.zeros(swapped.shape[1], bool)))
    known = np.isfinite(observed)
    rare, found = np.zeros(len(names), int), np.full(len(names), np.nan)
    done = 0
    for done, swap in enumerate(swapped, 1):
        rare += ~(np.abs(difference(swap)) < observed - NEAR)
        if not whole:
            enough = np.isnan(found) & (rare >= ENOUGH)
            found[enough] = rare[enough] / done
            if not np.isnan(found[known]).any():
                break
    rest = rare / done if whole else (1 + rare) / (1 + done)
    return {n: float(p) for n, p, ok in zip(names, np.where(np.isnan(found), rest, found), known, strict=True) if ok}
