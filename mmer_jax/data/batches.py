"""grain pipelines: record numbers of a split -> padded, masked, bucketed numpy batches.

Batches are planned on the index level, from the manifest's lengths, before anything is read: batch i of a run is
a pure function of (plan, i). So shuffling is global, the number of compiled shapes is bounded, every process
derives the same plan and reads only its own rows, and resuming at step n means starting at element n, whatever
the number of workers or processes was before.
"""

import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from mmer_jax.data.augment import Augmentation, Record
from mmer_jax.data.manifest import parse_labels
from mmer_jax.data.records import Feature, Frames, RecordSource, Schema
from mmer_jax.data.schema import MODALITIES

Batch = dict[str, np.ndarray]


def check_modalities(modalities: Sequence[str], schema: Schema) -> None:
    """ValueError where a modality is unknown, given twice or not in the data set."""
    available = [m for m in MODALITIES if m in schema.features]
    wrong = [m for m in modalities if m not in available]
    if wrong or not modalities or len(set(modalities)) != len(modalities):
        raise ValueError(
            f'modalities {tuple(modalities)}: data set {schema.name!r} has {tuple(available)}; '
            'name one to three of them, each once'
        )


def record_lengths(
    source: RecordSource, modalities: Sequence[str], max_length: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Steps of each modality in every record, (R,) each, after the cut to max_length; a vector has one step.

    0 where the modality is missing: such a record has an all-False mask of it.
    """
    lengths = {}
    for m in modalities:
        column = source.manifest.get(f'length_{m}', np.ones(len(source), np.int64))
        lengths[m] = np.minimum(column, max_length[m]) if max_length.get(m) else column
    return lengths


def labels_of(source: RecordSource, numbers: np.ndarray) -> np.ndarray:
    """Labels of records from the manifest: int64 (R,) classes, float32 (R,) values or int64 (R, E) binary ones."""
    return parse_labels(source.manifest['label'][numbers], source.schema.label)


def plan_shapes(lengths: Mapping[str, np.ndarray], max_shapes: int, candidates: int = 96) -> list[dict[str, int]]:
    """At most max_shapes nested padded lengths {modality: steps} that waste the least padding.

    Records are sorted by total length (each modality relative to its mean); dynamic programming then cuts the
    sorted order into groups so that the sum of (group size x group maximum) is least. Shapes grow in every
    modality, so that a record left over in one group fits the next. Every shape has a step, also of a modality that is
    missing in all records of its group. Modalities that go step by step together (words and the sound of each word)
    get equal lengths in a group whose longest record lacks one of them.
    """
    lengths = _with_partners(lengths)
    relative = np.stack([lengths[m] / max(lengths[m].mean(), 1e-9) for m in lengths])
    order = np.argsort(relative.sum(0), kind='stable')
    total = len(order)
    cuts = np.unique(np.linspace(0, total, min(candidates, total) + 1).astype(int))
    pieces = len(cuts) - 1
    piece_max = np.stack([relative[:, order[a:b]].max(1) for a, b in itertools.pairwise(cuts)], axis=1)
    cost = np.full((pieces, pieces + 1), np.inf)  # cost[i, j]: padded area of the group of pieces i .. j-1
    for i in range(pieces):
        area = np.maximum.accumulate(piece_max[:, i:], axis=1).sum(0)
        cost[i, i + 1 :] = area * (cuts[i + 1 :] - cuts[i])
    best, back = cost[0], []
    for _ in range(min(max_shapes, pieces) - 1):
        extended = best[:pieces, None] + cost
        back.append(extended.argmin(0))
        best = extended.min(0)
    ends = [pieces]
    for choice in reversed(back):
        ends.append(int(choice[ends[-1]]))
    ends = sorted(set(ends) - {0})
    return [{m: max(int(lengths[m][order[: cuts[end]]].max()), 1) for m in lengths} for end in ends]


def _with_partners(lengths: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The lengths, with those of a missing modality taken from one that it equals wherever a record has both."""
    filled = {m: column.copy() for m, column in lengths.items()}
    for m, other in itertools.permutations(lengths, 2):
        both = (lengths[m] > 0) & (lengths[other] > 0)
        if np.array_equal(lengths[m][both], lengths[other][both]):
            filled[m] = np.where(filled[m] > 0, filled[m], lengths[other])
    return filled


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """Which records form batch i, and its padded shape; a grain random-access source of epochs x batches.

    records (R,) int64; lengths {modality: (R,)} of those records; shapes from plan_shapes, smallest first.
    Within an epoch every record occurs once. What does not fill a batch of its bucket moves up to the next larger
    one; only the last batch of the largest bucket may be short (it is filled with rows of weight 0 when loaded).
    """

    records: np.ndarray
    lengths: Mapping[str, np.ndarray]
    shapes: Sequence[Mapping[str, int]]
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    epochs: int = 1

    @functools.cached_property
    def bucket(self) -> np.ndarray:
        """(R,) number of the smallest shape that holds each record."""
        fits = np.stack([np.all([self.lengths[m] <= shape[m] for m in shape], axis=0) for shape in self.shapes])
        if not fits.any(0).all():
            bad = int(np.flatnonzero(~fits.any(0))[0])
            found = {m: int(self.lengths[m][bad]) for m in self.lengths}
            raise ValueError(f'record {self.records[bad]} has lengths {found}, the largest shape is {self.shapes[-1]}')
        return fits.argmax(0)

    @functools.lru_cache(maxsize=4)  # noqa: B019  a plan lives as long as its run; four epochs are small
    def epoch(self, number: int) -> list[tuple[int, np.ndarray]]:
        """The epoch's batches, each (shape number, record numbers (<= batch_size,)), in order."""
        generator = np.random.default_rng([self.seed, number])
        batches, carried = [], np.zeros(0, np.int64)
        for bucket in range(len(self.shapes)):
            members = self.records[self.bucket == bucket]
            if self.shuffle:
                members = generator.permutation(members)
            members = np.concatenate([carried, members])
            full = len(members) // self.batch_size * self.batch_size
            batches += [(bucket, part) for part in members[:full].reshape(-1, self.batch_size)]
            carried = members[full:]
        if len(carried):
            # The last bucket may be empty of its own: the smallest shape that holds the rest will do.
            where = np.isin(self.records, carried)
            batches.append((int(self.bucket[where].max()), carried))
        if self.shuffle:
            batches = [batches[i] for i in generator.permutation(len(batches))]
        return batches

    @functools.cached_property
    def batches_per_epoch(self) -> int:
        return len(self.epoch(0))

    def __hash__(self):
        return id(self)

    def __len__(self) -> int:
        return self.epochs * self.batches_per_epoch

    def __getitem__(self, step: int) -> tuple[int, int, np.ndarray]:
        """(epoch, shape number, record numbers) of a step."""
        epoch, position = divmod(int(step), self.batches_per_epoch)
        return (epoch, *self.epoch(epoch)[position])

    def padding_waste(self, epoch: int = 0) -> float:
        """Share of padded positions among all positions of an epoch's batches, filling rows counted as padding."""
        used = sum(int(self.lengths[m].sum()) for m in self.lengths)
        total = sum(self.batch_size * sum(self.shapes[bucket].values()) for bucket, _ in self.epoch(epoch))
        return 1 - used / total


@dataclasses.dataclass(frozen=True)
class LoadBatch:
    """Reads, normalises, augments, pads and masks the rows of one planned batch that belong to this process.

    A hidden modality is all zeros, with an all-False mask, in every row; one that a record lacks is so in its row.
    """

    source: RecordSource
    modalities: tuple[str, ...]
    plan: BatchPlan
    statistics: Mapping[str, Any]
    max_length: Mapping[str, int]
    augmentations: tuple[Augmentation, ...] = ()
    process_index: int = 0
    process_count: int = 1
    hidden: tuple[str, ...] = ()  # modalities whose every step is padding, for ablation
    numbered: bool = False  # whether batch['record'] has the number of each record, len(source) in padding rows

    def __call__(self, planned: tuple[int, int, np.ndarray]) -> Batch:
        epoch, bucket, numbers = planned
        rows = self.plan.batch_size // self.process_count
        numbers = numbers[self.process_index * rows : (self.process_index + 1) * rows]
        records = [self._load(int(number), epoch) for number in numbers]
        batch: Batch = {}
        for m in self.modalities:
            shape = (rows, self.plan.shapes[bucket][m], *self.source.schema.features[m].step_shape)
            batch[m], batch[f'{m}_mask'] = self._pad(m, records, numbers, shape)
        label = self.source.schema.label
        label_shape = (rows, len(label.names)) if label.kind == 'binary' else (rows,)
        batch['label'] = np.zeros(label_shape, np.float32 if label.kind == 'regression' else np.int32)
        batch['weight'] = np.zeros(rows, np.float32)
        batch['id'] = np.full(rows, '', object)
        for row, record in enumerate(records):
            batch['label'][row], batch['weight'][row], batch['id'][row] = record['label'], 1, record['id']
        if self.numbered:
            batch['record'] = np.full(rows, len(self.source), np.int32)
            batch['record'][: len(numbers)] = numbers
        return batch

    def _load(self, number: int, epoch: int) -> Record:
        found = self.source.read(number, lazy=True)
        record = {key: found[key] for key in ('id', 'label', *self.modalities)}
        for m in self.modalities:
            array = _with_time(record[m], self.source.schema.features[m])
            if m in self.statistics:
                found_by = self.statistics[m]  # of all, or of the record's speaker (data/speakers.py)
                mean, deviation = found_by if isinstance(found_by, tuple) else found_by.of(number)
                array = (array - mean) / deviation
            record[m] = array
        if self.augmentations:
            generator = np.random.default_rng([self.plan.seed, epoch, number])
            for augment in self.augmentations:
                record = augment(record, generator)
        for m in self.modalities:
            # Pictures are decoded here, after all cutting: those cut away never are.
            record[m] = np.asarray(record[m][: self.max_length.get(m) or None])
        return record

    def _pad(
        self, m: str, records: list[Record], numbers: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        feature = self.source.schema.features[m]
        padded, mask = np.zeros(shape, feature.dtype), np.zeros(shape[:2], bool)
        for row, record in enumerate(records if m not in self.hidden else ()):
            steps = len(record[m])
            if steps > shape[1]:
                raise ValueError(
                    f'record {numbers[row]} ({record["id"]}): {m} has {steps} steps, planned for at most {shape[1]}; '
                    'an augmentation may shorten a sequence, not lengthen it'
                )
            if record[m].shape[1:] != shape[2:]:
                raise ValueError(
                    f'record {numbers[row]} ({record["id"]}): a step of {m} has shape {record[m].shape[1:]} after '
                    f'augmentation, expected {shape[2:]} as stored'
                )
            padded[row, :steps], mask[row, :steps] = record[m], True
        return padded, mask


def _with_time(array: Any, feature: Feature) -> Any:
    """A feature without a time axis as a sequence of one step, or of none where it is missing; Frames are one."""
    return array if isinstance(array, Frames) or array.ndim > len(feature.step_shape) else array[None]


def feature_statistics(
    source: RecordSource, numbers: np.ndarray, modalities: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each feature over all steps of the given (training) records, float32 each.

    A feature that does not vary gets deviation 1. ValueError for pictures, which their encoders normalise, and for a
    modality that all of these records lack.
    """
    pictures = [m for m in modalities if source.schema.features[m].is_image]
    if pictures:
        advice = f'take {", ".join(map(repr, pictures))} out of config.data.normalize'
        raise ValueError(f'pictures stay uint8 in a batch and are normalised by their encoder; {advice}')
    sums: dict[str, list[Any]] = {m: [0, 0.0, 0.0] for m in modalities}
    for number in numbers if modalities else ():
        record = source.read(int(number), lazy=True)
        for m in modalities:
            array = _with_time(record[m], source.schema.features[m]).astype(np.float64)
            sums[m] = [sums[m][0] + len(array), sums[m][1] + array.sum(0), sums[m][2] + (array**2).sum(0)]
    statistics = {}
    for m, (count, first, second) in sums.items():
        if not count:
            raise ValueError(f'{m} is missing in all {len(numbers)} training records; take it out of config.modalities')
        mean = first / count
        deviation = np.sqrt(np.maximum(second / count - mean**2, 0))
        deviation = np.where(deviation > 1e-6, deviation, 1)
        statistics[m] = (mean.astype(np.float32), deviation.astype(np.float32))
    return statistics


def read_batches(
    load: LoadBatch, *, start: int = 0, workers: int = 0, threads: int = 1, prefetch: int = 8
) -> Generator[Batch, None, None]:
    """An iterator over the plan's batches from step `start` on; threads read ahead, or `workers` processes.

    A generator: close it to stop the threads early.
    """
    import grain  # not with this module: a prediction needs none of it

    dataset = grain.MapDataset.source(load.plan).map(load)
    if start >= len(load.plan):
        return
    dataset = dataset[start:] if start else dataset
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    iterable = dataset.to_iter_dataset(options)
    if workers:
        check_main_guard()
        if not flags.FLAGS.is_parsed():
            # grain hands its flags to the workers. Who parses flags later still can: this only gives the defaults.
            flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    iterator = iter(iterable)
    try:
        yield from iterator
    finally:
        close = getattr(iterator, 'close', None)
        if close is not None:
            close()


def check_main_guard() -> None:
    """RuntimeError in a process that multiprocessing is just starting, while it runs the user's script once more.

    Such a process imports the script again; what is not under the guard then starts processes of its own.
    """
    if getattr(multiprocessing.current_process(), '_inheriting', False):
        raise RuntimeError(
            'data.workers > 0 starts your script once more in every worker: put what trains under "if __name__ == '
            "'__main__':\", or set data.workers to 0"
        )
