"""A page of blocks as one HTML file that needs nothing else: style, script and pictures are inside.

Its security policy forbids every request and every script but its own, so that no text of a user can do either, even
if an escape were forgotten.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmer_jax.results import canvas
from mmer_jax.results.html_style import SCRIPT, STYLE
from mmer_jax.results.page import Block, Code, Details, Group, Heading, Notes, Picture, Table, Text, number_of

TYPES = {'png': 'image/png', 'svg': 'image/svg+xml'}
LANGUAGE = 'en'
LONG = 12  # letters of a text for which a column is made wide


def html(blocks: Sequence[Block], title: str, folder: Path, footer: str = '') -> str:
    """The page; files of pictures are read from `folder`. ValueError for a picture that a browser cannot show."""
    writer = _Writer(folder)
    body = [part for block in blocks for part in (writer.write(block), *_contents(block, blocks))]
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return '\n'.join([
        '<!DOCTYPE html>', f'<html lang="{LANGUAGE}">', '<head>', '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<title>{_text(title)}</title>', f'<style>{STYLE}</style>', '</head>', '<body>', '<main>', *body, '</main>',
        *([f'<footer><p>{_text(footer)}</p></footer>'] if footer else []),
        f'<script>{SCRIPT}</script>', '</body>', '</html>', '',
    ])  # fmt: skip


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _contents(block: Block, blocks: Iterable[Block]) -> list[str]:
    """Links to the parts of a page, below its title."""
    if not (isinstance(block, Heading) and block.level == 1):
        return []
    parts = [other.text for other in blocks if isinstance(other, Heading) and other.level == 2]
    names = _anchors(parts)
    links = [f'<li><a href="#{name}">{_text(text)}</a></li>' for name, text in zip(names, parts, strict=True)]
    return [f'<nav aria-label="parts of the page"><ul>{"".join(links)}</ul></nav>'] if len(links) > 1 else []


def _anchors(texts: Sequence[str]) -> list[str]:
    return [f'{number}-{re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")}' for number, text in enumerate(texts, 1)]


def _text(text: Any) -> str:
    """A text of anyone as HTML; control characters, which no page may hold, are shown as �."""
    return escape(re.sub(r'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]', '�', str(text)), quote=True)


class _Writer:
    """What each kind of block looks like; it counts the parts of the page."""

    def __init__(self, folder: Path):
        self.folder, self.parts = folder, 0

    def write(self, block: Block) -> str:
        match block:
            case Heading():
                return self._heading(block)
            case Text():
                return _paragraphs(block.text)
            case Notes():
                points = ''.join(f'<li{_warning(point)}>{_text(point)}</li>' for point in block.points)
                return _paragraphs(block.text) + (f'<ul>{points}</ul>' if points else '')
            case Code():
                return f'<pre><code>{_text(block.text)}</code></pre>'
            case Picture():
                return self._picture(block)
            case Table():
                return f'<div class="wide" tabindex="0" role="region" aria-label="table">{_table(block)}</div>'
            case Details():
                inside = '\n'.join(self.write(one) for one in block.blocks)
                return f'<details><summary>{_text(block.title)}</summary>\n{inside}\n</details>'
        raise AssertionError(block)

    def _heading(self, block: Heading) -> str:
        anchor = ''
        if block.level == 2:
            self.parts += 1
            number = re.sub(r'^\d+', str(self.parts), _anchors([block.text])[0])
            anchor = f' id="{number}"'
        return f'<h{block.level}{anchor}>{_text(block.text)}</h{block.level}>'

    def _picture(self, block: Picture) -> str:
        kind = canvas.format_of(block.file)
        if kind not in TYPES:
            found = f'a page shows pictures as {" or ".join(TYPES)}; choose one of these by --format'
            raise ValueError(f'{block.file}: {found}')
        content = (self.folder / block.file).read_bytes()
        width, text = _width_of(content, kind), _text(block.text)
        wide = f' width="{width}"' if width else ''
        source = f'data:{TYPES[kind]};base64,{base64.b64encode(content).decode()}'
        return f'<figure><img alt="{text}"{wide} src="{source}"><figcaption>{text}</figcaption></figure>'


def _width_of(content: bytes, kind: str) -> int | None:
    """How wide a picture was drawn, in the browser's pixels of 1/96 inch; None where it does not say."""
    head = content[:4096]
    if kind == 'svg':
        found = re.search(rb'<svg[^>]*? width="([0-9.]+)pt"', head, re.DOTALL)
        return round(float(found[1]) * 96 / 72) if found else None
    place = head.find(b'pHYs')
    if place < 0:
        return None
    (pixels,), (per_metre,) = struct.unpack('>I', head[16:20]), struct.unpack('>I', head[place + 4 : place + 8])
    return round(pixels / per_metre / 0.0254 * 96) if per_metre else None


