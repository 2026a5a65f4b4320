"""I3D and Simple3D: the report's counts, PyTorch's numbers through the converter, among padding."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from data_prep.convert_weights import i3d, names
from mmer_jax.encoders.i3d import I3D, max_pool_same, same_padding
from mmer_jax.encoders.simple3d import Simple3D
from mmer_jax.models.unimodal import Unimodal
from mmer_jax.run.program import KEEP_REMAT
from tests.double import OPTIMISED, TOLERANCE, assert_near, in_float64
from tests.golden import make_cnn_encoders_3d as make

STAGES = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope='module')
def golden():
    with np.load(make.PATH) as file:
        return dict(file)


@functools.cache
def shapes_of(kind):
    with np.load(make.PATH) as file:
        return json.loads(str(file[f'{kind}/shapes']))


def encoder_of(kind, **fields):
    """The encoder of the network that make_cnn_encoders_3d has, without dropout."""
    common = {'num_frames': make.CLIPS[kind][0], **fields}
    if kind == 'i3d':
        return I3D(divisor=make.DIVISOR, pool_window=make.POOL_WINDOW, dropout=0.0, **common)
    return Simple3D(features=make.FEATURES, shared_convolution=kind == 'simple3d_shared', **common)


def variables_of(kind, state):
    """A state dict (all of it) as nested variables."""
    if kind == 'i3d':
        flat = i3d.convert_state(state)[1]
    else:
        flat = names.apply_rules(state, make.simple3d_rules(state), source='state')[0]
    return {'params': {}, 'batch_stats': {}, **traverse_util.unflatten_dict(flat, sep='/')}


@functools.cache
def compiled(kind, train):
    """A program in float64: (variables, clips, mask) -> outputs, gradients by parameters and clips, new statistics."""
    encoder = encoder_of(kind, dtype=jnp.dtype('float64'))
    real = make.clips(kind)[1].any(1)

    def encode_and_pool(encoder, x, mask_BT):
        maps, mask_BT = encoder(x, mask_BT, train=train)
        return maps, encoder.pool(maps, mask_BT, train=train)

    def run(variables, x, mask_BT):
        def loss(params, x):
            outputs, changed = encoder.apply(
                {**variables, 'params': params}, x, mask_BT, method=encode_and_pool, mutable='batch_stats'
            )
            outputs = {name: y[real] for name, y in zip(('map', 'features'), outputs, strict=True)}
            return sum((y * make.uniform(name, y.shape)).sum() for name, y in outputs.items()), (outputs, changed)

        gradients, (outputs, changed) = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables['params'], x)
        return outputs, gradients, changed.get('batch_stats', {})

    return in_float64(jax.jit(run, compiler_options=OPTIMISED))


@functools.cache
def results_of_stored(kind, train):
    return compiled(kind, train)(variables_of(kind, make.state_of(shapes_of(kind))), *make.clips(kind))


def valid(kind, gradient_x):
    """The gradient by the clips where the network sees them: real rows, and no more frames than it looks at."""
    mask_BT = make.clips(kind)[1]
    assert (np.asarray(gradient_x)[~mask_BT] == 0).all()
    return np.asarray(gradient_x)[mask_BT.any(1), : make.CLIPS[kind][0]]


def where_seen(kind, gradient_x):
    """PyTorch's gradient by the clips, 0 at the padded frames that an encoder does not read."""
    mask_BT = make.clips(kind)[1]
    mask_BT = mask_BT[mask_BT.any(1), : make.CLIPS[kind][0]]
    return np.where(mask_BT[..., None, None, None], gradient_x, 0)


# The report's counts


@pytest.mark.parametrize(
    ('encoder', 'width', 'maps', 'features', 'count'),
    [
        (I3D(), 224, (17, 7, 7, 1024), 1024, 12_293_414),
        (I3D(), 448, (17, 7, 14, 1024), 1024, 12_293_414),
        (Simple3D(shared_convolution=True), 224, (2, 3, 3, 8), 144, 3_262),
        (Simple3D(shared_convolution=True), 448, (2, 3, 7, 8), 336, 4_414),
        (Simple3D(), 224, (2, 3, 3, 8), 144, 10_206),
        (Simple3D(), 448, (2, 3, 7, 8), 336, 11_358),
    ],
)
def test_published_counts_and_maps(encoder, width, maps, features, count):
    model = Unimodal(('vision',), 6, encoder)
    shape = (2, 135, 224, width, 3)
    x, mask = jax.ShapeDtypeStruct(shape, jnp.uint8), jax.ShapeDtypeStruct(shape[:2], bool)

    def init(x, mask):
        def run(model):
            batch = {'vision': x, 'vision_mask': mask}
            return model(batch, train=False)['features'], model.encoder(x, mask, train=False)[0]

        return model.init_with_output(jax.random.key(0), method=run)

    (pooled, found), variables = jax.eval_shape(init, x, mask)
    assert size(variables['params']) == count
    assert found.shape == (2, *maps)
    assert pooled.shape == (2, features)


