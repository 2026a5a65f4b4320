"""All that is to be known of a machine with a GPU or TPU, in one table and a given time.

    python -m benchmarks.accelerator [--minutes 6] [--only mfsa mult] [--tiny]

Rows: the quickstart in wall time; MFSA and MulT, padded and bucketed, float32 and bfloat16 (seconds to the first step,
samples/s, peak memory); ten seeds against one; BERT, wav2vec 2.0, ViT and VideoMAE in bfloat16 beside PyTorch, eager
and compiled; ResNet-18, I3D and 3-D ResNeXt-50 beside cuDNN. Each is the command of another benchmark in a process of
its own, on records that are made here; no media library is needed, and rows that need torch or transformers say so
where these are not installed.

First the programs are compiled, several processes side by side, into one cache: their rates mean nothing and are not
shown, their seconds to the first step are (with others beside them). Then each row is measured alone, which finds its
programs there, in the order above, and is printed as it ends. What has no time any more is named at the end. --tiny:
the smallest sizes, for a look at whether it works, on CPU too.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks import last_line
from mmer_jax.settings import command, ranges

ROOT = Path(__file__).parents[1]
COMPILING = 0.5  # of the time, at most
SIDE_BY_SIDE = 6  # processes: each holds its share of the device's memory
SHARE = '0.12'  # of the device's memory, per process while several compile
OTHERS = {'torch', 'transformers'}


class Row(NamedTuple):
    """A row of the table: its name, its command behind `python -m`, what of its output is shown, what it needs."""

    name: str
    arguments: tuple[str, ...]
    shown: str  # a regular expression; its groups, or the whole match, of every line that has it
    needs: tuple[str, ...] = ()
    compiles: bool = True  # worth a run beside others first

    @property
    def key(self) -> str:
        return self.name.split(',')[0]


def rows(tiny: bool, folder: Path) -> list[Row]:
    """All rows, in the order in which they are measured."""
    found = [
        Row(
            'quickstart',
            ('mmer_jax.main', '--config=configs/quickstart.py', f'--config.data.directory={folder / "quickstart"}')
            + (('--config.epochs=1',) if tiny else ()) + (f'--workdir={folder / "run"}', '--config.tensorboard=false'),
            r'first step after .*',
        )
    ]  # fmt: skip
    sizes = ('--smoke', '--steps=1') if tiny else ('--steps=5',)
    for model in ('mfsa', 'mult'):
        for dtype in ('float32', 'bfloat16'):
            for lengths in ('padded', 'bucketed'):
                flags = (f'--data={folder / "mosi"}', f'--dtype={dtype}', f'--case={model}:{lengths}', *sizes)
                name = f'{model}, {lengths}, {dtype}'
                found.append(Row(name, ('benchmarks.sequence_models', f'--model={model}', *flags), r'\{".*'))
    seeds, steps = ('2', '2') if tiny else ('10', '50')
    found.append(
        Row(
            f'seeds, {seeds} against one',
            ('benchmarks.seeds', f'--seeds={seeds}', f'--steps={steps}', '--models=lf_lstm', '--seeds_by=vmap'),
            r'.*ratio.*',
            compiles=False,
        )
    )
    size, dtype = ('tiny', 'float32') if tiny else ('base', 'bfloat16')
    for encoder in ('bert', 'wav2vec2', 'vit', 'videomae'):
        flags = (f'--size={size}', f'--dtype={dtype}', '--steps=3', *(('--batch=1',) if tiny else ('--compiled',)))
        needs = ('torch', 'transformers')
        found.append(
            Row(encoder, ('benchmarks.encoders', '--encoders', encoder, *flags), r' +(?:inference|step): .*', needs)
        )
    quick = ('--quick',) if tiny else ()
    for network in ('resnet18', 'i3d'):
        flags = ('--encoders', network, '--steps=3', *quick)
        found.append(Row(network, ('benchmarks.encoders_2d_3d', *flags), rf'{network} +\d.*', ('torch',)))
    flags = ('--steps=3', *(('--size=32', '--frames=4') if tiny else ()))
    found.append(Row('resnext3d', ('benchmarks.conv3d', *flags), r'.*(?:ratio|PyTorch).*', ('torch',)))
    return found


def missing(row: Row) -> list[str]:
    return [name for name in row.needs if importlib.util.find_spec(name) is None]


class Clock:
    """What is left of the time."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        self.now, self.seconds = now, seconds
        self.started = now()

    def left(self) -> float:
        return self.seconds - (self.now() - self.started)


