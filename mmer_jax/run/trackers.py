"""Optional: a run's curves and results also in Weights & Biases or MLflow (`config.tracker`). metrics.jsonl stays the
record of truth: a tracker is sent what stands there, once, and whatever goes wrong with it does not stop the run.

Where it is sent to is the tracker's own affair: MLFLOW_TRACKING_URI, WANDB_MODE, WANDB_API_KEY and so on.
"""

import collections
import importlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmer_jax.files import read_json, read_jsonl, write_json

FILE = 'tracker.json'  # in a fold's folder: the run's name at the tracker, and the last epoch that was sent
SENT_SPLITS = ('train_epoch', 'validation')
LONGEST = 500  # letters of a config's value
Numbers = dict[str, float]


class Tracker:
    """One fold at a tracker; a context. Does nothing where config.tracker is 'none', and on all processes but one.

    `sync` sends the epochs of metrics.jsonl that were not sent yet, `end` the test metrics. A run that goes on after it
    was stopped goes on at the tracker too.

    Raises:
        ImportError: the tracker's package is not installed; before anything is trained.
    """

    def __init__(self, config: ConfigDict, workdir: Path, *, active: bool = True):
        self.workdir, self.name, self.sent = workdir, config.tracker if active else 'none', 0
        self._client: Any = None
        if self.name == 'none':
            return
        kind = CLIENTS[self.name]
        try:
            importlib.import_module(kind.package)
        except ImportError as error:
            advice = f"pip install 'mmer_jax[{self.name}]'"
            raise ImportError(f'config.tracker {self.name!r} needs {kind.package}, not installed: {advice}') from error
        known = read_json(workdir / FILE) if (workdir / FILE).is_file() else {}
        known = known if known.get('tracker') == self.name else {}
        self.sent = int(known.get('epoch', 0))
        parts = workdir.parts[-2:] if workdir.name.startswith('fold_') else workdir.parts[-1:]
        settings = {key: str(value)[:LONGEST] for key, value in _flat(config.to_dict())}
        self._try(lambda: setattr(self, '_client', kind(config.name, ' '.join(parts), settings, known.get('run'))))

    def __enter__(self) -> 'Tracker':
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._client is not None:
            self._try(lambda: self._client.close(failed=kind is not None))

    def sync(self) -> None:
        """Sends every epoch of metrics.jsonl after the last one that was sent."""
        if self._client is None:
            return
        epochs: dict[int, list[Mapping[str, Any]]] = collections.defaultdict(list)
        for row in read_jsonl(self.workdir / 'metrics.jsonl'):
            if row['split'] in SENT_SPLITS and row['epoch'] > self.sent:
                epochs[row['epoch']].append(row)
        for epoch in sorted(epochs):
            self._try(lambda epoch=epoch: self._client.log(_numbers(epochs[epoch]), epoch))  # type: ignore[misc]
            self.sent = epoch
        if self._client is not None:
            write_json(self.workdir / FILE, {'tracker': self.name, 'run': self._client.run, 'epoch': self.sent})

    def end(self, results: Mapping[str, Any]) -> None:
        """Sends what is left, the test metrics, and what marks the run."""
        if self._client is None:
            return
        self.sync()
        rows = [{'split': 'test', 'seed': row['seed'], **row['test']} for row in results['rows']]
        marks = sorted({mark for row in results['rows'] for mark in row['marks']})
        facts = {'dataset': results['dataset'], 'protocol': results['protocol'], 'marks': '; '.join(marks) or 'none'}
        if self._client is not None:
            self._try(lambda: self._client.finish(_numbers(rows), self.sent, facts))

    def _try(self, call: Any) -> None:
        try:
            call()
        except Exception as error:
            self._client = None
            found = ' '.join(f'{type(error).__name__}: {error}'.split())
            print(f'{self.name}: {found[:300]}; the run goes on without it', file=sys.stderr, flush=True)


def _flat(values: Mapping[str, Any], prefix: str = '') -> list[tuple[str, Any]]:
    pairs = []
    for key, value in values.items():
        pairs += _flat(value, f'{prefix}{key}.') if isinstance(value, Mapping) else [(f'{prefix}{key}', value)]
    return pairs


def _numbers(rows: Sequence[Mapping[str, Any]]) -> Numbers:
    """'validation/accuracy', the mean over the seeds, and with several seeds 'seed_0/validation/accuracy' of each."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    several, own = len({row['seed'] for row in rows}) > 1, {}
    for row in rows:
        for key, value in row.items():
            if key in ('split', 'seed', 'step', 'epoch') or value is None:
                continue
            name = re.sub(r'[^\w\-. /]', '_', f'{row["split"].removesuffix("_epoch")}/{key}')
            found[name].append(float(value))
            if several:
                own[f'seed_{row["seed"]}/{name}'] = float(value)
    return {**{name: float(np.mean(values)) for name, values in found.items()}, **own}


class MLflow:
    """A run of MLflow, in the experiment of the config's name."""

    package = 'mlflow'

    def __init__(self, project: str, name: str, settings: Mapping[str, str], run: str | None):
        mlflow = importlib.import_module('mlflow')
        self._entities, self._client = mlflow.entities, mlflow.MlflowClient()
        if run is None:
            experiment = self._client.get_experiment_by_name(project)
            number = self._client.create_experiment(project) if experiment is None else experiment.experiment_id
            run = self._client.create_run(number, run_name=name).info.run_id
            params = [self._entities.Param(key, value) for key, value in settings.items()]
            for start in range(0, len(params), 100):  # as many as one call may hold
                self._client.log_batch(run, params=params[start : start + 100])
        else:
            self._client.update_run(run, status='RUNNING')
        self.run = str(run)

    def log(self, numbers: Numbers, epoch: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(key, value, now, epoch) for key, value in numbers.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self.run, metrics=metrics[start : start + 1000])

    def finish(self, numbers: Numbers, epoch: int, facts: Mapping[str, str]) -> None:
        self.log(numbers, epoch)
        for key, value in facts.items():
            self._client.set_tag(self.run, key, value)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.run, 'FAILED' if failed else 'FINISHED')


class WeightsAndBiases:
    """A run of Weights & Biases, in the project of the config's name."""

    package = 'wandb'

    def __init__(self, project: str, name: str, settings: Mapping[str, str], run: str | None):
        wandb = importlib.import_module('wandb')
        self._run = wandb.init(project=project, name=name, config=dict(settings), id=run, resume='allow')
        self.run = str(self._run.id)

    def log(self, numbers: Numbers, epoch: int) -> None:
        self._run.log(numbers, step=epoch)

    def finish(self, numbers: Numbers, epoch: int, facts: Mapping[str, str]) -> None:
        del epoch  # a summary has no place in time
        self._run.summary.update({**numbers, **facts})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


CLIENTS: dict[str, Any] = {'mlflow': MLflow, 'wandb': WeightsAndBiases}
