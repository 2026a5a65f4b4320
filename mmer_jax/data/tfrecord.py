"""The TFRecord format: how a record is framed, and where the records of a file begin."""

import os
import struct
from pathlib import Path

import google_crc32c
import numpy as np

from mmer_jax.data.schema import RecordError

FRAME = 16  # bytes around a record: its length and that length's CRC before it, its own CRC behind


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C of the TFRecord format."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as TFRecord stores it: length, its CRC, data, its CRC."""
    length = struct.pack('<Q', len(data))
    return b''.join((length, struct.pack('<I', masked_crc(length)), data, struct.pack('<I', masked_crc(data))))


def unframe(parts: tuple[bytes, bytes, bytes], size: int, where: str, advice: str) -> bytes:
    """The data of one record of `size` bytes as Shard.read gives it; RecordError where a CRC or a length differs."""
    head, data, tail = parts
    if sum(map(len, parts)) != size:
        raise RecordError(f'{where}: the file was cut short since it was opened; {advice}')
    length, length_crc = struct.unpack('<QI', head)
    if masked_crc(head[:8]) != length_crc or length != len(data):
        raise RecordError(f'{where}: the length field is damaged (found {length}); {advice}')
    (stored,) = struct.unpack('<I', tail)
    if (computed := masked_crc(data)) != stored:
        raise RecordError(
            f'{where}: CRC 0x{computed:08x} of the data, 0x{stored:08x} was stored: bytes have changed; {advice}'
        )
    return data


def build_index(path: str | os.PathLike) -> np.ndarray:
    """Offsets of a TFRecord file's records, int64 (n + 1,), found by walking its length fields."""
    size, offsets, position = Path(path).stat().st_size, [0], 0
    with open(path, 'rb') as file:
        while position < size:
            if position + 12 > size:
                raise RecordError(f'{path} is truncated at byte {position} of {size}')
            file.seek(position)
            head = file.read(12)
            length, crc = struct.unpack('<QI', head)
            if masked_crc(head[:8]) != crc:
                raise RecordError(f'{path}: damaged length field at byte {position}')
            position += FRAME + length
            offsets.append(position)
    if position != size:
        raise RecordError(f'{path} is truncated: its last record ends at byte {position}, the file at {size}')
    return np.asarray(offsets, np.int64)


class Shard:
    """An open TFRecord file, read by place; threads may share it.

    Bytes are read and not mapped: a file that is cut short while it is used gives fewer, where a map ends the process.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_CLOEXEC', 0))

    def read(self, start: int, stop: int) -> tuple[bytes, bytes, bytes]:
        """The 12 bytes before a record, the record, and the 4 bytes behind it; fewer where the file ends early."""
        head = os.pread(self._descriptor, 12, start)
        data = os.pread(self._descriptor, stop - start - FRAME, start + 12)
        return head, data, os.pread(self._descriptor, 4, stop - 4)

    def __del__(self):
        if hasattr(self, '_descriptor'):
            os.close(self._descriptor)
