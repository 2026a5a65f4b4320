"""ResNet-18, GoogLeNet and VGG-16: torchvision's counts and numbers, through the converter, among padding."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.convert_weights import torchvision_cnn
from mmer_jax.encoders.googlenet import GoogLeNet
from mmer_jax.encoders.pictures import adaptive_mean, max_pool_ceil
from mmer_jax.encoders.resnet import ResNet18
from mmer_jax.encoders.vgg import Vgg16
from mmer_jax.pretrained import graft
from tests.double import TOLERANCE, assert_near, in_float64
from tests.golden import make_cnn_encoders as make

CLASSES = {'resnet18': ResNet18, 'googlenet': GoogLeNet, 'vgg16': Vgg16}
STAGES = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
COLLECTIONS = ('params', 'batch_stats')
MASK = make.MASK_BT
CASES = [(kind, mode) for kind in make.KINDS for mode in make.MODES]


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def encode_and_pool(encoder, x, mask, train):
    """(map, features, logits of auxiliary heads or None), their parameters made too."""
    if getattr(encoder, 'auxiliary', 0):
        maps, mask, logits = encoder.with_auxiliary(x, mask, train=train)
        return maps, encoder.pool(maps, mask, train=train), jnp.stack(logits)
    maps, mask = encoder(x, mask, train=train)
    return maps, encoder.pool(maps, mask, train=train), None


def shapes_of(encoder, channels=3, side=224):
    """(maps, features, variables) as shapes; the head's parameters are those of torchvision's last layer."""

    def init(x, mask):
        def run(encoder):
            maps, mask_BT = encoder(x, mask, train=False)
            return maps, encoder.pool(maps, mask_BT, train=False)

        return encoder.init_with_output(jax.random.key(0), method=run)

    x = jax.ShapeDtypeStruct((2, 3, side, side, channels), jnp.uint8)
    (maps, features), variables = jax.eval_shape(init, x, jax.ShapeDtypeStruct((2, 3), bool))
    return maps.shape, features.shape, variables


@pytest.fixture(scope='module')
def golden():
    with np.load(make.PATH) as file:
        return dict(file)


@functools.cache
def stored_shapes(kind):
    with np.load(make.PATH) as file:
        return json.loads(str(file[f'{kind}/shapes']))


def stored_state(kind, seed=make.SEED):
    """A state dict of the narrow network, under torchvision's names."""
    return make.state_of(stored_shapes(kind), seed)


@functools.cache
def narrow(kind, **fields):
    """The encoder of the converted narrow network, without dropout."""
    found, _, _ = torchvision_cnn.convert_state(stored_state(kind), kind, auxiliary=kind == 'googlenet')
    off = {'resnet18': (), 'googlenet': ('dropout', 'auxiliary_dropout'), 'vgg16': ('dropout',)}[kind]
    return CLASSES[kind](**{**found, **dict.fromkeys(off, 0.0), **fields})


def nested(flat, kind_of):
    tree = {}
    for name, array in flat.items():
        kind, *path, last = name.split('/')
        if kind == kind_of:
            place = functools.reduce(lambda node, part: node.setdefault(part, {}), path, tree)
            place[last] = array
    return tree


def variables_of(kind, state):
    flat = torchvision_cnn.convert_state(state, kind, auxiliary=kind == 'googlenet')[1]
    return nested(flat, 'params'), nested(flat, 'batch_stats')


@functools.cache
def program(kind, train):
    """A compiled function (params, statistics, x) -> outputs, gradients, statistics after, map; in float64.

    The gradients are those of the sum of outputs x cotangents, by parameters and pictures.
    """
    return in_float64(jax.jit(functools.partial(outputs_and_gradients, kind, train)))


def run(kind, train, params, statistics, x):
    return program(kind, train)(params, statistics, x)


@functools.cache
def results_of_stored(kind, train):
    return run(kind, train, *variables_of(kind, stored_state(kind)), make.pictures(kind))


def outputs_and_gradients(kind, train, params, statistics, x):
    def loss(params, x):
        outputs, changed = narrow(kind, dtype=jnp.dtype('float64')).apply(
            {'params': params, 'batch_stats': statistics}, x, MASK, train, method=encode_and_pool, mutable='batch_stats'
        )
        maps, features, logits = outputs
        outputs = {'map': maps[MASK], 'features': features}
        if logits is not None:
            outputs['auxiliary'] = logits
        total = sum((y * make.uniform(name, y.shape)).sum() for name, y in outputs.items())
        return total, (outputs, changed, maps)

    gradients, (outputs, changed, maps) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return outputs, gradients, changed.get('batch_stats', {}), maps


