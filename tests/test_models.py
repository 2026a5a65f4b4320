"""What every model promises, tested for every model in MODELS: a new model needs one line in CASES."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.losses import COUPLED, make_loss
from mmer_jax.models import MODELS, build_model
from mmer_jax.run.step import init_state, make_train_step
from tests.any_values import any_values
from tests.gradients import check_faint, recomputes

pytestmark = pytest.mark.usefixtures('strict_types')
ALL = ('text', 'audio', 'vision')
SIZES = {'text': 3, 'audio': 13, 'vision': 5}
LENGTHS = {'text': 5, 'audio': 9, 'vision': 4}

MFSA = {
    'width': 8, 'output_width': 6, 'num_heads': 2, 'psa_layers': 2, 'hca_layers': 1, 'fusion_feed_forward': 8,
    'discriminator_size': 4,
}  # fmt: skip
MULT = {'width': 4, 'num_layers': 1, 'memory_layers': 1, 'num_heads': 2}
MICA = {**MULT, 'pull_threshold': 1.0, 'adversarial': True, 'discriminator_size': 4}

# Dropout of these is off: _without_dropout sees a model's own fields, `encoder`, and what `encoded` nests.
BOTH_ENCODERS = {
    'audio': {'name': 'mfcc_cnn', 'num_frames': 24, 'dropout': 0.0, 'head_dropout': 0.0},
    'vision': {'name': 'vector_encoder', 'sizes': (6,), 'dropout': 0.0},
}

# name -> (config fields of a tiny model, modality sets to try)
CASES = {
    'any_input': ({'model': {'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 6}}, [('text', 'audio')]),
    'audio_visual': ({**BOTH_ENCODERS, 'fusion': 'msaf', 'block_channels': (8,)}, [('audio', 'vision')]),
    'cfn_sr': ({**BOTH_ENCODERS, 'width': 8, 'num_layers': 1, 'num_heads': 2}, [('audio', 'vision')]),
    'encoded': (
        {
            'vision': {**BOTH_ENCODERS['vision'], 'dropout': 0.2},
            'model': {'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 6},
        },
        [('text', 'vision')],
    ),
    'ef_lstm': ({'max_text_length': 6, 'hidden_size': 4, 'mlp_size': 6, 'bidirectional': True}, [ALL]),
    'mctn': ({'max_length': 6, 'hidden_size': 4, 'regressor_size': 3}, [ALL]),
    'mfsa': (MFSA, [('text', 'audio')]),
    'mica': (MICA, [('text', 'audio')]),
    'mult': (MULT, [('text', 'audio')]),
    'pmr': ({'width': 8, 'num_layers': 1, 'num_heads': 2, 'final_layers': 1}, [('vision', 'text')]),
    'raven': ({'max_text_length': 6, 'hidden_size': 4, 'nonverbal_size': 3}, [ALL]),
    'lf_lstm': (
        {'hidden_size': 4, 'mlp_size': 6, 'bidirectional': True},
        [('text',), ALL],
    ),
    'unimodal': ({'encoder': {'name': 'mfcc_cnn'}}, [('audio',)]),
}
# Losses beside the task's that train some of a model's parameters.
AUXILIARY = {
    'ef_lstm': {'ctc_alignment': 0.1},
    'mctn': {'ctc_alignment': 0.1, 'translation': 0.1, 'cycle_translation': 0.1, 'second_translation': 0.1},
    'mica': {'distribution_alignment': 0.1, 'correlation_pull': 0.1, 'alignment_adversary': 0.1},
    'raven': {'ctc_alignment': 0.1},
    'mfsa': {'separation': 0.01, 'agnostic_adversarial': 0.03, 'specific_adversarial': 0.03, 'importance': 1.0},
}
OPTIMIZER = optax.sgd(0.1)
GRID = [(name, modalities) for name, (_, sets) in CASES.items() for modalities in sets]


def make(name, modalities, **common):
    return build_model(
        {'name': name, **CASES[name][0]}, **{'modalities': modalities, 'num_outputs': 3, 'dtype': jnp.float32, **common}
    )


def make_batch(modalities, rows=4, extra=0, garbage=0.0, seed=0):
    """Rows of unequal lengths, `extra` more padded steps, padded positions filled with `garbage`."""
    generator = np.random.default_rng(seed)
    batch = {'label': generator.integers(3, size=rows), 'weight': np.ones(rows, np.float32)}
    for m in modalities:
        lengths = generator.integers(2, LENGTHS[m] + 1, rows)
        mask = np.arange(LENGTHS[m] + extra) < lengths[:, None]
        values = np.zeros((rows, LENGTHS[m] + extra, SIZES[m]), np.float32)
        values[:, : LENGTHS[m]] = generator.standard_normal((rows, LENGTHS[m], SIZES[m]))
        batch[m], batch[f'{m}_mask'] = np.where(mask[..., None], values, garbage).astype(np.float32), mask
    return batch


@functools.cache
def initial_state(name, modalities):
    def initialised():
        return init_state(make(name, modalities), OPTIMIZER, make_batch(modalities), 0)

    shapes = jax.eval_shape(initialised)
    if shapes.model_state:  # any values may leave a channel almost constant, whose batch norm float32 does not decide
        return initialised()
    return jax.device_put(any_values(shapes))


@pytest.fixture(scope='module', params=GRID, ids=[f'{n}-{"+".join(m)}' for n, m in GRID])
def case(request):
    name, modalities = request.param
    model, state = make(name, modalities), initial_state(name, modalities)
    variables = {'params': state.params, **state.model_state}
    predict = jax.jit(lambda batch: model.apply(variables, batch, train=False)['prediction'])
    return name, modalities, model, state, predict


def test_every_model_has_a_case():
    # stacked_input takes pictures, the others give one number: tests/test_<name>.py.
    missing = set(MODELS) - set(CASES) - {'stacked_input', 'ordinal', 'self_mm'}
    assert not missing, f'give {sorted(missing)} a line in CASES'
    assert set(CASES) <= set(MODELS)


def test_prediction_is_float32_of_the_asked_size(case):
    _, modalities, _, _, predict = case
    prediction = predict(make_batch(modalities))
    assert prediction.shape == (4, 3)
    assert prediction.dtype == jnp.float32


def test_a_hidden_modality_leaves_finite_predictions_that_do_not_see_it(case):
    """What evaluation with --without does: an all-False mask in every row."""
    _, modalities, _, _, predict = case
    for m in modalities if len(modalities) > 1 else ():
        batches = []
        for seed in (0, 1):
            batch, other = make_batch(modalities), make_batch(modalities, seed=seed)
            batch[m], batch[f'{m}_mask'] = other[m], np.zeros_like(batch[f'{m}_mask'])
            batches.append(predict(batch))
        assert np.isfinite(batches[0]).all()
        np.testing.assert_allclose(batches[0], batches[1], atol=2e-6)


def test_a_record_may_lack_a_modality_or_all_of_them(case):
    """Finite, the same whatever lies where nothing is, and no other record notices."""
    _, modalities, _, _, predict = case
    whole = predict(make_batch(modalities))
    found = []
    for garbage in (0.0, np.nan):
        batch = make_batch(modalities)
        for m, rows in ((modalities[0], (1, 2)), *((m, (2,)) for m in modalities[1:])):  # row 2 has nothing
            batch[f'{m}_mask'][list(rows)] = False
            batch[m][list(rows)] = garbage
        found.append(predict(batch))
    assert np.isfinite(found[0]).all()
    np.testing.assert_allclose(found[1], found[0], atol=2e-6)
    np.testing.assert_allclose(found[0][jnp.array([0, 3])], whole[jnp.array([0, 3])], atol=2e-6)


def test_padding_changes_nothing(case):
    _, modalities, _, _, predict = case
    expected = predict(make_batch(modalities))
    np.testing.assert_allclose(predict(make_batch(modalities, extra=3)), expected, atol=2e-6)
    np.testing.assert_allclose(predict(make_batch(modalities, garbage=1e3)), expected, atol=2e-6)
    np.testing.assert_allclose(predict(make_batch(modalities, garbage=np.nan)), expected, atol=2e-6)


def test_permuting_the_batch_permutes_the_output(case):
    _, modalities, _, _, predict = case
    batch, order = make_batch(modalities), np.array([2, 0, 3, 1])
    permuted = {key: value[order] for key, value in batch.items()}
    np.testing.assert_allclose(predict(permuted), np.asarray(predict(batch))[order], atol=2e-6)


def test_a_row_does_not_depend_on_the_others(case):
    _, modalities, _, _, predict = case
    batch, other = make_batch(modalities), make_batch(modalities, seed=1)
    mixed = {key: np.concatenate([value[:1], other[key][1:]]) for key, value in batch.items()}
    np.testing.assert_allclose(predict(mixed)[0], predict(batch)[0], atol=2e-6)


def test_padding_rows_change_no_training_step(case):
    """Loss, new parameters and batch statistics of rows twice are those of the rows once and as many of weight 0.

    A coupled loss knows how many rows there are, so with one the rows of weight 0 are others and stand in front
    (tests/test_coupled_losses.py has the losses with and without them). One shape, so that it is compiled once.
    """
    name, modalities, _, state, _ = case
    fields = {key: 0.0 for key in MODELS[name].__dataclass_fields__ if 'dropout' in key}
    quiet = build_model(
        {'name': name, **_without_dropout(CASES[name][0]), **fields},
        modalities=modalities,
        num_outputs=3,
        dtype=jnp.float32,
    )
    batch, losses = make_batch(modalities), {'cross_entropy': 1.0, **AUXILIARY.get(name, {})}
    padded = {key: np.concatenate([value, np.zeros_like(value)]) for key, value in batch.items()}
    before = (
        {**make_batch(modalities, seed=1), 'weight': np.zeros_like(batch['weight'])} if COUPLED & set(losses) else batch
    )
    other = {key: np.concatenate([before[key], value]) for key, value in batch.items()}
    step = jax.jit(make_train_step(quiet, OPTIMIZER, make_loss(losses)))
    (one, numbers), (two, padded_numbers) = step(state, other), step(state, padded)
    np.testing.assert_allclose(padded_numbers['loss'], numbers['loss'], rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves((one.params, one.model_state)), jax.tree.leaves((two.params, two.model_state)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-6)


def _without_dropout(fields):
    """Dropout draws other masks for another batch size, so a comparison needs it off."""
    fields = dict(fields)
    if isinstance(fields.get('encoder'), dict):
        fields['encoder'] = {**fields['encoder'], 'dropout': 0.0, 'head_dropout': 0.0}
    if isinstance(fields.get('model'), dict):  # of `encoded` and `any_input`
        fields |= {part: {**fields[part], 'dropout': 0.0} for part in ('model', 'vision') if part in fields}
    return fields


# Parameters whose gradient is below a ten-thousandth of the median one, and why: patterns of names by model.
# An attention key's bias adds the same to all logits of a query, and the bias behind the scores the same to every
# position: the softmax takes either off. The bias of MSAF's joint layer stands before a batch norm, which takes it off.
# The weight of all but the last weighted attention of MFSA is taken off by the norm of the PSA layer behind it
# (psa_residual='input' is the variant in which it acts).
KEY_BIAS = r'(^|/)key/bias$'
FAINT = {
    'audio_visual': (r'^msaf0/joint/bias$',),
    'cfn_sr': (KEY_BIAS, r'^cross_modal/score/bias$'),
    'mfsa': (r'^fusion_attention/key/bias$', r'^wal0/'),
    'mica': (r'^fusion/\w+_memory/layer_0/key/bias$',),  # losses read the keys of the other layers
    'mult': (KEY_BIAS,),
}


@pytest.fixture(scope='module')
def gradient(case):
    """(batch of 8 rows, key) -> (mean loss, gradient) of all losses that the model is trained with, in training."""
    name, _, model, state, _ = case

    def loss(params, batch, key):
        outputs, _ = model.apply(
            {'params': params, **state.model_state},
            batch,
            train=True,
            rngs={'dropout': key},
            mutable=list(state.model_state),
        )
        return make_loss({'cross_entropy': 1.0, **AUXILIARY.get(name, {})})(outputs, batch).mean()

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda batch, key=0: jax.device_get(compiled(state.params, batch, jax.random.key(key)))


def test_every_parameter_gets_a_gradient(case, gradient):
    name, modalities, _, _, _ = case
    batch = make_batch(modalities, rows=8)
    for m in modalities:
        batch[f'{m}_mask'][-1] = False  # a record that lacks every modality may not spoil the gradient
    check_faint(gradient(batch)[1], FAINT.get(name, ()))


def test_a_model_trains_on_records_that_lack_modalities(case, gradient):
    """What `modality_dropout` makes: each row without another modality, or all rows without the same one."""
    _, modalities, _, _, _ = case
    whole, rows = gradient(make_batch(modalities, rows=8)), np.arange(8)
    each = {m: rows % len(modalities) == n for n, m in enumerate(modalities)}
    for hidden in (each, *({m: rows >= 0} for m in modalities)) if len(modalities) > 1 else ():
        found = []
        for garbage in (0.0, 3.0):
            batch = make_batch(modalities, rows=8)
            for m, missing in hidden.items():
                batch[m][missing], batch[f'{m}_mask'][missing] = garbage, False
            found.append(jax.tree.leaves(gradient(batch)))
        assert all(np.isfinite(leaf).all() for leaf in found[0])
        assert any((leaf != 0).any() for leaf in found[0][1:])
        assert not np.allclose(found[0][0], whole[0], rtol=1e-5)
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_training_is_random_only_through_its_key(case, gradient):
    _, modalities, _, _, _ = case
    batch = make_batch(modalities, rows=8)
    (one, of_one), (again, of_again), (other, _) = (gradient(batch, key) for key in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, (one, of_one), (again, of_again))
    assert one != other


REMAT = [name for name, model in MODELS.items() if 'remat' in model.__dataclass_fields__]


@pytest.mark.parametrize('name', REMAT)
def test_remat_gives_the_same_gradients_and_really_recomputes(name):
    modalities = CASES[name][1][0]
    batch, params = make_batch(modalities), initial_state(name, modalities).params
    gradients = []
    for remat in (False, True):
        model = build_model(
            {'name': name, **CASES[name][0], 'remat': remat}, modalities=modalities, num_outputs=3, dtype=jnp.float32
        )

        def loss(params, model=model):
            return (model.apply({'params': params}, batch, train=False)['prediction'] ** 2).sum()

        traced = jax.jit(jax.grad(loss)).trace(params)
        assert recomputes(traced.jaxpr) == remat
        gradients.append(traced.lower().compile()(params))
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bfloat16_compute_keeps_float32_parameters_and_predictions(case):
    name, modalities, _, state, predict = case
    batch = make_batch(modalities)
    model = make(name, modalities, dtype=jnp.bfloat16)
    # Not strict: LayerNorm and BatchNorm of flax in bfloat16 mix it with float32 themselves, and logits and positions
    # of ours are meant to become float32 by a factor of float32.
    with jax.numpy_dtype_promotion('standard'):
        own = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
        assert {leaf.dtype for leaf in jax.tree.leaves(own['params'])} == {jnp.dtype('float32')}
        prediction = jax.jit(model.apply, static_argnames='train')(
            {'params': state.params, **state.model_state}, batch, train=False
        )['prediction']
    assert prediction.dtype == jnp.float32
    assert not np.array_equal(prediction, predict(batch))  # it did compute in less
    np.testing.assert_allclose(prediction, predict(batch), atol=0.1)
