"""The train step: pure, exact under accumulation, seeds and meshes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.losses import make_loss
from mmer_jax.models import LfLstm, build_model
from mmer_jax.run import sharding
from mmer_jax.run.step import init_state, make_eval_step, make_step_parts, make_train_step, over_seeds, variables_of
from tests.small_run import MeanModel, jit_step
from tests.test_models import ALL, make_batch

LOSS = make_loss({'cross_entropy': 1.0})
MODEL, DROPOUT = MeanModel(ALL, dropout=0.0), MeanModel(ALL)
ADAM = optax.adam(1e-2)


def close(a, b, tolerance=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize('apart', [True, False], ids=['programs', 'loop'])
@pytest.mark.parametrize('accumulate', [2, 4])
def test_accumulation_equals_the_whole_batch(accumulate, apart):
    batch = make_batch(ALL, rows=8)
    batch['weight'] = np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32)  # unequal over the parts
    state = init_state(MODEL, ADAM, batch, 0)
    whole, numbers = jax.jit(make_train_step(MODEL, ADAM, LOSS))(state, batch)
    step = (make_step_parts if apart else make_train_step)(MODEL, ADAM, LOSS, accumulate=accumulate)
    mesh = sharding.make_mesh(1, 2)
    train = jit_step(step, lambda function, states: function, sharding.replicated(mesh))
    replicated = sharding.copy_tree(jax.device_put(state, sharding.replicated(mesh)))
    parts, part_numbers = train(replicated, sharding.put_batch(batch, mesh))
    close(whole.params, parts.params, 1e-5)
    for name in numbers:
        np.testing.assert_allclose(part_numbers[name], numbers[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('seeds', [1, 2])
def test_parts_of_several_seeds_equal_the_step_of_each(seeds):
    batch = make_batch(ALL, rows=8)
    states = [init_state(DROPOUT, ADAM, batch, seed) for seed in range(seeds)]
    single = jax.jit(make_train_step(DROPOUT, ADAM, LOSS, accumulate=2))
    mesh = sharding.make_mesh(1, 2)
    shardings = sharding.state_sharding(mesh), sharding.replicated(mesh)
    parts = make_step_parts(DROPOUT, ADAM, LOSS, accumulate=2)
    start = jax.device_put(jax.tree.map(lambda *x: np.stack(x), *states), shardings[0])
    stacked, numbers = jit_step(parts, partial(over_seeds, seeds=seeds), shardings)(
        start, sharding.put_batch(batch, mesh)
    )
    for seed, state in enumerate(states):
        alone, alone_numbers = single(state, batch)
        close(alone.params, jax.tree.map(lambda x, n=seed: np.asarray(x)[n], stacked.params), 1e-6)
        np.testing.assert_allclose(numbers['loss'][seed], alone_numbers['loss'], rtol=1e-6)


def test_a_step_changes_what_it_should_and_counts():
    batch = make_batch(ALL)
    state = init_state(DROPOUT, ADAM, batch, 0)
    new, numbers = jax.jit(make_train_step(DROPOUT, ADAM, LOSS))(state, batch)
    assert int(new.step) == 1
    assert all(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(new.params), strict=True)
    )
    np.testing.assert_array_equal(new.key, state.key)
    assert numbers['example_loss'].shape == (4,)
    np.testing.assert_allclose(numbers['loss'], numbers['example_loss'].mean(), rtol=1e-5)


def test_the_average_follows_the_parameters_and_is_what_evaluation_sees():
    batch = make_batch(ALL)
    state = init_state(MODEL, ADAM, batch, 0, average=True)
    step = jax.jit(make_train_step(MODEL, ADAM, LOSS, average=0.5))
    plain, plain_step = init_state(MODEL, ADAM, batch, 0), jax.jit(make_train_step(MODEL, ADAM, LOSS))
    expected = plain.params
    for number in range(8):
        state, _ = step(state, batch)
        plain, _ = plain_step(plain, batch)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = jax.tree.map(lambda a, new, d=decay: d * a + (1 - d) * new, expected, plain.params)
    close(state.params, plain.params)
    close(variables_of(state)['params'], expected)
    assert plain.average is None
    close(variables_of(plain)['params'], plain.params)


def test_lr_scale_scales_the_update():
    batch = make_batch(ALL)
    state = init_state(MODEL, ADAM, batch, 0)
    step = jax.jit(make_train_step(MODEL, ADAM, LOSS))
    full, _ = step(state, batch)
    tenth, _ = step(state.replace(lr_scale=jnp.float32(0.1)), batch)
    difference = jax.tree.map(lambda old, new: new - old, state.params, full.params)
    close(jax.tree.map(lambda old, d: old + 0.1 * d, state.params, difference), tenth.params)


def test_seeds_differ_and_depend_on_nothing_else():
    batch = make_batch(ALL)
    one, again, other = (init_state(DROPOUT, ADAM, batch, seed) for seed in (1, 1, 2))
    close(one, again, 0)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
    )


MODELS = {
    'lf_lstm': LfLstm(('text',), 3, hidden_size=4, mlp_size=5, dropout=0.3),
    'mfcc_cnn': build_model(
        {'name': 'unimodal', 'encoder': {'name': 'mfcc_cnn'}}, modalities=('audio',), num_outputs=3, dtype=jnp.float32
    ),
}


@pytest.mark.parametrize('name', MODELS)
def test_seeds_in_one_program_equal_single_runs(name):
    """Three seeds under vmap, dropout and batch statistics included, against three runs of one seed.

    SGD, because Adam's first steps are signs of the gradient, which rounding turns where it is near 0.
    """
    model, sgd = MODELS[name], optax.sgd(0.02)
    batches = [make_batch(model.modalities, rows=6, seed=k) for k in range(3)]
    train, predict = make_train_step(model, sgd, LOSS), make_eval_step(model, LOSS)
    init = jax.jit(jax.vmap(lambda s: init_state(model, sgd, batches[0], s)))

    def compiled(seeds):
        return jax.jit(over_seeds(train, seeds), donate_argnums=0), jax.jit(over_seeds(predict, seeds))

    def run(seeds, step, predict):
        state, losses = init(seeds), []
        for batch in batches:
            state, numbers = step(state, batch)
            losses.append(np.asarray(numbers['loss']))
        return np.array(losses), np.asarray(predict(variables_of(state), batches[0])['prediction'])

    losses, predictions = run(np.arange(3), *compiled(3))
    one_seed = compiled(1)
    single = [run(np.arange(k, k + 1), *one_seed) for k in range(3)]
    np.testing.assert_allclose(losses, np.concatenate([one[0] for one in single], 1), rtol=1e-4)
    np.testing.assert_allclose(predictions, np.concatenate([one[1] for one in single]), atol=1e-4)
    assert losses.std(1).min() > 1e-3  # the seeds are different runs


@pytest.mark.parametrize(('seed', 'data'), [(1, 2), (2, 1)])
def test_a_mesh_of_two_devices_equals_one(seed, data):
    batches = [make_batch(ALL, rows=6, seed=k) for k in range(3)]

    def run(mesh):
        by_seed, everywhere = sharding.state_sharding(mesh), sharding.replicated(mesh)
        init = jax.vmap(lambda s: init_state(DROPOUT, ADAM, batches[0], s))
        state = jax.jit(init, out_shardings=by_seed)(np.arange(2))
        step = jax.jit(
            over_seeds(make_train_step(DROPOUT, ADAM, LOSS), 2), donate_argnums=0, out_shardings=(by_seed, everywhere)
        )
        for batch in batches:
            state, numbers = step(state, sharding.put_batch(batch, mesh))
        return jax.tree.map(np.asarray, state.params), np.asarray(numbers['loss'])

    one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('seed', 'data'))
    expected, found = run(one), run(sharding.make_mesh(seed, data))
    close(expected, found, 1e-5)


def test_mesh_and_batch_that_do_not_fit_are_refused_with_numbers():
    with pytest.raises(ValueError, match=r'mesh seed=3 x data=2 needs 6 devices, this run has 2 \(cpu\)'):
        sharding.make_mesh(3, 2)
    mesh = sharding.make_mesh()
    with pytest.raises(ValueError, match='batch size 7 does not divide by 2 devices'):
        sharding.check_sizes(mesh, batch_size=7, seeds=1)
    with pytest.raises(ValueError, match='choose a multiple of 6'):
        sharding.check_sizes(mesh, batch_size=8, seeds=1, accumulate=3)
    with pytest.raises(ValueError, match='3 seeds do not divide over 2 devices'):
        sharding.check_sizes(sharding.make_mesh(2, 1), batch_size=8, seeds=3)


def test_a_batch_without_any_weight_gives_zero_loss_and_no_nan():
    batch = {**make_batch(ALL), 'weight': np.zeros(4, np.float32)}
    state = init_state(MODEL, ADAM, batch, 0)
    new, numbers = jax.jit(make_train_step(MODEL, ADAM, LOSS))(state, batch)
    assert float(numbers['loss']) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new.params))
