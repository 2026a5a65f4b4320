"""How sure a number of a table is: bootstrap intervals over speakers, paired tests between runs, Holm's correction.

The bootstrap draws the test speakers again, with replacement, DRAWS times (the records, where speakers are not known),
and measures each draw as the table does: per seed the mean over the folds, then the mean over the seeds. Runs with the
same test records are drawn alike, so that a difference between two of them is one of pairs. The test swaps the answers
of two runs speaker by speaker (swaps.py). The same numbers at each call.
"""

import dataclasses
import functools
import hashlib
import itertools
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from mmer_jax.files import read_arrays
from mmer_jax.metrics import KINDS
from mmer_jax.metrics.confusion import SUMMARY, summaries
from mmer_jax.results import power, swaps, units
from mmer_jax.results.power import Power
from mmer_jax.results.runs import ReportError, Run, known_of_speakers
from mmer_jax.results.units import Units, units_of

DRAWS = 2000
SLOW_DRAWS = 500  # of kinds whose metrics are measured one draw after another
LEVEL = 0.95
MOST_PAIRED = 6  # runs up to which all pairs are tested; of more, each against the first
EXPLANATION = f"""\
Brackets: a {LEVEL:.0%} bootstrap interval over the test speakers, or over the test records where speakers are not
known, as the heading says. By speaker it says how far the number would move with other speakers like these; by record,
with other clips of the same speakers, and nothing about new ones. Neither says anything about new seeds. From fewer
than about 20 speakers an interval is too narrow (Cameron, Gelbach and Miller 2008). The test between two runs is
paired: the answers of both are swapped, all of a speaker (or record) together, and p is how often a difference as
large, in either direction, comes of that; Holm's correction is over the tests of one metric. A difference with a
corrected p of 0.05 or more is not shown to be one. "Found at 80 %" is the smallest true difference that the test, at
5 % and without correction, finds in four of five such test sets."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """The test predictions of one run: of each fold ids (R,), labels (R, ...), predictions (N, R, ...), and speakers
    (R,) where they are known."""

    run: Run
    folds: tuple[dict[str, np.ndarray], ...]

    @cached_property
    def records(self) -> tuple[bytes, ...]:
        """What the records of each fold are, in their order: equal for runs that can be paired."""
        return tuple(digest(fold) for fold in self.folds)

    @property
    def size(self) -> int:
        """Test records of all folds."""
        return sum(len(fold['id']) for fold in self.folds)

    @cached_property
    def units(self) -> Units:
        """What is drawn and swapped as a whole."""
        return units_of(self.folds)

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """metric -> (draws,), each headline metric of every draw."""
        names, seeds = self.run.results['headline'], len(self.folds[0]['prediction'])
        total: dict[str, np.ndarray] = {}
        draws = DRAWS if self.is_counted else SLOW_DRAWS
        drawn = units.drawn(self.units, draws, self.records)
        for fold, (times, weight) in zip(self.folds, drawn, strict=True):
            for seed in range(seeds):
                for metric, values in _measured(self, fold, seed, times, names).items():
                    parts = np.where(weight > 0, weight * values, 0.0) / seeds
                    total[metric] = total.get(metric, 0.0) + parts
        weights = np.sum([weight for _, weight in drawn], 0)
        return {metric: values / weights for metric, values in total.items()}

    @property
    def is_counted(self) -> bool:
        """Whether all headline metrics come from confusion matrices, which are quick to draw."""
        own = set(self.run.results['headline'])
        return self.run.results['metrics'] == 'classification' and own <= {*SUMMARY, 'loss'}

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
    power: Power


def read_predicted(run: Run) -> Predicted | None:
    """The test predictions of a run, sorted by id; None where a fold has none, as of a run without some modality."""
    paths = [folder / 'predictions' / 'test.npz' for folder in run.folds.values()]
    if not all(path.is_file() for path in paths):
        return None
    # By their records, so that folds of another order or name are paired all the same.
    return Predicted(run, tuple(sorted((read_fold(path, run) for path in paths), key=digest)))


def read_fold(path: Path, run: Run) -> dict[str, np.ndarray]:
    """id (R,), label, prediction (N, R, ...) of a file of predictions, sorted by id; and speaker (R,), if known."""
    try:
        found = read_arrays(path, ('id', 'prediction', 'label'))
        ids = found['id'].astype(str)
        speakers = units.speakers_of(path, run, ids)
    except (ValueError, OSError) as error:
        raise ReportError(str(error)) from error
    order = np.argsort(ids, kind='stable')
    fold = {'id': ids[order], 'label': found['label'][order], 'prediction': found['prediction'][:, order]}
    return fold if speakers is None else {**fold, 'speaker': speakers[order]}


def read_all(runs: Sequence[Run]) -> dict[str, Predicted]:
    """By a run's name its test predictions, of those that keep some. Where one run knows the speakers of its test
    records, all runs on these records do."""
    read = {run.name: found for run in runs if (found := read_predicted(run)) is not None}
    known = {one.records: one for one in read.values() if one.units.what == 'speaker'}
    for name, one in read.items():
        if one.units.what == 'record' and one.records in known:
            speakers = [fold['speaker'] for fold in known[one.records].folds]
            folds = tuple({**fold, 'speaker': who} for fold, who in zip(one.folds, speakers, strict=True))
            read[name] = Predicted(one.run, folds)
    return read


def digest(fold: units.Fold) -> bytes:
    """Of the ids and labels of a fold, sorted by id."""
    text = '\0'.join(fold['id'].tolist()).encode() + np.asarray(fold['label'], np.float64).tobytes()
    return hashlib.sha256(text).digest()


def _measured(
    one: Predicted, fold: units.Fold, seed: int, times: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """metric -> (draws,) of one fold and seed; times (draws, R): how often each draw holds each record."""
    results, labels, predictions = one.run.results, fold['label'], fold['prediction'][seed]
    if one.is_counted:
        classes = len(results['class_names'])
        place = labels.astype(np.int64) * classes + predictions.argmax(-1)
        counts = times.astype(np.float32) @ (place[:, None] == np.arange(classes**2)).astype(np.float32)
        found = summaries(counts.astype(np.float64).reshape(-1, classes, classes))
        return {name: found[name] for name in names if name in found}
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a draw of equal labels has no correlation, which is 0 then
        for drawn in times:
            chosen = np.repeat(np.arange(len(labels)), drawn)
            measured = {}
            if len(chosen):  # of a fold none of whose speakers was drawn there is nothing to measure
                measured = KINDS[results['metrics']].measure(
                    predictions[chosen], labels[chosen], results['class_names']
                )
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
        same = a.records == b.records and a.units.what == b.units.what
        if not same or a.run.results['metrics'] != b.run.results['metrics']:
            continue
        if known_of_speakers(a.run) != known_of_speakers(b.run):  # other protocols: not one table of theirs
            continue
        draws = min(len(a.draws[metric]), len(b.draws[metric]))  # of both the first ones are the same
        drawn = a.draws[metric][:draws] - b.draws[metric][:draws]
        difference = _mean(a.run, metric) - _mean(b.run, metric)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        p = _p_values(a, b).get(metric)
        if p is None:
            continue
        able_to = Power(metric, (first, second), a.size, a.units, power.detectable(drawn, a.units))
        found.append(Comparison(metric, first, second, float(difference), (float(low), float(high)), p, p, able_to))
    corrected = holm([one.p for one in found])
    return [dataclasses.replace(one, corrected=value) for one, value in zip(found, corrected, strict=True)]


@functools.lru_cache(maxsize=64)
def _p_values(a: Predicted, b: Predicted) -> dict[str, float]:
    """metric -> p of the paired test, of every headline metric of both."""
    keys, results = a.records, a.run.results
    names = [metric for metric in a.draws if metric in b.draws]
    if a.is_counted and b.is_counted:
        classes = len(results['class_names'])
        return swaps.p_of_counts(a.folds, b.folds, a.units, classes=classes, draws=DRAWS, keys=keys)
    return swaps.p_of_measures(
        a.folds, b.folds, a.units, kind=results['metrics'], class_names=results['class_names'], names=names,
        draws=SLOW_DRAWS, keys=keys,
    )  # fmt: skip


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
