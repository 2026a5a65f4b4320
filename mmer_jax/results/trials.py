"""The trials of a search as search.json has them: a table, best first, what their keys weigh, and csv.

Values are of validation: no trial has read the test split.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import read_json
from mmer_jax.metrics import about
from mmer_jax.results.choice import shown
from mmer_jax.results.page import Block, Heading, Notes, Table, csv_text
from mmer_jax.results.runs import SEARCH as FILE
from mmer_jax.results.runs import ReportError, flat, unique
from mmer_jax.results.summary import column_title, format_number, format_summary, summarise

KEYS = ('format', 'config', 'metric', 'higher', 'trials', 'importance')
ORDER = ('finished', 'pruned', 'running', 'waiting', 'failed')
EXPLANATION = """\
Each value is of validation, at the epoch that validation chose: the mean over folds and seeds, ± the standard deviation
over the seeds (or the folds, with one seed). The best of many trials looks better than it is: train its config and read
the test split once. A pruned trial was worse than the median of the others at the epoch that is named."""


def find_searches(paths: Sequence[str | Path]) -> list[Path]:
    """The folders of searches at or below the paths, each once, in their order."""
    found = [folder for path in map(Path, paths) if path.is_dir() for folder in _at_or_below(path)]
    return list({folder.resolve(): folder for folder in found}.values())


def _at_or_below(path: Path) -> Iterator[Path]:
    if (path / FILE).is_file():
        yield path
    elif not (path / 'config.json').is_file():  # in a run is no search
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _at_or_below(child)


def read_search(folder: Path) -> dict[str, Any]:
    """search.json of a folder; ReportError where it is damaged."""
    try:
        found = read_json(folder / FILE)
    except ValueError as error:
        raise ReportError(f'{folder / FILE} is damaged ({error}): the command of the search writes it anew') from error
    missing = [key for key in KEYS if not isinstance(found, dict) or key not in found]
    if missing:
        raise ReportError(f'{folder / FILE} lacks {", ".join(missing)}; it was not written by mmer_jax.search')
    if found['format'] != 1:
        raise ReportError(f'{folder / FILE} has format {found["format"]}, expected 1; use the version that wrote it')
    return found


def ordered(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Finished trials, the best first, then pruned ones, then the others."""
    sign = -1 if search['higher'] else 1

    def place(trial: Mapping[str, Any]) -> tuple:
        return ORDER.index(trial['state']), sign * (trial['value'] or 0), trial['number']

    return sorted(search['trials'], key=place)


def names_of(search: Mapping[str, Any]) -> dict[str, str]:
    """What each searched key is called in a table: its last part, or the whole where two would be alike."""
    keys = unique(entry[0] for entry in search['config']['search'])
    leaves = [key.rpartition('.')[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def trials_table(search: Mapping[str, Any]) -> Table:
    """A row per trial, a column per key that was searched."""
    metric, names = search['metric'], names_of(search)
    rows = []
    for trial in ordered(search):
        values = [shown(trial['values'][key]) if key in trial['values'] else '' for key in names]
        rows.append([str(trial['number']), _value(metric, trial), *values, _epochs(trial), _state(trial)])
    return Table(['trial', column_title(f'validation/{metric}'), *names.values(), 'best epoch', 'state'], rows)


def in_words(metric: str, value: float) -> str:
    """'validation UAR 51.2 %'."""
    return f'validation {about(metric).title} {format_number(metric, value)}{" %" if about(metric).percent else ""}'


def _value(metric: str, trial: Mapping[str, Any]) -> str:
    if not trial['rows']:
        return format_number(metric, trial['value'])
    folds, seeds = unique(row['fold'] for row in trial['rows']), unique(row['seed'] for row in trial['rows'])
    found = {(row['fold'], row['seed']): row['value'] for row in trial['rows']}
    return format_summary(metric, summarise(np.array([[found[fold, seed] for seed in seeds] for fold in folds])))


def _epochs(trial: Mapping[str, Any]) -> str:
    epochs = [row['best_epoch'] for row in trial['rows'] or ()]
    return f'{np.mean(epochs):.0f}' if epochs else ''


def _state(trial: Mapping[str, Any]) -> str:
    joined = {'pruned': ' at ', 'failed': ': '}.get(trial['state'], '')
    return trial['state'] + (f'{joined}{trial["fault"]}' if joined and trial['fault'] else '')


def blocks(search: Mapping[str, Any], title: str, level: int = 2) -> list[Block]:
    """A heading, the table and what stands below it."""
    trials, names = search['trials'], names_of(search)
    counts = {state: sum(trial['state'] == state for trial in trials) for state in ORDER}
    points = [', '.join(f'{count} {state}' for state, count in counts.items() if count) or 'no trial yet']
    if search['importance']:
        shares = ', '.join(f'{names.get(key, key)} {100 * share:.0f} %' for key, share in search['importance'].items())
        points.append(f'What explains how the values of finished trials differ (fANOVA): {shares}')
    for key, way, *values in search['config']['search']:
        points.append(f'Searched: {key}, {way} {(" or " if way == "choice" else " to ").join(map(shown, values))}')
    same = dict(flat(search['config']))
    points.append(f'Config: {same["name"]}; seeds per trial: {same["seeds"]}')
    return [Heading(title, level), trials_table(search), Notes(EXPLANATION, points)]


def trials_csv(search: Mapping[str, Any]) -> str:
    """A line per trial, the best first; values are fractions, except those of mae and loss."""
    lines = []
    for trial in ordered(search):
        line = {'trial': trial['number'], 'state': trial['state'], f'validation_{search["metric"]}': trial['value']}
        line |= {
            key: shown(value) if isinstance(value, list | tuple) else value for key, value in trial['values'].items()
        }
        lines.append(
            {**dict.fromkeys((*line, *names_of(search))), **line, 'seconds': trial['seconds'], 'fault': trial['fault']}
        )
    return csv_text(lines)
