"""A page as a list of blocks (headings, texts, notes, tables, pictures), written as Markdown; and csv files.

Commands make blocks of what they know. What a block looks like stands in one place for each kind of file: here for
Markdown and csv, in html.py and in latex.py for these. Every text of a block may come from a user: each writer escapes.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NUMBER = re.compile(r'[+-]?(\d[\d,]*(\.\d*)?|\.\d+)(e[+-]?\d+)?(?![\w.])', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2

    def lines(self) -> list[str]:
        return [f'{"#" * self.level} {_plain(self.text)}']


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, or several, an empty line between them; written by the toolkit, in Markdown."""

    text: str

    def lines(self) -> list[str]:
        return [self.text]


@dataclasses.dataclass(frozen=True)
class Notes:
    """A paragraph and the points below it, one line each."""

    text: str
    points: Sequence[str]

    def lines(self) -> list[str]:
        return [self.text, '', *(f'- {_plain(point)}' for point in self.points)]


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
        return [f'![{_plain(self.text)}]({self.file})']


@dataclasses.dataclass(frozen=True)
class Group:
    """A row of a table that is the heading of those below it."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of as many cells as the header has. `numbers`: all columns but the first are set to the right.

    `inner`: the table behind a row, by the row's number, for kinds of files in which it can be opened (HTML).
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any] | Group]
    numbers: bool = False
    inner: Mapping[int, 'Table'] = dataclasses.field(default_factory=dict)

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


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks below a title, closed at first where the kind of file can."""

    title: str
    blocks: Sequence['Block']

    def lines(self) -> list[str]:
        return [f'**{_plain(self.title)}**', '', *(line for block in self.blocks for line in (*block.lines(), ''))][:-1]


Block = Heading | Text | Notes | Code | Picture | Table | Details


def _plain(text: Any) -> str:
    """A text on one line in which no tag begins."""
    return re.sub(r'\s*[\r\n]+\s*', ' ', str(text)).replace('<', '&lt;')


def _row(cells: Sequence[Any], empty: str = '  ') -> str:
    texts = [_plain(cell).replace('|', r'\|') for cell in cells]
    return f'|{"|".join(f" {text} " if text else empty for text in texts)}|'


def markdown(blocks: Iterable[Block]) -> str:
    """The page as Markdown, a blank line between blocks."""
    lines = [line for block in blocks for line in (*block.lines(), '')]
    return '\n'.join(lines).rstrip() + '\n'


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A csv file with a column for every key, in the order of their first appearance; empty where a row lacks it.

    A text that a spreadsheet would take for a formula gets a ' before it.
    """
    file = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return file.getvalue()


def _no_formula(value: Any) -> Any:
    begins = isinstance(value, str) and value[:1] in ('=', '+', '-', '@', '\t', '\r')
    return f"'{value}" if begins and not NUMBER.fullmatch(value) else value


def number_of(cell: Any) -> float | None:
    """The number that a cell of a table begins with ('60.0 ± 10.0' -> 60), None where it begins with something else."""
    found = NUMBER.match(str(cell).replace('−', '-').strip())
    return float(found[0].replace(',', '')) if found else None
