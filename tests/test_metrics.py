"""Metrics against hand-worked values, against scikit-learn, and under what must change nothing."""

import numpy as np
import pytest
import sklearn.metrics as reference

from mmer_jax import metrics


def one_hot(classes, count):
    return np.eye(count)[np.asarray(classes)]


def example(kind, rows=60, seed=0):
    """Random (predictions, labels) of a kind; every class occurs, and labels often sit on a rounding boundary."""
    rng = np.random.default_rng(seed)
    if kind == 'classification':
        return rng.normal(size=(rows, 4)), np.arange(rows) % 4
    if kind in ('sentiment', 'polarity', 'regression'):
        low, high, step = {'sentiment': (-6, 7, 2), 'polarity': (-5, 6, 5), 'regression': (2, 11, 2)}[kind]
        return rng.normal(size=rows) * 2, rng.integers(low, high, rows) / step
    return rng.normal(size=(rows, 3, 2)), (rng.random((rows, 3)) < [0.2, 0.5, 0.7]).astype(int)


# ---- one of C classes ----------------------------------------------------------------------------------------


def test_confusion_matrix_rows_are_true():
    found = metrics.confusion_matrix(np.array([0, 1, 1, 2, 1]), np.array([0, 0, 1, 2, 2]), 4)
    assert found.dtype == np.int64
    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_classification_by_hand():
    # true      0 0 0 0 1 1 2     recall    3/4  1/2  0/1
    # predicted 0 0 0 1 1 0 1     precision 3/4  1/3  0
    # f1 = 2 hits / (true + predicted)      6/8  2/5  0
    found = metrics.classification(one_hot([0, 0, 0, 1, 1, 0, 1], 3), [0, 0, 0, 0, 1, 1, 2], names=['a', 'b', 'c'])
    expected = {
        'accuracy': 4 / 7,
        'uar': (3 / 4 + 1 / 2 + 0) / 3,
        'macro_f1': (3 / 4 + 2 / 5 + 0) / 3,
        'weighted_f1': (4 * 3 / 4 + 2 * 2 / 5 + 1 * 0) / 7,
        'recall_a': 3 / 4,
        'recall_b': 1 / 2,
        'recall_c': 0.0,
        'precision_a': 3 / 4,
        'precision_b': 1 / 3,
        'precision_c': np.nan,  # nothing was called c
        'f1_a': 3 / 4,
        'f1_b': 2 / 5,
        'f1_c': 0.0,
    }
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert all(type(value) is float for value in found.values())


def test_a_class_without_labels_is_left_out_of_the_means():
    # Class 2 is predicted once and never true: recalls 1/2 and 1, F1s 2/3 and 1.
    found = metrics.classification(one_hot([0, 2, 1], 3), [0, 0, 1])
    assert found['uar'] == pytest.approx(3 / 4)
    assert found['macro_f1'] == pytest.approx(5 / 6)
    assert np.isnan(found['recall_2'])
    assert (found['precision_2'], found['f1_2']) == (0, 0)
    assert np.isnan([metrics.classification(one_hot([0, 0], 3), [0, 1])[f'{m}_2'] for m in ('recall', 'f1')]).all()


def test_equal_scores_take_the_lowest_class():
    found = metrics.classification(np.zeros((2, 3)), [0, 1])
    assert (found['recall_0'], found['recall_1']) == (1, 0)


@pytest.mark.parametrize('seed', range(5))
def test_classification_is_scikit_learns(seed):
    scores, labels = example('classification', seed=seed)
    labels = labels % 3  # class 3 is predicted and never true
    predicted, occur = scores.argmax(axis=1), np.unique(labels)
    found = metrics.classification(scores, labels)
    assert found['accuracy'] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found['uar'] == pytest.approx(reference.recall_score(labels, predicted, labels=occur, average='macro'))
    assert found['macro_f1'] == pytest.approx(reference.f1_score(labels, predicted, labels=occur, average='macro'))
    assert found['weighted_f1'] == pytest.approx(reference.f1_score(labels, predicted, average='weighted'))
    each = reference.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=np.nan)
    for key, values in zip(('precision', 'recall', 'f1'), each[:3], strict=True):
        assert [found[f'{key}_{c}'] for c in range(4)] == pytest.approx(values, nan_ok=True)
    with pytest.warns(UserWarning, match='y_pred contains classes not in y_true'):
        assert found['uar'] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))


