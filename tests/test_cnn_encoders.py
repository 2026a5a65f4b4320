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
from tests.golden import make_cnn_encoders as make

CLASSES = {'resnet18': ResNet18, 'googlenet': GoogLeNet, 'vgg16': Vgg16}
STAGES = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
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
def narrow(kind, **fields):
    """The encoder of the converted narrow network, without dropout."""
    with np.load(make.PATH) as file:
        state = make.state_of(json.loads(str(file[f'{kind}/shapes'])))
    found, _, _ = torchvision_cnn.convert_state(state, kind, auxiliary=kind == 'googlenet')
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


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(kind, train, params, statistics, x):
    """Outputs and statistics after, and the gradients of the sum of outputs x cotangents by parameters and pictures."""

    def loss(params, x):
        outputs, changed = narrow(kind).apply(
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


def assert_close(found, expected, name):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name)


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
    state = make.state_of(json.loads(str(golden[f'{kind}/shapes'])))
    params, statistics = variables_of(kind, state)
    outputs, (gradient, gradient_x), _, maps = run(kind, mode == 'train', params, statistics, make.pictures(kind))
    assert (np.asarray(maps)[~MASK] == 0).all()
    for name, found in outputs.items():
        assert_close(found, golden[f'{kind}/{mode}/{name}'], name)
    assert (np.asarray(gradient_x)[~MASK] == 0).all()
    # Norm and projection of each gradient, laid out as the original's.
    names, expected = json.loads(str(golden[f'{kind}/names'])), golden[f'{kind}/{mode}/gradients']
    stored = {name: make.uniform(name, state[name].shape) for name in names if name != 'x'}
    directions = jax.tree.leaves(in_our_names(kind, state, stored))
    order = jax.tree.leaves(
        in_our_names(kind, state, {n: np.full(state[n].shape, i) for i, n in enumerate(names) if n != 'x'})
    )
    checked = {names.index('x')}
    assert_pair(np.asarray(gradient_x)[MASK], make.uniform('x', gradient_x[MASK].shape), expected[names.index('x')])
    for found, direction, number in zip(jax.tree.leaves(gradient), directions, order, strict=True):
        index = int(number.reshape(-1)[0])
        assert_pair(np.asarray(found), direction, expected[index])
        checked.add(index)
    assert checked == set(range(len(names)))
    assert (expected[:, 0] > 1e-3).all()


def assert_pair(found, direction, expected):
    tolerance = 2e-4 * max(expected[0], 1e-2)
    np.testing.assert_allclose([np.linalg.norm(found), (found * direction).sum()], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(('kind', 'mode'), CASES)
def test_a_converted_file_equals_pytorch_live(golden, kind, mode, tmp_path):
    torch = pytest.importorskip('torch', reason='torch is not installed; the stored file keeps the parity')
    state = make.state_of(json.loads(str(golden[f'{kind}/shapes'])), seed=1)
    path = tmp_path / f'{kind}.pth'
    torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
    converted = getattr(torchvision_cnn, kind)(path)
    params, statistics = variables_of(kind, state)
    x = make.pictures(kind, 1)
    # What the file became is what is run; the auxiliary heads, which a file's conversion leaves out, are kept beside.
    variables = graft(
        {'params': params, 'batch_stats': statistics},
        {'params': nested(converted.arrays, 'params'), 'batch_stats': nested(converted.arrays, 'batch_stats')},
        path='',
        fresh=('^auxiliary',),
    )
    expected, expected_gradients, after = make.reference(torch, kind, 1, mode)
    outputs, (gradient, gradient_x), changed, _ = run(
        kind, mode == 'train', variables['params'], variables.get('batch_stats', {}), x
    )
    assert set(outputs) == set(expected)
    for name, found in outputs.items():
        assert_close(found, expected[name], name)
    assert_close(np.asarray(gradient_x)[MASK], expected_gradients['x'], 'x')
    wanted = in_our_names(kind, state, expected_gradients)
    for (place, found), value in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(wanted), strict=True
    ):
        assert_close(found, value, jax.tree_util.keystr(place))
    means = [leaf for name, leaf in jax.tree_util.tree_leaves_with_path(changed) if name[-1].key == 'mean']
    stored = jax.tree_util.tree_leaves_with_path(variables_of(kind, after)[1])
    for found, (_, value) in zip(means, [pair for pair in stored if pair[0][-1].key == 'mean'], strict=True):
        np.testing.assert_allclose(found, value, atol=1e-4)


@pytest.mark.parametrize(('kind', 'unused'), [('resnet18', 2), ('googlenet', 20), ('vgg16', 2)])
def test_the_fields_of_a_file_are_those_of_its_network(golden, kind, unused):
    state = make.state_of(json.loads(str(golden[f'{kind}/shapes'])))
    wrapped = {f'module.{name}': array for name, array in state.items()}
    fields, arrays, left = torchvision_cnn.convert_state(wrapped, kind)
    encoder = CLASSES[kind](**fields)
    variables = shapes_of(encoder, side=64)[2]
    flat = {
        '/'.join(key.key for key in place): leaf.shape for place, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert flat == {name: array.shape for name, array in arrays.items()}
    assert len(left) == unused - (2 if kind == 'googlenet' else 0) * 0
    assert getattr(encoder, 'auxiliary', 0) == 0


def test_a_full_file_gives_the_default_fields():
    torch = pytest.importorskip('torch')
    for kind, made in CLASSES.items():
        with torch.device('meta'):
            shapes = make.networks(torch)[kind](**make.FULL[kind]).state_dict()
        state = {name: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for name, tensor in shapes.items()}
        fields = {
            'resnet18': torchvision_cnn._resnet18, 'googlenet': torchvision_cnn._googlenet,
            'vgg16': torchvision_cnn._vgg16,
        }[kind](state, 'a file')[0]  # fmt: skip
        default = made()
        same = {name: value for name, value in fields.items() if name not in ('mean', 'std')}
        assert same == {name: getattr(default, name) for name in same}


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
def test_a_file_that_does_not_fit_is_named(golden, kind, change, message):
    state = make.state_of(json.loads(str(golden[f'{kind}/shapes'])))
    change(state)
    with pytest.raises(ValueError, match=f'weights.pth.*{message}'):
        torchvision_cnn.convert_state(state, kind, 'weights.pth')


# Padding, stages, channels, types


@pytest.mark.parametrize('kind', make.KINDS)
def test_padding_changes_nothing_in_training(kind):
    with np.load(make.PATH) as file:
        params, statistics = variables_of(kind, make.state_of(json.loads(str(file[f'{kind}/shapes']))))
    x = make.pictures(kind)
    results = [run(kind, True, params, statistics, np.where(MASK[..., None, None, None], x, g)) for g in (np.nan, 9)]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)
    order = np.array([2, 0, 3, 1])
    assert np.isfinite(np.asarray(results[0][0]['features'])).all()
    assert (np.asarray(results[0][0]['features'])[3] == 0).all()
    del order


def small(kind, channels=3, rows=2):
    sides = {'resnet18': 32, 'googlenet': 32, 'vgg16': 32}
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (rows, 1, sides[kind], sides[kind], channels)).astype(np.uint8)
