"""Reads what torch.save wrote (.pth, .pt, .bin), without torch and without running anything of it.

    weights = open_checkpoint('resnext-50-kinetics.pth')       # {name: array}, each read when it is asked for
    weights = load('pnet.pt')                                  # the same, all read

Both formats of torch are read: the zip file of 1.6 and later, and the one before. Such a file holds a pickle, and a
pickle is a program: only tensors, their storages and plain containers are let through, any other global is refused and
nothing is imported or called because the file says so. Names are those of the state dict; where the file holds a
dictionary around it ('state_dict', 'model', 'model_state_dict') that is looked through.
"""

import dataclasses
import io
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mmer_jax.files.npy import LIMIT_VARIABLE, check_zip, largest
from mmer_jax.media.download import HEAD, find_failure

DTYPES = {
    'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'HalfStorage': np.float16, 'LongStorage': np.int64,
    'IntStorage': np.int32, 'ShortStorage': np.int16, 'CharStorage': np.int8, 'ByteStorage': np.uint8,
    'BoolStorage': np.bool_, 'BFloat16Storage': ml_dtypes.bfloat16,
}  # fmt: skip
WRAPPERS = ('state_dict', 'model_state_dict', 'model')
LEGACY = 0x1950A86A20F9469CFC6C  # the number that begins a file of torch before 1.6
SMALL = (
    1 << 26
)  # bytes that any file may take: a view that repeats its storage, what the members of a zip file unpack to
UNPACKED = 4  # times its own size that a zip file may unpack to; torch.save compresses nothing
FAULTS = (
    EOFError, LookupError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, RecursionError,
    pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
)  # fmt: skip


class CheckpointError(ValueError):
    """A file of weights is missing, damaged, hostile or of another kind; the message names it."""


class _Refused(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: Any
    size: int
    offset: int = 0  # of a view into a storage, legacy files only


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError('a tensor without a storage')
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor, *_):
    return tensor


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: Any


GLOBALS = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    ('torch', 'Size'): tuple,
}


class _Whole:
    """A file as the interpreter reads it: an instruction that is cut short is an error."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError('it is cut short')
        return data

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b'\n'):
            raise EOFError('it is cut short')
        return line


class _Unpickler(pickle._Unpickler):
    """The interpreter in Python: its memo is a dictionary, where that in C makes room up to the largest index."""

    def __init__(self, file: BinaryIO):
        super().__init__(_Whole(file))

    def find_class(self, module, name):
        if (module, name) in GLOBALS:
            return GLOBALS[module, name]
        if module in ('torch', 'torch.storage') and name in DTYPES:
            return _StorageType(np.dtype(DTYPES[name]))
        raise _Refused(f'{module}.{name}')

    def persistent_load(self, pid):
        kind, storage_type, key, _, size, *view = pid
        if kind != 'storage' or not isinstance(storage_type, _StorageType):
            raise ValueError(f'an unknown reference {kind!r}')
        offset = int(view[0][1]) if view and view[0] is not None else 0
        return _Storage(str(key), storage_type.dtype, int(size), offset)


class Checkpoint(Mapping):
    """The tensors of a file by name; an array is read, and copied out of its storage, when it is asked for."""

    def __init__(self, path: Path, tensors: Mapping[str, _Tensor], read: Any):
        self.path, self._tensors, self._read = path, tensors, read

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self._tensors[name].storage.dtype

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        try:
            storage = self._read(tensor.storage)
            return _view(storage, tensor)
        except FAULTS as error:
            raise CheckpointError(f'{self.path} is damaged at {name!r}: {error}; download it again') from error


def open_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """The tensors of a file, none read yet. CheckpointError names the file and what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f'{path} {"is a folder" if path.is_dir() else "is missing"}; expected a file of torch.save'
        )
    with open(path, 'rb') as file:
        start = file.read(HEAD)
    if not start:
        raise CheckpointError(f'{path} is empty; download it again')
    failure = find_failure(start, but='zip archive')
    if failure:
        raise CheckpointError(f'{path} is {failure}')
    try:
        content, read = (_open_zip if start[:2] == b'PK' else _open_legacy)(path)
    except _Refused as error:
        raise CheckpointError(
            f'{path} asks for {error}, which is neither a tensor nor a plain container; nothing of it was run. '
            'Save its state_dict() alone, with the program that wrote it'
        ) from error
    except FAULTS as error:
        raise CheckpointError(
            f'{path} is no file of torch.save, or damaged: {str(error) or type(error).__name__}'
        ) from error
    tensors = {name: value for name, value in _state_dict(content, path).items() if isinstance(value, _Tensor)}
    if not tensors:
        raise CheckpointError(f'{path} holds no tensors by name, expected a state dict')
    return Checkpoint(path, tensors, read)


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All tensors of a file by name."""
    return dict(open_checkpoint(path))


def _state_dict(content: Any, path: Path) -> Mapping[str, Any]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, expected a state dict: tensors by name')
    return content


def _view(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The tensor's own array, refusing one that reaches out of its storage, or repeats it without end."""
    first = tensor.storage.offset + tensor.offset
    last = first + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.shape, default=1) == 0:
        return np.zeros(tensor.shape, storage.dtype)
    if first < 0 or min(tensor.strides, default=0) < 0 or last >= len(storage):
        raise ValueError(f'element {last} of a storage of {len(storage)}')
    announced = math.prod(tensor.shape) * storage.itemsize
    if announced > max(storage.nbytes, _most(SMALL)):
        found = f'{tensor.shape} of {announced} bytes is announced of a storage of {storage.nbytes}'
        raise ValueError(f'{found}; {LIMIT_VARIABLE}=BYTES allows more')
    strides = [s * storage.itemsize for s in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[first:], tensor.shape, strides, writeable=False).copy()


