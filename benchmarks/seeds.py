"""N seeds in one program against N runs one after another, doing the same work.

    python -m benchmarks.seeds [--seeds 5,10] [--steps 50] [--whole]

Prints, for each model and number of seeds, time of N single runs / time of one run of N seeds: above 1 the one
program wins. 'steps' counts training steps alone, compiled before, in alternation; 'with compilation' adds one
compilation of each (N for the single runs, since they are N processes). --whole also times real processes, from
start-up to results.json, over stand-in data.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import logging

from configs import mfcc_cnn_ravdess, quickstart
from data_prep.synthetic import write_like
from mmer_jax.data.batches import read_batches
from mmer_jax.run import sharding
from mmer_jax.run.program import folds_of, load_fold, make_model, make_program, open_source
from mmer_jax.settings import command, ranges

CASES = {'mfcc_cnn': (mfcc_cnn_ravdess, 'ravdess_mfcc'), 'lf_lstm': (quickstart, 'synthetic')}


def prepare(config, seeds, seeds_by):
    """(program, state, device batches), and the seconds that its compilation took."""
    config.seeds, config.seeds_by = seeds, seeds_by
    source = open_source(config)
    fold_data = load_fold(config, source, folds_of(config, source)[0])
    program = make_program(config, make_model(config, source), fold_data)
    batches = [
        sharding.put_batch(batch, program.mesh)
        for batch, _ in zip(read_batches(fold_data.loaders['train']), range(8), strict=False)
    ]
    started = time.perf_counter()
    state = program.unstack(program.init(np.arange(seeds, dtype=np.int32)))
    for batch in batches:
        state, numbers = program.train(state, batch)
    jax.block_until_ready(numbers)
    return program, state, batches, time.perf_counter() - started


def run_steps(program, state, batches, steps):
    started = time.perf_counter()
    for step in range(steps):
        state, numbers = program.train(state, batches[step % len(batches)])
    jax.block_until_ready(numbers)
    return state, time.perf_counter() - started


def measure_steps(name, directory, counts, steps, seeds_by='auto', repeats=9):
    """Alternates one seed and N seeds; prints medians and ratios."""
    config = CASES[name][0].get_config()
    config.data.directory, config.data.max_shapes = str(directory), 1
    single, single_state, batches, single_compile = prepare(config, 1, seeds_by)
    for seeds in counts:
        many, many_state, many_batches, many_compile = prepare(config, seeds, seeds_by)
        one_times, many_times = [], []
        for _ in range(repeats):
            single_state, seconds = run_steps(single, single_state, batches, steps * seeds)
            one_times.append(seconds)
            many_state, seconds = run_steps(many, many_state, many_batches, steps)
            many_times.append(seconds)
        ratio = statistics.median(a / b for a, b in zip(one_times, many_times, strict=True))
        one, together = statistics.median(one_times), statistics.median(many_times)
        compiled = (one + seeds * single_compile) / (together + many_compile)
        print(
            f'{name}, {seeds} seeds ({seeds_by}), {steps} steps: '
            f'{one:.2f} s one after another, {together:.2f} s in one program: ratio {ratio:.2f}; with compilation '
            f'({single_compile:.1f} s each, {many_compile:.1f} s once): {compiled:.2f}',
            flush=True,
        )


def measure_whole(name, directory, counts, folder):
    """Whole processes of one config: start-up, compilation, training, evaluation and writing."""
    base = [
        sys.executable, '-m', 'mmer_jax.main', f'--config=configs/{CASES[name][0].__name__.split(".")[-1]}.py',
        f'--config.data.directory={directory}', '--config.epochs=10', '--folds=0', '--config.tensorboard=false',
    ]  # fmt: skip

    def run(seeds, seed, number):
        started = time.perf_counter()
        command = [*base, f'--config.seeds={seeds}', f'--config.seed={seed}', f'--workdir={folder}/{name}_{number}']
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    for seeds in counts:
        together = run(seeds, 0, f'{seeds}_together')
        single = sum(run(1, k, f'{seeds}_single_{k}') for k in range(seeds))
        print(
            f'{name}, {seeds} seeds, whole processes: {single:.1f} s / {together:.1f} s, ratio {single / together:.2f}',
            flush=True,
        )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.seeds', description=__doc__.split('\n')[0])
    parser.add_argument('--seeds', default='5,10')
    parser.add_argument('--steps', type=ranges.COUNT, default=50)
    parser.add_argument('--models', default=','.join(CASES))
    parser.add_argument('--seeds_by', default='auto', choices=('auto', 'vmap', 'turns'))
    parser.add_argument('--whole', action='store_true', help='also whole processes (minutes)')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    logging.set_verbosity(logging.WARNING)
    counts = [int(n) for n in arguments.seeds.split(',')]
    print(f'{jax.devices()[0].device_kind}, {jax.device_count()} device(s), jax {jax.__version__}')
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models.split(','):
            directory = Path(folder) / f'data_{name}'
            write_like(CASES[name][1], directory, records=400)
            measure_steps(name, directory, counts, arguments.steps, arguments.seeds_by)
            if arguments.whole:
                measure_whole(name, directory, counts, folder)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
