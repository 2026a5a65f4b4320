"""Audio-visual fusion blocks: parity with the official code, recomputation in numpy, counts, what masks keep out."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.fusion.compact_bilinear import CompactBilinear, count_sketch, hashes, signed_sqrt
from mmer_jax.fusion.cross_modal_residual import CrossModalResidual
from mmer_jax.fusion.late import ConcatFc, averaging, multiplication, multiplicative
from mmer_jax.fusion.mmtm import Mmtm, squeeze
from mmer_jax.fusion.msaf import Msaf
from tests.golden import make_audio_visual as make
from tests.numpy_blocks import log_softmax, softmax, tree64

RANDOM = np.random.default_rng(0)
QUIET = {'attention_dropout': 0.0, 'relu_dropout': 0.0, 'residual_dropout': 0.0, 'embedding_dropout': 0.0}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def parameters_of(module, *arguments, **options):
    return count(jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, **options))['params'])


def maps(rows=3, *, seed=0, channels=(8, 4)):
    """A video map (B, T, H, W, C) and an audio map (B, T, C), with masks."""
    generator = np.random.default_rng(seed)
    x = {
        'vision': generator.standard_normal((rows, 3, 2, 2, channels[0])).astype(np.float32),
        'audio': generator.standard_normal((rows, 5, channels[1])).astype(np.float32),
    }
    return x, {m: np.ones(value.shape[:2], bool) for m, value in x.items()}


# Parity with the official code


@pytest.fixture(scope='module')
def golden():
    with np.load(make.PATH) as file:
        return dict(file)


def part(golden, folder):
    prefix = f'{folder}/'
    return {
        name.removeprefix(prefix): value.astype(np.float32) for name, value in golden.items() if name.startswith(prefix)
    }


def dense(state, name):
    bias = {'bias': state[f'{name}.bias']} if f'{name}.bias' in state else {}
    return {'kernel': state[f'{name}.weight'].T, **bias}


def norm(state, name):
    return {'scale': state[f'{name}.weight'], 'bias': state[f'{name}.bias']}


def last(x):
    """Channels first -> channels last."""
    return np.moveaxis(x, 1, -1)


def assert_trees(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance, err_msg=jax.tree_util.keystr(path))


def cfn_sr_from_torch(state):
    def layer(name):
        kernels = np.split(state[f'{name}.self_attn.in_proj_weight'], 3)
        biases = np.split(state[f'{name}.self_attn.in_proj_bias'], 3)
        projections = zip(('query', 'key', 'value'), kernels, biases, strict=True)
        return {
            **{key: {'kernel': kernel.T, 'bias': bias} for key, kernel, bias in projections},
            'out': dense(state, f'{name}.self_attn.out_proj'),
            'attention_norm': norm(state, f'{name}.layer_norms.0'),
            'feed_forward_norm': norm(state, f'{name}.layer_norms.1'),
            'feed_forward': {'Dense_0': dense(state, f'{name}.fc1'), 'Dense_1': dense(state, f'{name}.fc2')},
        }

    attention = {f'layer_{n}': layer(f'audio_attention.layers.{n}') for n in range(5)}
    attention['norm'] = norm(state, 'audio_attention.layer_norm')
    places = {'target': 'channel_affine', 'source': 'y_affine', 'score': 'attn_weight_affine'}
    return {'self_attention': attention, **{ours: dense(state, theirs) for ours, theirs in places.items()}}


@pytest.mark.parametrize('case', ['residual_batch', 'residual_alone', 'no_residual_alone'])
def test_cfn_sr_block_equals_the_official_code(golden, case):
    """The official block on a batch sums its rows' maps; on each row alone it equals ours on all rows together."""
    block = CrossModalResidual(
        width=make.WIDTH, causal=True, residual='no_' not in case, attention_summed_over_batch='batch' in case
    )
    video, audio = last(golden['cfn_sr/video']), last(golden['cfn_sr/audio'])
    masks = [np.ones(x.shape[:2], bool) for x in (video, audio)]

    def loss(params):
        fused, _ = block.apply({'params': params}, video, audio, *masks, train=False)
        return jnp.square(fused).sum(), fused

    params = cfn_sr_from_torch(part(golden, 'cfn_sr/weights'))
    gradient, fused = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(fused, last(golden[f'cfn_sr/{case}/output']), atol=1e-5, rtol=1e-5)
    stored = part(golden, f'cfn_sr/{case}/gradient')
    if stored:
        expected = cfn_sr_from_torch(stored)
        assert np.abs(expected['source']['kernel']).max() > 1e-3, 'a vanishing gradient proves nothing'
        assert_trees(gradient, expected, rtol=1e-4, atol=1e-4)


