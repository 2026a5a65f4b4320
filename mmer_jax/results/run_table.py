"""The table of all runs, what stands below it, and the same numbers as rows for csv files and pandas."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmer_jax.metrics import about
from mmer_jax.results.choice import difference_cells, grouped
from mmer_jax.results.columns import Columns
from mmer_jax.results.ensemble import Ensemble
from mmer_jax.results.page import Group, Notes, Table
from mmer_jax.results.runs import EXPLANATION, Run, caution, marks_of, published_of, unique
from mmer_jax.results.statistics import Comparison, Predicted
from mmer_jax.results.summary import (
    column_title,
    decimals_of,
    finite_mean,
    format_number,
    format_summary,
    scale_of,
    summarise,
)

NONE = Columns()


def main_table(
    runs: Sequence[Run], tested: Mapping[str, Predicted] | None = None, group_by: str = '', *, inner: bool = False,
    columns: Columns = NONE,
) -> Table:  # fmt: skip
    """The results table: one row per run, columns from the runs' headline metrics.

    tested: by a run's name, adds intervals. group_by: a key of the configs whose values are headings. inner: for a
    page: the numbers of folds and seeds behind each row, and no column of published numbers where there are none.
    columns: more of them.
    """
    metrics = unique(metric for run in runs for metric in run.results['headline'])
    more = [metric for metric in columns.metrics if metric not in metrics]
    differences = difference_cells(runs)
    titles = [f'{column_title(metric)}{interval_title(tested or {})}' for metric in metrics]
    extra = ['differs in'] if any(differences) else []
    titles += [column_title(metric) for metric in more]
    header = ['run', *extra, 'modalities', 'parameters', *columns.titles(), 'folds x seeds', *titles]
    header += ['floor', 'published', 'protocol']
    by_name = {run.name: text for run, text in zip(runs, differences, strict=True)}
    rows: list[Sequence[Any] | Group] = []
    behind: dict[int, Table] = {}
    for title, members in (grouped(runs, group_by) if group_by else {'': runs}).items():
        if title:
            rows.append(Group(title))
        for run in members:
            if inner and run.results['rows'][1:]:
                behind[len(rows)] = _rows_of(run)
            differs = [by_name[run.name]] if extra else []
            found = (tested or {}).get(run.name)
            rows.append([run.name, *differs, *_cells(run, metrics, found, columns=columns, more=more)])
    table = Table(header, rows, inner=behind)
    return _without(table, 'published') if inner and not any(published_of(run.results) for run in runs) else table


def interval_title(tested: Mapping[str, Predicted]) -> str:
    """What the brackets of a column are drawn over."""
    kinds = unique(one.units.what for one in tested.values())
    return f' [95 % by {" or ".join(kinds)}]' if kinds else ''


def _without(table: Table, title: str) -> Table:
    """The table without a column."""
    place = list(table.header).index(title)
    rows = [row if isinstance(row, Group) else [*row[:place], *row[place + 1 :]] for row in table.rows]
    return Table([*table.header[:place], *table.header[place + 1 :]], rows, inner=table.inner)


def _cells(
    run: Run, metrics: Sequence[str], tested: Predicted | None, *, columns: Columns, more: Sequence[str]
) -> list[str]:
    results, first = run.results, run.results['headline'][0]
    folds, seeds = run.values(first).shape
    cells = [', '.join(results['modalities']), f'{results["parameters"]:,}', *columns.cells(run), f'{folds} x {seeds}']
    own = results['headline']
    for metric in metrics:
        text = format_summary(metric, summarise(run.values(metric))) if metric in own else ''
        text = text.replace(' (over folds)', '\n(over folds)') if tested else text
        cells.append(text + (span_of(tested, metric) if metric in own else ''))
    texts = [format_summary(metric, summarise(run.values(metric))) for metric in more]
    cells += [text.replace(' (over folds)', '\n(over folds)') if tested else text for text in texts]
    # The floor and the published number are named by metric where a table mixes them.
    floor = finite_mean(run.values(first, 'floor'))
    published = published_of(results)
    quoted = [f'{format_number(m, published[m])} ({about(m).title})' for m in own if m in published]
    cells += [f'{format_number(first, floor)} ({about(first).title})', ', '.join(quoted) or '–']
    marks = marks_of(run)
    averaged = f'; {run.text}' if isinstance(run, Ensemble) else ''
    inner = f'; {folds} inner folds' if (folds := results.get('selection_folds')) else ''
    return [*cells, results['protocol'] + inner + averaged + (f' ⚠ {"; ".join(marks)}' if marks else '')]


def span_of(tested: Predicted | None, metric: str) -> str:
    """The interval below a number, in brackets; '' where there is none."""
    interval = tested.interval(metric) if tested else None
    return f'\n[{" to ".join(format_number(metric, end) for end in interval)}]' if interval else ''


def ends_of(tested: Predicted | None, metric: str) -> dict[str, Any]:
    """The same for files of rows, and what it is drawn over."""
    interval = tested.interval(metric) if tested else None
    return {'low': interval[0], 'high': interval[1], 'by': tested.units.what} if tested and interval else {}


def _rows_of(run: Run) -> Table:
    """Every fold and seed of a run."""
    own = run.results['headline']
    rows = [
        [row['fold'], str(row['seed']), *(format_number(m, _number(row['test'].get(m))) for m in own),
         format_number(own[0], _number(row['floor'].get(own[0]))),
         '–' if row['epochs'] is None else f'{row["best_epoch"]} of {row["epochs"]}']
        for row in run.results['rows']
    ]  # fmt: skip
    return Table(['fold', 'seed', *map(column_title, own), 'floor', 'chosen epoch'], rows)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def notes(runs: Sequence[Run], faults: Sequence[str], columns: Columns = NONE) -> Notes:
    """What stands under the table: sources of published numbers, marks, unfinished runs, those that are not shown."""
    points = columns.notes()
    for run in runs:
        published = run.results['published'] or {}
        if published_of(run.results):
            points.append(f'{run.name}: published in {published.get("source", "a source that is not named")}.')
        elif published:
            whose = published.get('dataset') or 'a data set that is not named (key dataset of config.published)'
            points.append(f'{run.name}: published numbers are of {whose}, this run is on {run.results["dataset"]}.')
        if marks_of(run):
            points.append(f'{run.name}: {caution(marks_of(run))}.')
        if isinstance(run, Ensemble):
            points.append(f'{run.name}: {run.text}. No model was run; parameters are those of all its models together.')
        if run.unfinished:
            points.append(f'{run.name}: {run.unfinished}.')
    return Notes(EXPLANATION, [*points, *(f'Not shown: {fault}.' for fault in faults)])


def tests_table(comparisons: Sequence[Comparison]) -> Table:
    """Paired tests between runs; one row per pair and metric."""
    rows = []
    for one in comparisons:
        low, high = (scale_of(one.metric) * end for end in one.interval)
        decimals = decimals_of(one.metric)
        difference = f'{scale_of(one.metric) * one.difference:+.{decimals}f}'
        span = f'{low:+.{decimals}f} to {high:+.{decimals}f}'
        clear = 'yes' if one.corrected < 0.05 else 'not shown'
        p = [_p(one.p), _p(one.corrected)]
        found = format_number(one.metric, one.power.difference)
        sizes = f'{one.power.records:,} records' + (
            f' of {one.power.units.words()}' if one.power.units.what == 'speaker' else ''
        )
        rows.append([
            column_title(one.metric), one.first, one.second, difference, span, *p, clear, found, sizes,
        ])  # fmt: skip
    return Table(
        ['metric', 'first run', 'second run', 'first minus second', '95 % interval', 'p', 'p (Holm)', 'differ',
         'found at 80 %', 'tested on'],
        rows,
    )  # fmt: skip


def _p(value: float) -> str:
    return f'{value:.4f}' if value < 0.01 else f'{value:.3f}' if value < 0.1 else f'{value:.2f}'


# ---- the same numbers for files ------------------------------------------------------------------------------


def identity(run: Run) -> dict[str, Any]:
    """What names a run in a file of rows."""
    named = {'run': run.name, 'workdir': run.folder.name, 'protocol': run.results['protocol']}
    named |= {'modalities': ' '.join(run.results['modalities']), 'marks': '; '.join(marks_of(run))}
    return named | {'ensemble': run.text} if isinstance(run, Ensemble) else named


def summary_rows(
    runs: Sequence[Run], tested: Mapping[str, Predicted] | None = None, columns: Columns = NONE
) -> list[dict[str, Any]]:
    """One row for each run and headline metric, or one of the columns."""
    lines = []
    for run in runs:
        for metric in unique([*run.results['headline'], *columns.metrics]):
            values = run.values(metric)
            summary, ends = summarise(values), ends_of((tested or {}).get(run.name), metric)
            lines.append({
                **identity(run), 'parameters': run.results['parameters'], 'folds': values.shape[0],
                'seeds': values.shape[1], 'metric': metric, 'mean': summary.mean, 'sd': summary.deviation,
                'sd_over': summary.over, 'floor': finite_mean(run.values(metric, 'floor')),
                'published': published_of(run.results).get(metric),
                **columns.values(run), **ends,
            })  # fmt: skip
    return lines


def fold_rows(run: Run) -> list[dict[str, Any]]:
    """One row for each fold and seed of a run, with every metric that was measured."""
    rows = []
    for row in run.results['rows']:
        keys = {key: row[key] for key in ('fold', 'seed', 'best_epoch', 'epochs')}
        train = {f'train/{key}': value for key, value in row.get('train', {}).items()}
        rows.append({**identity(run), **keys, **row['test'], **train})
    return rows
