"""Lines of StableHLO of a training step at the papers' numbers of layers and lengths: what XLA has to read.

Widths are small here: a program's length does not depend on them. Nothing is compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mfsa_mosi, mult_mosi
from configs.base import get_base
from mmer_jax.losses import make_loss
from mmer_jax.models import build_model
from mmer_jax.run.optimizer import make_optimizer
from mmer_jax.run.step import held, init_state, make_train_step, over_seeds

STEPS = {'text': 50, 'audio': 375, 'vision': 500}
NARROW = {
    'mult': {'width': 20, 'num_heads': 10},
    'mfsa': {'width': 16, 'output_width': 8, 'num_heads': 8, 'fusion_feed_forward': 16, 'discriminator_size': 8},
}


def lines(model, optimizer, losses, batch):
    step = make_train_step(model, optimizer, make_loss(losses))
    row = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), batch)
    one = jax.eval_shape(lambda: held(init_state(model, optimizer, row, np.int32(0)), optimizer))
    states = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), one)
    return len(jax.jit(over_seeds(step, 1)).lower(states, batch).as_text().splitlines())


def with_rows(batch):
    return {**batch, **dict.fromkeys(('label', 'weight'), jax.ShapeDtypeStruct((8,), jnp.float32))}


@pytest.mark.parametrize(('name', 'remat'), [('mult', False), ('mfsa', True), ('mfsa', False)])
def test_a_model_of_sequences_stays_below_its_bound(name, remat):
    config = {'mult': mult_mosi, 'mfsa': mfsa_mosi}[name].get_config()
    fields = {**config.model.to_dict(), **NARROW[name], 'remat': remat}
    model = build_model(fields, modalities=tuple(STEPS), num_outputs=1, dtype=jnp.float32)
    batch = {m: jax.ShapeDtypeStruct((8, steps, 5), jnp.float32) for m, steps in STEPS.items()}
    masks = {f'{m}_mask': jax.ShapeDtypeStruct((8, steps), jnp.bool_) for m, steps in STEPS.items()}
    optimizer, _ = make_optimizer(config.optimizer.to_dict(), 10)
    found = lines(model, optimizer, config.losses.to_dict(), with_rows({**batch, **masks}))
    assert found < 12_000, f'{name}: {found} lines'


def test_bert_base_stays_below_its_bound():
    sizes = {'vocab_size': 20, 'hidden_size': 24, 'num_layers': 12, 'num_heads': 12, 'intermediate_size': 24}
    fields = {'name': 'unimodal', 'encoder': {'name': 'bert', **sizes}}
    model = build_model(fields, modalities=('text',), num_outputs=1, dtype=jnp.float32)
    changes = {'name': 'adamw', 'weight_decay': 0.01, 'no_decay': ('bias', 'norm'), 'clip_norm': 1.0}
    optimizer, _ = make_optimizer({**get_base('test').optimizer.to_dict(), **changes}, 10)
    batch = {
        'text': jax.ShapeDtypeStruct((8, 128), jnp.int32),
        'text_mask': jax.ShapeDtypeStruct((8, 128), jnp.bool_),
    }
    found = lines(model, optimizer, {'l1': 1.0}, with_rows(batch))
    assert found < 6_000, f'{found} lines'