def in_our_names(kind, state, gradients):
    """Gradients by PyTorch's names -> nested as our parameters."""
    return variables_of(kind, {**state, **{name: g for name, g in gradients.items() if name != 'x'}})[0]


# The published layout


@pytest.mark.parametrize(
    ('encoder', 'channels', 'width', 'own', 'published', 'with_six'),
    [
        (ResNet18(), 3, 512, 11_176_512, 11_689_512, 11_179_590),
        (ResNet18(), 1, 512, 11_170_240, None, 11_173_318),
        (GoogLeNet(), 3, 1024, 5_599_904, 6_624_904, 5_606_054),
        (GoogLeNet(auxiliary=1000), 3, 1024, 11_979_888, 13_004_888, None),
        (GoogLeNet(), 1, 1024, 5_593_632, None, 5_599_782),
        (GoogLeNet(bare_first_layer=True), 3, 1024, 5_599_776, None, 5_605_926),
        (Vgg16(), 3, 4096, 134_260_544, 138_357_544, 134_285_126),
        (Vgg16(), 1, 4096, 134_259_392, None, 134_283_974),
        (Vgg16(large_first_layer=True), 3, 4096, 134_268_160, None, 134_292_742),
    ],
)
def test_counts(encoder, channels, width, own, published, with_six):
    maps, features, variables = shapes_of(encoder, channels)
    side = 3 if getattr(encoder, 'large_first_layer', False) else 7
    assert maps == (2, 3, side, side, 1024 if isinstance(encoder, GoogLeNet) else 512)
    assert features == (2, width)
    assert size(variables['params']) == own
    for classes, expected in ((1000, published), (6, with_six)):
        assert expected is None or own + (width + 1) * classes == expected


@pytest.mark.parametrize('kind', make.KINDS)
def test_the_reference_has_the_published_count(kind):
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        network = make.networks(torch)[kind](**make.FULL[kind])
    published = {'resnet18': 11_689_512, 'googlenet': 13_004_888, 'vgg16': 138_357_544}
    assert sum(parameter.numel() for parameter in network.parameters()) == published[kind]


# Parity


@pytest.mark.parametrize(('kind', 'mode'), CASES)
def test_equals_the_stored_network(golden, kind, mode):
    state = stored_state(kind)
    outputs, (gradient, gradient_x), _, maps = results_of_stored(kind, mode == 'train')
    assert (np.asarray(maps)[~MASK] == 0).all()
    for name, found in outputs.items():
        assert_near(found, golden[f'{kind}/{mode}/{name}'], name)
    assert (np.asarray(gradient_x)[~MASK] == 0).all()
    # Norm and projection of each gradient, laid out as the original's.
    names, expected = json.loads(str(golden[f'{kind}/names'])), golden[f'{kind}/{mode}/gradients']
    stored = {name: make.uniform(name, state[name].shape) for name in names if name != 'x'}
    directions = jax.tree.leaves(in_our_names(kind, state, stored))
    order = jax.tree.leaves(
        in_our_names(kind, state, {n: np.full(state[n].shape, i) for i, n in enumerate(names) if n != 'x'})
    )
    # A gradient that vanishes, of a bias which the next batch norm takes off again, is compared on the others' scale.
    floor = 0.1 * np.median(expected[:, 0])

    def check(found, direction, index):
        pair, allowed = expected[index], TOLERANCE * max(expected[index, 0], floor)
        projected = [np.linalg.norm(found), (found * direction).sum()]
        np.testing.assert_allclose(projected, pair, rtol=0, atol=allowed, err_msg=names[index])

    checked = {names.index('x')}
    check(np.asarray(gradient_x)[MASK], make.uniform('x', gradient_x[MASK].shape), names.index('x'))
    for found, direction, number in zip(jax.tree.leaves(gradient), directions, order, strict=True):
        index = int(number.reshape(-1)[0])
        check(np.asarray(found), direction, index)
        checked.add(index)
    assert checked == set(range(len(names)))
    assert mode == 'train' or (expected[:, 0] > 1e-2).all(), 'vanishing gradients prove nothing'


