"""What stands in a table of runs (mmer_jax/table.py): its cells, the notes below them, bars, the lines of its csv."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmer_jax.results import bar_plots, page
from mmer_jax.results.columns import Columns
from mmer_jax.results.run_table import NONE, ends_of, interval_title, span_of
from mmer_jax.results.runs import EXPLANATION, Run, caution, marks_of
from mmer_jax.results.statistics import Predicted
from mmer_jax.results.summary import column_title, finite_mean, format_number, format_summary, is_plain, summarise
from mmer_jax.results.table_config import OTHER_SPLITS, Row, Table

NOTHING: Mapping[str, Predicted] = {}
Configs = Mapping[str, ConfigDict | None]  # by the label of a row; None of one that is quoted


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is known of a row: its state, and for a finished one its results."""

    state: str  # finished, unfinished, not run, failed, quoted
    detail: str = ''
    run: Run | None = None


def draw_bars(table: Table, outcomes: Mapping[str, Outcome], path: Path) -> None:
    """The column `table.bars` of all rows; a row without results is an empty place with its published mark."""
    metric, bars = table.bars, []
    scale = 1.0 if is_plain(metric) else 100.0

    def scaled(value: float | None) -> float | None:
        return None if value is None else scale * value

    for row in table.rows:
        run, mean, deviation, floor = outcomes[row.label].run, row.quoted.get(metric), None, None
        if run is not None:
            summary = summarise(run.values(metric))
            mean, deviation, floor = summary.mean, summary.deviation, finite_mean(run.values(metric, 'floor'))
        bar = bar_plots.Bar(
            group=row.bar or row.label,
            series=row.series,
            mean=scaled(mean),
            deviation=scaled(deviation),
            floor=scaled(floor),
            published=scaled(table.published(row, run).get(metric)),
            quoted=bool(row.quoted),
        )
        bars.append(bar)
    label, decimals = column_title(metric, table.columns[metric]), 3 if is_plain(metric) else 1
    bar_plots.grouped(bars, path, label=label, title=table.title, decimals=decimals)


def table_of(
    table: Table, outcomes: Mapping[str, Outcome], more: Columns = NONE, tested: Mapping[str, Predicted] = NOTHING
) -> page.Table:
    """The table: each metric, and beside it what was published; intervals where predictions were `tested`."""
    compared = [m for m in table.columns if any(row.published.get(m) is not None for row in table.rows)]
    header = ['model', 'parameters', *more.titles(), 'folds x seeds']
    for metric, title in table.columns.items():
        header += [column_title(metric, title) + interval_title(tested), *(['published'] if metric in compared else [])]
    header += ['protocol']
    rows: list[Sequence[str] | page.Group] = []
    group = ''
    for row in table.rows:
        if row.group != group:
            group = row.group
            rows.append(page.Group(group))
        rows.append(_row_cells(table, row, outcomes[row.label], compared, more, tested.get(row.label)))
    floors: dict[tuple[str, ...], list[str]] = collections.defaultdict(list)
    for label, outcome in outcomes.items():
        if outcome.run is not None:
            cells = []
            for metric in table.columns:
                cells.append(format_number(metric, finite_mean(outcome.run.values(metric, 'floor'))))
                cells += [''] if metric in compared else []
            floors[tuple(cells)].append(label)
    for floor, labels in floors.items():
        whose = f' of {", ".join(labels)}' if len(floors) > 1 else ''
        rows.append([f'majority floor{whose}', '', *(('',) * len(more.costs)), '', *floor, ''])
    return page.Table(header, rows)


def _row_cells(
    table: Table, row: Row, outcome: Outcome, compared: Sequence[str], more: Columns, tested: Predicted | None
) -> list[str]:
    run, state, columns = outcome.run, outcome.state, table.columns
    cells = [f'{row.label} †' if state == 'quoted' else row.label, '', *(('',) * len(more.costs)), '']
    last = {'quoted': 'quoted', 'finished': ''}.get(state, f'{state}: {outcome.detail}' if outcome.detail else state)
    if run is not None:
        folds, seeds = run.values(next(iter(columns))).shape
        cells[1:] = [f'{run.results["parameters"]:,}', *more.cells(run), f'{folds} x {seeds}']
        marks = marks_of(run)
        last = run.results['protocol'] + (f' ⚠ {"; ".join(marks)}' if marks else '')
    for metric in columns:
        if run is not None:
            cells.append(format_summary(metric, summarise(run.values(metric))) + span_of(tested, metric))
        else:
            cells.append(format_number(metric, row.quoted.get(metric)) if state == 'quoted' else state)
        if metric in compared:
            cells.append(format_number(metric, table.published(row, run).get(metric)))
    return [*cells, last]


