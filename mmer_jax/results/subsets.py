"""The table of a run tested with every subset of its modalities: mean ± deviation, floor, how it was trained."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmer_jax.files import to_json
from mmer_jax.metrics import KINDS
from mmer_jax.results.page import Block, Heading, Notes, Table, csv_text, markdown
from mmer_jax.results.summary import Summary, column_title, finite_mean, format_number, format_summary, summarise

Rows = Sequence[Mapping[str, Any]]
FILES = {
    'subsets.md': b'Made by mmer_jax.evaluate --every_subset',
    'subsets.csv': b'modalities,fold,seed',
    'subsets.json': b'"modality_dropout"',
}


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the whole first, then the larger before the smaller: seven of three."""
    sizes = range(len(modalities), 0, -1)
    return [subset for size in sizes for subset in itertools.combinations(modalities, size)]


def values_of(rows: Rows, metric: str, part: str = '') -> np.ndarray:
    """(folds, seeds) of a metric, or of its floor (part='floor'); NaN where it is undefined."""
    folds = list(dict.fromkeys(row['fold'] for row in rows))
    seeds = list(dict.fromkeys(row['seed'] for row in rows))
    values = np.full((len(folds), len(seeds)), np.nan)
    for row in rows:
        value = (row[part] if part else row).get(metric)
        values[folds.index(row['fold']), seeds.index(row['seed'])] = np.nan if value is None else value
    return values


def training_words(probability: float | None) -> str:
    """How far the training prepared a model for what it lacks here."""
    if probability is None:
        return (
            '⚠ Trained without modality_dropout: the model has met a missing modality only where a record lacks it. '
            'These numbers say how much it leans on each, not what it could do without.'
        )
    return f'Trained with modality_dropout: each modality of a record was missing with probability {probability:g}.'


def dropout_of(augmentations: Sequence[Sequence[Any]]) -> float | None:
    """The probability of modality_dropout in config.data.augment; None where it is not there, or 0."""
    found = [options['probability'] for name, options in augmentations if name == 'modality_dropout']
    return max(found) if found and max(found) > 0 else None


def subset_table(rows: Rows, kind: str) -> Table:
    """One row per subset, one column per metric of the whole split, and the floor below."""
    metrics = [metric for metric in KINDS[kind].whole if metric in rows[0]]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row['modalities']), []).append(row)
    lines = [
        [' + '.join(subset), *(format_summary(m, summarise(values_of(found, m))) for m in metrics)]
        for subset, found in groups.items()
    ]
    floor = [
        'floor: best constant answer',
        *(format_number(m, finite_mean(values_of(rows, m, 'floor'))) for m in metrics),
    ]
    return Table(['tested with', *map(column_title, metrics)], [*lines, floor], numbers=True)


def over_words(rows: Rows, kind: str) -> str:
    """What ± is over."""
    metric = next(metric for metric in KINDS[kind].whole if metric in rows[0])
    first = [row for row in rows if row['modalities'] == rows[0]['modalities']]
    folds, seeds = values_of(first, metric).shape
    found: Summary = summarise(values_of(first, metric))
    count = {'seeds': seeds, 'folds': folds}.get(found.over)
    deviation = f'± is the standard deviation over {count} {found.over}.' if count else 'One fold and one seed: no ±.'
    return (
        f'{deviation} Each number is a mean over {folds} x {seeds} folds x seeds.' if folds * seeds > 1 else deviation
    )


def subset_blocks(about: Mapping[str, Any], rows: Rows) -> list[Block]:
    """The page: `about` has name, dataset, protocol, split, metrics (the kind), modality_dropout and marks."""
    points = [training_words(about['modality_dropout']), over_words(rows, about['metrics'])]
    points += [f'⚠ {mark}' for mark in about['marks']]
    head = f'{about["name"]} on {about["dataset"]}, {about["protocol"]}, split {about["split"]}.'
    return [
        Heading('Every subset of the modalities', 1),
        subset_table(rows, about['metrics']),
        Notes(f'{head} What a row does not name was hidden in every record.', points),
        Notes('Made by mmer_jax.evaluate --every_subset.', ()),
    ]


def subset_files(about: Mapping[str, Any], rows: Rows) -> dict[str, str]:
    """subsets.md, .csv (one line per subset, fold and seed) and .json, as write_together takes them."""
    flat = [
        {**row, 'modalities': ' + '.join(row['modalities']), 'floor': None}
        | {
            f'floor_{metric}': value
            for metric, value in row['floor'].items()
            if metric in KINDS[about['metrics']].whole
        }
        for row in rows
    ]
    lines = csv_text([{key: value for key, value in row.items() if key != 'floor'} for row in flat])
    whole = json.dumps(to_json({**about, 'rows': list(rows)}, 'subsets.json', ''), indent=1, ensure_ascii=False)
    return {
        'subsets.md': markdown(subset_blocks(about, rows)),
        'subsets.csv': lines,
        'subsets.json': whole + '\n',
    }
