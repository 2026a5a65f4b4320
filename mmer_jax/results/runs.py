"""Finished and unfinished runs as tables read them: results.json checked, folds found, published numbers matched."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import read_arrays, read_json
from mmer_jax.files.older_configs import with_defaults
from mmer_jax.marks import of_known_speakers
from mmer_jax.metrics import expected_calibration_error
from mmer_jax.results import kinds

KEYS = (
    'format', 'config', 'variant', 'dataset', 'modalities', 'protocol', 'parameters', 'metrics', 'selection',
    'headline', 'class_names', 'published', 'rows',
)  # fmt: skip
ROW_KEYS = ('fold', 'seed', 'marks', 'best_epoch', 'epochs', 'test', 'floor')
EXPLANATION = """\
Metrics are read on the test split once, at the epoch that validation chose. Mean ± standard deviation: with several
seeds each seed's number is its mean over the folds, then mean and standard deviation (n - 1) are over the seeds;
with one seed and several folds they are over the folds (marked "over folds"); with one of each there is no deviation.
The floor is what the best constant answer scores on the test labels, averaged over the folds. Published numbers are
quoted from the paper named, not measured here, and only beside the data set that they are of."""
SEARCH = 'search.json'  # in the folder of a search (trials.py)
NOT_HONEST = '⚠ not an honest estimate of performance on new speakers or clips: '
OF_KNOWN = '⚠ performance on speakers of whom clips are known, not to be compared with rows that know none: '


class ReportError(ValueError):
    """There is nothing to report, or a run's files are damaged."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir: its results.json, and its fold folders (itself, where there are no folds)."""

    folder: Path
    results: dict[str, Any]
    folds: dict[str, Path]
    unfinished: str = ''
    show_folder: bool = False

    @property
    def name(self) -> str:
        """config:variant, with the workdir's name where several runs share it."""
        variant = self.results['variant']
        name = self.results['config'] + (f':{variant}' if variant else '')
        return f'{name} ({self.folder.name})' if self.show_folder else name

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every value of config.json by its dotted key; empty where there is no such file."""
        for folder in (self.folder, *self.folds.values()):
            if (folder / 'config.json').is_file():
                return dict(flat(with_defaults(read_json(folder / 'config.json'))))
        return {}

    @cached_property
    def stem(self) -> str:
        """The name, as the beginning of a file's."""
        return re.sub(r'[^\w.-]+', '_', self.name).strip('_')

    def values(self, metric: str, part: str = 'test') -> np.ndarray:
        """(folds, seeds) of one metric, 'train/loss' for that of another split; NaN where a row lacks it."""
        rows = self.results['rows']
        folds, seeds = unique(r['fold'] for r in rows), unique(r['seed'] for r in rows)
        split, _, name = metric.rpartition('/')
        name, part = (name, split) if split and part == 'test' else (metric, part)  # the floor is of the test split
        found = {(r['fold'], r['seed']): r.get(part, {}).get(name) for r in rows}
        table = [[found.get((fold, seed)) for seed in seeds] for fold in folds]
        values = np.array([[np.nan if x is None else x for x in line] for line in table], float)
        missing = name == 'ece' and part == 'test' and np.isnan(values).all()
        return self._calibration(folds, values) if missing else values

    def _calibration(self, folds: Sequence[str], unknown: np.ndarray) -> np.ndarray:
        """(folds, seeds) ECE of a run that has not recorded it, from its predictions; `unknown` where it keeps none."""
        paths = [self.folds[name] / 'predictions' / 'test.npz' for name in folds if name in self.folds]
        of_classes = self.results['metrics'] == 'classification'
        if not of_classes or len(paths) < len(folds) or not all(path.is_file() for path in paths):
            return unknown
        read = [read_arrays(path, ('prediction', 'label')) for path in paths]
        found = [[expected_calibration_error(one, fold['label']) for one in fold['prediction']] for fold in read]
        return np.array(found) if np.shape(found) == unknown.shape else unknown


