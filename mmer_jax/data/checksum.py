"""What tells two states of a shard directory apart, for a few thousand reads: see data_checksum."""

import hashlib
import struct

import numpy as np

from mmer_jax.data.records import RecordSource

SAMPLED = 4096  # records, evenly spaced, whose stored CRCs are read


def data_checksum(source: RecordSource) -> str:
    """64 hex digits (SHA-256) of features.json, manifest.csv, where each record lies, and the CRCs of records.

    Of up to SAMPLED records every CRC is read, of more every so many-th: there a change of bytes that keeps every
    length may go unseen, which `python -m mmer_jax.records verify DIR` finds. CRCs are those that were stored when the
    records were written, so nothing is read but four bytes per record. Equal for a copy at another place.
    """
    found = hashlib.sha256()
    for name in ('features.json', 'manifest.csv'):
        content = (source.directory / name).read_bytes()
        found.update(struct.pack('<Q', len(content)) + content)
    shards = len(source.shards)
    chosen = np.unique(np.linspace(0, len(source) - 1, min(SAMPLED, len(source))).astype(np.int64))
    for shard in range(shards):
        offsets = np.asarray(source.offsets[shard], np.int64)
        found.update(np.ascontiguousarray(offsets, '<i8').tobytes())
        with open(source.directory / source.shards[shard]['file'], 'rb') as file:
            for end in offsets[1:][chosen[chosen % shards == shard] // shards]:
                file.seek(int(end) - 4)
                found.update(file.read(4))
    return found.hexdigest()
