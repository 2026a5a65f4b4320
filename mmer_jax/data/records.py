"""Records on disk: one data set as TFRecord shards with a schema, a manifest and random access.

A shard directory holds a data set once (splits are never baked in, see protocols.py):

    features.json                      the schema, the label, how the data was made, the shards
    manifest.csv                       one row a record: record, id, label, speaker, ..., length_<feature>
    data-00000-of-00004.tfrecord       ordinary TFRecord of tf.train.Example, readable by any TFRecord reader
    data-00000-of-00004.index.npy      offsets of the records in the shard, int64 (n + 1,)

Record number i lies in shard i % n at position i // n, so the shards are balanced and the number is the order
of writing. `python -m mmer_jax.records verify DIR` checks every byte; `... index DIR` rebuilds lost indices.
"""

import contextlib
import csv
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from mmer_jax.data.schema import (
    FORMAT,
    Feature,
    Frames,
    Label,
    RecordError,
    Schema,
    check_array,
    check_frames,
    count_steps,
    encode_frames,
)
from mmer_jax.files.outputs import check_shards, remove_shards

__all__ = [
    'Feature',
    'Frames',
    'Label',
    'RecordError',
    'RecordSource',
    'RecordWriter',
    'Schema',
    'build_index',
    'encode_frames',
    'masked_crc',
    'read_manifest',
    'verify',
]
REPLACED = '-replaced'  # what an old data set is called while the new one takes its name
MANIFEST_FIRST = ('record', 'id', 'label', 'speaker', 'session', 'split')


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C of the TFRecord format."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as TFRecord stores it: length, its CRC, data, its CRC."""
    length = struct.pack('<Q', len(data))
    return b''.join((length, struct.pack('<I', masked_crc(length)), data, struct.pack('<I', masked_crc(data))))