def coupled(golden, name):
    x = {m: last(golden[f'{name}/{m}']) for m in make.COUPLED}
    return x, {m: np.ones(value.shape[:2], bool) for m, value in x.items()}


def msaf_from_torch(state):
    blocks = {}
    for m, numbers in (('vision', (0, 1)), ('audio', (2,))):
        parts = [dense(state, f'blocks.0.dense_group.{n}') for n in numbers]
        blocks[f'{m}_blocks'] = {key: np.concatenate([p[key] for p in parts], -1) for key in ('kernel', 'bias')}
    return {
        'joint': dense(state, 'blocks.0.joint_features.0'), 'norm': norm(state, 'blocks.0.joint_features.1'), **blocks
    }  # fmt: skip


@pytest.mark.parametrize('mode', ['eval', 'train'])
def test_msaf_equals_the_official_code(golden, mode):
    state = part(golden, 'msaf/weights')
    statistics = {
        'mean': state['blocks.0.joint_features.1.running_mean'], 'var': state['blocks.0.joint_features.1.running_var']
    }  # fmt: skip
    block, (x, masks) = Msaf(make.BLOCK_CHANNEL, make.REDUCTION, block_dropout=0.0), coupled(golden, 'msaf')

    def loss(params):
        variables = {'params': params, 'batch_stats': {'norm': statistics}}
        out, _ = block.apply(variables, x, masks, train=mode == 'train', mutable=['batch_stats'])
        return sum(jnp.square(value).sum() for value in out.values()), out

    gradient, out = jax.jit(jax.grad(loss, has_aux=True))(msaf_from_torch(state))
    for m in x:
        np.testing.assert_allclose(out[m], last(golden[f'msaf/{mode}/{m}']), atol=1e-5)
    expected = msaf_from_torch(part(golden, f'msaf/{mode}/gradient'))
    assert np.abs(expected['vision_blocks']['kernel']).max() > 1e-2
    # In training the bias before the batch statistics has the gradient 0, up to rounding.
    assert_trees(gradient, expected, rtol=1e-4, atol=5e-4)


def mmtm_from_torch(state):
    places = {'joint': 'fc_squeeze', 'vision_gate': 'fc_visual', 'audio_gate': 'fc_skeleton'}
    return {ours: dense(state, theirs) for ours, theirs in places.items()}


def test_mmtm_equals_the_official_code(golden):
    """The code leaves out the factor 2 of the paper's equation 4."""
    x, masks = coupled(golden, 'mmtm')

    def loss(params):
        out = Mmtm(gate_scale=1.0).apply({'params': params}, x, masks)
        return sum(jnp.square(value).sum() for value in out.values()), out

    params = mmtm_from_torch(part(golden, 'mmtm/weights'))
    gradient, out = jax.jit(jax.grad(loss, has_aux=True))(params)
    for m in x:
        np.testing.assert_allclose(out[m], last(golden[f'mmtm/eval/{m}']), atol=1e-5)
    assert_trees(gradient, mmtm_from_torch(part(golden, 'mmtm/eval/gradient')), rtol=1e-4, atol=1e-5)
    paper = Mmtm().apply({'params': params}, x, masks)
    np.testing.assert_allclose(paper['audio'], 2 * out['audio'], rtol=1e-6)


# Counts


