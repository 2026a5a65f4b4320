"""Trackers: what is sent, once each, also over a stop; nothing by default; none of their faults stops a run.

With stand-ins for the packages. Against MLflow's own store where it is installed.
"""

import importlib.util
import json
import sys
import types

import pytest

from mmer_jax.run import trackers, workdir
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config


class FakeMLflow(types.ModuleType):
    """The part of MLflow that is used; `calls` is what arrived."""

    def __init__(self):
        super().__init__('mlflow')
        self.calls, self.broken = [], False
        self.entities = types.SimpleNamespace(Metric=lambda *parts: parts, Param=lambda *parts: parts)
        self.MlflowClient = lambda: self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        self.calls.append(('experiment', name))
        return '1'

    def create_run(self, experiment, run_name):
        self.calls.append(('run', run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id='abc'))

    def update_run(self, run, status):
        self.calls.append(('again', run))

    def log_batch(self, run, metrics=(), params=()):
        if self.broken:
            raise ConnectionError('no\nnetwork')
        assert run == 'abc'
        self.calls += [('metric', key, epoch) for key, _, _, epoch in metrics] + [('param', *pair) for pair in params]

    def set_tag(self, run, key, value):
        self.calls.append(('tag', key, value))

    def set_terminated(self, run, status):
        self.calls.append(('end', status))

    def of(self, kind):
        return [call[1:] for call in self.calls if call[0] == kind]


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, 'mlflow', fake)
    return fake


@pytest.fixture(scope='module')
def config(tiny):
    return small_config(tiny, epochs=2, tracker='mlflow')


def test_a_run_is_sent_as_it_is_written(config, mlflow, tmp_path):
    results = train_and_evaluate(config, tmp_path / 'mine', MeanModel())
    assert mlflow.of('experiment') == [('small',)]
    assert mlflow.of('run') == [('mine',)]
    assert ('epochs', '2') in mlflow.of('param')
    sent = mlflow.of('metric')
    assert len(sent) == len(set(sent))
    for epoch in (1, 2):
        for seed in ('', 'seed_0/', 'seed_1/'):
            assert {(f'{seed}train/loss', epoch), (f'{seed}validation/accuracy', epoch)} <= set(sent)
    assert ('test/accuracy', 2) in sent
    assert ('dataset', results['dataset']) in mlflow.of('tag')
    assert mlflow.of('end') == [('FINISHED',)]
    kept = json.loads((tmp_path / 'mine' / 'tracker.json').read_text())
    assert kept == {'tracker': 'mlflow', 'run': 'abc', 'epoch': 2}


def rows_of(folder, epochs, seeds=(0,)):
    lines = [
        {'step': e, 'epoch': e, 'split': split, 'seed': s, 'loss': 0.5 + s}
        for e in range(1, epochs + 1) for s in seeds for split in ('train', 'train_epoch', 'validation')
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_a_run_that_was_stopped_goes_on_where_it_was(config, mlflow, tmp_path):
    folder = tmp_path / 'run' / 'fold_1'
    with pytest.raises(KeyboardInterrupt), trackers.Tracker(config, folder) as tracker:
        rows_of(folder, 2)
        tracker.sync()
        raise KeyboardInterrupt
    assert mlflow.of('run') == [('run fold_1',)]
    assert mlflow.of('end') == [('FAILED',)]
    rows_of(folder, 3)
    with trackers.Tracker(config, folder) as tracker:
        tracker.sync()
    assert mlflow.of('again') == [('abc',)]
    assert mlflow.of('metric') == [(f'{split}/loss', epoch) for epoch in (1, 2, 3) for split in ('train', 'validation')]


def test_a_tracker_that_fails_does_not_stop_the_run(config, mlflow, tmp_path, capsys):
    with trackers.Tracker(config, tmp_path) as tracker:
        rows_of(tmp_path, 1)
        mlflow.broken = True
        tracker.sync()
        tracker.end({'rows': []})
    assert capsys.readouterr().err == 'mlflow: ConnectionError: no network; the run goes on without it\n'
    assert mlflow.of('end') == []


def test_without_the_package_nothing_begins(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    config = config.copy_and_resolve_references()
    config.tracker = 'wandb'
    message = r"config.tracker 'wandb' needs wandb, not installed: pip install 'mmer_jax\[wandb\]'"
    with pytest.raises(ImportError, match=message):
        trackers.Tracker(config, tmp_path)
    assert trackers.Tracker(config, tmp_path, active=False).name == 'none'


def test_none_is_the_default_and_does_nothing(tiny, tmp_path):
    with trackers.Tracker(small_config(tiny), tmp_path) as tracker:
        tracker.sync()
        tracker.end({})
    assert list(tmp_path.iterdir()) == []


def test_weights_and_biases_get_the_same(config, tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        id='w1', log=lambda numbers, step: calls.append((step, numbers)), summary={},
        finish=lambda exit_code: calls.append(exit_code),
    )  # fmt: skip
    wandb = types.ModuleType('wandb')
    wandb.init = lambda **options: calls.append(options) or run
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    config = config.copy_and_resolve_references()
    config.tracker = 'wandb'
    rows_of(tmp_path, 1, seeds=(0, 1))
    row = {'seed': 0, 'test': {'accuracy': 0.5, 'corr': None}, 'marks': ['leak']}
    with trackers.Tracker(config, tmp_path) as tracker:
        tracker.end({'rows': [row], 'dataset': 'd', 'protocol': 'p'})
    options, (step, numbers), status = calls
    assert (options['project'], options['id'], options['resume']) == ('small', None, 'allow')
    assert (step, numbers['validation/loss'], numbers['seed_1/validation/loss']) == (1, 1.0, 1.5)
    assert run.summary == {'test/accuracy': 0.5, 'dataset': 'd', 'protocol': 'p', 'marks': 'leak'}
    assert status == 0


@pytest.mark.skipif(importlib.util.find_spec('mlflow') is None, reason='mlflow is not installed')
def test_the_local_store_of_mlflow(config, tmp_path, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', (tmp_path / 'store').as_uri())
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')  # else MLflow 3 wants a data base
    rows_of(tmp_path / 'run', 2, seeds=(0, 1))
    with trackers.Tracker(config, tmp_path / 'run') as tracker:
        tracker.end({'rows': [{'seed': 0, 'test': {'accuracy': 0.5}, 'marks': []}], 'dataset': 'd', 'protocol': 'p'})
    import mlflow

    (run,) = mlflow.MlflowClient().search_runs([mlflow.MlflowClient().get_experiment_by_name('small').experiment_id])
    assert run.info.status == 'FINISHED'
    assert run.data.metrics['test/accuracy'] == 0.5
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, 'seed_1/validation/loss')
    assert [(point.step, point.value) for point in history] == [(1, 1.5), (2, 1.5)]


def test_a_run_may_begin_to_be_followed_and_may_be_older_than_trackers(config, tmp_path):
    saved = config.to_dict()
    del saved['tracker']
    (tmp_path / 'config.json').write_text(json.dumps(saved))
    workdir.check_config(config, tmp_path)
    saved['tracker'] = 'none'
    (tmp_path / 'config.json').write_text(json.dumps(saved))
    workdir.check_config(config, tmp_path)
