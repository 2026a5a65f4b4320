"""`python -m mmer_jax.records verify|index|show DIR`: checks, mends or shows a shard directory."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from mmer_jax.data.records import RecordSource, build_index, verify
from mmer_jax.settings import command


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.records', description='Check or mend a shard directory.')
    parser.add_argument('command', choices=('verify', 'index', 'show'))
    parser.add_argument('directory', type=Path)
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> int:
    if arguments.command == 'index':
        for path in sorted(arguments.directory.glob('*.tfrecord')):
            np.save(path.with_suffix('.index.npy'), build_index(path))
    source = RecordSource(arguments.directory)
    if arguments.command == 'show':
        print(json.dumps(source.schema.to_json(), indent=1))
        first = {key: value for key, value in source[0].items() if key != 'id'}
        print({key: value.tolist() if value.size < 20 else value.shape for key, value in first.items()})
        return command.OK
    faults = verify(arguments.directory)
    for fault in faults:
        print(f'fault: {fault}', file=sys.stderr)
    print(f'{arguments.directory}: {len(source)} records in {len(source.shards)} shards, {len(faults)} faults')
    return command.FAILED if faults else command.OK


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where verify finds faults."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