def test_a_full_file_has_the_published_layout():
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        network = make.networks(torch)['i3d'](divisor=1, classes=400)
    published = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert published['logits.conv3d.weight'] == (400, 1024, 1, 1, 1)
    counted = {name: shape for name, shape in published.items() if 'num_batches' not in name}
    rules = {rule.original: rule.shape for rule in i3d.rules(channels=3, divisor=1)}
    assert {name: shape for name, shape in counted.items() if not name.startswith('logits.')} == rules
    trained = [np.prod(shape) for name, shape in rules.items() if 'running' not in name]
    assert sum(trained) + 1024 * 6 + 6 == 12_293_414


# Parity


@pytest.mark.parametrize(('kind', 'mode'), make.CASES)
def test_equals_the_stored_network(golden, kind, mode):
    state = make.state_of(shapes_of(kind))
    outputs, (gradient, gradient_x), _ = results_of_stored(kind, mode == 'train')
    for name, found in outputs.items():
        assert_near(found, golden[f'{kind}/{mode}/{name}'], name)
    listed, pairs = json.loads(str(golden[f'{kind}/names'])), golden[f'{kind}/{mode}/gradients']
    expected = dict(zip(listed, pairs, strict=True))
    stored = {name: make.uniform(name, state[name].shape) for name in listed if name != 'x'}
    directions = jax.tree.leaves(variables_of(kind, {**state, **stored})['params'])
    numbered = {name: np.full(state[name].shape, listed.index(name)) for name in stored}
    order = jax.tree.leaves(variables_of(kind, {**state, **numbered})['params'])
    assert sorted(int(number.reshape(-1)[0]) for number in order) == sorted(map(listed.index, stored))
    for found, direction, number in zip(jax.tree.leaves(gradient), directions, order, strict=True):
        norm, projection = expected[listed[int(number.reshape(-1)[0])]]
        assert norm > 1e-3
        pair = np.linalg.norm(found), (np.asarray(found) * direction).sum()
        np.testing.assert_allclose(pair, (norm, projection), rtol=0, atol=TOLERANCE * norm)
    assert np.isfinite(valid(kind, gradient_x)).all()


@pytest.mark.parametrize(('kind', 'mode'), make.CASES)
def test_equals_pytorch_live(kind, mode, tmp_path):
    torch = pytest.importorskip('torch', reason='torch is not installed; the stored file keeps the parity')
    state = make.state_of(shapes_of(kind), seed=1)
    variables = variables_of(kind, state)
    if kind == 'i3d':  # what the written file became is what is run
        path = tmp_path / 'rgb_tiny.pt'
        torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
        converted = i3d.convert(path)
        assert converted.family == 'i3d'
        assert converted.unused == ('logits.conv3d.weight', 'logits.conv3d.bias')
        assert converted.fields == {'divisor': make.DIVISOR}
        variables = traverse_util.unflatten_dict(dict(converted.arrays), sep='/')
    expected, gradients, after = make.reference(torch, kind, 1, mode)
    outputs, (gradient, gradient_x), changed = compiled(kind, mode == 'train')(variables, *make.clips(kind, 1))
    assert set(outputs) == set(expected)
    for name, found in outputs.items():
        assert_near(found, expected[name], name)
    assert_near(valid(kind, gradient_x), where_seen(kind, gradients.pop('x')), 'x')
    wanted = variables_of(kind, {**state, **gradients})['params']
    for (place, found), value in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(wanted), strict=True
    ):
        assert_near(found, value, jax.tree_util.keystr(place))
    if mode == 'train':
        means = traverse_util.flatten_dict(changed)
        for place, value in traverse_util.flatten_dict(variables_of(kind, after)['batch_stats']).items():
            if place[-1] == 'mean':  # the variance is PyTorch's but for its factor n / (n - 1)
                assert_near(means[place], value)


