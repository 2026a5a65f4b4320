"""A page as a list of blocks (headings, texts, notes, tables, pictures), written as Markdown; and csv files.

Commands make blocks of what they know; only this file knows what a heading or a table looks like in a file.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2

    def lines(self) -> list[str]:
        return [f'{"#" * self.level} {self.text}']


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, or several; Markdown is allowed."""

    text: str

    def lines(self) -> list[str]:
        return [self.text]


@dataclasses.dataclass(frozen=True)
class Notes:
    """A paragraph and the points below it, one line each."""

    text: str
    points: Sequence[str]

    def lines(self) -> list[str]:
        return [self.text, '', *(f'- {point}' for point in self.points)]


@dataclasses.dataclass(frozen=True)
class Code:
    text: str

    def lines(self) -> list[str]:
        return [f'    {line}' for line in self.text.splitlines()]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file beside the page; `text` says what it shows where it cannot be seen."""

    text: str
    file: str

    def lines(self) -> list[str]:
        return [f'![{self.text}]({self.file})']


@dataclasses.dataclass(frozen=True)
class Group:
    """A row of a table that is the heading of those below it."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of as many cells as the header has. `numbers`: all columns but the first are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any] | Group]
    numbers: bool = False

    def __post_init__(self):
        wrong = [row for row in self.rows if not isinstance(row, Group) and len(row) != len(self.header)]
        assert not wrong, f'a row of {len(wrong[0])} cells below {len(self.header)} titles: {wrong[0]}'

    def lines(self) -> list[str]:
        columns = len(self.header)
        rule = _row(['---', *['---:'] * (columns - 1)]) if self.numbers else '|' + '---|' * columns
        lines = [_row(self.header, empty=' '), rule]
        for row in self.rows:
            if isinstance(row, Group):
                lines.append(_row([f'**{row.text}**', *[''] * (columns - 1)], empty=' '))
            else:
                lines.append(_row(row))
        return lines


Block = Heading | Text | Notes | Code | Picture | Table


def _row(cells: Sequence[Any], empty: str = '  ') -> str:
    texts = [str(cell).replace('|', r'\|') for cell in cells]
    return f'|{"|".join(f" {text} " if text else empty for text in texts)}|'


def markdown(blocks: Iterable[Block]) -> str:
    """The page as Markdown, a blank line between blocks."""
    lines = [line for block in blocks for line in (*block.lines(), '')]
    return '\n'.join(lines).rstrip() + '\n'


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A csv file with a column for every key, in the order of their first appearance; empty where a row lacks it."""
    file = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
