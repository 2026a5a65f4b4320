"""Training: train_and_evaluate(config, workdir) runs every fold of a config's protocol and returns its results.

A fold's workdir is exact: killed at any moment and started again, it ends with the metrics.jsonl, predictions and
checkpoint of an undisturbed run, because batch i is a function of i, a step's random key is a function of the
step, and the loop's own counters lie in the checkpoint.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax import __version__, evaluate
from mmer_jax.data import other_data
from mmer_jax.data.batches import check_main_guard, labels_of, read_batches
from mmer_jax.data.folds import SPLITS, Fold
from mmer_jax.data.records import RecordSource
from mmer_jax.files import write_json
from mmer_jax.metrics import floors, is_better_high, names, unfit
from mmer_jax.models import check_module
from mmer_jax.run import cost, provenance, sharding, trackers, warm_start, writer
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.divergence import Divergence
from mmer_jax.run.first_step import LATEST as FIRST
from mmer_jax.run.first_step import Stopwatch
from mmer_jax.run.program import (
    FoldData,
    Program,
    example_batch,
    fetch,
    folds_of,
    load_fold,
    make_model,
    make_program,
    open_source,
    save_statistics,
)
from mmer_jax.run.selection import Selection
from mmer_jax.run.step import TrainState, variables_of
from mmer_jax.run.workdir import alone, check_config, read_results
from mmer_jax.settings.follow_data import follow_data
from mmer_jax.settings.keys import check_config_values

AfterEpoch = Callable[[int, Selection], None]  # what it raises ends the training


def train_and_evaluate(
    config: ConfigDict, workdir: str | Path, model: nn.Module | None = None, folds: Sequence[int] | None = None
) -> dict[str, Any]:
    """Trains and evaluates every fold (or those numbered in `folds`) and returns what results.json holds.

    Cross-validation writes workdir/fold_<k>/, a single split writes into workdir itself. Finished folds are taken
    from their results.json. model: your own module with the batch -> outputs contract instead of config.model; its
    class, its fields and what it computes belong to what a workdir was begun with (own_module.py). InUse where another
    process writes one of the folds.
    """
    check_config_values(config, own_model=model is not None)
    if config.data.workers:
        check_main_guard()
    workdir, config = Path(workdir), completed(config)
    source, all_folds, chosen = folds_to_run(config, folds)
    module, example = make_model(config, source) if model is None else check_module(model), None
    if model is not None:
        example = example_batch(load_fold(config, source, all_folds[chosen[0]], statistics={}).loaders['train'])
    folders = {k: workdir / all_folds[k].name if len(all_folds) > 1 else workdir for k in chosen}
    unfinished = [all_folds[k].name for k in chosen if not (folders[k] / 'results.json').is_file()]
    rows, described, program = [], None, None
    with alone(workdir, unfinished):
        check_config(config, workdir, model, example)
        origin = provenance.Provenance(source) if unfinished and jax.process_index() == 0 else None
        origins = []
        for number in chosen:
            if (folders[number] / 'results.json').is_file():
                described = read_results(folders[number] / 'results.json')
            else:
                with Stopwatch() as watch:
                    fold_data = load_fold(config, source, all_folds[number])
                if not FIRST.done:
                    FIRST.data = watch.seconds
                tell = program is None
                if program is None or program.total_steps != len(fold_data.loaders['train'].plan):
                    program = make_program(config, module, fold_data)
                name = config.model.name if model is None else type(model).__name__
                described = train_fold(config, folders[number], fold_data, program, name, tell=tell, origin=origin)
            rows += described['rows']
            origins.append(described.get(provenance.KEY))
        assert described is not None
        described, whole = {**described, 'rows': rows}, len(rows) == len(all_folds) * config.seeds
        if len(all_folds) > 1 and provenance.KEY in described:
            described[provenance.KEY] = provenance.combined(origins)
        if unfinished and whole and len(all_folds) > 1 and jax.process_index() == 0:
            write_json(workdir / 'results.json', described, sealed=True)
    return described


def completed(config: ConfigDict) -> ConfigDict:
    """The config with all filled in that its data and its converted weights decide."""
    return warm_start.with_sizes(follow_data(config, open_source))


def folds_to_run(config: ConfigDict, folds: Sequence[int] | None) -> tuple[RecordSource, list[Fold], Sequence[int]]:
    """A config's data, all folds of its protocol, and the numbers of those that are asked for; ValueError."""
    source = open_source(config)
    all_folds = folds_of(config, source)
    chosen = range(len(all_folds)) if folds is None else list(folds)
    unknown = [k for k in chosen if type(k) is not int or not 0 <= k < len(all_folds)]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        known = f'protocol {config.protocol.name!r} has folds 0..{len(all_folds) - 1}'
        raise ValueError(f'folds {unknown or chosen}: {known}; name one or more, each once')
    check_metrics(config, source)
    return source, all_folds, chosen


