"""Which label a record gets from a feature file: the column, and whether it is a number, a class or several yes or no.

A published file has one meaning, which its reader knows. For any other one the user says it:

    --label_kind regression|classes|binary    what the label is; a number unless given
    --label_column 2 | name | name:2          of the labels: a column, another key of the splits, or a column of that
    --classes anger,joy,sadness               names of the classes, or of the emotions that are present or not
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import sequences
from data_prep.pool import PreparationError
from mmer_jax.data.records import Label

KINDS = ('regression', 'classes', 'binary')


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the user says of the labels; all empty: what the reader knows of the data set."""

    kind: str = ''
    column: str = ''
    classes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kind or self.column or self.classes)

    @property
    def key(self) -> str:
        """The key of the splits that the column names, '' where it is only a number."""
        return '' if self.column.isdecimal() else self.column.partition(':')[0]

    @property
    def number(self) -> int | None:
        """The number of the column, None where none is given."""
        last = self.column.rpartition(':')[2] if ':' in self.column else self.column
        return int(last) if last.isdecimal() else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a Choice."""
    add = parser.add_argument
    add('--label_kind', choices=KINDS, help='what the label is; of a data set that is not listed, a number')
    add('--label_column', default='', help='a column of the labels, from 0, or another key of the splits')
    add('--classes', default='', help='names of the classes, or of what is present or not, by commas')


def of_arguments(arguments: argparse.Namespace) -> Choice:
    """The Choice of parsed flags; PreparationError where they contradict one another."""
    names = tuple(name.strip() for name in arguments.classes.split(',')) if arguments.classes else ()
    choice = Choice(arguments.label_kind or ('classes' if names else ''), arguments.label_column, names)
    if len(set(names)) < len(names) or '' in names:
        raise PreparationError(f'--classes {arguments.classes}: expected different names, by commas')
    if ':' in choice.column and choice.number is None:
        raise PreparationError(f'--label_column {choice.column}: expected a number after the colon')
    if choice.kind == 'regression' and names:
        raise PreparationError('--classes names classes, --label_kind regression has none; leave one of them out')
    if choice.kind == 'classes' and len(names) < 2:
        raise PreparationError(
            '--label_kind classes needs --classes with two names or more, in the order of the numbers'
        )
    return choice


def take(part: Mapping, choice: Choice, default: str, where: str) -> tuple[Any, str]:
    """(the labels of a split, where they are); PreparationError lists the keys where there are none."""
    key = choice.key or default
    if key not in part:
        keys = ', '.join(sorted(map(str, part)))
        raise PreparationError(f'{where} has no labels {key!r}: found {keys}; --label_column names the key')
    return part[key], f'{where}, {key}'


def read(values: Any, choice: Choice, count: int, where: str) -> list[Any]:
    """The label of each record: a float, the number of a class, or int (E,) for what is present or not."""
    if choice.kind == 'classes':
        return _classes(values, choice, count, where)
    table = _table(values, count, where)
    if choice.kind == 'binary':
        if choice.number is not None:
            table = _column(table, choice.number, where)
        if table.shape[1] == 2 * len(choice.classes or range(table.shape[1])):  # (E, 2): no, yes
            table = table.reshape(count, -1, 2)[:, :, 1]
        if choice.classes and table.shape[1] != len(choice.classes):
            raise PreparationError(
                f'{where}: {table.shape[1]} columns, expected {len(choice.classes)} as --classes has'
            )
        return list((table > 0).astype(np.int64))
    return _column(table, choice.number, where)[:, 0].tolist()


def schema_label(choice: Choice, example: Any) -> Label:
    """The label of the schema; `example` is one of `read`."""
    if choice.kind == 'classes':
        return Label('classes', choice.classes)
    if choice.kind == 'binary':
        return Label('binary', choice.classes or tuple(f'label_{n}' for n in range(len(example))))
    return Label('regression')


def _table(values: Any, count: int, where: str) -> np.ndarray:
    """Numbers (count, columns), finite, from any shape of as many for each record."""
    try:
        table = np.array([np.ravel(row) for row in sequences.take_column(values, count, where)], np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, PreparationError):
            raise
        raise PreparationError(f'{where}: expected as many numbers for each record ({error})') from error
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise PreparationError(f'{where}: record {row} has {table[row, column]}, expected a finite number')
    return table


def _column(table: np.ndarray, number: int | None, where: str) -> np.ndarray:
    columns = table.shape[1]
    if number is None and columns != 1:
        raise PreparationError(
            f'{where}: {columns} numbers for each record; choose one with --label_column 0 to {columns - 1}, '
            'or take all with --label_kind binary'
        )
    if number is not None and number >= columns:
        raise PreparationError(f'{where}: --label_column {number}, expected 0 to {columns - 1}')
    return table[:, [number or 0]]


def _classes(values: Any, choice: Choice, count: int, where: str) -> list[int]:
    """From numbers 0 to C - 1, the names themselves, or one 1 among C numbers."""
    rows: Sequence[Any] = sequences.take_column(values, count, where)
    names, found = choice.classes, []
    for number, row in enumerate(rows):
        cells = [
            cell.decode('utf-8', 'replace') if isinstance(cell, bytes) else cell for cell in np.ravel(row).tolist()
        ]
        if choice.number is not None:
            cells = cells[choice.number : choice.number + 1]
        is_number = all(isinstance(cell, (bool, int, float)) for cell in cells)
        if len(cells) == len(names) and is_number and sorted(cells) == [0] * (len(cells) - 1) + [1]:
            found.append(cells.index(1))
            continue
        cell = cells[0] if len(cells) == 1 else None
        if isinstance(cell, str) and cell in names:
            found.append(names.index(cell))
        elif isinstance(cell, (bool, int, float)) and cell == int(cell) and 0 <= cell < len(names):
            found.append(int(cell))
        else:
            shown = repr(cell) if len(cells) == 1 else f'{len(cells)} values'
            raise PreparationError(
                f'{where}: record {number} has {shown}, expected a number from 0 to {len(names) - 1}, one of '
                f'{", ".join(names)}, or one 1 among {len(names)} numbers'
            )
    return found
