"""mmer_jax.convolve is jax.lax's convolution, and its gradients stand in the one order that XLA's CPU library takes."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.convolve import Conv, convolve
from tests.test_layering import FILES

# spatial sizes, taps, strides, padding, dilation: odd and even, more padding than taps, ends that no window reaches
CASES = {
    '1d': ((9,), (3,), (1,), 'SAME', (1,)),
    '1d strided, uneven zeros': ((10,), (4,), (3,), ((0, 2),), (1,)),
    '1d dilated': ((11,), (3,), (1,), ((4, 1),), (3,)),
    '2d': ((7, 6), (3, 2), (1, 1), 'SAME', (1, 1)),
    '2d strided': ((11, 8), (3, 5), (2, 3), ((1, 1), (2, 2)), (1, 1)),
    '2d, unreached ends': ((8, 9), (2, 3), (3, 4), 'VALID', (1, 1)),
    '2d, more zeros than taps': ((4, 4), (2, 2), (1, 1), ((3, 2), (2, 3)), (1, 1)),
    '2d strided and dilated': ((12, 11), (3, 3), (2, 2), ((1, 2), (2, 0)), (2, 1)),
    '3d': ((5, 6, 4), (3, 2, 1), (2, 1, 1), ((1, 0), (0, 1), (0, 0)), (1, 1, 1)),
}


def inputs(sizes, taps, seed=0):
    generator = np.random.default_rng(seed)
    return (
        jnp.asarray(generator.standard_normal((2, *sizes, 3)), jnp.float32),
        jnp.asarray(generator.standard_normal((*taps, 3, 4)), jnp.float32),
    )


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_are_those_of_lax(name):
    sizes, taps, strides, padding, dilation = CASES[name]
    x, kernel = inputs(sizes, taps)
    letters = 'DHW'[3 - len(sizes) :]
    layout = (f'N{letters}C', f'{letters}IO', f'N{letters}C')

    @jax.jit
    def both(x, kernel, cotangent):
        def plain(x, kernel):
            return jax.lax.conv_general_dilated(
                x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=layout
            )

        def own(x, kernel):
            return convolve(x, kernel, strides, padding, dilation)

        return [(y, *back(cotangent)) for y, back in (jax.vjp(f, x, kernel) for f in (plain, own))]

    shape = jax.eval_shape(lambda x, kernel: convolve(x, kernel, strides, padding, dilation), x, kernel).shape
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    for expected, found in zip(*both(x, kernel, cotangent), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('bias', [True, False])
def test_the_module_is_that_of_flax(bias):
    """The same parameters under the same names from a key, and the same results in another type."""
    x, _ = inputs((9, 8), ())
    fixed = {'strides': (2, 1), 'padding': ((1, 2), (0, 1)), 'kernel_dilation': (1, 2), 'use_bias': bias}
    for dtype in (None, jnp.bfloat16):
        ours, theirs = Conv(4, (3, 2), dtype=dtype, **fixed), nn.Conv(4, (3, 2), dtype=dtype, **fixed)
        variables = theirs.init(jax.random.key(0), x)
        assert jax.tree.all(jax.tree.map(np.array_equal, ours.init(jax.random.key(0), x), variables))
        found, expected = ours.apply(variables, x), theirs.apply(variables, x)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_in_a_loop_all_convolutions_have_channels_last():
    """What XLA's CPU compiler recognises there; jax.lax's own gradients have another order, and are the control."""

    def orders(function):
        x, kernel = inputs((7, 6), (3, 3))
        gradient = jax.grad(lambda kernel, x: jnp.square(function(x, kernel)).sum(), (0, 1))
        looped = jax.jit(lambda kernel, xs: jax.lax.map(lambda x: gradient(kernel, x), xs))
        text = looped.lower(kernel, jnp.stack([x, x])).as_text()
        return set(re.findall(r'dim_numbers = (.*?), window', text))

    assert orders(lambda x, kernel: convolve(x, kernel, (2, 1))) == {'[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]'}
    layout = ('NHWC', 'HWIO', 'NHWC')
    assert len(orders(lambda x, k: jax.lax.conv_general_dilated(x, k, (2, 1), 'SAME', dimension_numbers=layout))) > 1


def test_what_is_trained_convolves_here():
    """flax's and jax.lax's convolutions are for what has no gradient, or groups of channels."""
    elsewhere = {'convolve', 'media/mtcnn', 'encoders/wav2vec2', 'encoders/convolution'}
    for name, path in FILES.items():
        assert name in elsewhere or not re.search(r'nn\.Conv\(|conv_general_dilated', path.read_text()), name