def flat(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """('optimizer.learning_rate', 0.001), ... of nested dictionaries; nothing of an empty one."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def is_of(dataset: str, name: str) -> bool:
    """Whether a directory's data set ('mosi_mult') is the one called `name` ('mosi'): equal, or more after a '_'."""
    return bool(name) and (dataset == name or dataset.startswith(f'{name}_'))


def published_of(results: dict[str, Any]) -> dict[str, float]:
    """The published numbers by metric that may stand beside a run: those of its own data set, else none."""
    published = dict(results['published'] or {})
    dataset = published.pop('dataset', '')
    published.pop('source', None)
    return published if is_of(results['dataset'], dataset) else {}


def find_runs(paths: Sequence[str | Path], *, needed: bool = True) -> tuple[list[Run], list[str]]:
    """The runs at or below the paths, in order, and a note on each that cannot be shown.

    A run's own folds are not runs, nor are the trials of a search. ReportError where nothing is left to show, and that
    is `needed`.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ReportError(f'{path} is no folder; give the workdir of a run')
        found = _topmost(path)
        if not found and needed:
            raise ReportError(f'{path}: no results.json in or below it; train first, python -m mmer_jax.main')
        folders |= {folder.resolve(): folder for folder in found}
    folders = {real: folder for real, folder in folders.items() if not set(real.parents) & set(folders)}
    runs, faults = [], []
    for folder in folders.values():
        try:
            runs.append(read_run(folder))
        except ValueError as error:
            faults.append(str(error))
    if not runs and needed:
        raise ReportError('; '.join(faults))
    names = [run.name for run in runs]
    return [dataclasses.replace(run, show_folder=names.count(run.name) > 1) for run in runs], faults


def _topmost(path: Path) -> list[Path]:
    if (path / 'results.json').is_file() or (path / 'config.json').is_file():
        return [path]
    trials = {'trials'} if (path / SEARCH).is_file() else set()
    below = [child for child in sorted(path.iterdir(), key=natural) if child.name not in trials]
    children = [child for child in below if child.is_dir() and not child.is_symlink()]
    return [found for child in children for found in _topmost(child)]


def natural(path: Path) -> list[Any]:
    """By it folders are sorted as people count: run_2 before run_10."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split('([0-9]+)', path.name))]


def read_run(folder: Path) -> Run:
    """The run in a workdir, its results checked; ReportError where there are none or they are damaged."""
    folds = {
        child.name: child for child in sorted(folder.glob('fold_*'), key=natural) if (child / 'results.json').is_file()
    }
    if (folder / 'results.json').is_file():
        results, unfinished = _read_whole(folder / 'results.json'), ''
    elif folds:
        parts = [_read_whole(fold / 'results.json') for fold in folds.values()]
        results = {**parts[0], 'rows': [row for part in parts for row in part['rows']]}
        unfinished = f'unfinished: folds {", ".join(folds)} only'
    else:
        raise ReportError(f'{folder} is unfinished: it has a config.json but no results.json; run it again to go on')
    path = folder / 'results.json'
    missing = [key for key in KEYS if key not in results] or [
        f'rows.{key}' for key in ROW_KEYS if not results['rows'] or any(key not in row for row in results['rows'])
    ]
    if missing:
        raise ReportError(f'{path} lacks {", ".join(missing)}; it was not written by mmer_jax.train')
    if results['format'] != 1:
        raise ReportError(
            f'{path} has format {results["format"]}, expected 1; report it with the version that wrote it'
        )
    pairs = [(row['fold'], row['seed']) for row in results['rows']]
    if len(set(pairs)) != len({f for f, _ in pairs}) * len({s for _, s in pairs}) or len(set(pairs)) != len(pairs):
        raise ReportError(f'{path}: its {len(pairs)} rows are not every fold with every seed once: {pairs}')
    return Run(folder, results, folds or {results['rows'][0]['fold']: folder}, unfinished)


def _read_whole(path: Path) -> dict[str, Any]:
    results = read_json(path)
    if fault := kinds.fault(results):
        raise ReportError(f'{path} is damaged ({fault}): remove it and run the command again, which writes it anew')
    return {'rows': [], **results}


def unique(values: Iterable[Any]) -> list[Any]:
    """The different values, in order of their first appearance."""
    return list(dict.fromkeys(values))


def marks_of(run: Run) -> list[str]:
    """What makes any of the run's folds dishonest, each once."""
    return unique(mark for row in run.results['rows'] for mark in row['marks'])


def caution(marks: Sequence[str]) -> str:
    """What marks mean, in words: what is not honest, and what is known of the tested speakers."""
    known = of_known_speakers(marks)
    others = [mark for mark in marks if mark not in known]
    parts = [NOT_HONEST + '; '.join(others)] if others else []
    return '. '.join([*parts, *([OF_KNOWN + '; '.join(known)] if known else [])])


def known_of_speakers(run: Run) -> list[str]:
    """What a run's protocol knows of the tested speakers; runs that differ in it are neither averaged nor compared."""
    return of_known_speakers(marks_of(run))