def test_parameter_counts_of_the_blocks():
    video, audio = jnp.zeros((1, 2, 7, 7, 2048)), jnp.zeros((1, 26, 64))
    masks = [jnp.ones((1, 2), bool), jnp.ones((1, 26), bool)]
    assert parameters_of(CrossModalResidual(), video, audio, *masks, train=False) == 385_345
    assert parameters_of(CrossModalResidual(self_attention=False), video, audio, *masks, train=False) == 135_297
    back = (audio, video.mean((2, 3)), *masks[::-1])
    assert parameters_of(CrossModalResidual(), *back, train=False) == 385_345
    for block_channel, sizes, expected in ((16, (1024, 32), 5_356), (32, (2048, 64), 19_288)):
        x, _ = maps(channels=sizes)
        assert parameters_of(Msaf(block_channel), x, {}, train=False) == expected
    assert parameters_of(Mmtm(), maps(channels=(2048, 64))[0], {}) == 4_463_712
    assert parameters_of(ConcatFc(8), [jnp.zeros((1, 2048)), jnp.zeros((1, 1664))]) == 952_584


# Late fusion


def test_late_fusions_equal_their_equations():
    logits = RANDOM.standard_normal((4, 3, 5)) * 2
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    np.testing.assert_allclose(averaging(logits), logits.mean(1), rtol=1e-5)
    product = p.prod(1) / p.prod(1).sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax(np.asarray(multiplication(logits))), product, rtol=1e-5)
    q = np.stack([np.prod(np.delete(1 - p, m, 1), 1) ** (0.3 / 2) for m in range(3)], 1)
    np.testing.assert_allclose(multiplicative(logits, 0.3), (q * log_p).sum(1), rtol=1e-5)


def test_multiplicative_is_multiplication_without_beta_or_with_one_modality():
    logits = RANDOM.standard_normal((4, 3, 5)).astype(np.float32)
    np.testing.assert_allclose(multiplicative(logits, 0.0), multiplication(logits), rtol=1e-6)
    np.testing.assert_allclose(multiplicative(logits[:, :1]), multiplication(logits[:, :1]), rtol=1e-6)


def test_multiplicative_weighs_down_a_modality_where_the_other_is_certain():
    """The unsure modality learns less where the sure one is right already; no gradient goes through the weights."""
    unsure = np.zeros((1, 1, 2), np.float32)

    def gradient(other):
        logits = jnp.concatenate([unsure, jnp.asarray([[[other, 0.0]]])], 1)
        return jax.jit(jax.grad(lambda logits: -multiplicative(logits, 0.5)[0, 0]))(logits)[0]

    assert 0 < -gradient(8.0)[0, 0] < 0.1 * -gradient(0.0)[0, 0]
    q, p = 0.5**0.5, 0.5  # of the second modality, with the first unsure: -q (1 - p)
    np.testing.assert_allclose(gradient(0.0)[1, 0], -q * (1 - p), rtol=1e-5)
    assert np.isfinite(gradient(200.0)).all()


@pytest.mark.parametrize('fusion', [multiplication, multiplicative])
def test_products_of_probabilities_need_classes(fusion):
    with pytest.raises(ValueError, match=r'two or more classes, found num_outputs = 1'):
        fusion(np.zeros((2, 2, 1)))


# Compact bilinear pooling


def test_compact_bilinear_is_the_sketch_of_the_outer_product():
    vectors, size = [RANDOM.standard_normal((3, n)) for n in (6, 4)], 37
    places, signs = zip(*(hashes(n, size, seed) for seed, n in enumerate((6, 4))), strict=True)
    sketch = np.zeros((3, size))
    for i in range(6):
        for j in range(4):
            place = (places[0][i] + places[1][j]) % size
            sketch[:, place] += signs[0][i] * signs[1][j] * vectors[0][:, i] * vectors[1][:, j]
    root = np.sign(sketch) * np.sqrt(np.abs(sketch))
    expected = root / np.linalg.norm(root, axis=-1, keepdims=True)
    out = CompactBilinear(size).apply({}, [x.astype(np.float32) for x in vectors])
    # Places that nothing is hashed to are rounding noise of the transforms, of which the root is taken.
    np.testing.assert_allclose(out, expected, atol=1e-3)
    np.testing.assert_allclose(np.square(out) * np.square(root).sum(-1, keepdims=True), np.abs(sketch), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), 1, rtol=1e-5)