@pytest.mark.parametrize(('kind', 'mode'), CASES)
def test_a_converted_file_equals_pytorch_live(kind, mode, tmp_path):
    torch = pytest.importorskip('torch', reason='torch is not installed; the stored file keeps the parity')
    state = stored_state(kind, make.LIVE_SEED)
    path = tmp_path / f'{kind}.pth'
    torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
    converted = getattr(torchvision_cnn, kind)(path)
    params, statistics = variables_of(kind, state)
    x = make.pictures(kind, make.LIVE_SEED)
    # What the file became is what is run; the auxiliary heads, which a file's conversion leaves out, are kept beside.
    variables = graft(
        {'params': params, 'batch_stats': statistics},
        {'params': nested(converted.arrays, 'params'), 'batch_stats': nested(converted.arrays, 'batch_stats')},
        path='',
        fresh=('^auxiliary',),
    )
    expected, expected_gradients, after = make.reference(torch, kind, make.LIVE_SEED, mode)
    outputs, (gradient, gradient_x), changed, _ = run(
        kind, mode == 'train', variables['params'], variables.get('batch_stats', {}), x
    )
    assert set(outputs) == set(expected)
    for name, found in outputs.items():
        assert_near(found, expected[name], name)
    assert_near(np.asarray(gradient_x)[MASK], expected_gradients['x'], 'x')
    wanted = in_our_names(kind, state, expected_gradients)
    floor = 0.1 * np.median([np.abs(value).max() for value in jax.tree.leaves(wanted)])
    for (place, found), value in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(wanted), strict=True
    ):
        allowed = TOLERANCE * max(np.abs(value).max(), floor)
        np.testing.assert_allclose(found, value, rtol=0, atol=allowed, err_msg=jax.tree_util.keystr(place))
    means = [leaf for name, leaf in jax.tree_util.tree_leaves_with_path(changed) if name[-1].key == 'mean']
    stored = jax.tree_util.tree_leaves_with_path(variables_of(kind, after)[1])
    for found, (_, value) in zip(means, [pair for pair in stored if pair[0][-1].key == 'mean'], strict=True):
        assert_near(found, value)


@pytest.mark.parametrize(('kind', 'unused'), [('resnet18', 2), ('googlenet', 20), ('vgg16', 2)])
def test_the_fields_of_a_file_are_those_of_its_network(kind, unused):
    state = stored_state(kind)
    wrapped = {f'module.{name}': array for name, array in state.items()}
    fields, arrays, left = torchvision_cnn.convert_state(wrapped, kind)
    encoder = CLASSES[kind](**fields)
    variables = shapes_of(encoder, side=64)[2]
    flat = {
        '/'.join(key.key for key in place): leaf.shape for place, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert flat == {name: array.shape for name, array in arrays.items()}
    assert len(left) == unused
    assert getattr(encoder, 'auxiliary', 0) == 0


def test_a_full_file_gives_the_default_fields():
    torch = pytest.importorskip('torch')
    for kind, made in CLASSES.items():
        with torch.device('meta'):
            shapes = make.networks(torch)[kind](**make.FULL[kind]).state_dict()
        state = {name: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for name, tensor in shapes.items()}
        fields, rules = torchvision_cnn.READERS[kind](state, 'a file')
        same = {name: value for name, value in fields.items() if name not in ('mean', 'std')}
        assert same == {name: getattr(made(), name) for name in same}
        assert all(state[rule.original].shape == rule.shape for rule in rules)


@pytest.mark.parametrize(
    ('kind', 'change', 'message'),
    [
        ('resnet18', lambda t: t.pop('layer2.1.bn2.running_mean'), 'layer2.1.bn2.running_mean is missing'),
        ('resnet18', lambda t: t.update({'layer1.0.conv3.weight': t['conv1.weight']}), 'has bottlenecks'),
        ('resnet18', lambda t: t.pop('conv1.weight'), 'lacks conv1.weight: it is no ResNet'),
        ('googlenet', lambda t: t.update(extra=np.zeros(2)), 'extra is not known'),
        ('googlenet', lambda t: t.update({'conv1.conv.weight': np.zeros((7, 3, 7, 7))}), 'has 7 channels'),
        (
            'vgg16',
            lambda t: t.update({'classifier.3.bias': np.zeros(3)}),
            r'classifier.3.bias has shape \(3,\), expected \(10,\)',
        ),
        ('vgg16', lambda t: t.update({'features.1.weight': np.zeros(4)}), 'features.1.weight is not known'),
        ('vgg16', lambda t: t.update({'classifier.0.weight': np.zeros(4)}), 'expected 2 axes'),
    ],
)
def test_a_file_that_does_not_fit_is_named(kind, change, message):
    state = stored_state(kind)
    change(state)
    with pytest.raises(ValueError, match=f'weights.pth.*{message}'):
        torchvision_cnn.convert_state(state, kind, 'weights.pth')


# Padding, stages, channels, types


@pytest.mark.parametrize('kind', make.KINDS)
def test_what_stands_in_the_padding_changes_nothing_in_training(kind):
    params, statistics = variables_of(kind, stored_state(kind))
    x = make.pictures(kind)
    garbage = np.where(MASK[..., None, None, None], x, 9).astype(np.float32)
    results = results_of_stored(kind, True), run(kind, True, params, statistics, garbage)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)
    features = np.asarray(results[0][0]['features'])
    assert np.isfinite(features).all()
    assert (features[3] == 0).all()
    assert (np.abs(features[:3]).max(1) > 1e-2).all()


