"""mmer_jax.encoders: MfccCnn against the published network in PyTorch, and indifference to padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders import MfccCnn
from mmer_jax.models import Unimodal
from tests.golden import make_mfcc_cnn

ROWS, FRAMES, COEFFICIENTS = 3, 212, 13
# Our layer: its place in the published nn.Sequential.
LAYERS = {'conv1': 0, 'norm1': 2, 'conv2': 3, 'norm2': 6, 'conv3': 8, 'norm3': 10}
HEAD = 13


def model(**encoder):
    return Unimodal(('audio',), 8, MfccCnn(**encoder))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def batch_of(x, mask=None):
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    return {'audio': np.asarray(x, np.float32), 'audio_mask': mask}


# One compilation for each shape of batch.
WITHOUT_DROPOUT = model(dropout=0.0, head_dropout=0.0)


@jax.jit
def run_eval(variables, batch):
    return model().apply(variables, batch, train=False)['prediction']


@jax.jit
def run_train(variables, batch):
    """Logits and updated statistics with batch statistics and no dropout."""
    output, changed = WITHOUT_DROPOUT.apply(variables, batch, train=True, mutable=['batch_stats'])
    return output['prediction'], changed['batch_stats']['encoder']


@jax.jit
def run_gradient(variables, batch, cotangent):
    """run_train, and the parameters' gradient of sum(logits x cotangent)."""

    def loss(params):
        output, statistics = run_train({**variables, 'params': params}, batch)
        return (output * cotangent).sum(), (output, statistics)

    gradient, result = jax.grad(loss, has_aux=True)(variables['params'])
    return *result, gradient


@pytest.fixture(scope='module')
def golden():
    with np.load(make_mfcc_cnn.PATH) as file:
        return dict(file)


def part(golden, folder):
    prefix = f'{folder}/'
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def params_from_torch(arrays):
    """PyTorch parameters (or gradients) by state_dict name -> ours."""
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    encoder = {}
    for name, place in LAYERS.items():
        weight, bias = arrays[f'{place}.weight'], arrays[f'{place}.bias']
        # Convolution kernels are (out, in, k) there and (k, in, out) here.
        encoder[name] = {'kernel': weight.T, 'bias': bias} if 'conv' in name else {'scale': weight, 'bias': bias}
    # PyTorch flattens (channels, time), we flatten (time, channels): the linear weights are permuted to match.
    kernel = arrays[f'{HEAD}.weight'].reshape(8, 64, 26).transpose(2, 1, 0).reshape(1664, 8)
    return {'encoder': encoder, 'head': {'kernel': kernel, 'bias': arrays[f'{HEAD}.bias']}}


def variables_from_torch(weights):
    statistics = {
        name: {
            'mean': jnp.asarray(weights[f'{place}.running_mean'], jnp.float32),
            'var': jnp.asarray(weights[f'{place}.running_var'], jnp.float32),
        }
        for name, place in LAYERS.items()
        if 'norm' in name
    }
    return {'params': params_from_torch(weights), 'batch_stats': {'encoder': statistics}}


@pytest.fixture(scope='module')
def variables(golden):
    return variables_from_torch(part(golden, 'weights'))


@pytest.fixture(scope='module')
def x(golden):
    return golden['x'].astype(np.float32)


def assert_trees(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance, err_msg=jax.tree_util.keystr(path))


# Sizes


def test_parameters_and_shapes():
    x, mask = jnp.zeros((2, FRAMES, COEFFICIENTS)), jnp.ones((2, FRAMES), bool)
    (features, valid), variables = jax.eval_shape(
        lambda: MfccCnn().init_with_output(jax.random.key(0), x, mask, train=False)
    )
    assert count(variables['params']) == 20_704
    assert (features.shape, valid.shape) == ((2, 26, 64), (2, 26))
    outputs, variables = jax.eval_shape(
        lambda: model().init_with_output(jax.random.key(0), batch_of(x, mask), train=False)
    )
    assert count(variables['params']) == 34_024
    assert outputs['prediction'].shape == (2, 8)
    assert outputs['features'].shape == (2, 1664)


# The published network


def assert_equals_torch(reference, weights, x, cotangent):
    variables, batch = variables_from_torch(weights), batch_of(x)
    np.testing.assert_allclose(run_eval(variables, batch), reference['eval_output'], rtol=0, atol=1e-5)
    output, statistics, gradient = run_gradient(variables, batch, cotangent)
    np.testing.assert_allclose(output, reference['train_output'], rtol=1e-5, atol=1e-5)
    expected = params_from_torch({n.removeprefix('grad_'): v for n, v in reference.items() if n.startswith('grad_')})
    assert all(np.abs(leaf).max() > 1e-2 for leaf in jax.tree.leaves(expected)), 'vanishing gradients prove nothing'
    assert_trees(gradient, expected, rtol=1e-4, atol=1e-4)
    for name, values_per_channel in (('norm1', 210), ('norm2', 26), ('norm3', 26)):
        place, n = LAYERS[name], len(x) * values_per_channel
        mean, variance = (reference[f'new_{place}.running_{kind}'] for kind in ('mean', 'var'))
        np.testing.assert_allclose(statistics[name]['mean'], mean, rtol=1e-4, atol=1e-5)
        # PyTorch stores the unbiased variance n / (n - 1), Flax the biased one: the only difference, below 1.3 %.
        before = 0.9 * weights[f'{place}.running_var'].astype(np.float32)
        np.testing.assert_allclose(statistics[name]['var'], before + (variance - before) * (n - 1) / n, rtol=1e-4)