def test_count_sketch_keeps_dot_products_on_average():
    x = RANDOM.standard_normal((2, 50))
    products = []
    for seed in range(300):
        place, sign = hashes(50, 64, seed)
        a, b = np.asarray(count_sketch(jnp.asarray(x, jnp.float32), place, sign, 64))
        products.append(a @ b)
    assert abs(np.mean(products) - x[0] @ x[1]) < 4 * np.std(products) / np.sqrt(len(products))


def test_hashes_are_part_of_the_config():
    """A checkpoint holds no hashes: they must be the same in every version."""
    place, sign = hashes(5, 16000, 0)
    np.testing.assert_array_equal(place, [13609, 10191, 8178, 4316, 4925])
    np.testing.assert_array_equal(sign, [-1, -1, -1, -1, 1])
    x = [np.ones((1, 4), np.float32)] * 2
    one, other = (CompactBilinear(50, seed).apply({}, x) for seed in (0, 10))
    assert np.abs(np.asarray(one - other)).max() > 0.1


def test_compact_bilinear_has_finite_gradients_at_zero():
    gradient = jax.jit(jax.grad(lambda x: CompactBilinear(16).apply({}, [x, x]).sum()))(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(signed_sqrt(jnp.asarray([-4.0, 9.0])), [-2, 3])


# MMTM and MSAF on any maps


def test_squeeze_is_the_mean_over_valid_positions():
    (x, masks), valid = maps(), [3, 1, 2]
    masks['vision'] = np.arange(3) < np.array(valid)[:, None]
    expected = [row[:steps].mean((0, 1, 2)) for row, steps in zip(x['vision'], valid, strict=True)]
    np.testing.assert_allclose(squeeze(x['vision'], masks['vision']), expected, rtol=1e-5)
    np.testing.assert_allclose(squeeze(x['audio']), x['audio'].mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(squeeze(x['audio'][:, 0]), x['audio'][:, 0])


def run_mmtm(x, masks):
    block = Mmtm(ratio=2)
    return jax.jit(lambda x, masks: block.init_with_output(jax.random.key(0), x, masks)[0])(x, masks)


def run_msaf(x, masks):
    block = Msaf(4, reduction=2)
    return jax.jit(lambda x, masks: block.init_with_output(jax.random.key(0), x, masks, train=False)[0])(x, masks)


@pytest.mark.parametrize('run', [run_mmtm, run_msaf])
def test_steps_that_are_padding_are_not_seen(run):
    x, masks = maps()
    expected = run(x, masks)
    longer = {m: np.concatenate([value, np.full_like(value[:, :2], 9)], 1) for m, value in x.items()}
    masks = {m: np.pad(mask, ((0, 0), (0, 2))) for m, mask in masks.items()}
    out = run(longer, masks)
    for m, value in x.items():
        np.testing.assert_allclose(out[m][:, : value.shape[1]], expected[m], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('run', [run_mmtm, run_msaf])
def test_what_one_modality_sees_weighs_the_other(run):
    x, masks = maps()
    changed = run({**x, 'audio': x['audio'] + 2}, masks)
    assert np.abs(np.asarray(changed['vision'] - run(x, masks)['vision'])).max() > 1e-2


def test_msaf_weighs_blocks_by_a_softmax_over_all_of_them():
    """Recomputed from its parameters, with channels that no block size divides and three modalities of three ranks."""
    sizes, block_channel = {'a': 6, 'b': 4, 'c': 3}, 4
    x = {
        'a': RANDOM.standard_normal((2, 3, 2, 6)), 'b': RANDOM.standard_normal((2, 5, 4)),
        'c': RANDOM.standard_normal((2, 3)),
    }  # fmt: skip
    x = {m: value.astype(np.float32) for m, value in x.items()}
    block = Msaf(block_channel, reduction=2, lowest_attention=0.1)
    out, variables = jax.jit(partial(block.init_with_output, train=False))(jax.random.key(1), x, {})
    params = tree64(variables['params'])
    blocks = {m: -(-size // block_channel) for m, size in sizes.items()}
    joint = 0
    for m, value in x.items():
        mean = value.reshape(2, -1, sizes[m]).mean(1)
        joint = joint + np.pad(mean, ((0, 0), (0, -sizes[m] % 4))).reshape(2, blocks[m], 4).sum(1)
    joint = joint @ params['joint']['kernel'] + params['joint']['bias']
    joint = np.maximum(joint / np.sqrt(1 + 1e-5), 0)
    logits = [joint @ params[f'{m}_blocks']['kernel'] + params[f'{m}_blocks']['bias'] for m in x]
    weights = softmax(np.concatenate(logits, 1).reshape(2, sum(blocks.values()), 4), 1)
    weights, start = 0.1 + 0.9 * weights, 0
    for m, value in x.items():
        weight = weights[:, start : start + blocks[m]].reshape(2, -1)[:, : sizes[m]]
        start += blocks[m]
        np.testing.assert_allclose(out[m], value * weight.reshape(2, *(1,) * (value.ndim - 2), -1), rtol=1e-4)


@pytest.mark.parametrize('twice', [False, True])
def test_block_dropout_drops_whole_blocks(twice):
    """With channels of 1 everywhere and weights of 1 / 3, an entry is 0, or grown by what was dropped."""
    x = {'vision': np.ones((200, 2, 2, 8), np.float32), 'audio': np.ones((200, 3, 4), np.float32)}
    block = Msaf(4, reduction=2, block_dropout=0.2, drop_twice=twice)
    variables = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(0), x, {}, train=False))
    apply = jax.jit(partial(block.apply, train=True, mutable=['batch_stats']))
    out, _ = apply(variables, x, {}, rngs={'dropout': jax.random.key(0)})
    grown = 1 / 0.8 ** (2 if twice else 1) / 3
    by_block = np.concatenate(
        [np.asarray(out['vision'])[:, 0, 0].reshape(200, 2, 4), np.asarray(out['audio'])[:, :1]], 1
    )
    assert (np.ptp(by_block, axis=2) == 0).all()
    np.testing.assert_allclose(np.unique(by_block.round(5)), [0, round(grown, 5)], atol=1e-5)
    assert abs((by_block == 0).mean() - 0.2) < 0.05
    assert (np.ptp(np.asarray(out['vision']).reshape(200, 4, 8), axis=1) == 0).all()


# The cross-modal block


def block_inputs(rows=3, seed=0):
    x, masks = maps(rows, seed=seed, channels=(6, 8))
    return [x['vision'], x['audio'], masks['vision'], masks['audio']]


TINY = {'width': 8, 'num_layers': 1, 'num_heads': 2}


@cache
def compiled(**fields):
    return jax.jit(partial(CrossModalResidual(**TINY, **fields).apply, train=False))


@pytest.fixture(scope='module')
def block():
    """Functions of (inputs, changed fields) -> fused map and attention map, all on the same parameters."""
    params = CrossModalResidual(**TINY).init(jax.random.key(0), *block_inputs(), train=False)

    def run(inputs, **fields):
        return compiled(**fields)(params, *inputs)

    return params['params'], run


def test_the_map_is_equations_7_and_8(block):
    """Recomputed without self-attention, whose parameters the transformer's own tests cover."""
    params, run = block
    inputs = block_inputs()
    inputs[3] = np.arange(5) < np.array([[5], [2], [3]])
    fused, attention = run(inputs, self_attention=False)
    params, (video, audio) = tree64(params), inputs[:2]
    summary = audio[np.arange(3), [4, 1, 2]] @ params['source']['kernel']
    query = np.tanh(video @ params['target']['kernel'] + params['target']['bias'] + summary[:, None, None, None])
    scores = (query @ params['score']['kernel'] + params['score']['bias'])[..., 0]
    expected = softmax(scores.reshape(9, -1)).reshape(scores.shape)  # each step by itself
    np.testing.assert_allclose(attention, expected, rtol=1e-4)
    np.testing.assert_allclose(fused, video * expected[..., None] + video, rtol=1e-4, atol=1e-5)
    attended, _ = run(inputs, self_attention=False, residual=False)
    np.testing.assert_allclose(attended, video * expected[..., None], rtol=1e-4, atol=1e-5)
    _, joint = run(inputs, self_attention=False, joint_softmax=True)
    np.testing.assert_allclose(joint, softmax(scores.reshape(3, -1)).reshape(scores.shape), rtol=1e-4)


def test_a_sequence_is_attended_over_its_steps():
    video, audio, *masks = block_inputs()
    block, source = CrossModalResidual(**TINY), video.mean((2, 3))
    run = jax.jit(partial(block.init_with_output, train=False))
    (fused, attention), _ = run(jax.random.key(0), audio, source, *masks[::-1])
    assert fused.shape == audio.shape
    np.testing.assert_allclose(attention.sum(1), 1, rtol=1e-5)
    assert np.ptp(np.asarray(attention)) > 1e-3


def test_maps_stay_with_their_rows_unless_summed(block):
    _, run = block
    inputs, other = block_inputs(), block_inputs(seed=1)
    mixed = [np.concatenate([a[:1], b[1:]]) for a, b in zip(inputs, other, strict=True)]
    np.testing.assert_allclose(run(mixed)[0][0], run(inputs)[0][0], atol=1e-6)
    summed, attention = run(inputs, attention_summed_over_batch=True)
    np.testing.assert_allclose(attention.sum((2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(summed, inputs[0] * (1 + np.asarray(attention).sum(0)[None, ..., None]), rtol=1e-5)
    quirk = run(mixed, attention_summed_over_batch=True)[0][0]
    assert np.abs(np.asarray(quirk - summed[0])).max() > 1e-2


def test_padding_is_not_attended(block):
    _, run = block
    inputs = block_inputs()
    expected, _ = run(inputs)
    longer = [np.concatenate([x, np.full_like(x[:, :2], np.nan)], 1) for x in inputs[:2]]
    longer += [np.pad(mask, ((0, 0), (0, 2))) for mask in inputs[2:]]
    for fields in ({}, {'attention_summed_over_batch': True}):
        expected, _ = run(inputs, **fields)
        rows = [np.concatenate([x, np.zeros_like(x[:2])]) for x in longer]  # and two rows of padding
        fused, attention = run(rows, **fields)
        np.testing.assert_allclose(fused[:3, :3], expected, rtol=1e-5, atol=1e-6)
        assert (np.asarray(attention[:, 3:]) == 0).all()
        assert (np.asarray(attention[3:]) == 0).all()


def test_causal_hides_later_steps_from_earlier_ones_only(block):
    """The summary is the last step, which sees all in both; a first layer's earlier steps see less, so two differ."""
    params = CrossModalResidual(8, 2, 2).init(jax.random.key(0), *block_inputs(), train=False)
    plain, causal = (
        jax.jit(partial(CrossModalResidual(8, 2, 2, causal=on).apply, train=False))(params, *block_inputs())[1]
        for on in (False, True)
    )
    assert np.abs(np.asarray(plain - causal)).max() > 1e-5
    _, run = block
    np.testing.assert_allclose(run(block_inputs())[1], run(block_inputs(), causal=True)[1], rtol=1e-5)


def test_the_audio_changes_where_the_video_is_looked_at(block):
    _, run = block
    inputs = block_inputs()
    shifted = [inputs[0], np.roll(inputs[1], 1, 1) * 2, *inputs[2:]]
    assert np.abs(np.asarray(run(shifted)[1] - run(inputs)[1])).max() > 1e-3
