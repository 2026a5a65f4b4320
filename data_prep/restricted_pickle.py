"""Reads a pickle of plain data and numpy arrays, runs nothing of it, and leaves large arrays on the disk.

    data = load('mosei_senti_data_noalign.pkl')

A pickle is a program: `pickle.load` runs whatever its author, or whoever replaced the file, put in it. Here only the
instructions that build plain values are followed; a global is a name in the table CALLS or the file is refused, and
nothing is ever imported or called because the file says so.

Bytes above LARGE are not read but mapped, so a file of 12 GB opens in little memory. Python 3 stores bytes as UTF-8
text under protocol 2; those are decoded piece by piece into an unnamed temporary file (TMPDIR says where) and mapped.
"""

import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_prep import pickled_arrays
from data_prep.pickled_arrays import ATOMS, Refused, Stored
from data_prep.pool import PreparationError
from mmer_jax.media.download import HEAD, find_failure

LARGE = 1 << 20  # bytes; what is longer is mapped
LINE = 1 << 20  # bytes of a text instruction at most; only protocol 0 has longer ones
HDF5 = b'\x89HDF'
EXPANDED, SHARED = 1_000_000, 10  # values that shared containers stand for, at most, and how often each on average
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    pickle.UnpicklingError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
)


class UnsafePickleError(PreparationError):
    """The file asks for something that is not plain data; nothing of it was run."""


def load(path: str | os.PathLike) -> Any:
    """The content of a pickle of protocol 2 to 5 (0 and 1 where it is small), written by Python 2 or 3.

    Returns dict, OrderedDict, list, tuple, str, bytes (also for bytearray), int, float, bool, None, numpy scalars and
    read-only arrays of numbers, bytes, str or plain objects; arrays above LARGE bytes are np.memmap. Byte strings of
    Python 2 are decoded as latin-1. UnsafePickleError where the file asks for anything else, PreparationError where it
    is missing, truncated, damaged or no pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise PreparationError(f'{path} {"is a folder" if path.is_dir() else "is missing"}; expected a pickle file')
    size = path.stat().st_size
    with open(path, 'rb') as file:
        _check_head(path, file.read(HEAD), size)
        try:
            return _Reader(file, size).load()
        except Refused as error:
            raise UnsafePickleError(
                f'{path} asks for {error}, which plain data and numpy arrays do not need: the file was refused and '
                'nothing of it was run; get it from its publisher and compare checksums'
            ) from error
        except FAULTS as error:
            what = 'values nested too deeply' if isinstance(error, RecursionError) else str(error) or repr(error)
            raise PreparationError(
                f'{path} is damaged or no pickle: at byte {file.tell()} of {size}: {what}; fetch the file again and '
                'compare its size and checksum with those its publisher gives'
            ) from error


def _check_head(path: Path, head: bytes, size: int) -> None:
    failure = 'an HDF5 file' if head.startswith(HDF5) else find_failure(head)
    if failure:
        raise PreparationError(f'{path} ({size} bytes) is {failure}; expected a pickle')
    if not size:
        raise PreparationError(f'{path} is empty; fetch it again')


class _Global:
    """An allowed global: a name to look up, never the thing itself."""

    def __init__(self, module: str, name: str):
        self.label, self.call = f'{module}.{name}', CALLS[module, name]


class _Unfinished:
    """An array, or a dtype with its code, between its creation and its BUILD instruction."""

    def __init__(self, code: str | None = None):
        self.code = code
        self.places: list[int] = []

    def finish(self, state: Any) -> Any:
        if self.code is not None:
            return pickled_arrays.make_dtype(self.code, *state)
        _, shape, dtype, fortran, data = state
        return pickled_arrays.make_array(data, dtype, shape, 'F' if fortran else 'C')


class _Memo(dict):
    """The memo; an unfinished object in it is replaced by its BUILD and cannot be used before."""

    def __setitem__(self, key, value):
        if isinstance(value, _Unfinished):
            value.places.append(key)
        super().__setitem__(key, value)

    def __getitem__(self, key):
        value = super().__getitem__(key)
        if isinstance(value, _Unfinished):
            raise ValueError('an array or dtype is used before its contents are given')
        return value


class _Dispatch(dict):
    def __missing__(self, code):
        raise ValueError(f'byte 0x{code:02x} is no instruction of a pickle')


class _File:
    """The file as the unpickler reads it: no instruction may reach beyond the end."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size

    def require(self, count: int) -> int:
        """The position; ValueError where fewer than `count` bytes follow."""
        position = self.file.tell()
        if not 0 <= count <= self.size - position:
            raise ValueError(f'expected {count} more bytes, found {self.size - position}: it is truncated or damaged')
        return position

    def read(self, count: int) -> bytes:
        self.require(count)
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline(LINE)
        if not line.endswith(b'\n'):
            raise ValueError(f'a line of {len(line)} bytes has no end (truncated, or protocol 0: save with protocol 4)')
        return line


