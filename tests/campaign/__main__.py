"""The command line of the campaign."""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('OMP_NUM_THREADS', '1')
REPOSITORY = Path(__file__).resolve().parents[2]
SHORT_INPUTS = 60
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(REPOSITORY / '.cache' / 'jax'))

from mmer_jax.settings import ranges  # noqa: E402
from tests.campaign import report  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.campaign', description='Kills, damaged files, full disks.')
    add = parser.add_argument
    add('part', choices=('kills', 'fuzz', 'limits', 'all'))
    add('--minutes', type=ranges.POSITIVE, default=15.0, help='wall time of each part after which nothing new is begun')
    add('--seed', type=ranges.SEED, default=0, help='of the inputs and of the moments')
    add('--inputs', type=ranges.COUNT, default=3000, help='of fuzz, over all readers')
    add('--kills', type=ranges.COUNT, default=200, help='how many, over all commands')
    add('--only', nargs='+', default=[], metavar='ROW', help='some rows of the table')
    add('--keep', type=Path, help='folder for the inputs of fuzz that show a fault')
    add('--short', action='store_true', help='a few seconds: what the test suite runs')
    return parser.parse_args(argv)


def run(part: str, arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """(the table of a part, one line for each fault)."""
    options = {'seed': arguments.seed, 'minutes': arguments.minutes, 'names': arguments.only}
    with tempfile.TemporaryDirectory(prefix='campaign-') as place:
        folder = Path(place).resolve()
        if part == 'fuzz':
            from tests.campaign.fuzz import fuzz

            inputs = SHORT_INPUTS if arguments.short else arguments.inputs
            return fuzz(folder, inputs=inputs, short=arguments.short, keep=arguments.keep, **options)
        if part == 'kills':
            from tests.campaign.kills import kills

            return kills(folder, count=arguments.kills, short=arguments.short, **options)
        from tests.campaign.limits import limits

        return limits(folder, short=arguments.short, **options)


def main(argv: list[str] | None = None) -> int:
    """The tables on stdout, faults on stderr too; 1 where there is one."""
    arguments, bad = parse(argv), 0
    for part in ('fuzz', 'kills', 'limits') if arguments.part == 'all' else (arguments.part,):
        began, used = time.monotonic(), _used()
        table, faults = run(part, arguments)
        seconds, cpu = time.monotonic() - began, _used() - used
        words = [part, *(sys.argv[1:] if argv is None else argv)[1:]]
        print(report.heading(words, cpu=cpu, seconds=seconds))
        print('\n'.join(['', table, '', *(f'- {fault}' for fault in faults)]), flush=True)
        bad += len(faults)
    return int(bad > 0)


def _used() -> float:
    """Seconds of CPU of this process and its children so far."""
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in use)


if __name__ == '__main__':
    sys.exit(main())
