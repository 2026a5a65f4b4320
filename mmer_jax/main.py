"""Trains and evaluates one config: `python -m mmer_jax.main --config=configs/quickstart.py [--workdir=DIR]`.

`--config=FILE:VARIANT` takes a named variant, `--config.optimizer.learning_rate=1e-4` changes one value, also of a
field that the file does not spell out (`--config.model.dropout=0.3`). On a pod, start the same command once on every
host with --distributed (or with the three coordinator flags).
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mmer_jax import BEGUN
from mmer_jax.run.first_step import LATEST
from mmer_jax.settings import command, overrides, ranges
from mmer_jax.settings.keys import KEYS, OPEN, check_config_values

# jax and all that trains are imported where they are used, so that the help and a mistake in a flag come at once.

FOLDS = ranges.Listed(ranges.COUNT_OR_0)


def make_parser() -> argparse.ArgumentParser:
    keys = [f'  --config.{key}  {kind.words}' for key, kind in KEYS.items()]
    keys += [f'  --config.{key}.NAME' for key in OPEN]
    parser = argparse.ArgumentParser(
        prog='python -m mmer_jax.main',
        description=__doc__.split('\n')[0],
        epilog='\n'.join(['keys of a config (comments in configs/base.py), set by --config.KEY=VALUE:', *keys]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', required=True, metavar='FILE[:VARIANT]', help='file of the experiment')
    add('--workdir', help='folder of results and checkpoints; default runs/<config>[_<variant>]')
    add('--folds', type=FOLDS, metavar='K[,K...]', help='numbers of the folds to run, all by default: --folds=0,2')
    add('--distributed', action='store_true', help='join the other processes of a pod that the cluster describes')
    add(
        '--no_cache',
        action='store_true',
        help='compile anew; programs are kept in JAX_COMPILATION_CACHE_DIR, or ~/.cache',
    )
    add('--coordinator', metavar='HOST:PORT', help='of process 0, to join processes by hand')
    add('--num_processes', type=ranges.COUNT, help='number of processes, with --coordinator')
    add('--process_id', type=ranges.COUNT_OR_0, help='number of this process from 0, with --coordinator')
    return parser


def read_config(path: str, changes: Sequence[overrides.Override]) -> ConfigDict:
    """The config of a file with its changed keys, every value checked; ValueError or OSError in one line."""
    config = overrides.load_config(path)
    overrides.apply(config, changes)
    check_config_values(config)
    return config


@dataclasses.dataclass
class Call:
    """The words of a command line, and whether its mistakes keep their traceback (config.debug)."""

    words: Sequence[str]
    debug: bool = False


def work(call: Call) -> None:
    with command.wrong_call():
        rest, changes = overrides.split_arguments(call.words)
        call.debug = dict(changes).get('debug', 'false') != 'false'
        arguments = make_parser().parse_args(rest)
        check_processes(arguments)
        config = read_config(arguments.config, changes)
    call.debug = config.debug
    import jax
    from absl import logging

    from mmer_jax.run.cache import keep_programs
    from mmer_jax.train import train_and_evaluate

    logging.set_verbosity(logging.WARNING)  # orbax and jax tell of every save
    LATEST.imports = time.perf_counter() - BEGUN
    keep_programs(keep=not arguments.no_cache)
    workdir = arguments.workdir or f'runs/{config.name}' + (f'_{config.variant}' if config.variant else '')
    join_processes(arguments)
    results = train_and_evaluate(config, workdir, folds=arguments.folds)
    if jax.process_index() == 0:
        show(results, workdir)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    call = Call(sys.argv[1:] if argv is None else argv)
    return command.run(work, call, go_on='the same command goes on from the last checkpoint')


def check_processes(arguments: argparse.Namespace) -> None:
    """ValueError where the flags do not say how processes are joined: each would train alone, in one workdir."""
    by_hand = {name: getattr(arguments, name) for name in ('coordinator', 'num_processes', 'process_id')}
    missing = [f'--{name}' for name, value in by_hand.items() if value in (None, '')]
    if 0 < len(missing) < len(by_hand):
        given = ', '.join(f'--{name}={value}' for name, value in by_hand.items() if value not in (None, ''))
        raise ValueError(f'{given} without {" and ".join(missing)}: processes are joined by all three, or by none')
    if missing:
        return
    if arguments.distributed:
        raise ValueError('--distributed asks the cluster, --coordinator joins processes by hand: give one of them')
    if arguments.process_id >= arguments.num_processes:
        raise ValueError(f'--process_id={arguments.process_id}: expected 0 to {arguments.num_processes - 1}')
    host, colon, port = arguments.coordinator.rpartition(':')
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'--coordinator={arguments.coordinator}: expected HOST:PORT, for instance 10.0.0.1:9876')


def join_processes(arguments: argparse.Namespace) -> None:
    """Joins the other processes of the run; ValueError where the cluster does not say which they are."""
    import jax

    if arguments.coordinator:
        jax.distributed.initialize(arguments.coordinator, arguments.num_processes, arguments.process_id)
    elif arguments.distributed:
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f'--distributed: no cluster describes the processes ({" ".join(str(error).split())}); leave it out for '
                'one process, or give --coordinator, --num_processes and --process_id'
            ) from error


def show(results: dict[str, Any], workdir: str) -> None:
    """One line for each fold and seed, and what makes the table."""
    for row in results['rows']:
        shown = ', '.join(f'{name} {row["test"][name]:.4f}' for name in results['headline'])
        print(f'{row["fold"]} seed {row["seed"]}: best epoch {row["best_epoch"]} of {row["epochs"]}, test {shown}')
    if LATEST.done:
        print(LATEST.line())
    print(f'results in {workdir}; table and pictures: python -m mmer_jax.report {workdir}')


if __name__ == '__main__':
    sys.exit(main())
