"""Results of runs as a table, pictures and a page: `python -m mmer_jax.report RUNS... [--html] [--output DIR]`.

Reads results.json, config.json, metrics.jsonl and predictions/ of finished workdirs; needs no device. Writes report.md,
results.csv (a line per run and metric), rows.csv (a line per fold and seed) and pictures beside them; with --html also
report.html, one file with everything in it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmer_jax.files import replace
from mmer_jax.files.outputs import PICTURES, REPORT_FILES, check_folder
from mmer_jax.metrics import about
from mmer_jax.results import canvas, plots, statistics, trials
from mmer_jax.results.choice import chosen, ordered, values_of
from mmer_jax.results.columns import Columns, read_columns
from mmer_jax.results.ensemble import WEIGHTS, ensemble_blocks, ensembles, with_ensembles
from mmer_jax.results.html import html
from mmer_jax.results.latex import latex
from mmer_jax.results.page import Block, Heading, Picture, Text, csv_text, markdown
from mmer_jax.results.run_page import draw, more_of
from mmer_jax.results.run_table import NONE, fold_rows, main_table, notes, summary_rows
from mmer_jax.results.runs import Run, find_runs, published_of
from mmer_jax.results.statistics import Predicted, read_all
from mmer_jax.results.summary import decimals_of, finite_mean, scale_of, summarise, unit_of
from mmer_jax.results.tests_page import test_blocks
from mmer_jax.results.trials import find_searches
from mmer_jax.settings import command

FOOTER = 'Made by mmer_jax.report. The page needs no other file and loads nothing.'


def write_report(
    paths: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    page: bool = False,
    tex: bool = False,
    tests: bool = False,
    picture: str = 'png',
    where: Sequence[str] = (),
    group_by: str = '',
    sort: str = '',
    ensemble: bool = False,
    weights: str = 'equal',
    columns: str = '',
) -> Path:
    """Writes the report of all runs and searches at or below the paths; returns report.md, or report.html where `page`.

    tex: also report.tex. tests: intervals and paired tests; a page always has them. picture: format of the pictures.
    where, group_by, sort: which runs, below which headings, by which metric (results/choice.py). ensemble, weights:
    also rows of averaged predictions (results/ensemble.py). columns: more of them (results/columns.py).
    """
    if page and picture == 'pdf':
        raise command.WrongCall('--html --format pdf: a page shows pictures as png or svg')
    searches = find_searches(paths)
    found, faults = find_runs(paths, needed=not searches)
    if weights != 'equal' and not ensemble:
        raise command.WrongCall(f'--weights {weights}: weights are those of an ensemble; give --ensemble too')
    runs = chosen(found, where)
    averaged = ensembles(runs, weights) if ensemble and runs else []
    rows = [*runs, *(row for row, _ in averaged)]
    runs, rows = (ordered(runs, sort), ordered(rows, sort)) if sort else (runs, rows)
    more = read_columns(runs, columns)
    if group_by:
        values_of(runs, group_by, '--group_by')  # an unknown key is told before anything is written
    stems = _stems(runs)
    own = {f'{stem}_*.{kind}': mark for stem in stems for kind, mark in PICTURES.items()}
    first = found[0].folder if found else searches[0]
    output = check_folder(output, REPORT_FILES | own) if output else first / 'report'
    output.mkdir(parents=True, exist_ok=True)
    tested = with_ensembles(read_all(runs), averaged) if page or tests else {}
    blocks: list[Block] = [Heading('Results', 1)]
    blocks += [main_table(rows, tested, group_by, inner=page, columns=more)] if runs else []
    blocks += [notes(rows, faults, more)] if runs or faults else []
    blocks += [Text(statistics.EXPLANATION)] if tested else []
    for metric, group in _by_first_metric(rows).items():
        if len(group) > 1:
            draw_comparison(metric, group, output / f'comparison_{metric}.{picture}')
            blocks.append(Picture(f'{about(metric).title} of all runs', f'comparison_{metric}.{picture}'))
    blocks += test_blocks(rows, tested)
    blocks += ensemble_blocks([row for row, _ in averaged])
    for folder in searches:
        blocks += trials.blocks(trials.read_search(folder), f'Trials of {folder.name}')
    whole, told = list(blocks), False
    for run, stem in zip(runs, stems, strict=True):
        part = [Heading(run.name), *draw(run, stem, output, picture, explain=not told)]
        told = told or run.results['metrics'] == 'classification'
        blocks += part
        whole += [*part, *(more_of(run, tested.get(run.name)) if page else [])]
    if runs:
        write_csv(rows, output, tested, more)
    replace(output / 'report.md', markdown(blocks).encode())
    if tex:
        replace(output / 'report.tex', latex(blocks).encode())
    if page:
        replace(output / 'report.html', html(whole, 'Results', output, FOOTER).encode())
    return output / ('report.html' if page else 'report.md')


def _stems(runs: Sequence[Run]) -> list[str]:
    plain = [run.stem for run in runs]
    return [stem if plain.count(stem) == 1 else f'{stem}_{number}' for number, stem in enumerate(plain)]


def write_csv(
    runs: Sequence[Run], output: Path, tested: Mapping[str, Predicted] | None = None, columns: Columns = NONE
) -> None:
    """results.csv: one line for each run and headline metric. rows.csv: one for each run, fold and seed."""
    rows = [row for run in runs for row in fold_rows(run)]
    for name, content in (('results.csv', summary_rows(runs, tested, columns)), ('rows.csv', rows)):
        replace(output / name, csv_text(content).encode())


def _by_first_metric(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.results['headline'][0], []).append(run)
    return groups


def draw_comparison(metric: str, runs: Sequence[Run], path: Path) -> None:
    scale = scale_of(metric)
    summaries = [summarise(run.values(metric)) for run in runs]
    published = [published_of(run.results).get(metric) for run in runs]
    plots.comparison(
        [run.name for run in runs],
        [scale * s.mean for s in summaries],
        [None if s.deviation is None else scale * s.deviation for s in summaries],
        [None if (floor := finite_mean(run.values(metric, 'floor'))) is None else scale * floor for run in runs],
        path,
        published=[None if value is None else scale * value for value in published],
        label=f'test {about(metric).title}{unit_of(metric)}',
        title=f'Test {about(metric).title}',
        decimals=decimals_of(metric),
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.report', description=__doc__.split('\n')[0])
    parser.add_argument('runs', nargs='+', help='workdirs, or folders that hold some')
    parser.add_argument('--output', help='folder of the report; report/ in the first run by default')
    parser.add_argument('--html', action='store_true', help='also report.html: one file with tests and all pictures')
    parser.add_argument('--tests', action='store_true', help='intervals, and paired tests between runs')
    canvas.add_flags(parser, 'report.tex')
    parser.add_argument('--where', action='append', default=[], metavar='KEY=VALUE', help='only runs with this value')
    parser.add_argument('--group_by', default='', metavar='KEY', help='headings in the table, by a key of the configs')
    parser.add_argument('--sort', default='', metavar='METRIC', help='the best run by this metric comes first')
    parser.add_argument('--ensemble', action='store_true', help='also rows of predictions averaged over seeds and runs')
    parser.add_argument(
        '--weights', choices=WEIGHTS, default='equal', help='of the runs in an ensemble: equal, or fitted'
    )
    parser.add_argument(
        '--columns', default='', metavar='NAMES', help='more columns: ece,recall,seconds,flops, or metrics by name'
    )
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    path = write_report(
        arguments.runs, arguments.output, page=arguments.html, tex=arguments.latex, tests=arguments.tests,
        picture=arguments.format, where=arguments.where, group_by=arguments.group_by, sort=arguments.sort,
        ensemble=arguments.ensemble, weights=arguments.weights, columns=arguments.columns,
    )  # fmt: skip
    print(f'report: {path}')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
