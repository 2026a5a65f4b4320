"""Self-MM in a run: numbers of records in the batches, a kill, other data, mixup."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmer_jax import evaluate
from mmer_jax.files import read_json
from mmer_jax.prediction import predictor
from mmer_jax.run.program import example_batch, folds_of, load_fold, make_model, open_source
from mmer_jax.train import train_and_evaluate
from tests.conftest import write_dataset
from tests.small_run import small_config, stopped_at
from tests.test_train import assert_same_run

LOSS = {'l1': 1.0, 'unimodal_l1': 1.0}


def config_of(directory, **changes):
    options = {
        'epochs': 4,
        'seeds': 2,
        'modalities': ('text',),  # the others' LSTMs compile longer: tests/test_self_mm.py
        'data__max_shapes': 1,
        'selection__metric': 'mae',
        'headline': ('mae',),
        **changes,
    }
    config = small_config(directory, **options, model={'name': 'self_mm', 'text_pooling': 'mean'})
    with config.unlocked():
        config.losses = ConfigDict(LOSS)
    return config


@pytest.fixture(scope='module')
def regression(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp('data') / 'numbers', kind='regression', records=58)


def test_batches_say_which_records_they_hold(regression, tiny):
    config = config_of(regression)
    source = open_source(config)
    fold = load_fold(config, source, folds_of(config, source)[0])
    for split in ('train', 'test'):
        load, seen = fold.loaders[split], []
        for step in range(load.plan.batches_per_epoch):
            batch = load(load.plan[step])
            real = batch['weight'] > 0
            assert source.manifest['id'][batch['record'][real]].tolist() == batch['id'][real].tolist()
            assert (batch['record'][~real] == len(source)).all()
            seen += batch['record'][real].tolist()
        assert sorted(seen) == sorted(getattr(fold.fold, split).tolist())
    assert make_model(config, source).num_records == len(source)
    plain = small_config(tiny, model={'name': 'lf_lstm'})
    source = open_source(plain)
    load = load_fold(plain, source, folds_of(plain, source)[0]).loaders['train']
    assert 'record' not in load(load.plan[0])


def test_a_run_goes_on_after_a_kill_and_is_evaluated_on_other_data(regression, tmp_path):
    """What is remembered is in the checkpoint, and not in what evaluation reads: other data are of another size."""
    whole = train_and_evaluate(config_of(regression), tmp_path / 'whole')
    with stopped_at(9):
        train_and_evaluate(config_of(regression, checkpoint_every=4), tmp_path / 'run')
    train_and_evaluate(config_of(regression, checkpoint_every=4), tmp_path / 'run')
    assert_same_run(tmp_path / 'run', tmp_path / 'whole')
    assert [row['test'] for row in read_json(tmp_path / 'whole' / 'results.json')['rows']] == [
        row['test'] for row in whole['rows']
    ]
    other = write_dataset(tmp_path / 'other', kind='regression', records=19, seed=5, name='other')
    found = evaluate.evaluate_checkpoint(tmp_path / 'whole', split='test', directory=other)
    assert np.isfinite([row['mae'] for row in found]).all()
    config = config_of(regression, epochs=1)
    config.start_from = ConfigDict({'fusion_head': f'{tmp_path / "whole"}:fusion_head'})
    assert len(train_and_evaluate(config, tmp_path / 'after')['rows']) == 2


def test_inner_folds_choose_its_epoch(regression, tmp_path):
    """Each inner fold remembers its own records."""
    rows = train_and_evaluate(config_of(regression, selection__folds=2, epochs=3), tmp_path / 'run')['rows']
    assert all(row['counts']['validation'] == 0 and np.isfinite(row['test']['mae']) for row in rows)


def test_a_predictor_does_not_ask_for_what_is_remembered(regression):
    config = config_of(regression)
    source = open_source(config)
    example = example_batch(load_fold(config, source, folds_of(config, source)[0]).loaders['train'])
    shapes = predictor._shapes(make_model(config, source), example, 2)
    assert set(shapes) == {'params'}
    assert shapes['params']['fusion_head']['Dense_1']['bias'].shape == (2, 1)


def test_rows_are_not_mixed(regression):
    config = config_of(regression, mixup=0.2)
    source = open_source(config)
    with pytest.raises(ValueError, match=r'config.mixup 0.2: the model remembers each record \(self_mm\)'):
        load_fold(config, source, folds_of(config, source)[0])