def test_macro_f1_differs_from_scikit_learns_default_as_documented():
    predicted, labels = [0, 2, 1], [0, 0, 1]
    plain = reference.f1_score(labels, predicted, average='macro')
    assert plain == pytest.approx(5 / 6 * 2 / 3)
    assert metrics.classification(one_hot(predicted, 3), labels)['macro_f1'] > plain


# ---- sentiment -----------------------------------------------------------------------------------------------


def test_sentiment_by_hand():
    predicted = np.array([1.0, -1.0, 0.5, -2.0, 3.5])
    labels = np.array([2.0, -1.5, 0.0, 1.0, 3.0])
    found = metrics.sentiment(predicted, labels)
    # |error| 1, .5, .5, 3, .5
    assert found['mae'] == pytest.approx(5.5 / 5)
    # Sums: p 2, y 4.5; products 2+1.5+0-2+10.5=12; squares p 18.5, y 4+2.25+0+1+9=16.25
    r = (12 - 2 * 4.5 / 5) / np.sqrt((18.5 - 4 / 5) * (16.25 - 4.5**2 / 5))
    assert found['corr'] == pytest.approx(r)
    # p rounds to 1 -1 0 -2 3(clipped), y to 2 -2 0 1 3: two of five agree.
    assert found['acc7_round'] == pytest.approx(2 / 5)
    # Clipped to 2: p 1 -1 0 -2 2, y 2 -2 0 1 2.
    assert found['acc5_round'] == pytest.approx(2 / 5)
    # Buckets: p 1 -1 1 -2 3, y 2 -2 0 1 3.
    assert found['acc7_cmu_bucket'] == pytest.approx(1 / 5)
    # >= 0: p + - + - +, y + - + + +. F1 of + is 2*3/(4+3), of - 2*1/(1+2).
    assert found['acc2_has0'] == pytest.approx(4 / 5)
    assert found['f1_has0'] == pytest.approx((4 * 6 / 7 + 1 * 2 / 3) / 5)
    # Without the zero: p + - - +, y + - + +. F1 of + is 2*2/(3+2), of - 2*1/(1+2); recalls 2/3 and 1.
    assert found['acc2_non0'] == pytest.approx(3 / 4)
    assert found['f1_non0'] == pytest.approx((3 * 4 / 5 + 1 * 2 / 3) / 4)
    assert found['uar_non0'] == pytest.approx(5 / 6)
    assert found['macro_f1_non0'] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert len(found) == 13


@pytest.mark.parametrize(('half', 'rounded'), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2)])
def test_halves_round_to_even(half, rounded):
    other = rounded + 1 if rounded <= 0 else rounded - 1
    labels = np.array([half, half])
    with pytest.warns(RuntimeWarning, match='correlation'):
        found = metrics.sentiment(np.array([float(rounded), float(other)]), labels)
    assert found['acc7_round'] == 1 / 2


@pytest.mark.parametrize(
    ('value', 'bucket'), [(0.0, 0), (1e-6, 1), (1.0, 1), (1.1, 2), (2.0, 2), (2.1, 3), (5.0, 3), (-1e-6, -1)]
)
def test_cmu_buckets(value, bucket):
    # The whole numbers are in their own buckets, so exactly one of the seven agrees.
    with pytest.warns(RuntimeWarning):
        hits = [metrics.sentiment([float(k)], np.array([value]))['acc7_cmu_bucket'] for k in (-3, -2, -1, 0, 1, 2, 3)]
    assert hits == [float(k == bucket) for k in (-3, -2, -1, 0, 1, 2, 3)]


