"""The tables of the campaign, in Markdown, with what made them."""

import datetime
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows by column name; a last row sums up the numbers."""
    total: dict[str, Any] = {columns[0]: 'all'}
    for name in columns[1:]:
        if rows and all(isinstance(row.get(name, 0), int) for row in rows):
            total[name] = sum(row.get(name, 0) for row in rows)
    lines = [f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
    for row in [*rows, total]:
        lines.append(f'| {" | ".join(str(row.get(name, "")) for name in columns)} |')
    return '\n'.join(lines)


def heading(words: Sequence[str], *, cpu: float, seconds: float) -> str:
    """The command, the day and the time that it took."""
    command = f'python -m tests.campaign {" ".join(words)}'
    where = f'Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs'
    return f'`{command}`, {datetime.date.today()}: {cpu:.0f} s of CPU, {seconds:.0f} s ({where})'


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
