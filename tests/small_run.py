"""A run that compiles in a second: a researcher's own module and a config over the tiny data set of conftest.py.

Also a program, for tests that kill it or start it twice: `python -m tests.small_run DATA WORKDIR [key=value ...]`.
"""

import ast
import contextlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.base import get_base
from mmer_jax.layers import masked_mean
from mmer_jax.run.loop import Loop
from mmer_jax.run.seeds import step_programs
from mmer_jax.train import train_and_evaluate


class MeanModel(nn.Module):
    """Masked means of the modalities, dropout, one layer."""

    modalities: tuple[str, ...] = ('text', 'audio')
    num_outputs: int = 3
    dropout: float = 0.2

    @nn.compact
    def __call__(self, batch, *, train):
        x_BD = jnp.concatenate([masked_mean(batch[m], batch[f'{m}_mask']) for m in self.modalities], -1)
        x_BD = nn.Dropout(self.dropout)(x_BD, deterministic=not train)
        return {'prediction': nn.Dense(self.num_outputs)(x_BD)}


class Stop(Exception):
    """A run ends as if it were killed."""


@contextlib.contextmanager
def stopped_at(last):
    """with stopped_at(9): ...; a run in the block ends in its step 9, before it is written down."""
    account = Loop._account

    def stop(self, step, numbers):
        if step == last:
            raise Stop
        account(self, step, numbers)

    Loop._account = stop
    try:
        yield
    except Stop:
        return
    finally:
        Loop._account = account
    raise AssertionError(f'the run ended before its step {last}')


def jit_step(step, lift, places):
    """A training step, or its parts, compiled for what it is called with."""
    programs = step_programs(step, lift, places)
    return lambda state, batch: programs.join([one.compile() for one in programs.lower(state, batch)])(state, batch)


def small_config(directory, **changes):
    """Two seeds, 20 training clips in batches of 6, four epochs; `changes` by dotted key."""
    config = get_base('small')
    config.data.directory = str(directory)
    config.modalities = ('text', 'audio')
    config.data.batch_size = 6
    config.data.max_shapes = 2
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 1e-2
    config.selection.metric = 'accuracy'
    config.seeds, config.epochs, config.log_every, config.tensorboard = 2, 4, 1, False
    for key, value in changes.items():
        with config.unlocked():
            config.update_from_flattened_dict({key.replace('__', '.'): value})
    return config


def main():
    data, workdir, *changes = sys.argv[1:]
    options = dict(change.split('=', 1) for change in changes)
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', int(options.pop('devices', 2)))
    if 'coordinator' in options:
        number = int(options.pop('process'))
        jax.distributed.initialize(options.pop('coordinator'), 2, number)
    config = small_config(data, **{key: ast.literal_eval(value) for key, value in options.items()})
    train_and_evaluate(config, workdir, model=MeanModel())


if __name__ == '__main__':
    main()
