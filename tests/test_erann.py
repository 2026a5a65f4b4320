"""ERANN and the vector encoder: sizes, what a residual block computes, and what masks keep out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.erann import Erann, ResidualBlock
from mmer_jax.encoders.mlp import VectorEncoder

TINY = {'width': 1, 'blocks': 1}
BANDS = 16


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def frames(rows=3, steps=20, seed=0, lengths=(20, 13, 1)):
    generator = np.random.default_rng(seed)
    mask = np.arange(steps) < np.array(lengths)[:, None]
    return generator.standard_normal((rows, steps, BANDS)).astype(np.float32), mask


class Whole(Erann):
    """The encoder and its pooling."""

    def pooled(self, x_BTF, mask_BT, *, train):
        return self.pool(*self(x_BTF, mask_BT, train=train), train=train)


@pytest.fixture(scope='module')
def variables():
    return Whole(**TINY).init(jax.random.key(0), *frames(), train=False, method='pooled')


@jax.jit
def evaluate(variables, x, mask):
    return Whole(**TINY).apply(variables, x, mask, train=False, method='pooled')


@jax.jit
def train(variables, x, mask):
    out, changed = Whole(**TINY).apply(variables, x, mask, train=True, method='pooled', mutable=['batch_stats'])
    return out, changed['batch_stats']


@pytest.mark.parametrize(('coarse', 'steps'), [(0, 5), (1, 3), (3, 1)])
def test_sizes(coarse, steps):
    """Every coarse stage halves the steps once more, and has larger kernels."""
    x, mask = jnp.zeros((1, 80, 128)), jnp.ones((1, 80), bool)
    network = Whole(coarse_stages=coarse)
    (features, valid), _ = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), x, mask, train=False))
    assert (features.shape, valid.shape) == ((1, steps, 8, 512), (1, steps))
    pooled, variables = jax.eval_shape(
        lambda: network.init_with_output(jax.random.key(0), x, mask, train=False, method='pooled')
    )
    assert pooled.shape == (1, 512)
    if coarse == 0:
        channels = [1, *(32 * 2**stage for stage in range(5) for _ in range(4))]
        pairs = list(itertools.pairwise(channels))
        blocks = sum(9 * a * b + 9 * b * b + 2 * (a + b) + (a != b) * a * b for a, b in pairs)
        assert count(variables['params']) == blocks + 512 * 512 + 512 == 24_017_218


def test_coarse_stages_are_checked():
    with pytest.raises(ValueError, match='coarse_stages = 4'):
        Whole(coarse_stages=4).init(jax.random.key(0), *frames(), train=False)


def test_a_residual_block_adds_to_its_input():
    """With a last convolution of 0 it is the shortcut: the input, or one convolution of every second position."""
    x, mask = np.random.default_rng(0).standard_normal((2, 6, 4, 3)).astype(np.float32), np.ones((2, 6), bool)
    for strides, channels in (((1, 1), 3), ((2, 2), 5), ((4, 2), 5)):
        block = ResidualBlock(channels, *strides)
        variables = block.init(jax.random.key(0), x, mask, train=False)
        variables['params']['conv2'] = jax.tree.map(jnp.zeros_like, variables['params']['conv2'])
        out = block.apply(variables, x, mask, train=False)
        expected = x[:, :: strides[0], :: strides[1]]
        if channels != 3:
            expected = expected @ np.asarray(variables['params']['shortcut']['kernel'])[0, 0]
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing(variables):
    x, mask = frames()
    expected = evaluate(variables, x, mask)
    for extra, garbage in ((0, 1e3), (17, 0.0), (17, np.nan)):
        longer = np.pad(x, ((0, 0), (0, extra), (0, 0)))
        valid = np.pad(mask, ((0, 0), (0, extra)))
        out = evaluate(variables, np.where(valid[..., None], longer, garbage).astype(np.float32), valid)
        np.testing.assert_allclose(out, expected, atol=1e-5)


def test_padding_rows_and_steps_change_no_statistics(variables):
    x, mask = frames()
    out, statistics = train(variables, x, mask)
    rows = np.concatenate([np.pad(x, ((0, 0), (0, 20), (0, 0))), np.full((2, 40, BANDS), 9, np.float32)])
    valid = np.concatenate([np.pad(mask, ((0, 0), (0, 20))), np.zeros((2, 40), bool)])
    padded, same = train(variables, rows, valid)
    np.testing.assert_allclose(padded[:3], out, atol=2e-5)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    _, nothing = train(variables, x, np.zeros_like(mask))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nothing))


def test_pool_is_mean_plus_maximum(variables):
    features = np.random.default_rng(0).standard_normal((2, 3, 2, 128)).astype(np.float32)
    mask = np.array([[True, True, False], [False, False, False]])
    out = Whole(**TINY).apply(variables, features, mask, train=False, method='pool')
    seen = features[0, :2]
    dense = jax.tree.map(np.asarray, variables['params']['dense'])
    for row, vector in enumerate((seen.mean((0, 1)) + seen.max((0, 1)), np.zeros(128))):
        expected = vector @ dense['kernel'] + dense['bias']
        np.testing.assert_allclose(out[row], np.where(expected > 0, expected, 0.01 * expected), rtol=1e-4, atol=1e-5)


def test_vector_encoder_takes_each_step_by_itself_and_pools_the_valid_ones():
    x, mask = frames(steps=4, lengths=(4, 2, 0))
    encoder = VectorEncoder(sizes=(5, 3))
    (features, valid), variables = encoder.init_with_output(jax.random.key(0), x, mask, train=False)
    h = x
    for number in range(2):
        layer = variables['params'][f'Dense_{number}']
        h = np.maximum(h @ np.asarray(layer['kernel']) + np.asarray(layer['bias']), 0)
    np.testing.assert_allclose(features, np.where(mask[..., None], h, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(valid, mask)
    pooled = encoder.apply({}, features, mask, train=False, method='pool')
    np.testing.assert_allclose(pooled[1], h[1, :2].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled[2], 0)
