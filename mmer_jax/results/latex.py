"""Tables of a page in LaTeX: a tabular with the rules of the package booktabs, every text escaped."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mmer_jax.files.outputs import MADE_BY
from mmer_jax.results.page import Block, Details, Group, Heading, Table, number_of

SPECIAL = {
    '\\': r'\textbackslash{}', '{': r'\{', '}': r'\}', '$': r'\$', '&': r'\&', '#': r'\#', '_': r'\_', '%': r'\%',
    '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': r'\textless{}', '>': r'\textgreater{}',
    '|': r'\textbar{}', '"': r'\textquotedbl{}', '±': r'$\pm$', '↓': r'$\downarrow$', '−': r'$-$', '–': '--',
    '…': r'\dots{}', '⚠': r'\textbf{!}',
}  # fmt: skip
PREAMBLE = f'% Tables made by {MADE_BY}; the preamble needs \\usepackage{{booktabs}} and \\usepackage[T1]{{fontenc}}.\n'


def latex(blocks: Iterable[Block]) -> str:
    """All tables of a page, each below its heading as a comment; texts and pictures are left out."""
    parts, heading = [PREAMBLE], ''
    for block in _flat(blocks):
        if isinstance(block, Heading):
            heading = ' '.join(block.text.split())
        elif isinstance(block, Table):
            parts.append(f'% {heading}\n{tabular(block)}\n')
    return '\n'.join(parts)


def _flat(blocks: Iterable[Block]) -> Iterable[Block]:
    for block in blocks:
        yield from _flat([Heading(block.title), *block.blocks]) if isinstance(block, Details) else [block]


def tabular(table: Table) -> str:
    """One table; columns of numbers are set to the right."""
    rows = [row for row in table.rows if not isinstance(row, Group)]
    sides = ''.join('r' if n and _is_numeric([row[n] for row in rows]) else 'l' for n in range(len(table.header)))
    lines = [f'\\begin{{tabular}}{{{sides}}}', r'\toprule', _line(table.header), r'\midrule']
    for number, row in enumerate(table.rows):
        if isinstance(row, Group):
            rule = [r'\midrule'] if number else []
            lines += [*rule, f'\\multicolumn{{{len(table.header)}}}{{l}}{{\\textbf{{{escape(row.text)}}}}} \\\\']
        else:
            lines.append(_line(row))
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}'])


def escape(text: Any) -> str:
    """The text as LaTeX prints it, on one line; control characters are left out."""
    line = re.sub(r'[\x00-\x1f\x7f]', '', ' '.join(str(text).split()))
    return ''.join(SPECIAL.get(letter, letter) for letter in line)


def _line(cells: Sequence[Any]) -> str:
    # A '[' after the '\\' of the line before would be taken for its argument.
    texts = [escape(cell) for cell in cells]
    return ' & '.join(f'{{{text}}}' if text.startswith('[') else text for text in texts) + r' \\'


def _is_numeric(cells: Sequence[Any]) -> bool:
    filled = [cell for cell in cells if str(cell).strip() not in ('', '–')]
    return bool(filled) and all(number_of(cell) is not None for cell in filled)
