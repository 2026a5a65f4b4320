"""PMR: its unit and its message hub recomputed in numpy, padding inside the common message, maps, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.fusion.message_hub import MessageHub, ReinforcementUnit, last_step
from mmer_jax.layers import sinusoidal_positions
from mmer_jax.models.pmr import Pmr

ALL = ('text', 'audio', 'vision')
SIZES = {'text': 3, 'audio': 4, 'vision': 5}
LENGTHS = {'text': [3, 5, 2], 'audio': [6, 1, 4], 'vision': [2, 4, 3]}
WIDTH, HEADS, ROWS = 8, 2, 3
TINY = {'width': WIDTH, 'num_heads': HEADS, 'num_layers': 1, 'final_layers': 1, 'feed_forward': 12, 'num_outputs': 3}


def sequence(seed, lengths, steps, features=WIDTH):
    values = np.random.default_rng(seed).standard_normal((len(lengths), steps, features)).astype(np.float32)
    return values, np.arange(steps) < np.array(lengths)[:, None]


def parameters(module, *arrays):
    """Random ones of the module's shapes: initial biases are 0 and scales 1, which would hide a forgotten one."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arrays, train=False))['params']
    generator = np.random.default_rng(7)

    def draw(path, leaf):
        values = 0.3 * generator.standard_normal(leaf.shape).astype(np.float32)
        return values + 1 if path[-1].key == 'scale' else values

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_batch(modalities, extra=None, garbage=0.0):
    """Rows of LENGTHS; extra = {modality: more padded steps}; padded positions hold `garbage`."""
    batch = {}
    for m in modalities:
        x, mask = sequence(len(m), LENGTHS[m], max(LENGTHS[m]), SIZES[m])
        more = ((0, 0), (0, (extra or {}).get(m, 0)))
        mask = np.pad(mask, more)
        batch[m], batch[f'{m}_mask'] = np.where(mask[..., None], np.pad(x, (*more, (0, 0))), garbage), mask
    return {key: value.astype(bool if key.endswith('_mask') else np.float32) for key, value in batch.items()}


@pytest.fixture(scope='module')
def captured():
    """All three modalities, with maps."""
    model, batch = Pmr(ALL, capture_attention=True, **TINY), make_batch(ALL)
    params = parameters(model, batch)
    return jax.jit(lambda batch: model.apply({'params': params}, batch, train=False))


# The equations in numpy, float64


def dense(p, x):
    return x @ np.asarray(p['kernel'], np.float64) + np.asarray(p.get('bias', 0.0), np.float64)


def norm(p, x):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return scaled * np.asarray(p['scale'], np.float64) + np.asarray(p['bias'], np.float64)


def feed_forward(p, x):
    return dense(p['Dense_1'], np.maximum(dense(p['Dense_0'], x), 0))


def attention(p, target, source, mask):
    """One row at a time, valid sources only, head by head."""
    rows = []
    for t, s, valid in zip(target.astype(np.float64), source.astype(np.float64), mask, strict=True):
        q, k, v = dense(p['query'], t), dense(p['key'], s[valid]), dense(p['value'], s[valid])
        size = WIDTH // HEADS
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            logits = q[:, part] @ k[:, part].T / np.sqrt(size)
            weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-1e9))  # a row may have no source
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        rows.append(dense(p['out'], np.concatenate(heads, -1)))
    return np.stack(rows)


def unit(p, source, target, source_mask, target_mask, gate=None):
    sa = attention(p['self_attention'], target, target, target_mask)
    ca = attention(p['cross_attention'], target, source, source_mask)
    if gate is None:
        gate = 1 / (1 + np.exp(-dense(p['gate_self'], sa) - dense(p['gate_cross'], ca)))
    z = norm(p['mix_norm'], gate * ca + (1 - gate) * sa)
    z = norm(p['norm'], z + feed_forward(p['feed_forward'], z))
    return np.where(target_mask[..., None], z, 0)


