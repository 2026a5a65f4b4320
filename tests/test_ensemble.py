"""Rows of averaged predictions: the average by hand, weights against a grid, what must not be averaged, every file."""

import csv
import itertools
import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from mmer_jax import report
from mmer_jax.metrics import classification, sentiment
from mmer_jax.results import canvas
from mmer_jax.results.ensemble import ensembles, fit_weights, mean
from mmer_jax.results.page import markdown
from mmer_jax.results.run_table import main_table
from mmer_jax.results.runs import ReportError, find_runs
from tests.finished_runs import CLASSES, classification_run, damage

LABELS = {'fold_0': np.arange(12) % 3, 'fold_1': np.arange(15) % 3}


def write(folder, split, labels, scores, prefix='c'):
    ids = np.array([f'{prefix}{n:03}' for n in range(len(labels))])
    np.savez(
        folder / 'predictions' / f'{split}.npz', id=ids, label=labels, prediction=scores, seed=np.arange(len(scores)),
        speaker=np.array([f's{n % 4}' for n in range(len(labels))]),
    )  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    """Three runs of three seeds and two folds: `good`, `fair`, and `blind`, which knows nothing."""
    generator, made = np.random.default_rng(0), []
    for name, skill in (('good', 2.5), ('fair', 1.2), ('blind', 0.0)):
        made.append(classification_run(tmp_path / name, config=name))
        for fold, labels in LABELS.items():
            for split, wanted in (('test', labels), ('validation', np.arange(90) % 3)):
                noise = generator.normal(size=(3, len(wanted), 3))
                write(made[-1] / fold, split, wanted, skill * np.eye(3)[wanted] + noise, prefix=f'{fold}_{split}')
    return made


def runs_of(folders):
    return find_runs(folders)[0]


def test_the_seeds_of_a_run_are_averaged_as_probabilities(folders):
    ((row, predicted),) = ensembles(runs_of(folders[:1]))
    expected = []
    for fold, labels in LABELS.items():
        with np.load(folders[0] / fold / 'predictions' / 'test.npz') as file:
            average = softmax(file['prediction'], -1).mean(0)
        expected.append(classification(average, labels, CLASSES))
        stored = next(f for f in predicted.folds if len(f['id']) == len(labels))
        np.testing.assert_allclose(softmax(stored['prediction'][0], -1), average)
    for metric in ('accuracy', 'uar', 'recall_sad'):
        np.testing.assert_allclose(row.values(metric)[:, 0], [one[metric] for one in expected])
    assert row.results['parameters'] == 3 * 34024
    assert row.text == 'ensemble: mean of probabilities of 3 seeds of good'
    assert predicted.units.words() == '4 speakers'


def test_of_several_runs_each_counts_once(folders):
    *singles, (row, _) = ensembles(runs_of(folders))
    assert [one.name for one, _ in singles] == [f'{name}: 3 seeds averaged' for name in ('good', 'fair', 'blind')]
    parts = []
    for folder in folders:
        with np.load(folder / 'fold_0' / 'predictions' / 'test.npz') as file:
            parts.append(softmax(file['prediction'], -1).mean(0))
    expected = classification(np.mean(parts, 0), LABELS['fold_0'], CLASSES)
    assert row.values('uar')[0, 0] == pytest.approx(expected['uar'])
    assert row.values('ece').shape == (2, 1)
    assert np.isfinite(row.values('ece')).all()
    assert row.name == '3 runs averaged'
    assert 'equal weights, of good (3 seeds, weight 0.33), fair' in row.text


def test_numbers_and_emotions_are_averaged_too():
    numbers = np.array([[[1.0], [3.0]], [[2.0], [5.0]]])
    np.testing.assert_allclose(mean('sentiment', numbers), [[1.5], [4.0]])
    np.testing.assert_allclose(mean('sentiment', numbers, np.array([0.25, 0.75])), [[1.75], [4.5]])
    pairs = np.random.default_rng(0).normal(size=(3, 5, 4))  # two emotions, absent and present side by side
    found = softmax(mean('binary_emotions', pairs).reshape(5, 2, 2), -1)
    np.testing.assert_allclose(found, softmax(pairs.reshape(3, 5, 2, 2), -1).mean(0))


@pytest.mark.parametrize('kind', ['classification', 'sentiment', 'binary_emotions'])
def test_weights_are_the_best_of_a_grid(kind):
    generator = np.random.default_rng(5)
    if kind == 'sentiment':
        labels = generator.normal(size=60)
        members = np.stack([labels + s * generator.normal(size=60) for s in (0.5, 0.8, 3.0)])[..., None]
    elif kind == 'classification':
        labels = generator.integers(3, size=60)
        members = np.stack([s * np.eye(3)[labels] + generator.normal(size=(60, 3)) for s in (1.2, 1, -1)])
    else:
        labels = generator.integers(2, size=(60, 2))
        members = np.stack([s * np.eye(2)[labels] + generator.normal(size=(60, 2, 2)) for s in (1.2, 1, -1)])
        members = members.reshape(3, 60, 4)

    def loss(weights):
        average = mean(kind, members, np.array(weights))
        if kind == 'sentiment':
            return np.mean((average[:, 0] - labels) ** 2)
        logs = log_softmax(average.reshape(*labels.shape, -1), -1)
        return -np.take_along_axis(logs, labels[..., None], -1).mean()

    found = fit_weights(kind, members, labels)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    grid = [(a, b, 20 - a - b) for a, b in itertools.product(range(21), repeat=2) if a + b <= 20]
    best = min(grid, key=lambda places: loss(np.array(places) / 20))
    assert loss(found) <= loss(np.array(best) / 20) + 1e-9
    np.testing.assert_allclose(found, np.array(best) / 20, atol=0.05)
    assert sorted(found)[1] > 0.1  # two of the three have a share


