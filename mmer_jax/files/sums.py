"""Sizes and SHA-256 of files, and a JSON object that carries its own: what a folder of data says of its parts."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILES, OWN = 'files', 'sha256'  # keys of a sealed object: its files, and itself without this key
PART = 1 << 20


def sum_of(path: Path) -> dict[str, Any]:
    """{'bytes': size, 'sha256': 64 hex digits} of a file."""
    found, size = hashlib.sha256(), 0
    with open(path, 'rb') as file:
        while part := file.read(PART):
            found.update(part)
            size += len(part)
    return {'bytes': size, 'sha256': found.hexdigest()}


def seal(content: Mapping[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """A JSON object with the sums of these files of a folder, and its own."""
    sealed = {key: value for key, value in content.items() if key not in (FILES, OWN)}
    sealed[FILES] = {name: sum_of(folder / name) for name in sorted(names)}
    return {**sealed, OWN: own_sum(sealed)}


def own_sum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object without its own entry, in whatever order its keys stand."""
    rest = {key: value for key, value in content.items() if key != OWN}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def fault(folder: Path, name: str, expected: Mapping[str, Any], *, whole: bool) -> str:
    """'' or what differs in a file from its entry: the size, and with `whole` the content."""
    path = folder / name
    if not path.is_file():
        return f'{path} is missing'
    size = path.stat().st_size
    if size != expected['bytes']:
        return f'{path} has {size} bytes, expected {expected["bytes"]}'
    if whole and sum_of(path)['sha256'] != expected['sha256']:
        return f'{path} holds other bytes than were written'
    return ''