def _most(least: int) -> int:
    """Bytes that are allowed: `least`, or what the environment says where that is more."""
    return max(least, largest() if LIMIT_VARIABLE in os.environ else 0)


def _open_zip(path: Path) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    with open(path, 'rb') as file:
        check_zip(file, _most(max(SMALL, UNPACKED * path.stat().st_size)))
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name == 'data.pkl' or name.endswith('/data.pkl')]
        if len(names) != 1:
            raise ValueError(f'{len(names)} entries data.pkl, expected one')
        root = names[0][: -len('data.pkl')]
        order = archive.read(f'{root}byteorder') if f'{root}byteorder' in archive.namelist() else b'little'
        if order.strip() != b'little':
            raise ValueError(f'byte order {order!r}, expected little')
        content = _Unpickler(io.BytesIO(archive.read(names[0]))).load()

    def read(storage: _Storage) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(f'{root}data/{storage.key}'), storage.dtype)

    return content, read


def _open_legacy(path: Path) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    with open(path, 'rb') as file:
        if _Unpickler(file).load() != LEGACY:
            raise ValueError('it does not begin with the number of torch')
        _Unpickler(file).load()  # version of the protocol
        system = _Unpickler(file).load()
        if not system.get('little_endian', True):
            raise ValueError('big-endian numbers')
        unpickler = _Legacy(file)
        content, keys = unpickler.load(), _Unpickler(file).load()
        places = {key: _skip_storage(file, unpickler.dtypes[key], path) for key in map(str, keys)}

    def read(storage: _Storage) -> np.ndarray:
        start, count = places[storage.key]
        return np.memmap(path, storage.dtype, 'r', start, (count,)) if count else np.zeros(0, storage.dtype)

    return content, read


class _Legacy(_Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.dtypes: dict[str, Any] = {}

    def persistent_load(self, pid):
        storage = super().persistent_load(pid)
        self.dtypes[storage.key] = storage.dtype
        return storage


def _skip_storage(file: BinaryIO, dtype: Any, path: Path) -> tuple[int, int]:
    (count,) = struct.unpack('<q', file.read(8))
    start = file.tell()
    if count < 0 or start + count * dtype.itemsize > path.stat().st_size:
        raise ValueError(
            f'it ends at byte {path.stat().st_size}, a tensor would end at {start + count * dtype.itemsize}'
        )
    file.seek(start + count * dtype.itemsize)
    return start, count
