"""A user's csv of clips -> which file, which words, which label; no media is opened.

Columns are found by name (`path`, `label`, `text`, `speaker`, `session`, `split`, `start`, `end`, `id`), or by the
names that flags give. The layout of MMSA-FET is known too: `label.csv` with video_id, clip_id, text, label, mode, and
the files Raw/<video_id>/<clip_id>.mp4 beside it.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.pool import PreparationError, Skipped
from mmer_jax.data.schema import Label
from mmer_jax.files import links
from mmer_jax.media.textfile import read_table
from mmer_jax.readers import MEDIA, Clip, seconds

COLUMNS = ('path', 'label', 'text', 'speaker', 'session', 'split', 'start', 'end', 'id')
TEXTS = ('speaker', 'session', 'split')
SPLITS = {
    'train': 'train', 'training': 'train', 'valid': 'validation', 'val': 'validation', 'dev': 'validation',
    'validation': 'validation', 'test': 'test', 'testing': 'test', '': '',
}  # fmt: skip
FEWEST, MOST_CLASSES = 2, 1000
WHOLE = re.compile(r'[+-]?\d+(?:\.0*)?')


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: its line, the clip, its label as the schema wants it, its columns for the manifest."""

    line: int
    clip: Clip
    label: Any
    columns: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows that can be used, the others with why, and the label of all."""

    path: Path
    rows: list[Row]
    skipped: list[tuple[str, Skipped]]
    label: Label
    why_label: str  # what the kind of label was told by


def read_clips(
    path: Path,
    media: Path | None = None,
    *,
    names: Mapping[str, str] | None = None,
    labels: Sequence[str] = (),
    label_kind: str = 'auto',
    classes: Sequence[str] = (),
    needs_media: bool = True,
) -> Table:
    """Reads the table. `media`: the folder that paths are relative to, that of the table by default.

    names: {column of COLUMNS: its name in this table}. labels: names of the label's columns where it is not `label`;
    several are 0/1 each. classes: in this order; as they come in the alphabet by default. needs_media: a row without a
    file is skipped, else its words are enough.

    PreparationError or MediaError where the table cannot be used; a row that cannot be is skipped and named.
    """
    names = {column: column for column in COLUMNS} | dict(names or {})
    content = read_table(path, expected='rows of path,label and optionally text,speaker,session,split,start,end')
    if not content:
        raise PreparationError(f'{path} has no rows; expected a row per clip under the names of the columns')
    found = list(content[0][1])
    fet = 'video_id' in found and 'clip_id' in found and names['path'] not in found
    if fet and names['split'] not in found and 'mode' in found:
        names['split'] = 'mode'
    columns = list(labels) or [names['label']]
    given = {column: name for column, name in names.items() if name != column}
    wanted = [*columns, *given.values(), *([] if fet or not needs_media else [names['path']])]
    _check_columns(path, found, wanted)
    root = (path.parent if media is None else media).resolve()
    if not root.is_dir():
        raise PreparationError(f'--media {media} is no folder; give the folder that the paths of {path} begin at')
    label, why = _label_of(path, content, columns, label_kind, classes)
    rows: list[Row] = []
    skipped: list[tuple[str, Skipped]] = []
    for line, cells in content:
        try:
            rows.append(_row(path, line, cells, names, columns, label, root, fet=fet, needs_media=needs_media))
        except _Unusable as error:
            skipped.append((f'line {line}', Skipped(error.reason, f'{path}, line {line}: {error.detail}', True)))
    return Table(path, _unique(path, rows, explicit=names['id'] in found), skipped, label, why)


class _Unusable(Exception):
    """A row that is left out."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if found.count(name) != 1:
            how = 'twice' if found.count(name) > 1 else 'missing'
            raise PreparationError(
                f'{path}: the column {name!r} is {how}; it has {", ".join(map(repr, found))}. Name another one by a '
                'flag, such as --label_column emotion or --path_column file'
            )