class RecordWriter:
    """Context manager that writes a shard directory, whole or not at all.

    Everything goes into a hidden sibling folder that takes the final name by one rename at the end, so a run
    killed at any point leaves nothing that could be mistaken for a data set. FileExistsError where `directory`
    exists and `overwrite` is False; with `overwrite` too where it is anything but a shard directory with nothing else
    in it, or holds or lies in one of `sources`, what the records are made from (files/outputs.py).
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        schema: Schema,
        *,
        num_shards: int = 4,
        overwrite: bool = False,
        sources: Iterable[str | os.PathLike] = (),
    ):
        if num_shards < 1:
            raise ValueError(f'num_shards must be 1 or more, found {num_shards}')
        self.directory, self.schema = Path(directory).absolute(), schema
        self._allowed: dict[str, Any] = {'overwrite': overwrite, 'sources': tuple(sources)}
        stem = f'.{self.directory.name}.incomplete-{socket.gethostname()}-'
        self._temporary = self.directory.parent / f'{stem}{os.getpid()}'
        _remove_stale(self.directory, stem)
        check_shards(self.directory, **self._allowed)
        self._temporary.mkdir(parents=True)
        self._names = [f'data-{k:05d}-of-{num_shards:05d}' for k in range(num_shards)]
        self._files = [open(self._temporary / f'{name}.tfrecord', 'wb') for name in self._names]
        self._offsets: list[list[int]] = [[0] for _ in self._names]
        self._rows: list[dict[str, Any]] = []
        self._ids: set[str] = set()

    def write(self, record: Mapping[str, Any], **columns: Any) -> None:
        """Adds one record {'id', 'label', feature: array, ...} and its manifest columns (speaker=..., ...)."""
        data = self.schema.encode(record)
        number = len(self._rows)
        if record['id'] in self._ids:
            raise RecordError(f'record id {record["id"]!r} was written before; ids must be unique')
        self._ids.add(record['id'])
        shard = number % len(self._files)
        framed = frame(data)
        self._files[shard].write(framed)
        self._offsets[shard].append(self._offsets[shard][-1] + len(framed))
        label = np.asarray(record['label']).tolist()
        label = ' '.join(map(str, label)) if isinstance(label, list) else label
        lengths = {f'length_{k}': count_steps(record[k], f) for k, f in self.schema.features.items() if f.has_length}
        base = {
            'record': number,
            'id': record['id'],
            'label': label,
            'speaker': '',
            'session': '',
            'split': '',
        }
        self._rows.append({**base, **columns, **lengths})

    def __enter__(self) -> 'RecordWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: object) -> None:
        try:
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())
            if kind is None:
                self._finish()
        finally:
            for file in self._files:
                with contextlib.suppress(OSError):  # a full disk was reported above
                    file.close()
            if self._temporary.is_dir():
                remove_shards(self._temporary)

    def _finish(self):
        if not self._rows:
            raise RecordError(f'no record was written to {self.directory}: there is nothing to keep')
        shards = []
        for name, offsets in zip(self._names, self._offsets, strict=True):
            np.save(self._temporary / f'{name}.index.npy', np.asarray(offsets, np.int64))
            shards.append({'file': f'{name}.tfrecord', 'records': len(offsets) - 1, 'bytes': offsets[-1]})
        content = {**self.schema.to_json(), 'records': len(self._rows), 'shards': shards}
        (self._temporary / 'features.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        with open(self._temporary / 'manifest.csv', 'w', newline='', encoding='utf-8') as file:
            names = list(dict.fromkeys(key for row in self._rows for key in row))
            rows = csv.DictWriter(file, names, restval='', lineterminator='\n')
            rows.writeheader()
            rows.writerows(self._rows)
        check_shards(self.directory, **self._allowed)
        replaced = self._temporary.with_name(self._temporary.name + REPLACED)
        if self.directory.exists():
            os.rename(self.directory, replaced)
        os.rename(self._temporary, self.directory)
        if replaced.is_dir():
            remove_shards(replaced)


def _remove_stale(directory: Path, stem: str) -> None:
    """Removes what runs killed on this machine left: hidden folders named after a dead process.

    One killed between its two renames left the old data set aside: it takes its place again.
    """
    parent = directory.parent
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        process, _, rest = folder.name.removeprefix(stem).partition('-')
        if not folder.name.startswith(stem) or not process.isdigit() or _is_alive(int(process)):
            continue
        if f'-{rest}' == REPLACED and not os.path.lexists(directory):
            os.rename(folder, directory)
        else:
            remove_shards(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_manifest(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """manifest.csv -> columns of equal length: `record` and `length_*` int64, class labels int64, others str."""
    path = Path(path)
    if not path.is_file():
        raise RecordError(f'{path} is missing: {path.parent} is not a whole shard directory')
    with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in MANIFEST_FIRST if not rows or name not in rows[0]]
    if missing:
        raise RecordError(f'{path} lacks the columns {missing} (or has no rows)')
    manifest = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name in manifest:
        if name == 'record' or name.startswith('length_'):
            manifest[name] = manifest[name].astype(np.int64)
    if not np.array_equal(manifest['record'], np.arange(len(rows))):
        raise RecordError(f'{path}: column record must count 0..{len(rows) - 1} in order')
    return manifest


class RecordSource:
    """Random access to the records of a shard directory: len(source), source[i] -> dict, CRC checked.

    Picklable; maps the shards lazily, once in every process. RecordError names the file and the record.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        self._maps: dict[int, mmap.mmap] = {}
        path = self.directory / 'features.json'
        if not path.is_file():
            found = 'is missing' if not self.directory.exists() else 'has no features.json'
            raise RecordError(
                f'shard directory {self.directory} {found}; write it with one of the data_prep modules '
                f'(python -m data_prep.<dataset> --output {self.directory}) or set config.data.directory'
            )
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            if content['format'] != FORMAT:
                raise RecordError(f'{path}: format {content["format"]}, this version reads format {FORMAT}')
            self.schema = Schema.from_json(content)
            self.shards, self._length = content['shards'], content['records']
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RecordError(f'{path} is damaged: {error!r}; prepare the data set again') from error
        self.offsets = [self._load_index(k) for k in range(len(self.shards))]
        self.manifest = read_manifest(self.directory / 'manifest.csv')
        if len(self.manifest['record']) != self._length:
            rows = len(self.manifest['record'])
            raise RecordError(f'{self.directory}/manifest.csv has {rows} rows, features.json says {self._length}')

    def _load_index(self, shard: int) -> np.ndarray:
        path = self.directory / self.shards[shard]['file']
        index = path.with_suffix('.index.npy')
        if not path.is_file():
            raise RecordError(f'{path} is missing; prepare the data set again')
        if not index.is_file():
            raise RecordError(
                f'{path} has no index {index.name}; rebuild it: python -m mmer_jax.records index {self.directory}'
            )
        offsets, expected = np.load(index), self.shards[shard]['records']
        if len(offsets) != expected + 1:
            raise RecordError(f'{index} lists {len(offsets) - 1} records, features.json says {expected}')
        size = path.stat().st_size
        if size != offsets[-1]:
            raise RecordError(
                f'{path} has {size} bytes, expected {offsets[-1]}: it was truncated or replaced; prepare it again'
            )
        return offsets

    def __len__(self) -> int:
        return self._length

    def __getstate__(self):
        return {**self.__dict__, '_maps': {}}

    def __repr__(self):
        return f'RecordSource({str(self.directory)!r}, records={len(self)})'

    def read_bytes(self, number: int) -> bytes:
        """The serialised record, its length and data CRC checked."""
        if not 0 <= number < self._length:
            raise IndexError(f'record {number} of {self.directory}, which has {self._length}')
        shard, position = number % len(self.shards), number // len(self.shards)
        path = self.directory / self.shards[shard]['file']
        if shard not in self._maps:
            with open(path, 'rb') as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data, start, stop = self._maps[shard], *(int(x) for x in self.offsets[shard][position : position + 2])
        name = f'{path}, record {number} (id {str(self.manifest["id"][number])!r})'
        length, length_crc = struct.unpack_from('<QI', data, start)
        if masked_crc(data[start : start + 8]) != length_crc or start + 16 + length != stop:
            raise RecordError(f'{name}: the length field is damaged (found {length}); prepare the data set again')
        payload = data[start + 12 : stop - 4]
        (stored,) = struct.unpack_from('<I', data, stop - 4)
        if (computed := masked_crc(payload)) != stored:
            raise RecordError(
                f'{name}: CRC 0x{computed:08x} of the data, 0x{stored:08x} was stored: bytes have changed; '
                'prepare the data set again'
            )
        return payload

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.read(number)

    def read(self, number: int, *, lazy: bool = False) -> dict[str, Any]:
        """Record `number`; with `lazy`, JPEG features are Frames, checked by their headers and decoded on demand."""
        record = self.schema.decode(self.read_bytes(number))
        for key, feature in self.schema.features.items():
            where = f'{self.directory}, record {number} ({record["id"]!r}), feature {key!r}'
            if feature.encoding != 'jpeg':
                check_array(record[key], feature, where)
                continue
            record[key] = Frames(record[key].encoded, where, step_shape=feature.step_shape)
            check_frames(record[key], feature, where)
            if not lazy:
                frames = np.asarray(record[key])
                record[key] = frames if feature.is_sequence or not len(frames) else frames[0]
        return record


