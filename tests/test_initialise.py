"""mmer_jax.run.initialise: the values of a module's own init, each different initialiser compiled once."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmer_jax.run import initialise, states
from mmer_jax.run.initialise import fresh, trace
from mmer_jax.run.step import init_state
from mmer_jax.train import train_and_evaluate
from tests import in_a_row, once
from tests.small_run import MeanModel, small_config
from tests.test_models import ALL, make, make_batch

SEEDS = np.array([3, 11])
FEWER = {'mfsa': {'psa_layers': 1, 'hca_layers': 0}}  # each initialiser of init itself is compiled
TWO = ('text', 'audio')  # compile in a third of the time of three


@pytest.fixture(autouse=True)
def the_package_itself(monkeypatch):
    """Other tests make parameters by tests/in_a_row.py."""
    monkeypatch.setattr(initialise, '_run', once.run_of_package)


@pytest.mark.parametrize(('name', 'remat'), [('lf_lstm', False), ('mult', True), ('mfsa', False)])
def test_values_are_those_of_init(name, remat):
    model, batch = make(name, TWO, remat=remat, **FEWER.get(name, {})), make_batch(TWO)

    def init(seed):
        return model.init(jax.random.key(seed), batch, train=False)

    expected = jax.jit(lambda seeds: jax.lax.map(init, seeds))(SEEDS)
    found = fresh(trace(init, SEEDS[0]), SEEDS)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    # Rounding may differ where XLA merges a product with a sum.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6), found, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


def test_equal_initialisers_are_compiled_once(monkeypatch):
    model, batch, calls = make('mult', ALL, num_layers=3, remat=True), make_batch(ALL), []
    run = initialise._run
    monkeypatch.setattr(initialise, '_run', lambda *arguments: calls.extend(arguments[0]) or run(*arguments))
    found = fresh(trace(lambda seed: model.init(jax.random.key(seed), batch, train=False), SEEDS[0]), SEEDS)
    parameters, parts = len(jax.tree.leaves(found)), len(calls)
    assert parameters > 400
    assert parts < 30, f'{parameters} parameters in {parts} parts'


def test_tests_begin_with_the_same_values():
    """Those of tests/in_a_row.py: kinds of initialisers, some shapes and scales. The last bit may differ."""
    made = {
        'dense': (nn.initializers.lecun_normal(), (3, 5)),
        'other_dense': (nn.initializers.lecun_normal(), (2, 3, 4)),
        'large': (nn.initializers.he_normal(), (40, 2, 7)),
        'uniform': (nn.initializers.glorot_uniform(), (9, 9)),
        'normal': (nn.initializers.normal(0.02), (70,)),
        'one': (nn.initializers.ones, (1, 6)),
        'constant': (nn.initializers.constant(0.5), ()),
        'recurrent': (nn.initializers.orthogonal(), (3, 3)),
    }

    def init(seed, names):
        keys = {name: jax.random.fold_in(jax.random.key(seed), number) for number, name in enumerate(made)}
        return {name: made[name][0](keys[name], made[name][1]) for name in names}

    def calls(*names):
        return initialise._parts(trace(functools.partial(init, names=names), SEEDS[0]))[0]

    *names, recurrent = made
    for call, expected in zip(calls(*names), once.run_of_package(calls(*names), SEEDS), strict=True):
        np.testing.assert_allclose(in_a_row.values(call, SEEDS), expected, rtol=5e-7, strict=True)
    programs = in_a_row.compiled.cache_info().misses
    in_a_row.values(calls('dense')[0], SEEDS[:1])
    in_a_row.values(calls('other_dense')[0], SEEDS[:1])
    assert in_a_row.compiled.cache_info().misses == programs
    with pytest.raises(in_a_row.DependsOnTheShape):
        in_a_row.values(calls(recurrent)[0], SEEDS)


def test_what_does_not_depend_on_the_seed_is_the_same_for_all():
    traced = trace(
        lambda seed: {'one': np.float32(1) * jax.numpy.ones(3), 'seed': seed, 'two': jax.numpy.ones(3)}, SEEDS[0]
    )
    found = fresh(traced, SEEDS)
    np.testing.assert_array_equal(found['one'], np.ones((2, 3)))
    np.testing.assert_array_equal(found['two'], np.ones((2, 3)))
    np.testing.assert_array_equal(found['seed'], SEEDS)


class Scaled(MeanModel):
    """With a parameter of one number that begins with a constant."""

    @nn.compact
    def __call__(self, batch, *, train):
        scale = self.param('scale', nn.initializers.constant(0.5), ())
        return {'prediction': scale * super().__call__(batch, train=train)['prediction']}


def test_a_run_traces_its_module_once(tiny, tmp_path, monkeypatch):
    """For the shapes of its states and for their values; tracing is what is left of a start from the cache."""
    traced = []
    monkeypatch.setattr(states, 'init_state', lambda *arguments: traced.append(1) or init_state(*arguments))
    train_and_evaluate(small_config(tiny, epochs=1), tmp_path, Scaled())
    assert traced == [1]
