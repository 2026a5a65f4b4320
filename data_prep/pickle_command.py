"""The command of the readers of feature files: its flags, its errors of one line, and what it says at the end."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pool import print_remarks, run_command
from data_prep.sequences import POLICIES, Summary
from mmer_jax.settings import command, ranges


def parse_arguments(
    argv: list[str] | None,
    prog: str,
    description: str,
    names: Sequence[str],
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    """The flags of a reader of the data sets `names`; `more` adds its own."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add('--source', type=Path, required=True, help='the .pkl file')
    add('--output', type=Path, required=True, help='shard directory to write')
    known = f'what the file holds: {", ".join(names)}, else a name of your own; guessed from the file when not given'
    add('--dataset', help=known)
    meaning = '; '.join(f'{name}: {what}' for name, what in POLICIES.items())
    add('--nonfinite', choices=list(POLICIES), default='zero', help=f'values that are not finite ({meaning})')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    more(parser)
    arguments = parser.parse_args(argv)
    if arguments.dataset is not None and not re.fullmatch(r'[A-Za-z][\w-]*', arguments.dataset):
        parser.error(f'--dataset {arguments.dataset!r}: expected a name of letters, digits and _')
    return arguments


def run(
    prepare: Callable[..., tuple[str, Summary]],
    arguments: argparse.Namespace,
    configs: Mapping[str, str],
    options: Callable[[argparse.Namespace], dict[str, Any]] = lambda arguments: {},
) -> int:
    """Prepares and reports; returns the exit status."""

    def work(arguments: argparse.Namespace) -> None:
        with command.wrong_call():
            more = options(arguments)
        dataset, summary = prepare(
            arguments.source,
            arguments.output,
            dataset=arguments.dataset,
            nonfinite=arguments.nonfinite,
            num_shards=arguments.num_shards,
            overwrite=arguments.overwrite,
            **more,
        )
        report(summary, arguments.output, arguments.nonfinite, configs.get(dataset, '') if summary.is_known else '')

    return run_command(work, arguments)


def report(summary: Summary, output: Path, nonfinite: str, config: str) -> None:
    """Prints what was written and the next command."""
    counts = ', '.join(f'{name} {number}' for name, number in summary.records.items())
    print(f'{sum(summary.records.values())} records -> {output}: {counts}')
    for m, lengths in summary.lengths.items():
        if not lengths:
            continue
        print(f'  {m}: {min(lengths)} / {np.median(lengths):g} / {max(lengths)} steps (least, median, most)')
        if summary.replaced[m]:
            kinds = ', '.join(f'{number} {kind}' for kind, number in summary.replaced[m].items())
            print(f'  {m}: {kinds}: {POLICIES[nonfinite]}')
    print_remarks(summary.remarks)
    for note in summary.notes:
        print(note)
    print(f'next: python -m mmer_jax.records verify {output}')
    if config:
        print(f'      python -m mmer_jax.main --config={config} --config.data.directory={output}')
