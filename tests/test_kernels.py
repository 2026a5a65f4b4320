"""mmer_jax.kernels: each is what JAX's own operations give, forward and backward."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import kernels
from mmer_jax.dropout import keep
from mmer_jax.layers import attend, attention_logits, masked_softmax, over_sources
from mmer_jax.whole import recomputed


def close(found, expected, tolerance=2e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (kernels.LayerNorm(1e-5), nn.LayerNorm(1e-5, use_fast_variance=False)),
        (kernels.Dense(4), nn.Dense(4)),
        (kernels.Dense(4, use_bias=False, dtype=jnp.float32), nn.Dense(4, use_bias=False)),
    ],
)
def test_layers_are_those_of_flax(ours, theirs):
    x = 3 + jax.random.normal(jax.random.key(0), (2, 5, 8))
    variables = theirs.init(jax.random.key(1), x)
    close(ours.init(jax.random.key(1), x), variables)
    wanted = jax.random.normal(jax.random.key(2), theirs.apply(variables, x).shape)
    moved = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(3), a.shape), variables)

    def values(layer):
        return jax.jit(jax.value_and_grad(lambda v, x: (layer.apply(v, x) * wanted).sum(), argnums=(0, 1)))(moved, x)

    close(values(ours), values(theirs), 5e-6)


def plain(query, key, value, mask, *, num_heads, scale=0.0, dropout=0.0, rng=None):
    """As layers.Attention did it, one operation after another."""
    logits = attention_logits(query, key, num_heads) * (scale or (query.shape[-1] // num_heads) ** -0.5)
    weights = masked_softmax(logits, over_sources(mask))
    if rng is not None:
        weights = jnp.where(keep(rng, weights.shape, dropout), weights / (1 - dropout), 0)
    return attend(weights, value)


ROWS, HEADS, TARGETS, SOURCES = 4, 6, 5, 7


@pytest.mark.parametrize(
    ('block', 'blocks'), [(2**19, 1), (2 * HEADS * TARGETS * SOURCES, 2), (3 * TARGETS * SOURCES, 8), (1, 24)]
)
@pytest.mark.parametrize('rate', [0.0, 0.4])
def test_attention_in_blocks_is_attention(block, blocks, rate, monkeypatch):
    monkeypatch.setattr(kernels, 'BLOCK', block)
    r, h = kernels._block_sizes(ROWS, HEADS, TARGETS * SOURCES)
    assert ROWS * HEADS // (r * h) == blocks
    generator = np.random.default_rng(0)
    query, wanted = generator.standard_normal((2, ROWS, TARGETS, 12), np.float32)
    key, value = generator.standard_normal((2, ROWS, SOURCES, 12), np.float32)
    mask = generator.random((ROWS, TARGETS, SOURCES)) < 0.6
    mask[1, 2], mask[3] = False, False  # a step, and a row, that see nothing
    rng = jax.random.key(5) if rate else None

    def values(function, **options):
        def loss(*arrays):
            return (function(*arrays, mask, num_heads=HEADS, dropout=rate, **options) * wanted).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(query, key, value)

    expected = values(plain, rng=rng)
    found = values(kernels.mix, key=rng)
    close(found, expected, 5e-6)
    assert all(np.abs(g).max() > 0.1 for g in expected[1])
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    for by_jax in (False, True):
        monkeypatch.setattr(kernels, 'FUSED', by_jax)
        close(values(kernels.mix, key=rng), expected, 5e-6)


def test_one_mask_of_sources_serves_all_steps_and_seeds():
    query, key, value = jax.random.normal(jax.random.key(0), (3, 2, 4, 6, 8))  # two seeds of four rows
    mask = jnp.arange(6)[None] < jnp.array([6, 4, 0, 2])[:, None]

    def mixed(query, key, value):
        return kernels.mix(query, key, value, mask, num_heads=2, scale=0.3)

    found = jax.vmap(mixed)(query, key, value)
    for seed in range(2):
        close(found[seed], plain(query[seed], key[seed], value[seed], mask, num_heads=2, scale=0.3))
    np.testing.assert_array_equal(found[:, 2], 0)


def test_a_recomputed_function_has_its_derivative_over_seeds_too():
    def inner(x, mask, y, *, power):
        return [jnp.where(mask, jnp.sin(x) * y**power, 0), (x * y).sum()]

    x, y = jax.random.normal(jax.random.key(0), (2, 3, 5))
    mask = jnp.arange(5)[None] < jnp.array([5, 2, 0])[:, None]

    def values(function):
        def loss(x, y, mask):
            first, second = function(x, mask, y, power=2)
            return (first**2).sum() + jnp.cos(second)

        return jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))(x, y, mask)

    close(values(recomputed(inner)), values(inner))
    first, _ = recomputed(inner)(x, mask, y, power=1)  # outside of a program
    close(first, jnp.where(mask, jnp.sin(x) * y, 0))


def test_a_program_holds_a_whole_function_once_per_shape():
    def twice(params, x):
        for _ in range(5):
            x = kernels.relu(kernels.product(x, params))
        return x.sum()

    sizes = jnp.ones((4, 4)), jnp.ones((2, 4))
    text = jax.jit(jax.grad(twice)).lower(*sizes).as_text()
    assert text.count('call @product_backward') == 5
    assert text.count('func.func private @product_backward') == 1
