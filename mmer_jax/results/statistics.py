"""How sure a number of a table is: bootstrap intervals over test records, paired tests between runs, Holm's correction.

The bootstrap draws the test records of every fold again, with replacement, DRAWS times, and measures each draw as the
table does: per seed the mean over the folds, then the mean over the seeds. Runs with the same test records are drawn
alike, so that a difference between two of them is one of pairs. numpy only, and the same numbers at each call.
"""

import dataclasses
import hashlib
import itertools
import warnings
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from mmer_jax.files import read_arrays
from mmer_jax.metrics import KINDS
from mmer_jax.metrics.confusion import SUMMARY, summaries
from mmer_jax.results.runs import ReportError, Run, known_of_speakers

DRAWS = 2000
SLOW_DRAWS = 500  # of kinds whose metrics are measured one draw after another
LEVEL = 0.95
MOST_PAIRED = 6  # runs up to which all pairs are tested; of more, each against the first
EXPLANATION = f"""\
Brackets: a {LEVEL:.0%} bootstrap interval over the test records. It says how far the number would move with other
clips of the same speakers, and nothing about new speakers or new seeds. The test between two runs is paired, by the
same draws of the records that both were tested on: p is how often a difference as large, in either direction, would be
drawn if there were none; Holm's correction is over the tests of one metric. A difference with a corrected p of 0.05
or more is not shown to be one."""


@dataclasses.dataclass(frozen=True)
class Predicted:
    """The test predictions of one run: of each fold ids (R,), labels (R, ...) and predictions (N, R, ...)."""

    run: Run
    folds: tuple[dict[str, np.ndarray], ...]

    @cached_property
    def records(self) -> tuple[bytes, ...]:
        """What the records of each fold are, in their order: equal for runs that can be paired."""
        return tuple(_digest(fold) for fold in self.folds)

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """metric -> (draws,), each headline metric of every draw."""
        names, seeds = self.run.results['headline'], len(self.folds[0]['prediction'])
        total: dict[str, np.ndarray] = {}
        for fold, key in zip(self.folds, self.records, strict=True):
            for seed in range(seeds):
                found = _measured(self.run, fold, seed, key, names)
                total = {m: total.get(m, 0.0) + values / (seeds * len(self.folds)) for m, values in found.items()}
        return total

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The ends of the interval; None for a metric that is not measured from predictions, such as a loss."""
        if metric not in self.draws or not np.isfinite(self.draws[metric]).all():
            return None
        low, high = np.quantile(self.draws[metric], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One paired test: how much higher `first` scores than `second`, its interval, p, and p after Holm's correction."""

    metric: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p: float
    corrected: float


def read_predicted(run: Run) -> Predicted | None:
    """The test predictions of a run, sorted by id; None where a fold has none, as of a run without some modality."""
    folds = []
    for folder in run.folds.values():
        path = folder / 'predictions' / 'test.npz'
        if not path.is_file():
            return None
        try:
            found = read_arrays(path, ('id', 'prediction', 'label'))
        except (ValueError, OSError) as error:
            raise ReportError(str(error)) from error
        order = np.argsort(found['id'].astype(str), kind='stable')
        folds.append({
            'id': found['id'][order].astype(str), 'label': found['label'][order],
            'prediction': found['prediction'][:, order],
        })  # fmt: skip
    # By their records, so that folds of another order or name are paired all the same.
    return Predicted(run, tuple(sorted(folds, key=_digest)))


def _digest(fold: dict[str, np.ndarray]) -> bytes:
    text = '\0'.join(fold['id'].tolist()).encode() + np.asarray(fold['label'], np.float64).tobytes()
    return hashlib.sha256(text).digest()


def _measured(
    run: Run, fold: dict[str, np.ndarray], seed: int, key: bytes, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """metric -> (draws,) of one fold and seed."""
    kind, labels, predictions = run.results['metrics'], fold['label'], fold['prediction'][seed]
    quick = kind == 'classification' and set(names) <= {*SUMMARY, 'loss'}
    generator = np.random.default_rng(np.frombuffer(key, np.uint32))
    records, draws = len(labels), DRAWS if quick else SLOW_DRAWS
    if quick:
        classes = len(run.results['class_names'])
        place = labels.astype(np.int64) * classes + predictions.argmax(-1)
        counts = np.stack([
            np.bincount(place[generator.integers(records, size=records)], minlength=classes**2) for _ in range(draws)
        ])  # fmt: skip
        found = summaries(counts.reshape(draws, classes, classes))
        return {name: found[name] for name in names if name in found}
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a draw of equal labels has no correlation, which is 0 then
        for _ in range(draws):
            chosen = generator.integers(records, size=records)
            measured = KINDS[kind].measure(predictions[chosen], labels[chosen], run.results['class_names'])
            rows.append([measured.get(name, np.nan) for name in names])
    return {name: column for name, column in zip(names, np.array(rows).T, strict=True) if np.isfinite(column).any()}


def compare(tested: Sequence[Predicted], names: Sequence[str], metric: str) -> list[Comparison]:
    """Paired tests of one metric between runs of the same test records; `names` are those of the runs.

    All pairs of up to MOST_PAIRED runs; of more, each against the first. Runs without a partner are left out.
    """
    able = [(one, name) for one, name in zip(tested, names, strict=True) if metric in one.draws]
    few = len(able) <= MOST_PAIRED
    pairs = itertools.combinations(able, 2) if few else ((able[0], other) for other in able[1:])
    found = []
    for (a, first), (b, second) in pairs:
        if a.records != b.records or a.run.results['metrics'] != b.run.results['metrics']:
            continue
        if known_of_speakers(a.run) != known_of_speakers(b.run):  # other protocols: not one table of theirs
            continue
        drawn = a.draws[metric] - b.draws[metric]
        difference = _mean(a.run, metric) - _mean(b.run, metric)
        # Drawn differences about their own mean are those that chance makes where there is none (Hall and Wilson 1991).
        rare = np.abs(drawn - drawn.mean()) >= abs(difference) - 1e-12
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        p = (1 + int(rare.sum())) / (1 + len(drawn))
        found.append(Comparison(metric, first, second, float(difference), (float(low), float(high)), p, p))
    corrected = holm([one.p for one in found])
    return [dataclasses.replace(one, corrected=value) for one, value in zip(found, corrected, strict=True)]


def _mean(run: Run, metric: str) -> float:
    """The number of the table: the mean over seeds of the mean over folds."""
    return float(np.nanmean(np.nanmean(run.values(metric), axis=0)))


def holm(p: Sequence[float]) -> list[float]:
    """p values after Holm's step-down correction (1979), in the given order: the k-th smallest of n times n - k + 1."""
    values, corrected, highest = np.asarray(p, float), np.empty(len(p)), 0.0
    for rank, place in enumerate(np.argsort(values, kind='stable')):
        highest = max(highest, min(1.0, float((len(values) - rank) * values[place])))
        corrected[place] = highest
    return corrected.tolist()
