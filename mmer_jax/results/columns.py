"""Columns on request beside the headline metrics: calibration, recall of each class, training time, operations.

`seconds` is read from timing.jsonl, `flops` from results.json, any metric from the rows; ECE of a run that has not
recorded it is measured from its stored predictions. Nothing is run or compiled for a column.
"""

import dataclasses
from collections.abc import Callable, Sequence

from mmer_jax.files import read_jsonl
from mmer_jax.metrics import KINDS
from mmer_jax.metrics.kinds import EACH
from mmer_jax.results.ensemble import Ensemble
from mmer_jax.results.runs import ReportError, Run, unique

FLOPS = 'flops_per_example'  # in results.json (run/cost.py)


def seconds_of(run: Run) -> float | None:
    """Seconds of all epochs of all folds and seeds, validation included and compilation of the first step too; those of
    an ensemble are its members'. None where a fold has no timing.jsonl."""
    if isinstance(run, Ensemble):
        return _sum([seconds_of(member) for member in run.members])
    paths = [folder / 'timing.jsonl' for folder in run.folds.values()]
    if not all(path.is_file() for path in paths):
        return None
    rows = [row for path in paths for row in read_jsonl(path)]
    found = [row['seconds'] for row in rows if 'epoch' in row and isinstance(row.get('seconds'), int | float)]
    return float(sum(found)) if found else None


def flops_of(run: Run) -> float | None:
    """Floating-point operations of one answer: of an ensemble those of all its models together."""
    if isinstance(run, Ensemble):
        found = [flops_of(member) for member in run.members]
        return _sum(
            [None if x is None else x * m.values('loss').shape[1] for x, m in zip(found, run.members, strict=True)]
        )
    value = run.results.get(FLOPS)
    return float(value) if isinstance(value, int | float) else None


def _sum(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(sum(value for value in values if value is not None))


@dataclasses.dataclass(frozen=True)
class Cost:
    """A column that is no metric: its title, its value of a run, and how that is written."""

    title: str
    value: Callable[[Run], float | None]
    write: Callable[[float], str]

    def cell(self, run: Run) -> str:
        value = self.value(run)
        return '–' if value is None else self.write(value)


COSTS = {
    'seconds': Cost('training, s ↓', seconds_of, lambda x: f'{x:,.0f}'),
    'flops': Cost('MFLOPs per example ↓', flops_of, lambda x: f'{x / 1e6:,.3f}'),
}
NOTES = {
    'ece': 'ECE: expected calibration error with 15 equally wide bins (Guo et al. 2017); 0 is best, and the floor says '
    'nothing of it.',
    'seconds': 'Training: seconds of all epochs of all folds and seeds with their validation, on the device of each '
    'run; – where timing.jsonl is not there.',
    'flops': 'FLOPs per example: operations of one answer as XLA counts them in the compiled evaluation (two for a '
    'multiplication with its addition), the mean over the test split as it was padded; – where they are not known: '
    'runs before 0.3, and programs with loops, of which XLA counts one turn.',
}


@dataclasses.dataclass(frozen=True)
class Columns:
    """What --columns asks for."""

    metrics: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()

    def titles(self) -> list[str]:
        """Of the costs."""
        return [COSTS[name].title for name in self.costs]

    def cells(self, run: Run) -> list[str]:
        return [COSTS[name].cell(run) for name in self.costs]

    def values(self, run: Run) -> dict[str, float | None]:
        """For files of rows."""
        return {name: COSTS[name].value(run) for name in self.costs}

    def notes(self) -> list[str]:
        return [NOTES[name] for name in (*self.metrics, *self.costs) if name in NOTES]


def read_columns(runs: Sequence[Run], text: str) -> Columns:
    """The columns of 'ece,recall,seconds' that some of the runs have (`columns_of`)."""
    known = unique(name for run in runs for row in run.results['rows'] for name in row['test'])
    known += [f'train/{name}' for run in runs for row in run.results['rows'] for name in row.get('train', {})]
    known += ['ece'] if any(run.results['metrics'] == 'classification' for run in runs) else []
    return columns_of(text, unique(known), unique(c for run in runs for c in run.results['class_names']))


def columns_of(text: str, known: Sequence[str], classes: Sequence[str]) -> Columns:
    """The columns of 'ece,recall,seconds': metrics by name, 'recall', 'precision' or 'f1' of every class, and costs.

    ReportError for what is not `known`; it lists what there is.
    """
    metrics, costs = [], []
    for name in filter(None, map(str.strip, text.split(','))):
        each = [one for c in classes if (one := f'{name}_{c}') in known]
        if name in COSTS:
            costs.append(name)
        elif name in known:
            metrics.append(name)
        elif name in EACH and each:
            metrics += each
        else:
            whole = {key for kind in KINDS.values() for key in kind.whole}
            of_classes = [key for key in EACH if any(f'{key}_{c}' in known for c in classes)]
            there = ', '.join(unique([*COSTS, *of_classes, *(one for one in known if '_' not in one or one in whole)]))
            raise ReportError(f'--columns {name}: no run has it; choose from {there}')
    return Columns(tuple(unique(metrics)), tuple(unique(costs)))
