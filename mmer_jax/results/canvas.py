"""Where every picture is drawn and written: a figure without pyplot, and a file as PNG of 300 dpi, SVG or PDF.

Drawn through matplotlib's objects on the Agg canvas: no global state, no display needed. The same numbers give the
same file: no date and no version of matplotlib is written into it.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmer_jax.files import atomic
from mmer_jax.files.outputs import MADE_BY, PICTURES

DPI = 300  # of a PNG; a picture's size is in inches
LONGEST = 40  # characters of a name that a picture shows
METADATA: dict[str, dict[str, Any]] = {  # by it an own picture is known, and may be replaced
    'png': {'Software': MADE_BY},
    'svg': {'Creator': MADE_BY, 'Date': None},
    'pdf': {'Creator': MADE_BY, 'CreationDate': None, 'Producer': None},
}
FORMATS = tuple(METADATA)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), dpi=100, facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure, whole or not at all, in the format that the path ends in; ValueError for one that is unknown.

    A '$' in a name is a '$', never the beginning of a formula.
    """
    kind = format_of(path)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]
    with matplotlib.rc_context({'svg.hashsalt': MADE_BY}), atomic.writing(Path(path)) as file:
        figure.savefig(file, dpi=DPI, facecolor='white', format=kind, metadata=METADATA[kind])


def add_flags(parser: argparse.ArgumentParser, tables: str = '') -> None:
    """--format, and --latex of a command that writes tables, into the file of that name."""
    parser.add_argument('--format', choices=FORMATS, default='png', help='of the pictures; png by default')
    if tables:
        parser.add_argument('--latex', action='store_true', help=f'also {tables}: the tables, for the package booktabs')


def format_of(path: str | os.PathLike) -> str:
    """'png', 'svg' or 'pdf', as the path ends; a temporary file's '.bars.png.12.tmp' is a PNG."""
    endings = [part for part in Path(path).name.lower().split('.')[1:] if part in FORMATS]
    if not endings:
        raise ValueError(f'{path}: expected a picture that ends in .{", .".join(FORMATS)}')
    return endings[-1]


def mark_of(kind: str) -> bytes:
    """What an own picture of this format holds near one of its ends."""
    return PICTURES[kind]


def short(name: str, longest: int = LONGEST) -> str:
    """A name on one line, its end cut off where it is very long."""
    name = ' '.join(str(name).split())
    return name if len(name) <= longest else f'{name[: longest - 1]}…'
