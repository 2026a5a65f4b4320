"""Intervals by speaker, swaps and power: by brute force, against scipy, and by simulation."""

import itertools
import types

import numpy as np
import pytest
from scipy import stats

from mmer_jax.metrics import classification, regression
from mmer_jax.results import statistics, swaps, units
from mmer_jax.results.power import Power, detectable, small_sets, smallest_p
from mmer_jax.results.runs import find_runs
from mmer_jax.results.statistics import Predicted, compare, read_all
from mmer_jax.results.units import Units
from tests.finished_runs import classification_run

NAMES = ['calm', 'happy', 'sad']


def predicted(answers, labels, speakers=None, *, folds=1, kind='classification', headline=('accuracy', 'uar')):
    """A run from answers (N, R): class numbers, or real numbers; the records are cut into `folds` of one size."""
    answers, labels = np.asarray(answers), np.asarray(labels)
    classes = kind == 'classification'
    scores = np.eye(3)[answers] if classes else answers[..., None].astype(float)
    parts = []
    for place in np.split(np.arange(len(labels)), folds):
        fold = {'id': np.array([f'c{n:04}' for n in place]), 'label': labels[place], 'prediction': scores[:, place]}
        parts.append(fold if speakers is None else {**fold, 'speaker': np.asarray(speakers)[place].astype(str)})
    measure = statistics.KINDS[kind].measure
    found = [[measure(one, f['label'], NAMES if classes else None) for one in f['prediction']] for f in parts]
    run = types.SimpleNamespace(
        results={'metrics': kind, 'headline': list(headline), 'class_names': NAMES if classes else [], 'rows': []},
        values=lambda metric: np.array([[one[metric] for one in fold] for fold in found]),
        name='run',
    )
    return Predicted(run, tuple(parts))


def alike(generator, speakers, clips, right=0.7):
    """labels, answers and speakers: a speaker's clips are nearly all right or nearly all wrong."""
    labels = generator.integers(3, size=speakers * clips)
    easy = np.repeat(np.where(generator.random(speakers) < right, 0.95, 0.2), clips)
    answers = np.where(generator.random(len(labels)) < easy, labels, (labels + 1) % 3)
    return labels, answers, np.repeat(np.arange(speakers), clips)


# ---- intervals -----------------------------------------------------------------------------------------------


def test_an_interval_by_speaker_is_scipys_over_the_speakers_means():
    labels, answers, speakers = alike(np.random.default_rng(0), 24, 10)
    by_speaker = (answers == labels).reshape(24, 10).mean(1)
    scipys = stats.bootstrap((by_speaker,), np.mean, n_resamples=4000, method='percentile', rng=1).confidence_interval
    one = predicted([answers], labels, speakers)
    assert (one.units.what, one.units.count) == ('speaker', 24)
    low, high = one.interval('accuracy')
    assert (low, high) == pytest.approx(tuple(scipys), abs=0.015)
    # ... in four folds of six speakers as well: the mean over folds is the same number
    assert predicted([answers], labels, speakers, folds=4).interval('accuracy') == pytest.approx((low, high), abs=0.03)
    narrow = predicted([answers], labels).interval('accuracy')
    assert narrow[1] - narrow[0] < 0.6 * (high - low)  # by record it promises too much


def test_a_fold_of_one_speaker_and_speakers_in_every_fold():
    labels, answers, speakers = alike(np.random.default_rng(2), 6, 4)
    by_speaker = (answers == labels).reshape(6, 4).mean(1)
    one = predicted([answers], labels, speakers, folds=6)
    all_draws = np.array(list(itertools.product(by_speaker, repeat=6))).mean(1)
    expected = np.quantile(all_draws, [0.025, 0.975])
    assert one.interval('accuracy') == pytest.approx(tuple(expected), abs=0.05)
    shuffled = predicted([answers], labels, np.tile(np.arange(6), 4), folds=4)  # each speaker in each fold
    assert all((weight == 1).all() for _, weight in units.drawn(shuffled.units, 50, shuffled.records))