def check_metrics(config: ConfigDict, source: RecordSource) -> None:
    """ValueError where the config selects by, or shows, a metric that this kind of label does not have."""
    kind, labels = evaluate.kind_of(source), labels_of(source, source.manifest['record'])
    known = ['loss', *names(kind, source.schema.label.names)]
    for key, wanted in (('selection.metric', [config.selection.metric]), ('headline', config.headline)):
        unknown = [name for name in wanted if name not in known]
        if unknown:
            why = unfit(kind, labels)
            raise ValueError(
                f'config.{key} {", ".join(unknown)!r} is not measured; choose from {", ".join(known)}{why}'
            )


def train_fold(
    config: ConfigDict,
    workdir: Path,
    fold_data: FoldData,
    program: Program,
    name: str,
    *,
    tell: bool = False,
    origin: provenance.Provenance | None = None,
) -> dict[str, Any]:
    """Trains one fold, resuming where workdir stands; writes its predictions and results.json, and returns these.

    name: of the model, for results.json, as is `origin`. tell: print what the variables begin with.
    """
    first = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)
    if first:
        save_statistics(workdir / 'statistics.npz', fold_data.statistics)
    seeds = config.seed + np.arange(config.seeds)
    with (
        Checkpoints(workdir / 'checkpoints') as checkpoints,
        writer.Writer(workdir, active=first, tensorboard=config.tensorboard) as log,
        writer.Progress(program.total_steps, active=first) as progress,
        trackers.Tracker(config, workdir, active=first) as tracker,
    ):
        program.background.listener = progress.wait
        try:
            loop = Loop(config, fold_data, program, checkpoints, log, progress, tracker, tell=tell)
            resumed_at = loop.step
            loop.run()
        finally:
            program.background.forget()
        predictions, results = measure(config, fold_data, program, name, loop.best, loop.selection, seeds)
        loop.divergence.mark(results['rows'])
        if first:
            for split, values in predictions.items():
                evaluate.save_predictions(workdir / 'predictions' / f'{split}.npz', values, seeds)
            if origin is not None:
                results[provenance.KEY] = origin.of_fold(resumed_at)
            write_json(workdir / 'results.json', results, sealed=True)
        tracker.end(results)
        return results


