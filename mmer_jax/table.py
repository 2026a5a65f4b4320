"""Runs a paper's table and writes it: `python -m mmer_jax.table --table=configs/tables/mfsa_table1.py [--seeds=5]`.

A table is a Python file whose `get_table()` returns a dictionary with the fields of `Table` (table_config.py). Each
row is a config, run in its folder of --output. A row with results is not run again and one that was stopped goes on,
so the same command continues a table that was interrupted at any moment. A row that fails is shown as failed, and
the others go on. table.md and table.csv are rewritten after every row: ours beside the published numbers; so is
bars.png, where the table names the column to draw.

`--rows=MFSA,MulT` runs some rows, `--set epochs=3 data.directory=DIR` changes values in all of them, `--list` shows
what is there, `--no-run` only writes the table. A row may also be trained by `python -m mmer_jax.main --workdir=...`
into its folder, on a pod for instance: it is shown where its config is the table's.
"""

import argparse
import copy
import dataclasses
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from mmer_jax import evaluate, train
from mmer_jax.files import replace
from mmer_jax.files.outputs import TABLE_FILES, check_folder
from mmer_jax.metrics import about
from mmer_jax.results import canvas, latex, page
from mmer_jax.results.columns import Columns, columns_of
from mmer_jax.results.run_table import NONE
from mmer_jax.results.runs import read_run
from mmer_jax.results.table_config import OTHER_SPLITS, Row, Table, TableError, known_metrics, read_table, row_config
from mmer_jax.results.table_page import Outcome, csv_rows, draw_bars, notes, table_of
from mmer_jax.results.tests_page import of_table
from mmer_jax.run import cache
from mmer_jax.run.workdir import is_untouched
from mmer_jax.settings import command, ranges

# ---- what is there, and running what is not ------------------------------------------------------------------


def look(config: ConfigDict | None, folder: Path) -> Outcome:
    """The state of a row's workdir; results of another config than the table's are a failure, never shown."""
    if config is None:
        return Outcome('quoted')
    results = folder / 'results.json'
    if not (folder / 'config.json').is_file():
        if results.is_file():
            return Outcome('failed', f'{folder} has results but no config.json to compare; remove the folder')
        return Outcome('not run')
    try:
        train.check_config(train.completed(config), folder)
        if results.is_file():
            return Outcome('finished', run=read_run(folder))
    except (ValueError, FileNotFoundError) as error:
        if is_untouched(folder):  # of another config, and nothing was kept: training begins it anew
            return Outcome('not run')
        return Outcome('failed', f'{command.one_line(error)} (for a table: take another --output, or remove {folder})')
    folds = sorted(path.parent.name for path in folder.glob('fold_*/results.json'))
    return Outcome('unfinished', f'finished: {", ".join(folds)}' if folds else '')


class Job:
    """A table being run: its rows, their configs and workdirs, and the failures so far."""

    def __init__(
        self,
        table: Table,
        output: Path,
        *,
        seeds: int | None = None,
        settings: Sequence[str] = (),
        chosen: Sequence[Row] | None = None,
    ):
        self.table, self.output = table, output
        changed = {row.label for row in (table.rows if chosen is None else chosen)}
        self.configs = {
            row.label: row_config(table, row, seeds, settings if row.label in changed else ()) for row in table.rows
        }
        for row in table.rows:
            self._set_start(row)
            if row.ablate:
                self.configs[row.label] = self.configs[row.ablate[0]]
        self.failures: dict[str, str] = {}

    def _set_start(self, row: Row) -> None:
        folders = {other.label: self.folder(other) for other in self.table.rows}
        config = self.configs[row.label]
        if config is not None and row.start:
            starts = {m: f'{folders[label]}:{path}' for m, (label, path) in row.start.items()}
            config.start_from = ConfigDict(starts)

    def with_columns(self, more: Columns) -> 'Job':
        """The same with more columns to show, which no row is trained for."""
        other = copy.copy(self)
        titles = {metric: about(metric).title for metric in more.metrics if metric not in self.table.columns}
        other.table = dataclasses.replace(self.table, columns={**self.table.columns, **titles})
        return other

    def folder(self, row: Row) -> Path:
        return self.output / row.slug

    def outcome(self, row: Row) -> Outcome:
        """Read anew each time: another process may be running other rows of the same table."""
        if row.label in self.failures:
            return Outcome('failed', self.failures[row.label])
        return look(self.configs[row.label], self.folder(row))

    def run(self, row: Row) -> Outcome:
        """Trains a row that has no results. Whatever goes wrong in it is its own failure; interruption passes."""
        outcome, config = self.outcome(row), self.configs[row.label]
        if config is not None and outcome.state in ('not run', 'unfinished'):
            print(f'{row.label}: running in {self.folder(row)}', flush=True)
            try:
                if row.ablate:
                    label, modality = row.ablate
                    other = next(other for other in self.table.rows if other.label == label)
                    evaluate.ablate(self.folder(other), self.folder(row), (modality,))
                else:
                    train.train_and_evaluate(config, self.folder(row))
            except Exception as error:
                if not isinstance(error, command.MISTAKES):
                    traceback.print_exc()
                self.failures[row.label] = command.one_line(error)
            outcome = self.outcome(row)
        if outcome.state == 'failed':
            print(f'error: {row.label}: {outcome.detail}', file=sys.stderr, flush=True)
        return outcome


# ---- table.md and table.csv ----------------------------------------------------------------------------------