def test_zero_prediction_is_non_negative_in_has0_and_not_positive_in_non0():
    with pytest.warns(RuntimeWarning, match='all 2 predictions are 0'):
        found = metrics.sentiment(np.zeros(2), np.array([1.0, 2.0]))
    assert (found['acc2_has0'], found['acc2_non0']) == (1, 0)


@pytest.mark.parametrize('seed', range(3))
def test_sentiment_is_scikit_learns(seed):
    predicted, labels = example('sentiment', seed=seed)
    found = metrics.sentiment(predicted[:, None], labels, names=['ignored'])
    kept = labels != 0
    signs, positive = predicted[kept] > 0, labels[kept] > 0
    assert 0 < kept.sum() < len(labels)
    assert found['mae'] == pytest.approx(reference.mean_absolute_error(labels, predicted))
    assert found['corr'] == pytest.approx(np.corrcoef(predicted, labels)[0, 1])
    assert found['f1_has0'] == pytest.approx(reference.f1_score(labels >= 0, predicted >= 0, average='weighted'))
    assert found['acc2_non0'] == pytest.approx(reference.accuracy_score(positive, signs))
    assert found['f1_non0'] == pytest.approx(reference.f1_score(positive, signs, average='weighted'))
    assert found['macro_f1_non0'] == pytest.approx(reference.f1_score(positive, signs, average='macro'))
    assert found['uar_non0'] == pytest.approx(reference.balanced_accuracy_score(positive, signs))


def test_constant_predictions_warn_and_correlate_0():
    # The mean of three 0.1s is not 0.1 in floating point: a comparison of deviations with 0 would miss it.
    with pytest.warns(RuntimeWarning, match=r'correlation is undefined.*all 3 predictions are 0.1'):
        assert metrics.sentiment(np.full(3, 0.1), np.array([1.0, 2.0, 3.0]))['corr'] == 0


def test_constant_labels_warn_and_correlate_0():
    with pytest.warns(RuntimeWarning, match='all 2 labels are 1'):
        assert metrics.sentiment(np.array([1.0, 2.0]), np.ones(2))['corr'] == 0


def test_zero_labels_only_warn_and_give_0():
    with pytest.warns(RuntimeWarning) as caught:
        found = metrics.sentiment(np.array([1.0, -1.0]), np.zeros(2))
    assert any('without zero labels' in str(each.message) for each in caught)
    assert [found[key] for key in ('acc2_non0', 'f1_non0', 'uar_non0', 'macro_f1_non0')] == [0] * 4
    assert found['acc2_has0'] == 1 / 2


@pytest.mark.parametrize('scale', [1e-200, 1.0, 1e200])
def test_correlation_does_not_depend_on_scale(scale):
    predicted = np.array([1.0, 2.0, 4.0])
    # Deviations of p (-4, -1, 5)/3, of y (-1, 1, 0): r = (4 - 1) / sqrt(42 * 2).
    found = metrics.sentiment(predicted * scale, np.array([1.0, 3.0, 2.0]))
    assert found['corr'] == pytest.approx(3 / np.sqrt(84))


# ---- yes-or-no emotions --------------------------------------------------------------------------------------