def test_padding_frames_and_rows_change_no_statistics():
    encoder, (params, statistics) = narrow('resnet18'), variables_of('resnet18', stored_state('resnet18'))

    @jax.jit
    def program(variables, x, mask):
        (maps, _), changed = encoder.apply(variables, x, mask, train=True, mutable='batch_stats')
        return maps, changed['batch_stats']

    step = functools.partial(program, {'params': params, 'batch_stats': statistics})

    x = make.pictures('resnet18')
    whole, changed = step(x[:2], MASK[:2])
    rows, more = MASK[[0, 1, 3]], ((0, 0), (0, 1))  # a row and a frame more
    padded, changed_more = step(np.pad(x[[0, 1, 3]], more + ((0, 0),) * 3, constant_values=7), np.pad(rows, more))
    np.testing.assert_allclose(padded[:2, :2], whole, atol=1e-4)
    assert not padded[2:].any()
    assert not padded[:, 2:].any()
    for a, b in zip(jax.tree.leaves(changed_more), jax.tree.leaves(changed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    before = statistics['norm1']['norm']['mean']
    assert np.abs(changed['norm1']['norm']['mean'] - before).max() > 1e-3


@pytest.mark.parametrize('kind', make.KINDS)
def test_stages_make_the_encoder_in_bfloat16_too(golden, kind):
    encoder = narrow(kind).clone(dtype=jnp.bfloat16)

    @jax.jit
    def outputs(variables, x):
        bound = encoder.bind(variables)
        maps, mask = bound.prepare(x, MASK)
        by_stage = []
        for name in STAGES:
            maps = getattr(bound, name)(maps, mask, train=False)
            by_stage.append(maps)
        return by_stage, bound.pool(maps, mask, train=False)

    variables = dict(zip(COLLECTIONS, variables_of(kind, stored_state(kind)), strict=True))
    by_stage, features = outputs(variables, make.pictures(kind))
    channels = {
        'resnet18': [4, 4, 6, 6, 8], 'googlenet': [24, 60, 64, 66, 128], 'vgg16': [4, 4, 6, 6, 6],
    }  # fmt: skip
    assert [maps.shape[4] for maps in by_stage] == channels[kind]
    assert by_stage[-1].dtype == features.dtype == jnp.bfloat16
    assert encoder.masks_steps
    for found, expected in (
        (by_stage[-1][MASK], golden[f'{kind}/eval/map']),
        (features, golden[f'{kind}/eval/features']),
    ):
        np.testing.assert_allclose(found.astype(np.float32), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize('kind', make.KINDS)
def test_a_file_for_grey_pictures_converts(kind):
    state = stored_state(kind)
    first = {'resnet18': 'conv1.weight', 'googlenet': 'conv1.conv.weight', 'vgg16': 'features.0.weight'}[kind]
    grey = state[first] = state[first].sum(1, keepdims=True)
    found = variables_of(kind, state)[0]
    expected = shapes_of(narrow(kind), channels=1, side=64)[2]['params']
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, expected)
    assert any(np.array_equal(leaf, grey.transpose(2, 3, 1, 0)) for leaf in jax.tree.leaves(found))


def test_a_grey_picture_equals_three_channels_of_it():
    """Kernels summed over the channels; a picture without a time axis is a clip of one frame."""
    state = stored_state('vgg16')
    grey = {**state, 'features.0.weight': state['features.0.weight'].sum(1, keepdims=True)}
    x = make.uniform('grey', (2, 32, 32, 1))

    @jax.jit
    def features(params, x, mask):
        maps, mask = narrow('vgg16').apply({'params': params}, x, mask, train=False)
        return narrow('vgg16').apply({'params': params}, maps, mask, train=False, method='pool')

    found = features(variables_of('vgg16', grey)[0], x, np.ones(2, bool))
    expected = features(variables_of('vgg16', state)[0], np.repeat(x, 3, -1)[:, None], np.ones((2, 1), bool))
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pictures_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r'x has shape \(2, 3\), expected \(B, T, H, W, C\)'):
        ResNet18().apply({}, np.zeros((2, 3)), np.ones((2, 3), bool), train=False)


# Details of GoogLeNet and VGG-16


def test_the_converted_scale_is_the_transform_of_the_input():
    """torchvision brings what was normalised for ImageNet to (x - 0.5) / 0.5 inside the network."""
    x = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 4, 3)).astype(np.uint8)
    mean, std = np.array(GoogLeNet().mean), np.array(GoogLeNet().std)
    transformed = (x / 255 - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
    prepared, _ = narrow('googlenet').apply({}, x, np.ones((1, 1), bool), method='prepare')
    np.testing.assert_allclose(prepared, transformed, atol=1e-6)


def test_auxiliary_heads_have_parameters_only_on_request():
    with_heads = shapes_of(GoogLeNet(divisor=8, auxiliary=6), side=64)[2]
    assert {'auxiliary1', 'auxiliary2'} <= set(with_heads['params'])
    assert with_heads['params']['auxiliary2']['dense2']['kernel'].shape == (128, 6)
    without = shapes_of(GoogLeNet(divisor=8), side=64)[2]
    assert not [name for name in without['params'] if name.startswith('auxiliary')]
    with pytest.raises(ValueError, match='auxiliary = 0: this GoogLeNet has no auxiliary heads'):
        GoogLeNet().apply({}, np.zeros((1, 32, 32, 3)), np.ones(1, bool), train=False, method='with_auxiliary')
    with pytest.raises(ValueError, match='divisor = 3 of GoogLeNet does not divide 64'):
        shapes_of(GoogLeNet(divisor=3))


def test_the_reports_first_layers():
    bare = shapes_of(GoogLeNet(divisor=8, bare_first_layer=True), side=64)[2]
    assert {name: leaf.shape for name, leaf in bare['params']['conv1']['conv'].items()} == {'kernel': (7, 7, 3, 8)}
    assert list(bare['params']['conv1']) == ['conv']
    assert 'conv1' not in bare['batch_stats']
    large = shapes_of(Vgg16(planes=(4,) * 5, hidden_size=8, large_first_layer=True), channels=6, side=64)[2]
    assert {name: leaf.shape for name, leaf in large['params']['blocks0_0'].items()} == {'kernel': (7, 7, 6, 4)}


def test_dropout_of_pool_only_in_training():
    maps, mask = np.ones((4, 1, 2, 2, 1024), np.float32), np.ones((4, 1), bool)

    def pool(train):
        rngs = {'dropout': jax.random.key(0)}
        return np.asarray(GoogLeNet().apply({}, maps, mask, train=train, rngs=rngs, method='pool'))

    assert (pool(False) == 1).all()
    np.testing.assert_allclose(np.unique(pool(True)), [0, 1 / 0.8], rtol=1e-6)
    assert abs((pool(True) == 0).mean() - 0.2) < 0.03


@pytest.mark.parametrize('side', [2, 5, 8, 11])
def test_pooling_equals_pytorch(side):
    torch = pytest.importorskip('torch')
    f = torch.nn.functional
    x = np.random.default_rng(side).standard_normal((2, side, 13 - side, 3)).astype(np.float32)
    channels_first = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    for size in (1, 4, 7):
        expected = f.adaptive_avg_pool2d(channels_first, size).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(jax.jit(adaptive_mean, static_argnums=1)(x, size), expected, atol=1e-6)
    for size in (2, 3):
        expected = f.max_pool2d(channels_first, size, 2, ceil_mode=True).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(jax.jit(max_pool_ceil, static_argnums=(1, 2))(x, size, 2), expected)


def test_pooling_by_hand():
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1, 1) * np.ones((1, 5, 5, 1), np.float32)
    np.testing.assert_array_equal(max_pool_ceil(x, 2, 2)[0, :, 0, 0], [2, 4, 5])
    np.testing.assert_array_equal(max_pool_ceil(x, 3, 2)[0, :, 0, 0], [3, 5])
    np.testing.assert_allclose(adaptive_mean(x, 2)[0, :, 0, 0], [2, 4])  # steps 1 to 3 and 3 to 5
    np.testing.assert_allclose(adaptive_mean(x, 7)[0, :, 0, 0], [1, 1.5, 2.5, 3, 3.5, 4.5, 5])
