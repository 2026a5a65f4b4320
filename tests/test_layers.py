"""mmer_jax.layers: hand-worked values, LSTM parity with PyTorch, and indifference to what stands at padded steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import layers
from mmer_jax.layers import MLP, final_state, fix_length, last_valid, mask_steps, masked_mean
from mmer_jax.recurrent import LSTM
from tests.golden import make_lstm

pytestmark = pytest.mark.usefixtures('strict_types')
X = np.array([[[1, 2], [3, 6], [5, 7]], [[4, 8], [9, 9], [9, 9]], [[7, 7], [7, 7], [7, 7]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
WITH_NAN = np.where(MASK[..., None], X, np.nan).astype(np.float32)
STEPS = 9  # to which the LSTM tests pad


# Pooling, masking, lengths


def test_masked_mean_by_hand():
    np.testing.assert_array_equal(masked_mean(X, MASK), [[2, 4], [4, 8], [0, 0]])


def test_masked_mean_ignores_nan_at_padded_steps():
    np.testing.assert_array_equal(masked_mean(WITH_NAN, MASK), [[2, 4], [4, 8], [0, 0]])


def test_last_valid_by_hand():
    np.testing.assert_array_equal(last_valid(X, MASK), [[3, 6], [4, 8], [0, 0]])
    np.testing.assert_array_equal(last_valid(WITH_NAN, MASK), [[3, 6], [4, 8], [0, 0]])


def test_last_valid_gradient_reaches_only_the_last_valid_step():
    gradient = jax.grad(lambda x: last_valid(x, MASK).sum())(jnp.asarray(WITH_NAN))
    expected = np.zeros_like(X)
    expected[0, 1] = expected[1, 0] = 1
    np.testing.assert_array_equal(gradient, expected)


def test_final_state_by_hand():
    np.testing.assert_array_equal(final_state(X, MASK), [[3, 6], [4, 8], [0, 0]])
    # The first feature runs forward and ends at the last valid step, the second backward and ends at the first.
    output = np.asarray(mask_steps(X, MASK))
    np.testing.assert_array_equal(final_state(output, MASK, bidirectional=True), [[3, 2], [4, 8], [0, 0]])


def test_mask_steps_replaces_nan_and_keeps_valid_steps():
    expected = [[[1, 2], [3, 6], [0, 0]], [[4, 8], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]]
    np.testing.assert_array_equal(mask_steps(WITH_NAN, MASK), expected)


def test_mask_steps_takes_more_and_fewer_dimensions():
    images_BTHW = np.full((3, 3, 2, 2), np.nan, np.float32)
    images_BTHW[MASK] = 5
    masked = np.asarray(mask_steps(images_BTHW, MASK))
    assert (masked[MASK] == 5).all()
    assert (masked[~MASK] == 0).all()
    np.testing.assert_array_equal(mask_steps(X[..., 0], MASK), [[1, 3, 0], [4, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize('steps', [1, 3, 5])
def test_fix_length_cuts_or_pads_with_zeros_on_the_right(steps):
    expected = np.concatenate([X, np.zeros((3, 2, 2), np.float32)], axis=1)[:, :steps]
    np.testing.assert_array_equal(fix_length(X, steps), expected)
    np.testing.assert_array_equal(fix_length(X[..., 0], steps), expected[..., 0])


# LSTM against PyTorch


@pytest.fixture(scope='module')
def golden():
    with np.load(make_lstm.PATH) as file:
        return dict(file)


def from_torch(weights, case):
    """PyTorch LSTM weights (or gradients) -> ours: cells in order layer by layer, forward before backward.

    PyTorch stacks the gates i, f, g, o along axis 0 and adds two biases; here a gate has its own kernels, input
    kernels have no bias, and the recurrent ones hold the sum of both.
    """
    layers, bidirectional = make_lstm.CASES[case]
    suffixes = [f'l{n}{d}' for n in range(layers) for d in (('', '_reverse') if bidirectional else ('',))]
    cells = {}
    for number, suffix in enumerate(suffixes):
        cell = {}
        gates = [np.split(weights[f'{kind}_{suffix}'], 4) for kind in ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh')]
        for gate, input_kernel, kernel, bias, second_bias in zip('ifgo', *gates, strict=True):
            cell[f'i{gate}'] = {'kernel': jnp.asarray(input_kernel.T)}
            cell[f'h{gate}'] = {'kernel': jnp.asarray(kernel.T), 'bias': jnp.asarray(bias + second_bias)}
        cells[f'OptimizedLSTMCell_{number}'] = cell
    return cells


def gradients_from_torch(arrays, case):
    gradients = {name.removeprefix('grad_'): value for name, value in arrays.items() if name.startswith('grad_')}
    # Both PyTorch biases have the same gradient, ours is one of them, not the sum.
    gradients = {name: value / 2 if name.startswith('bias') else value for name, value in gradients.items()}
    return from_torch(gradients, case)


@functools.cache
def compiled(case):
    layers, bidirectional = make_lstm.CASES[case]
    lstm = LSTM(make_lstm.HIDDEN_SIZE, layers, bidirectional)

    def loss(params, x, mask, cotangent):
        output = lstm.apply({'params': params}, x, mask, train=False)
        return (output * cotangent[..., : output.shape[-1]]).sum(), output

    def run(*arguments):
        gradients, output = jax.grad(loss, argnums=(0, 1), has_aux=True)(*arguments)
        return output, *gradients

    return jax.jit(run)


def run_lstm(case, params, x, lengths, cotangent, steps=STEPS, padding=0.0):
    """(output, gradient of the parameters, gradient of x) of sum(output x cotangent), over `steps` padded steps.

    All but the first lengths[b] steps of row b hold `padding`.
    """
    missing = ((0, 0), (0, steps - x.shape[1]), (0, 0))
    mask = np.arange(steps)[None] < lengths[:, None]
    x = np.where(mask[..., None], np.pad(x, missing), np.float32(padding))
    output, gradient, gradient_x = compiled(case)(params, x, mask, np.pad(cotangent, missing))
    return np.asarray(output), gradient, np.asarray(gradient_x)


def part(golden, case):
    return {name.removeprefix(f'{case}/'): value for name, value in golden.items() if name.startswith(f'{case}/')}


def assert_equals_torch(case, arrays, x, lengths, cotangent, **options):
    steps = x.shape[1]
    output, gradient, gradient_x = run_lstm(case, from_torch(arrays, case), x, lengths, cotangent, **options)
    np.testing.assert_allclose(output[:, :steps], arrays['output'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient_x[:, :steps], arrays['grad_x'], rtol=1e-4, atol=1e-5)
    assert (output[:, steps:] == 0).all()
    expected = gradients_from_torch(arrays, case)
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        assert np.abs(theirs).max() > 1e-3, 'a vanishing gradient proves nothing'
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('case', make_lstm.CASES)
def test_lstm_equals_the_stored_torch_lstm(golden, case):
    # Two more padded steps than in the file.
    assert 'make_lstm.py' in str(golden['note'])
    assert_equals_torch(case, part(golden, case), golden['x'], golden['lengths'], golden['cotangent'])


@pytest.mark.parametrize('case', make_lstm.CASES)
def test_lstm_equals_torch_live(golden, case):
    pytest.importorskip('torch', reason='torch is not installed; the stored golden file keeps the parity')
    generator, lengths = np.random.default_rng(5), np.array([2, 7, 7, 4])
    x, cotangent = (generator.standard_normal((4, 7, size)).astype(np.float32) for size in (3, 8))
    assert_equals_torch(case, make_lstm.reference(case, x, lengths, cotangent, seed=9), x, lengths, cotangent)
    # The stored file is still what the generator writes.
    stored = part(golden, case)
    again = make_lstm.reference(case, golden['x'], golden['lengths'], golden['cotangent'], weights=stored)
    for name, value in stored.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


# LSTM: padding


def test_lstm_needs_no_padding(golden):
    arguments = part(golden, 'bi1'), golden['x'], golden['lengths'], golden['cotangent']
    assert_equals_torch('bi1', *arguments, steps=golden['lengths'].max())


@pytest.mark.parametrize('case', make_lstm.CASES)
def test_lstm_is_indifferent_to_what_stands_at_padded_steps(golden, case):
    arguments = from_torch(part(golden, case), case), golden['x'], golden['lengths'], golden['cotangent']
    clean, garbage = (run_lstm(case, *arguments, padding=padding) for padding in (0.0, 37.0))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(garbage), strict=True):
        np.testing.assert_array_equal(a, b)
    output, *_ = run_lstm(case, *arguments, padding=np.nan)
    np.testing.assert_array_equal(output, clean[0])


@pytest.mark.parametrize('case', make_lstm.CASES)
def test_lstm_gradients_ignore_nan_at_padded_steps(golden, case):
    arguments = from_torch(part(golden, case), case), golden['x'], golden['lengths'], golden['cotangent']
    _, gradient, _ = run_lstm(case, *arguments, padding=np.nan)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_lstm_row_without_valid_steps_is_zero_and_leaves_the_others_alone(golden):
    stored, others = part(golden, 'bi2'), [0, 2, 3]
    lengths = np.where([True, False, True, True], golden['lengths'], 0)
    output, _, gradient_x = run_lstm('bi2', from_torch(stored, 'bi2'), golden['x'], lengths, golden['cotangent'])
    assert (output[1] == 0).all()
    assert (gradient_x[1] == 0).all()
    np.testing.assert_allclose(output[others, :7], stored['output'][others], rtol=0, atol=1e-5)


def test_lstm_permuting_the_batch_permutes_the_output(golden):
    order, params = np.array([2, 0, 3, 1]), from_torch(part(golden, 'bi2'), 'bi2')
    x, lengths, cotangent = (golden[name] for name in ('x', 'lengths', 'cotangent'))
    output, *_ = run_lstm('bi2', params, x, lengths, cotangent)
    permuted, *_ = run_lstm('bi2', params, x[order], lengths[order], cotangent)
    np.testing.assert_allclose(permuted, output[order], rtol=0, atol=1e-6)


def test_lstm_drops_out_between_layers_and_only_in_training(golden):
    mask = np.arange(7)[None] < golden['lengths'][:, None]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def apply(layers, train, key):
        variables = {'params': from_torch(part(golden, f'uni{layers}'), f'uni{layers}')}
        lstm = LSTM(4, layers, dropout=0.5)
        return lstm.apply(variables, jnp.asarray(golden['x']), mask, train=train, rngs={'dropout': jax.random.key(key)})

    assert np.abs(apply(2, True, 0) - apply(2, True, 1)).max() > 1e-3
    np.testing.assert_allclose(apply(2, False, 0), golden['uni2/output'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(apply(1, True, 0), golden['uni1/output'], rtol=0, atol=1e-5)


# MLP


def test_mlp_is_dense_relu_dense():
    generator = np.random.default_rng(0)
    x, w0, b0, w1, b1 = (
        generator.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (3, 5), (5,), (5, 4), (4,))
    )
    params = {'Dense_0': {'kernel': w0, 'bias': b0}, 'Dense_1': {'kernel': w1, 'bias': b1}}
    mlp = MLP((5, 4), dropout=0.5)
    expected = np.maximum(x @ w0 + b0, 0) @ w1 + b1
    assert (expected < 0).any(), 'no ReLU behind the last layer'
    np.testing.assert_allclose(mlp.apply({'params': params}, x, train=False), expected, rtol=1e-5, atol=1e-6)


def test_mlp_shapes():
    mlp = MLP((6, 5, 2))
    output, variables = jax.eval_shape(
        lambda: mlp.init_with_output(jax.random.key(0), jnp.zeros((4, 7, 3)), train=False)
    )
    assert output.shape == (4, 7, 2)
    assert {name: leaf['kernel'].shape for name, leaf in variables['params'].items()} == {
        'Dense_0': (3, 6),
        'Dense_1': (6, 5),
        'Dense_2': (5, 2),
    }


def test_mlp_drops_out_only_in_training_and_not_behind_the_last_layer():
    x = np.ones((3, 4), np.float32)
    identity = {'kernel': np.eye(4, dtype=np.float32), 'bias': np.ones(4, np.float32)}
    mlp = MLP((4, 4), dropout=0.5)
    apply = jax.jit(
        lambda train, key: mlp.apply(
            {'params': {'Dense_0': identity, 'Dense_1': identity}}, x, train=train, rngs={'dropout': key}
        ),
        static_argnums=0,
    )
    # Hidden units are 2: dropped they are 0, kept 4; the last layer adds 1.
    assert set(np.unique(apply(True, jax.random.key(0)))) == {1.0, 5.0}
    assert set(np.unique(apply(False, jax.random.key(0)))) == {3.0}


# Attention


def test_masked_softmax_is_a_softmax_of_the_valid_part():
    logits, mask = np.random.default_rng(0).standard_normal((3, 5)), np.zeros((3, 5), bool)
    mask[0, :3] = mask[1] = True
    weights = layers.masked_softmax(jnp.asarray(logits, jnp.float32), mask)
    expected = np.exp(logits[0, :3]) / np.exp(logits[0, :3]).sum()
    np.testing.assert_allclose(weights[0], [*expected, 0, 0], atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), [1, 1, 0], atol=1e-6)
    gradient = jax.grad(lambda x: (layers.masked_softmax(x, mask) ** 2).sum())(jnp.asarray(logits, jnp.float32))
    assert np.isfinite(gradient).all()
    assert not gradient[2].any()
    assert not gradient[0, 3:].any()


def test_positions_are_sines_then_cosines():
    table = layers.sinusoidal_positions(4, 7)
    assert table.shape == (4, 7)
    np.testing.assert_allclose(table[2, [0, 3]], [np.sin(3), np.cos(3)], atol=1e-6)  # frequency 1 at position 3
    np.testing.assert_allclose(table[2, [2, 5]], [np.sin(3e-4), np.cos(3e-4)], atol=1e-6)  # and 1 / 10000
    assert not table[:, 6].any()
    np.testing.assert_array_equal(layers.sinusoidal_positions(9, 7)[:4], table)


def test_attention_equals_torch():
    torch = pytest.importorskip('torch')
    generator = np.random.default_rng(1)
    target, source = (generator.standard_normal((2, n, 8)).astype(np.float32) for n in (3, 4))
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    attention = layers.Attention(num_heads=2)
    params = attention.init(jax.random.key(0), target, source, mask, train=False)['params']
    params = jax.tree.map(lambda x: generator.standard_normal(x.shape).astype(np.float32), params)
    other = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    names = ('query', 'key', 'value')
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.tensor(np.concatenate([params[n]['kernel'].T for n in names])))
        other.in_proj_bias.copy_(torch.tensor(np.concatenate([params[n]['bias'] for n in names])))
        other.out_proj.weight.copy_(torch.tensor(np.ascontiguousarray(params['out']['kernel'].T)))
        other.out_proj.bias.copy_(torch.tensor(params['out']['bias']))
        expected, maps = other(
            torch.tensor(target), *[torch.tensor(source)] * 2,
            key_padding_mask=torch.tensor(~mask), average_attn_weights=False,
        )  # fmt: skip
    out, ours = attention.apply({'params': params}, target, source, mask, train=False)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours, maps.numpy(), atol=1e-6)


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match='8 features do not divide by 3 attention heads'):
        layers.attention_logits(jnp.zeros((1, 2, 8)), jnp.zeros((1, 2, 8)), 3)


def test_temporal_conv_sees_zeros_behind_the_end():
    conv, x = layers.TemporalConv(4, 3), np.random.default_rng(2).standard_normal((1, 6, 3)).astype(np.float32)
    mask = np.arange(6)[None] < 4
    params = conv.init(jax.random.key(0), x, mask)
    whole = conv.apply(params, x, mask)
    np.testing.assert_allclose(whole[:, :4], conv.apply(params, x[:, :4], mask[:, :4]), atol=1e-6)
    assert not whole[:, 4:].any()
