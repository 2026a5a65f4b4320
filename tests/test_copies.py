"""Copies of a run's state: where they lie, that they outlive the original, and that none is a program to compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.run import sharding
from mmer_jax.run.checkpoint import Checkpoints


@pytest.fixture(params=[1, 2], ids=['every device has all seeds', 'each device has its seed'])
def tree(request):
    """Of two seeds on two devices, of shapes that no other test has."""
    values = {'a': np.arange(2 * 4099, dtype=np.float32).reshape(2, 4099), 'b': np.arange(2 * 17).reshape(2, 17)}
    return sharding.put_tree(values, sharding.state_sharding(sharding.make_mesh(request.param, -1)))


def compiled(caplog):
    return [record.getMessage() for record in caplog.records if 'Compiling' in record.getMessage()]


def test_a_copy_lies_where_the_original_lies_and_outlives_it(tree, caplog):
    expected = jax.tree.map(np.array, tree)
    with jax.log_compiles():
        copy = sharding.copy_tree(tree)
    assert compiled(caplog) == []
    assert jax.tree.map(lambda x: x.sharding, copy) == jax.tree.map(lambda x: x.sharding, tree)
    take = jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)
    negative = take(tree)  # the step takes the memory of the state that it is given
    assert all(x.is_deleted() for x in jax.tree.leaves(tree))
    jax.tree.map(np.testing.assert_array_equal, copy, expected)
    jax.tree.map(np.testing.assert_array_equal, take(copy), jax.tree.map(np.asarray, negative))  # and so may others


def test_a_checkpoint_is_written_without_compiling_and_comes_back_to_its_place(tree, tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints, jax.log_compiles():
        checkpoints.save(3, state=tree, best=tree, host={})
        assert compiled(caplog) == []
        step, state, best, _ = checkpoints.restore_newest(state=tree, best=tree)
    assert step == 3
    for found in (state, best):
        jax.tree.map(np.testing.assert_array_equal, found, tree)
        assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, tree)
