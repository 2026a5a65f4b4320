"""MICA: the alignment losses against numpy, what they read of the attention, and what they train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.fusion.distribution_alignment import pair_statistics
from mmer_jax.losses.distribution import (
    BANDWIDTHS,
    alignment_adversary,
    correlation_pull,
    distribution_alignment,
    squared_mmd,
)
from mmer_jax.models.mica import Mica
from mmer_jax.models.mult import Mult
from tests.any_values import random_variables

ALL = ('text', 'audio', 'vision')
ALIGNED = {'pull_threshold': 1.0, 'adversarial': True, 'discriminator_size': 3}
QUICK = {'xla_backend_optimization_level': 0}  # compiles in half the time
LOSSES = (distribution_alignment, correlation_pull, alignment_adversary)
TINY = {'width': 4, 'num_layers': 1, 'memory_layers': 1, 'num_heads': 2}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Squared MMD


def numpy_mmd(x, y):
    """The definition, pair by pair."""

    def distance(a, b):
        return np.square(np.asarray(a, np.float64)[:, None] - np.asarray(b, np.float64)[None]).sum(-1)

    both = np.concatenate([x, y])
    mean = distance(both, both).sum() / (len(both) * (len(both) - 1))

    def kernel(a, b):
        return np.mean([np.exp(-distance(a, b) / (c * mean)) for c in BANDWIDTHS], 0).mean()

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


mmd = jax.jit(squared_mmd)
mmd_gradient = jax.jit(jax.grad(squared_mmd))
ONES = np.ones(6, np.float32)


def test_mmd_by_numpy():
    x, y = normal(6, 3), 2 * normal(6, 3, seed=1) + 1
    np.testing.assert_allclose(mmd(x, y, ONES), numpy_mmd(x, y), rtol=1e-4)
    assert numpy_mmd(x, y) > 0.05


def test_mmd_is_0_for_equal_sets_and_grows_with_a_shift():
    x = normal(6, 3)
    np.testing.assert_allclose(mmd(x, x[::-1], ONES), 0, atol=1e-6)
    shifted = [float(mmd(x, x + shift, ONES)) for shift in np.float32([0, 0.5, 1, 2, 4])]
    assert (np.diff(shifted) > 0.01).all()


def test_mmd_leaves_out_rows_of_weight_0_and_ignores_a_common_offset():
    x, y, weight = normal(6, 3), 1 + normal(6, 3, seed=1), np.array([1, 0, 1, 1, 0, 1], np.float32)
    kept = weight > 0
    garbage = np.where(kept[:, None], x, np.float32(np.nan))
    np.testing.assert_allclose(mmd(garbage, y, weight), numpy_mmd(x[kept], y[kept]), rtol=1e-4)
    np.testing.assert_allclose(mmd(x + 100, y + 100, ONES), mmd(x, y, ONES), rtol=1e-3)
    gradient = np.asarray(mmd_gradient(x, y, weight))
    assert (gradient[~kept] == 0).all()
    assert (gradient[kept] != 0).any()


def test_mmd_gradient_brings_the_sets_together_and_is_finite_where_all_vectors_are_equal():
    x, y = normal(6, 3), 2 + normal(6, 3, seed=1)
    assert mmd(x - 2 * mmd_gradient(x, y, ONES), y, ONES) < mmd(x, y, ONES)
    same = np.ones((6, 3), np.float32)
    np.testing.assert_array_equal(mmd_gradient(same, same, ONES), 0)


def test_distribution_alignment_is_the_mean_over_layers_given_to_every_row():
    queries, keys = normal(6, 2, 3), 1 + normal(6, 2, 3, seed=1)
    loss = jax.jit(distribution_alignment)({'queries': queries, 'keys': keys}, {'weight': ONES})
    expected = np.mean([numpy_mmd(queries[:, a], keys[:, a]) for a in range(2)])
    np.testing.assert_allclose(loss, np.full(6, expected), rtol=1e-4)


# Statistics of a layer


def test_pair_statistics_by_numpy():
    """Two heads of two features; of three targets and four sources the last ones are padding."""
    query, key, threshold = normal(2, 3, 4), normal(2, 4, 4, seed=1), 1.2
    pairs = (np.arange(3) < 2)[None, :, None] & (np.arange(4) < 3)[None, None, :] & np.ones((2, 1, 1), bool)
    weights = np.where(pairs[:, None], np.exp(normal(2, 2, 3, 4, seed=2)), 0)
    maps = (weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)).astype(np.float32)
    seen = pair_statistics(query, key, maps, pairs, threshold=threshold)
    np.testing.assert_allclose(seen.query_BD, query[:, :2].mean(1), rtol=1e-5)
    np.testing.assert_allclose(seen.key_BD, key[:, :3].mean(1), rtol=1e-5)
    for b in range(2):
        distances = []
        for k, t, s in np.argwhere(maps[b] > threshold / 3):
            q, c = query[b, t, 2 * k : 2 * k + 2], key[b, s, 2 * k : 2 * k + 2]
            distances.append(np.square(q / np.linalg.norm(q) - c / np.linalg.norm(c)).sum())
        assert 0 < len(distances) < 12  # some of the 2 x 2 x 3 pairs
        np.testing.assert_allclose(seen.distance_B[b], np.mean(distances), rtol=1e-4)


def test_the_pull_is_finite_without_strong_pairs_and_without_steps():
    query, key, pairs = np.zeros((2, 2, 4), np.float32), normal(2, 3, 4), np.zeros((2, 2, 3), bool)
    pairs[0] = True
    maps = np.where(pairs[:, None], np.float32(1 / 3), 0) * np.ones((2, 2, 1, 1), np.float32)

    def distance(query, threshold):
        return pair_statistics(query, key, maps, pairs, threshold=threshold).distance_B

    np.testing.assert_array_equal(distance(query, 2.0), 0)
    np.testing.assert_allclose(distance(query, 0.5), [2, 0])  # a query of 0 has no direction
    assert np.isfinite(jax.grad(lambda q: distance(q, 0.5).sum())(query)).all()


# The model


def tiny_batch(modalities=ALL, rows=4, extra=0, garbage=0.0):
    generator = np.random.default_rng(0)
    batch = {'weight': np.ones(rows, np.float32)}
    for m, size in zip(ALL, (3, 4, 5), strict=True):
        lengths = generator.integers(2, 6, rows)
        values = np.pad(generator.standard_normal((rows, 5, size)).astype(np.float32), ((0, 0), (0, extra), (0, 0)))
        if m in modalities:
            mask = np.arange(5 + extra) < lengths[:, None]
            batch[m], batch[f'{m}_mask'] = np.where(mask[..., None], values, np.float32(garbage)), mask
    return batch


def predict(model, variables, batch):
    return jax.jit(functools.partial(model.apply, train=False), compiler_options=QUICK)(variables, batch)


def make_gradients(model, batch):
    """params -> {loss: {parameter: gradient}} and the losses, of the mean over the batch."""

    def losses(params):
        outputs = model.apply({'params': params}, batch, train=False)
        values = jnp.stack([loss(outputs, batch).mean() for loss in LOSSES])
        return values, values

    jacobian = jax.jit(jax.jacrev(losses, has_aux=True), compiler_options=QUICK)

    def gradients(params):
        tree, values = jacobian(params)
        return [jax.tree.map(lambda leaf, n=n: np.asarray(leaf[n]), tree) for n in range(len(LOSSES))], values

    return gradients


def by_name(tree):
    flat = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in flat}


@pytest.fixture(scope='module')
def pair():
    """A model of two modalities with discriminators, its variables and a batch."""
    model = Mica(('text', 'audio'), 2, **{**TINY, 'num_layers': 2}, **ALIGNED)
    batch = tiny_batch(('text', 'audio'))
    return model, random_variables(model, batch), batch


@pytest.fixture(scope='module')
def gradients(pair):
    model, _, batch = pair
    return make_gradients(model, batch)


@pytest.fixture(scope='module')
def of_the_other(pair):
    """The gradients of the same model with remat, and without the reversal of signs."""
    model, variables, batch = pair
    trees, _ = make_gradients(model.clone(remat=True, reversal=-1.0), batch)(variables['params'])
    return [by_name(tree) for tree in trees]


def test_predicts_as_mult_of_the_same_parameters(pair):
    model, variables, batch = pair
    outputs = predict(model, variables, batch)
    mult = Mult(('text', 'audio'), 2, **{**TINY, 'num_layers': 2})
    params = {key: value for key, value in variables['params'].items() if key != 'discriminator'}
    assert set(variables['params']) - set(params) == {'discriminator'}
    expected = predict(mult, {'params': params}, batch)
    np.testing.assert_allclose(outputs['prediction'], expected['prediction'], atol=1e-6)
    assert outputs['queries'].shape == outputs['keys'].shape == (4, 4, 4)
    assert outputs['correlation_distance'].shape == outputs['query_logits'].shape == (4, 4)


def test_padding_changes_no_extra(pair):
    model, variables, batch = pair
    padded = tiny_batch(('text', 'audio'), extra=2, garbage=np.nan)
    one, two = (predict(model, variables, b) for b in (batch, padded))
    for key in ('queries', 'keys', 'correlation_distance', 'query_logits', 'key_logits'):
        assert np.abs(one[key]).max() > 1e-2, key
        np.testing.assert_allclose(two[key], one[key], atol=5e-6, err_msg=key)


@pytest.mark.parametrize('number', range(3), ids=[loss.__name__ for loss in LOSSES])
def test_the_losses_train_queries_and_keys(pair, gradients, number):
    """And their inputs; the last layer's values and what lies behind them are the task's alone."""
    trees, _ = gradients(pair[1]['params'])
    for name, value in by_name(trees[number]).items():
        last = '/layer_1/' in name and not any(part in name for part in ('query', 'key', 'attention_norm'))
        elsewhere = '_memory' in name or name.startswith('head') or name.endswith(('/norm/scale', '/norm/bias'))
        discriminator = name.startswith('discriminator') and LOSSES[number] is not alignment_adversary
        if last or elsewhere or discriminator:
            assert (value == 0).all(), name
        else:
            assert np.isfinite(value).all(), name
            assert (value != 0).any(), name


def test_the_adversary_trains_discriminators_and_queries_against_each_other(pair, gradients, of_the_other):
    """Reversal turns the sign of everything before the discriminators, and of nothing behind."""
    trees, _ = gradients(pair[1]['params'])
    for name, value in by_name(trees[2]).items():
        sign = 1 if name.startswith('discriminator') else -1
        np.testing.assert_allclose(of_the_other[2][name], sign * value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_remat_gives_the_same_gradients(pair, gradients, of_the_other):
    trees, _ = gradients(pair[1]['params'])
    for tree, other in zip(trees[:2], of_the_other[:2], strict=True):
        for name, value in by_name(tree).items():
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_every_layer_has_a_discriminator_of_its_own(pair):
    model, variables, batch = pair
    kernels = variables['params']['discriminator']['layers']['Dense_0']['kernel']
    assert kernels.shape == (4, 4, 3)
    changed = jax.tree.map(np.copy, variables)
    changed['params']['discriminator']['layers']['Dense_1']['bias'][2] += 1
    one, two = (predict(model, v, batch)['query_logits'] for v in (variables, changed))
    np.testing.assert_allclose(two - one, np.eye(4, dtype=np.float32)[2][None].repeat(4, 0), atol=1e-6)


def test_alignment_adversary_by_hand():
    """Probability 3/4 of being a query: the loss is log(4/3) on a query's side, log(4) on a key's."""
    logit = np.full((2, 1), np.log(3), np.float32)
    loss = alignment_adversary({'query_logits': logit, 'key_logits': logit}, {})
    np.testing.assert_allclose(loss, np.full(2, (np.log(4 / 3) + np.log(4)) / 2), rtol=1e-6)


def test_training_on_the_losses_alone_aligns(pair, gradients):
    """A few steps of gradient descent on alignment and pull make both smaller."""
    params, history = pair[1]['params'], []
    for _ in range(4):
        (alignment, pull, _), values = gradients(params)
        params = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b), params, alignment, pull)
        history.append(values)
    assert (history[-1][:2] < 0.95 * history[0][:2]).all(), history


def test_captured_attention_is_mults(pair):
    model, variables, batch = pair
    mult = Mult(('text', 'audio'), 2, **{**TINY, 'num_layers': 2}, capture_attention=True)
    params = {key: value for key, value in variables['params'].items() if key != 'discriminator'}
    expected = predict(mult, {'params': params}, batch)['attention']
    attention = predict(model.clone(capture_attention=True), variables, batch)['attention']
    assert attention.keys() == expected.keys()
    for name, value in attention.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)


# Errors


def test_one_modality_is_an_error():
    batch = tiny_batch(('audio',))
    with pytest.raises(ValueError, match=r"two or three, found \('audio',\)"):
        jax.eval_shape(lambda: Mica(('audio',), 2, **TINY).init(jax.random.key(0), batch, train=False))


@pytest.mark.parametrize(
    ('loss', 'extra'),
    [
        (distribution_alignment, 'queries'),
        (correlation_pull, 'correlation_distance'),
        (alignment_adversary, 'query_logits'),
    ],
)
def test_a_model_without_the_extras_is_an_error(loss, extra):
    with pytest.raises(ValueError, match=extra):
        loss({'prediction': np.zeros((2, 1))}, {'weight': np.ones(2)})