def write_table(
    job: Job, command: str, *, picture: str = 'png', tex: bool = False, columns: Columns = NONE, tests: bool = False
) -> Path:
    """Writes table.md, table.csv and bars.png from what is in the rows' folders; returns table.md.

    picture: format of the bars. tex: also table.tex. columns: more of them. tests: intervals, and paired tests.
    """
    outcomes = {row.label: job.outcome(row) for row in job.table.rows}
    runs = {label: outcome.run for label, outcome in outcomes.items() if outcome.run is not None}
    own = [metric for metric in job.table.columns if not metric.startswith(OTHER_SPLITS)]
    (tested, below), job = of_table(runs, own, tests=tests), job.with_columns(columns)
    table = table_of(job.table, outcomes, columns, tested)
    blocks: list[page.Block] = [
        page.Heading(job.table.title, 1),
        table,
        notes(job.table, job.configs, outcomes, columns),
        *below,
    ]
    job.output.mkdir(parents=True, exist_ok=True)
    if job.table.bars and any(outcome.run for outcome in outcomes.values()):
        draw_bars(job.table, outcomes, job.output / f'bars.{picture}')
        blocks.append(page.Picture(f'{job.table.bars} of all rows', f'bars.{picture}'))
    blocks += [page.Text('Made, and to be continued or made again, by'), page.Code(command)]
    replace(
        job.output / 'table.csv', page.csv_text(csv_rows(job.table, job.configs, outcomes, columns, tested)).encode()
    )
    replace(job.output / 'table.md', page.markdown(blocks).encode())
    if tex:
        replace(job.output / 'table.tex', latex.latex(blocks).encode())
    return job.output / 'table.md'


# ---- the command ---------------------------------------------------------------------------------------------


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.table', description=__doc__.split('\n')[0])
    parser.add_argument('--table', required=True, help='file of the table, or the name of a shipped one: synthetic')
    parser.add_argument('--output', type=Path, help='folder of the table and its runs; default runs/tables/<table>')
    parser.add_argument('--seeds', type=ranges.COUNT, help="number of seeds of every row, instead of the table's")
    parser.add_argument('--rows', help='labels of the rows to run, all by default: --rows=MFSA,MulT')
    parser.add_argument(
        '--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', dest='settings',
        help="keys of the chosen rows' configs: --set epochs=3 data.batch_size=16",
    )  # fmt: skip
    parser.add_argument('--list', action='store_true', help='show the rows and what is there of them, and stop')
    parser.add_argument('--no-run', action='store_true', help='write the table from what is there')
    parser.add_argument('--columns', default='', metavar='NAMES', help='more columns: ece,recall,seconds,flops, ...')
    parser.add_argument('--tests', action='store_true', help='intervals, and paired tests between rows')
    canvas.add_flags(parser, 'table.tex')
    cache.add_flag(parser)
    return parser.parse_args(argv)


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes the whole table."""
    parts = ['python', '-m', 'mmer_jax.table', f'--table={arguments.table}']
    parts += [f'--{name}={value}' for name in ('output', 'seeds') if (value := getattr(arguments, name)) is not None]
    parts += [f'--format={arguments.format}'] * (arguments.format != 'png') + ['--latex'] * arguments.latex
    parts += [f'--columns={arguments.columns}'] * bool(arguments.columns) + ['--tests'] * arguments.tests
    return shlex.join([*parts, *(['--set', *arguments.settings] if arguments.settings else [])])


def _chosen(table: Table, labels: str | None) -> list[Row]:
    """The rows of --rows, by label or folder; TableError lists the known labels."""
    if labels is None:
        return list(table.rows)
    wanted = [label.strip() for label in labels.split(',')]
    unknown = [label for label in wanted if not any(label in (row.label, row.slug) for row in table.rows)]
    if unknown:
        known = ', '.join(row.label for row in table.rows)
        raise TableError(f'--rows: the table has no row {", ".join(map(repr, unknown))}; its rows are {known}')
    return [row for row in table.rows if row.label in wanted or row.slug in wanted]


def work(arguments: argparse.Namespace) -> int:
    with command.wrong_call():
        table = read_table(arguments.table)
        rows = _chosen(table, arguments.rows)
        output = arguments.output or Path('runs/tables') / Path(arguments.table).stem
        job = Job(table, output, seeds=arguments.seeds, settings=arguments.settings, chosen=rows)
        calibrated = ['ece'] if table.metrics == 'classification' else []
        columns = columns_of(arguments.columns, [*known_metrics(table, ''), *calibrated], table.classes)
    if arguments.output:
        check_folder(output, TABLE_FILES)
    if arguments.list:
        for row in rows:
            outcome = job.outcome(row)
            detail = f' ({outcome.detail})' if outcome.detail else ''
            print(f'{row.label}: {outcome.state}{detail}' + (f', {job.folder(row)}' if row.config else ''))
        return command.OK
    cache.keep_programs(keep=not arguments.no_cache)
    options = {'picture': arguments.format, 'tex': arguments.latex, 'columns': columns, 'tests': arguments.tests}
    path = write_table(job, _command(arguments), **options)
    for row in [] if arguments.no_run else rows:
        job.run(row)
        write_table(job, _command(arguments), **options)
    failed = [row.label for row in rows if job.outcome(row).state == 'failed']
    print(f'table: {path}' + (f'; failed: {", ".join(failed)}' if failed else ''))
    return command.FAILED if failed else command.OK


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where a row has failed."""
    go_on = 'the same command goes on; table.md has what is finished'
    return command.run(work, parse_arguments(argv), go_on=go_on)


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)  # orbax and jax tell of every save
    sys.exit(main())
