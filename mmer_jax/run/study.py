"""The trials of a search in optuna's journal, a file: shared by processes, and gone on with after any stop.

The only file that knows optuna. Trials are handed out one at a time, below a lock of the folder. Whoever trains a trial
holds its lock; where a process has ended without finishing its trial, the next one takes it over: same number, same
values, same folder. What a trial is to try follows from the seed, its number and the trials before it.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import end_with_newline
from mmer_jax.run.choices import Range
from mmer_jax.run.workdir import InUse, hold

JOURNAL = 'journal.log'
FIRST_TRIALS = 5  # finished ones before any is pruned
ATTEMPTS = 3  # of a trial whose process ended each time: more would stop the search at it for ever
PATIENCE = 60.0  # seconds to wait for the lock of the folder, which is held for moments
LONGEST = 10**6  # epochs of a fold, so that no two folds share a step
STATES = {'COMPLETE': 'finished', 'PRUNED': 'pruned', 'FAIL': 'failed', 'RUNNING': 'running', 'WAITING': 'waiting'}
FEWEST = 5  # finished trials, for importances that say anything


def import_optuna() -> Any:
    """The package, silent; ImportError in one line where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError("mmer_jax.search needs optuna, not installed: pip install 'mmer_jax[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a search's folder, for moments; waits for it."""
    until = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(folder / '.search.lock', folder))
                break
            except InUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


class Pruned(Exception):
    """A trial is worse than the median of the others at this epoch."""


class Study:
    """The trials of one folder. higher: whether a larger value is better. prune_after: epochs before a trial may be
    pruned, 0 for never.

    Raises:
        ValueError: the journal is damaged, or is one of other ranges.
    """

    def __init__(self, folder: Path, space: Sequence[Range], *, higher: bool, seed: int, prune_after: int):
        self._optuna, self.folder, self.space, self._seed = import_optuna(), folder, space, seed
        optuna, journal = self._optuna, (folder / JOURNAL).absolute()
        lock = optuna.storages.journal.JournalFileOpenLock(str(journal))
        with alone(folder):
            lock.acquire()
            try:
                end_with_newline(journal)  # half a line of a process that was killed
            finally:
                lock.release()
            median = optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS, n_warmup_steps=prune_after)
            try:
                backend = optuna.storages.journal.JournalFileBackend(str(journal), lock_obj=lock)
                self._study = optuna.create_study(
                    study_name='search', storage=optuna.storages.JournalStorage(backend), load_if_exists=True,
                    direction='maximize' if higher else 'minimize',
                    pruner=median if prune_after else optuna.pruners.NopPruner(),
                )  # fmt: skip
            except (ValueError, KeyError) as error:
                raise ValueError(f'{journal} is damaged ({error}): take a new --workdir') from error

    def begin_with(self, values: Mapping[str, Any]) -> None:
        """The first trial is of these values where they lie within the ranges, and nothing was tried before."""
        with alone(self.folder):
            if self._study.get_trials(deepcopy=False) or not all(
                _holds(one, values.get(one.key)) for one in self.space
            ):
                return
            self._study.enqueue_trial({one.key: _stored(one, values[one.key]) for one in self.space})

    def next(self, wanted: int) -> 'Trial | None':
        """The next trial to train, held by this process; None where `wanted` have been begun and none was left."""
        with alone(self.folder):
            for found in self._trials('RUNNING'):
                if (trial := self._take_over(found.number)) is not None:
                    return trial
            if len(self._trials()) >= wanted and not self._trials('WAITING'):
                return None
            trial = self._study.ask()
            held = self._hold(trial.number)
            return self._begin(trial, held)

    def _trials(self, *states: str) -> list[Any]:
        wanted = tuple(self._optuna.trial.TrialState[state] for state in states) or None
        return self._study.get_trials(deepcopy=False, states=wanted)

    def _hold(self, number: int) -> contextlib.ExitStack:
        held = contextlib.ExitStack()
        held.enter_context(hold(self.folder / 'trials' / f'.{number}.lock', self.folder_of(number)))
        return held

    def folder_of(self, number: int) -> Path:
        return self.folder / 'trials' / f'trial_{number}'

    def _take_over(self, number: int) -> 'Trial | None':
        """A trial that the journal calls running, where nobody runs it any more."""
        try:
            held = self._hold(number)
        except InUse:
            return None
        found = self._study.get_trials(deepcopy=False)[number]
        if found.state.name != 'RUNNING':  # it ended just before
            held.close()
            return None
        trial = self._begin(self._optuna.trial.Trial(self._study, found._trial_id), held)
        if trial.attempt > ATTEMPTS:
            trial.fail(f'its process ended {ATTEMPTS} times before it did')
            return None
        return trial

    def _begin(self, trial: Any, held: contextlib.ExitStack) -> 'Trial':
        seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(seed))
        values = {one.key: _suggested(one, trial) for one in self.space}
        attempt = trial.user_attrs.get('attempt', 0) + 1
        trial.set_user_attr('attempt', attempt)
        return Trial(trial, self, values, attempt, held)

    def tell(self, trial: Any, state: str, value: float | None = None) -> None:
        self._study.tell(trial, value, self._optuna.trial.TrialState[state])

    def records(self) -> list[dict[str, Any]]:
        """Every trial as search.json has it, in their order."""
        return [
            {
                'number': found.number,
                'state': STATES[found.state.name],
                'value': found.value if found.state.name == 'COMPLETE' else None,  # else of a part of the training
                'values': {
                    one.key: _value(one, found.params[one.key]) for one in self.space if one.key in found.params
                },
                **{name: found.user_attrs.get(name) for name in ('rows', 'fault', 'seconds')},
            }
            for found in self._trials()
        ]

    def importance(self) -> dict[str, float]:
        """The share of the variance of the values that each key explains (fANOVA), largest first; {} for few trials."""
        values = {found.value for found in self._trials('COMPLETE')}
        if len(self._trials('COMPLETE')) < FEWEST or len(values) < 2:
            return {}
        evaluator = self._optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            found = self._optuna.importance.get_param_importances(self._study, evaluator=evaluator)
            return {key: float(share) for key, share in found.items()}
        except (ValueError, RuntimeError):  # every tree of the forest is a single leaf
            return {}


