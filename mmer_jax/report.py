"""Results of runs as a table and pictures: `python -m mmer_jax.report RUNS... [--output DIR]`.

Reads results.json, metrics.jsonl and predictions/ of finished workdirs; needs no device. Writes report.md,
results.csv (a line a run), rows.csv (a line for each fold and seed) and PNG pictures beside them.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import read_arrays, read_jsonl
from mmer_jax.files.outputs import PICTURE, REPORT_FILES, check_folder
from mmer_jax.metrics import about, confusion_matrix, per_class
from mmer_jax.results import plots
from mmer_jax.results.page import Block, Heading, Notes, Picture, Table, Text, csv_text, markdown
from mmer_jax.results.runs import (
    EXPLANATION,
    NOT_HONEST,
    ReportError,
    Run,
    find_runs,
    marks_of,
    published_of,
    unique,
)
from mmer_jax.results.summary import (
    column_title,
    decimals_of,
    finite_mean,
    format_number,
    format_summary,
    over,
    scale_of,
    summarise,
    unit_of,
)
from mmer_jax.settings import command

CLASSES_EXPLANATION = """\
Classes: for each seed the test records of all folds are counted together, then come mean ± standard deviation over the
seeds. Recall is the share of a class's records that are found, and is the diagonal of the picture; precision the share
of what is called so that is so; F1 their harmonic mean. – : undefined, as no test record is of the class (recall) or
none was called so (precision); seeds where a number is undefined are left out of its mean."""


def main_table(runs: Sequence[Run]) -> Table:
    """The results table: one row per run, columns from the runs' headline metrics."""
    metrics = unique(metric for run in runs for metric in run.results['headline'])
    titles = [column_title(metric) for metric in metrics]
    header = ['run', 'modalities', 'parameters', 'folds x seeds', *titles, 'floor', 'published', 'protocol']
    rows = []
    for run in runs:
        results, first = run.results, run.results['headline'][0]
        folds, seeds = run.values(first).shape
        cells = [run.name, ', '.join(results['modalities']), f'{results["parameters"]:,}', f'{folds} x {seeds}']
        own = results['headline']
        cells += [format_summary(m, summarise(run.values(m))) if m in own else '' for m in metrics]
        # The floor and the published number are named by metric where a table mixes them.
        floor = finite_mean(run.values(first, 'floor'))
        published = published_of(results)
        quoted = [f'{format_number(m, published[m])} ({about(m).title})' for m in own if m in published]
        cells += [f'{format_number(first, floor)} ({about(first).title})', ', '.join(quoted) or '–']
        marks = marks_of(run)
        cells.append(results['protocol'] + (f' ⚠ {"; ".join(marks)}' if marks else ''))
        rows.append(cells)
    return Table(header, rows)


def notes(runs: Sequence[Run], faults: Sequence[str]) -> Notes:
    """What stands under the table: sources of published numbers, marks, unfinished runs, those that are not shown."""
    points = []
    for run in runs:
        published = run.results['published'] or {}
        if published_of(run.results):
            points.append(f'{run.name}: published in {published.get("source", "a source that is not named")}.')
        elif published:
            whose = published.get('dataset') or 'a data set that is not named (key dataset of config.published)'
            points.append(f'{run.name}: published numbers are of {whose}, this run is on {run.results["dataset"]}.')
        if marks_of(run):
            points.append(f'{run.name}: {NOT_HONEST}{"; ".join(marks_of(run))}.')
        if run.unfinished:
            points.append(f'{run.name}: {run.unfinished}.')
    return Notes(EXPLANATION, [*points, *(f'Not shown: {fault}.' for fault in faults)])


def class_table(confusions: np.ndarray, class_names: Sequence[str]) -> Table:
    """Records, recall, precision and F1 of every class, from counts (N, C, C) of N seeds."""
    rows = []
    scores = per_class(confusions)
    records = confusions.sum(-1)[0]  # of the true classes, the same for every seed
    for number, name in enumerate(class_names):
        cells = [format_summary('', over('seeds', values[:, number])) for values in scores]
        rows.append([name, f'{records[number]:,}', *cells])
    return Table(['class', 'test records', 'recall, %', 'precision, %', 'F1, %'], rows)


