"""3-D convolutions: both ways agree with each other and with PyTorch, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.convolution import (
    LARGE_MAP,
    BatchNorm,
    Conv3D,
    conv2d,
    conv2d_in_parts,
    conv3d_frames,
    conv3d_native,
    max_pool,
    scale_images,
)

# input channels, features, kernel, strides, padding, groups
KINDS = {
    'stem': (3, 8, (7, 7, 7), (1, 2, 2), (3, 3, 3), 1),
    'grouped': (32, 32, (3, 3, 3), (1, 1, 1), (1, 1, 1), 8),
    'grouped, odd': (12, 6, (3, 3, 3), (1, 2, 1), (1, 1, 1), 3),
    'strided, wide groups': (64, 64, (3, 3, 3), (2, 2, 2), (1, 1, 1), 2),
    'pointwise': (8, 16, (1, 1, 1), (2, 2, 2), (0, 0, 0), 1),
    'no padding': (2, 3, (2, 3, 1), (1, 1, 1), (0, 0, 0), 1),
}


def arrays(kind):
    channels, features, kernel, *options = KINDS[kind]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 5, 9, 8, channels)).astype(np.float32)
    groups = options[-1]
    return x, generator.standard_normal((*kernel, channels // groups, features)).astype(np.float32), options


def value_and_gradients(convolve, x, kernel, options):
    def loss(x, kernel):
        y = convolve(x, kernel, *options)
        return (y**2).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
    return [np.asarray(a) for a in (y, *gradients)]


@pytest.mark.parametrize('kind', KINDS)
def test_both_ways_agree(kind):
    x, kernel, options = arrays(kind)
    native = value_and_gradients(conv3d_native, x, kernel, options)
    frames = value_and_gradients(conv3d_frames, x, kernel, options)
    for a, b in zip(native, frames, strict=True):
        np.testing.assert_allclose(b, a, atol=3e-6 * np.abs(a).max())


@pytest.mark.parametrize('kind', ['stem', 'grouped', 'strided, wide groups'])
def test_frames_equal_pytorch(kind):
    torch = pytest.importorskip('torch')
    x, kernel, (strides, padding, groups) = arrays(kind)
    tensors = [torch.tensor(np.moveaxis(x, -1, 1)), torch.tensor(kernel.transpose(4, 3, 0, 1, 2).copy())]
    for tensor in tensors:
        tensor.requires_grad_()
    y = torch.nn.functional.conv3d(*tensors, stride=strides, padding=padding, groups=groups)
    (y**2).sum().backward()
    expected = [y.detach().moveaxis(1, -1), tensors[0].grad.moveaxis(1, -1), tensors[1].grad.permute(2, 3, 4, 1, 0)]
    for a, b in zip(expected, value_and_gradients(conv3d_frames, x, kernel, (strides, padding, groups)), strict=True):
        np.testing.assert_allclose(b, a.numpy(), atol=3e-6 * np.abs(a.numpy()).max())


@pytest.mark.parametrize(('pictures', 'size', 'stride', 'dtype'), [(5, 3, 1, 'float32'), (35, 5, 2, 'bfloat16')])
def test_the_gradient_in_parts_is_that_of_the_whole(pictures, size, stride, dtype):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.standard_normal((pictures, 8, 7, 3)), dtype)
    kernel = jnp.asarray(generator.standard_normal((size, size, 3, 4)), dtype)
    options = (stride, stride), (size // 2, size // 2)
    parts = value_and_gradients(conv2d_in_parts, x, kernel, options)  # 35 pictures: twelve parts, the last of them two
    whole = value_and_gradients(conv2d, x, kernel, options)
    for a, b in zip(parts, whole, strict=True):
        a, b = a.astype(np.float32), b.astype(np.float32)
        np.testing.assert_allclose(a, b, atol={'float32': 1e-6, 'bfloat16': 0.02}[dtype] * np.abs(b).max())


@pytest.mark.parametrize(('channels', 'batch', 'in_parts'), [(16, 2, True), (15, 2, False), (16, 1, False)])
def test_only_large_maps_are_taken_in_parts(channels, batch, in_parts):
    assert LARGE_MAP == 64 * 64 * 16
    x, kernel = jnp.ones((batch, 64, 64, channels)), jnp.ones((3, 3, channels, 1))
    jaxpr = str(jax.make_jaxpr(lambda x: conv2d(x, kernel, (1, 1), (1, 1)))(x))
    assert ('conv2d_in_parts' in jaxpr) == in_parts


def test_the_module_has_one_kernel_whatever_the_method():
    x, _, _ = arrays('grouped')
    one, other = (
        Conv3D(32, (3, 3, 3), padding=(1, 1, 1), groups=8, use_bias=True, method=m) for m in ('native', 'frames')
    )
    variables = one.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == {'params': {'kernel': (3, 3, 3, 4, 32), 'bias': (32,)}}
    np.testing.assert_allclose(one.apply(variables, x), other.apply(variables, x), atol=1e-5)
    with pytest.raises(ValueError, match=r"method 'fast' .*: expected one of auto, native, frames"):
        Conv3D(4, (1, 1, 1), method='fast').init(jax.random.key(0), x)
    with pytest.raises(ValueError, match='5 groups do not divide 32 and 32 channels'):
        Conv3D(32, (1, 1, 1), groups=5).init(jax.random.key(0), x)


def test_batch_norm_leaves_padding_rows_out():
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4, 5)).astype(np.float32)
    norm, rows = BatchNorm(), np.array([True, True, False])
    variables = norm.init(jax.random.key(0), x, rows, train=False)
    y, changed = norm.apply(variables, x, rows, train=True, mutable=['batch_stats'])
    np.testing.assert_allclose(y[:2].mean((0, 1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y[:2].std((0, 1, 2, 3)), 1, atol=1e-3)
    expected = 0.1 * x[:2].mean((0, 1, 2, 3))
    np.testing.assert_allclose(changed['batch_stats']['norm']['mean'], expected, atol=1e-6)
    y, _ = norm.apply(variables, x, np.zeros(3, bool), train=True, mutable=['batch_stats'])
    assert np.isfinite(y).all()


def test_max_pool_by_hand():
    x = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1, 1)
    assert max_pool(x, 3, 2, 1).ravel().tolist() == [1, 3, 4]
    assert max_pool(-x, 3, 2, 1).ravel().tolist() == [0, -1, -3]  # what is beyond the border never wins


def test_pictures_are_scaled_and_floats_taken_as_they_are():
    pictures = np.array([[0, 255, 127]], np.uint8)
    found = scale_images(pictures, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), jnp.float32)
    np.testing.assert_allclose(found, [[-2, 1, 127 / 255 - 0.5]], rtol=1e-6)
    grey = scale_images(np.full((2, 1), 255, np.uint8), (0.2, 0.4, 0.6), (0.5, 0.5, 0.5), jnp.float32)
    np.testing.assert_allclose(grey, 1.2, rtol=1e-6)
    floats = pictures.astype(np.float32)
    np.testing.assert_array_equal(scale_images(floats, (0.5,) * 3, (0.5,) * 3, jnp.float32), floats)