def pooled(p, messages, mask):
    """psi_m = softmax_m(p_m^T tanh(W_m mean(Z_m) + b_m)), then the weighted sum; written row by row."""
    combined = np.zeros_like(next(iter(messages.values())))
    for row, valid in enumerate(mask):
        gamma = {
            m: dense(p[f'{m}_weight'], np.tanh(dense(p[f'{m}_hidden'], z[row][valid].mean(0))))[0]
            for m, z in messages.items()
        }
        total = sum(np.exp(g) for g in gamma.values())
        combined[row] = sum(np.exp(gamma[m]) / total * z[row] for m, z in messages.items())
    return combined


def hub(p, z, common, masks, common_mask, message):
    z = {m: unit(p[f'{m}_from_common'], common, z[m], common_mask, masks[m]) for m in z}
    messages = {m: unit(p[f'common_from_{m}'], z[m], common, masks[m], common_mask) for m in z}
    if message == 'pooled':
        common = pooled(p['weighted_attention'], messages, common_mask)
    else:
        common = sum(messages.values())
    common = common + feed_forward(p['feed_forward'], norm(p['norm'], common))
    return z, np.where(common_mask[..., None], common, 0)


# ReinforcementUnit


@pytest.fixture(scope='module')
def unit_case():
    source, source_mask = sequence(0, [4, 6, 1], 6)
    target, target_mask = sequence(1, [2, 5, 3], 5)
    module = ReinforcementUnit(HEADS, feed_forward=12)
    arrays = (source, target, source_mask, target_mask)
    params = parameters(module, *arrays)
    apply = jax.jit(lambda params, *arrays: module.apply({'params': params}, *arrays, train=False))
    return params, arrays, apply


def test_unit_is_its_equation(unit_case):
    params, arrays, apply = unit_case
    np.testing.assert_allclose(apply(params, *arrays)[0], unit(params, *arrays), atol=1e-5)


@pytest.mark.parametrize('gate', [0, 1])
def test_gate_at_its_extremes_is_one_attention_alone(unit_case, gate):
    params, (source, *others), apply = unit_case
    bias = np.full(WIDTH, 1e4 if gate else -1e4)
    params = {**params, 'gate_cross': {**params['gate_cross'], 'bias': bias}}
    result = np.asarray(apply(params, source, *others)[0])
    np.testing.assert_allclose(result, unit(params, source, *others, gate=gate), atol=1e-5)
    changed = np.abs(np.asarray(apply(params, 2 - source, *others)[0]) - result).max()
    assert changed == 0 if gate == 0 else changed > 1e-3  # shut, nothing of the source comes through


# MessageHub


@pytest.mark.parametrize(('modalities', 'message'), [(ALL, 'pooled'), (ALL[:2], 'sum')])
def test_hub_is_its_equations(modalities, message):
    pairs = {m: sequence(n, LENGTHS[m], max(LENGTHS[m])) for n, m in enumerate(modalities)}
    z, masks = {m: pair[0] for m, pair in pairs.items()}, {m: pair[1] for m, pair in pairs.items()}
    common, common_mask = np.concatenate(list(z.values()), 1), np.concatenate(list(masks.values()), 1)
    module = MessageHub(HEADS, feed_forward=12, message=message)
    arrays = (z, common, masks, common_mask)
    params = parameters(module, *arrays)
    assert ('weighted_attention' in params) == (message == 'pooled')
    states, combined, _ = jax.jit(lambda p, *a: module.apply({'params': p}, *a, train=False))(params, *arrays)
    expected_states, expected = hub(params, *arrays, message)
    np.testing.assert_allclose(combined, expected, atol=2e-5)
    for m in modalities:
        np.testing.assert_allclose(states[m], expected_states[m], atol=2e-5)