def run(row: Row, seconds: float, cache: Path, *, share: str = '') -> tuple[str, str]:
    """('done', what is shown), ('late', ''), or ('failed', the last line of its errors)."""
    environment = {
        **os.environ,
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        **({'XLA_PYTHON_CLIENT_MEM_FRACTION': share} if share else {}),
    }
    if row.name == 'quickstart' and share:
        row = row._replace(arguments=(*row.arguments[:-2], f'{row.arguments[-2]}_before', row.arguments[-1]))
    try:
        done = subprocess.run(
            [sys.executable, '-m', *row.arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=max(seconds, 0.1), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 'late', ''
    if done.returncode:
        return 'failed', last_line(done.stderr, f'status {done.returncode}')
    found = [
        match[0].strip() for line in (done.stdout + done.stderr).splitlines() if (match := re.match(row.shown, line))
    ]
    return 'done', '\n'.join(shown(line) for line in found)


def shown(line: str) -> str:
    """A line of a benchmark; a case of sequence_models, which is JSON, in words."""
    if not line.startswith('{'):
        return line
    from benchmarks.sequence_models import summarise

    numbers = summarise(json.loads(line))
    return (
        f'{numbers["rate"]:.1f} samples/s, {numbers["step"]:.3f} s per step, peak {numbers["peak"]:.2f} GiB, '
        f'first steps {numbers["compile"]:.1f} s more'
    )


def write_data(folder: Path, tiny: bool) -> None:
    """Records of the quickstart, and of MOSI's sizes and lengths, in processes that leave the device alone."""
    script = (
        'from pathlib import Path; from data_prep.synthetic import write_like; '
        'from benchmarks.sequence_models import write_records; '
        f'write_like("synthetic", Path({str(folder / "quickstart")!r}), records=400); '
        f'write_records(Path({str(folder / "mosi")!r}), {tiny})'
    )
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f'the records to be read were not written: {last_line(done.stderr, f"status {done.returncode}")}')


def tell(name: str, lines: str) -> None:
    for number, line in enumerate(lines.splitlines() or ['']):
        print(f'{name if not number else "":28}{line}', flush=True)


def work(arguments: argparse.Namespace) -> int:
    clock, failed, late = Clock(60 * arguments.minutes), [], []
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place), Path(place) / 'cache'
        wanted = [row for row in rows(arguments.tiny, folder) if not arguments.only or row.key in arguments.only]
        able = [row for row in wanted if not missing(row)]
        for row in wanted:
            if row not in able:
                tell(row.name, f'not measured: {" and ".join(missing(row))} is not installed')
        write_data(folder, arguments.tiny)
        until = clock.left() * (1 - COMPILING)
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, os.cpu_count() or 1)) as pool:
            first = [row for row in able if row.compiles]
            for row, (state, _), seconds in pool.map(lambda row: before(row, clock, until, cache), first):
                tell(row.name, f'compiled and ran beside others: {state} after {seconds:.0f} s')
        for row in able:
            state, found = run(row, clock.left(), cache) if clock.left() > 0 else ('late', '')
            if state == 'late':
                late.append(row.name)
            else:
                tell(row.name, found if state == 'done' else f'failed: {found}')
                failed += [row.name] * (state == 'failed')
    if late:
        print(f'no time for: {"; ".join(late)} (--minutes {arguments.minutes:g})')
    if failed:
        print(f'error: failed: {"; ".join(failed)}', file=sys.stderr)
    return 1 if failed else 0


def before(row: Row, clock: Clock, until: float, cache: Path) -> tuple[Row, tuple[str, str], float]:
    """A run beside others that fills the cache; it ends when so much of the time is left."""
    started = time.monotonic()
    left = clock.left() - until
    return row, run(row, left, cache, share=SHARE) if left > 0 else ('late', ''), time.monotonic() - started


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    names = list(dict.fromkeys(row.key for row in rows(False, Path())))
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.accelerator', description=(__doc__ or '').split('\n')[0]
    )
    parser.add_argument('--minutes', type=ranges.POSITIVE, default=6.0, help='in all (default: 6)')
    parser.add_argument('--only', nargs='+', choices=names, default=[], metavar='ROW', help=', '.join(names))
    parser.add_argument('--tiny', action='store_true', help='smallest sizes: does it work')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 where a row failed."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
