"""Which metrics fit which labels, the concordance of dimensional emotion, and floors where constants are equal."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as reference

from mmer_jax import metrics
from mmer_jax.data.schema import LABEL_KINDS
from mmer_jax.metrics import confusion
from tests.test_metrics import example

MOSI_ONLY = {'acc7_round', 'acc7_cmu_bucket', 'acc5_round'}
SIGNS = {'acc2_has0', 'f1_has0', 'acc2_non0', 'f1_non0', 'uar_non0', 'macro_f1_non0'}
ANY_SCALE = {'mae', 'rmse', 'corr', 'ccc'}


# ---- what fits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('labels', 'kind'),
    [
        ([-3.0, -1.2, 0.0, 2.4], 'sentiment'),
        ([-3.0000002, 1.0], 'sentiment'),  # a mean of votes in float32
        ([-1.8, 1.6], 'sentiment'),  # a part of MOSI
        ([-1.0000001, 0.5], 'polarity'),
        ([-1.0, -0.2, 0.0, 1.0], 'polarity'),  # CH-SIMS; valence of RECOLA and Aff-Wild
        ([1, 2, 3, 4, 5], 'regression'),  # ratings: with MOSI's metrics Acc-2 was 100 %
        ([0.0, 1.0, 2.0, 3.0], 'regression'),  # MOSEI's intensities of emotions
        ([-2.0, -1.0, 0.0], 'regression'),
        ([-5.0, 4.0], 'regression'),
        ([0.0, 0.0], 'regression'),
        ([2.5], 'regression'),
    ],
)
def test_the_labels_of_a_data_set_decide(labels, kind):
    assert metrics.metric_kind('regression', np.array(labels, np.float32)) == kind


def test_classes_and_emotions_have_their_own():
    assert metrics.metric_kind('classes', np.array([0, 1])) == 'classification'
    assert metrics.metric_kind('binary', np.array([[0, 1]])) == 'binary_emotions'


@pytest.mark.parametrize(
    ('kind', 'keys'),
    [('sentiment', ANY_SCALE | SIGNS | MOSI_ONLY), ('polarity', ANY_SCALE | SIGNS), ('regression', ANY_SCALE)],
)
def test_what_each_kind_measures(kind, keys):
    labels = np.array([-0.5, 0.0, 1.0])
    assert set(metrics.METRICS[kind](labels[::-1], labels)) == set(metrics.floors(kind, labels)) == keys


def test_the_kinds_agree_on_what_they_share():
    rng = np.random.default_rng(0)
    predicted, labels = rng.normal(size=40), rng.integers(-6, 7, 40) / 2
    full = metrics.sentiment(predicted, labels)
    for kind in ('polarity', 'regression'):
        for function in (metrics.METRICS[kind](predicted, labels), metrics.floors(kind, labels)):
            assert all(type(value) is float for value in function.values())
        assert metrics.METRICS[kind](predicted, labels).items() <= full.items()
        assert metrics.floors(kind, labels).items() <= metrics.floors('sentiment', labels).items()


def test_acc5_clips_to_2_and_acc7_to_3():
    found = metrics.sentiment(np.array([3.0, 2.0, -3.0, 0.0]), np.array([2.0, 3.0, -1.6, 1.0]))
    assert (found['acc7_round'], found['acc5_round']) == (0, 3 / 4)
    assert metrics.floors('sentiment', np.array([2.0, 3.0, -3.0]))['acc5_round'] == 2 / 3


def test_why_a_metric_is_not_measured_is_said_with_the_labels_range():
    assert 'the labels go from 1 to 5: Acc-7' in metrics.unfit('regression', np.array([1.0, 5.0, 2.0]))
    assert metrics.unfit('sentiment', np.array([-3.0, 3.0])) == metrics.unfit('classification', np.array([0])) == ''


# ---- concordance and the root mean squared error --------------------------------------------------------------


def test_ccc_by_hand():
    # p 1 2 3 (mean 2, variance 2/3), y 2 4 3 (mean 3, variance 2/3), covariance (1 + 0 + 0) / 3: 2/3 / (4/3 + 1).
    found = metrics.regression(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 3.0]))
    assert found['ccc'] == pytest.approx(2 / 7)
    assert found['corr'] == pytest.approx(1 / 2)
    assert found['rmse'] == pytest.approx(np.sqrt(5 / 3))
    assert found['mae'] == 1


@pytest.mark.parametrize('seed', range(3))
def test_ccc_is_lins_formula_and_rmse_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    labels = rng.normal(2, 1.5, 50)
    predicted = 0.6 * labels + rng.normal(0.3, 0.5, 50)
    found = metrics.regression(predicted, labels)
    (vx, cov), (_, vy) = np.cov(predicted, labels, bias=True)
    assert found['ccc'] == pytest.approx(2 * cov / (vx + vy + (predicted.mean() - labels.mean()) ** 2))
    assert found['rmse'] == pytest.approx(reference.root_mean_squared_error(labels, predicted))
    # ccc = r times a factor that is 1 only without shift and scale.
    factor = 2 / (np.sqrt(vx / vy) + np.sqrt(vy / vx) + (predicted.mean() - labels.mean()) ** 2 / np.sqrt(vx * vy))
    assert found['ccc'] == pytest.approx(found['corr'] * factor)


def test_ccc_falls_where_correlation_does_not_see_it():
    labels = np.array([-1.0, 0.0, 1.0, 2.0])
    exact, shifted, flat = (metrics.regression(p, labels) for p in (labels, labels + 1, labels / 10))
    assert exact['ccc'] == exact['corr'] == pytest.approx(1)
    assert shifted['corr'] == flat['corr'] == pytest.approx(1)
    assert shifted['ccc'] == pytest.approx(2 * 1.25 / (2 * 1.25 + 1))
    assert flat['ccc'] < 0.2
    assert metrics.regression(-labels, labels)['ccc'] < 0


@pytest.mark.parametrize('scale', [1e-200, 1e200])
def test_numbers_near_the_ends_of_float64(scale):
    predicted, labels = np.array([1.0, 2.0, 3.0]) * scale, np.array([2.0, 4.0, 3.0]) * scale
    found = metrics.regression(predicted, labels)
    assert (found['ccc'], found['rmse'] / scale) == pytest.approx((2 / 7, np.sqrt(5 / 3)))


def test_a_constant_prediction_has_concordance_0():
    with pytest.warns(RuntimeWarning, match='all 2 predictions are 1'):
        found = metrics.regression(np.ones(2), np.array([1.0, 2.0]))
    assert (found['ccc'], found['corr']) == (0, 0)


def test_no_constant_has_a_lower_rmse_than_the_floor():
    labels = np.array([1.0, 1.0, 2.0, 5.0])
    floor = metrics.floors('regression', labels)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # of the correlation
        found = [metrics.regression(np.full(4, value), labels) for value in np.arange(0, 6.01, 0.25)]
    assert min(each['rmse'] for each in found) == pytest.approx(floor['rmse'])
    assert min(each['mae'] for each in found) == pytest.approx(floor['mae'])
    assert floor['rmse'] == pytest.approx(np.sqrt((1.25**2 * 2 + 0.25**2 + 2.75**2) / 4))


# ---- classes --------------------------------------------------------------------------------------------------


def test_per_class_is_scikit_learns_with_undefined_as_nan():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 40), rng.choice([0, 1, 4], 40)  # 2 never predicted, 3 neither, 4 never true
    found = confusion.per_class(confusion.confusion_matrix(predicted, labels, 5))
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=np.nan)
    for ours, theirs in zip(found, (expected[1], expected[0], expected[2]), strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert np.isnan(found[0]).tolist() == [False, False, False, True, True]
    assert np.isnan(found[1]).tolist() == [False, False, True, True, False]
    assert np.isnan(found[2]).tolist() == [False, False, False, True, False]


def test_per_class_of_several_seeds_at_once():
    counts = np.array([[[2, 1], [0, 3]], [[3, 0], [1, 2]]])
    for both, one in zip(confusion.per_class(counts), zip(*map(confusion.per_class, counts), strict=True), strict=True):
        np.testing.assert_array_equal(both, one)


# ---- what a kind says of itself -------------------------------------------------------------------------------

NAMES = {'classification': ['a', 'b', 'c', 'd'], 'binary_emotions': ['x', 'y', 'z']}


@pytest.mark.parametrize('kind', metrics.KINDS)
def test_a_kind_names_what_it_measures_in_order(kind):
    names, (predictions, labels) = NAMES.get(kind, []), example(kind)
    assert metrics.names(kind, names) == list(metrics.KINDS[kind].measure(predictions, labels, names=names))


def test_the_kinds_measure_every_kind_of_label():
    assert {kind.labels for kind in metrics.KINDS.values()} == set(LABEL_KINDS)
    with pytest.raises(ValueError, match="labels of kind 'ranks': expected one of classes, regression, binary"):
        metrics.metric_kind('ranks', np.array([1, 2]))


@pytest.mark.parametrize('kind', metrics.KINDS)
def test_direction_and_unit_are_those_of_the_values(kind):
    """Right answers score better than wrong ones in the direction that is told, and a percentage is from 0 to 1."""
    names, (predictions, labels) = NAMES.get(kind, []), example(kind)
    right = labels.astype(float) if kind not in NAMES else np.eye(4 if kind == 'classification' else 2)[labels]
    good, bad = (metrics.KINDS[kind].measure(values, labels, names=names) for values in (right, predictions))
    for name in metrics.names(kind, names):
        assert (good[name] > bad[name]) == metrics.is_better_high(name), name
        assert not metrics.about(name).percent or 0 <= bad[name] <= good[name] == 1, name
    assert metrics.is_better_high('mae') == metrics.about('validation/mae').percent == metrics.about('loss').percent


def test_the_same_metric_says_the_same_in_every_kind():
    said = [item for kind in metrics.KINDS.values() for item in (kind.whole | kind.each).items()]
    assert len(dict(said)) == len(set(said))


def test_goodness_is_highest_for_the_best_prediction():
    real = metrics.KINDS['sentiment'].goodness(np.array([[1.0], [2.0]]), np.array([1.5, 2.1]))
    np.testing.assert_allclose(real, [-0.5, -0.1])
    binary = np.array([[0, 2, 0, 2], [2, 0, 0, 2]], float)
    assert metrics.KINDS['binary_emotions'].goodness(binary, np.array([[1, 1], [1, 1]])).argmax() == 0
    scores = np.log([[0.2, 0.8], [0.6, 0.4]])
    np.testing.assert_allclose(metrics.KINDS['classification'].goodness(scores, np.array([1, 1])), np.log([0.8, 0.4]))


def test_a_record_in_words():
    kinds = metrics.KINDS
    assert kinds['polarity'].tell(np.array([0.254]), np.float32(-1), ()) == 'label -1.00, predicted 0.25'
    assert kinds['classification'].tell(np.array([0, 2, 1]), np.int64(0), 'abc') == 'label a, predicted b'
    found = kinds['binary_emotions'].tell(np.array([0, 1, 0, 1, 1, 0]), np.array([0, 0, 0]), ['joy', 'fear', 'anger'])
    assert found == 'label none, predicted joy and fear'


# ---- floors at a tie ------------------------------------------------------------------------------------------


def test_at_a_tie_the_lowest_class_is_the_constant():
    found = metrics.floors('classification', np.array([2, 1, 1, 2, 0]), names=['a', 'b', 'c'])
    assert (found['recall_a'], found['recall_b'], found['recall_c']) == (0, 1, 0)


@pytest.mark.parametrize('constant', [0, 1])
def test_at_a_tie_of_an_emotion_both_constants_score_the_floor(constant):
    """So which of them is taken cannot be seen; with one more of either only the majority scores it."""
    labels = np.array([[0], [1], [0], [1]])
    scores = np.tile(np.eye(2)[constant], (4, 1, 1))
    assert metrics.binary_emotions(scores, labels) == pytest.approx(metrics.floors('binary_emotions', labels))
    more = np.append(labels, [[constant]], axis=0)
    scores = np.tile(np.eye(2)[constant], (5, 1, 1))
    assert metrics.binary_emotions(scores, more) == pytest.approx(metrics.floors('binary_emotions', more))
    assert metrics.floors('binary_emotions', more)['accuracy'] == 3 / 5


def test_at_a_tie_of_signs_the_floor_is_half():
    found = metrics.floors('polarity', np.array([-1.0, -0.5, 0.5, 1.0]))
    assert (found['acc2_has0'], found['acc2_non0'], found['uar_non0']) == (0.5, 0.5, 0.5)
    assert found['f1_non0'] == pytest.approx(1 / 3)