def _paragraphs(text: str) -> str:
    return ''.join(f'<p>{_text(" ".join(part.split()))}</p>' for part in text.split('\n\n') if part.strip())


def _warning(text: Any) -> str:
    return ' class="mark"' if '⚠' in str(text) else ''


def _table(table: Table, *, inside: bool = False) -> str:
    """A table whose rows can be sorted by each column, and opened where there is a table behind them."""
    rows = [row for row in table.rows if not isinstance(row, Group)]
    right = [bool(n) and _of_numbers([row[n] for row in rows], table.numbers) for n in range(len(table.header))]
    sortable = len(rows) > 1 and not inside
    heads = []
    for title, number in zip(table.header, right, strict=True):
        # The first click brings the best to the top: the largest number, the smallest where the title has a ↓.
        first = ' data-first="ascending"' if '↓' in title or not number else ''
        text = f'<button class="sort" type="button">{_text(title)}</button>' if sortable else _text(title)
        heads.append(f'<th scope="col"{_side(number)}{first}>{text}</th>')
    bodies = [_body(table, number, right) for number in range(len(table.rows))]
    kind = ' class="sortable"' if sortable else ''
    return f'<table{kind}>\n<thead><tr>{"".join(heads)}</tr></thead>\n' + '\n'.join(bodies) + '\n</table>'


def _body(table: Table, number: int, right: Sequence[bool]) -> str:
    row, columns = table.rows[number], len(table.header)
    if isinstance(row, Group):
        head = f'<th colspan="{columns}" scope="colgroup">{_text(row.text)}</th>'
        return f'<tbody class="group"><tr class="group">{head}</tr></tbody>'
    cells = []
    for n, (cell, is_number) in enumerate(zip(row, right, strict=True)):
        key = number_of(cell) if is_number else None
        attributes = _side(is_number) + (f' data-key="{key!r}"' if key is not None else '')
        mark = f'<span{_warning(cell)}>{_text(cell)}</span>' if '⚠' in str(cell) else _text(cell)
        if n == 0:
            opener = '<button class="open" type="button" aria-expanded="false" aria-label="folds and seeds"></button>'
            opens, place = (opener, ' class="opens"') if number in table.inner else ('', '')
            cells.append(f'<th scope="row"{place}>{opens}{mark}</th>')
        else:
            long = ' class="text"' if not is_number and len(str(cell)) > LONG else ''
            cells.append(f'<td{long}{attributes}>{mark}</td>')
    warn = ' class="warn"' if any('⚠' in str(cell) for cell in row) else ''
    inner = table.inner.get(number)
    below = f'<tr class="inner"><td colspan="{columns}">{_table(inner, inside=True)}</td></tr>' if inner else ''
    return f'<tbody><tr{warn}>{"".join(cells)}</tr>{below}</tbody>'


def _side(number: bool) -> str:
    return ' class="n"' if number else ''


def _of_numbers(cells: Sequence[Any], numbers: bool) -> bool:
    filled = [cell for cell in cells if str(cell).strip() not in ('', '–')]
    return numbers or (bool(filled) and all(number_of(cell) is not None for cell in filled))