def test_unknown_message_is_refused():
    with pytest.raises(ValueError, match="message 'mean': expected one of 'pooled', 'sum'"):
        parameters(Pmr(ALL, message='mean', **TINY), make_batch(ALL))


# The model


def convolved(kernel, x, mask):
    """Three taps around each step, padding 0, and positions: sines, then cosines."""
    x = np.pad(np.where(mask[..., None], x, 0).astype(np.float64), ((0, 0), (1, 1), (0, 0)))
    taps = np.asarray(kernel, np.float64)
    steps = mask.shape[1]
    return sum(x[:, tap : tap + steps] @ taps[tap] for tap in range(3)) + sinusoidal_positions(steps, WIDTH)


def predicted(p, batch):
    """Features and prediction row by row; the paper's final sequence is message, language, vision, audio."""
    masks = {m: batch[f'{m}_mask'] for m in ALL}
    z = {m: convolved(p[f'{m}_conv']['Conv_0']['kernel'], batch[m], masks[m]) for m in ALL}
    common, common_mask = np.concatenate(list(z.values()), 1), np.concatenate(list(masks.values()), 1)
    z, common = hub(p['hub_0'], z, common, masks, common_mask, 'pooled')
    order = ('text', 'vision', 'audio')
    x = np.concatenate([common, *(z[m] for m in order)], 1)
    mask = np.concatenate([common_mask, *(masks[m] for m in order)], 1)
    layer = p['final_0']
    inner = norm(layer['attention_norm'], x)
    x = x + attention(layer['attention'], inner, inner, mask)
    x = x + feed_forward(layer['feed_forward'], norm(layer['feed_forward_norm'], x))
    last = np.stack([row[valid][-1] for row, valid in zip(x, mask, strict=True)])
    features = norm(p['final_norm'], last)
    return features, dense(p['prediction'], features + feed_forward(p['head'], features))


@pytest.mark.parametrize(('modalities', 'silent'), [(ALL, False), (('vision', 'audio', 'text'), True)])
def test_model_is_its_equations_and_its_summary_is_of_audio(modalities, silent):
    """Whatever the order of the field; a row without audio is summed up by the last step of its vision."""
    batch = make_batch(ALL)
    if silent:
        batch['audio_mask'][1] = False
        batch['audio'][1] = 0
    model = Pmr(modalities, **TINY)
    params = parameters(model, batch)
    outputs = jax.jit(lambda p, b: model.apply({'params': p}, b, train=False))(params, batch)
    features, prediction = predicted(params, batch)
    np.testing.assert_allclose(outputs['features'], features, atol=2e-4)
    np.testing.assert_allclose(outputs['prediction'], prediction, atol=2e-4)


def test_last_step_finds_the_last_true_wherever_padding_is():
    mask = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    x = np.arange(1, 17, dtype=np.float32).reshape(4, 4, 1)
    np.testing.assert_array_equal(last_step(x, mask), [[3], [6], [12], [0]])


@pytest.mark.parametrize('garbage', [1e3, np.nan])
def test_padding_inside_the_common_message_changes_nothing(captured, garbage):
    """Every modality but the last is padded in the middle of the concatenated sequences."""
    expected = captured(make_batch(ALL))
    more = {'text': 2, 'audio': 1, 'vision': 3}
    result = captured(make_batch(ALL, more, garbage))
    np.testing.assert_allclose(result['features'], expected['features'], atol=1e-5)
    np.testing.assert_allclose(result['prediction'], expected['prediction'], atol=1e-5)


def test_permuting_the_batch_permutes_the_output(captured):
    batch, order = make_batch(ALL), np.array([2, 0, 1])
    permuted = captured({key: value[order] for key, value in batch.items()})
    np.testing.assert_allclose(permuted['features'], np.asarray(captured(batch)['features'])[order], atol=1e-5)


