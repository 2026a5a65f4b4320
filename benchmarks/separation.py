"""How much MFSA's auxiliary losses weigh beside its task: gradient norms at fresh weights, each loss by itself.

    python -m benchmarks.separation                      (the paper's sizes, shorter sequences: minutes to compile)
    python -m benchmarks.separation --steps 50 375 500   (its sequences too: 10 GiB)

Random inputs and labels of CMU-MOSI's sizes, batch 64, one backward pass for all losses. Every loss has the weight of
configs/mfsa_mosi.py, the three forms of equation 13 that of the paper (0.01). The table gives the norm of each loss's
gradient over all parameters and its share of the task's.

What becomes of it in training: `python -m mmer_jax.figures representations WORKDIR ...` prints how much specific and
agnostic vectors correlate.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import mfsa_mosi
from mmer_jax.losses import LOSSES
from mmer_jax.models import build_model
from mmer_jax.settings import command, ranges

WIDTHS = {'text': 300, 'audio': 5, 'vision': 20}
SEPARATIONS = ('separation', 'separation_misa', 'separation_literal')


def make_batch(steps, rows, seed):
    generator = np.random.default_rng(seed)
    batch = {
        'label': generator.uniform(-3, 3, rows).astype(np.float32),
        'weight': np.ones(rows, np.float32),
    }
    for m, length in zip(WIDTHS, steps, strict=True):
        batch[m] = generator.standard_normal((rows, length, WIDTHS[m])).astype(np.float32)
        batch[f'{m}_mask'] = np.arange(length) < generator.integers(length // 2, length + 1, rows)[:, None]
    return batch


def gradient_norms(model: Any, batch: Any, weights: Mapping[str, float], seed: int = 0) -> dict[str, float]:
    """{loss: norm of the gradient of its weighted mean over the batch}, one compilation for all."""
    params = jax.jit(lambda: model.init(jax.random.key(seed), batch, train=False)['params'])()

    def losses(params):
        outputs = model.apply({'params': params}, batch, train=True, rngs={'dropout': jax.random.key(seed + 1)})
        return jnp.stack([weight * LOSSES[name](outputs, batch).mean() for name, weight in weights.items()])

    def norms(params):
        gradients = jax.jacrev(losses)(params)
        return sum(jnp.square(g.reshape(len(weights), -1)).sum(1) for g in jax.tree.leaves(gradients)) ** 0.5

    return dict(zip(weights, map(float, jax.jit(norms)(params)), strict=True))


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(prog='python -m benchmarks.separation', description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=ranges.COUNT, nargs=3, default=(20, 24, 28), help='of text, audio and vision')
    parser.add_argument('--rows', type=ranges.COUNT, default=64, help='batch size (64)')
    parser.add_argument('--smoke', action='store_true', help='tiny sizes')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    config = mfsa_mosi.get_config('smoke' if arguments.smoke else '')
    fields = {**config.model.to_dict(), 'remat': max(arguments.steps) > 100}
    model = build_model(fields, modalities=tuple(WIDTHS), num_outputs=1, dtype=jnp.float32)
    weights = {**config.losses.to_dict(), **dict.fromkeys(SEPARATIONS, config.losses.separation)}
    start = time.perf_counter()
    norms = gradient_norms(model, make_batch(arguments.steps, arguments.rows, 0), weights)
    print(f'batch {arguments.rows}, steps {tuple(arguments.steps)}, {jax.devices()[0].device_kind}')
    print('| loss | weight | gradient norm | share of the task |\n|---|---|---|---|')
    for name, norm in norms.items():
        print(f'| {name} | {weights[name]:g} | {norm:.4g} | {norm / norms["l1"]:.2%} |')
    print(f'{time.perf_counter() - start:.0f} s, compilation included')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
