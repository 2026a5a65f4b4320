"""Parameters held in vectors: the step of the tree, whatever is frozen, decayed or scaled by layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_base
from mmer_jax.losses import make_loss
from mmer_jax.repeat import repeat_layers
from mmer_jax.run import vectors
from mmer_jax.run.optimizer import make_optimizer
from mmer_jax.run.step import held, init_state, make_train_step, unheld


class Layer(nn.Module):
    """Two parameters of different treatment."""

    @nn.compact
    def __call__(self, x, train):
        del train
        return x + jnp.tanh(nn.Dense(x.shape[-1], name='inner')(x))


class Twin(nn.Module):
    """As large as another module of the model: one function takes both out of their vector."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1])(jnp.tanh(nn.Dense(4)(x)))


class Deep(nn.Module):
    """Layers in a loop; `again` uses one of them outside of it too. The first `apart` layers are not in the loop."""

    again: bool = False
    apart: int = 0
    layers: int = 11  # 'layer_10' lies before 'layer_2' in the tree

    @nn.compact
    def __call__(self, batch, *, train):
        layers = [Layer(name=f'layer_{number}') for number in range(self.layers)]
        x = nn.Dense(3, name='embeddings')(batch['x'])
        x = Twin(name='left')(x) - Twin(name='right')(x)
        for layer in layers[: self.apart]:
            x = layer(x, train)
        repeated = {'layer': layers[self.apart :]}
        x, _ = repeat_layers(self, repeated, lambda call, x, _: (call('layer', x), None), x, train=train)
        x = layers[2](x, train) if self.again else x
        return {'prediction': nn.Dense(2, name='head')(x)}


CASES = {
    'all alike': {},
    'end to end': {},
    'decayed apart': {'weight_decay': 0.1, 'no_decay': ('bias',)},
    'frozen': {'freeze': ('layer_3/', 'head/bias')},
    'by layer': {'layer_decay': 0.9},
    'clipped apart': {'clip_norm': 0.01, 'clip_alone': ('layer_2/',)},
    'used twice': {},
    'the first one apart': {'weight_decay': 0.1, 'no_decay': ('bias',)},
}


@pytest.mark.parametrize('case', CASES)
def test_a_step_is_that_of_the_tree(case, monkeypatch):
    fields = {**get_base('test').optimizer.to_dict(), 'name': 'sgd', 'learning_rate': 0.1, **CASES[case]}
    optimizer, _ = make_optimizer(fields, 10)
    few = case in ('end to end', 'the first one apart')
    model = Deep(again=case == 'used twice', apart=int(case == 'the first one apart'), layers=4 if few else 11)
    generator = np.random.default_rng(0)
    batch = {'x': generator.standard_normal((4, 5), np.float32), 'label': np.arange(4) % 2, 'weight': np.ones(4)}
    state = init_state(model, optimizer, batch, 0, average=True)
    step = make_train_step(model, optimizer, make_loss({'cross_entropy': 1.0}), average=0.5)
    expected, numbers = jax.jit(step)(state, batch)
    asked = []
    ready = vectors.HeldParams.variables
    monkeypatch.setattr(vectors.HeldParams, 'variables', lambda own: asked.append(own) or ready(own))
    found, found_numbers = jax.jit(lambda state: step(held(state, optimizer), batch))(state)
    assert len(asked) == 1
    assert bool(asked[0].layout.blocks) == (case != 'frozen')  # of which one layer is another than the rest
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, expected.params)
    assert sum(size == 0 for size in jax.tree.leaves(moved)) == (3 if case == 'frozen' else 0)
    found = unheld(found)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves((found, found_numbers)), jax.tree.leaves((expected, numbers)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
