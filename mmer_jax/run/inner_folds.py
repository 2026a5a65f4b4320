"""How many epochs a fold trains, by inner folds (config.selection.folds): their curves, the mean, the best epoch.

Each inner fold is trained for config.epochs in <fold>/inner_<j>, exactly resumable as any fold, and leaves curve.json.
The final training of a fold has the same schedule, stretched over config.epochs of all its records, and stops at the
chosen epoch: at each epoch the learning rate is what it was when the epoch was judged.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.folds import Fold
from mmer_jax.data.inner_folds import inner_folds
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_json, write_json
from mmer_jax.metrics import is_better_high
from mmer_jax.run import cache
from mmer_jax.run.loop import AfterEpoch, Measured, finished_loop
from mmer_jax.run.program import FoldData, Program, load_fold, make_program
from mmer_jax.run.selection import Chosen, Curves, Selection

Curve = list[list[dict[str, Any]]]  # by epoch and seed {'value', 'measured'}
FILE = 'curve.json'


class Programs:
    """The compiled functions of a run by number of steps: folds of one size share theirs."""

    def __init__(self, config: ConfigDict, module: nn.Module):
        self.config, self.module = config, module
        self.made: dict[int, Program] = {}

    def of(self, fold_data: FoldData) -> Program:
        steps = len(fold_data.loaders['train'].plan)
        if steps not in self.made:
            if self.made and not self.config.selection.folds:  # folds follow each other: those of the last one may go
                self.made.clear()
                cache.let_go()
            self.made[steps] = make_program(self.config, self.module, fold_data)
        return self.made[steps]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What inner folds chose: the epoch of each seed (N,), the mean curve, and the metric that it is of."""

    epochs: list[int]
    mean: Curve
    metric: str

    def measured(self, epoch: int) -> Measured:
        """The mean over the inner folds at an epoch, by number of seed; NaN where an inner fold had no value."""
        return {
            n: {
                **{key: np.nan if value is None else value for key, value in one['measured'].items()},
                self.metric: one['value'],
            }
            for n, one in enumerate(self.mean[epoch - 1])
        }

    def selection(self) -> Chosen:
        return Chosen(self.epochs, is_better_high(self.metric))

    def reached(self, epochs: int) -> Selection:
        """As if each seed had been selected by the mean curve, trained for `epochs`."""
        found, values = self.selection(), [self.mean[epoch - 1][n]['value'] for n, epoch in enumerate(self.epochs)]
        found.best = np.asarray(values) if found.higher_is_better else -np.asarray(values)
        found.best_epoch, found.epochs = found.chosen, np.full(len(self.epochs), epochs)
        return found


def choose(curves: Sequence[Curve], records: Sequence[int], metric: str) -> Choice:
    """The first best epoch of the mean curve of each seed; inner folds weigh as many records as they validate on."""
    weights = np.asarray(records, np.float64) / np.sum(records)

    def mean(values: Sequence[float | None]) -> float | None:
        found = np.array([np.nan if value is None else value for value in values], np.float64)
        return float(weights @ found) if np.isfinite(found).all() else None

    together: Curve = []
    for epoch in zip(*curves, strict=True):
        seeds = []
        for parts in zip(*epoch, strict=True):
            measured = {key: mean([part['measured'].get(key) for part in parts]) for key in parts[0]['measured']}
            seeds.append({'value': mean([part['value'] for part in parts]), 'measured': measured})
        together.append(seeds)
    sign = 1 if is_better_high(metric) else -1
    # An epoch at which an inner fold had no value is not chosen.
    values_EN = np.array(
        [[-np.inf if (x := one['value']) is None else sign * x for one in seeds] for seeds in together]
    )
    best = values_EN.argmax(0)
    return Choice((best + 1).tolist(), together, metric)


def inner_of(config: ConfigDict, source: RecordSource, fold: Fold) -> list[Fold]:
    """The inner folds of a fold of the config's protocol, none where it has none; ValueError as data.inner_folds."""
    count, protocol = config.selection.folds, config.protocol
    if not count:
        return []
    options = protocol.options.to_dict()
    return inner_folds(fold, source.manifest, count, protocol=protocol.name, options=options, seed=config.data_seed)


def choose_epochs(
    config: ConfigDict,
    folder: Path,
    source: RecordSource,
    fold: Fold,
    programs: Programs,
    *,
    tell: bool = False,
    after_epoch: Callable[[int], AfterEpoch] | None = None,
) -> Choice:
    """Trains the inner folds of a fold below its folder, from where they stand; ValueError as data.inner_folds.

    after_epoch: number of an inner fold -> what is called after each of its epochs.
    """
    inner, curves = inner_of(config, source, fold), []
    for number, one in enumerate(inner):
        after = after_epoch(number) if after_epoch else None  # also of one that is done: it is counted
        path = folder / one.name / FILE
        if path.is_file():
            curves.append(_read(path, config))
            continue
        data = load_fold(config, source, one)
        own = Curves(config.seeds, is_better_high(config.selection.metric))
        how: dict[str, Any] = {'tell': tell and not number, 'after_epoch': after, 'selection': own}
        with finished_loop(config, path.parent, data, programs.of(data), **how):
            pass  # its curve is what is wanted
        if jax.process_index() == 0:
            write_json(path, {'format': 1, 'metric': config.selection.metric, 'curve': own.curve})
        curves.append(own.curve)
    choice = choose(curves, [len(one.validation) for one in inner], config.selection.metric)
    if jax.process_index() == 0:
        values = [[one['value'] for one in seeds] for seeds in choice.mean]
        what = {'metric': choice.metric, 'seeds': (config.seed + np.arange(config.seeds)).tolist(), 'mean': values}
        sets = [{'name': one.name, 'train': len(one.train), 'validation': len(one.validation)} for one in inner]
        write_json(folder / 'inner_folds.json', {'format': 1, **what, 'epochs': choice.epochs, 'folds': sets})
    return choice


def _read(path: Path, config: ConfigDict) -> Curve:
    found: Any = None
    try:
        found = read_json(path)
        curve = found['curve']
        if len(curve) == config.epochs and all(len(seeds) == config.seeds for seeds in curve):
            return curve
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path} is damaged ({error}): remove it and start the run again with its command') from error
    raise ValueError(
        f'{path} holds {len(curve)} epochs, expected {config.epochs} of {config.seeds} seeds: remove it and start the '
        'run again with its command'
    )


def forget_states(folder: Path) -> None:
    """Removes the checkpoints of the inner folds of a fold that is trained: their curves are what is read again."""
    for checkpoints in sorted(folder.glob('inner_*/checkpoints')):
        shutil.rmtree(checkpoints)


def marks_of_row(config: ConfigDict, choice: Choice | None, n: int) -> Mapping[str, Any]:
    """What a row of results says of how its epoch was chosen."""
    if choice is None:
        return {'selected_by': 'validation'}
    measured = {key: None if np.isnan(value) else value for key, value in choice.measured(choice.epochs[n])[n].items()}
    return {'selected_by': f'{config.selection.folds} inner folds', 'validation': measured}
