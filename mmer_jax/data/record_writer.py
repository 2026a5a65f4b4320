"""RecordWriter: a shard directory, whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.manifest import label_cell, write_manifest
from mmer_jax.data.schema import RecordError, Schema, count_steps
from mmer_jax.data.tfds_metadata import tfds_files
from mmer_jax.data.tfrecord import frame
from mmer_jax.files import atomic, sums
from mmer_jax.files.locks import hold
from mmer_jax.files.outputs import FEATURES, MANIFEST, check_shards, remove_shards


class RecordWriter:
    """Context manager that writes a shard directory, whole or not at all.

    Everything goes into a hidden sibling folder that takes the final name at the end (files/atomic.py), so a run
    killed at any point leaves nothing that could be mistaken for a data set, and with `overwrite` the old one or the
    new. FileExistsError where `directory` exists and `overwrite` is False; with `overwrite` too where it is anything
    but a shard directory with nothing else in it, or holds or lies in one of `sources`, what the records are made from
    (files/outputs.py). InUse where another process is writing it.
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
        self._temporary = atomic.incomplete(self.directory)
        self._names = [f'data-{k:05d}-of-{num_shards:05d}' for k in range(num_shards)]
        check_shards(self.directory, **self._allowed)  # before anything is written beside it
        with contextlib.ExitStack() as stack:
            stack.enter_context(hold(atomic.lock_of(self.directory), self.directory))
            atomic.recover(self.directory, remove_shards)
            check_shards(self.directory, **self._allowed)
            self._temporary.mkdir()
            self._files = [open(self._temporary / f'{name}.tfrecord', 'wb') for name in self._names]
            self._held = stack.pop_all()
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
        with atomic.naming(self.directory):
            self._files[shard].write(framed)
        self._offsets[shard].append(self._offsets[shard][-1] + len(framed))
        lengths = {f'length_{k}': count_steps(record[k], f) for k, f in self.schema.features.items() if f.has_length}
        base = {
            'record': number,
            'id': record['id'],
            'label': label_cell(record['label']),
            'speaker': '',
            'session': '',
            'split': '',
        }
        self._rows.append({**base, **columns, **lengths})

    def __enter__(self) -> 'RecordWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: object) -> None:
        with self._held, atomic.naming(self.directory):
            try:
                for file in self._files:
                    file.close()
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
        shards, names = [], [MANIFEST]
        for name, offsets in zip(self._names, self._offsets, strict=True):
            np.save(self._temporary / f'{name}.index.npy', np.asarray(offsets, np.int64))
            shards.append({'file': f'{name}.tfrecord', 'records': len(offsets) - 1, 'bytes': offsets[-1]})
            names += [f'{name}.tfrecord', f'{name}.index.npy']
        write_manifest(self._temporary / MANIFEST, self._rows)
        for name, text in tfds_files(self.schema, shards).items():
            (self._temporary / name).write_bytes(text)
            names.append(name)
        content = {**self.schema.to_json(), 'records': len(self._rows), 'shards': shards}
        content = sums.seal(content, self._temporary, names)
        (self._temporary / FEATURES).write_bytes(features_text(content))
        check_shards(self.directory, **self._allowed)
        atomic.install(self.directory, remove_shards)


def features_text(content: Mapping[str, Any]) -> bytes:
    """features.json as it is written."""
    return (json.dumps(content, indent=1) + '\n').encode()