def _data_of(run: Run, config: ConfigDict) -> dict[str, Any]:
    """On what a run was measured; records of the test splits of all folds."""
    tests = {row['fold']: row.get('counts', {}).get('test') for row in run.results['rows']}
    return {
        'dataset': run.results['dataset'],
        'directory': config.data.directory,
        'modalities': ', '.join(run.results['modalities']),
        'test_records': None if None in tests.values() else sum(tests.values()),
    }


def notes(table: Table, configs: Configs, outcomes: Mapping[str, Outcome], more: Columns = NONE) -> page.Notes:
    """What stands under the table: sources, data, marks, failures."""
    data = collections.defaultdict(list)
    points = [f'Source: {table.source}.']
    if any(row.published for row in table.rows):
        points.append('Columns "published" repeat the numbers printed there; they were not measured here.')
    if others := [r.label for r in table.rows if r.published and not table.published(r, outcomes[r.label].run)]:
        points.append(f'Published numbers are of {table.dataset} and stand beside no other data: {", ".join(others)}.')
    if any(metric.startswith(OTHER_SPLITS) for metric in table.columns):
        points.append(
            'Columns of the training or validation split: measured at the epoch of the test, nothing augmented.'
        )
    for label, outcome in outcomes.items():
        config = configs[label]
        if outcome.run is not None and config is not None:
            data[tuple(_data_of(outcome.run, config).values())].append(label)
    for (dataset, directory, modalities, records), labels in data.items():
        of_records = '' if records is None else f', {records:,} test records'
        points.append(f'Measured on {dataset} ({modalities}) in {directory}{of_records}: {", ".join(labels)}.')
    for row in table.rows:
        if row.quoted:
            points.append(f'† {row.label}: quoted, not measured by this command: {row.source}.')
    for label, outcome in outcomes.items():
        if outcome.run is not None and marks_of(outcome.run):
            points.append(f'{label}: {caution(marks_of(outcome.run))}.')
    return page.Notes(EXPLANATION, [*points, *more.notes(), *table.notes])


def csv_rows(
    table: Table,
    configs: Configs,
    outcomes: Mapping[str, Outcome],
    more: Columns = NONE,
    tested: Mapping[str, Predicted] = NOTHING,
) -> list[dict[str, Any]]:
    """One line for each row and metric; fractions, and empty where there is no number."""
    lines: list[dict[str, Any]] = []
    for row in table.rows:
        outcome, config = outcomes[row.label], configs[row.label]
        run = outcome.run
        about: dict[str, Any] = {'label': row.label, 'group': row.group, 'state': outcome.state}
        about |= {'detail': outcome.detail, 'config': row.config, 'variant': row.variant}
        about |= dict.fromkeys(('dataset', 'directory', 'modalities', 'test_records'))
        about |= dict.fromkeys(('protocol', 'marks', 'parameters'))
        if run is not None and config is not None:
            about |= _data_of(run, config) | {key: run.results[key] for key in ('protocol', 'parameters')}
            about['marks'] = '; '.join(marks_of(run))
        for metric in table.columns:
            numbers: dict[str, Any] = dict.fromkeys(('folds', 'seeds', 'mean', 'sd', 'sd_over', 'floor'))
            numbers |= {'mean': row.quoted.get(metric), 'published': table.published(row, run).get(metric)}
            if run is not None:
                values = run.values(metric)
                summary = summarise(values)
                numbers |= dict(zip(('folds', 'seeds'), values.shape, strict=True))
                numbers |= {'mean': summary.mean, 'sd': summary.deviation, 'sd_over': summary.over}
                numbers['floor'] = finite_mean(run.values(metric, 'floor'))
                numbers |= {**more.values(run), **ends_of(tested.get(row.label), metric)}
            lines.append({**about, 'metric': metric, **numbers})
    return lines