def test_real_numbers_by_speaker(monkeypatch):
    monkeypatch.setattr(statistics, 'SLOW_DRAWS', 300)
    generator = np.random.default_rng(4)
    errors = np.repeat(generator.uniform(0, 2, 12), 5)
    labels = generator.uniform(1, 5, 60)
    one = predicted([labels + errors], labels, np.repeat(np.arange(12), 5), kind='regression', headline=('mae',))
    means = errors.reshape(12, 5)[:, 0]
    half = 1.96 * means.std() / np.sqrt(12)
    assert one.interval('mae') == pytest.approx((means.mean() - half, means.mean() + half), abs=0.12)


def test_speakers_come_from_the_predictions_or_the_manifest_or_another_run(tmp_path):
    """Ids a to d in both folds: the manifest knows them; without one, another run on the same records does."""
    runs = [statistics_run(tmp_path / name, name) for name in ('old', 'plain', 'new')]
    (tmp_path / 'data').mkdir()
    lines = ['record,id,label,speaker', *(f'{n},{name},0,s{n % 2}' for n, name in enumerate('abcd'))]
    (tmp_path / 'data' / 'manifest.csv').write_text('\n'.join(lines))
    runs[0].config['data.directory'] = str(tmp_path / 'data')
    assert read_all(runs[1:2])['plain'].units.what == 'record'
    found = read_all(runs)
    assert [found[name].folds[0]['speaker'].tolist() for name in ('old', 'plain')] == [['s0', 's1', 's0', 's1']] * 2
    for fold in ('fold_0', 'fold_1'):
        path = runs[2].folds[fold] / 'predictions' / 'test.npz'
        with np.load(path) as file:
            np.savez(path, **dict(file), speaker=np.array(['x', 'x', 'y', '']))
    assert read_all(runs[2:])['new'].units.what == 'record'  # one is unknown


def statistics_run(folder, name):
    (run,), _ = find_runs([classification_run(folder, config=name)])
    return run


# ---- swaps ---------------------------------------------------------------------------------------------------


def brute(first, second, measure, speakers, labels):
    """p over all swaps of whole speakers, in plain loops; answers (N, R) of as many seeds."""
    names = sorted(set(speakers))
    differences = []
    for swapped in itertools.product([False, True], repeat=len(names)):
        taken = np.isin(speakers, [name for name, swap in zip(names, swapped, strict=True) if swap])
        pairs = [(np.where(taken, b, a), np.where(taken, a, b)) for a, b in zip(first, second, strict=True)]
        differences.append(np.mean([measure(a, labels) - measure(b, labels) for a, b in pairs]))
    return np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)


@pytest.mark.parametrize('metric', ['accuracy', 'uar', 'macro_f1'])
def test_p_of_classes_is_that_of_all_swaps(metric):
    generator = np.random.default_rng(7)
    labels, speakers = generator.integers(3, size=21), np.repeat(np.arange(7), 3)
    first = np.where(generator.random((2, 21)) < 0.8, labels, generator.integers(3, size=(2, 21)))
    second = np.where(generator.random((2, 21)) < 0.5, labels, generator.integers(3, size=(2, 21)))
    runs = [predicted(answers, labels, speakers, headline=(metric,)) for answers in (first, second)]
    (found,) = compare(runs, ['a', 'b'], metric)

    def measure(answers, labels):
        return classification(np.eye(3)[answers], labels, NAMES)[metric]

    assert found.p == pytest.approx(brute(first, second, measure, speakers, labels))
    assert found.power.units == runs[0].units


def test_p_of_numbers_is_that_of_all_swaps():
    generator = np.random.default_rng(8)
    labels, speakers = generator.normal(size=18), np.repeat(np.arange(6), 3)
    first, second = labels + generator.normal(size=(1, 18)), labels + 2 * generator.normal(size=(1, 18))
    runs = [predicted(x, labels, speakers, kind='regression', headline=('mae', 'corr')) for x in (first, second)]
    for metric in ('mae', 'corr'):
        (found,) = compare(runs, ['a', 'b'], metric)
        expected = brute(first, second, lambda x, y, m=metric: regression(x[:, None], y)[m], speakers, labels)
        assert found.p == pytest.approx(expected)


