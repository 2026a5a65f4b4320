"""Gradient reversal: the identity forward, -scale backward, for scales fixed, traced, annealed and one a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.fusion import reverse_gradient
from mmer_jax.fusion.distribution_alignment import SideDiscriminator
from mmer_jax.fusion.double_discriminator import DoubleDiscriminator

X = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)


def loss(x, scale):
    return (reverse_gradient(x, scale) ** 2).sum()


def anneal(step, steps=100):
    """The schedule of Ganin and Lempitsky: from 0 to almost 1."""
    return 2 / (1 + jnp.exp(-10 * step / steps)) - 1


@pytest.mark.parametrize('scale', [0.0, 3.0, -1.0, 2, np.float32(0.5), jnp.float32(1.5)])
def test_scales_that_are_known_and_traced_ones_agree(scale):
    np.testing.assert_array_equal(reverse_gradient(X, scale), X)
    expected = -2 * np.float32(scale) * X
    np.testing.assert_array_equal(jax.grad(loss)(X, scale), expected)
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(X, scale), expected)


def test_the_default_scale_is_1_and_may_stand_by_name():
    np.testing.assert_array_equal(jax.grad(lambda x: reverse_gradient(x).sum())(X), -np.ones_like(X))
    np.testing.assert_array_equal(jax.grad(lambda x: reverse_gradient(x, scale=2.0).sum())(X), -2 * np.ones_like(X))


def test_an_annealed_scale_compiles_once_and_follows_its_schedule():
    compiled = []

    @jax.jit
    def step(x, number):
        compiled.append(number)
        return jax.grad(lambda x: loss(x, anneal(number)))(x)

    for number in (0, 10, 50, 100):
        scale = 2 / (1 + np.exp(-number / 10)) - 1
        np.testing.assert_allclose(step(X, jnp.float32(number)), -2 * scale * X, rtol=1e-5, atol=1e-7)
    assert len(compiled) == 1


def test_the_scale_gets_no_gradient():
    assert jax.grad(loss, 1)(X, 0.7) == 0
    np.testing.assert_array_equal(jax.grad(loss, 1)(X, jnp.full((2, 1), 0.7)), np.zeros((2, 1)))


def test_a_scale_a_row_and_a_scale_a_seed():
    rows = np.array([[2.0], [0.0]], np.float32)
    np.testing.assert_array_equal(jax.grad(loss)(X, rows), -2 * rows * X)
    seeds = np.array([0.5, 1.0, 4.0], np.float32)
    each = jax.vmap(jax.grad(loss), (None, 0))(X, seeds)
    np.testing.assert_array_equal(each, -2 * seeds[:, None, None] * X)


def test_half_precision_keeps_its_type_under_a_scale_of_float32():
    gradient = jax.grad(lambda x: reverse_gradient(x, jnp.float32(0.5)).sum())(jnp.ones(3, jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.astype(jnp.float32), [-0.5] * 3)


@pytest.mark.parametrize('kind', [DoubleDiscriminator, SideDiscriminator])
def test_discriminators_take_an_annealed_scale(kind):
    """The field `reversal`, in a model of one's own whose scale is computed in the step."""
    specific, agnostic = np.random.default_rng(0).standard_normal((2, 4, 3, 5)).astype(np.float32)
    inputs = (specific, agnostic) if kind is DoubleDiscriminator else (agnostic,)
    variables = kind(hidden_size=4).init(jax.random.key(0), *inputs, train=False)

    @jax.jit
    def gradient(number):
        def total(x):
            out = kind(hidden_size=4, reversal=anneal(number)).apply(variables, *inputs[:-1], x, train=True)
            return (out['agnostic_logits'] if kind is DoubleDiscriminator else out).sum()

        return jax.grad(total)(agnostic)

    none, half, whole = (np.asarray(gradient(jnp.float32(number))) for number in (0, np.log(3) * 10, 1000))
    np.testing.assert_array_equal(none, 0)
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(half, whole / 2, rtol=1e-5, atol=1e-7)  # 2 / (1 + 1 / 3) - 1 is a half
