"""Values for variables whose initialiser is not what a test is about: drawn by numpy, so that nothing is compiled.

tests/test_initialise.py has the initialisers themselves.
"""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.run import initialise, program

ONES = ('scale', 'var')


def any_values(shapes, seed=0):
    """Shapes, as of jax.eval_shape -> numpy arrays near what modules begin with.

    Scales and variances 1, biases and whole numbers 0, all else normal with the deviation that keeps the size of what
    goes through.
    """
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        name = getattr(path[-1], 'key', '')
        if name in ONES:
            return np.ones(leaf.shape, leaf.dtype)
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or name == 'bias':
            return np.zeros(leaf.shape, leaf.dtype)
        deviation = 1 / math.sqrt(max(math.prod(leaf.shape[:-1]), 1))
        return (deviation * generator.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree.map_with_path(draw, shapes)


def random_variables(model, batch, seed=1):
    """Variables of the model that are all random: initial zeros and ones would hide what is left out."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: 0.4 * generator.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


@contextlib.contextmanager
def quick_runs(*, train=True):
    """Runs in the block begin with such values: initialisers are up to a third of what a small run compiles.

    They have one device, as a user's CPU: programs for two compile longer, and other tests train on both. Without
    `train` their steps change nothing, for tests of what is made of a finished run.
    """

    def no_step(*_, **__):
        def step(state, batch):
            numbers = {'loss': jnp.zeros(()), 'grad_norm': jnp.zeros(()), 'example_loss': batch['weight']}
            return state.replace(step=state.step + 1), numbers

        return step

    def fresh(traced, seeds):
        return jax.tree.map(lambda *x: np.stack(x), *(any_values(traced.shapes, int(seed)) for seed in seeds))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initialise, 'fresh', fresh)
        patch.setattr(jax, 'device_count', lambda: 1)
        if not train:
            patch.setattr(program, 'make_train_step', no_step)
        yield
