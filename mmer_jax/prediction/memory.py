"""Records in memory in place of a shard directory, so that a clip goes into a batch the way a record does."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.batches import Batch, BatchPlan, LoadBatch
from mmer_jax.data.schema import Frames, Schema, count_steps


@dataclasses.dataclass
class MemorySource:
    """What LoadBatch reads of a RecordSource: a schema and `read`. Records hold None where a modality is missing."""

    schema: Schema
    records: Sequence[Mapping[str, Any]]
    directory: Path = Path('memory')

    def __post_init__(self):
        self.records = [self._whole(record) for record in self.records]

    def _whole(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with its pictures decoded, once for all models, and arrays of no steps for what is missing."""
        found = dict(record)
        for key, feature in self.schema.features.items():
            if isinstance(found[key], Frames):
                found[key] = np.asarray(found[key])
            elif found[key] is None:
                found[key] = feature.missing()
        return found

    def __len__(self) -> int:
        return len(self.records)

    def read(self, number: int, *, lazy: bool = False) -> dict[str, Any]:
        """Record `number`, as RecordSource.read gives it without `lazy`."""
        del lazy
        return dict(self.records[number])

    def steps(self, modalities: Sequence[str], max_length: Mapping[str, int]) -> dict[str, np.ndarray]:
        """(R,) steps of each modality in every record, after the cut to max_length; 0 where it is missing."""
        found = {}
        for m in modalities:
            counts = [count_steps(record[m], self.schema.features[m]) for record in self.records]
            found[m] = np.minimum(counts, max_length[m]) if max_length.get(m) else np.array(counts, np.int64)
        return found


def one_batch(
    source: MemorySource,
    modalities: Sequence[str],
    statistics: Mapping[str, Any],
    max_length: Mapping[str, int],
    shape: Mapping[str, int],
    rows: int,
) -> Batch:
    """All records of `source` as one batch of `rows` rows and `shape` steps, normalised and padded as in training."""
    numbers = np.arange(len(source))
    plan = BatchPlan(numbers, source.steps(modalities, max_length), [dict(shape)], rows)
    load = LoadBatch(source, tuple(modalities), plan, statistics, max_length)  # type: ignore[arg-type]
    batch = load((0, 0, numbers))
    return {key: value for key, value in batch.items() if key not in ('id', 'label')}
