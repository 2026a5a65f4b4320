"""Records on disk: one data set as TFRecord shards with a schema, a manifest and random access.

A shard directory holds a data set once (splits are never baked in, see protocols.py):

    features.json                      the schema, the label, how the data was made, the shards, sums of all files
    manifest.csv                       one row a record: record, id, label, speaker, ..., length_<feature>
    data-00000-of-00004.tfrecord       ordinary TFRecord of tf.train.Example, readable by any TFRecord reader
    data-00000-of-00004.index.npy      offsets of the records in the shard, int64 (n + 1,)
    dataset_info.json, label.labels.txt    for TensorFlow Datasets (tfds_metadata.py); not read here

Record number i lies in shard i % n at position i // n, so the shards are balanced and the number is the order
of writing. Opening compares the sizes of all files and the sums (SHA-256) of features.json and manifest.csv; reading a
record compares its CRC; `python -m mmer_jax.records verify DIR` compares everything, also each label with its row.
`... index DIR` rebuilds lost indices, `... seal DIR` writes sums and TFDS's files of a directory of version 0.2, which
has none.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.manifest import parse_labels, read_manifest
from mmer_jax.data.record_writer import RecordWriter, features_text
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
from mmer_jax.data.tfds_metadata import tfds_files
from mmer_jax.data.tfrecord import FRAME, Shard, build_index, masked_crc, unframe
from mmer_jax.files import atomic, sums
from mmer_jax.files.npy import load_npy
from mmer_jax.files.outputs import FEATURES, MANIFEST, OF_TFDS, SHARD

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
    'mend_index',
    'read_manifest',
    'seal',
    'verify',
]
AGAIN = 'bring it back, or prepare the data set again'
INDEX = '.index.npy'


class RecordSource:
    """Random access to the records of a shard directory: len(source), source[i] -> dict, CRC checked.

    Picklable; opens the shards lazily, once in every process. RecordError names file or record, and what to do.
    `is_sealed`: its features.json has the sums of its files; `any_sums`: they are not compared.
    """

    def __init__(self, directory: str | os.PathLike, *, any_sums: bool = False):
        self.directory = Path(directory)
        self._open: dict[int, Shard] = {}
        content = read_features(self.directory, any_sums=any_sums)
        try:
            if content['format'] != FORMAT:
                raise RecordError(
                    f'{self.directory / FEATURES}: format {content["format"]}, this version reads format {FORMAT}'
                )
            self.schema = Schema.from_json(content)
            self.shards, self._length = _check_shards(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, RecordError):
                raise
            raise RecordError(f'{self.directory / FEATURES} is damaged ({error!r}): {AGAIN}') from error
        self.files: dict[str, Any] = content.get(sums.FILES, {})
        self.is_sealed = bool(self.files)
        for name in self._names() if self.is_sealed and not any_sums else ():
            if fault := sums.fault(self.directory, name, self.files[name], whole=name == MANIFEST):
                raise RecordError(f'{fault}: {self._advice(name)}')
        self.offsets = [self._load_index(k) for k in range(len(self.shards))]
        path = self.directory / MANIFEST
        self.manifest = read_manifest(path)
        if (rows := len(self.manifest['record'])) != self._length:
            raise RecordError(f'{path} has {rows} rows, {FEATURES} says {self._length}: {AGAIN}')
        parse_labels(self.manifest['label'], self.schema.label, str(path))
        lacking = [
            name
            for key, f in self.schema.features.items()
            if f.has_length and (name := f'length_{key}') not in self.manifest
        ]
        if lacking:
            raise RecordError(f'{path} lacks the columns {lacking}: {AGAIN}')

    def _names(self) -> list[str]:
        """The files of the directory beside features.json, TFDS's where it has sums of them."""
        shards = [str(shard['file']) for shard in self.shards]
        of_tfds = [name for name in OF_TFDS if name in self.files]
        return [MANIFEST, *shards, *(_index_of(name) for name in shards), *of_tfds]

    def _advice(self, name: str) -> str:
        if name.endswith(INDEX):
            return f'rebuild it: python -m mmer_jax.records index {self.directory}'
        if name == MANIFEST:
            accept = f'python -m mmer_jax.records seal {self.directory}'
            return f'{AGAIN}; speakers or splits that you changed yourself are accepted by {accept}'
        if name in OF_TFDS:
            return f'write it anew: python -m mmer_jax.records seal {self.directory}'
        return AGAIN

    def _load_index(self, shard: int) -> np.ndarray:
        path, expected = self.directory / self.shards[shard]['file'], self.shards[shard]['records']
        index = path.with_name(_index_of(path.name))
        if not path.is_file():
            raise RecordError(f'{path} is missing; {AGAIN}')
        if not index.is_file():
            raise RecordError(f'{path} has no index {index.name}; {self._advice(index.name)}')
        try:
            offsets = load_npy(index)
        except ValueError as error:
            raise RecordError(f'{index} is damaged ({error}); {self._advice(index.name)}') from error
        if offsets.ndim != 1 or offsets.dtype != np.int64:
            found = f'{offsets.dtype} {offsets.shape}'
            raise RecordError(f'{index} holds {found}, expected int64 ({expected + 1},); {self._advice(index.name)}')
        if len(offsets) != expected + 1:
            found = f'lists {len(offsets) - 1} records, {FEATURES} says {expected}'
            raise RecordError(f'{index} {found}; {self._advice(index.name)}')
        if offsets[0] != 0 or (np.diff(offsets) < FRAME).any():
            raise RecordError(f'{index} is damaged (its offsets do not rise from 0); {self._advice(index.name)}')
        size = path.stat().st_size
        if size != offsets[-1]:
            raise RecordError(f'{path} has {size} bytes, expected {offsets[-1]}: it was truncated or replaced; {AGAIN}')
        return offsets

    def __len__(self) -> int:
        return self._length

    def __getstate__(self):
        return {**self.__dict__, '_open': {}}

    def __repr__(self):
        return f'RecordSource({str(self.directory)!r}, records={len(self)})'

    def read_bytes(self, number: int) -> bytes:
        """The serialised record, its length and data CRC checked."""
        if not 0 <= number < self._length:
            raise IndexError(f'record {number} of {self.directory}, which has {self._length}')
        shard, position = number % len(self.shards), number // len(self.shards)
        path = self.directory / self.shards[shard]['file']
        if shard not in self._open:
            self._open[shard] = Shard(path)
        start, stop = (int(x) for x in self.offsets[shard][position : position + 2])
        name = f'{path}, record {number} (id {str(self.manifest["id"][number])!r})'
        return unframe(self._open[shard].read(start, stop), stop - start, name, AGAIN)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.read(number)

    def read(self, number: int, *, lazy: bool = False) -> dict[str, Any]:
        """Record `number`; with `lazy`, JPEG features are Frames, checked by their headers and decoded on demand."""
        data = self.read_bytes(number)
        try:
            record = self.schema.decode(data)
        except Exception as error:  # protobuf, tfds and numpy have many kinds for bytes that are not this schema's
            where = f'{self.directory}, record {number} (id {str(self.manifest["id"][number])!r})'
            why = ' '.join(str(error).split())[:200] or type(error).__name__
            raise RecordError(f'{where} is not what {FEATURES} says ({why}); {AGAIN}') from error
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