def test_p_is_scipys_and_a_seed_more_changes_nothing():
    """Equal speakers: swapping is the sign flip of a speaker's difference in accuracy, which scipy knows."""
    labels, first, speakers = alike(np.random.default_rng(11), 9, 6)
    second = np.where(np.random.default_rng(12).random(54) < 0.4, labels, (labels + 2) % 3)
    differences = ((first == labels).astype(float) - (second == labels)).reshape(9, 6).mean(1)
    scipys = stats.permutation_test((differences,), np.mean, permutation_type='samples', n_resamples=np.inf)
    (found,) = compare([predicted([x], labels, speakers) for x in (first, second)], ['a', 'b'], 'accuracy')
    assert found.p == pytest.approx(scipys.pvalue)
    (more,) = compare(
        [predicted([first] * 3, labels, speakers), predicted([second] * 2, labels, speakers)], ['a', 'b'], 'accuracy'
    )
    assert more.p == pytest.approx(found.p)
    assert more.difference == pytest.approx(differences.mean())


def test_swaps_of_records_promise_more_than_speakers_keep():
    """Two speakers decide all: by record the difference is sure, by speaker nothing can be shown."""
    labels, speakers = np.arange(60) % 3, np.repeat(['a', 'b'], 30)
    right, wrong = labels, np.where(np.arange(60) % 2, labels, (labels + 1) % 3)
    (by_record,) = compare([predicted([x], labels) for x in (right, wrong)], ['a', 'b'], 'accuracy')
    (by_speaker,) = compare([predicted([x], labels, speakers) for x in (right, wrong)], ['a', 'b'], 'accuracy')
    assert by_record.p < 0.01
    assert by_speaker.p == 0.5 == smallest_p(by_speaker.power.units)


def test_an_early_end_leaves_p_what_it_is():
    """Of a hundred units, 500 swaps: ended early, p is near that of the sign test on as many draws."""
    generator = np.random.default_rng(3)
    values = generator.normal(0.05, 1, 100)
    swapped = generator.random((5000, 100)) < 0.5
    seen = []

    def difference(swap):
        seen.append(0)
        return np.array([np.where(swap, -values, values).mean()])

    found = swaps._one_by_one(difference, swapped, ['mean'], whole=False)['mean']
    all_of_them = np.abs(np.where(swapped, -values, values).mean(1)) >= abs(values.mean())
    assert len(seen) < 500
    assert found == pytest.approx(all_of_them.mean(), abs=0.12)


# ---- power ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('count', [8, 80])
def test_power_by_simulation(count):
    """Differences of `count` units, normal of deviation 1 about the detectable mean: a t test finds four in five."""
    generator = np.random.default_rng(count)
    drawn = generator.normal(size=(4000, count)).mean(1) * np.sqrt((count - 1) / count)  # as a bootstrap's
    smallest = detectable(drawn, Units('record', count, ()))
    found = stats.ttest_1samp(generator.normal(smallest, 1, (4000, count)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_many_units_need_2_8_standard_errors():
    drawn = np.array([-1.0, 1.0] * 500)
    assert detectable(drawn, Units('record', 10**6, ())) == pytest.approx(1.96 + 0.8416, abs=1e-3)
    assert detectable(np.zeros(10), Units('record', 9, ())) is None


def test_a_small_set_is_told_and_a_large_one_is_not():
    eighty = Power('accuracy', ('a', 'b'), 80, Units('speaker', 6, ()), 0.142)
    few = Power('accuracy', ('a', 'b'), 80, Units('speaker', 4, ()), 0.142)
    large = Power('accuracy', ('a', 'c'), 1440, Units('speaker', 24, ()), 0.05)
    wide = Power('accuracy', ('a', 'c'), 80, Units('speaker', 6, ()), 0.2)
    told = small_sets([wide, eighty, large])
    assert told == [
        '80 test clips of 6 speakers: a test finds a true difference in accuracy of 14.2 points between a and b, and '
        'of 20.0 points between a and c in 80 % of such sets.'
    ]
    (nothing,) = small_sets([few, large])
    assert nothing.startswith('80 test clips of 4 speakers: no p is below 0.12 when so few are swapped')
    numbers = Power('mae', ('a', 'b'), 150, Units('record', 150, ()), 0.0625)
    assert 'in MAE of 0.062 between a and b in 80 %' in small_sets([numbers])[0]
    never = Power('mae', ('a', 'b'), 150, Units('record', 150, ()), None)
    assert small_sets([never]) == ['150 test clips: the rows never differ in MAE.']
