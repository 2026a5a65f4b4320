"""Arrays in .npy and .npz files: what they announce is compared with what they hold before memory is taken for it.

A header of 100 bytes can announce an array of any size, and a zip file of 3 MB can unpack to gigabytes. Nothing in a
file is unpickled.
"""

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

LIMIT_VARIABLE = 'MMER_LARGEST_FILE'  # of the environment: bytes that a file of a stranger may unpack to
LARGEST = 4 << 30
FAULTS = (  # what NumPy and zipfile raise on damaged bytes
    ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError,
    lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
RATIO = 1100  # zip's own compression reaches 1032; a member that announces more is damaged or a bomb


def largest() -> int:
    """Bytes that one file may unpack to: LARGEST, or what the environment says."""
    given = os.environ.get(LIMIT_VARIABLE, '')
    if given and not given.isdecimal():
        raise ValueError(f'{LIMIT_VARIABLE}={given!r} is no number of bytes')
    return int(given) if given else LARGEST


def why(error: BaseException) -> str:
    """What one of FAULTS says, in one line."""
    return ' '.join(str(error).split())[:300] or type(error).__name__


def check_npy(file: BinaryIO, size: int) -> None:
    """ValueError where the array that begins here announces more than `size` bytes, header and all."""
    start = file.tell()
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None and version != (3, 0):
        raise ValueError(f'.npy of version {version}, expected 1.0 to 3.0')
    if read is None:  # 2.0 with names in UTF-8; numpy has no public function for it
        file.seek(start)
        raise ValueError('.npy of version 3.0, an array of named fields; expected numbers')
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError('it holds Python objects, expected numbers or text')
    announced, found = math.prod(shape) * dtype.itemsize, size - (file.tell() - start)
    if min(shape, default=0) < 0 or announced > found:
        raise ValueError(f'an array {shape} of {dtype}, {announced} bytes, is announced; {found} bytes follow')
    file.seek(start)


def load_npy(path: Path) -> np.ndarray:
    """The array of a .npy file. ValueError where it is none, is cut short, or announces more than it holds."""
    try:
        with open(path, 'rb') as file:
            check_npy(file, os.fstat(file.fileno()).st_size)
            return np.load(file, allow_pickle=False)
    except FAULTS as error:
        raise ValueError(why(error)) from error


def check_zip(file: BinaryIO, most: int | None = None) -> None:
    """ValueError where the members of a zip file (.npz, PyTorch) would unpack to more than `most` bytes, by default
    `largest()`, or announce more than any compression reaches.
    """
    most = largest() if most is None else most
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > most:
        raise ValueError(f'{total} bytes unpacked, expected {most} at most ({LIMIT_VARIABLE}=BYTES raises it)')
    size = file.seek(0, os.SEEK_END)
    for entry in entries:
        if entry.compress_size > size or entry.file_size > RATIO * entry.compress_size + RATIO:
            found = f'{entry.file_size} bytes in {entry.compress_size}'
            raise ValueError(f'{entry.filename[:60]} announces {found}, which no compression reaches')
    file.seek(0)