class _Reader(pickle._Unpickler):
    """The interpreter: `dispatch` holds the instructions that are followed, and refusals for all the others."""

    dispatch = _Dispatch()
    stack: list[Any]
    append: Any
    pop_mark: Any
    read: Any
    readline: Any

    def __init__(self, file: BinaryIO, size: int):
        self.source = _File(file, size)
        super().__init__(self.source, encoding='latin-1')
        self.memo = _Memo()
        self.whole = np.memmap(file, np.uint8, 'r')
        file.seek(0)

    def load(self) -> Any:
        return _plain(super().load(), {})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CALLS:
            raise Refused(f'{module}.{name}'[:200])
        return _Global(module, name)

    def load_frame(self) -> None:
        self.source.require(struct.unpack('<Q', self.read(8))[0])  # a frame only says how much to read ahead

    def load_sized(self, code: str, kind: str) -> None:
        """Bytes or text after a length field: read where short, else remembered by their place."""
        (size,) = struct.unpack(code, self.read(struct.calcsize(code)))
        position = self.source.require(size)
        if size > LARGE:
            self.source.file.seek(position + size)
            self.append(Stored(self.whole[position : position + size], kind))
            return
        data = self.read(size)
        self.append(data if kind == 'bytes' else data.decode(kind, 'surrogatepass'))

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Global) or function.call is None or type(arguments) is not tuple:
            raise Refused(f'a call of {getattr(function, "label", type(function).__name__)}')
        self.append(function.call(*arguments))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Unfinished):
            raise Refused(f'setting the state of {getattr(target, "label", type(target).__name__)}')
        value = target.finish(state)
        for place in target.places:
            self.memo[place] = value
        self.append(value)

    def load_appends(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused(f'appending to an object of type {type(self.stack[-1]).__name__}')
        self.stack[-1].extend(items)

    def load_setitems(self, items: list[Any]) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise Refused(f'setting items of an object of type {type(self.stack[-1]).__name__}')
        _fill(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.load_setitems(items)

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode('utf-8', 'replace') for _ in range(2))
        raise Refused(f'an instance of {module}.{name}'[:200])

    def load_extension(self, size: int) -> None:
        raise Refused(f'extension code {int.from_bytes(self.read(size), "little")}')


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """The value without this reader's own markers; what is not plain data is refused. `seen`: id -> (old, new)."""
    if type(value) in ATOMS or isinstance(value, (np.ndarray, np.generic)):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if type(value) in (dict, OrderedDict, list):
        seen[id(value)] = (value, value)
        for key in value if isinstance(value, dict) else range(len(value)):
            value[key] = _plain(value[key], seen)
        return value
    if isinstance(value, Stored):
        result: Any = value.plain()
    elif type(value) is tuple:
        result = tuple(_plain(item, seen) for item in value)
    elif isinstance(value, _Unfinished):
        raise ValueError('an array or dtype has no contents')
    else:
        raise Refused(getattr(value, 'label', f'an object of type {type(value).__name__}'))
    seen[id(value)] = (value, result)  # the old value is kept too, so that its id stays its own
    return result


def load_records(path: str | os.PathLike) -> Any:
    """As `load`, for who walks through all values: PreparationError where small containers stand for too many."""
    value = load(path)
    expanded: dict[int, int] = {}
    own: dict[int, int] = {}
    whole = _expanded(value, expanded, own)
    if whole > EXPANDED and whole > SHARED * sum(own.values()):
        found = f'lists and tuples hold one another so that {len(own)} of them stand for {whole:.1e} values'
        raise PreparationError(f'{path}: {found}, which no data set does; get the file from its publisher')
    return value


def _expanded(value: Any, expanded: dict[int, int], own: dict[int, int]) -> int:
    """How many values there are where a shared container counts wherever it stands; `own`: once, by its id."""
    if type(value) not in (dict, OrderedDict, list, tuple):
        return 1
    if id(value) not in own:
        own[id(value)], expanded[id(value)] = 1 + len(value), 1  # one that holds itself is counted once
        items = value.values() if isinstance(value, dict) else value
        expanded[id(value)] = 1 + sum(_expanded(item, expanded, own) for item in items)
    return expanded[id(value)]


def _fill(target: Any, pairs: Any) -> Any:
    for key, value in pairs:
        if type(key) not in ATOMS and not isinstance(key, np.generic):
            raise ValueError(f'a dictionary has a key of type {type(key).__name__}, expected text or a number')
        target[key] = value
    return target


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    return _fill(OrderedDict(), pairs)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Unfinished:
    if not isinstance(kind, _Global) or kind.label != 'numpy.ndarray':
        raise Refused('an array of a class other than numpy.ndarray')
    return _Unfinished()


def _new_dtype(code: Any, align: Any = False, copy: Any = False) -> _Unfinished:
    return _Unfinished(pickled_arrays.check_code(code))


def _refuse(what: str) -> Callable[['_Reader'], None]:
    def refuse(reader: _Reader) -> None:
        raise Refused(what)

    return refuse


# The globals that plain data needs, and what stands in for each; numpy 2 renamed numpy.core.
CALLS: dict[tuple[str, str], Any] = {
    ('numpy', 'ndarray'): None,
    ('numpy', 'dtype'): _new_dtype,
    **{(f'numpy.{core}.multiarray', '_reconstruct'): _reconstruct for core in ('core', '_core')},
    **{(f'numpy.{core}.multiarray', 'scalar'): pickled_arrays.make_scalar for core in ('core', '_core')},
    **{(f'numpy.{core}.numeric', '_frombuffer'): pickled_arrays.from_buffer for core in ('core', '_core')},
    ('_codecs', 'encode'): pickled_arrays.encode,
    ('collections', 'OrderedDict'): _ordered_dict,
    ('__builtin__', 'bytes'): lambda: b'',  # how Python 3 writes empty bytes under protocol 2
    ('builtins', 'bytes'): lambda: b'',
}
# Instructions that only move plain values about, followed as the standard library does.
FOLLOWED = (
    'PROTO STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT '
    'STRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST '
    'LIST EMPTY_DICT GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL'
)
INSTRUCTIONS: dict[str, Any] = {
    **{name: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in FOLLOWED.split()},
    'FRAME': _Reader.load_frame,
    'BINSTRING': lambda reader: reader.load_sized('<i', 'latin-1'),
    'BINBYTES': lambda reader: reader.load_sized('<I', 'bytes'),
    'BINBYTES8': lambda reader: reader.load_sized('<Q', 'bytes'),
    'BYTEARRAY8': lambda reader: reader.load_sized('<Q', 'bytes'),
    'BINUNICODE': lambda reader: reader.load_sized('<I', 'utf-8'),
    'BINUNICODE8': lambda reader: reader.load_sized('<Q', 'utf-8'),
    'REDUCE': _Reader.load_reduce,
    'BUILD': _Reader.load_build,
    'APPEND': lambda reader: reader.load_appends([reader.stack.pop()]),
    'APPENDS': lambda reader: reader.load_appends(reader.pop_mark()),
    'SETITEM': lambda reader: reader.load_setitems([reader.stack.pop(-2), reader.stack.pop()]),
    'SETITEMS': lambda reader: reader.load_setitems(reader.pop_mark()),
    'DICT': _Reader.load_dict,
    'INST': _Reader.load_inst,
    'EXT1': lambda reader: reader.load_extension(1),
    'EXT2': lambda reader: reader.load_extension(2),
    'EXT4': lambda reader: reader.load_extension(4),
    **dict.fromkeys(('PERSID', 'BINPERSID'), _refuse('a persistent id')),
    **dict.fromkeys(('OBJ', 'NEWOBJ', 'NEWOBJ_EX'), _refuse('an instance of a class')),
    **dict.fromkeys(('NEXT_BUFFER', 'READONLY_BUFFER'), _refuse('a buffer outside the file')),
    **dict.fromkeys(('EMPTY_SET', 'FROZENSET'), _refuse('a set')),
}
_Reader.dispatch.update({getattr(pickle, name)[0]: function for name, function in INSTRUCTIONS.items()})
