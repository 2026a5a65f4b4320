"""Intervals and paired tests against scipy and by hand; Holm's correction by hand."""

import types

import numpy as np
import pytest
from scipy import stats

from mmer_jax.metrics import classification, confusion_matrix
from mmer_jax.metrics.confusion import summaries
from mmer_jax.results import statistics
from mmer_jax.results.statistics import Predicted, compare, holm

NAMES = ['calm', 'happy', 'sad']


def run_of(answers, labels, *, metrics='classification', headline=('accuracy', 'uar'), ids=None):
    """A run of one fold from answers (N, R): class numbers, or real numbers; its table's numbers are those measured."""
    answers, labels = np.asarray(answers), np.asarray(labels)
    classes = metrics == 'classification'
    prediction = np.eye(3)[answers] if classes else answers[..., None]
    measured = [statistics.KINDS[metrics].measure(one, labels, NAMES if classes else None) for one in prediction]
    run = types.SimpleNamespace(
        results={'metrics': metrics, 'headline': list(headline), 'class_names': NAMES if classes else [], 'rows': []},
        values=lambda metric: np.array([[one[metric] for one in measured]]),
    )
    ids = np.array([f'c{n:04}' for n in range(len(labels))]) if ids is None else ids
    return Predicted(run, ({'id': ids, 'label': labels, 'prediction': prediction},))


def answers_of(generator, labels, right):
    """Answers of which a share `right` is right."""
    return np.where(generator.random(len(labels)) < right, labels, (labels + 1) % 3)


def test_the_interval_is_scipys():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=400)
    answers = answers_of(generator, labels, 0.7)
    found = run_of([answers], labels).interval('accuracy')
    right = (answers == labels).astype(float)
    expected = stats.bootstrap((right,), np.mean, n_resamples=4000, method='percentile', rng=1).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=0.006)
    # ... and that of the binomial distribution, which needs no draws
    assert found == pytest.approx(right.mean() + np.array([-1.96, 1.96]) * right.std() / 20, abs=0.006)


def test_the_quick_way_measures_what_the_table_does():
    """A metric of every draw equals that of `classification` on the records drawn."""
    generator = np.random.default_rng(3)
    labels = generator.integers(3, size=30)
    answers = answers_of(generator, labels, 0.5)
    one = run_of([answers], labels, headline=('accuracy', 'uar', 'macro_f1', 'weighted_f1'))
    again = np.random.default_rng(np.frombuffer(one.records[0], np.uint32))
    for draw in range(5):
        chosen = again.integers(30, size=30)
        expected = classification(np.eye(3)[answers[chosen]], labels[chosen], NAMES)
        assert {m: values[draw] for m, values in one.draws.items()} == pytest.approx(
            {m: expected[m] for m in one.draws}, abs=1e-12
        )


def test_summaries_of_many_matrices_leave_out_classes_that_do_not_occur():
    matrices = np.stack(
        [confusion_matrix(np.array([0, 1, 1]), np.array(labels), 3) for labels in ([0, 1, 1], [0, 0, 0])]
    )
    found = summaries(matrices)
    np.testing.assert_allclose(found['uar'], [1.0, 1 / 3])
    np.testing.assert_allclose(found['macro_f1'], [1.0, 0.5])
    assert summaries(np.zeros((3, 3), int)) == {'accuracy': 0, 'uar': 0, 'macro_f1': 0, 'weighted_f1': 0}


def test_a_paired_test_is_that_of_mcnemar():
    """p of the difference in accuracy, near McNemar's exact one on the records that one run alone has right."""
    generator = np.random.default_rng(5)
    labels = generator.integers(3, size=500)
    first = answers_of(generator, labels, 0.7)
    second = np.where(generator.random(500) < 0.8, first, answers_of(generator, labels, 0.6))
    runs = [run_of([first], labels), run_of([second], labels)]
    (found,) = compare(runs, ['first', 'second'], 'accuracy')
    only = [np.sum((a == labels) & (b != labels)) for a, b in ((first, second), (second, first))]
    expected = stats.binomtest(only[0], sum(only)).pvalue
    assert found.difference == pytest.approx((only[0] - only[1]) / 500)
    assert 0.001 < expected < 0.3
    assert found.p == pytest.approx(expected, abs=0.02)
    (same,) = compare([runs[0], runs[0]], ['first', 'first'], 'accuracy')
    assert same.p == 1.0


def test_no_difference_is_seldom_called_one(monkeypatch):
    """Two runs of equal skill: p is about uniform, below 0.1 in about a tenth of the data sets."""
    monkeypatch.setattr(statistics, 'DRAWS', 400)
    ps = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        labels = generator.integers(3, size=100)
        runs = [run_of([answers_of(generator, labels, 0.6)], labels) for _ in range(2)]
        ps.append(compare(runs, ['a', 'b'], 'accuracy')[0].p)
    assert np.mean(np.array(ps) < 0.1) < 0.2
    assert 0.35 < np.mean(ps) < 0.65


def test_only_the_same_records_are_paired():
    labels = np.arange(30) % 3
    runs = [run_of([labels], labels), run_of([labels], labels, ids=np.array([f'x{n:04}' for n in range(30)]))]
    assert compare(runs, ['a', 'b'], 'accuracy') == []
    assert compare([runs[0], run_of([labels], np.roll(labels, 1))], ['a', 'b'], 'accuracy') == []


def test_many_runs_are_tested_against_the_first():
    labels = np.arange(30) % 3
    runs = [run_of([np.roll(labels, n)], labels) for n in range(8)]
    found = compare(runs, list('abcdefgh'), 'accuracy')
    assert [(one.first, one.second) for one in found] == [('a', name) for name in 'bcdefgh']
    assert len(compare(runs[:4], list('abcd'), 'accuracy')) == 6


def test_real_numbers_are_measured_draw_by_draw(monkeypatch):
    monkeypatch.setattr(statistics, 'SLOW_DRAWS', 200)
    generator = np.random.default_rng(2)
    labels = generator.uniform(1, 5, 200)
    one = run_of([labels + generator.normal(size=200)], labels, metrics='regression', headline=('mae', 'loss'))
    error = np.abs(one.folds[0]['prediction'][0, :, 0] - labels)
    low, high = one.interval('mae')
    assert (low, high) == pytest.approx(error.mean() + np.array([-1.96, 1.96]) * error.std() / np.sqrt(200), abs=0.03)
    assert one.interval('loss') is None


def test_holm_by_hand():
    """Sorted .01 .02 .03 .5: times 4, 3, 2, 1, never falling, at most 1; in the order given."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
