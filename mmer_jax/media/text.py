"""Words -> word vectors: GloVe's text format read line by line, and the tokens of a segment looked up in it.

A GloVe file has one line a word: the word, a space, D numbers (Pennington, Socher and Manning 2014). glove.840B.300d
is 5 GB with 2.2 million words, so only the words asked for are kept. Some of its words contain spaces, also those of
Unicode that a line or a word must not be cut at, hence a line is split from the right, at the blanks of ASCII.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np

from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download
from mmer_jax.media.textfile import decode_word, stream_lines

PAUSES = ('', 'sp', '{sp}', '<sp>')  # how forced aligners write a silence between words


@dataclasses.dataclass(frozen=True, eq=False)
class WordVectors:
    """Vectors float32 (V, D) and the row of each word."""

    rows: dict[str, int]
    array: np.ndarray

    @property
    def size(self) -> int:
        return self.array.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, token: str) -> int | None:
        """The row of the token, else of its lower-case form, else None."""
        return self.rows.get(token, self.rows.get(token.lower()))


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
    """What `embed` found: vectors float32 (T, D), the places of their tokens int64 (T,), and the unknown words."""

    array: np.ndarray
    kept: np.ndarray
    unknown: list[str]


def read_glove(path: str | os.PathLike, words: Iterable[str] | None = None) -> WordVectors:
    """Reads the vectors of `words` and of their lower-case forms; None reads every word of the file.

    Memory holds the wanted words only. D is taken from the first line, or from the header 'words D' that word2vec
    writes. Where a word stands twice, the first vector counts, as in GloVe's own tools. The numbers of unwanted
    words are counted, not parsed. MediaError names the file and the line: another number of values than D, a value
    that is no finite number, a file without any vector.
    """
    check_download(path, 'lines of a word and its vector, as in glove.840B.300d.txt')
    wanted = None if words is None else {form.encode() for word in words for form in (word, word.lower())}
    rows: dict[bytes, int] = {}
    vectors: list[np.ndarray] = []
    size = lines = 0
    for number, line in enumerate(stream_lines(path), start=1):
        line = line.rstrip(b' \t')
        if number == 1:
            size, is_header = _vector_size(line, path)
            if is_header:
                continue
        if not line:
            continue
        lines += 1
        word = _word(line, size, path, number)
        if not word.isascii():
            word = decode_word(word).encode()
        if word in rows or (wanted is not None and word not in wanted):
            continue
        rows[word] = len(vectors)
        vectors.append(_values(line, size, path, number))
    if not lines:
        raise MediaError(path, 'no word vectors', 'the file has a header and nothing else; download it again')
    array = np.stack(vectors) if vectors else np.zeros((0, size), np.float32)
    return WordVectors({word.decode(): row for word, row in rows.items()}, array)


def _vector_size(line: bytes, path: str | os.PathLike) -> tuple[int, bool]:
    """(D, whether this first line is word2vec's header)."""
    fields = line.split(b' ')
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        return int(fields[1]), True
    size = 0
    while size < len(fields) - 1 and _is_number(fields[-1 - size]):
        size += 1
    if size == 0:
        found = line[:40].decode(errors='replace')
        raise MediaError(path, 'not word vectors', f'line 1 is {found!r}, expected a word and its numbers')
    return size, False


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _word(line: bytes, size: int, path: str | os.PathLike, number: int) -> bytes:
    spaces = line.count(b' ')
    if spaces < size:
        found = f'line {number} has {spaces} values, expected {size}'
        raise MediaError(
            path, 'a line without a whole vector', f'{found}; the file may be truncated: download it again'
        )
    return line[: line.index(b' ')] if spaces == size else line.rsplit(b' ', size)[0]


def _values(line: bytes, size: int, path: str | os.PathLike, number: int) -> np.ndarray:
    fields = line.rsplit(b' ', size)[1:]
    try:
        values = np.array([float(field) for field in fields])
    except ValueError as error:
        raise MediaError(path, 'a value that is no number', f'line {number}: {error}; download it again') from error
    if not np.isfinite(values).all() or np.abs(values).max() > np.finfo(np.float32).max:
        raise MediaError(path, 'a value that is not finite', f'line {number}; remove the word or download it again')
    return values.astype(np.float32)


def is_pause(token: str) -> bool:
    """Whether a token stands for a silence and not for a word."""
    return token.strip().lower() in PAUSES


def embed(tokens: Sequence[str], vectors: WordVectors, *, unknown: str = 'zero', keep_pauses: bool = False) -> Embedded:
    """Looks up the tokens of one segment, each as it is written, else in lower case.

    `unknown` says what a word without a vector becomes: 'zero', a zero vector in its place, or 'drop', nothing.
    Pauses ('sp') are removed, or with `keep_pauses` stay as zero vectors and are not counted as unknown words.
    T may be 0. ValueError on another policy.
    """
    if unknown not in ('zero', 'drop'):
        raise ValueError(f"unknown is {unknown!r}, expected 'zero' or 'drop'")
    kept, found, missing = [], [], []
    for place, token in enumerate(tokens):
        pause = is_pause(token)
        row = None if pause else vectors.row(token)
        if row is None and not pause:
            missing.append(token)
        if (pause and not keep_pauses) or (row is None and not pause and unknown == 'drop'):
            continue
        kept.append(place)
        found.append(-1 if row is None else row)
    array = np.zeros((len(kept), vectors.size), np.float32)
    rows = np.array(found, np.int64)
    array[rows >= 0] = vectors.array[rows[rows >= 0]]
    return Embedded(array, np.array(kept, np.int64), missing)