def read_features(directory: Path, *, any_sums: bool = False) -> dict[str, Any]:
    """The content of features.json, its own sum compared where it has one."""
    path = directory / FEATURES
    if not path.is_file():
        found = 'is missing' if not directory.exists() else f'has no {FEATURES}'
        aside = atomic.replaced(directory)
        if not directory.exists() and aside.is_dir():
            raise RecordError(
                f'shard directory {directory} is missing: a killed --overwrite left the old one at {aside}; rename it, '
                'or run the preparation again'
            )
        raise RecordError(
            f'shard directory {directory} {found}; write it with one of the data_prep modules '
            f'(python -m data_prep.<dataset> --output {directory}) or set config.data.directory'
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RecordError(f'{path} is damaged ({error}): {AGAIN}') from error
    if not isinstance(content, dict):
        raise RecordError(f'{path} is damaged: it holds {type(content).__name__}, expected an object; {AGAIN}')
    if not any_sums and sums.OWN in content and sums.own_sum(content) != content[sums.OWN]:
        raise RecordError(f'{path} was changed since it was written (its sum differs): {AGAIN}')
    return content


def _check_shards(content: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The shards and the number of records; ValueError where they, or the sums of the files, contradict each other."""
    shards, length, files = content['shards'], content['records'], content.get(sums.FILES)
    if type(length) is not int or length < 1 or not isinstance(shards, list) or not shards:
        raise ValueError(f'{length!r} records in shards {str(shards)[:60]}')
    for number, shard in enumerate(shards):
        name, expected = shard['file'], len(range(number, length, len(shards)))
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise ValueError(f'shard {number} has the name {str(name)[:60]!r}')
        if shard['records'] != expected:
            raise ValueError(f'{name} has {shard["records"]!r} records, expected {expected} of {length}')
    names = {MANIFEST, *(s['file'] for s in shards), *(_index_of(s['file']) for s in shards)}
    if len(names) != 2 * len(shards) + 1:
        raise ValueError('a shard stands twice')
    if files is not None and (
        set(files) - set(OF_TFDS) != names or not all({'bytes', 'sha256'} <= set(f) for f in files.values())
    ):
        raise ValueError('sums of other files than its shards, indices and manifest.csv')
    return shards, length


def _index_of(shard: str) -> str:
    return f'{shard.removesuffix(".tfrecord")}{INDEX}'


def mend_index(directory: str | os.PathLike) -> None:
    """Writes the index of each shard anew, from the shard itself."""
    for path in sorted(Path(directory).glob('*.tfrecord')):
        with atomic.writing(path.with_name(_index_of(path.name))) as file:
            np.save(file, build_index(path))


def seal(directory: str | os.PathLike) -> list[str]:
    """Writes TFDS's metadata, then the sums of a shard directory's files, as they are now, into its features.json.
    Where a record, its label or a length is not what manifest.csv says, nothing is written; returns these faults.

    FileExistsError where a file by the name of TFDS's metadata is not this toolkit's.
    """
    source = RecordSource(directory, any_sums=True)
    faults = _faults(source)
    if not faults:
        metadata = tfds_files(source.schema, source.shards)
        for name, text in metadata.items():
            path = source.directory / name
            if name not in source.files and path.exists() and path.read_bytes() != text:
                raise FileExistsError(f'{path} is not of this toolkit: it is not replaced; move it away')
        for name, text in metadata.items():
            with atomic.writing(source.directory / name) as file:
                file.write(text)
        content = read_features(source.directory, any_sums=True)
        names = dict.fromkeys([*source._names(), *metadata])
        with atomic.writing(source.directory / FEATURES) as file:
            file.write(features_text(sums.seal(content, source.directory, names)))
    return faults


def verify(directory: str | os.PathLike) -> list[str]:
    """Reads every byte of a shard directory and compares what is stated twice; the faults found, one sentence each."""
    source = RecordSource(directory)
    faults = _faults(source)
    for name, expected in source.files.items():
        if not any(name in fault for fault in faults) and (
            fault := sums.fault(source.directory, name, expected, whole=True)
        ):
            faults.append(fault)
    return faults


def _faults(source: RecordSource) -> list[str]:
    labels, faults = parse_labels(source.manifest['label'], source.schema.label), []
    for number in range(len(source)):
        try:
            faults += _compare(source, number, labels[number])
        except ValueError as error:
            faults.append(str(error))
    return faults


def _compare(source: RecordSource, number: int, label: Any) -> list[str]:
    """What differs between a record and its row of the manifest."""
    record, row = source[number], {name: column[number] for name, column in source.manifest.items()}
    source.schema.check(record)  # label range and keys
    faults = []
    if record['id'] != row['id']:
        faults.append(f'record {number} has id {record["id"]!r}, {MANIFEST} says {str(row["id"])!r}')
    if not np.array_equal(record['label'], label):
        found = np.asarray(record['label']).tolist()
        faults.append(f'record {number} ({record["id"]}) has label {found}, {MANIFEST} says {str(row["label"])!r}')
    for key, feature in source.schema.features.items():
        steps = count_steps(record[key], feature)
        if feature.has_length and steps != row[f'length_{key}']:
            faults.append(f'record {number}: {key} has {steps} steps, {MANIFEST} says {row[f"length_{key}"]}')
    return faults
