"""A finished run tested on disturbed records: `python -m mmer_jax.robustness RUN --output DIR`.

A metric against the share of steps that are lost, and against the noise that is added, for each modality and for all at
once. One program per shape of batches serves all points. Writes robustness.png, .md, .csv and .json.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mmer_jax.data.batches import LoadBatch, feature_statistics
from mmer_jax.data.disturb import add_noise, drop_steps, takes_noise
from mmer_jax.data.folds import SPLITS
from mmer_jax.evaluate import describe, measure_run, predict_changed
from mmer_jax.files import to_json
from mmer_jax.files.outputs import PICTURES, check_folder
from mmer_jax.files.together import write_together
from mmer_jax.metrics import KINDS
from mmer_jax.results import canvas, degradation, subsets
from mmer_jax.results.degradation import Line, Panel
from mmer_jax.results.page import Heading, Notes, Picture, Table, csv_text, markdown
from mmer_jax.results.summary import Summary, finite_mean, format_number, over, summarise
from mmer_jax.run import cache, finished
from mmer_jax.run.finished import Run
from mmer_jax.settings import command, ranges

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
NOISE = (0.5, 1.0, 2.0, 4.0)
AXES = {'dropped': 'steps lost, %', 'noise': 'standard deviation of the noise (1: that of the values)'}
FILES = {
    'robustness.md': b'Made by mmer_jax.robustness',
    'robustness.csv': b'disturbed,modality,level,draw',
    'robustness.json': b'"disturbed"',
    **{f'robustness.{kind}': mark for kind, mark in PICTURES.items()},
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One disturbed test: how ('' for not at all), of which modality ('all'), how much, and which draw."""

    disturbed: str = ''
    modality: str = ''
    level: float = 0.0
    draw: int = 0


def points_of(
    modalities: Sequence[str], noisy: Sequence[str], shares: Sequence[float], noise: Sequence[float], draws: int
) -> list[Point]:
    """The undisturbed split once, then each way, modality (all at once where there are several), level and draw.

    noisy: the modalities that take noise. Where every step is lost nothing is drawn, so one draw is enough.
    """
    points = [Point()]
    for how, levels, names in (('dropped', shares, modalities), ('noise', noise, noisy)):
        for name in (*names, *(['all'] if len(names) > 1 else [])):
            for level in sorted(set(levels) - {0.0}):
                count = 1 if how == 'dropped' and level == 1 else draws
                points += [Point(how, name, float(level), draw) for draw in range(count)]
    return points


def disturb(point: Point, noisy: Sequence[str], deviations: Mapping[str, Any], run: Run, load: LoadBatch) -> LoadBatch:
    """The loader of a split with the point's disturbance in every record, drawn from its draw and the record."""
    if not point.disturbed:
        return load
    features = load.source.schema.features
    everything = load.modalities if point.disturbed == 'dropped' else noisy
    modalities = everything if point.modality == 'all' else (point.modality,)
    if point.disturbed == 'dropped':
        change = drop_steps(features, modalities, point.level)
    else:
        change = add_noise(features, deviations, modalities, point.level)
    plan = dataclasses.replace(load.plan, seed=point.draw)
    return dataclasses.replace(load, plan=plan, augmentations=(change,))


def deviations_of(run: Run, noisy: Sequence[str]) -> dict[str, Any]:
    """The standard deviation of each value of a modality as the model is given it: 1 where it is normalised."""
    fold, normalised = run.fold_data.fold, run.config.data.normalize
    raw = [m for m in noisy if m not in normalised]
    numbers = fold.train if len(fold.train) else fold.test
    measured = feature_statistics(run.fold_data.source, numbers, raw)
    return {m: measured[m][1] if m in raw else np.float32(1) for m in noisy}


def measure_points(
    runs: Sequence[Run], points: Sequence[Point], noisy: Sequence[str], split: str
) -> list[dict[str, Any]]:
    """One row per point, fold and seed: the point, the metrics and the floor."""
    deviations: dict[str, Any] = {}

    def change(point: Point) -> Callable[[Run, LoadBatch], LoadBatch]:
        def changed(run: Run, load: LoadBatch) -> LoadBatch:
            name = run.fold_data.fold.name
            if point.disturbed == 'noise' and name not in deviations:
                deviations[name] = deviations_of(run, noisy)
            return disturb(point, noisy, deviations.get(name, {}), run, load)

        return changed

    rows: list[dict[str, Any]] = []
    for run, number, predictions in predict_changed(runs, split, [change(point) for point in points]):
        rows += [{**dataclasses.asdict(points[number]), **row} for row in measure_run(run, predictions)]
    return rows


def summary_of(rows: Sequence[Mapping[str, Any]], metric: str) -> Summary:
    """Mean and deviation over seeds, or folds, of the means over draws; of one seed and fold over the draws."""
    draws = sorted({row['draw'] for row in rows})
    values = np.stack([subsets.values_of([row for row in rows if row['draw'] == d], metric) for d in draws])
    return (
        over('draws' if len(draws) > 1 else '', values[:, 0, 0]) if values[0].size == 1 else summarise(values.mean(0))
    )


def panels_of(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Panel]:
    """The curves of a metric, the undisturbed value at level 0 of each."""
    clean = summary_of([row for row in rows if not row['disturbed']], metric)
    panels = []
    for how, axis in AXES.items():
        of_panel = [row for row in rows if row['disturbed'] == how]
        lines = []
        for name in dict.fromkeys(row['modality'] for row in of_panel):
            of_line = [row for row in of_panel if row['modality'] == name]
            levels = list(dict.fromkeys(row['level'] for row in of_line))
            values = [summary_of([row for row in of_line if row['level'] == level], metric) for level in levels]
            lines.append(Line(name, [0.0, *levels], [clean, *values]))
        if lines:
            panels.append(Panel(axis, lines, 100.0 if how == 'dropped' else 1.0))
    return panels


