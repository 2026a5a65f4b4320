"""A number through ordered levels: by hand, inside and around other models, and trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax import losses
from mmer_jax.losses import make_loss
from mmer_jax.models import LfLstm, Ordinal, build_model
from mmer_jax.run.step import init_state, make_train_step
from tests.any_values import any_values
from tests.test_models import make_batch

pytestmark = pytest.mark.usefixtures('strict_types')
COMMON = {'modalities': ('text', 'audio'), 'num_outputs': 1, 'dtype': jnp.float32}
LF_LSTM = {'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 6}
ENCODED = {'name': 'encoded', 'text': {'name': 'vector_encoder', 'sizes': (6,), 'dropout': 0.0}}


def outputs_of(logits, levels=(-1.0, 0.0, 1.0, 3.0)):
    logits = np.asarray(logits, np.float32)
    return {'level_logits': logits, 'levels': np.broadcast_to(np.float32(levels), logits.shape)}


@pytest.mark.parametrize(
    ('label', 'share'),
    [
        (0.0, [0, 1, 0, 0]),
        (0.4, [0, 0.6, 0.4, 0]),
        (-0.25, [0.25, 0.75, 0, 0]),
        (2.5, [0, 0, 0.25, 0.75]),
        (3.0, [0, 0, 0, 1]),
        (7.0, [0, 0, 0, 1]),
        (-2.0, [1, 0, 0, 0]),
    ],
)
def test_a_label_is_shared_between_its_two_levels(label, share):
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))
    found = losses.ordinal(outputs_of(logits), {'label': np.float32([label])})
    np.testing.assert_allclose(found, [-(np.array(share) * logits[0]).sum()], rtol=1e-5)


def test_the_loss_is_least_where_the_mean_of_the_levels_is_the_label():
    """Gradient descent on the loss alone brings the expected level to any label between the levels."""
    labels = np.float32([-0.9, -0.5, 0.2, 1.0, 2.2])

    def loss(logits):
        return losses.ordinal({**outputs_of(np.zeros((5, 4))), 'level_logits': logits}, {'label': labels}).sum()

    descend = jax.jit(lambda logits: jax.lax.fori_loop(0, 4000, lambda _, x: x - 1.0 * jax.grad(loss)(x), logits))
    levels = outputs_of(np.zeros((5, 4)))['levels']
    expected = (jax.nn.softmax(descend(jnp.zeros((5, 4)))) * levels).sum(-1)
    np.testing.assert_allclose(expected, labels, atol=5e-3)


@pytest.mark.parametrize(
    ('shapes', 'label'), [(((3, 4), (3, 4)), (4,)), (((3, 4), (3, 5)), (3,)), (((3, 2, 4), (3, 2, 4)), (3,))]
)
def test_other_shapes_are_told(shapes, label):
    outputs = {'level_logits': np.zeros(shapes[0], np.float32), 'levels': np.zeros(shapes[1], np.float32)}
    with pytest.raises(ValueError, match=r'ordinal: level_logits .* expected \(B, L\)'):
        losses.ordinal(outputs, {'label': np.zeros(label, np.float32)})


FIELDS = {
    'alone': {'name': 'ordinal', 'model': LF_LSTM},
    'other levels': {'name': 'ordinal', 'levels': [0, 0.5, 2], 'model': LF_LSTM},
    'outside of an encoder': {'name': 'ordinal', 'model': {**ENCODED, 'model': LF_LSTM}},
    'inside': {**ENCODED, 'model': {'name': 'ordinal', 'model': LF_LSTM}},
}


def applied(fields):
    model, batch = build_model(fields, **COMMON), make_batch(('text', 'audio'))
    variables = any_values(jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False)))
    return jax.jit(lambda batch: model.apply(variables, batch, train=False))(batch)


@pytest.mark.parametrize('case', FIELDS)
def test_any_model_scores_the_levels(case):
    outputs = applied(FIELDS[case])
    levels = np.float32([0, 0.5, 2] if case == 'other levels' else [-3, -2, -1, 0, 1, 2, 3])
    logits = np.asarray(outputs['level_logits'])
    assert logits.shape == (4, len(levels))
    assert logits.std() > 0.01
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs['prediction'], (share @ levels)[:, None], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs['levels'], np.tile(levels, (4, 1)))
    assert 'features' in outputs, 'what the model inside gives beside its prediction stays'


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'num_outputs': 3}, 'ordinal predicts one number, the data have 3 outputs'),
        ({'levels': (1.0, 0.0)}, r'levels = \(1.0, 0.0\), expected two or more that rise'),
        ({'levels': (1.0,)}, 'expected two or more that rise'),
        ({'levels': (0.0, 1.0)}, r'gives \(3,\) outputs, expected one per level: num_outputs=2'),
    ],
)
def test_what_does_not_fit_is_told(change, said):
    inside = LfLstm(**{**COMMON, 'num_outputs': 3}, hidden_size=4, mlp_size=6)
    model = Ordinal(**{**COMMON, 'model': inside, 'levels': (0.0, 1.0, 2.0), **change})
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(('text', 'audio')), train=False))


def test_it_learns_numbers_between_its_levels():
    batch = {**make_batch(('text', 'audio'), rows=6), 'label': np.float32([-2.4, -1, 0.3, 0.6, 1.5, 2.2])}
    model, optimizer = build_model(FIELDS['alone'], **COMMON), optax.sgd(0.3)
    loss = make_loss({'l1': 0.5, 'ordinal': 1.0})
    state = init_state(model, optimizer, batch, 0)
    step = jax.jit(make_train_step(model, optimizer, loss))
    first = None
    for _ in range(150):
        state, numbers = step(state, batch)
        first = first or float(numbers['loss'])
    prediction = model.apply({'params': state.params}, batch, train=False)['prediction'][:, 0]
    np.testing.assert_allclose(prediction, batch['label'], atol=0.35)
    assert float(numbers['loss']) < first / 2
