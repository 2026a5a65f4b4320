"""Losses that couple the rows of a batch: found by computation, and the same step however a batch is accumulated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.losses import COUPLED, LOSSES, keys_read, make_loss
from mmer_jax.models import MODELS
from mmer_jax.run import sharding
from mmer_jax.run.step import init_state, make_step_parts, make_train_step, over_seeds
from tests.any_values import any_values
from tests.double import widened
from tests.small_run import jit_step
from tests.test_models import AUXILIARY, CASES, make, make_batch

ROWS = 8
LABELS = {
    'l1': lambda g: g.standard_normal(ROWS),
    'mse': lambda g: g.standard_normal(ROWS),
    'binary_cross_entropy': lambda g: g.integers(2, size=(ROWS, 2)),
}
OUTPUTS = {
    'specific': (3, 5), 'agnostic': (3, 5), 'agnostic_logits': (3, 3), 'specific_logits': (3, 3),
    'importance_logits': (3, 3), 'importance': (3,), 'queries': (2, 4), 'keys': (2, 4), 'correlation_distance': (2,),
    'query_logits': (2,), 'key_logits': (2,), 'ctc_logits_audio': (6, 4), 'mctn_forward': (4, 3),
    'mctn_forward_target': (4, 3), 'mctn_cycle': (4, 3), 'mctn_cycle_target': (4, 3), 'mctn_second': (4, 3),
    'mctn_second_target': (4, 3), 'level_logits': (3,), 'unimodal': (2,), 'unimodal_label': (2,),
    'unimodal_weight': (2,),
}  # fmt: skip


def made_up(name, seed):
    """Outputs of every kind and a batch, as one loss reads them."""
    generator = np.random.default_rng(seed)
    width = {'l1': 1, 'mse': 1, 'binary_cross_entropy': 4}.get(name, 3)
    outputs = {
        key: generator.standard_normal((ROWS, *shape)).astype(np.float32)
        for key, shape in {**OUTPUTS, 'prediction': (width,)}.items()
    }
    outputs |= {
        'levels': np.tile(np.float32([-1, 0, 1]), (ROWS, 1)),
        'ctc_mask_audio': np.ones((ROWS, 6), bool),
        'ctc_target_mask': np.ones((ROWS, 3), bool),
        'mctn_mask': np.ones((ROWS, 4), bool),
    }
    label = LABELS.get(name, lambda g: g.integers(3, size=ROWS))(generator)
    label = label.astype(np.float32 if label.dtype.kind == 'f' else np.int32)
    return outputs, {'label': label, 'weight': np.ones(ROWS, np.float32)}


@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_says_whether_it_couples_rows(name):
    """The first half of the rows stays and the second changes: does the loss of the first half?

    A loss that is not in COUPLED and fails here would change with config.accumulate: add it there.
    """
    loss = jax.jit(LOSSES[name])
    (outputs, batch), (other, other_batch) = made_up(name, 0), made_up(name, 1)
    half = ROWS // 2

    def mixed(a, b):
        return {key: np.concatenate([a[key][:half], b[key][half:]]) for key in a}

    before, after = loss(outputs, batch), loss(mixed(outputs, other), mixed(batch, other_batch))
    assert np.ptp(after) > 0 or name in COUPLED, 'made-up outputs that leave a loss constant show nothing'
    assert (np.abs(after - before)[:half].max() > 1e-4) == (name in COUPLED)


@pytest.mark.parametrize('name', sorted(COUPLED))
def test_rows_of_weight_0_have_no_part_in_a_coupled_loss(name):
    loss, half = jax.jit(LOSSES[name]), ROWS // 2
    outputs, batch = made_up(name, 0)
    alone = loss(*({key: x[:half] for key, x in tree.items()} for tree in (outputs, batch)))
    batch['weight'][half:] = 0
    np.testing.assert_allclose(loss(outputs, batch)[:half], alone, rtol=1e-5)


def test_what_a_loss_reads_is_seen_without_computing():
    outputs, batch = made_up('separation', 0)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), outputs)
    assert keys_read(make_loss({'separation': 1.0}), shapes, batch) == ['agnostic', 'specific']
    assert keys_read(make_loss({'ctc_alignment': 1.0}), shapes, batch) == [
        'ctc_logits_audio', 'ctc_mask_audio', 'ctc_target_mask',
    ]  # fmt: skip
    assert keys_read(lambda outputs, batch: sum(v.sum() for v in outputs.values()), shapes, batch) == sorted(outputs)


def test_the_parts_of_a_loss_add_up_to_it():
    outputs, batch = made_up('cross_entropy', 0)
    loss = make_loss({'cross_entropy': 1.0, 'separation': 0.5, 'importance': 2.0})
    assert loss.coupled.weights == (('separation', 0.5),)
    np.testing.assert_allclose(loss.own(outputs, batch) + loss.coupled(outputs, batch), loss(outputs, batch), rtol=1e-5)
    assert make_loss({'l1': 1.0}).coupled is None
    assert make_loss({'separation': 1.0}).own is None


MODELS_WITH_COUPLED = {
    'mfsa': {'separation': 0.3, 'separation_misa': 3.0},
    'mica': {'distribution_alignment': 1.0},
}
FEWER = {'mfsa': {'psa_layers': 1, 'hca_layers': 0}, 'mica': {}}  # layers: less to compile


@pytest.fixture(scope='module', params=MODELS_WITH_COUPLED)
def case(request):
    """A tiny model without dropout, its losses, a batch with padding rows unequal over the parts, and a state.

    In float64: the order of sums is another one, and centred rows of unit length make much of what float32 rounds away.
    """
    name, modalities = request.param, ('text', 'audio')
    quiet = {field: 0.0 for field in MODELS[name].__dataclass_fields__ if 'dropout' in field}
    model = make(name, modalities, **quiet, **FEWER[name], dtype=jnp.float64)
    loss = make_loss({'cross_entropy': 1.0, **AUXILIARY[name], **MODELS_WITH_COUPLED[name]})
    batch = make_batch(modalities, rows=ROWS)
    batch['weight'] = np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda: init_state(model, optax.sgd(1.0), batch, 0))
        return model, loss, widened(batch), widened(any_values(shapes))


def run_of(case, accumulate, *, apart=False):
    """A training step: state -> the gradient, by the change of the parameters, and its numbers."""
    model, loss, batch, _ = case
    step = (make_step_parts if apart else make_train_step)(model, optax.sgd(1.0), loss, accumulate=accumulate)
    mesh = sharding.make_mesh(1, 2)
    run = jit_step(step, lambda function, states: function, sharding.replicated(mesh))

    def gradient_and_numbers(state):
        with jax.enable_x64(True):
            placed = sharding.copy_tree(jax.device_put(state, sharding.replicated(mesh)))
            new, numbers = run(placed, sharding.put_batch(batch, mesh))
            gradient = jax.tree.map(lambda before, after: before - np.asarray(after), state.params, new.params)
            return gradient, jax.tree.map(np.asarray, numbers)

    return gradient_and_numbers


@pytest.fixture(scope='module')
def whole(case):
    return run_of(case, 1)(case[-1])


@pytest.fixture(scope='module')
def loop(case):
    """The step of two parts in one program."""
    return run_of(case, 2)


def assert_equal_steps(whole, other):
    (gradient, numbers), (found, found_numbers) = whole, other
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6 * largest, err_msg=jax.tree_util.keystr(path))
    for name, value in numbers.items():
        np.testing.assert_allclose(found_numbers[name], value, rtol=1e-5, err_msg=name)


def test_the_step_does_not_depend_on_accumulate(case, whole, loop):
    assert_equal_steps(whole, loop(case[-1]))


@pytest.mark.parametrize('case', ['mica'], indirect=True)  # compiles in half the time of MFSA
def test_nor_in_programs_of_their_own(case, whole):
    assert_equal_steps(whole, run_of(case, 4, apart=True)(case[-1]))


def test_the_coupled_losses_act_in_that_step(case, whole):
    """Without them the gradient would be another, so the comparison above is about them."""
    model, loss, batch, state = case
    found, _ = run_of((model, loss.own, batch, state), 1)(state)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(found))
    pairs = zip(*map(jax.tree.leaves, (whole[0], found)), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-2 * largest


@pytest.mark.parametrize('case', ['mica'], indirect=True)
def test_two_seeds_in_one_program(case, loop):
    model, loss, batch, _ = case
    step = make_train_step(model, optax.sgd(1.0), loss, accumulate=2)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda: init_state(model, optax.sgd(1.0), batch, 0))
        states = [widened(any_values(shapes, seed)) for seed in (0, 1)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *states)
        _, numbers = jax.jit(over_seeds(step, 2))(stacked, batch)
        numbers = jax.tree.map(np.asarray, numbers)
    for seed, state in enumerate(states):
        for name, value in loop(state)[1].items():
            np.testing.assert_allclose(numbers[name][seed], value, rtol=1e-5, err_msg=name)


def test_what_is_seen_of_a_part_keeps_its_type():
    """bfloat16 vectors are gathered as such; the gradient is float32, as the parameters are."""
    model = make('mfsa', ('text', 'audio'), **FEWER['mfsa'], dtype=jnp.bfloat16)
    batch = make_batch(('text', 'audio'), rows=ROWS)
    state = jax.eval_shape(lambda: init_state(model, optax.sgd(1.0), batch, 0))
    parts = make_step_parts(model, optax.sgd(1.0), make_loss({'cross_entropy': 1.0, 'separation': 1.0}), accumulate=2)
    gathered = jax.eval_shape(parts.begin, state, batch)
    assert {key: (x.shape, x.dtype) for key, x in gathered.seen.items()} == dict.fromkeys(
        ('agnostic', 'specific'), ((2, ROWS // 2, 2, 6), jnp.bfloat16)
    )
    assert jax.tree.map(jnp.result_type, gathered.gradient) == jax.tree.map(jnp.result_type, state.params)


def test_every_model_with_a_coupled_loss_is_tried():
    coupled = {name for name, losses in AUXILIARY.items() if COUPLED & set(losses)}
    assert coupled == set(MODELS_WITH_COUPLED)
    assert set(CASES) >= coupled
