"""MulT: parity with the official code, parameter counts, what the masks let through, and its options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.fusion.cross_modal_attention import CrossModalTransformer, visible_pairs
from mmer_jax.models.mult import Mult, pad_left
from tests.any_values import random_variables
from tests.golden import make_mult

ALL = ('text', 'audio', 'vision')
TINY = {'width': 4, 'num_layers': 1, 'memory_layers': 1, 'num_heads': 2}


# Parity with the official code


@pytest.fixture(scope='module')
def golden():
    with np.load(make_mult.PATH) as file:
        return dict(file)


def by_torch_name(golden, values):
    """A flat vector of the golden file -> {name in the official code: array}."""
    shapes = [tuple(int(size) for size in shape if size) for shape in golden['shapes']]
    pieces = np.split(values.astype(np.float32), np.cumsum([np.prod(shape) for shape in shapes])[:-1])
    return {str(name): piece.reshape(shape) for name, piece, shape in zip(golden['names'], pieces, shapes, strict=True)}


def from_torch(state):
    """Parameters (or gradients) under the official names -> ours: dense kernels are transposed, convolutions (D, F, k)
    become (k, F, D), the stacked matrix of queries, keys and values is split."""
    long = {'l': 'text', 'a': 'audio', 'v': 'vision'}
    tree, used = {}, set()

    def take(name):
        used.add(name)
        return state[name]

    def dense(name):
        return {'kernel': take(f'{name}.weight').T, 'bias': take(f'{name}.bias')}

    def norm(name):
        return {'scale': take(f'{name}.weight'), 'bias': take(f'{name}.bias')}

    def layer(name):
        kernels = np.split(take(f'{name}.self_attn.in_proj_weight'), 3)
        biases = np.split(take(f'{name}.self_attn.in_proj_bias'), 3)
        projections = zip(('query', 'key', 'value'), kernels, biases, strict=True)
        return {
            **{key: {'kernel': kernel.T, 'bias': bias} for key, kernel, bias in projections},
            'out': dense(f'{name}.self_attn.out_proj'),
            'attention_norm': norm(f'{name}.layer_norms.0'),
            'feed_forward_norm': norm(f'{name}.layer_norms.1'),
            'feed_forward': {'Dense_0': dense(f'{name}.fc1'), 'Dense_1': dense(f'{name}.fc2')},
        }

    fusion = {}
    for name in sorted({name.split('.')[0] for name in state if name.startswith('trans_')}):
        _, target, *_, source = name.split('_')  # trans_l_with_a, trans_l_mem
        ours = f'{long[target]}_memory' if source == 'mem' else f'{long[target]}_from_{long[source]}'
        numbers = {key.split('.')[2] for key in state if key.startswith(f'{name}.layers.')}
        fusion[ours] = {f'layer_{n}': layer(f'{name}.layers.{n}') for n in numbers}
        fusion[ours]['norm'] = norm(f'{name}.layer_norm')
    for short, m in long.items():
        tree[f'{m}_projection'] = {'Conv_0': {'kernel': take(f'proj_{short}.weight').transpose(2, 1, 0)}}
    residual = {'Dense_0': dense('proj1'), 'Dense_1': dense('proj2')}
    tree = {**tree, 'fusion': fusion, 'head': {'residual': residual, 'out': dense('out_layer')}}
    assert used == set(state)
    return tree


def golden_batch(golden):
    """The golden sequences padded on the right, garbage at padded steps."""
    batch = {}
    for m in ALL:
        lengths, x = np.array(make_mult.LENGTHS[m]), golden[f'{m}_left_padded']
        batch[m], batch[f'{m}_mask'] = np.full_like(x, 7), np.arange(x.shape[1]) < lengths[:, None]
        for row, length in enumerate(lengths):
            batch[m][row, :length] = x[row, -length:]
    return batch


@pytest.mark.parametrize('causal', [True, False], ids=['causal', 'full'])
@pytest.mark.parametrize('padding', ['padded', 'alone'])
def test_equals_the_official_code(golden, padding, causal):
    """left_padded_to on the left-padded batch; masks, on the same batch, on each clip alone without padding."""
    model = Mult(
        ALL,
        make_mult.OUTPUTS,
        width=make_mult.WIDTH,
        num_layers=make_mult.LAYERS,
        num_heads=make_mult.HEADS,
        kernel_sizes=1,
        causal=causal,
        left_padded_to=(make_mult.PADDED_TO,) * 3 if padding == 'padded' else (),
    )
    batch = golden_batch(golden)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_of(params):
        prediction = model.apply({'params': params}, batch, train=False)['prediction']
        return jnp.square(prediction).sum(), prediction

    gradient, prediction = gradient_of(from_torch(by_torch_name(golden, golden['weights'])))
    key = f'{padding}_{"causal" if causal else "full"}'
    np.testing.assert_allclose(prediction, golden[f'{key}/output'], rtol=0, atol=2e-6)
    expected = from_torch(by_torch_name(golden, golden[f'{key}/gradient']))
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(expected), strict=True):
        name = jax.tree_util.keystr(path)
        assert "['key']['bias']" in name or np.abs(theirs).max() > 1e-3, f'a vanishing gradient proves nothing: {name}'
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_golden_cases_differ(golden):
    """Otherwise parity in one of them would say nothing about the option that it is for."""
    outputs = [golden[f'{padding}_{mask}/output'] for padding in ('padded', 'alone') for mask in ('causal', 'full')]
    for i, one in enumerate(outputs):
        assert all(np.abs(one - other).max() > 1e-2 for other in outputs[:i])


# Parameter counts of the official code


def count(sizes, num_outputs, **fields):
    batch = {m: jnp.zeros((1, 2, size)) for m, size in zip(ALL, sizes, strict=True)}
    batch.update({f'{m}_mask': jnp.ones((1, 2), bool) for m in ALL})
    model = Mult(ALL, num_outputs, **fields)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


MOSI, MOSEI = (300, 5, 20), (300, 74, 35)


@pytest.mark.parametrize(
    ('sizes', 'outputs', 'code', 'paper'),
    [(MOSI, 1, 1_071_211, 1_563_241), (MOSEI, 1, 1_073_731, 1_573_321), (MOSEI, 8, 1_074_998, 1_575_008)],
    ids=['mosi', 'mosei', 'iemocap'],
)
def test_parameter_counts(sizes, outputs, code, paper):
    """1.071M, 1.074M and 1.075M with the code's defaults; 1.563M, 1.573M and 1.575M with the paper's sizes, which are
    ours, and kernels of 3 for every modality (the 5 that its table has for vision on IEMOCAP would add 2,800)."""
    assert count(sizes, outputs, width=30, num_layers=5, num_heads=5, kernel_sizes=1) == code
    assert count(sizes, outputs) == paper


# What attention sees


def test_future_mask_by_hand():
    """Three valid target steps, five valid source steps: step t sees s < t + 3."""
    target, source = np.array([[1, 1, 1, 0]], bool), np.array([[1, 1, 1, 1, 1, 0]], bool)
    expected = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(visible_pairs(target, source, causal=True)[0], np.array(expected, bool))
    np.testing.assert_array_equal(visible_pairs(target, source, causal=False), target[..., None] & source[:, None])


def test_causal_transformer_has_no_gradient_from_hidden_sources():
    """d output[t] / d source[s] of three targets and five sources is 0 where, and only where, t may not see s."""
    generator = np.random.default_rng(0)
    target, source = (generator.standard_normal((1, steps, 4)).astype(np.float32) for steps in (3, 5))
    masks = np.ones((1, 3), bool), np.ones((1, 5), bool)
    causal, full = CrossModalTransformer(1, 2, causal=True), CrossModalTransformer(1, 2)
    params = full.init(jax.random.key(0), target, source, *masks, train=False)

    def reaches(module):
        def first_feature(source):
            return module.apply(params, target, source, *masks, train=False)[0][0, :, 0]

        return np.abs(jax.jit(jax.jacrev(first_feature))(source)).max((1, 3)) > 0

    np.testing.assert_array_equal(reaches(causal), np.tri(3, 5, 2, dtype=bool))
    assert reaches(full).all()


def test_pad_left_by_hand():
    x = np.array([[[1], [2], [np.nan]], [[3], [np.nan], [np.nan]], [[np.nan]] * 3], np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(pad_left(x, mask, 4)[..., 0], [[0, 0, 1, 2], [0, 0, 0, 3], [0, 0, 0, 0]])
    np.testing.assert_array_equal(pad_left(x, mask, 1)[..., 0], [[2], [3], [0]])


# Options. Operation by operation and with one number of steps for all modalities, for the sake of compilation.


def tiny_batch(modalities=ALL, rows=3, extra=0, garbage=0.0):
    generator = np.random.default_rng(0)
    batch = {}
    for m, size in zip(ALL, (3, 4, 5), strict=True):
        lengths = generator.integers(2, 6, rows)
        values = np.pad(generator.standard_normal((rows, 5, size)).astype(np.float32), ((0, 0), (0, extra), (0, 0)))
        if m in modalities:
            mask = np.arange(5 + extra) < lengths[:, None]
            batch[m], batch[f'{m}_mask'] = np.where(mask[..., None], values, np.float32(garbage)), mask
    return batch


def predict(model, variables, batch):
    return jax.jit(functools.partial(model.apply, train=False))(variables, batch)


@pytest.mark.parametrize('fields', [{'causal': True}, {'left_padded_to': (8, 8, 8)}], ids=['causal', 'left_padded'])
def test_padding_changes_nothing_in_the_published_forms(fields):
    model, plain = Mult(ALL, 2, **TINY, **fields), Mult(ALL, 2, **TINY)
    variables = random_variables(model, tiny_batch())
    expected = predict(model, variables, tiny_batch())['prediction']
    assert not np.allclose(predict(plain, variables, tiny_batch())['prediction'], expected, atol=1e-3)
    padded = predict(model, variables, tiny_batch(extra=3, garbage=np.nan))['prediction']
    np.testing.assert_allclose(padded, expected, atol=2e-6)


def test_left_padding_is_attended():
    """More of it is another prediction, as in the published code."""
    variables = random_variables(Mult(ALL, 2, **TINY), tiny_batch())
    models = [Mult(ALL, 2, **TINY, left_padded_to=steps) for steps in ((8, 8, 8), (8, 9, 8))]
    one, two = (predict(model, variables, tiny_batch())['prediction'] for model in models)
    assert np.abs(one - two).max() > 1e-3


def test_captured_attention():
    batch = tiny_batch()
    model = Mult(ALL, 2, **{**TINY, 'num_layers': 2}, capture_attention=True)
    outputs = predict(model, random_variables(model, batch), batch)
    pairs = [f'{t}_from_{s}' for t in ALL for s in ALL if s != t]
    assert set(outputs['attention']) == {f'{n}/{k}' for n in [*pairs, *(f'{m}_memory' for m in ALL)] for k in range(2)}
    assert outputs['features'].shape == (3, 6 * 4)
    for name, map_BKTS in outputs['attention'].items():
        target, source = name.split('/')[0].removesuffix('_memory').split('_from_') * (1 if '_from_' in name else 2)
        assert map_BKTS.shape == (3, 2, batch[target].shape[1], batch[source].shape[1])
        valid = np.broadcast_to(batch[f'{target}_mask'][:, None], map_BKTS.shape[:3])
        np.testing.assert_allclose(map_BKTS.sum(-1), valid, atol=1e-6)
        assert (np.moveaxis(np.asarray(map_BKTS), -1, 1)[~batch[f'{source}_mask']] == 0).all()


@pytest.mark.parametrize(('modalities', 'features'), [(('audio',), 4), (('vision', 'text'), 8)])
def test_fewer_modalities(modalities, features):
    batch = tiny_batch(modalities)
    model = Mult(modalities, 2, **TINY, capture_attention=True)
    outputs = predict(model, random_variables(model, batch), batch)
    assert outputs['features'].shape == (3, features)
    pairs = {f'{t}_from_{s}/0' for t in modalities for s in modalities if s != t}
    assert set(outputs['attention']) == pairs | {f'{m}_memory/0' for m in modalities}


@pytest.mark.parametrize(
    ('fields', 'expected'),
    [
        ({'kernel_sizes': (3, 3)}, 'kernel_sizes has 2 numbers for 3 modalities'),
        ({'attention_dropout': (0.1,)}, 'attention_dropout has 1 numbers for 3 modalities'),
        ({'left_padded_to': (50, 375)}, 'left_padded_to has 2 numbers for 3 modalities'),
        ({'num_heads': 3}, '4 features do not divide by 3'),
    ],
)
def test_wrong_fields_say_so(fields, expected):
    with pytest.raises(ValueError, match=expected):
        jax.eval_shape(lambda: Mult(ALL, 2, **{**TINY, **fields}).init(jax.random.key(0), tiny_batch(), train=False))


def test_attention_dropout_goes_by_the_source():
    """With dropout only where audio is the source, the transformers with other sources stay as they are."""
    quiet = {'text_dropout': 0.0, 'embedding_dropout': 0.0, 'relu_dropout': 0.0, 'residual_dropout': 0.0}
    quiet |= {'memory_attention_dropout': 0.0, 'output_dropout': 0.0}
    batch = tiny_batch(('text', 'audio'))
    model = Mult(('text', 'audio'), 2, **TINY, **quiet, attention_dropout=(0.0, 0.5))
    variables = random_variables(model, batch)
    calm = predict(model, variables, batch)['features']
    train = functools.partial(model.apply, train=True, rngs={'dropout': jax.random.key(0)})
    noisy = train(variables, batch)['features']
    np.testing.assert_allclose(noisy[:, 4:], calm[:, 4:], atol=1e-6)  # audio from text
    assert np.abs(noisy[:, :4] - calm[:, :4]).max() > 1e-3  # text from audio
