"""The gradients of convolutions on CPU, inside a loop and outside: jax.lax's own beside those of mmer_jax/convolve.py.

    python -m benchmarks.convolutions [--rounds 3]

Both sides give the gradients by the input and by the kernel of one convolution, of STEPS batches one after the other:
by lax.scan, as layers that repeat and accumulated parts of a batch do, or unrolled. They alternate in one process; the
smallest time of each side a batch is printed, and the ratio (above 1 ours is faster), with the largest difference of
the two gradients.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mmer_jax.convolve import convolve
from mmer_jax.settings import command, ranges

STEPS = 2
# x (N, *spatial, C), kernel (*taps, C, F), strides
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    'attention maps of PSA, 375 steps': ((8, 375, 375, 8), (3, 3, 8, 8), 1),
    'audio over time, MOSI': ((16, 500, 20), (3, 20, 40), 1),
    'text over time, MOSI': ((16, 50, 300), (3, 300, 40), 1),
    'log-mel frames': ((16, 200, 64), (5, 64, 128), 1),
    'log-mel picture': ((16, 64, 200, 16), (3, 3, 16, 32), 1),
    'ResNet, stem': ((8, 224, 224, 3), (7, 7, 3, 64), 2),
    'ResNet, stage 1': ((8, 56, 56, 64), (3, 3, 64, 64), 1),
    'ResNet, stage 2, strided': ((8, 56, 56, 64), (3, 3, 64, 128), 2),
    'ResNet, stage 4': ((8, 7, 7, 512), (3, 3, 512, 512), 1),
}


def plain(x: Array, kernel: Array, *, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    letters = 'HW'[2 - len(strides) :]
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=(f'N{letters}C', f'{letters}IO', f'N{letters}C')
    )


def ours(x: Array, kernel: Array, *, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    return convolve(x, kernel, strides, pads)


def gradients(function: Callable[..., Array], looped: bool) -> Callable[..., Any]:
    of_one = jax.grad(lambda x, kernel: jnp.square(function(x, kernel)).sum(), (0, 1))

    def run(batches, kernel):
        def body(total, x):
            by_x, by_kernel = of_one(x, kernel)
            return total + by_kernel, by_x

        return lax.scan(body, jnp.zeros_like(kernel), batches, unroll=1 if looped else STEPS)

    return jax.jit(run)


def measure(name: str, looped: bool, rounds: int) -> None:
    shape, taps, stride = CASES[name]
    generator, axes = np.random.default_rng(0), len(shape) - 2
    batches = generator.standard_normal((STEPS, *shape), np.float32)
    kernel = generator.standard_normal(taps, np.float32) / np.float32(np.sqrt(np.prod(taps[:-1])))
    fixed: dict[str, Any] = {'strides': (stride,) * axes, 'pads': [((k - 1) // 2, k // 2) for k in taps[:axes]]}
    sides = [gradients(partial(function, **fixed), looped) for function in (plain, ours)]
    found = [jax.block_until_ready(side(batches, kernel)) for side in sides]
    of_kernel = [np.asarray(total) for total, _ in found]
    difference = np.abs(of_kernel[0] - of_kernel[1]).max() / np.abs(of_kernel[0]).max()
    seconds: list[list[float]] = [[], []]
    for number in range(2 * rounds):
        began = time.perf_counter()
        jax.block_until_ready(sides[number % 2](batches, kernel))
        seconds[number % 2].append((time.perf_counter() - began) / STEPS)
    lax_ms, own_ms = (1e3 * min(times) for times in seconds)
    place = 'in a loop' if looped else 'unrolled'
    print(
        f'{name}, {place}: jax.lax {lax_ms:.1f} ms, mmer_jax.convolve {own_ms:.1f} ms, ratio {lax_ms / own_ms:.2f}, '
        f'difference {difference:.1e}',
        flush=True,
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.convolutions', description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=ranges.COUNT, default=3)
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    for name in CASES:
        for looped in (False, True):
            measure(name, looped, arguments.rounds)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