def floor_of(rows: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    return finite_mean(subsets.values_of([row for row in rows if not row['disturbed']], metric, 'floor'))


def blocks_of(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], picture: str = '') -> list[Any]:
    """The page: the picture, a table for each way to disturb, and what the numbers are."""
    metric = about['metric']
    floor = format_number(metric, floor_of(rows, metric))
    blocks: list[Any] = [Heading('Robustness', 1)]
    blocks += [Picture('The metric against lost steps and against noise', picture)] if picture else []
    for panel in panels_of(rows, metric):
        header, lines = degradation.table_of(panel, metric, floor)
        blocks.append(Table(header, lines, numbers=True))
    points = [subsets.training_words(about['modality_dropout']), *about['notes']]
    points += [f'⚠ {mark}' for mark in about['marks']]
    head = f'{about["name"]} on {about["dataset"]}, {about["protocol"]}, split {about["split"]}.'
    return [*blocks, Notes(f'{head} Mean ± standard deviation.', points), Notes('Made by mmer_jax.robustness.', ())]


def evaluate_robustness(
    runs: Sequence[Run],
    output: str | Path,
    *,
    split: str = 'test',
    metric: str = '',
    shares: Sequence[float] = SHARES,
    noise: Sequence[float] = NOISE,
    draws: int = 3,
    picture: str = 'png',
) -> dict[str, Any]:
    """Tests the open folds of a run on disturbed records, and writes the files; returns what robustness.json holds.

    metric: the one that is drawn, by default the run's first headline metric; all are in the rows. ValueError where it
    is not measured on these data.
    """
    check_folder(output, FILES)
    modalities, features = tuple(runs[0].config.modalities), runs[0].fold_data.source.schema.features
    noisy = tuple(m for m in modalities if takes_noise(features[m]))
    points = points_of(modalities, noisy, shares, noise, draws)
    metric = metric or next(iter(runs[0].config.headline), runs[0].config.selection.metric)
    known = runs[0].fold_data.source.schema.label.names
    about = describe(runs, split)
    measured = ['loss', *KINDS[about['metrics']].names(known)]
    if metric not in measured:
        raise command.WrongCall(f'--metric {metric}: these data have {", ".join(measured)}')
    rows = measure_points(runs, points, noisy, split)
    about |= {'metric': metric, 'notes': _notes(runs, noisy, draws)}
    name, whole = f'robustness.{picture}', {**about, 'rows': rows}
    floor = floor_of(rows, metric)
    title = f'{about["name"]} on {about["dataset"]}: steps lost, and noise added'
    flat = [{key: value for key, value in row.items() if key != 'floor'} for row in rows]
    panels = panels_of(rows, metric)
    files: dict[str, Any] = {
        'robustness.md': markdown(blocks_of(about, rows, name)),
        'robustness.csv': csv_text(flat),
        'robustness.json': json.dumps(to_json(whole, 'robustness.json', ''), indent=1, ensure_ascii=False) + '\n',
    }
    files[name] = lambda path: degradation.draw(panels, path, metric=metric, split=split, floor=floor, title=title)
    write_together(output, files)
    return whole


def _notes(runs: Sequence[Run], noisy: Sequence[str], draws: int) -> list[str]:
    modalities, folds, seeds = runs[0].config.modalities, len(runs), len(runs[0].seeds)
    over_what = f'{seeds} seeds' if seeds > 1 else f'{folds} folds' if folds > 1 else f'{draws} draws'
    notes = [
        f'{draws} draws of each level; ± is over {over_what}.',
        'A lost step is all 0 and stays a step; a lost token is taken out, and of a waveform 0.1 s go together.',
    ]
    silent = [m for m in modalities if m not in noisy]
    if silent:
        notes.append(f'No noise is added to {", ".join(silent)}: pictures and token ids are no measured numbers.')
    return notes


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.robustness', description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('workdir', type=Path, help='a finished run, or one of its fold folders')
    add('--output', type=Path, required=True, help='folder of robustness.png, .md, .csv and .json')
    add('--fold', type=ranges.COUNT_OR_0, help='number of one fold; all by default')
    add('--split', choices=SPLITS, default='test', help="of the run's data; test by default")
    add('--data', help="the run's own data at another place, or another shard directory, tested whole")
    add('--metric', default='', help="the metric that is drawn; the run's first headline metric by default")
    add('--shares', type=ranges.FRACTION, nargs='*', default=list(SHARES), help='of steps that are lost')
    add('--noise', type=ranges.NOT_NEGATIVE, nargs='*', default=list(NOISE), help='standard deviations of the noise')
    add('--draws', type=ranges.COUNT, default=3, help='of each level; 3 by default')
    canvas.add_flags(parser)
    cache.add_flag(parser)
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    cache.keep_programs(keep=not arguments.no_cache)
    runs = finished.open_runs(arguments.workdir, fold=arguments.fold, directory=arguments.data)
    found = evaluate_robustness(
        runs, arguments.output, split=arguments.split, metric=arguments.metric, shares=arguments.shares,
        noise=arguments.noise, draws=arguments.draws, picture=arguments.format,
    )  # fmt: skip
    print(markdown(blocks_of(found, found['rows'])), end='')
    print(f'robustness: {arguments.output}')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)
    sys.exit(main())
