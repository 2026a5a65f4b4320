"""Records per second from shards to padded batches, and how long a training run waited for them.

    python -m benchmarks.input_pipeline --data data/ravdess_mfcc [--batch_size 16]
    python -m benchmarks.input_pipeline --workdir runs/mfcc_cnn_ravdess

The first reads an epoch's batches with 1, 2 and 4 threads, beside reading the same records one by one without
batching (the ceiling), and prints the ratios. The second sums the waiting in a run's timing.jsonl.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from mmer_jax.data.batches import MODALITIES, BatchPlan, LoadBatch, plan_shapes, read_batches, record_lengths
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_jsonl
from mmer_jax.settings import command, ranges


def measure_reading(directory: Path, batch_size: int, repeats: int = 5) -> None:
    source = RecordSource(directory)
    modalities = tuple(m for m in MODALITIES if m in source.schema.features)
    lengths = record_lengths(source, modalities, {})
    plan = BatchPlan(np.arange(len(source)), lengths, plan_shapes(lengths, 6), batch_size, shuffle=True, epochs=1)
    load = LoadBatch(source, modalities, plan, {}, {})

    def rate(work):
        best = float('inf')
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - started)
        return len(source) / best

    print(
        f'{directory}: {len(source)} records, {len(plan.shapes)} shapes, '
        f'padding waste {100 * plan.padding_waste():.1f} %'
    )
    one_by_one = rate(lambda: [source[n] for n in range(len(source))])
    print(f'records one by one, CRC checked: {one_by_one:.0f} records/s')
    for threads in (1, 2, 4):
        found = rate(lambda threads=threads: list(read_batches(load, threads=threads)))
        print(f'batches of {batch_size}, {threads} threads: {found:.0f} records/s, ratio {found / one_by_one:.2f}')


def measure_waiting(workdir: Path) -> None:
    files = sorted(workdir.rglob('timing.jsonl'))
    epochs = [[row for row in read_jsonl(file) if 'epoch' in row] for file in files]
    rows = [row for found in epochs for row in found[1:]]  # an epoch that compiles is left out
    if not rows:
        raise SystemExit(f'error: no timing.jsonl with two epochs or more under {workdir}')
    waited, seconds = sum(r['data_wait'] for r in rows), sum(r['seconds'] for r in rows)
    print(
        f'{workdir}: {len(rows)} epochs, {seconds:.1f} s, '
        f'{waited:.2f} s waiting for data: {100 * waited / seconds:.2f} %'
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.input_pipeline', description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path)
    parser.add_argument('--workdir', type=Path)
    parser.add_argument('--batch_size', type=ranges.COUNT, default=16)
    arguments = parser.parse_args(argv)
    if not (arguments.data or arguments.workdir):
        parser.error('give --data, --workdir or both')
    return arguments


def work(arguments: argparse.Namespace) -> None:
    if arguments.data:
        measure_reading(arguments.data, arguments.batch_size)
    if arguments.workdir:
        measure_waiting(arguments.workdir)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