def test_binary_emotions_by_hand():
    # happy: true 1 1 0 0 0 0, predicted 1 0 1 0 0 0: tp 1, tn 3, p 2, n 4.
    # sad:   true 0 0 0 0 0 1, predicted all 0: tp 0, tn 5, p 1, n 5.
    labels = np.array([[1, 0], [1, 0], [0, 0], [0, 0], [0, 0], [0, 1]])
    predicted = np.array([[1, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])
    found = metrics.binary_emotions(one_hot(predicted, 2), labels, names=('happy', 'sad'))
    expected = {
        'accuracy_happy': 4 / 6,
        'accuracy_sad': 5 / 6,
        'accuracy': 9 / 12,
        # F1 of absent 2*3/(4+4), of present 2*1/(2+2); for sad 2*5/(5+6) and 0.
        'weighted_f1_happy': (4 * 3 / 4 + 2 * 1 / 2) / 6,
        'weighted_f1_sad': (5 * 10 / 11) / 6,
        'weighted_f1': (4 / 6 + 50 / 66) / 2,
        'macro_f1_happy': (3 / 4 + 1 / 2) / 2,
        'macro_f1_sad': 5 / 11,
        'macro_f1': (5 / 8 + 5 / 11) / 2,
        # Recalls 3/4 and 1/2; 1 and 0.
        'uar_happy': 5 / 8,
        'uar_sad': 1 / 2,
        'uar': 9 / 16,
        # (tp * n / p + tn) / (2n)
        'weighted_accuracy_happy': (1 * 4 / 2 + 3) / 8,
        'weighted_accuracy_sad': (0 * 5 / 1 + 5) / 10,
        'weighted_accuracy': 9 / 16,
    }
    assert found == pytest.approx(expected, abs=1e-12)


def test_binary_emotions_accepts_each_shape():
    scores, labels = example('binary_emotions')
    expected = metrics.binary_emotions(scores, labels)
    assert metrics.binary_emotions(scores.reshape(-1, 6), labels) == expected
    assert metrics.binary_emotions(scores, one_hot(labels, 2)) == expected


def test_equal_scores_are_absent():
    found = metrics.binary_emotions(np.zeros((2, 1, 2)), np.array([[0], [1]]))
    assert found['accuracy_0'] == 1 / 2
    assert metrics.binary_emotions(np.zeros((2, 1, 2)), np.array([[0], [0]]))['accuracy_0'] == 1


def test_always_negative_reaches_the_published_iemocap_accuracies():
    # CMU's IEMOCAP test set: 135, 193, 227 and 383 positives of 938. Always "absent" scores the published
    # 85.6, 79.4, 75.8 and 59.2 with weighted F1 79.0, 70.3, 65.4, 44.0, which UAR shows to be chance.
    labels = np.stack([np.arange(938) < count for count in (135, 193, 227, 383)], axis=1)
    found = metrics.floors('binary_emotions', labels, names=['happy', 'sad', 'angry', 'neutral'])
    accuracies = [100 * found[f'accuracy_{name}'] for name in ('happy', 'sad', 'angry', 'neutral')]
    weighted = [100 * found[f'weighted_f1_{name}'] for name in ('happy', 'sad', 'angry', 'neutral')]
    assert accuracies == pytest.approx([85.6, 79.4, 75.8, 59.2], abs=0.05)
    assert weighted == pytest.approx([79.0, 70.3, 65.4, 44.0], abs=0.05)
    assert found['uar'] == 1 / 2


# ---- properties of all kinds ---------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_order_of_rows_changes_nothing(kind):
    predictions, labels = example(kind)
    order = np.random.default_rng(1).permutation(len(labels))
    expected = metrics.METRICS[kind](predictions, labels, names=None)
    assert metrics.METRICS[kind](predictions[order], labels[order], names=None) == pytest.approx(expected)
    assert metrics.METRICS[kind](predictions, labels[order], names=None) != pytest.approx(expected)


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_every_row_twice_changes_nothing(kind):
    predictions, labels = example(kind)
    twice = metrics.METRICS[kind](np.concatenate([predictions] * 2), np.concatenate([labels] * 2))
    assert twice == pytest.approx(metrics.METRICS[kind](predictions, labels))


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_perfect_predictions(kind):
    classes = {'classification': 4, 'binary_emotions': 2}.get(kind)
    _, labels = example(kind)
    found = metrics.METRICS[kind](one_hot(labels, classes) if classes else labels, labels)
    assert found == pytest.approx({key: 0.0 if key in ('mae', 'rmse') else 1.0 for key in found})


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_inputs_stay_as_they_are(kind):
    predictions, labels = example(kind)
    before = predictions.copy(), labels.copy()
    metrics.METRICS[kind](predictions, labels)
    np.testing.assert_array_equal(predictions, before[0])
    np.testing.assert_array_equal(labels, before[1])


# ---- floors and direction ------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_floors_have_the_same_keys(kind):
    predictions, labels = example(kind)
    assert list(metrics.floors(kind, labels)) == list(metrics.METRICS[kind](predictions, labels))


def test_floors_of_mosi_and_mosei_counts():
    # MOSI test: 379 negative, 30 zero, 277 positive. 379/656 and 379/686.
    mosi = metrics.floors('sentiment', np.repeat([-1.0, 0.0, 1.0], [379, 30, 277]))
    assert 100 * mosi['acc2_non0'] == pytest.approx(57.8, abs=0.05)
    assert 100 * mosi['acc2_has0'] == pytest.approx(55.2, abs=0.05)
    # All negative on non0: F1 of negative 2*379/(379+656), weighted 379/656.
    assert mosi['f1_non0'] == pytest.approx(379 / 656 * 758 / 1035)
    assert (mosi['uar_non0'], mosi['corr']) == (0.5, 0)
    # MOSEI test: 1350, 1025, 2284, so the best constants are positive and non-negative.
    mosei = metrics.floors('sentiment', np.repeat([-1.0, 0.0, 1.0], [1350, 1025, 2284]))
    assert 100 * mosei['acc2_non0'] == pytest.approx(62.9, abs=0.05)
    assert 100 * mosei['acc2_has0'] == pytest.approx(71.0, abs=0.05)


def test_each_sentiment_floor_has_its_own_constant():
    labels = np.array([-3.0, -0.2, 0.1, 0.4, 2.6, 2.9, 3.0])
    found = metrics.floors('sentiment', labels)
    # Median .4: |error| 3.4 .6 .3 0 2.2 2.5 2.6.
    assert found['mae'] == pytest.approx(11.6 / 7)
    # Rounded to -3 0 0 0 3 3 3 and, clipped, -2 0 0 0 2 2 2; buckets -3 -1 1 1 3 3 3.
    assert (found['acc7_round'], found['acc5_round'], found['acc7_cmu_bucket']) == (3 / 7, 3 / 7, 3 / 7)
    assert found['acc2_has0'] == 5 / 7


@pytest.mark.parametrize('seed', range(3))
def test_no_constant_beats_the_sentiment_floor(seed):
    _, labels = example('sentiment', seed=seed)
    floor = metrics.floors('sentiment', labels)
    reached = set()
    for constant in [*np.arange(-4, 4.01, 0.25), labels.mean()]:
        with pytest.warns(RuntimeWarning, match='correlation'):
            found = metrics.sentiment(np.full(len(labels), constant), labels)
        for key, value in found.items():
            better = value - floor[key] if metrics.is_better_high(key) else floor[key] - value
            assert better <= 1e-12, (key, constant)
            reached |= {key} if abs(better) <= 1e-12 else set()
    assert reached == set(floor)


def test_floor_of_classification_is_the_majority_class():
    # 3 of 5 are class 1. F1 of class 1 is 2*3/(3+5).
    found = metrics.floors('classification', np.array([1, 0, 1, 2, 1]), names=['a', 'b', 'c', 'd'])
    assert found['accuracy'] == 3 / 5
    assert found['uar'] == pytest.approx(1 / 3)
    assert found['macro_f1'] == pytest.approx(3 / 4 / 3)
    assert found['weighted_f1'] == pytest.approx(3 / 5 * 3 / 4)
    assert (found['recall_b'], found['precision_b'], found['recall_a']) == (1, 3 / 5, 0)
    assert np.isnan([found['recall_d'], found['precision_a']]).all()
    assert metrics.floors('classification', np.array([0, 0]))['accuracy'] == 1


def test_unknown_kind_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'emotions'.*classification, sentiment, polarity, regression, binary_emotions"
    ):
        metrics.floors('emotions', np.zeros(3))