def build_index(path: str | os.PathLike) -> np.ndarray:
    """Offsets of a TFRecord file's records, int64 (n + 1,), found by walking its length fields."""
    data, offsets, position = Path(path).read_bytes(), [0], 0
    while position < len(data):
        if position + 12 > len(data):
            raise RecordError(f'{path} is truncated at byte {position} of {len(data)}')
        length, crc = struct.unpack_from('<QI', data, position)
        if masked_crc(data[position : position + 8]) != crc:
            raise RecordError(f'{path}: damaged length field at byte {position}')
        position += 16 + length
        offsets.append(position)
    if position != len(data):
        raise RecordError(f'{path} is truncated: its last record ends at byte {position}, the file at {len(data)}')
    return np.asarray(offsets, np.int64)


def verify(directory: str | os.PathLike) -> list[str]:
    """Reads every record of a shard directory; returns the faults found, one sentence each."""
    source, faults = RecordSource(directory), []
    for number in range(len(source)):
        try:
            record = source[number]
            source.schema.check(record)  # label range and keys
            if record['id'] != source.manifest['id'][number]:
                faults.append(
                    f'record {number} has id {record["id"]!r}, manifest.csv says {str(source.manifest["id"][number])!r}'
                )
            for key, feature in source.schema.features.items():
                steps = count_steps(record[key], feature)
                if feature.has_length and steps != source.manifest[f'length_{key}'][number]:
                    faults.append(f'record {number}: {key} has {steps} steps, the manifest disagrees')
        except ValueError as error:
            faults.append(str(error))
    return faults
