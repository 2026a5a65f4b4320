"""Files of compiled programs (mmer_jax/run/kept.py): written whole or not at all, checked, the oldest making room.

NAME.program is one executable, NAME.entry names the programs of one use and holds what belongs to them. A file that is
damaged, or not to be loaded on this machine, is as one that is not there.
"""

import contextlib
import hashlib
import os
import pickle
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable

from mmer_jax.files import replace

PROGRAM, ENTRY = '.program', '.entry'
LARGEST = 2 << 30  # bytes of all files; what was used longest ago goes first
SUM = 32  # bytes at the end of a file
LAPACK, CALLS_LAPACK, CALLS_NOTHING = b'lapack_', b'L', b'-'  # names of its functions; first byte of a program's file
# What serialising raises where a backend cannot, or a program holds arrays; and what a full disk does.
UNKEPT = (
    NotImplementedError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    pickle.PicklingError,
    jax.errors.JaxRuntimeError,
)

_gone: set[Path] = set()


class Gone(Exception):
    """A kept program could not be loaded. Its file is not looked at again."""


def keep(entry: Path, paths: Sequence[Path] | None, new: Mapping[Path, Any], more: Any) -> None:
    """Writes the programs that are `new`, and the entry that names all `paths`; None: no entry.

    Where a program cannot be kept there is no file: a run without it is better than none.
    """
    try:
        for path, program in new.items():
            content = pickle.dumps(serialize_executable.serialize(program))
            # Packed seven times smaller, in a twentieth of a second.
            _write(path, (CALLS_LAPACK if LAPACK in content else CALLS_NOTHING) + zlib.compress(content, 1))
        if paths is not None:
            _write(entry, pickle.dumps(([path.name for path in paths], more)))
    except UNKEPT:
        _remove(entry)


def read_entry(entry: Path) -> tuple[list[Path], Any] | None:
    """The files of an entry, and what belongs to them; None where one of them is not there."""
    content = _read(entry)
    if content is None:
        return None
    try:
        names, more = pickle.loads(content)
    except Exception:  # whatever unpickling raises: of another version of a package
        _remove(entry)
        return None
    paths = [entry.with_name(name) for name in names]
    return (paths, more) if all(_is_there(path) for path in paths) else None


def get_ready(paths: Sequence[Path]) -> None:
    """Before programs run: jax looks for LAPACK when it lowers a program that calls it, and not before.

    Orthogonal initialisers do. A kept program that comes first in its process would call nothing, and crash.
    """
    for path in paths:
        with contextlib.suppress(OSError), open(path, 'rb') as file:  # one that is lost meanwhile is told by `load`
            if file.read(1) == CALLS_LAPACK:
                with jax.default_device(jax.local_devices(backend='cpu')[0]):
                    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), jnp.float32))
                return


def load(path: Path, devices: Sequence[Any]) -> Any:
    """A program for these devices; Gone."""
    try:
        content = _read(path)
        if content is None:
            raise ValueError('not there, or damaged')
        parts = pickle.loads(zlib.decompress(content[1:]))
        where = {'backend': devices[0].client, 'execution_devices': list(devices)}
        program = serialize_executable.deserialize_and_load(*parts, **where)
    except Exception as error:  # whatever unpickling and XLA raise
        _gone.add(path)
        _remove(path)
        raise Gone(f'{path}: {error}') from error
    return program


def load_if_there(path: Path, devices: Sequence[Any]) -> Any:
    """A program, None where there is none to be loaded."""
    if not _is_there(path):
        return None
    with contextlib.suppress(Gone):
        return load(path, devices)
    return None


def _is_there(path: Path) -> bool:
    try:
        return path not in _gone and path.is_file()
    except OSError:  # a folder that is closed to this user
        return False


def _write(path: Path, content: bytes) -> None:
    _make_room(path.parent, len(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content + hashlib.sha256(content).digest())
    _gone.discard(path)


def _read(path: Path) -> bytes | None:
    """The content of a file, which is then one that was used; None where it is not there, or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[:-SUM]).digest() != content[-SUM:]:
        _remove(path)
        return None
    with contextlib.suppress(OSError):  # a folder that others own may be read
        os.utime(path)
    return content[:-SUM]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a folder that others own may be read
        path.unlink()


def _make_room(folder: Path, size: int) -> None:
    """Removes what was used longest ago, until one more file of this size fits below LARGEST."""
    found = [path for kind in (PROGRAM, ENTRY) for path in folder.glob(f'*{kind}')]
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in found)
    total = sum(one[1] for one in files) + size
    for _, own, path in files:
        if total <= LARGEST:
            return
        _remove(path)
        total -= own