class Loop:
    """The training loop of one fold and its host-side counters; everything here is in the checkpoint."""

    def __init__(
        self,
        config: ConfigDict,
        fold_data: FoldData,
        program: Program,
        checkpoints: Checkpoints,
        log: Any,
        progress: Any,
        tracker: trackers.Tracker,
        *,
        tell: bool = False,
        after_epoch: AfterEpoch | None = None,
    ):
        self.config, self.fold_data, self.program = config, fold_data, program
        self.checkpoints, self.log, self.progress, self.tracker = checkpoints, log, progress, tracker
        self.after_epoch = after_epoch
        self.seeds = config.seed + np.arange(config.seeds)
        self.plan = fold_data.loaders['train'].plan
        self.selection = Selection(
            config.seeds,
            is_better_high(config.selection.metric),
            config.selection.patience,
            config.selection.plateau_patience,
            config.selection.plateau_factor,
        )
        self.state: TrainState = program.shapes(config.seeds)
        self.loss_sum, self.step, self.divergence = np.zeros(config.seeds), 0, Divergence(self.seeds)
        expected = self._restore()
        if self.step < program.total_steps:
            program.prepare(fold_data, self.step)
        if self.step == 0:
            with Stopwatch() as watch:
                self.state = program.init(self.seeds.astype(np.int32))
            if not FIRST.done:
                FIRST.initialisation = watch.seconds
            self.state = warm_start.begin(config, fold_data, self.state, program.mesh, tell=tell)
            self.best = jax.tree.map(lambda x: x.copy(), variables_of(self.state))
        self.on_device = program.unstack(self.state)
        self.log.truncate_after(self.step)
        if log.active and expected not in (None, self.log.rows):
            path = log.workdir / 'metrics.jsonl'
            print(
                f'{path} has {self.log.rows} rows up to step {self.step}, expected {expected}: it '
                'was changed or lost. The run goes on, and its curves lack them',
                file=sys.stderr,
            )

    def _restore(self) -> int | None:
        """Goes to the newest whole checkpoint; the rows that metrics.jsonl had then, None where that is unknown."""
        convert = self.program.convert
        found = self.checkpoints.restore_newest(state=self.state, best=variables_of(self.state), convert=convert)
        if found is None:
            return None
        self.step, self.state, self.best, host = found
        self.selection.restore(host['selection'])
        self.loss_sum = np.asarray(host['loss_sum'])
        self.divergence.restore(host.get('divergence'))
        return host.get('rows')

    def _save(self):
        host = {'selection': self.selection.to_json(), 'loss_sum': self.loss_sum.tolist(), 'rows': self.log.rows}
        host['divergence'] = self.divergence.to_json()
        self.checkpoints.save(self.step, state=self.state, best=self.best, host=host)

    def run(self) -> None:
        """Steps to the end, or until every seed has stopped early."""
        batches = read_batches(
            self.fold_data.loaders['train'],
            start=self.step,
            workers=self.config.data.workers,
            threads=self.config.data.threads,
        )
        pending, waited, epoch_start = None, 0.0, time.perf_counter()
        try:
            while self.step < self.program.total_steps and self.selection.running.any():
                before = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - before
                arrays = sharding.put_batch(batch, self.program.mesh)
                step = self.program.train if FIRST.done else self._first_step
                self.on_device, numbers = step(self.on_device, arrays)
                if pending is not None:  # the numbers of the step before: the device is already busy with this one
                    self._account(*pending)
                pending = (self.step, numbers)
                self.step += 1
                ends = self.step % self.plan.batches_per_epoch == 0
                if ends or (self.config.checkpoint_every and self.step % self.config.checkpoint_every == 0):
                    self._account(*pending)
                    pending, self.state = None, self.program.stack(self.on_device)
                    if ends:
                        self._end_epoch(waited, time.perf_counter() - epoch_start)
                        waited, epoch_start = 0.0, time.perf_counter()
                    self._save()
        finally:
            batches.close()

    def _first_step(self, state: Any, arrays: Any) -> Any:
        """The first step of this process; what was waited for before it goes to timing.jsonl."""
        background = self.program.background
        waited = background.waited
        with Stopwatch() as watch:
            found = jax.block_until_ready(self.program.train(state, arrays))
        FIRST.compilation, FIRST.done = background.waited - waited, True
        FIRST.step = watch.seconds - FIRST.compilation
        self.log.timing(FIRST.row(self.step + 1))
        return found

    def _account(self, step: int, numbers: Any) -> None:
        """Takes in the numbers of a finished step (counted from 0): check, sum, log."""
        loss = fetch(numbers, 'loss').astype(np.float64)
        epoch, _, records = self.plan[step]
        if not np.isfinite(loss[self.selection.running]).all():
            raise FloatingPointError(self._describe_non_finite(step, loss, numbers, records))
        self.divergence.account(step + 1, loss, self.selection.running, tell=self.log.active)
        self.loss_sum += np.where(self.selection.running, loss * len(records), 0)
        shown = float(loss[self.selection.running].mean())
        self.progress.update(step + 1, epoch=epoch + 1, examples=len(records), loss=shown)
        if (step + 1) % self.config.log_every == 0:
            norm = fetch(numbers, 'grad_norm')
            for n in np.flatnonzero(self.selection.running):
                rate = float(self.program.schedule(step)) * float(self.selection.lr_scale[n])
                row = {'step': step + 1, 'epoch': epoch + 1, 'split': 'train', 'seed': self.seeds[n]}
                self.log.write({**row, 'loss': loss[n], 'learning_rate': rate, 'grad_norm': _finite(norm[n])})

    def _describe_non_finite(self, step: int, loss: Any, numbers: Any, records: np.ndarray) -> str:
        bad = ~np.isfinite(fetch(numbers, 'example_loss')[:, : len(records)]).all(0)
        ids = self.fold_data.source.manifest['id'][records]
        which = f'records {ids[bad].tolist()}' if bad.any() and not bad.all() else f'all of {ids.tolist()}'
        rows = {int(s): float(x) for s, x in zip(self.seeds, loss, strict=True)}
        return (
            f'step {step + 1}: the loss is not finite (seed: loss = {rows}), from {which}. The last checkpoint is '
            f'step {self.checkpoints.latest()}; lower the learning rate ({float(self.program.schedule(step)):g}), '
            'clip gradients, or look at these records'
        )

    def _end_epoch(self, waited: float, seconds: float) -> None:
        """Validation, selection, plateau decay and the epoch's rows."""
        epoch = self.step // self.plan.batches_per_epoch
        was_running, examples = self.selection.running.copy(), len(self.plan.records)
        rates = float(self.program.schedule(self.step - 1)) * self.selection.lr_scale
        self.divergence.check_parameters(self.step, self.state.params, was_running, rates)
        predictions = evaluate.predict(self.program, variables_of(self.state), self.fold_data.loaders['validation'])
        source, metric = self.fold_data.source, self.config.selection.metric
        # A seed that has stopped may diverge while the others go on; nobody looks at it any more.
        measured = {int(n): evaluate.measure(predictions, source, int(n)) for n in np.flatnonzero(was_running)}
        found = {n: evaluate.selection_value(numbers, metric) for n, numbers in measured.items()}
        values = np.array([found.get(n, np.nan) for n in range(len(self.seeds))])
        scales = self.selection.lr_scale
        improved = self.selection.update(epoch, values)
        by_seed = sharding.state_sharding(self.program.mesh)
        self.best = self.program.keep_best(self.best, self.state, sharding.put_tree(improved, by_seed))
        if not np.array_equal(scales, self.selection.lr_scale):
            scale = sharding.put_tree(self.selection.lr_scale.astype(np.float32), by_seed)
            self.state = self.state.replace(lr_scale=scale)
            self.on_device = self.program.unstack(self.state)
        for n in measured:
            row = {'step': self.step, 'epoch': epoch, 'split': 'train_epoch', 'seed': self.seeds[n]}
            self.log.write({**row, 'loss': self.loss_sum[n] / examples})
            self.log.write({**row, 'split': 'validation', **{k: _finite(v) for k, v in measured[n].items()}})
        self.loss_sum = np.zeros(len(self.seeds))
        self.tracker.sync()
        self.progress.update(self.step, epoch=epoch, **{f'validation {metric}': float(np.nanmean(values))})
        rate = examples / seconds if seconds else 0.0
        self.log.timing(
            {'step': self.step, 'epoch': epoch, 'seconds': seconds, 'data_wait': waited, 'examples_per_second': rate}
        )
        if self.after_epoch is not None:
            self.after_epoch(epoch, self.selection)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def measure(
    config: ConfigDict, fold_data: FoldData, program: Program, name: str, best: Any, selection: Selection, seeds: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the test split once, with the variables that validation chose -> predictions by split, results.json."""
    source, fold = fold_data.source, fold_data.fold
    splits = SPLITS if config.evaluate_train else [split for split in SPLITS if split != 'train']
    predictions = {split: evaluate.predict(program, best, fold_data.whole(split)) for split in splits}
    floor = floors(evaluate.kind_of(source), predictions['test']['label'], names=source.schema.label.names)
    costs = cost.of_answers(program, fold_data.whole('test'), best['params'], len(seeds))
    rows = [result_row(fold, predictions, source, selection, n, int(seed), floor) for n, seed in enumerate(seeds)]
    return predictions, {**describe(config, fold_data, name, costs), 'rows': rows}


def describe(config: ConfigDict, fold_data: FoldData, name: str, costs: dict[str, Any]) -> dict[str, Any]:
    """What a results table says of a run, apart from its rows; and what other data must be like (other_data.py)."""
    schema, label = fold_data.source.schema, fold_data.source.schema.label
    return {
        'format': 1,
        'version': __version__,
        'config': config.name,
        'variant': config.variant,
        'model': name,
        'dataset': schema.name,
        'modalities': list(config.modalities),
        'protocol': config.protocol.name,
        'protocol_options': config.protocol.options.to_dict(),
        **costs,
        'metrics': evaluate.kind_of(fold_data.source),
        'headline': list(config.headline),
        'class_names': list(label.names),
        'inputs': other_data.describe_inputs(schema, config.modalities, fold_data.loaders['train'].plan.shapes[-1]),
        'published': config.published.to_dict() or None,
        'selection': config.selection.metric,
        'jax': jax.__version__,
        'device': jax.devices()[0].device_kind,
    }


def result_row(
    fold: Fold, predictions: Any, source: RecordSource, selection: Selection, n: int, seed: int, floor: Any
) -> dict[str, Any]:
    """One seed of one fold; metric values are fractions except mae and loss."""
    row = {'fold': fold.name, 'seed': seed, 'marks': list(fold.marks)}
    row |= {'best_epoch': int(selection.best_epoch[n]), 'epochs': int(selection.epochs[n])}
    row['counts'] = {split: len(getattr(fold, split)) for split in SPLITS}
    row |= {split: evaluate.as_json(evaluate.measure(values, source, n)) for split, values in predictions.items()}
    return {**row, 'floor': evaluate.as_json(floor)}
