"""MFSA's equations recomputed in plain numpy, one unpadded example at a time; its gradients; its ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.separation import gradient_norms, make_batch
from configs import mfsa_mosi
from mmer_jax.fusion.double_discriminator import DoubleDiscriminator
from mmer_jax.fusion.gradient_reversal import reverse_gradient
from mmer_jax.fusion.hierarchical_cross_modal import HierarchicalCrossModalAttention, ModalityReinforcementUnit
from mmer_jax.fusion.predictive_self_attention import PredictiveSelfAttention
from mmer_jax.fusion.weighted_attention import WeightedAttention
from mmer_jax.losses import LOSSES, make_loss
from mmer_jax.models.mfsa import Mfsa
from mmer_jax.run.optimizer import make_optimizer
from tests.numpy_blocks import (
    conv3x3,
    dense,
    gelu,
    heads,
    layer_norm,
    log_softmax,
    merge,
    mlp,
    softmax,
    tree64,
)

HEADS, WIDTH, LENGTHS, STEPS = 2, 4, (5, 3), 6
MASK = np.arange(STEPS) < np.array(LENGTHS)[:, None]


def sequences(seed, steps=STEPS, width=WIDTH, mask=MASK):
    values = np.random.default_rng(seed).standard_normal((len(mask), steps, width)).astype(np.float32)
    return np.where(mask[..., None], values, 0)


def random_params(module, *arguments, **keywords):
    """Parameters of `module`, all random: initial zeros and ones would hide a bias or a scale left out."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, **keywords))['params']
    generator = np.random.default_rng(7)
    return jax.tree.map(lambda x: (generator.standard_normal(x.shape) * 0.5).astype(np.float32), shapes)


def psa_by_hand(p, z, previous, mu, mix, scale):
    """Equations 2 to 4 for one example (T, D); previous (K, T, T) or None."""
    norm = layer_norm(z, p['norm'])
    q, k, v = (heads(dense(norm, p[name]), HEADS) for name in ('query', 'key', 'value'))
    current = q @ k.transpose(0, 2, 1) / scale
    maps = current
    if previous is not None:
        kept = softmax(current) if mix == 'literal' else current
        maps = mu * gelu(conv3x3(previous, p['prediction'])) + (1 - mu) * kept
    z = norm + merge(softmax(maps) @ v)
    return mlp(layer_norm(z, p['feed_forward_norm']), p['feed_forward']) + z, maps


@pytest.mark.parametrize(('mix', 'scale'), [('literal', 'head'), ('logits', 'model')])
def test_predictive_self_attention_is_its_equations(mix, scale):
    psa, z = PredictiveSelfAttention(HEADS, mu=0.3, mix=mix, scale=scale), sequences(0)
    previous = np.random.default_rng(1).standard_normal((2, HEADS, STEPS, STEPS)).astype(np.float32)
    divisor = np.sqrt(WIDTH // HEADS if scale == 'head' else WIDTH)
    for before in (None, previous):
        params = random_params(psa, z, MASK, before, train=False)
        out, maps, attention = psa.apply({'params': params}, z, MASK, before, train=False)
        for row, steps in enumerate(LENGTHS):
            hand = None if before is None else before[row, :, :steps, :steps].astype(np.float64)
            expected, expected_maps = psa_by_hand(tree64(params), z[row, :steps], hand, 0.3, mix, divisor)
            np.testing.assert_allclose(out[row, :steps], expected, atol=2e-5)
            np.testing.assert_allclose(maps[row, :, :steps, :steps], expected_maps, atol=2e-5)
            np.testing.assert_allclose(attention[row, :, :steps].sum(-1), 1, atol=1e-6)
            assert not np.any(attention[row, :, :, steps:])
            assert not np.any(out[row, steps:])


def test_the_literal_mix_cannot_single_out_a_pair():
    """What the docstring says of equation 2: without a prediction, no attention is e^(1 - mu) times another's."""
    psa, z = PredictiveSelfAttention(HEADS, mu=0.25), 30 * sequences(0)
    silent = np.zeros((2, HEADS, STEPS, STEPS), np.float32)
    params = random_params(psa, z, MASK, silent, train=False)
    params['prediction'] = jax.tree.map(np.zeros_like, params['prediction'])
    for mix, even in (('literal', True), ('logits', False)):
        attention = psa.clone(mix=mix).apply({'params': params}, z, MASK, silent, train=False)[2][0, :, :5, :5]
        assert (attention.max() / attention.min() <= np.exp(0.75) + 1e-5) == even


def test_modality_reinforcement_unit_is_its_equations():
    source_mask = np.arange(4) < np.array([2, 4])[:, None]
    unit, target, source = ModalityReinforcementUnit(HEADS), sequences(2), sequences(3, 4, mask=source_mask)
    params = random_params(unit, source, target, source_mask, MASK, train=False)
    out, attention = unit.apply({'params': params}, source, target, source_mask, MASK, train=False)
    p = tree64(params)
    for row, (steps, sources) in enumerate(zip(LENGTHS, (2, 4), strict=True)):
        t, s = layer_norm(target[row, :steps], p['target_norm']), layer_norm(source[row, :sources], p['source_norm'])
        q, k, v = (
            heads(dense(t, p['query']), HEADS),
            heads(dense(s, p['key']), HEADS),
            heads(dense(s, p['value']), HEADS),
        )
        expected_map = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS))
        z = t + merge(expected_map @ v)
        np.testing.assert_allclose(attention[row, :, :steps, :sources], expected_map, atol=1e-5)
        expected = mlp(layer_norm(z, p['feed_forward_norm']), p['feed_forward']) + z
        np.testing.assert_allclose(out[row, :steps], expected, atol=2e-5)
        assert not np.any(out[row, steps:])


