"""What prediction prints and writes: a line per clip, predictions.jsonl, predictions.csv, a timeline per long clip."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmer_jax.files import replace, to_json
from mmer_jax.files.outputs import PICTURES, check_folder
from mmer_jax.prediction.predictor import Failure, Prediction, Predictor

FILES = {
    'predictions.jsonl': b'{"id": ',
    'predictions.csv': b'id,path,start,end,prediction',
    **{f'timeline_*.{kind}': mark for kind, mark in PICTURES.items()},
}
FORMULA = ('=', '+', '-', '@', '\t', '\r')  # a cell that begins so is a formula to a spreadsheet


def check(folder: Path) -> None:
    """FileExistsError where the folder holds other files under these names."""
    check_folder(folder, FILES)


def is_failure(row: Prediction | Failure) -> bool:
    return isinstance(row, Failure)


def lines(rows: Sequence[Prediction | Failure], shown: int) -> Iterator[str]:
    """One line for each clip, then one for each different note and its number of clips."""
    notes: dict[str, int] = {}
    for row in rows:
        if isinstance(row, Failure):
            yield f'error: {printable(row.error)}'
            continue
        yield f'{printable(row.clip.id)}: {_words(row, shown)}'
        for note in row.notes:
            notes[note] = notes.get(note, 0) + 1
    for note, count in notes.items():
        yield f'note: {note} ({count} of {len(rows)} clips)'


def _words(row: Prediction, shown: int) -> str:
    spread = row.spread
    if row.kind == 'regression':
        several = len(row.by_model) > 1
        values = {name: f'{v:.3f}' + f' ± {spread[name]:.3f}' * several for name, v in row.scores.items()}
        return ', '.join(f'{printable(name)} {v}' if len(values) > 1 else v for name, v in values.items())
    best = sorted(row.scores, key=lambda name: -row.scores[name])[: shown if row.kind == 'classes' else None]
    return ', '.join(f'{printable(name)} {100 * row.scores[name]:.1f} %' for name in best)


def printable(text: str) -> str:
    """Text on a terminal: what is no printable character, such as an escape sequence, by its code."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def write(
    folder: Path, rows: Sequence[Prediction | Failure], predictor: Predictor, *, timelines: str = ''
) -> list[Path]:
    """Writes the files, each whole or not at all; returns their paths. timelines: their format, '' for none."""
    folder.mkdir(parents=True, exist_ok=True)
    content = ''.join(
        json.dumps(to_json(row.to_json(), 'predictions.jsonl', ''), ensure_ascii=False, allow_nan=False) + '\n'
        for row in rows
    )
    replace(folder / 'predictions.jsonl', content.encode())
    replace(folder / 'predictions.csv', _csv(rows, predictor).encode())
    written = [folder / 'predictions.jsonl', folder / 'predictions.csv']
    return written + (_timelines(folder, rows, predictor, timelines) if timelines else [])


def _csv(rows: Sequence[Prediction | Failure], predictor: Predictor) -> str:
    names = predictor.class_names or ('score',)
    file = io.StringIO(newline='')
    table = csv.writer(file, lineterminator='\n')
    table.writerow(['id', 'path', 'start', 'end', 'prediction', *map(cell, names), 'notes', 'error'])
    for row in rows:
        known = [cell(row.clip.id), cell(str(row.clip.path or '')), row.clip.start]
        known.append('' if row.clip.end is None else row.clip.end)
        if isinstance(row, Failure):
            table.writerow([*known, '', *[''] * len(names), '', cell(row.error)])
            continue
        label = '' if row.label is None else row.label
        label = ' '.join(label) if isinstance(label, list) else label
        shown = f'{label:.6g}' if isinstance(label, float) else cell(label)
        scores = [f'{row.scores[name]:.6g}' for name in names]
        table.writerow([*known, shown, *scores, cell('; '.join(row.notes)), ''])
    return file.getvalue()


def cell(text: str) -> str:
    """Text of others in a csv: never a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _timelines(folder: Path, rows: Sequence[Any], predictor: Predictor, kind: str) -> list[Path]:
    """A picture for each clip with two windows or more, named by its number and its name."""
    from mmer_jax.results import timeline  # matplotlib: only long clips wait for it

    groups: dict[str, list[Prediction]] = {}
    for row in rows:
        if isinstance(row, Prediction):
            groups.setdefault(str(row.clip.path), []).append(row)
    written = []
    for number, (name, found) in enumerate((k, v) for k, v in groups.items() if len(v) > 1):
        stem = re.sub(r'[^A-Za-z0-9_-]+', '_', Path(name).stem)[:60]
        path = folder / f'timeline_{number:03d}_{stem}.{kind}'
        spans = [(row.clip.start, row.clip.end or row.clip.start) for row in found]
        scores = {k: [row.scores[k] for row in found] for k in predictor.class_names or ('score',)}
        spread = {k: [row.spread[k] for row in found] for k in scores}
        timeline.draw(spans, scores, spread, path, title=Path(name).name, kind=found[0].kind)
        written.append(path)
    return written
