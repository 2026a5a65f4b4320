"""Files of a run: JSON, lines of JSON and .npz, each written whole or not at all and read with one clear error.

What a command may replace is in files/outputs.py. Nothing here imports jax.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import atomic, npy, sums

AGAIN = 'remove results.json of this fold and start the run again with its command, which writes both anew'


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a `.jsonl` file. A partial last line, left by a kill, is ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another line is corrupt; the message has the file and the line's number.
    """
    return [row for _, _, row in parse_lines(Path(path))]


def write_json(path: str | os.PathLike, value: Any, *, sealed: bool = False) -> None:
    """Writes JSON atomically: a reader, or a kill, sees the old file or the new one, never a part.

    numpy scalars and arrays become numbers and lists. sealed: an object carries its own sum, which read_json compares.

    Raises:
        ValueError: a number is NaN or infinite; the message names its key.
        TypeError: a value has no JSON form.
    """
    path, plain = Path(path), to_json(value, Path(path).name, '')
    if sealed:
        plain[sums.OWN] = sums.own_sum(plain)
    text = json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False)
    replace(path, (text + '\n').encode())


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file; the sum of one that carries it is compared and left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or was changed; the message has the file, line and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; check the path, or that the run which writes it is finished')
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: not valid JSON ({error}); restore the file or run again') from error
    if isinstance(content, dict) and content.pop(sums.OWN, None) not in (None, sums.own_sum(content)):
        fault = ValueError('its sum differs: it was changed since it was written')
        raise ValueError(f'{path}: {fault}; restore the file or run again') from fault
    return content


def read_arrays(path: str | os.PathLike, names: Sequence[str], advice: str = AGAIN) -> dict[str, np.ndarray]:
    """The arrays named of an .npz file; nothing in it is unpickled. `advice` is what to do where it is damaged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, empty or lacks one; the message has the file and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; check the path, or that the run which writes it is finished')
    try:
        with open(path, 'rb') as stream:
            npy.check_zip(stream)
        with open(path, 'rb') as stream, np.load(stream) as file:  # np.load leaves a damaged file open
            return {name: file[name] for name in names}
    except npy.FAULTS as error:
        raise ValueError(f'{path} is damaged ({npy.why(error)}): {advice}') from error


def save_arrays(path: str | os.PathLike, **arrays: Any) -> None:
    """An .npz file, written whole or not at all."""
    with atomic.writing(Path(path)) as file:
        np.savez(file, **arrays)


def parse_lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Number, bytes and content of each line; a last line without its newline may be cut short."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; a run writes it from its first step on')
    lines = path.read_bytes().split(b'\n')
    for number, raw in enumerate(lines, start=1):
        last = number == len(lines)
        if last and not raw:
            return
        try:
            row = json.loads(raw)
            if not isinstance(row, dict):
                raise ValueError(f'found {type(row).__name__}, expected an object')
        except (ValueError, RecursionError) as error:
            if last:
                return
            raise ValueError(
                f'{path}, line {number}: not a JSON object ({error}); remove the line by hand if you can do without it'
            ) from error
        yield number, raw, row


def end_with_newline(path: Path) -> None:
    """Cuts off a partial last line, so that the next one does not become part of it."""
    if not path.exists() or not (content := path.read_bytes()) or content.endswith(b'\n'):
        return
    head, last = content[: content.rfind(b'\n') + 1], content[content.rfind(b'\n') + 1 :]
    try:
        complete = isinstance(json.loads(last), dict)  # only the newline is missing
    except ValueError:
        complete = False
    replace(path, head + last + b'\n' if complete else head)


def replace(path: Path, content: bytes) -> None:
    """The content of a file, written whole or not at all."""
    with atomic.writing(path) as file:
        file.write(content)


def to_json(value: Any, file: str, key: str, *, scalar: bool = False) -> Any:
    """Plain Python for `json.dumps`; `file` and `key` (`rows[0].test.uar`) are for the error message."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if not scalar and isinstance(value, dict):
        return {str(k): to_json(v, file, f'{key}.{k}' if key else str(k)) for k, v in value.items()}
    if not scalar and isinstance(value, (list, tuple)):
        return [to_json(v, file, f'{key}[{i}]') for i, v in enumerate(value)]
    if hasattr(value, 'dtype') and hasattr(value, 'tolist'):  # numpy, and jax without importing it
        if scalar and np.ndim(value):
            raise TypeError(f'{file}: {key!r} has shape {np.shape(value)}; a row holds scalars only')
        return to_json(value.tolist(), file, key, scalar=scalar)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f'{file}: {key!r} is {value}, which JSON cannot hold; write None where a value is undefined'
            )
        return float(value)
    raise TypeError(f'{file}: {key!r} is {value!r} of type {type(value).__name__}, which has no JSON form here')
