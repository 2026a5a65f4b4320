"""Records per second from shards to padded batches, and how long a training run waited for them.

    python -m benchmarks.input_pipeline --data data/ravdess_mfcc [--batch_size 16]
    python -m benchmarks.input_pipeline --workdir runs/mfcc_cnn_ravdess
    python -m benchmarks.input_pipeline --opening 22856
    python -m benchmarks.input_pipeline --train configs/quickstart.py [--rounds 5]

The first reads an epoch's batches with 1, 2 and 4 threads, beside reading the same records one by one without
batching (the ceiling), and prints the ratios. The second sums the waiting in a run's timing.jsonl. The third writes so
many small records (MOSEI has 22,856) and opens them with and without the sums of their files. The fourth trains with
the checks, and as version 0.2 did: no sums, shards mapped and not read; in turns, by the CPU time of the process. Then
it reads the same records alone, both ways.
"""

import argparse
import contextlib
import mmap
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from mmer_jax.data import records
from mmer_jax.data.batches import MODALITIES, BatchPlan, LoadBatch, plan_shapes, read_batches, record_lengths
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema, verify
from mmer_jax.data.tfrecord import FRAME, Shard
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


# ---- what the checks cost -----------------------------------------------------------------------------------


def best_of(work: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of two pieces of work, done in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * rounds):
        began = time.process_time()
        (work, other)[number % 2]()
        found[number % 2].append(time.process_time() - began)
    return found


def measure_opening(count: int, rounds: int) -> None:
    features = {m: Feature((None, 2)) for m in MODALITIES}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / 'data'
        with RecordWriter(place, Schema('small', features, Label('regression'))) as writer:
            for number in range(count):
                arrays = {m: np.full((2 + number % 5, 2), number, np.float32) for m in MODALITIES}
                record = {'id': f'video_{number // 7}[{number}]', 'label': number % 7 - 3.0, **arrays}
                writer.write(record, speaker=str(number // 7), split=('train', 'test')[number % 2])
        with_sums, without = best_of(lambda: RecordSource(place), lambda: RecordSource(place, any_sums=True), rounds)
        print(
            f'opening {count} records: {min(with_sums):.2f} to {max(with_sums):.2f} s of CPU with sizes and sums '
            f'compared, {min(without):.2f} to {max(without):.2f} s without'
        )
        began = time.process_time()
        faults = verify(place)
        size = sum(path.stat().st_size for path in place.iterdir()) / 1e6
        print(f'verify: {time.process_time() - began:.1f} s of CPU for {size:.0f} MB, {len(faults)} faults')


class MappedShard(Shard):
    """As shards were read by version 0.2."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def read(self, start: int, stop: int) -> tuple[bytes, bytes, bytes]:
        return self._map[start : start + 12], self._map[start + 12 : stop + 12 - FRAME], self._map[stop - 4 : stop]


@contextlib.contextmanager
def as_before():
    """Data are read as by version 0.2: shards mapped, the sums of their files not asked for."""
    open_source = RecordSource.__init__

    def unchecked(self, directory, *, any_sums=True):
        open_source(self, directory, any_sums=True)

    with mock.patch.object(records, 'Shard', MappedShard), mock.patch.object(RecordSource, '__init__', unchecked):
        yield


def measure_training(path: str, rounds: int) -> None:
    from mmer_jax.settings import overrides
    from mmer_jax.train import train_and_evaluate

    number, read_record = iter(range(10**6)), RecordSource.read
    directory, asked_for = overrides.load_config(path).data.directory, []

    def counted(self, index, *, lazy=False):
        asked_for.append(index)
        return read_record(self, index, lazy=lazy)

    def train() -> None:
        train_and_evaluate(overrides.load_config(path), Path(folder) / str(next(number)))

    def read_all() -> None:
        source = RecordSource(directory)
        for index in range(len(source)):
            source[index]

    def before(work: Callable[[], object]) -> Callable[[], object]:
        return as_before()(work)

    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(RecordSource, 'read', counted):
            train()  # compiles
        checked, unchecked = best_of(train, before(train), rounds)
    print(
        f'{path}, {rounds} turns: {min(checked):.2f} s of CPU with the checks (median {np.median(checked):.2f}), '
        f'{min(unchecked):.2f} s as before (median {np.median(unchecked):.2f}); ratio '
        f'{min(checked) / min(unchecked):.3f} '
        f'(of each turn {", ".join(f"{a / b:.3f}" for a, b in zip(checked, unchecked, strict=True))})'
    )
    # Two trainings differ by more than the checks cost, so the reading is timed by itself too.
    size = len(RecordSource(directory))
    with_checks, without = (1e6 * min(found) / size for found in best_of(read_all, before(read_all), 5 * rounds))
    share = 1e-6 * (with_checks - without) * len(asked_for) / min(checked)
    print(
        f'reading alone, a record: {with_checks:.1f} us of CPU with the checks, {without:.1f} as before; of the '
        f'{len(asked_for)} that one training reads the difference is {100 * share:.2f} % of its CPU'
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.input_pipeline', description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path)
    parser.add_argument('--workdir', type=Path)
    parser.add_argument('--batch_size', type=ranges.COUNT, default=16)
    parser.add_argument('--opening', type=ranges.COUNT, metavar='RECORDS', help='writes so many, and opens them')
    parser.add_argument('--train', metavar='CONFIG', help='trains with and without the checks')
    parser.add_argument('--rounds', type=ranges.COUNT, default=5, help='turns of --opening and --train')
    arguments = parser.parse_args(argv)
    if not (arguments.data or arguments.workdir or arguments.opening or arguments.train):
        parser.error('give --data, --workdir, --opening or --train')
    return arguments


def work(arguments: argparse.Namespace) -> None:
    if arguments.data:
        measure_reading(arguments.data, arguments.batch_size)
    if arguments.workdir:
        measure_waiting(arguments.workdir)
    if arguments.opening:
        measure_opening(arguments.opening, arguments.rounds)
    if arguments.train:
        measure_training(arguments.train, arguments.rounds)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