def test_weights_come_from_validation_and_nothing_else(folders):
    *_, (row, _) = ensembles(runs_of(folders), 'validation')
    shares = {(fold, member): share for fold, member, share in row.shares}
    for fold, labels in LABELS.items():
        assert sum(shares[fold, name] for name in ('good', 'fair', 'blind')) == pytest.approx(1)
        assert shares[fold, 'good'] > 0.5
        assert shares[fold, 'blind'] < 0.15
        for folder in folders:  # every test prediction turned round
            write(folder / fold, 'test', labels, -np.ones((3, 1, 1)) * np.eye(3)[labels], prefix=f'{fold}_test')
    *_, (again, _) = ensembles(runs_of(folders), 'validation')
    assert again.shares == row.shares
    assert again.values('accuracy').max() < 0.5
    assert 'weights fitted on validation' in row.text
    assert 'selected on test' not in row.results['protocol']


def test_marks_of_members_stay(folders):
    for place in (folders[1], folders[1] / 'fold_0', folders[1] / 'fold_1'):
        rows = json.loads((place / 'results.json').read_text())['rows']
        damage(place, rows=[{**row, 'marks': ['selected on test']} for row in rows])
    *_, (row, _) = ensembles(runs_of(folders[:2]))
    text = markdown([main_table([row])])
    assert '; ensemble: mean of probabilities' in text
    assert '⚠ selected on test |' in text


def other_records(folder):
    write(folder / 'fold_0', 'test', LABELS['fold_0'], np.zeros((3, 12, 3)), prefix='other')


def other_labels(folder):
    write(folder / 'fold_0', 'test', np.roll(LABELS['fold_0'], 1), np.zeros((3, 12, 3)), prefix='fold_0_test')


def other_validation(folder):
    write(folder / 'fold_1', 'validation', np.arange(6) % 3, np.zeros((3, 6, 3)), prefix='other')


def no_validation(folder):
    (folder / 'fold_1' / 'predictions' / 'validation.npz').unlink()


def no_predictions(folder):
    (folder / 'fold_0' / 'predictions' / 'test.npz').unlink()


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (other_records, 'good and fair test other records (27 in 2 folds and 27 in 2 folds)'),
        (other_labels, 'good and fair test other labels of the same records, first of fold_0_test000'),
        (other_validation, 'good and fair were validated on other records in fold_1'),
        (no_validation, 'fair keeps no validation predictions'),
        (no_predictions, 'fair keeps no test predictions'),
        (
            lambda folder: damage(folder, class_names=['x', 'y', 'z']),
            'test other classes: calm, happy, sad and x, y, z',
        ),
        (lambda folder: damage(folder, metrics='sentiment'), 'are measured as classification and as sentiment'),
    ],
)
def test_what_must_not_be_averaged_is_told_in_one_line(folders, change, told):
    change(folders[1])
    with pytest.raises(ReportError) as error:
        ensembles(runs_of(folders[:2]), 'validation')
    assert told in str(error.value)
    assert '\n' not in str(error.value)


def test_one_seed_alone_has_nothing_to_average(folders):
    for fold, labels in LABELS.items():
        write(folders[0] / fold, 'test', labels, np.zeros((1, len(labels), 3)))
    with pytest.raises(ReportError, match='nothing to average'):
        ensembles(runs_of(folders[:1]))


def test_the_rows_stand_in_every_file(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(canvas, 'DPI', 50)
    flags = ['--ensemble', '--weights', 'validation', '--columns', 'ece,flops', '--html', '--latex']
    assert report.main([*map(str, folders[:2]), *flags, '--output', str(tmp_path / 'out')]) == 0
    for name in ('report.md', 'report.html', 'report.tex', 'results.csv', 'rows.csv'):
        text = (tmp_path / 'out' / name).read_text().replace(r'\_', '_')
        assert 'good: 3 seeds averaged' in text, name
        assert 'ensemble: mean of probabilities, weights fitted on validation, of good' in text, name
        assert 'fold_0' in text or name != 'report.html'
    text = (tmp_path / 'out' / 'report.md').read_text()
    assert 'accuracy, % [95 % by speaker]' in text
    assert '27 test clips of 4 speakers: no p is below 0.12' in text
    assert '**Weights of 2 runs averaged, weights of validation**' in text
    with open(tmp_path / 'out' / 'results.csv') as file:
        rows = {(row['run'], row['metric']): row for row in csv.DictReader(file)}
    row = rows['2 runs averaged, weights of validation', 'accuracy']
    assert (row['seeds'], row['by'], row['flops']) == ('1', 'speaker', '')
    assert row['ensemble'].startswith('ensemble: mean of probabilities')
    assert rows['good', 'accuracy']['ensemble'] == ''
    assert report.main([str(folders[0]), '--weights', 'validation']) == 2
    assert 'weights are those of an ensemble' in capsys.readouterr().err


def test_real_numbers_of_sentiment_are_measured_as_the_rows_are():
    labels = np.linspace(-3, 3, 20)
    members = np.stack([labels + 0.5, labels - 0.5])[..., None]
    assert sentiment(mean('sentiment', members), labels)['mae'] == pytest.approx(0, abs=1e-12)
