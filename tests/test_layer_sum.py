"""The learnt sum over an encoder's states: its value, its gradient, and what else reads its parameter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.bert import DistilBert
from mmer_jax.encoders.conv_videomae import ConvVideoMae
from mmer_jax.encoders.wav2vec2 import Hubert
from mmer_jax.pretrained import graft
from mmer_jax.run.optimizer import layer_scale, make_optimizer, name_of
from tests.test_optimizer import fields as optimizer_fields
from tests.test_transformers_counts import CASES, LARGE, SMALL, TEXT, WAVE, batch_of, build

MORE = {'distilbert': ('bert', DistilBert, {**TEXT}), 'hubert': ('wav2vec2', Hubert, {**WAVE, **LARGE})}
NAMES = [*CASES, *MORE]


def encoder_of(name, **changes):
    """The encoder, and a case whose input it takes."""
    if name in MORE:
        case, encoder, fields = MORE[name]
        return encoder(**{**SMALL, **fields, **changes}), case
    return build(name, projector=0, **changes).encoder, name


def variables_of(encoder, x, mask):
    """Of encoder and `states`: the final norm too, where the sum does without it."""
    generator = np.random.default_rng(1)

    def whole(module):
        return module.states(x, mask, train=False), module(x, mask, train=False)

    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), method=whole))
    return jax.tree_util.tree_map_with_path(
        lambda path, p: (0.3 * generator.standard_normal(p.shape) + (path[-1].key == 'scale')).astype(p.dtype), shapes
    )


@pytest.mark.parametrize('name', NAMES)
def test_the_sum_and_its_gradient(name):
    """sum_l softmax(w)_l h_l over the states before any final norm; every parameter that it sees gets a gradient."""
    encoder, case = encoder_of(name, layer_sum=True)
    x, mask = batch_of(case)
    variables = variables_of(encoder, x, mask)

    @jax.jit
    def run(variables):
        features, mask_BT = encoder.apply(variables, x, mask, train=False)
        cotangent = jnp.sin(jnp.arange(features.size, dtype=jnp.float32)).reshape(features.shape)

        def loss(variables):
            return (encoder.apply(variables, x, mask, train=False)[0] * cotangent).sum()

        states, _ = encoder.apply(variables, x, mask, train=False, method='_run_layers')
        return features, mask_BT, jnp.stack(states), cotangent, jax.grad(loss)(variables)['params']

    features, valid, states, cotangent, gradient = jax.tree.map(np.asarray, run(variables))
    weights = variables['params']['layer_weights']
    assert weights.shape == (SMALL['num_layers'] + 1,)
    share = np.exp(weights) / np.exp(weights).sum()
    states = np.where(valid[None, ..., None], states, 0)
    np.testing.assert_allclose(features, np.einsum('l,lbtd->btd', share, states), atol=1e-5)
    seen = (states * cotangent).sum((1, 2, 3))
    np.testing.assert_allclose(gradient['layer_weights'], share * (seen - share @ seen), rtol=1e-3, atol=1e-4)
    still = {name_of(path) for path, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.abs(g).max() > 1e-6}
    assert {name for name in still if 'key' not in name} <= {'norm/scale', 'norm/bias', 'embeddings/hidden'}


@pytest.mark.parametrize('name', ['vit', 'hubert'])
def test_the_last_state_behind_its_norm(name):
    encoder, case = encoder_of(name, layer_sum=True, layer_sum_norm=True)
    x, mask = batch_of(case)
    variables = variables_of(encoder, x, mask)
    features, valid = jax.jit(partial(encoder.apply, train=False))(variables, x, mask)
    states, _ = jax.jit(partial(encoder.apply, train=False, method='states'))(variables, x, mask)
    weights = np.exp(variables['params']['layer_weights'])
    wanted = np.einsum('l,lbtd->btd', weights / weights.sum(), np.stack(states))
    np.testing.assert_allclose(features, np.where(valid[..., None], wanted, 0), atol=1e-5)


def test_behind_a_convolution_and_with_remat_and_bfloat16():
    """The sum is the network's, whatever calls it; recomputed layers and half precision keep it."""
    network, case = encoder_of('videomae', layer_sum=True, num_layers=1)
    x, mask = batch_of(case)
    x, mask = x[:, :4], np.ones((len(x), 4), bool)
    encoder = ConvVideoMae(network, frames=4, features=2)
    variables = encoder.init(jax.random.key(0), x, mask, train=False)
    assert variables['params']['network']['layer_weights'].tolist() == [0.5, 0.5]
    rng = {'dropout': jax.random.key(1)}

    def run(**changes):
        other = ConvVideoMae(network.clone(**changes), frames=4, features=2, dtype=changes.get('dtype', jnp.float32))

        def loss(v):
            features, _ = other.apply(v, x, mask, train=True, rngs=rng)
            return jnp.square(features.astype(jnp.float32)).sum(), features

        gradient, features = jax.jit(jax.grad(loss, has_aux=True))(variables)
        return features, gradient['params']

    (features, plain), (_, recomputed), (half, _) = run(), run(remat=True), run(dtype=jnp.bfloat16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain, recomputed)
    assert np.abs(plain['network']['layer_weights']).max() > 0.01
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), features, atol=0.05 * np.abs(features).max())


