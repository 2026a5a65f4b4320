"""The numpy part of restricted_pickle.py: arrays, dtypes and scalars from what a pickle says of them, checked.

Every function takes values as a hostile file may give them. ValueError: they contradict each other or make no sense.
Refused: they ask for something that plain data does not need.
"""

import math
import re
import reprlib
import tempfile
from typing import Any

import numpy as np

PIECE = 1 << 20  # bytes decoded at a time
ATOMS = (str, bytes, int, float, bool, type(None))
DTYPE = re.compile(r'b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,9}|O[48]?')


class Refused(Exception):
    """The file asks for something that is not plain data; the message says what."""


class Stored:
    """Bytes that stay on the disk: a uint8 memmap and what it stands for, 'bytes' or text ('latin-1', 'utf-8')."""

    def __init__(self, array: np.ndarray, kind: str):
        self.array, self.kind = array, kind
        self._encoded: Stored | None = None

    def plain(self) -> str | bytes:
        """The value itself, read into memory."""
        data = self.array.tobytes()
        return data if self.kind == 'bytes' else data.decode(self.kind, 'surrogatepass')

    def encode_latin1(self) -> 'Stored':
        """UTF-8 text as the bytes it stands for, one a character, in an unnamed temporary file."""
        if self.kind != 'utf-8':
            raise ValueError(f'_codecs.encode of {self.kind}, expected text')
        if self._encoded is None:
            with tempfile.TemporaryFile() as file:
                start = 0
                while start < self.array.size:
                    data = self.array[start : start + PIECE].tobytes()
                    if data[-1] >= 0xC0 and start + len(data) < self.array.size:
                        data = data[:-1]  # the first half of a character
                    file.write(data.decode('utf-8').encode('latin-1'))
                    start += len(data)
                file.flush()
                self._encoded = Stored(np.memmap(file, np.uint8, 'r'), 'bytes')
        return self._encoded


def check_code(code: Any) -> str:
    """The code of a dtype, such as 'f8' or 'S12'; records, dates and raw memory are refused."""
    if not isinstance(code, str) or not DTYPE.fullmatch(code):
        raise Refused(f'numpy.dtype {reprlib.repr(code)}')
    return code


def make_dtype(
    code: str,
    version: Any,
    order: Any,
    base: Any = None,
    names: Any = None,
    fields: Any = None,
    size: Any = -1,
    *rest: Any,
) -> np.dtype:
    """The dtype of a checked code and the state numpy gives with it: byte order, parts, size."""
    dtype = np.dtype(object) if code[0] == 'O' else np.dtype(code)
    if order not in ('<', '>', '|', '=') or any(part is not None for part in (base, names, fields)):
        raise ValueError(f'dtype {code} has the byte order {reprlib.repr(order)} or parts, expected a plain one')
    if type(size) is not int or size not in (-1, dtype.itemsize):
        raise ValueError(f'dtype {code} has {reprlib.repr(size)} bytes an item, expected {dtype.itemsize}')
    return dtype.newbyteorder(order) if order in ('<', '>') else dtype


def make_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The read-only array over `data`: a list of items for objects, else bytes, latin-1 text or Stored bytes."""
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f'an array has the shape {reprlib.repr(shape)}, expected a tuple of sizes of 0 or more')
    if not isinstance(dtype, np.dtype) or order not in ('C', 'F'):
        raise ValueError(f'an array has dtype {reprlib.repr(dtype)} and order {reprlib.repr(order)}')
    if dtype.kind == 'O':
        return _object_array(data, shape, order)
    if isinstance(data, str):
        data = data.encode('latin-1')
    if isinstance(data, bytes):
        flat = np.frombuffer(data, np.uint8)
    elif isinstance(data, Stored) and data.kind != 'utf-8':
        flat = data.array
    else:
        raise ValueError(f'the contents of an array of dtype {dtype} are {type(data).__name__}, expected bytes')
    if flat.size != (expected := math.prod(shape) * dtype.itemsize):
        raise ValueError(f'an array of shape {shape} and dtype {dtype} has {flat.size} bytes, expected {expected}')
    if dtype.kind == 'U' and expected and flat.view(dtype.str[0] + 'u4').max() > 0x10FFFF:
        raise ValueError(f'an array of dtype {dtype} holds numbers that are no characters')
    array = flat.view(dtype).reshape(shape, order=order) if expected else np.zeros(shape, dtype)
    array.flags.writeable = False
    return array


def _object_array(items: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    count = math.prod(shape)
    if type(items) is not list or len(items) != count:
        found = f'{len(items)} items' if type(items) is list else f'raw data ({type(items).__name__})'
        raise ValueError(f'an object array of shape {shape} has {found}, expected a list of {count}')
    array = np.empty(count, object)
    for number, item in enumerate(items):
        if type(item) not in ATOMS and not isinstance(item, np.generic):
            raise Refused(f'an object array with an item of {getattr(item, "label", type(item).__name__)}')
        array[number] = item
    array = array.reshape(shape, order=order)
    array.flags.writeable = False
    return array


def make_scalar(dtype: Any, data: Any = b'') -> Any:
    """A numpy scalar, as numpy pickles one: its dtype and its bytes."""
    if isinstance(dtype, np.dtype) and dtype.kind == 'O':
        raise Refused('an object scalar')
    return make_array(data, dtype, (), 'C')[()]


def from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    """An array as protocol 5 stores it; order 'K' is a C array and the order of its axes."""
    if order == 'K' and type(axes) is tuple:
        return make_array(data, dtype, shape, 'C').transpose(axes)
    return make_array(data, dtype, shape, order)


def encode(text: Any, encoding: Any) -> bytes | Stored:
    """Bytes as Python 3 writes them under protocol 2: latin-1 text, each byte one character."""
    if encoding not in ('latin1', 'latin-1'):
        raise Refused(f'text in the encoding {reprlib.repr(encoding)}')
    if isinstance(text, Stored):
        return text.encode_latin1()
    if not isinstance(text, str):
        raise ValueError(f'_codecs.encode of {type(text).__name__}, expected text')
    return text.encode('latin-1')
