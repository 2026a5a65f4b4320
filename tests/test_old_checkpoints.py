"""A run begun by version 0.1 goes on: its optimiser state, an array per parameter, becomes few vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.base import get_base
from mmer_jax.losses import make_loss
from mmer_jax.models import build_model
from mmer_jax.run import checkpoint, old_checkpoints, sharding
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.optimizer import make_optimizer
from mmer_jax.run.step import init_state, make_train_step, over_seeds, variables_of
from tests.test_models import make_batch

FIELDS = {**get_base('x').optimizer.to_dict(), 'clip_norm': 0.5, 'learning_rate': 1e-2}
ENCODER = {
    'name': 'vector_encoder',
    'sizes': (4, 3),
    'dropout': 0.0,
}  # matrices and biases of several sizes, modules in modules
MODEL = build_model({'name': 'unimodal', 'encoder': ENCODER}, modalities=('text',), num_outputs=3, dtype=jnp.float32)
BATCH, SEEDS = make_batch(('text',)), np.arange(2)
LOSS = make_loss({'cross_entropy': 1.0})
# What 0.1 built of these fields, over the tree of parameters.
OLD = {
    'adam': optax.chain(optax.clip_by_global_norm(0.5), optax.adam(optax.constant_schedule(1e-2))),
    'adamw': optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(
            optax.constant_schedule(1e-2),
            weight_decay=0.1,
            mask=lambda params: jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != 'bias', params),
        ),
    ),
    'sgd': optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(optax.constant_schedule(1e-2), momentum=0.9)),
}
CHANGES = {'adam': {}, 'adamw': {'weight_decay': 0.1, 'no_decay': ('bias$',)}, 'sgd': {'momentum': 0.9}}


def placed(state):
    return sharding.put_tree(state, sharding.state_sharding(sharding.make_mesh()))


def fresh_state(optimizer):
    return jax.jit(jax.vmap(lambda seed: init_state(MODEL, optimizer, BATCH, seed)))(SEEDS)


def stepping(optimizer):
    """(state, count) -> the state that many steps later; compiled once."""
    step = jax.jit(over_seeds(make_train_step(MODEL, optimizer, LOSS), len(SEEDS)))

    def steps(state, count):
        for _ in range(count):
            state, _ = step(state, BATCH)
        return state

    return steps


@pytest.mark.parametrize('name', list(OLD))
def test_a_state_of_an_array_per_parameter_is_converted(name, tmp_path, monkeypatch, capsys):
    optimizer, _ = make_optimizer({**FIELDS, 'name': name, **CHANGES[name]}, 10)
    old_steps, steps = stepping(OLD[name]), stepping(optimizer)
    old = placed(old_steps(placed(fresh_state(OLD[name])), 3))
    with monkeypatch.context() as patch, Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        patch.setattr(checkpoint, 'FORMAT', 1)
        checkpoints.save(3, state=old, best=variables_of(old), host={})
    fresh = placed(fresh_state(optimizer))

    def convert(saved, wanted):
        return old_checkpoints.convert(saved, wanted, optimizer.members(wanted.params))

    with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        _, found, _, _ = checkpoints.restore_newest(state=fresh, best=variables_of(fresh), convert=convert)
    assert 'version 0.1 and was converted' in capsys.readouterr().err
    expected, found = old_steps(old, 2), steps(found, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, expected.params)
    assert int(found.step[0]) == 5
    # The moments matter: with fresh ones the parameters differ.
    forgotten = found.replace(opt_state=fresh.opt_state, params=old.params)
    other = steps(forgotten, 2)
    assert max(float(abs(a - b).max()) for a, b in zip(
        jax.tree.leaves(other.params), jax.tree.leaves(expected.params), strict=True
    )) > 1e-4  # fmt: skip


def test_a_state_that_lacks_a_parameter_is_refused():
    optimizer, _ = make_optimizer(FIELDS, 10)
    state = placed(fresh_state(optimizer))
    saved = {'opt_state': {'count': np.zeros(2), 'mu': {}}, 'params': {}}
    with pytest.raises(old_checkpoints.Unreadable, match=r'has 0 arrays called'):
        old_checkpoints.convert(saved, state, optimizer.members(state.params))
