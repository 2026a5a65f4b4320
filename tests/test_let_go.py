"""What was compiled for a fold or a trial does not stay in the process: after many, XLA would crash."""

import gc

import jax
import pytest

from mmer_jax import search, train
from mmer_jax.models import MODELS
from mmer_jax.run import cache
from tests import once
from tests.test_search import Mean, config_of

FOLDS = {'protocol__name': 'leave_speakers_out', 'protocol__options': {'folds': 3}, 'data__batch_size': 2}


@pytest.fixture
def executables():
    """() -> how many programs are loaded, without those that tests keep."""

    def count():
        once.forget_compiled()
        gc.collect()
        return len(jax.local_devices()[0].client.live_executables())

    cache.let_go()
    return count


def test_of_a_trial(tiny, tmp_path, executables, monkeypatch):
    monkeypatch.setitem(MODELS, 'mean', Mean)
    before = executables()
    search.search(config_of(tiny, ('data.batch_size', 'choice', 4, 8)), tmp_path, trials=2)
    assert executables() <= before


def test_of_a_fold_of_another_size(tiny, tmp_path, executables, monkeypatch):
    of_the_package, found = train.train_fold, []

    def train_fold(config, folder, fold_data, program, *arguments, **options):
        described = of_the_package(config, folder, fold_data, program, *arguments, **options)
        found.append((len(fold_data.loaders['train'].plan), executables()))
        return described

    monkeypatch.setitem(MODELS, 'mean', Mean)
    monkeypatch.setattr(train, 'train_fold', train_fold)
    train.train_and_evaluate(config_of(tiny, **FOLDS), tmp_path)
    steps, counts = zip(*found, strict=True)
    assert len(set(steps)) > 1
    assert counts[0] > 0
    assert max(counts[1:]) <= counts[0], counts