def _label_of(path: Path, content: Any, columns: Sequence[str], kind: str, classes: Sequence[str]) -> tuple[Label, str]:
    """The label of all rows, and by what its kind was told."""
    if len(columns) > 1:
        if kind not in ('auto', 'binary'):
            raise PreparationError(f'--label_kind {kind} has one column, found {len(columns)}: {", ".join(columns)}')
        return Label('binary', tuple(columns)), 'several columns'
    cells = [row[columns[0]].strip() for _, row in content]
    cells = [cell for cell in cells if cell]
    if not cells:
        raise PreparationError(f'{path}: the column {columns[0]!r} is empty')
    if kind == 'binary':
        return Label('binary', (columns[0],)), '--label_kind binary'
    why = f'--label_kind {kind}'
    if kind == 'auto':
        numbers = [_number(cell) for cell in cells]
        whole = all(WHOLE.fullmatch(cell) for cell in cells)
        if any(math.isnan(number) for number in numbers):
            kind, why = 'classes', 'not all labels are numbers'
        elif classes or (whole and min(numbers) >= 0 and len(set(numbers)) <= 20):
            kind, why = 'classes', 'whole numbers from 0 on; --label_kind regression takes them as values'
        else:
            kind, why = 'regression', 'the labels are numbers; --label_kind classes takes them as classes'
    if kind == 'regression':
        return Label('regression'), why
    if classes:
        return Label('classes', tuple(classes)), why
    counts = Counter(cells)
    if not FEWEST <= len(counts) <= MOST_CLASSES:
        raise PreparationError(
            f'{path}: the column {columns[0]!r} has {len(counts)} different labels, expected {FEWEST} to '
            f'{MOST_CLASSES} classes; choose another column with --label_column, or --label_kind regression'
        )
    numeric = all(WHOLE.fullmatch(cell) for cell in counts)
    return Label('classes', tuple(sorted(counts, key=_number if numeric else str))), why


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _row(
    path: Path, line: int, cells: Mapping[str, str], names: Mapping[str, str], columns: Sequence[str], label: Label,
    root: Path, *, fet: bool, needs_media: bool,
) -> Row:  # fmt: skip
    def cell(column: str) -> str:
        return cells.get(names[column], '').strip()

    file, fallback = _file(cells, cell('path'), root, fet=fet, needs_media=needs_media)
    start, end = _seconds(cell('start'), 'start') or 0.0, _seconds(cell('end'), 'end')
    if end is not None and end <= start:
        raise _Unusable('end not after start', f'start {start:g}, end {end:g}')
    split = cell('split').lower()
    if split not in SPLITS:
        raise _Unusable('unknown split', f'split {cell("split")!r}, expected train, validation or test')
    identity = cell('id') or fallback or f'line_{line}'
    if not cell('id') and (start or end is not None):
        identity += f'_{start:g}' + ('' if end is None else f'_{end:g}')
    known = {*(names[column] for column in COLUMNS), *columns, 'label', 'record', 'id'}
    extra = {k: v for k, v in cells.items() if k and k not in known and not k.startswith('length_')}
    manifest = {**extra, **{name: cell(name) for name in TEXTS}, 'split': SPLITS[split]}
    if fet and not manifest['session']:
        manifest['session'] = cells['video_id'].strip()
    text = cells.get(names['text'])
    clip = Clip(identity, file, text.strip() if text and text.strip() else None, start, end)
    if clip.text:  # also where no reader takes words: a published checkpoint may be asked about them later
        manifest['text'] = clip.text
    return Row(line, clip, _label(cells, columns, label), manifest)


def _file(cells: Mapping[str, str], name: str, root: Path, *, fet: bool, needs_media: bool) -> tuple[Path | None, str]:
    """(the file of a row, a name for its clip)."""
    if fet and not name:
        video, number = cells['video_id'].strip(), cells['clip_id'].strip()
        if _leaves(Path(video, number)):
            raise _Unusable('a path that leaves the folder', f'video_id {video!r}, clip_id {number!r}')
        for folder in (root / 'Raw' / video, root / video):
            for suffix in MEDIA:
                file = folder / f'{number}{suffix}'
                if file.is_file():
                    if links.leads_out(file, root):
                        raise _Unusable(links.OUT, str(file))
                    return file, f'{video}_{number}'
        if needs_media:
            expected = root / 'Raw' / video / f'{number}.mp4'
            raise _Unusable('no file of the clip', f'expected {expected} or another sound or video file of that name')
        return None, f'{video}_{number}'
    if not name:
        if needs_media:
            raise _Unusable('no path', 'the path is empty')
        return None, ''
    if not Path(name).is_absolute() and _leaves(Path(name)):
        raise _Unusable('a path that leaves the folder', f'{name!r} is outside of {root}; change --media')
    file = root / name
    if not file.is_file():
        raise _Unusable('no file of the clip', f'{file} is {"a folder" if file.is_dir() else "missing"}')
    if not Path(name).is_absolute() and links.leads_out(file, root):
        raise _Unusable(links.OUT, str(file))
    relative = Path(name).name if Path(name).is_absolute() else name
    return file, str(Path(relative).with_suffix('')).replace('\\', '/')


def _leaves(path: Path) -> bool:
    return path.is_absolute() or '..' in path.parts


def _seconds(cell: str, name: str) -> float | None:
    try:
        return seconds(cell)
    except ValueError as error:
        raise _Unusable(f'{name} is no time', f'{name} {error}') from None


def _label(cells: Mapping[str, str], columns: Sequence[str], label: Label) -> Any:
    values = [cells[column].strip() for column in columns]
    if not all(values):
        raise _Unusable('no label', f'{columns[values.index("")]} is empty')
    if label.kind == 'classes':
        if values[0] not in label.names:
            raise _Unusable('a label of no class', f'{values[0]!r}, expected one of {", ".join(label.names)}')
        return label.names.index(values[0])
    if label.kind == 'regression':
        number = _number(values[0])
        if not math.isfinite(number):
            raise _Unusable('a label that is no number', f'{columns[0]} {values[0]!r}, expected a finite number')
        return number
    numbers = [_number(value) for value in values]
    if any(number not in (0, 1) for number in numbers):
        raise _Unusable('a label that is not 0 or 1', f'{", ".join(values)} in {", ".join(columns)}')
    return [int(number) for number in numbers]


def _unique(path: Path, rows: list[Row], *, explicit: bool) -> list[Row]:
    """Rows with different ids: of the column `id` they must be, others get the number of their line."""
    counts = Counter(row.clip.id for row in rows)
    if explicit and (twice := [name for name, count in counts.items() if count > 1]):
        lines = [row.line for row in rows if row.clip.id == twice[0]]
        raise PreparationError(
            f'{path}: the id {twice[0]!r} stands in lines {lines[0]} and {lines[1]}; ids must differ'
        )
    return [
        row if counts[row.clip.id] == 1
        else dataclasses.replace(row, clip=dataclasses.replace(row.clip, id=f'{row.clip.id}_line_{row.line}'))
        for row in rows
    ]  # fmt: skip
