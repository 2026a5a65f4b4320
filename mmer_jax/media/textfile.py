"""Text files that other programs wrote: one way to decode them, to cut them into lines, and to read a table or JSON.

A file with a byte-order mark is what the mark says: UTF-8, UTF-16 or UTF-32. One without is UTF-8; if it cannot be,
it is Windows-1252, which editors and spreadsheets on Windows write. Lines end at CR, LF and CRLF and nowhere else:
str.splitlines also cuts at byte 0x85, which is the ellipsis of Windows-1252, and at the separators of Unicode.
Blank lines at the end of a file are no lines. Every fault is a MediaError that names the file and the line.

Files that this toolkit writes are UTF-8 and are not read through here.
"""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download

MARKS = (  # the longer first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
LEGACY = 'cp1252'
SAVE = 'save it as UTF-8'
END = re.compile(r'\r\n|\r|\n')
HEAD = 1 << 16  # bytes of a large file from which its line ends are told


def read_text(path: str | os.PathLike, expected: str = 'a text file') -> str:
    """The text of a file without its mark; line ends stay as they are.

    MediaError: missing, empty, a failed download, or bytes that no encoding explains.
    """
    check_download(path, expected)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise MediaError(path, 'cannot be read', str(error.strerror)) from error
    return decode(content, path)


def read_lines(path: str | os.PathLike, expected: str = 'a text file') -> list[str]:
    """The lines of a file without their ends, and without the blank ones after the last; line n is at n - 1."""
    lines = END.split(read_text(path, expected))
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_rows(
    path: str | os.PathLike, expected: str = 'a table of comma-separated values', *, skip_spaces: bool = False
) -> list[tuple[int, list[str]]]:
    """(number of the line that a row ends on, its cells) of a CSV file; blank rows are left out.

    A quoted cell may hold line ends. `skip_spaces`: blanks after a comma are no part of a cell. MediaError also where
    a quote is not closed or not followed by a comma.
    """
    reader = csv.reader(io.StringIO(read_text(path, expected), newline=''), strict=True, skipinitialspace=skip_spaces)
    rows = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise MediaError(path, 'not a table', f'line {reader.line_num}: {error}; expected {expected}') from error
    return rows


def read_table(
    path: str | os.PathLike, columns: tuple[str, ...] = (), expected: str = 'a table of comma-separated values'
) -> list[tuple[int, dict[str, str]]]:
    """(line, {column: cell}) of each row of a CSV file whose first row names the columns, in the order of the file.

    MediaError where one of `columns` is missing or stands twice, or a row has another number of cells.
    """
    rows = read_rows(path, expected)
    if not rows:
        raise MediaError(path, 'an empty table', f'line 1 is blank; expected {expected}')
    (first, names), *rest = rows
    for name in columns:
        if names.count(name) != 1:
            found = f'line {first} has {names.count(name) or "no"} column {name!r}'
            raise MediaError(path, 'a table with other columns', f'{found}: {names}; expected {expected}')
    for line, row in rest:
        if len(row) != len(names):
            raise MediaError(path, 'a damaged table', f'line {line}: expected {len(names)} values, found {len(row)}')
    return [(line, dict(zip(names, row, strict=True))) for line, row in rest]


def read_json(path: str | os.PathLike, expected: str = 'a JSON file') -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(read_text(path, expected))
    except json.JSONDecodeError as error:
        detail = f'line {error.lineno}: {error.msg}; copy or download it again'
        raise MediaError(path, 'cannot be read as JSON', detail) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(path, 'cannot be read as JSON', f'{error}; copy or download it again') from error


def find_mark(head: bytes) -> tuple[str, int]:
    """(encoding, bytes of the mark) of a file that begins with `head`; ('', 0) without a mark."""
    return next(((encoding, len(mark)) for mark, encoding in MARKS if head.startswith(mark)), ('', 0))


def decode(content: bytes, path: str | os.PathLike) -> str:
    """Bytes -> text, as the head of this file says; `path` is for the error.

    Where no mark is given and the bytes are no UTF-8: if most of the characters beyond ASCII are UTF-8, the file is
    a damaged one (cut in the middle of a character, for instance), else it is Windows-1252.
    """
    encoding, skip = find_mark(content)
    body = memoryview(content)[skip:]
    if not encoding and b'\0' in content:
        line = 1 + content[: content.index(b'\0')].count(b'\n')
        raise MediaError(path, 'not a text file', f'line {line} holds a byte 0; if it is UTF-16 without a mark, {SAVE}')
    try:
        return str(body, encoding or 'utf-8')
    except UnicodeDecodeError as error:
        if encoding:
            raise _fault(path, bytes(body), encoding, error) from error
        if _is_mostly_utf8(content):
            raise _fault(path, content, 'utf-8', error) from error
    try:
        return content.decode(LEGACY)
    except UnicodeDecodeError as error:
        raise _fault(path, content, 'utf-8 and none of Windows-1252', error) from error


def _is_mostly_utf8(content: bytes) -> bool:
    """Whether more characters beyond ASCII are UTF-8 than bytes are not; chance makes a few of any text."""
    text = content.decode('utf-8', 'surrogateescape')
    wrong = sum('\udc80' <= character <= '\udcff' for character in text)
    return sum(character > '\x7f' for character in text) - wrong > wrong


def _fault(path: str | os.PathLike, content: bytes, encoding: str, error: UnicodeDecodeError) -> MediaError:
    before = content[: error.start].decode(encoding.split()[0], 'replace')
    found = f'byte 0x{content[error.start]:02x} is no {encoding}'
    return MediaError(path, 'text that cannot be decoded', f'line {1 + len(END.findall(before))}: {found}; {SAVE}')


def decode_word(word: bytes) -> str:
    """One word of a file too large to be decoded as a whole: UTF-8, else Windows-1252, else with escapes in it."""
    for encoding in ('utf-8', LEGACY):
        try:
            return word.decode(encoding)
        except UnicodeDecodeError:
            continue
    return word.decode('utf-8', 'backslashreplace')


def stream_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """The lines of a file of any size, one in memory at a time, as UTF-8 bytes without their ends and without a mark.

    Words may hold blanks of Unicode and byte 0x85. What is neither marked nor UTF-8 comes as it is (see decode_word).
    A file with CR alone as its line end is told by its first bytes. MediaError where a marked file cannot be decoded.
    """
    with open(path, 'rb') as file:
        head = file.read(HEAD)
        encoding, skip = find_mark(head)
        wide = encoding.startswith(('utf-16', 'utf-32'))
        if not wide and (b'\n' in head or b'\r' not in head):
            file.seek(skip)
            for line in file:
                yield line.rstrip(b'\r\n')
            return
    number = 1
    # Without a mark each byte stands for itself in latin-1, and comes back as the same byte.
    with open(path, encoding=encoding if wide else 'latin-1', newline='') as text:
        try:
            text.read(1 if wide else skip)  # the mark
            for row in text:
                yield row.rstrip('\r\n').encode('utf-8' if wide else 'latin-1')
                number += 1
        except UnicodeError as error:
            raise MediaError(path, 'text that cannot be decoded', f'line {number} or later: {error}; {SAVE}') from error
