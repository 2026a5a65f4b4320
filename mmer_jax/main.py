"""Trains and evaluates one config: `python -m mmer_jax.main --config=configs/quickstart.py [--workdir=DIR]`.

`--config=FILE:VARIANT` takes a named variant, `--config=quickstart` a shipped file by its name,
`--config.optimizer.learning_rate=1e-4` changes one value, also of a field that the file does not spell out
(`--config.model.dropout=0.3`). With `--help` all keys of the config are shown, with `--dry_run` what it would do.
`--prune RUN` makes a finished run smaller. On a pod, start the same command once on every host with --distributed (or
with the three coordinator flags).
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmer_jax import BEGUN
from mmer_jax.run import processes
from mmer_jax.run.cache import add_flag, keep_programs
from mmer_jax.run.first_step import LATEST
from mmer_jax.settings import command, overrides, ranges
from mmer_jax.settings.keys import KEYS, OPEN, check_config_values

# jax and all that trains are imported where they are used, so that the help and a mistake in a flag come at once.

FOLDS = ranges.Listed(ranges.COUNT_OR_0)


def make_parser(config: ConfigDict | None = None, file: str = '') -> argparse.ArgumentParser:
    """The parser; its help lists the keys and their ranges, or with a config the values and comments of that one."""
    if config is None:
        title = 'keys of a config, set by --config.KEY=VALUE; --config=FILE --help shows those of a file with comments:'
        keys = [f'  --config.{key}  {kind.words}' for key, kind in KEYS.items()]
        keys += [f'  --config.{key}.NAME' for key in OPEN]
    else:
        from mmer_jax.settings import shown

        title, keys = f'keys of {file}, set by --config.KEY=VALUE:', list(shown.lines(config))
    parser = argparse.ArgumentParser(
        prog='python -m mmer_jax.main',
        description=__doc__.split('\n')[0],
        epilog='\n'.join([title, *keys]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE[:VARIANT]', help='file of the experiment, or the name of a shipped one: quickstart')
    add('--workdir', help='folder of results and checkpoints; default runs/<config>[_<variant>]')
    add('--folds', type=FOLDS, metavar='K[,K...]', help='numbers of the folds to run, all by default: --folds=0,2')
    add('--dry_run', action='store_true', help='show config, folds, shapes, parameters and memory, and stop')
    add(
        '--prune',
        nargs='*',
        metavar='RUN',
        help='drop the optimiser state of these finished runs; with --config, of its run when it is finished',
    )
    add('--distributed', action='store_true', help='join the other processes of a pod that the cluster describes')
    add_flag(parser)
    add('--coordinator', metavar='HOST:PORT', help='of process 0, to join processes by hand')
    add('--num_processes', type=ranges.COUNT, help='number of processes, with --coordinator')
    add('--process_id', type=ranges.COUNT_OR_0, help='number of this process from 0, with --coordinator')
    add('--wait', type=ranges.COUNT, default=60, help='seconds to wait for the other processes, with --coordinator')
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
        if {'-h', '--help'} & set(rest) and (file := file_of(rest)):
            make_parser(read_config(file, changes), file).print_help()
            return
        arguments = parse(rest)
        check_processes(arguments)
        config = read_config(arguments.config, changes) if arguments.config else None
    if config is None:
        prune(arguments.prune)
        return
    call.debug = config.debug
    waited = join_by_hand(arguments)  # before jax is loaded: it forks
    import jax
    from absl import logging

    from mmer_jax.train import train_and_evaluate

    logging.set_verbosity(logging.WARNING)  # orbax and jax tell of every save
    LATEST.imports = time.perf_counter() - BEGUN - waited
    keep_programs(keep=not arguments.no_cache)
    workdir = arguments.workdir or f'runs/{config.name}' + (f'_{config.variant}' if config.variant else '')
    if arguments.distributed:
        join_cluster()
    if arguments.dry_run:
        from mmer_jax import dry_run

        for line in dry_run.lines(config, workdir, arguments.folds):
            print(line, flush=True)
        return
    results = train_and_evaluate(config, workdir, folds=arguments.folds)
    if jax.process_index() == 0:
        show(results, workdir)
        if arguments.prune is not None:
            prune([workdir])


def file_of(words: Sequence[str]) -> str:
    """The value of --config, '' where it is not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--config', default='')
    return parser.parse_known_args(words)[0].config


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The flags, checked together; argparse ends the process where they are wrong."""
    parser = make_parser()
    arguments = parser.parse_args(words)
    if arguments.config and arguments.prune:
        parser.error('--prune: give the runs, or --config and no run')
    if not arguments.config and not arguments.prune:
        parser.error('the following arguments are required: --config (or --prune with runs)')
    return arguments


def prune(workdirs: Sequence[str]) -> None:
    """Makes finished runs smaller; ValueError at the first that is none."""
    from mmer_jax.run.prune import prune as prune_run

    for workdir in workdirs:
        before, after = prune_run(Path(workdir))
        print(f'{workdir}: {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB; it can be used as before, not trained on')


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    call = Call(sys.argv[1:] if argv is None else argv)
    go_on = 'the same command goes on from the last checkpoint'
    return processes.ending(lambda: command.run(work, call, go_on=go_on))


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


def join_by_hand(arguments: argparse.Namespace) -> float:
    """Joins the processes that the three flags name; returns the seconds of waiting for them. Only a child returns."""
    if not arguments.coordinator:
        return 0.0
    return processes.join(arguments.coordinator, arguments.process_id, arguments.num_processes, arguments.wait)


def join_cluster() -> None:
    """Joins the processes of a cluster; ValueError where it does not say which they are."""
    import jax

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