def test_hierarchy_chains_its_units_as_equation_10_says():
    z = {'text': sequences(0), 'vision': sequences(1), 'audio': sequences(2)}
    masks = dict.fromkeys(z, MASK)
    hca = HierarchicalCrossModalAttention(HEADS)
    params = random_params(hca, z, masks, train=False)
    out, attention = hca.apply({'params': params}, z, masks, train=False)
    units = ('mixed', 'coarse', 'fine_vision', 'fine_audio')
    assert {f'hca/0/text/{name}' for name in units} == {name for name in attention if name.startswith('hca/0/text/')}

    def unit(name, sources, x):
        joined, joined_mask = np.concatenate([z[m] for m in sources], 1), np.concatenate([MASK] * len(sources), 1)
        one = ModalityReinforcementUnit(HEADS)
        return one.apply({'params': params[f'text_{name}']}, joined, x, joined_mask, MASK, train=False)[0]

    x = unit('coarse', ('vision', 'audio'), unit('mixed', tuple(z), z['text']))
    expected = unit('fine_vision', ('vision',), x) + unit('fine_audio', ('audio',), x)
    np.testing.assert_allclose(out['text'], expected, atol=1e-5)
    two = {m: z[m] for m in ('text', 'audio')}
    few = hca.clone(grains=('coarse',))
    _, maps = few.apply({'params': random_params(few, two, masks, train=False)}, two, masks, train=False)
    assert set(maps) == {'hca/0/text/coarse', 'hca/0/audio/coarse'}


@pytest.mark.parametrize('kind', ['pooled', 'literal'])
def test_weighted_attention_is_its_equations(kind):
    z = {'text': sequences(0), 'audio': sequences(1)}
    masks = dict.fromkeys(z, MASK)
    wal = WeightedAttention(kind, steps=(STEPS, 4))
    params = random_params(wal, z, masks)
    weighted, psi = wal.apply({'params': params}, z, masks)
    p, gamma = tree64(params), np.zeros((2, 2))
    for number, (m, steps) in enumerate((('text', STEPS), ('audio', 4))):
        for row, length in enumerate(LENGTHS):
            flat = z[m][row, :length].mean(0) if kind == 'pooled' else z[m][row, :steps].reshape(-1)
            gamma[row, number] = (np.tanh(dense(flat, p[f'{m}_hidden'])) @ p[f'{m}_weight']['kernel'])[0]
    np.testing.assert_allclose(psi, softmax(gamma), atol=1e-5)
    np.testing.assert_allclose(weighted['audio'], softmax(gamma)[:, 1, None, None] * z['audio'], atol=1e-5)