def confusions(run: Run) -> np.ndarray:
    """(N, C, C) counts of the test records of all folds, for each seed; rows are true classes."""
    classes = len(run.results['class_names'])
    total: Any = 0
    for folder in run.folds.values():
        try:
            found = read_arrays(folder / 'predictions' / 'test.npz', ('prediction', 'label'))
        except (ValueError, OSError) as error:
            raise ReportError(str(error)) from error
        predicted, labels = found['prediction'].argmax(-1), found['label']
        total = total + np.stack([confusion_matrix(one, labels, classes) for one in predicted])
    return np.asarray(total)


def draw(run: Run, stem: str, output: Path) -> list[Block]:
    """Writes the run's pictures; returns the blocks that show them."""
    rows = [{**row, 'fold': fold} for fold, folder in run.folds.items() for row in read_jsonl(folder / 'metrics.jsonl')]
    metric = run.results['selection']
    path, label = output / f'{stem}_curves.png', f'{about(metric).title}{unit_of(metric)}'
    plots.curves(rows, path, run.name, metric=metric, scale=scale_of(metric), label=label)
    blocks: list[Block] = [Picture(f'loss and {metric} of {run.name}', f'{stem}_curves.png')]
    if run.results['metrics'] == 'classification':
        counts, names = confusions(run), run.results['class_names']
        folds = f', {len(run.folds)} folds together' if len(run.folds) > 1 else ''
        title = f'{run.name}: test{folds}' + (f', mean of {len(counts)} seeds' if len(counts) > 1 else '')
        plots.confusion(counts.mean(0), names, output / f'{stem}_confusion.png', title)
        blocks.append(Picture(f'confusion matrix of {run.name}', f'{stem}_confusion.png'))
        blocks += [class_table(counts, names), Text(CLASSES_EXPLANATION)]
    return blocks


def _stems(runs: Sequence[Run]) -> list[str]:
    plain = [re.sub(r'[^\w.-]+', '_', run.name).strip('_') for run in runs]
    return [stem if plain.count(stem) == 1 else f'{stem}_{number}' for number, stem in enumerate(plain)]


def write_csv(runs: Sequence[Run], output: Path) -> None:
    """results.csv: one line for each run and headline metric. rows.csv: one for each run, fold and seed."""
    lines, rows = [], []
    for run in runs:
        about = {'run': run.name, 'workdir': run.folder.name, 'protocol': run.results['protocol']}
        about |= {'modalities': ' '.join(run.results['modalities']), 'marks': '; '.join(marks_of(run))}
        for metric in run.results['headline']:
            values = run.values(metric)
            summary = summarise(values)
            lines.append({
                **about, 'parameters': run.results['parameters'], 'folds': values.shape[0], 'seeds': values.shape[1],
                'metric': metric, 'mean': summary.mean, 'sd': summary.deviation, 'sd_over': summary.over,
                'floor': finite_mean(run.values(metric, 'floor')),
                'published': published_of(run.results).get(metric),
            })  # fmt: skip
        for row in run.results['rows']:
            keys = {key: row[key] for key in ('fold', 'seed', 'best_epoch', 'epochs')}
            train = {f'train/{key}': value for key, value in row.get('train', {}).items()}
            rows.append({**about, **keys, **row['test'], **train})
    for name, content in (('results.csv', lines), ('rows.csv', rows)):
        (output / name).write_text(csv_text(content), encoding='utf-8', newline='')


def write_report(paths: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Writes the report of all runs at or below the paths; returns report.md."""
    runs, faults = find_runs(paths)
    own = REPORT_FILES | {f'{stem}_*.png': PICTURE for stem in _stems(runs)}
    output = check_folder(output, own) if output else runs[0].folder / 'report'
    output.mkdir(parents=True, exist_ok=True)
    blocks: list[Block] = [Heading('Results', 1), main_table(runs), notes(runs, faults)]
    for metric, group in _by_first_metric(runs).items():
        if len(group) > 1:
            draw_comparison(metric, group, output / f'comparison_{metric}.png')
            blocks.append(Picture(f'{metric} of all runs', f'comparison_{metric}.png'))
    for run, stem in zip(runs, _stems(runs), strict=True):
        blocks += [Heading(run.name), *draw(run, stem, output)]
    write_csv(runs, output)
    (output / 'report.md').write_text(markdown(blocks), encoding='utf-8')
    return output / 'report.md'


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
        decimals=decimals_of(metric),
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.report', description=__doc__.split('\n')[0])
    parser.add_argument('runs', nargs='+', help='workdirs, or folders that hold some')
    parser.add_argument('--output', help='folder of the report; report/ in the first run by default')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    print(f'report: {write_report(arguments.runs, arguments.output)}')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
