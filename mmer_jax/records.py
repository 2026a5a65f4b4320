"""`python -m mmer_jax.records verify|index|seal|show DIR`: checks, mends, seals or shows a shard directory."""

import argparse
import json
import sys
from pathlib import Path

from mmer_jax.data.records import RecordSource, mend_index, seal, verify
from mmer_jax.settings import command


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.records', description='Check or mend a shard directory.')
    parser.add_argument('command', choices=('verify', 'index', 'seal', 'show'))
    parser.add_argument('directory', type=Path)
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> int:
    directory, faults = arguments.directory, []
    if arguments.command == 'index':
        mend_index(directory)
    if arguments.command == 'seal':
        faults = seal(directory)
    source = RecordSource(directory, any_sums=bool(faults))
    if arguments.command == 'show':
        print(json.dumps(source.schema.to_json(), indent=1))
        first = {key: value for key, value in source[0].items() if key != 'id'}
        print({key: value.tolist() if value.size < 20 else value.shape for key, value in first.items()})
        return command.OK
    if arguments.command != 'seal':
        faults = verify(directory)
    for fault in faults:
        print(f'fault: {fault}', file=sys.stderr)
    if not source.is_sealed:
        print(
            f'note: {directory} has no sums of its files, as those written before version 0.3: a change of '
            f'features.json, or of speakers and splits, would not be seen; '
            f'python -m mmer_jax.records seal {directory} adds them',
            file=sys.stderr,
        )
    print(f'{directory}: {len(source)} records in {len(source.shards)} shards, {len(faults)} faults')
    return command.FAILED if faults else command.OK


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where verify finds faults."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