def test_the_literal_weighted_attention_says_when_it_is_too_large():
    z, masks = {'text': np.zeros((1, 50, 41), np.float32)}, {'text': np.ones((1, 50), bool)}
    with pytest.raises(ValueError, match=r"text: 50 steps x 41 features = 2050 > 2048 .*use kind='pooled'"):
        WeightedAttention('literal', steps=(50,)).init(jax.random.key(0), z, masks)
    with pytest.raises(ValueError, match='needs steps, one number a modality'):
        WeightedAttention('literal').init(jax.random.key(0), z, masks)
    with pytest.raises(ValueError, match="'pooled' or 'literal'"):
        WeightedAttention('mean').init(jax.random.key(0), z, masks)


def representations(rows=4, modalities=3, width=5):
    generator = np.random.default_rng(5)
    shape = (rows, modalities, width)
    return generator.standard_normal(shape).astype(np.float32), generator.standard_normal(shape).astype(np.float32)


def test_adversarial_losses_are_their_equations():
    specific, agnostic = representations()
    module = DoubleDiscriminator(hidden_size=6)
    params = random_params(module, specific, agnostic, train=False)
    outputs = module.apply({'params': params}, specific, agnostic, train=False)
    p, batch = tree64(params), {'weight': np.ones(4, np.float32)}
    importance = log_softmax(dense(agnostic, p['importance']))
    of_agnostic, of_specific = (log_softmax(mlp(x.astype(np.float64), p['modality'])) for x in (agnostic, specific))
    m = np.arange(3)
    omega = 1 - np.exp(importance[:, m, m])
    np.testing.assert_allclose(outputs['importance'], omega, atol=1e-5)
    expected = {
        'agnostic_adversarial': -(omega * of_agnostic[:, m, m]).sum(1),
        'specific_adversarial': -of_specific[:, m, m].sum(1),
        'importance': -importance[:, m, m].sum(1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(make_loss({name: 1.0})(outputs, batch), value, rtol=1e-4)


def test_separation_loss_over_the_rows_that_count():
    specific, agnostic = representations()
    outputs = {'specific': specific, 'agnostic': agnostic}
    batch = {'weight': np.array([1, 1, 1, 0], np.float32)}
    entries = 0.0
    for m in range(3):
        pair = []
        for x in (specific[:3, m], agnostic[:3, m]):
            x = x.astype(np.float64) - x.mean(0)
            pair.append(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6))
        entries += ((pair[0].T @ pair[1]) ** 2).sum()
    size = specific.shape[-1] ** 2
    for name, expected in (('separation', entries / 3), ('separation_misa', entries / size)):
        np.testing.assert_allclose(make_loss({name: 1.0})(outputs, batch), np.full(4, expected), rtol=1e-5)
    literal = ((specific * agnostic).sum(-1) ** 2).sum(-1)
    np.testing.assert_allclose(make_loss({'separation_literal': 1.0})(outputs, batch), literal, rtol=1e-4)


def test_separation_turns_vectors_and_does_not_shrink_them():
    """Unlike MISA's form, whose lengths are constants: a vector pays by its direction alone, so it cannot pay less by
    becoming shorter. Rows that are all equal are 0 once centred, and have no gradient that is not a number.
    """
    specific, agnostic = representations()
    centred = specific - specific.mean(0)
    batch = {'weight': np.ones(4, np.float32)}

    def radial(name):
        def loss(specific):
            return LOSSES[name]({'specific': specific, 'agnostic': agnostic}, batch)[0]

        return float((jax.grad(loss)(centred) * centred).sum())

    assert abs(radial('separation')) < 1e-4
    assert abs(radial('separation_misa')) > 1e-2
    for name, factor in (('separation', 1), ('separation_literal', 3**4)):
        small, large = ({'specific': k * specific, 'agnostic': k * agnostic} for k in (1, 3))
        np.testing.assert_allclose(LOSSES[name](large, batch), factor * LOSSES[name](small, batch), rtol=1e-4)
    same = {'specific': np.ones_like(specific), 'agnostic': agnostic}
    gradient = jax.grad(lambda x: LOSSES['separation']({**same, 'specific': x}, batch)[0])(same['specific'])
    assert np.isfinite(gradient).all()


def test_separation_lies_between_0_and_the_number_of_rows():
    """Of one modality: rows on one axis, in step on both sides, give B; in steps that do not correlate, 0."""
    batch, axis = {'weight': np.ones(4, np.float32)}, np.eye(5, dtype=np.float32)[:1]

    def value(specific, agnostic):
        return LOSSES['separation']({'specific': specific[:, None], 'agnostic': agnostic[:, None]}, batch)[0]

    line, other = (np.array(signs, np.float32)[:, None] * axis for signs in ([1, -1, 1, -1], [1, 1, -1, -1]))
    assert value(line, 3 * line) == pytest.approx(4, rel=1e-4)
    assert value(line, other) == pytest.approx(0, abs=1e-5)
    # A regular simplex, whose centred rows have the inner products -1 / (B - 1).
    simplex = np.eye(4, 5, dtype=np.float32)
    assert value(simplex, simplex) == pytest.approx(1 + 1 / 3, rel=1e-4)


def test_separation_acts_and_does_not_rule():
    """Its share of the task's gradient with the paper's weight, at fresh weights, is between a hundredth and a half;
    that of MISA's form is not. benchmarks/separation.py has the paper's sizes.
    """
    fields = {**SMALL, 'width': 16, 'output_width': 64, 'num_heads': 2, 'psa_layers': 0, 'hca_layers': 0}
    model = Mfsa(('text', 'audio', 'vision'), 1, **fields)
    batch = make_batch((6, 7, 8), 64, 0)
    norms = gradient_norms(model, batch, {'l1': 1.0, 'separation': 0.01, 'separation_misa': 0.01})
    share = {name: norm / norms['l1'] for name, norm in norms.items()}
    assert 0.01 < share['separation'] < 0.5
    assert share['separation_misa'] < 0.01


def test_weights_of_all_layers_act_where_the_residual_is_the_input():
    """As printed, equation 3 takes the norm of what equation 6 has weighed, which takes the weight off again."""
    batch, fields, two = make_batch((5, 6, 7), 8, 1), {**SMALL, 'hca_layers': 0}, ('text', 'audio')
    params = Mfsa(two, 1, **fields).init(jax.random.key(0), batch, train=False)['params']

    def gradients(residual):
        model = Mfsa(two, 1, **fields, psa_residual=residual)
        grad = jax.jit(jax.grad(lambda p: model.apply({'params': p}, batch, train=False)['prediction'].sum()))(params)
        return [float(np.linalg.norm(grad[f'wal{layer}']['text_hidden']['kernel'])) for layer in (0, 1)]

    printed, other = gradients('norm'), gradients('input')
    assert printed[0] < 1e-3 * printed[1]
    assert other[0] > 1e-2 * other[1] > 0
    with pytest.raises(ValueError, match=r"residual 'none': expected one of \('norm', 'input'\)"):
        gradients('none')


def test_reverse_gradient():
    x = jnp.array([1.0, -2.0])
    np.testing.assert_array_equal(reverse_gradient(x, 3.0), x)
    np.testing.assert_allclose(jax.grad(lambda x: (reverse_gradient(x, 3.0) ** 2).sum())(x), -3 * 2 * x)


def test_the_agnostic_encoder_gets_the_reversed_gradient_and_none_through_the_importance():
    specific, agnostic = map(jnp.asarray, representations())
    batch, module = {'weight': np.ones(4, np.float32)}, DoubleDiscriminator(hidden_size=6)
    params = random_params(module, specific, agnostic, train=False)

    def gradient(module, weights):
        def loss(agnostic):
            outputs = module.apply({'params': params}, specific, agnostic, train=False)
            return make_loss(weights)(outputs, batch).sum()

        return jax.grad(loss)(agnostic)

    adversarial = {'agnostic_adversarial': 1.0}
    straight, reversed_ = gradient(module.clone(reversal=-1.0), adversarial), gradient(module, adversarial)
    assert jnp.abs(straight).max() > 1e-3
    np.testing.assert_allclose(reversed_, -straight, rtol=1e-6)
    # By hand, the importance held constant: its gradient is not part of what arrives.
    omega = module.apply({'params': params}, specific, agnostic, train=False)['importance']

    def constant_importance(agnostic):
        outputs = module.apply({'params': params}, specific, agnostic, train=False)
        return make_loss(adversarial)({**outputs, 'importance': omega}, batch).sum()

    np.testing.assert_allclose(jax.grad(constant_importance)(agnostic), reversed_, rtol=1e-6)
    assert not np.any(gradient(module, {'importance': 1.0}))


SMALL = {
    'width': 4, 'output_width': 4, 'num_heads': 2, 'psa_layers': 2, 'hca_layers': 1, 'fusion_feed_forward': 4,
    'discriminator_size': 4, 'embedding_dropout': 0.0, 'dropout': 0.0,
}  # fmt: skip


def shapes_of(**fields):
    """Parameter names of a small model, without compiling anything."""
    modalities = ('text', 'audio')
    batch = {m: jnp.zeros((2, STEPS, 3)) for m in modalities} | {f'{m}_mask': jnp.asarray(MASK) for m in modalities}
    model = Mfsa(modalities, 1, **{**SMALL, **fields})
    return set(jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))['params'])


