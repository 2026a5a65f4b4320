"""Every key of a config is read by something: a key that nothing reads is a promise that nothing keeps."""

import numpy as np
from ml_collections import ConfigDict

from mmer_jax import main, search, train
from mmer_jax.data.records import RecordSource
from mmer_jax.run import optimizer, program, warm_start
from mmer_jax.settings import keys, ranges
from tests.small_run import MeanModel, small_config


class Recorder:
    """A config that notes which of its keys are read; what the check of its values and config.json read counts not."""

    def __init__(self, config, read, prefix=''):
        self.__dict__.update(_config=config, _read=read, _prefix=prefix)

    def _note(self, key, value):
        if isinstance(value, ConfigDict) and key not in keys.OPEN:
            return Recorder(value, self._read, f'{key}.')
        self._read.add(key)
        return value

    def __getattr__(self, name):
        value = getattr(self._config, name)
        return self._note(self._prefix + name, value) if name in self._config else value

    __getitem__ = __getattr__

    def __setattr__(self, name, value):
        setattr(self._config, name, value)

    def to_dict(self):
        """Of a group a dictionary that goes on noting; of the whole a plain one."""
        if not self._prefix:
            return self._config.to_dict()
        read, prefix = self._read, self._prefix

        class Noting(dict):
            def __getitem__(self, name):
                read.add(prefix + name)
                return dict.__getitem__(self, name)

            def get(self, name, default=None):
                read.add(prefix + name)
                return dict.get(self, name, default)

        return Noting(self._config.to_dict())


def unread(changed, directory, folder, monkeypatch):
    """The keys that no part of the program reads: training from a start, each optimiser, a search, and main."""
    read = set()
    config = small_config(directory, epochs=1, seeds=1, start_from={'Dense_0': 'another run'})
    changed(config)
    recorder = Recorder(config, read)
    with monkeypatch.context() as patch:
        patch.setattr(warm_start, 'chosen_part', lambda where, fold_data, seeds: None)
        patch.setattr(warm_start.pretrained, 'graft', lambda variables, loaded, path, fresh: variables)
        assert len(train.train_and_evaluate(recorder, folder, model=MeanModel())['rows']) == 1
    for name in optimizer.OPTIMIZERS:
        config.optimizer.name = name
        transformation, _ = optimizer.make_optimizer(recorder.optimizer.to_dict(), 10)
        transformation.init({'Dense_0': {'kernel': np.zeros((2, 2), np.float32)}})
    program.make_model(small_config_of_a_model(recorder), RecordSource(directory))
    assert search.ranges_of(recorder) == []

    def fails(config, workdir, folds):
        raise ValueError('stop')

    monkeypatch.setattr(main, 'read_config', lambda path, changes: recorder)
    monkeypatch.setattr('mmer_jax.train.train_and_evaluate', fails)
    assert main.main(['--config=x']) == 1
    return [key for key in dict(keys.leaves(config.to_dict())) if key not in read]


def small_config_of_a_model(recorder):
    recorder.model = ConfigDict({'name': 'lf_lstm'})
    return recorder


def test_every_key_is_read(tiny, tmp_path, monkeypatch):
    assert unread(lambda config: None, tiny, tmp_path, monkeypatch) == []


def test_a_key_that_nobody_reads_is_found(tiny, tmp_path, monkeypatch):
    def add_a_key(config):
        with config.unlocked():
            config.optimizer.epochs = 3  # a name that is read elsewhere

    monkeypatch.setitem(keys.KEYS, 'optimizer.epochs', ranges.COUNT)
    assert unread(add_a_key, tiny, tmp_path, monkeypatch) == ['optimizer.epochs']