@dataclasses.dataclass
class Trial:
    """A trial that this process trains: its values by key; `attempt` counts from 1. Held until it ends."""

    _trial: Any
    study: Study
    values: dict[str, Any]
    attempt: int
    _held: contextlib.ExitStack

    @property
    def number(self) -> int:
        return self._trial.number

    @property
    def folder(self) -> Path:
        return self.study.folder_of(self.number)

    def report(self, fold: int, epoch: int, value: float) -> None:
        """What the trial's value would be if it ended with this epoch (from 1) of this fold (from 0); Pruned where that
        is worse than the median of the others."""
        step = fold * LONGEST + epoch
        known = self.study._trials()[self.number].intermediate_values
        if not math.isfinite(value) or step in known:  # of an epoch that was trained again
            return
        self._trial.report(value, step)
        if self._trial.should_prune():
            raise Pruned(f'fold {fold}, epoch {epoch}' if fold else f'epoch {epoch}')

    def finish(self, value: float, rows: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """rows: a line per fold and seed."""
        self._note(rows=list(rows), seconds=round(seconds, 1))
        self._end('COMPLETE', value)

    def prune(self, where: str, seconds: float) -> None:
        self._note(fault=where, seconds=round(seconds, 1))
        self._end('PRUNED')

    def fail(self, fault: str) -> None:
        self._note(fault=fault)
        self._end('FAIL')

    def release(self) -> None:
        """Leaves the trial to whoever goes on with the search."""
        self._held.close()

    def _note(self, **facts: Any) -> None:
        for name, value in facts.items():
            self._trial.set_user_attr(name, value)

    def _end(self, state: str, value: float | None = None) -> None:
        self.study.tell(self._trial, state, value)
        self.release()


def _suggested(one: Range, trial: Any) -> Any:
    if one.way == 'choice':
        return _value(one, trial.suggest_categorical(one.key, [repr(value) for value in one.values]))
    suggest = trial.suggest_int if one.whole else trial.suggest_float
    return suggest(one.key, *one.values, log=one.way == 'log')


def _stored(one: Range, value: Any) -> Any:
    """A value as the journal has it: of a choice its text, which may be of any type."""
    return repr(value) if one.way == 'choice' else value


def _value(one: Range, stored: Any) -> Any:
    return {repr(value): value for value in one.values}[stored] if one.way == 'choice' else stored


def _holds(one: Range, value: Any) -> bool:
    """Whether a range holds a value."""
    if one.way == 'choice':
        return repr(value) in map(repr, one.values)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and one.values[0] <= value <= one.values[1]