@pytest.mark.parametrize('name', ['mae', 'rmse', 'loss', 'validation/mae', 'validation_mae', 'total_loss', 'loss_task'])
def test_lower_is_better(name):
    assert not metrics.is_better_high(name)


@pytest.mark.parametrize(
    'name', ['accuracy', 'corr', 'ccc', 'test/uar', 'f1_non0', 'recall_maelstrom', 'lossless_f1', 'recall_gloss']
)
def test_higher_is_better(name):
    assert metrics.is_better_high(name)


# ---- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', metrics.METRICS)
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(kind, bad):
    predictions, labels = example(kind)
    broken = predictions.copy()
    broken[7, ...] = bad
    with pytest.raises(ValueError, match=r'predictions hold \d values of \d+ that are not finite, first in row 7'):
        metrics.METRICS[kind](broken, labels)
    broken = labels.astype(float)
    broken[5, ...] = bad
    with pytest.raises(ValueError, match=r'labels hold .* not finite, first in row 5'):
        metrics.METRICS[kind](predictions, broken)
    with pytest.raises(ValueError, match=r'labels hold .* not finite, first in row 5'):
        metrics.floors(kind, broken)


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_rows_must_match(kind):
    predictions, labels = example(kind)
    with pytest.raises(ValueError, match='predictions have 59 rows and labels 60'):
        metrics.METRICS[kind](predictions[1:], labels)


