"""The time-delay network: masks, strides and the pooling, beside the same worked out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders import Tdnn

FIELDS = {'width': 6, 'attention_size': 4, 'dropout': 0.0, 'head_dropout': 0.0}


def batch(steps=21, lengths=(21, 9, 0), garbage=0.0):
    x = np.random.default_rng(0).standard_normal((3, 21, 5)).astype(np.float32)
    mask = np.arange(steps) < np.array(lengths)[:, None]
    x = np.pad(x, ((0, 0), (0, steps - 21), (0, 0)))
    return np.where(mask[..., None], x, garbage).astype(np.float32), mask


@pytest.fixture(scope='module', params=[False, True], ids=['plain', 'centred'])
def case(request):
    module = Tdnn(**FIELDS, center=request.param)

    def both(module, x, mask, train):
        features, mask = module(x, mask, train=train)
        return features, mask, module.pool(features, mask, train=train)

    variables = module.init(jax.random.key(0), *batch(), False, method=both)
    apply = jax.jit(
        lambda x, mask, train: module.apply(variables, x, mask, train, method=both, mutable=['batch_stats']),
        static_argnums=2,
    )
    return module, variables, apply


@pytest.mark.parametrize('train', [False, True])
def test_padding_and_padding_rows_change_nothing(case, train):
    _, _, apply = case
    (features, mask, pooled), changed = apply(*batch(), train)
    assert features.shape == (3, 6, 6)
    assert pooled.shape == (3, 12)
    np.testing.assert_array_equal(mask.sum(1), [6, 3, 0])
    assert np.isfinite(pooled).all()
    np.testing.assert_array_equal(pooled[2], 0)
    (more, _, pooled_more), changed_more = apply(*batch(30, garbage=np.nan), train)
    np.testing.assert_allclose(more[:, :6], features, atol=2e-6)
    np.testing.assert_allclose(pooled_more, pooled, atol=2e-6)
    x, mask = batch()
    (_, _, less), changed_less = apply(x[:2], mask[:2], train)
    np.testing.assert_allclose(less, pooled[:2], atol=2e-6)
    for other in (changed_more, changed_less):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), changed, other)


def test_the_pooling_is_the_weighted_mean_and_deviation(case):
    module, variables, _ = case
    x = np.random.default_rng(1).standard_normal((2, 4, 6)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    found = module.apply(variables, jnp.asarray(x), mask, train=False, method='pool')
    hidden, score = (jax.tree.map(np.asarray, variables['params'][name]) for name in ('hidden', 'score'))
    for row, steps in ((0, 4), (1, 2)):
        own = x[row, :steps]
        logits = np.tanh(own @ hidden['kernel'] + hidden['bias']) @ score['kernel'][:, 0] + score['bias']
        weight = np.exp(logits - logits.max())
        weight = (weight / weight.sum())[:, None]
        mean = (weight * own).sum(0)
        deviation = np.sqrt((weight * (own - mean) ** 2).sum(0))
        np.testing.assert_allclose(found[row], np.concatenate([mean, deviation]), atol=1e-5)


def test_a_clip_s_own_mean_is_taken_away():
    x, mask = batch(lengths=(21, 9, 4))
    shift = np.random.default_rng(2).standard_normal((3, 1, 5)).astype(np.float32)
    for center in (True, False):
        module = Tdnn(**FIELDS, center=center)
        variables = module.init(jax.random.key(0), x, mask, train=False)
        a, b = (module.apply(variables, each, mask, train=False)[0] for each in (x, x + shift))
        assert np.allclose(a, b, atol=1e-5) == center
