"""mmer_jax.losses: each loss against numpy and hand-worked values, and padding rows that count for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import losses
from mmer_jax.losses import LOSSES, make_loss, total_loss

pytestmark = pytest.mark.usefixtures('strict_types')


def example(prediction, label, dtype=np.float32):
    return {'prediction': jnp.asarray(prediction, jnp.float32)}, {'label': jnp.asarray(np.asarray(label, dtype))}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy_by_hand():
    # Softmax of log(1, 2, 5) is 1/8, 2/8, 5/8; of equal logits 1/3.
    outputs, batch = example([np.log([1, 2, 5]), np.log([1, 2, 5]), [4, 4, 4]], [2, 0, 1], np.int32)
    np.testing.assert_allclose(losses.cross_entropy(outputs, batch), np.log([8 / 5, 8, 3]), rtol=1e-6)


def test_double_softmax_is_cross_entropy_of_probabilities():
    logits, label = np.random.default_rng(0).standard_normal((5, 4)), np.array([0, 3, 2, 1, 1])
    expected = -log_softmax(np.exp(log_softmax(logits)))[np.arange(5), label]
    np.testing.assert_allclose(losses.double_softmax(*example(logits, label, np.int32)), expected, rtol=1e-5)


def test_true_class_score_picks_the_label():
    outputs, batch = example(np.array([[1.0, 2.0], [3.0, -4.0]]), [1, 0], np.int32)
    np.testing.assert_array_equal(losses.true_class_score(outputs, batch), [-2, -3])


@pytest.mark.parametrize('classes', [2, 6, 8])
def test_double_softmax_has_a_floor(classes):
    perfect = 1000 * np.eye(classes)
    floor = np.log(np.e + classes - 1) - 1
    outputs, batch = example(perfect, np.arange(classes), np.int32)
    np.testing.assert_allclose(losses.double_softmax(outputs, batch), floor, rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(outputs, batch), 0, atol=1e-6)
    if classes == 6:
        assert round(floor, 4) == 1.0436


def test_l1_and_mse_by_hand():
    outputs, batch = example([[1], [-2], [0.5]], [3, -2.5, 0.5])
    np.testing.assert_allclose(losses.l1(outputs, batch), [2, 0.5, 0])
    np.testing.assert_allclose(losses.mse(outputs, batch), [4, 0.25, 0])


def test_binary_cross_entropy_by_hand():
    # Logits (off, on) of two emotions; log(1, 3) is 1/4 off, 3/4 on. The mean over emotions is taken per example.
    outputs, batch = example([[*np.log([1, 3]), 0, 0], [*np.log([1, 3]), *np.log([3, 1])]], [[1, 0], [0, 0]], np.int32)
    expected = [np.log([4 / 3, 2]).mean(), np.log([4, 4 / 3]).mean()]
    np.testing.assert_allclose(losses.binary_cross_entropy(outputs, batch), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('name', 'prediction', 'label'),
    [
        ('cross_entropy', (3,), (3,)),
        ('cross_entropy', (3, 2), (3, 1)),
        ('double_softmax', (3, 2, 2), (3,)),
        ('true_class_score', (3, 2), (2,)),
        ('l1', (3,), (3,)),
        ('l1', (3, 2), (3,)),
        ('l1', (2, 1), (3,)),
        ('mse', (3,), (3,)),
        ('mse', (3, 1), (1,)),
        ('binary_cross_entropy', (3, 4), (3, 4)),
        ('binary_cross_entropy', (2, 4), (3, 2)),
    ],
)
def test_shapes_that_do_not_match_are_an_error_with_both_shapes(name, prediction, label):
    dtype = np.float32 if name in ('l1', 'mse') else np.int32
    with pytest.raises(ValueError, match='prediction') as error:
        LOSSES[name](*example(np.zeros(prediction), np.zeros(label), dtype))
    assert str(prediction) in str(error.value)
    assert str(label) in str(error.value)


@pytest.mark.parametrize(('prediction', 'label'), [((3, 2), (1,)), ((1, 2), (3,))])
def test_cross_entropy_does_not_broadcast_rows(prediction, label):
    with pytest.raises(ValueError, match='cross_entropy'):
        losses.cross_entropy(*example(np.zeros(prediction), np.zeros(label), np.int32))


TASK = [name for name, loss in LOSSES.items() if loss.__module__ == 'mmer_jax.losses.task']


@pytest.mark.parametrize('name', TASK)
def test_every_loss_is_per_example_and_differentiable(name):
    generator = np.random.default_rng(1)
    shape, label, dtype = {
        'l1': ((3, 1), generator.standard_normal(3), np.float32),
        'mse': ((3, 1), generator.standard_normal(3), np.float32),
        'binary_cross_entropy': ((3, 4), generator.integers(2, size=(3, 2)), np.int32),
    }.get(name, ((3, 4), generator.integers(4, size=3), np.int32))
    outputs, batch = example(generator.standard_normal(shape), label, dtype)
    loss = LOSSES[name]
    assert loss(outputs, batch).shape == (3,)
    # A row's loss depends on its own prediction only.
    jacobian = jax.jit(jax.jacobian(lambda p: loss({'prediction': p}, batch)))(outputs['prediction'])
    jacobian = np.asarray(jacobian)
    for row in range(3):
        assert np.abs(jacobian[row, row]).max() > 1e-3
        assert (np.delete(jacobian[row], row, axis=0) == 0).all()


@pytest.mark.parametrize('name', [name for name in LOSSES if name not in TASK])
def test_an_auxiliary_loss_names_what_the_model_does_not_give(name):
    with pytest.raises(ValueError, match=name) as error:
        LOSSES[name]({'prediction': np.zeros((3, 1))}, {'weight': np.ones(3, np.float32)})
    assert 'prediction' in str(error.value), 'it says what the model does give'


def test_make_loss_is_the_weighted_sum():
    outputs, batch = example([[1], [-2]], [3, -2.5])
    np.testing.assert_allclose(make_loss({'l1': 2.0, 'mse': 0.5})(outputs, batch), [2 * 2 + 0.5 * 4, 1 + 0.125])
    np.testing.assert_allclose(make_loss({'mse': 3})(outputs, batch), [12, 0.75])


@pytest.mark.parametrize('weights', [{}, {'crossentropy': 1.0}, {'l1': 1.0, 'huber': 1.0}])
def test_make_loss_lists_the_known_losses(weights):
    with pytest.raises(ValueError) as error:
        make_loss(weights)
    assert all(name in str(error.value) for name in [*LOSSES, *weights])


# The weighted mean


def test_total_loss_is_the_mean_over_rows_that_count():
    loss, weight = jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 1.0, 0.0])
    assert total_loss(loss, weight) == 1.5
    assert total_loss(loss, jnp.array([1.0, 1.0, 2.0])) == 15 / 4
    assert total_loss(loss, jnp.zeros(3)) == 0


@pytest.mark.parametrize('padding', [100.0, np.inf, np.nan])
def test_rows_of_weight_0_change_neither_value_nor_gradient(padding):
    weight = jnp.array([1.0, 0.0, 1.0])
    value, gradient = jax.value_and_grad(total_loss)(jnp.array([1.0, padding, 2.0]), weight)
    assert value == 1.5
    np.testing.assert_array_equal(gradient, [0.5, 0, 0.5])


@jax.jit
def parameter_gradient(x, label, weight):
    def loss(parameters):
        outputs = {'prediction': x @ parameters}
        return total_loss(losses.mse(outputs, {'label': label}), weight)

    return jax.value_and_grad(loss)(jnp.array([[1.0], [2.0]]))


def test_rows_of_weight_0_change_no_parameter_gradient():
    x, label = np.array([[1, 1], [2, 0]], np.float32), np.array([2, 1], np.float32)
    # Errors 1 and 1, so the gradient is the mean of 2 x (1, 1) and 2 x (2, 0).
    value, gradient = parameter_gradient(x, label, np.ones(2, np.float32))
    assert value == 1
    np.testing.assert_allclose(gradient, [[3], [1]])
    padded = np.concatenate([x, np.full((2, 2), 50, np.float32)]), np.append(label, np.float32([7, -9]))
    value, gradient = parameter_gradient(*padded, np.array([1, 1, 0, 0], np.float32))
    assert value == 1
    np.testing.assert_allclose(gradient, [[3], [1]])


def test_total_weight_makes_parts_add_up_to_the_whole():
    loss, weight = jnp.arange(6.0) ** 2, jnp.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    total = weight.sum()
    # The second part has fewer rows that count, so a mean of the parts' means would be another number.
    parts = [total_loss(loss[rows], weight[rows], total) for rows in (slice(0, 3), slice(3, 6))]
    assert [float(p) for p in parts] == pytest.approx([1 / 3, 9 / 3])
    assert float(sum(parts)) == pytest.approx(float(total_loss(loss, weight)))
