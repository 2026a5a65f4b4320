"""manifest.csv: one row per record with what protocols and metrics read: label, speaker, session, split, lengths."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.schema import Label, RecordError

FIRST = ('record', 'id', 'label', 'speaker', 'session', 'split')
AGAIN = 'bring it back, or prepare the data set again'


def label_cell(label: Any) -> Any:
    """A label as its cell shows it: a number, or the numbers of binary labels with blanks between them."""
    array = np.asarray(label)
    found = (array.astype(np.int64) if array.dtype == bool else array).tolist()
    return ' '.join(map(str, found)) if isinstance(found, list) else found


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open(path, 'w', newline='', encoding='utf-8') as file:
        names = list(dict.fromkeys(key for row in rows for key in row))
        table = csv.DictWriter(file, names, restval='', lineterminator='\n')
        table.writeheader()
        table.writerows(rows)


def read_manifest(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """manifest.csv -> columns of equal length: `record` and `length_*` int64, others str.

    RecordError names the column or the record.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f'{path} is missing: {path.parent} is not a whole shard directory')
    return parse_manifest(path, path.read_bytes())


def parse_manifest(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        table = csv.reader(io.StringIO(content.decode('utf-8'), newline=''), strict=True)
        rows = [row for row in table if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f'{path} is damaged ({error}): {AGAIN}') from error
    names, rows = (rows[0], rows[1:]) if rows else ([], [])
    missing = [name for name in FIRST if name not in names]
    if missing or not rows:
        raise RecordError(f'{path} lacks the columns {missing} (or has no rows): {AGAIN}')
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise RecordError(f'{path}: record {number} has {len(row)} values, expected {len(names)}: {AGAIN}')
    if len(set(names)) < len(names):
        raise RecordError(f'{path} has a column twice: {", ".join(names)}; {AGAIN}')
    manifest = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    for name in names:
        if name == 'record' or name.startswith('length_'):
            manifest[name] = _whole_numbers(path, name, manifest[name])
    if not np.array_equal(manifest['record'], np.arange(len(rows))):
        raise RecordError(f'{path}: column record must count 0..{len(rows) - 1} in order; {AGAIN}')
    return manifest


def _whole_numbers(path: Path, name: str, cells: np.ndarray) -> np.ndarray:
    try:
        numbers = cells.astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise RecordError(f'{path}: column {name}: {error}; {AGAIN}') from error
    if (numbers < 0).any():
        record = int(np.flatnonzero(numbers < 0)[0])
        raise RecordError(f'{path}: column {name} of record {record} is {numbers[record]}, expected 0 or more; {AGAIN}')
    return numbers


def parse_labels(cells: np.ndarray, label: Label, where: str = 'manifest.csv') -> np.ndarray:
    """Cells of the column label -> int64 (R,) classes, float32 (R,) values or int64 (R, E) binary ones.

    RecordError, which names the first record at fault by its place among the cells, where one is no label.
    """
    kind, width = label.kind, len(label.names)
    try:
        if kind == 'binary':
            labels: np.ndarray = np.array([row.split() for row in cells]).astype(np.int64)
        else:
            labels = cells.astype(np.int64 if kind == 'classes' else np.float32)
        wrong = _are_wrong(labels, kind, width)
    except (ValueError, OverflowError):
        wrong = None
    if wrong is None:
        first = next((n for n, cell in enumerate(cells) if not _is_label(cell, label)), 0)
    elif wrong.any():
        first = int(np.flatnonzero(wrong)[0])
    else:
        return labels
    expected = {
        'classes': f'one of 0..{width - 1}',
        'regression': 'a finite number',
        'binary': f'{width} numbers 0 or 1',
    }[kind]
    raise RecordError(f'{where}: the label of record {first} is {str(cells[first])!r}, expected {expected}; {AGAIN}')


def _are_wrong(labels: np.ndarray, kind: str, width: int) -> np.ndarray | None:
    """Which labels are out of range; None where the shape is not the kind's."""
    if kind == 'regression':
        return ~np.isfinite(labels)
    if kind == 'classes':
        return (labels < 0) | (labels >= width)
    if labels.ndim != 2 or labels.shape[1] != width:
        return None
    return np.any((labels < 0) | (labels > 1), axis=1)


def _is_label(cell: str, label: Label) -> bool:
    try:
        parts: Iterable[float] = [(float if label.kind == 'regression' else int)(part) for part in cell.split()]
    except ValueError:
        return False
    array = np.asarray(parts, np.float64)
    if label.kind == 'regression':
        return array.shape == (1,) and bool(np.isfinite(array).all())
    limit, count = (1, len(label.names)) if label.kind == 'binary' else (len(label.names) - 1, 1)
    return array.shape == (count,) and bool(((array >= 0) & (array <= limit)).all())