def test_attention_maps_are_distributions_over_valid_sources(captured):
    batch = make_batch(ALL)
    maps = captured(batch)['attention']
    masks = {m: batch[f'{m}_mask'] for m in ALL}
    masks['common'] = np.concatenate([masks[m] for m in ALL], 1)
    pairs = [(m, 'common') for m in ALL] + [('common', m) for m in ALL]
    assert set(maps) == {f'0/{target}_from_{source}' for target, source in pairs}
    for name, map_BKTS in maps.items():
        target, source = name.split('/')[1].split('_from_')
        assert map_BKTS.shape == (ROWS, HEADS, masks[target].shape[1], masks[source].shape[1])
        np.testing.assert_allclose(map_BKTS.sum(-1), 1, rtol=1e-5)
        unseen = np.broadcast_to(~masks[source][:, None, None], map_BKTS.shape)
        assert (np.asarray(map_BKTS)[unseen] == 0).all()
        assert (np.asarray(map_BKTS)[~unseen] > 0).all()


def gradients(model, params, batch):
    """Of the inputs, and the prediction."""
    x = {m: jnp.asarray(batch[m]) for m in model.modalities}

    def loss(x):
        prediction = model.apply({'params': params}, {**batch, **x}, train=False)['prediction']
        return jnp.sum(prediction**2), prediction

    return jax.jit(jax.grad(loss, has_aux=True))(x)


def assert_reaches_exactly_the_valid_steps(gradient, batch):
    for m, values in gradient.items():
        np.testing.assert_array_equal(np.abs(np.asarray(values)).max(-1) > 0, batch[f'{m}_mask'])


def test_one_modality_exchanges_with_its_own_message():
    model, batch = Pmr(('audio',), **TINY), make_batch(('audio',))
    params = parameters(model, batch)
    assert 'weighted_attention' not in params['hub_0']
    gradient, _ = gradients(model, params, batch)
    assert_reaches_exactly_the_valid_steps(gradient, batch)


def test_two_modalities_and_remat():
    """In an order that is not that of the alphabet, by which remat hands dictionaries on."""
    modalities = ('vision', 'text')
    batch = make_batch(modalities)
    plain, remat = Pmr(modalities, **TINY), Pmr(modalities, remat=True, **TINY)
    params = parameters(plain, batch)
    (one, expected), (two, prediction) = (gradients(model, params, batch) for model in (plain, remat))
    assert_reaches_exactly_the_valid_steps(one, batch)
    np.testing.assert_allclose(prediction, expected, rtol=1e-5)
    for m in modalities:
        np.testing.assert_allclose(one[m], two[m], rtol=1e-4, atol=1e-5 * np.abs(np.asarray(one[m])).max())


def test_number_of_parameters_at_the_sizes_of_mosi():
    """By hand: a unit is two attentions of 4 x 40 x 40, a gate, two LayerNorms and the position-wise network."""
    forward = 40 * 160 + 160 + 160 * 40 + 40
    one_unit = 2 * 4 * 40 * 40 + (2 * 40 * 40 + 40) + 2 * 80 + forward
    one_hub = 6 * one_unit + 3 * (40 * 40 + 40 + 40) + 80 + forward
    final = 4 * 40 * 40 + 2 * 80 + forward
    convolutions = 3 * 40 * (300 + 5 + 20)
    expected = convolutions + 4 * one_hub + 3 * final + 80 + 2 * (40 * 40 + 40) + (40 + 1)
    batch = {m: jnp.zeros((1, 2, size)) for m, size in (('text', 300), ('audio', 5), ('vision', 20))}
    batch |= {f'{m}_mask': jnp.ones((1, 2), bool) for m in ALL}
    params = jax.eval_shape(lambda: Pmr(ALL, 1).init(jax.random.key(0), batch, train=False))['params']
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected == 874_361


def test_a_final_transformer_is_required():
    with pytest.raises(ValueError, match='final_layers is 0; it must be 1 or more'):
        parameters(Pmr(ALL, **{**TINY, 'final_layers': 0}), make_batch(ALL))
