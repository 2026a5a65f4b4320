"""mmer_jax.optimizer: frozen parameters, layer-wise learning rates, parameters without weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.run.optimizer import layer_scale, make_optimizer, matches, without_frozen
from tests.test_optimizer import fields as base_fields

PARAMS = {
    'encoder': {
        'embeddings': {'tokens': np.full((3, 2), 0.5, np.float32)},
        'layer_0': {'output': {'kernel': np.full((2, 2), 0.3, np.float32), 'bias': np.full(2, -0.2, np.float32)}},
        'layer_1': {'output': {'kernel': np.full((2, 2), -0.4, np.float32), 'bias': np.full(2, 0.1, np.float32)}},
        'projector': {'kernel': np.full((2, 2), 0.7, np.float32)},
    },
    'head': {'kernel': np.full((2, 3), 0.2, np.float32)},
}
NAMES = {
    'encoder/embeddings/tokens',
    'encoder/layer_0/output/kernel',
    'encoder/layer_0/output/bias',
    'encoder/layer_1/output/kernel',
    'encoder/layer_1/output/bias',
    'encoder/projector/kernel',
    'head/kernel',
}


def named(tree):
    return {'/'.join(k.key for k in path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def gradient_of(params, number):
    generator = np.random.default_rng(number)
    return jax.tree.map(lambda x: jax.device_put(generator.standard_normal(x.shape, np.float32)), params)


def run(steps=3, params=PARAMS, **changes):
    """Parameters after some steps, and the optimiser's state."""
    extra = {key: changes.pop(key) for key in ('freeze', 'layer_decay', 'no_decay') if key in changes}
    optimizer, _ = make_optimizer({**base_fields(**changes), **extra}, 10)
    params = jax.device_put(params)
    state = jax.jit(optimizer.init)(params)

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for number in range(steps):
        params, state = step(params, state, gradient_of(params, number))
    return named(params), state


@pytest.mark.parametrize('name', ['adam', 'adamw', 'sgd'])
def test_frozen_parameters_keep_their_bits(name):
    params, state = run(name=name, freeze=('embeddings', r'layer_0/'), weight_decay=0.1, clip_norm=1.0)
    before = named(PARAMS)
    assert params.keys() == NAMES
    for key in NAMES:
        same = params[key].tobytes() == before[key].tobytes()
        assert same == ('embeddings' in key or 'layer_0' in key), key
    trained = sum(before[key].size for key in NAMES if not ('embeddings' in key or 'layer_0' in key))
    held = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)  # of the frozen ones nothing is kept
    assert held == trained * {'adam': 2, 'adamw': 2, 'sgd': 1}[name]


def test_the_others_train_as_if_alone():
    """Also under clipping by the global norm, in which frozen gradients have no part."""
    without = {'encoder': {k: v for k, v in PARAMS['encoder'].items() if k != 'embeddings'}, 'head': PARAMS['head']}
    changes = {'clip_norm': 0.5, 'weight_decay': 0.1}
    optimizer, _ = make_optimizer({**base_fields(**changes), 'freeze': ('embeddings',)}, 10)
    alone, _ = make_optimizer(base_fields(**changes), 10)
    gradient = gradient_of(PARAMS, 0)
    part = {'encoder': {k: v for k, v in gradient['encoder'].items() if k != 'embeddings'}, 'head': gradient['head']}
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    wanted, _ = alone.update(part, alone.init(without), without)
    got = named(updates)
    for key, array in named(wanted).items():
        np.testing.assert_allclose(got[key], array, rtol=1e-6)


def test_layer_decay_scales_each_update():
    plain, _ = run(steps=1)
    slowed, _ = run(steps=1, layer_decay=0.5)
    before = named(PARAMS)
    depth = {'embeddings': 3, 'layer_0': 2, 'layer_1': 1, 'projector': 0, 'head': 0}
    for key in NAMES:
        (part,) = [name for name in depth if name in key]
        wanted = (plain[key] - before[key]) * 0.5 ** depth[part]
        np.testing.assert_allclose(slowed[key] - before[key], wanted, rtol=1e-3, atol=1e-7, err_msg=key)


def test_layer_decay_with_frozen_layers_keeps_the_depths():
    plain, _ = run(steps=1, freeze=('layer_1',))
    slowed, _ = run(steps=1, freeze=('layer_1',), layer_decay=0.5)
    before = named(PARAMS)
    key = 'encoder/layer_0/output/kernel'
    np.testing.assert_allclose(slowed[key] - before[key], (plain[key] - before[key]) / 4, rtol=1e-3)
    assert (slowed['encoder/layer_1/output/kernel'] == before['encoder/layer_1/output/kernel']).all()


def test_each_encoder_has_its_own_depth():
    names = [
        'text/embeddings/tokens/embedding',
        *(f'text/layer_{n}/output/kernel' for n in range(12)),
        'audio/layer_0/output/kernel',
        'audio/layer_1/output/kernel',
        'audio/embeddings/conv_0/kernel',
        'embeddings/kernel',
        'my_layer_3/kernel',
        'model/fusion/audio_from_text/layer_0/query/kernel',
        'model/fusion/audio_from_text/layer_1/query/kernel',
        'head/layer_norm/scale',
    ]
    scales = layer_scale(names, 0.9)
    assert scales['text/embeddings/tokens/embedding'] == pytest.approx(0.9**13)
    assert scales['text/layer_0/output/kernel'] == pytest.approx(0.9**12)
    assert scales['text/layer_11/output/kernel'] == pytest.approx(0.9)
    assert scales['audio/embeddings/conv_0/kernel'] == pytest.approx(0.9**3)
    assert scales['audio/layer_0/output/kernel'] == pytest.approx(0.81)
    # Embeddings without layers, layers without embeddings (MulT's), or neither: the top.
    assert {scales[name] for name in names[-5:]} == {1.0}


@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_no_decay(name):
    """Without a gradient only the decay moves a parameter."""
    extra = {'no_decay': ('bias$', 'embeddings')}
    optimizer, _ = make_optimizer({**base_fields(name=name, weight_decay=0.1), **extra}, 10)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zero, optimizer.init(PARAMS), PARAMS)
    for key, update in named(updates).items():
        assert bool(np.abs(update).max() > 0) == (not key.endswith('bias') and 'embeddings' not in key), key


def test_a_pattern_without_match_is_an_error():
    for key in ('freeze', 'no_decay'):
        with pytest.raises(ValueError, match="'layer_7' matches no parameter; they are encoder/embeddings/tokens"):
            run(**{key: ('layer_0', 'layer_7')})


def test_without_frozen_computes_nothing_for_them():
    tree = {'a': jnp.ones(2), 'b': {'c': jnp.ones(3)}}
    assert matches(tree, ('b/',)) == {'a': False, 'b': {'c': True}}
    kept = without_frozen(tree, ('b/',))
    np.testing.assert_array_equal(kept['a'], 1)
    np.testing.assert_array_equal(kept['b']['c'], 0)
    x = jnp.ones((4, 4))

    def products(patterns):
        def norm(params):
            gradient = jax.grad(lambda p: jnp.square(jnp.tanh(x @ p['low']) @ p['high']).sum())(params)
            return optax.tree.norm(without_frozen(gradient, patterns))

        compiled = jax.jit(norm).lower({'low': x, 'high': x}).compile()
        return compiled.as_text().count(' dot(')

    assert products(('low',)) < products(('nothing',))