@pytest.mark.parametrize('kind', ['i3d', 'simple3d'])
def test_native_convolutions_give_the_same(golden, kind):
    encoder, variables = encoder_of(kind, convolution='native'), variables_of(kind, make.state_of(shapes_of(kind)))
    x, mask_BT = make.clips(kind)
    text = jax.jit(functools.partial(encoder.apply, train=False)).lower(variables, x, mask_BT)
    assert '[b, 0, 1, 2, f]' in text.as_text()
    maps, _ = text.compile()(variables, x, mask_BT)
    assert_near(np.asarray(maps)[mask_BT.any(1)], golden[f'{kind}/eval/map'], kind, tolerance=1e-4)


# Padding, memory, types


@pytest.mark.parametrize('kind', ['i3d', 'simple3d'])
def test_padding_changes_nothing(kind):
    """Neither what stands in padded frames and rows, nor the frames behind those the network looks at."""
    variables, (x, mask_BT) = variables_of(kind, make.state_of(shapes_of(kind))), make.clips(kind)
    train, late = kind == 'i3d', np.nan_to_num(x, nan=9.0)
    late[:, make.CLIPS[kind][0] :] = 5
    results = results_of_stored(kind, train), compiled(kind, train)(variables, late, mask_BT)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


def test_remat_recomputes_each_block_and_gives_the_same():
    """On the blocks 3b and 3c, in the types that train: float32, and bfloat16 where gradients must stay finite."""
    variables, generator = variables_of('i3d', make.state_of(shapes_of('i3d'))), np.random.default_rng(0)
    x, rows_B = generator.standard_normal((2, 6, 9, 10, 24)).astype(np.float32), np.array([True, False])

    def gradient(**fields):
        encoder = encoder_of('i3d', **fields)

        def loss(params):
            variables_of_step = {**variables, 'params': params}
            options = {'train': True, 'method': 'stage2', 'mutable': 'batch_stats'}
            y, _ = encoder.apply(variables_of_step, x.astype(encoder.dtype), rows_B, **options)
            return (y[:1].astype(jnp.float32) ** 2).sum()

        params = {name: variables['params'][name] for name in ('mixed_3b', 'mixed_3c')}
        compiled = jax.jit(jax.grad(loss)).lower(params).compile(KEEP_REMAT)
        return compiled(params), compiled.memory_analysis().temp_size_in_bytes

    (plain, kept), (remat, less) = gradient(), gradient(remat=True)
    for a, b in zip(*map(jax.tree.leaves, (plain, remat)), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())
        assert np.abs(a).max() > 0
    assert less < 0.9 * kept
    for leaf in jax.tree.leaves(gradient(dtype=jnp.bfloat16)[0]):
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize('kind', ['i3d', 'simple3d'])
def test_bfloat16_is_near(golden, kind):
    encoder, variables = encoder_of(kind, dtype=jnp.bfloat16), variables_of(kind, make.state_of(shapes_of(kind)))
    x, mask_BT = make.clips(kind)
    maps, _ = jax.jit(functools.partial(encoder.apply, train=False))(variables, x, mask_BT)
    assert maps.dtype == jnp.bfloat16
    found, expected = np.asarray(maps, np.float32)[mask_BT.any(1)], golden[f'{kind}/eval/map']
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('i3d', [(9, 5, 9, 8), (9, 3, 5, 24), (5, 2, 3, 60), (3, 1, 2, 104), (3, 1, 2, 128)]),
        ('simple3d', [(32, 32, 64, 3), (16, 16, 32, 3), (8, 8, 16, 3), (4, 4, 8, 3), (1, 1, 2, 3)]),
    ],
)
def test_stages_are_those_of_the_encoder(kind, expected):
    encoder, variables = encoder_of(kind), variables_of(kind, make.state_of(shapes_of(kind)))

    def run(variables, x, mask_BT):
        bound = encoder.bind(variables)
        x, mask_BT = bound.prepare(x, mask_BT)
        maps = []
        for name in STAGES:
            x = getattr(bound, name)(x, mask_BT.any(1), train=False)
            maps.append(x)
        return maps

    shapes = jax.eval_shape(run, variables, *make.clips(kind))
    assert [y.shape[1:] for y in shapes] == expected


def test_pictures_are_scaled_to_what_the_network_expects():
    x, mask_BT = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 1, 3), np.ones((1, 1), bool)
    x = np.broadcast_to(x, (1, 64, 64, 64, 3))
    mask_BT = np.broadcast_to(mask_BT, x.shape[:2])
    for encoder, expected in (
        (I3D(num_frames=64), (-1, -0.6, 1)),
        (I3D(num_frames=64, mean=(0.0,) * 3, std=(1 / 255,) * 3), (0, 51, 255)),
        (Simple3D(num_frames=64), (-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225)),
    ):
        found, _ = encoder.prepare(x, mask_BT)
        np.testing.assert_allclose(found[0, 5, 3, 3], expected, rtol=1e-5, atol=1e-5)


