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
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(REPOSITORY / '.cache' / 'jax'))

from mmer_jax.settings import ranges  # noqa: E402
from tests.campaign import report  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.campaign', description='Kills, damaged files, full disks.')
    add = parser.add_argument
    add('part', choices=('kills', 'fuzz', 'limits'))
    add('--minutes', type=ranges.POSITIVE, default=15.0, help='wall time after which nothing new is begun')
    add('--seed', type=ranges.SEED, default=0, help='of the inputs and of the moments')
    add('--inputs', type=ranges.COUNT, default=3000, help='of fuzz, over all readers')
    add('--kills', type=ranges.COUNT, default=200, help='of kills, over all commands')
    add('--only', nargs='+', default=[], metavar='ROW', help='some rows of the table')
    add('--keep', type=Path, help='folder for the inputs of fuzz that show a fault')
    add('--short', action='store_true', help='a few seconds: what the test suite runs')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The table on stdout, faults on stderr; 1 where there is a fault."""
    arguments = parse(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='campaign-') as place:
        folder, options = Path(place), {'seed': arguments.seed, 'minutes': arguments.minutes, 'names': arguments.only}
        if arguments.part == 'fuzz':
            from tests.campaign.fuzz import fuzz

            inputs = 3 * 40 if arguments.short else arguments.inputs
            table, faults = fuzz(folder, inputs=inputs, keep=arguments.keep, **options)
        elif arguments.part == 'kills':
            from tests.campaign.kills import kills

            table, faults = kills(folder, count=arguments.kills, short=arguments.short, **options)
        else:
            from tests.campaign.limits import limits

            table, faults = limits(folder, short=arguments.short, **options)
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in use)
    print(report.heading(sys.argv[1:] if argv is None else argv, cpu=cpu, seconds=time.monotonic() - began))
    print(f'\n{table}\n')
    for fault in faults:
        print(f'- {fault}')
    return int(bool(faults))


if __name__ == '__main__':
    sys.exit(main())
