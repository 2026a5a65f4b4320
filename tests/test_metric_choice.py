"""Metrics of whole runs: labels on another scale than MOSI's, classes that a fold lacks, own modules that are wrong."""

import json

import flax.linen as nn
import numpy as np
import pytest

from mmer_jax import report
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema
from mmer_jax.metrics import as_json
from mmer_jax.results import run_page
from mmer_jax.run import measuring
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config


def write(directory, label, labels, name='mmmo'):
    """One record a label: a sequence that tells it; sessions 0 to 3 in turn, every fourth record of a split."""
    features = {'text': Feature((None, 3)), 'audio': Feature((None, 4))}
    with RecordWriter(directory, Schema(name, features, label), num_shards=1) as writer:
        for number, value in enumerate(labels):
            arrays = {m: np.full((2, size), value, np.float32) for m, size in (('text', 3), ('audio', 4))}
            split = ('train', 'train', 'validation', 'test')[number // 4 % 4]
            writer.write({'id': f'clip_{number}', 'label': value, **arrays}, session=str(number % 4), split=split)
    return directory


@pytest.fixture(scope='module')
def ratings(tmp_path_factory):
    """32 clips with ratings from 1 to 5."""
    labels = [float(k % 5 + 1) for k in range(32)]
    return write(tmp_path_factory.mktemp('ratings') / 'data', Label('regression'), labels)


@pytest.fixture(scope='module')
def rare(tmp_path_factory):
    """32 clips of calm and happy, and in session 1 alone two sad ones."""
    labels = [2 if k in (1, 17) else k // 4 % 2 for k in range(32)]
    return write(tmp_path_factory.mktemp('rare') / 'data', Label('classes', ('calm', 'happy', 'sad')), labels)


def regression_config(directory, **changes):
    changes = {'losses': {'l1': 1.0}, 'headline': ('mae', 'ccc'), 'selection__metric': 'mae', **changes}
    losses = changes.pop('losses')
    config = small_config(directory, seeds=1, epochs=2, **changes)
    config.losses = type(config)(losses)
    return config


@pytest.mark.parametrize('wrong', ['acc7_round', 'acc2_non0', 'acc2_has0', 'f1_non0', 'acc5_round'])
def test_ratings_refuse_the_metrics_of_mosi(ratings, tmp_path, wrong):
    measured = f'{wrong}.*is not measured; choose from loss, mae, rmse, corr, ccc; the labels go from 1 to 5: Acc-7'
    for changes, key in (
        ({'headline': ('mae', wrong)}, 'headline'),
        ({'selection__metric': wrong}, 'selection.metric'),
    ):
        with pytest.raises(ValueError, match=f"config.{key} '{measured}") as caught:
            train_and_evaluate(regression_config(ratings, **changes), tmp_path / 'run', MeanModel(num_outputs=1))
        assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()


def test_ratings_are_measured_by_what_fits_them_and_nothing_published_stands_beside(ratings, tmp_path):
    config = regression_config(ratings, published=None)
    config.published = type(config)({'mae': 0.871, 'dataset': 'mosi', 'source': 'A paper'})
    results = train_and_evaluate(config, tmp_path, MeanModel(num_outputs=1))
    (row,) = results['rows']
    assert results['metrics'] == 'regression'
    assert set(row['test']) == set(row['validation']) == {'loss', 'mae', 'rmse', 'corr', 'ccc'}
    assert set(row['floor']) == {'mae', 'rmse', 'corr', 'ccc'}
    text = report.write_report([tmp_path]).read_text()
    assert '0.871' not in text
    assert 'published numbers are of mosi, this run is on mmmo.' in text
    assert '| CCC |' in text
    with np.load(tmp_path / 'predictions' / 'test.npz') as file:
        predicted, labels = file['prediction'][0, :, 0].astype(float), file['label'].astype(float)
    ccc = 2 * np.cov(predicted, labels, bias=True)[0, 1]
    ccc /= predicted.var() + labels.var() + (predicted.mean() - labels.mean()) ** 2
    assert row['test']['ccc'] == pytest.approx(ccc)


def test_the_whole_data_set_decides_not_a_split(tmp_path):
    """Negative labels in the training records only: every split has the metrics of the sign all the same."""
    labels = [(-2.0 if k < 8 else 2.0) + 0.1 * (k % 3) for k in range(32)]
    source = RecordSource(write(tmp_path / 'data', Label('regression'), labels))
    assert measuring.kind_of(source) == 'sentiment'
    test = np.flatnonzero(source.manifest['split'] == 'test')
    chosen = np.array([labels[k] for k in test])
    predictions = {'prediction': chosen[None, :, None], 'loss': np.zeros((1, len(test))), 'label': chosen}
    assert chosen.min() > 0
    assert {'acc7_round', 'acc2_non0'} <= set(measuring.measure(predictions, source, 0))


def test_a_class_that_a_fold_lacks_has_no_recall_there(rare, tmp_path):
    config = small_config(rare, seeds=2, epochs=1, protocol__name='leave_sessions_out')
    config.headline = ('accuracy', 'recall_sad')
    results = train_and_evaluate(config, tmp_path, MeanModel())
    recalls = {row['fold']: row['test']['recall_sad'] for row in results['rows']}
    assert [value is None for value in recalls.values()] == [True, False, True, True]
    assert json.loads((tmp_path / 'results.json').read_text())['rows'][0]['floor']['recall_sad'] is None
    (run,), _ = report.find_runs([tmp_path])
    counts = run_page.confusions(run)
    assert counts.shape == (2, 3, 3)
    assert counts.sum(axis=(1, 2)).tolist() == [32, 32]
    only = np.array([row['test']['recall_sad'] for row in results['rows'] if row['fold'] == 'fold_1'])
    np.testing.assert_allclose(counts[:, 2, 2] / counts[:, 2].sum(-1), only)
    assert report.summarise(run.values('recall_sad')).mean == pytest.approx(only.mean())
    assert '| sad | 2 |' in report.write_report([tmp_path]).read_text()


def test_a_metric_that_validation_cannot_have_selects_nothing(rare, tmp_path):
    with pytest.raises(ValueError, match="selection.metric 'recall_sad' is undefined: no validation record"):
        train_and_evaluate(small_config(rare, seeds=1, epochs=1, selection__metric='recall_sad'), tmp_path, MeanModel())


def test_a_class_that_is_never_predicted_counts_as_precision_0_when_epochs_are_chosen():
    measured = {'precision_sad': np.nan, 'recall_sad': np.nan, 'f1_calm': 0.5, 'loss': np.nan}
    assert measuring.selection_value(measured, 'precision_sad') == 0
    assert measuring.selection_value(measured, 'f1_calm') == 0.5
    assert np.isnan(measuring.selection_value(measured, 'loss'))  # a fault, which selection refuses
    assert np.isnan(as_json(measured)['loss'])
    assert as_json(measured)['recall_sad'] is None


class Logits(nn.Module):
    @nn.compact
    def __call__(self, batch, *, train):
        return nn.Dense(3)(batch['text'].mean(1))


class NoTrain(nn.Module):
    @nn.compact
    def __call__(self, batch):
        return {'prediction': nn.Dense(3)(batch['text'].mean(1))}


@pytest.mark.parametrize(
    ('model', 'error', 'message'),
    [
        (Logits(), ValueError, r'the model returned \w+ of shape \(\d+, 3\), expected a dictionary'),
        (NoTrain(), TypeError, r'NoTrain.__call__\(self, batch\) cannot be trained'),
    ],
)
def test_an_own_module_that_is_wrong_is_one_line(rare, tmp_path, model, error, message):
    with pytest.raises(error, match=message) as caught:
        train_and_evaluate(small_config(rare, seeds=1, epochs=1), tmp_path, model)
    assert '\n' not in str(caught.value)
