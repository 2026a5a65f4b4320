"""The training loop of one fold: steps, epochs, selection and checkpoints, from where the fold's folder stands.

Batch i is a function of i and a step's random key of the step, and the loop's own counters lie in the checkpoint: a
loop that was killed at any moment ends with the same bytes.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.batches import read_batches
from mmer_jax.metrics import as_json, is_better_high
from mmer_jax.run import measuring, sharding, trackers, warm_start, writer
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.divergence import Divergence
from mmer_jax.run.first_step import LATEST as FIRST
from mmer_jax.run.first_step import Stopwatch
from mmer_jax.run.program import FoldData, Program, fetch
from mmer_jax.run.selection import Selection
from mmer_jax.run.step import TrainState, variables_of

AfterEpoch = Callable[[int, Selection], None]  # what it raises ends the training
Measured = Mapping[int, Mapping[str, float]]  # by the number of a seed


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
        selection: Selection | None = None,
        validated: Callable[[int], Measured] | None = None,
    ):
        """selection: instead of the config's; validated: epoch -> what stands for its validation, which is not read."""
        self.config, self.fold_data, self.program = config, fold_data, program
        self.checkpoints, self.log, self.progress, self.tracker = checkpoints, log, progress, tracker
        self.after_epoch, self.validated = after_epoch, validated
        self.seeds = config.seed + np.arange(config.seeds)
        self.plan = fold_data.loaders['train'].plan
        self.selection = selection or Selection(
            config.seeds,
            is_better_high(config.selection.metric),
            config.selection.patience,
            config.selection.plateau_patience,
            config.selection.plateau_factor,
        )
        with Stopwatch() as traced:
            self.state: TrainState = program.shapes(config.seeds)
        self.loss_sum, self.step, self.divergence = np.zeros(config.seeds), 0, Divergence(self.seeds)
        expected = self._restore()
        with Stopwatch() as lowered:
            if self.step < program.total_steps:
                program.prepare(fold_data, self.step)
        with Stopwatch() as initialised:
            if self.step == 0:
                self.state = program.init(self.seeds.astype(np.int32))
                self.state = warm_start.begin(config, fold_data, self.state, program.mesh, tell=tell)
                self.best = sharding.copy_tree(variables_of(self.state))
            self.on_device = program.unstack(self.state)
        if not FIRST.done:
            FIRST.compilation, FIRST.initialisation = traced.seconds + lowered.seconds, initialised.seconds
        self.resumed_at = self.step
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
        FIRST.end(watch.seconds, background.waited - waited)
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

    def _validate(self, epoch: int, running: np.ndarray) -> Measured:
        """Loss and metrics of the seeds that run: one that has stopped may diverge, and nobody looks at it any more."""
        if self.validated is not None:
            found = self.validated(epoch)
            return {int(n): found[int(n)] for n in np.flatnonzero(running)}
        load, source = self.fold_data.loaders['validation'], self.fold_data.source
        predictions = measuring.predict(self.program, variables_of(self.state), load)
        return {int(n): measuring.measure(predictions, source, int(n)) for n in np.flatnonzero(running)}

    def _end_epoch(self, waited: float, seconds: float) -> None:
        """Validation, selection, plateau decay and the epoch's rows."""
        epoch = self.step // self.plan.batches_per_epoch
        was_running, examples = self.selection.running.copy(), len(self.plan.records)
        rates = float(self.program.schedule(self.step - 1)) * self.selection.lr_scale
        self.divergence.check_parameters(self.step, self.state.params, was_running, rates)
        metric, measured = self.config.selection.metric, self._validate(epoch, was_running)
        found = {n: measuring.selection_value(numbers, metric) for n, numbers in measured.items()}
        values = np.array([found.get(n, np.nan) for n in range(len(self.seeds))])
        scales = self.selection.lr_scale
        improved = self.selection.update(epoch, values)
        self.selection.record(values, {n: as_json(numbers) for n, numbers in measured.items()})
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


@contextlib.contextmanager
def finished_loop(
    config: ConfigDict, folder: Path, fold_data: FoldData, program: Program, **how: Any
) -> Iterator[Loop]:
    """The loop of a fold, run to its end from where its folder stands; inside the block its files are still open.

    how: the options of Loop.
    """
    first = jax.process_index() == 0
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Checkpoints(folder / 'checkpoints') as checkpoints,
        writer.Writer(folder, active=first, tensorboard=config.tensorboard) as log,
        writer.Progress(program.total_steps, active=first) as progress,
        trackers.Tracker(config, folder, active=first) as tracker,
    ):
        program.background.listener = progress.wait
        try:
            loop = Loop(config, fold_data, program, checkpoints, log, progress, tracker, **how)
            loop.run()
        finally:
            program.background.forget()
        yield loop


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