def test_equals_the_stored_published_network(golden):
    assert 'make_mfcc_cnn.py' in str(golden['note'])
    assert_equals_torch(part(golden, 'reference'), part(golden, 'weights'), golden['x'], golden['cotangent'])


def test_equals_the_published_network_live(golden):
    pytest.importorskip('torch', reason='torch is not installed; the stored golden file keeps the parity')
    generator = np.random.default_rng(7)
    x = generator.standard_normal((ROWS, FRAMES, COEFFICIENTS)).astype(np.float32)
    cotangent, weights = generator.standard_normal((ROWS, 8)).astype(np.float32), make_mfcc_cnn.random_weights(8)
    assert_equals_torch(make_mfcc_cnn.reference(x, weights, cotangent), weights, x, cotangent)
    # The stored file is still what the generator writes.
    stored = part(golden, 'reference')
    again = make_mfcc_cnn.reference(golden['x'], part(golden, 'weights'), golden['cotangent'])
    for name, value in stored.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


# Padding


@pytest.mark.parametrize('garbage', [0.0, 40.0, np.nan])
def test_padding_rows_change_nothing_in_training(variables, x, garbage):
    output, statistics, gradient = run_gradient(variables, batch_of(x), np.ones((ROWS, 8), np.float32))
    rows = np.concatenate([x, np.full((2, FRAMES, COEFFICIENTS), garbage, np.float32)])
    mask = np.repeat([True] * ROWS + [False] * 2, FRAMES).reshape(ROWS + 2, FRAMES)
    weight = np.repeat(np.float32([1, 1, 1, 0, 0]), 8).reshape(ROWS + 2, 8)
    padded = run_gradient(variables, batch_of(rows, mask), weight)
    np.testing.assert_allclose(padded[0][:ROWS], output, rtol=1e-5, atol=1e-5)
    assert_trees(padded[1], statistics, rtol=1e-5, atol=1e-6)
    assert_trees(padded[2], gradient, rtol=1e-4, atol=1e-4)
    # The statistics did move, so the comparison is of something.
    before = variables['batch_stats']['encoder']['norm3']['mean']
    assert np.abs(np.asarray(statistics['norm3']['mean'] - before)).max() > 1e-2


def test_a_batch_of_padding_rows_alone_leaves_finite_statistics(variables, x):
    mask = np.zeros((ROWS, FRAMES), bool)
    _, statistics, _ = run_gradient(variables, batch_of(x, mask), np.zeros((ROWS, 8), np.float32))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(statistics))


def test_padded_rows_are_marked(x):
    mask = np.arange(FRAMES)[None] < np.array([[FRAMES], [1], [0]])
    cnn = MfccCnn()
    # Only the mask is asked for, so no convolution is compiled.
    valid = jax.jit(lambda: cnn.init_with_output(jax.random.key(0), x, mask, train=False)[0][1])()
    np.testing.assert_array_equal(valid, np.repeat([[True], [True], [False]], 26, axis=1))


@pytest.mark.parametrize('length', [100, FRAMES])
def test_longer_padding_changes_nothing(variables, x, length):
    mask = np.arange(FRAMES)[None] < np.full((ROWS, 1), length)
    expected = run_eval(variables, batch_of(np.where(mask[..., None], x, 0)))
    longer = np.pad(x, ((0, 0), (0, 28), (0, 0)), constant_values=9.0)
    longer[:, length:] = np.nan
    output = run_eval(variables, batch_of(longer, np.pad(mask, ((0, 0), (0, 28)))))
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def test_short_input_equals_zero_padding(variables, x):
    zeros = np.concatenate([x[:, :100], np.zeros((ROWS, FRAMES - 100, COEFFICIENTS), np.float32)], axis=1)
    short = run_eval(variables, batch_of(x[:, :100]))
    np.testing.assert_allclose(short, run_eval(variables, batch_of(zeros)), rtol=0, atol=1e-6)
    assert np.abs(np.asarray(short - run_eval(variables, batch_of(x)))).max() > 1e-2


def test_frames_behind_the_window_are_cut(variables, x):
    longer = np.pad(x, ((0, 0), (0, 28), (0, 0)), constant_values=9.0)
    output = run_eval(variables, batch_of(longer))
    np.testing.assert_allclose(output, run_eval(variables, batch_of(x)), rtol=0, atol=1e-6)


def test_permuting_the_batch_permutes_the_output(variables, x):
    order = np.array([2, 0, 1])
    output, permuted = (np.asarray(run_eval(variables, batch_of(rows))) for rows in (x, x[order]))
    np.testing.assert_allclose(permuted, output[order], rtol=0, atol=1e-6)
    assert np.abs(output - output[order]).max() > 1e-2


def test_dropout_before_the_head_only_in_training():
    features, mask = np.ones((2, 26, 64), np.float32), np.ones((2, 26), bool)

    def pool(train):
        rngs = {'dropout': jax.random.key(0)}
        return np.asarray(MfccCnn().apply({}, features, mask, train=train, rngs=rngs, method='pool'))

    assert (pool(False) == 1).all()
    dropped = pool(True)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.6], rtol=1e-6)
    assert abs((dropped == 0).mean() - 0.4) < 0.05