FULL = shapes_of()


@pytest.mark.parametrize(
    ('fields', 'gone'),
    [
        ({'psa_layers': 0}, ('psa0_text', 'psa1_audio', 'wal0')),
        ({'weighted_attention': 'none'}, ('wal0', 'wal1')),
        ({'hca_layers': 0}, ('hca0',)),
    ],
)
def test_ablations_take_out_their_part_and_nothing_else(fields, gone):
    left = shapes_of(**fields)
    assert set(gone) <= FULL - left
    assert left < FULL
    assert all(name.startswith(('psa', 'wal', 'hca')) for name in FULL - left)


def test_a_fused_representation_is_the_only_one_that_predictions_see():
    modalities = ('text', 'audio')
    model = Mfsa(modalities, 1, **SMALL, fused=('agnostic',))
    batch = {m: sequences(n) for n, m in enumerate(modalities)} | {f'{m}_mask': MASK for m in modalities}
    params = random_params(model, batch, train=False)

    def prediction(params):
        return model.apply({'params': params}, batch, train=False)['prediction'].sum()

    gradient = jax.jit(jax.grad(prediction))(params)
    silent = {name for name in gradient if not any(np.any(leaf) for leaf in jax.tree.leaves(gradient[name]))}
    branch = {name for name in gradient if name.startswith(('psa', 'wal', 'specific'))}
    assert silent == branch | {'double_discriminator'}


