"""Sizes and sums of files, and a JSON object that carries its own: what a folder of data or weights says of its parts.

SHA-256 tells one content from any other. CRC-32 finds what is damaged or changed by mistake in a ninth of the time
(0.5 s per GB where SHA-256 without instructions of its own takes 4.7), so it is what is compared of large files each
time they are opened.
"""

import functools
import hashlib
import json
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILES, OWN = 'files', 'sha256'  # keys of a sealed object: its files, and itself without this key
QUICK = 'crc32'  # of an entry whose file is compared at every opening
SUMS = 'sums.json'  # the sealed object of a folder that has no other
PART = 1 << 20


def sum_of(path: Path, *, quick: bool = False) -> dict[str, Any]:
    """{'bytes': size, 'sha256': 64 hex digits} of a file, and with `quick` its 'crc32'."""
    found, size, crc = hashlib.sha256(), 0, 0
    with open(path, 'rb') as file:
        while part := file.read(PART):
            found.update(part)
            size += len(part)
            crc = zlib.crc32(part, crc) if quick else 0
    return {'bytes': size, 'sha256': found.hexdigest(), **({QUICK: crc} if quick else {})}


def size_and_crc(path: Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    size = crc = 0
    with open(path, 'rb') as file:
        while part := file.read(PART):
            size, crc = size + len(part), zlib.crc32(part, crc)
    return size, crc


def seal(content: Mapping[str, Any], folder: Path, names: Iterable[str], *, quick: bool = False) -> dict[str, Any]:
    """A JSON object with the sums of these files of a folder, and its own."""
    sealed = {key: value for key, value in content.items() if key not in (FILES, OWN)}
    sealed[FILES] = {name: sum_of(folder / name, quick=quick) for name in sorted(names)}
    return {**sealed, OWN: own_sum(sealed)}


def own_sum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object without its own entry, in whatever order its keys stand."""
    rest = {key: value for key, value in content.items() if key != OWN}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def fault(folder: Path, name: str, expected: Mapping[str, Any], *, whole: bool) -> str:
    """'' or what differs in a file from its entry: the size, and with `whole` the content (CRC-32, if it has one)."""
    path = folder / name
    if not path.is_file():
        return f'{path} is missing'
    size = path.stat().st_size
    if size != expected['bytes']:
        return f'{path} has {size} bytes, expected {expected["bytes"]}'
    if not whole:
        return ''
    same = (
        size_and_crc(path)[1] == expected[QUICK] if QUICK in expected else sum_of(path)['sha256'] == expected['sha256']
    )
    return '' if same else f'{path} holds other bytes than were written'


# ---- a folder whose sums are a file of their own -------------------------------------------------------------


def write_sums(folder: Path) -> None:
    """sums.json, with the sums of all files of a folder."""
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS]
    (folder / SUMS).write_text(json.dumps(seal({'format': 1}, folder, names, quick=True), indent=1) + '\n')


def read_sums(folder: Path, again: str) -> dict[str, Any] | None:
    """{file: its entry} of sums.json; None where there is none. ValueError in one line, which ends with `again`."""
    path = folder / SUMS
    try:
        content = json.loads(path.read_bytes())
        if own_sum(content) != content[OWN]:
            raise ValueError('its own sum differs')
        return {str(name): {'bytes': entry['bytes'], QUICK: entry[QUICK]} for name, entry in content[FILES].items()}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(f'{path} is damaged ({error}); {again}') from error


def check(folder: Path, names: Iterable[str], again: str) -> bool:
    """Compares files of a folder with its sums.json; whether it has one. ValueError names the file that differs.

    Of a folder without it, as version 0.2 wrote them, a line on stderr says so, once.
    """
    entries = read_sums(folder, again)
    if entries is None:
        _tell_without(folder, again)
        return False
    for name in names:
        if name not in entries:
            raise ValueError(f'{folder / name} has no entry in {SUMS}; {again}')
        if found := fault(folder, name, entries[name], whole=True):
            raise ValueError(f'{found}; {again}')
    return True


@functools.cache
def _tell_without(folder: Path, again: str) -> None:
    told = f'{folder} has no {SUMS}: a file that was changed in it would go unseen; to have it, {again}'
    print(told, file=sys.stderr, flush=True)