@pytest.mark.parametrize('kind', metrics.METRICS)
def test_empty_split(kind):
    predictions, labels = example(kind)
    with pytest.raises(ValueError, match='is the split empty'):
        metrics.METRICS[kind](predictions[:0], labels[:0])
    with pytest.raises(ValueError, match='is the split empty'):
        metrics.floors(kind, labels[:0])


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ([0, 3], r'hold 3 in row 1: expected whole numbers from 0 to 2'),
        ([-1, 0], r'hold -1 in row 0: expected whole numbers from 0 to 2'),
        ([0, 0.5], r'hold 0.5 in row 1'),
        ([[0], [1]], r'labels have shape \(2, 1\): expected \(R,\)'),
    ],
)
def test_wrong_class_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.classification(np.zeros((2, 3)), labels)


@pytest.mark.parametrize('shape', [(2,), (2, 1), (2, 3, 1)])
def test_wrong_class_scores(shape):
    with pytest.raises(ValueError, match=r'predictions have shape .* expected \(R, C\)'):
        metrics.classification(np.zeros(shape), [0, 0])


def test_wrong_sentiment_shapes():
    with pytest.raises(ValueError, match=r'predictions have shape \(2, 2\): expected \(R,\) or \(R, 1\)'):
        metrics.sentiment(np.zeros((2, 2)), np.ones(2))
    with pytest.raises(ValueError, match=r'labels have shape \(2, 1\): expected \(R,\)'):
        metrics.sentiment(np.zeros(2), np.ones((2, 1)))


def test_wrong_emotion_shapes():
    with pytest.raises(ValueError, match=r'shape \(2, 3, 2\): labels with 4 emotions expect \(R, 4, 2\) or \(R, 8\)'):
        metrics.binary_emotions(np.zeros((2, 3, 2)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r'labels have shape \(2,\): expected \(R, E\)'):
        metrics.binary_emotions(np.zeros((2, 2)), np.zeros(2))


def test_wrong_emotion_labels():
    with pytest.raises(ValueError, match=r'hold 2 in row 1: expected 0 or 1.*presence'):
        metrics.binary_emotions(np.zeros((2, 1, 2)), np.array([[0], [2]]))
    with pytest.raises(ValueError, match=r'not one-hot: row 1, emotion 0 is \[1.0, 1.0\]'):
        metrics.binary_emotions(np.zeros((2, 1, 2)), np.array([[[0, 1]], [[1, 1]]]))


def test_wrong_names():
    with pytest.raises(ValueError, match=r'2 names \(a, b\) for 3 classes'):
        metrics.classification(np.zeros((2, 3)), [0, 1], names=['a', 'b'])
    with pytest.raises(ValueError, match='names of the emotions repeat: a, a'):
        metrics.binary_emotions(np.zeros((2, 2, 2)), np.zeros((2, 2)), names=['a', 'a'])
