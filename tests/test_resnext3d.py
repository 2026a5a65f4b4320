"""3-D ResNeXt: published counts, PyTorch's numbers, and padding that changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.resnext3d import ResNeXt3D
from tests.double import assert_near, in_float64, widened

TINY = {'num_frames': 4, 'block_counts': (1, 2, 1, 1), 'planes': (32, 32, 64, 64), 'cardinality': 4, 'stem_features': 8}
MODEL = ResNeXt3D(**TINY)
IN_DOUBLE = MODEL.clone(dtype=jnp.dtype('float64'))


def clips(rows=3, frames=4, side=32, dtype=np.uint8):
    pictures = np.random.default_rng(0).integers(0, 256, (rows, frames, side, side, 3))
    return pictures.astype(dtype), np.ones((rows, frames), bool)


@pytest.fixture(scope='module')
def variables():
    variables = MODEL.init(jax.random.key(0), *clips(), train=False)
    generator = np.random.default_rng(1)

    def trained(path, x):  # norms as after training: other means and variances, and biases that keep units alive
        low, high = {'mean': (-0.1, 0.1), 'var': (0.3, 0.6), 'bias': (-0.3, 0.6)}.get(path[-1].key, (0, 0))
        noise = generator.uniform(low, high, x.shape).astype(np.float32)
        return noise if path[-1].key == 'var' else x + noise

    return jax.tree_util.tree_map_with_path(trained, variables)


@pytest.fixture(scope='module')
def apply():
    return jax.jit(lambda variables, x, mask: MODEL.apply(variables, x, mask, train=False)[0])


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_published_count_and_maps():
    x, mask = jax.ShapeDtypeStruct((1, 30, 224, 224, 3), jnp.uint8), jax.ShapeDtypeStruct((1, 30), bool)
    model = ResNeXt3D()
    variables = jax.eval_shape(lambda x, mask: model.init(jax.random.key(0), x, mask, train=False), x, mask)
    assert size(variables['params']) + 2048 * 8 + 8 == 25_882_056
    features, _ = jax.eval_shape(lambda *a: model.apply(*a, train=False), variables, x, mask)
    assert features.shape == (1, 2, 7, 7, 2048)


def test_stages_have_the_channels_at_which_others_meet_it(variables, apply):
    shapes = []

    @jax.jit
    def run(variables, x, mask):
        bound = MODEL.bind(variables)
        x, mask = bound.prepare(x, mask)
        rows = mask.any(1)
        for name in ('stem', 'stage1', 'stage2', 'stage3', 'stage4'):
            x = getattr(bound, name)(x, rows, train=False)
            shapes.append(x.shape[1:])
        return x

    x = run(variables, *clips())
    assert shapes == [(2, 8, 8, 8), (2, 8, 8, 64), (1, 4, 4, 64), (1, 2, 2, 128), (1, 1, 1, 128)]
    np.testing.assert_allclose(x, apply(variables, *clips()), atol=1e-5)


def test_pictures_equal_normalised_floats(variables, apply):
    x, mask = clips()
    floats = (x / 255.0 - np.array(MODEL.mean)) / np.array(MODEL.std)
    assert (apply(variables, x, mask) > 0).mean() > 0.2
    np.testing.assert_allclose(
        apply(variables, floats.astype(np.float32), mask), apply(variables, x, mask), atol=1e-4, rtol=1e-4
    )


def test_padded_frames_and_other_rows_change_nothing(variables, apply):
    x, mask = clips()
    mask[1, 2:] = False
    garbage = np.where(mask[..., None, None, None], x, 255).astype(np.uint8)
    np.testing.assert_array_equal(
        apply(variables, garbage, mask),
        apply(variables, np.where(mask[..., None, None, None], x, 0).astype(np.uint8), mask),
    )
    longer = np.concatenate([x, x], 1)
    np.testing.assert_array_equal(apply(variables, longer, np.concatenate([mask, mask], 1)), apply(variables, x, mask))


def test_a_padding_row_changes_no_statistics(variables):
    @in_float64  # the last norms see a handful of values, whose deviation float32 cannot tell
    @jax.jit
    def step(variables, x, mask):
        (features, _), changed = IN_DOUBLE.apply(variables, x, mask, train=True, mutable=['batch_stats'])
        return features, changed

    x, mask = clips(rows=2)
    features, changed = step(variables, x, mask)
    padded = np.concatenate([x, np.full_like(x[:1], 9)]), np.concatenate([mask, np.zeros_like(mask[:1])])
    more, changed_more = step(variables, *padded)
    assert_near(more[:2], features)
    for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(changed_more), strict=True):
        assert_near(b, a)


def test_remat_changes_nothing_but_memory(variables):
    x, mask = clips(rows=2)

    def gradient(model):
        def loss(params):
            return (model.apply({**variables, 'params': params}, x, mask, train=False)[0] ** 2).mean()

        return jax.jit(jax.grad(loss))(variables['params'])

    for a, b in zip(*(jax.tree.leaves(gradient(m)) for m in (MODEL, ResNeXt3D(**TINY, remat=True))), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6 + 1e-5 * np.abs(a).max())


def test_the_stem_without_activation_is_another_function(variables, apply):
    without = ResNeXt3D(**TINY, stem_activation=False)
    quirk = jax.jit(functools.partial(without.apply, train=False))(variables, *clips())[0]
    assert np.abs(quirk - apply(variables, *clips())).max() > 1e-3


def reference(torch, variables, x, train):
    """The published layout in PyTorch's functions, on our variables, in float64."""
    from torch.nn import functional as f

    params, stats = widened(variables['params']), widened(variables['batch_stats'])

    def conv(x, where, stride, padding, groups=1):
        kernel = torch.tensor(where['kernel'].transpose(4, 3, 0, 1, 2).copy())
        return f.conv3d(x, kernel, stride=stride, padding=padding, groups=groups)

    def norm(x, where, stat):
        a = {k: torch.tensor(v) for k, v in {**where['norm'], **stat['norm']}.items()}
        return f.batch_norm(x, a['mean'], a['var'], a['scale'], a['bias'], training=train, eps=1e-5)

    x = torch.tensor(np.moveaxis(x, -1, 1).copy())
    x = f.max_pool3d(f.relu(norm(conv(x, params['conv1'], (1, 2, 2), 3), params['norm1'], stats['norm1'])), 3, 2, 1)
    for stage, count in enumerate(TINY['block_counts'], start=1):
        for number in range(count):
            p, s = params[f'blocks{stage}_{number}'], stats[f'blocks{stage}_{number}']
            stride = 2 if number == 0 and stage > 1 else 1
            y = f.relu(norm(conv(x, p['conv1'], 1, 0), p['norm1'], s['norm1']))
            y = f.relu(norm(conv(y, p['conv2'], stride, 1, TINY['cardinality']), p['norm2'], s['norm2']))
            y = norm(conv(y, p['conv3'], 1, 0), p['norm3'], s['norm3'])
            if 'shortcut' in p:
                x = norm(conv(x, p['shortcut'], stride, 0), p['shortcut_norm'], s['shortcut_norm'])
            x = f.relu(x + y)
    return x.detach().numpy().transpose(0, 2, 3, 4, 1)


@pytest.mark.parametrize('train', [False, True])
def test_pytorch_gives_the_same_map(variables, train):
    torch = pytest.importorskip('torch')
    x, mask = clips(side=40)
    floats = ((x / 255.0 - np.array(MODEL.mean)) / np.array(MODEL.std)).astype(np.float32)
    run = functools.partial(IN_DOUBLE.apply, train=train, mutable=['batch_stats'])
    found, _ = in_float64(jax.jit(run))(variables, floats, mask)
    assert_near(found[0], reference(torch, variables, floats.astype(np.float64), train))