def test_its_weights_learn_at_the_whole_rate_and_are_not_a_layer():
    names = ['encoder/embeddings/tokens', 'encoder/layer_0/x', 'encoder/layer_1/x', 'encoder/layer_weights']
    assert layer_scale(names, 0.5)['encoder/layer_weights'] == 1
    params = {name: jnp.ones(2) for name in names}
    optimizer, _ = make_optimizer({**optimizer_fields(name='sgd'), 'freeze': (r'encoder/layer_\d',)}, 10)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert [bool(np.any(updates[name])) for name in names] == [True, False, False, True]


def test_one_state_and_all_of_them_contradict_each_other():
    encoder, case = encoder_of('bert', layer_sum=True, return_layer=1)
    with pytest.raises(ValueError, match='return_layer = 1 is one state, layer_sum adds all'):
        encoder.init(jax.random.key(0), *batch_of(case), train=False)


def test_weights_with_and_without_a_sum_meet_a_model_with_and_without_it():
    """A sum before the final norm needs no norm; a model with the sum or without it, unlike its weights, is told so."""
    plain, summed = (encoder_of('vit', layer_sum=flag)[0] for flag in (False, True))
    x, mask = batch_of('vit')
    own = jax.eval_shape(lambda: summed.init(jax.random.key(0), x, mask, train=False))['params']
    own = {'params': {'encoder': jax.tree.map(lambda p: np.zeros(p.shape, p.dtype), own)}}
    loaded = variables_of(summed, x, mask)
    assert 'norm' in loaded['params']
    assert 'norm' not in own['params']['encoder']
    grafted = graft(own, loaded, path='encoder')['params']['encoder']
    np.testing.assert_array_equal(grafted['layer_weights'], loaded['params']['layer_weights'])
    without = variables_of(plain, x, mask)
    with pytest.raises(
        ValueError, match=r"no layer_weights: set layer_sum=False .*config.fresh=\('\^layer_weights',\)"
    ):
        graft(own, without, path='encoder')
    graft(own, without, path='encoder', fresh=('^layer_weights',))
    model = {'params': {'encoder': without['params']}}
    with pytest.raises(ValueError, match=r'learnt sum of all layers: set layer_sum=True'):
        graft(model, loaded, path='encoder')
    with pytest.raises(ValueError, match=r'norm/scale is loaded, but not in the model'):
        lacking = {k: v for k, v in without['params'].items() if k != 'norm'}
        graft({'params': {'encoder': lacking}}, without, path='encoder')