def test_mistaken_fields_are_named():
    for fields, message in (
        ({'fused': ('both',)}, 'fused'), ({'pooling': 'max'}, 'pooling'), ({'kernel_sizes': (1, 3, 5)}, 'kernel_sizes'),
        ({'grains': ('small',)}, 'grains'), ({'psa_mix': 'sum'}, 'mix'), ({'weighted_attention': 'x'}, 'weighted'),
        ({'num_heads': 3}, '4 features do not divide by 3 attention heads'),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            shapes_of(**fields)


def test_the_importance_discriminator_does_not_shrink_the_steps_of_the_others():
    """Its loss a hundred times as large changes its own clipped gradient and no other update."""
    optimizer = mfsa_mosi.get_config().optimizer.to_dict() | {'name': 'sgd', 'clip_norm': 0.01}
    model = Mfsa(('text', 'audio'), 1, **{**SMALL, 'psa_layers': 0, 'hca_layers': 0})
    batch = {key: x for key, x in make_batch((5, 6, 7), 4, 2).items() if 'vision' not in key}
    params = random_params(model, batch, train=False)

    def loss(params, weight):
        outputs = model.apply({'params': params}, batch, train=False)
        return (LOSSES['l1'](outputs, batch) + weight * LOSSES['importance'](outputs, batch)).mean()

    gradient = jax.jit(jax.grad(loss))
    gradients = [gradient(params, weight) for weight in (1.0, 100.0)]

    def share_kept(alone):
        """Of each update with the small loss, how much is left with the large one; least and most."""
        transform, _ = make_optimizer({**optimizer, 'clip_alone': alone}, 10)
        update = jax.jit(lambda gradient: transform.update(gradient, transform.init(params), params)[0])
        small, large = map(update, gradients)
        ratio = [
            np.linalg.norm(b) / np.linalg.norm(a)
            for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(small), jax.tree.leaves(large), strict=True)
            if 'importance' not in jax.tree_util.keystr(path) and np.any(a)
        ]
        return min(ratio), max(ratio)

    assert share_kept(optimizer['clip_alone']) == pytest.approx((1, 1), rel=1e-5)
    assert share_kept(())[1] < 0.5


def test_a_loss_without_its_extras_says_so():
    with pytest.raises(ValueError, match="loss 'separation' reads specific, agnostic, which this model does not give"):
        make_loss({'separation': 1.0})({'prediction': np.zeros((2, 1))}, {'weight': np.ones(2)})