def test_pool_is_the_mean_of_windows_with_dropout():
    maps = np.random.default_rng(0).standard_normal((2, 4, 7, 9, 3)).astype(np.float32)
    windows = [maps[:, t : t + 2, :, w : w + 7].mean((1, 2, 3)) for t in range(3) for w in range(3)]
    encoder, mask_BT = I3D(), np.ones((2, 4), bool)
    found = encoder.apply({}, maps, mask_BT, train=False, method='pool')
    np.testing.assert_allclose(found, np.mean(windows, 0), atol=1e-6)
    small = encoder.apply({}, maps[:, :1, :2, :3], mask_BT, train=False, method='pool')
    np.testing.assert_allclose(small, maps[:, :1, :2, :3].mean((1, 2, 3)), atol=1e-6)
    ones, rngs = np.ones((64, 1, 1, 1, 64), np.float32), {'dropout': jax.random.key(0)}
    dropped = encoder.apply({}, ones, mask_BT, train=True, method='pool', rngs=rngs)
    assert set(np.unique(dropped)) == {0, 2}
    assert 0.45 < (np.asarray(dropped) == 0).mean() < 0.55


@pytest.mark.parametrize(('side', 'size', 'stride'), [(224, 7, 2), (135, 7, 2), (68, 3, 2), (17, 2, 2), (5, 3, 1)])
def test_same_padding_is_that_of_the_port(side, size, stride):
    total = max(size - stride, 0) if side % stride == 0 else max(size - side % stride, 0)
    assert same_padding(side, size, stride) == (total // 2, total - total // 2)


def test_max_pool_same_by_hand():
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1, 1)
    assert max_pool_same(x, (3, 1, 1), (2, 1, 1)).ravel().tolist() == [2, 4, 5]
    assert max_pool_same(-x - 1, (3, 1, 1), (2, 1, 1)).ravel().tolist() == [-1, -3, -5]
    volume = np.random.default_rng(0).standard_normal((2, 5, 6, 7, 3)).astype(np.float32)
    expected = jax.lax.reduce_window(volume, -np.inf, jax.lax.max, (1, 3, 3, 2, 1), (1, 2, 1, 2, 1), 'SAME')
    np.testing.assert_array_equal(max_pool_same(volume, (3, 3, 2), (2, 1, 2)), expected)


# Errors


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.pop('Mixed_4e.b2b.bn.running_mean'), 'Mixed_4e.b2b.bn.running_mean is missing'),
        (lambda t: t.update(extra=np.zeros(2)), 'extra is not known'),
        (lambda t: t.pop('Conv3d_1a_7x7.conv3d.weight'), 'lacks Conv3d_1a_7x7.conv3d.weight: it is no I3D'),
        (
            lambda t: t.update({'Conv3d_1a_7x7.conv3d.weight': np.zeros((7, 3, 7, 7, 7))}),
            'has 7 features, expected one',
        ),
        (lambda t: t.update({'Conv3d_1a_7x7.conv3d.weight': np.zeros((8, 3))}), r'has shape \(8, 3\), expected five'),
        (lambda t: t.update({'Mixed_5c.b0.bn.bias': np.zeros(3)}), r'Mixed_5c.b0.bn.bias has shape \(3,\), expected'),
    ],
)
def test_a_file_that_does_not_fit_is_named(change, message):
    state = make.state_of(shapes_of('i3d'))
    change(state)
    with pytest.raises(ValueError, match=f'weights.pt.*{message}'):
        i3d.convert_state({f'module.{name}': array for name, array in state.items()}, 'weights.pt')


def test_what_does_not_fit_the_encoders_is_named():
    x, mask_BT = np.zeros((1, 64, 63, 64, 3), np.uint8), np.ones((1, 64), bool)
    with pytest.raises(ValueError, match=r'found clips of shape \(1, 64, 63, 64, 3\).*num_frames, H and W of 64'):
        Simple3D(num_frames=64).init(jax.random.key(0), x, mask_BT, train=False)
    with pytest.raises(ValueError, match=r'I3D: x has shape \(1, 63, 64, 3\), expected \(B, T, H, W, C\)'):
        I3D().init(jax.random.key(0), x[:, 0], mask_BT, train=False)
    with pytest.raises(ValueError, match='divisor = 3 of I3D does not divide 64, expected 1, 2, 4 or 8'):
        I3D(divisor=3).init(jax.random.key(0), x, mask_BT, train=False)
