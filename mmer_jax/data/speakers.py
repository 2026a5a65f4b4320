"""Means and deviations of the features by speaker, of training records and tested ones alike.

From which clips, config.data.enrolment says (data/enrolment.py): of 'transductive' mean and deviation of the clips that
the speaker has in the set of the record; of 'enrolled' the mean of k clips, for few clips have no deviation of use, and
what is left is brought to mean 0, deviation 1 by the training set. Statistics are over real steps, never over padding.
Those of a speaker depend on his own clips alone, and training batches on nothing of who is tested.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.batches import feature_statistics
from mmer_jax.data.enrolment import Enrolment, enrolled, sets_of
from mmer_jax.data.folds import Fold
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_arrays


@dataclasses.dataclass(frozen=True)
class BySpeaker:
    """Of one modality: x -> ((x - mean) / deviation - rest[0]) / rest[1], mean and deviation (G, D) those of the group
    of a record: `speaker` (G,) in `split` (G,; '' in any), rest (2, D) those of the training set after that.

    row (R,): the group of each record of a source, -1 for none.
    """

    mean: np.ndarray
    deviation: np.ndarray
    rest: np.ndarray
    speaker: np.ndarray
    split: np.ndarray
    row: np.ndarray | None = None

    def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(mean, deviation) of record `number`, (D,) float32 each."""
        row = -1 if self.row is None else int(self.row[number])
        if row < 0:
            raise ValueError(f'record {number} is in no set of the fold: its speaker was not normalised by')
        return self._whole(self.mean[row], self.deviation[row])

    def of_arrays(self, arrays: Sequence[np.ndarray], mode: str) -> tuple[np.ndarray, np.ndarray]:
        """(mean, deviation) by clips of a new speaker, (T, D) or (D,) each."""
        found = _moments((0, array.reshape(-1, self.mean.shape[1])) for array in arrays)[0]
        return self._whole(found.mean, found.deviation if mode == 'transductive' else np.ones_like(found.mean))

    def _whole(self, mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = mean + deviation * self.rest[0], deviation * self.rest[1]
        return whole[0].astype(np.float32), whole[1].astype(np.float32)

    def placed(self, source: RecordSource, fold: Fold) -> 'BySpeaker':
        """With the rows of the records of `source`; ValueError where a record of the fold has no group."""
        groups = {key: row for row, key in enumerate(zip(self.speaker.tolist(), self.split.tolist(), strict=True))}
        sets = sets_of(fold, source)
        keys = zip(source.manifest['speaker'].tolist(), sets.tolist(), strict=True)
        rows = [groups.get((who, split), groups.get((who, ''), -1)) for who, split in keys]
        row = np.array(rows, np.int64)
        lacking = np.flatnonzero((sets != '') & (row < 0))
        if lacking.size:
            name = str(source.manifest['speaker'][lacking[0]])
            raise ValueError(
                f'{source.directory}: speaker {name!r} has no statistics in the run: its data have changed; train again'
            )
        return dataclasses.replace(self, row=row)


@dataclasses.dataclass
class _Moments:
    """Running mean and deviation of steps (T, D) in float64, about the first step: large offsets cost no digits."""

    shift: np.ndarray
    count: int = 0
    first: Any = 0.0
    second: Any = 0.0

    def add(self, x_TD: np.ndarray) -> None:
        x_TD = x_TD - self.shift
        self.count, self.first = self.count + len(x_TD), self.first + x_TD.sum(0)
        self.second = self.second + (x_TD**2).sum(0)

    @property
    def mean(self) -> np.ndarray:
        return self.shift + self.first / self.count

    @property
    def deviation(self) -> np.ndarray:
        """1 for a feature that does not vary."""
        found = np.sqrt(np.maximum(self.second / self.count - (self.first / self.count) ** 2, 0))
        return np.where(found > 1e-6, found, 1.0)


def _moments(arrays: Iterable[tuple[Any, np.ndarray]]) -> dict[Any, _Moments]:
    """By key, of (key, x_TD)."""
    found: dict[Any, _Moments] = {}
    for key, x_TD in arrays:
        if len(x_TD):
            x_TD = x_TD.astype(np.float64)
            found.setdefault(key, _Moments(x_TD[0])).add(x_TD)
    return found


def _steps(
    source: RecordSource, numbers: np.ndarray, modalities: Sequence[str]
) -> Iterator[tuple[int, str, np.ndarray]]:
    """(record number, modality, x_TD); of a missing modality no step."""
    for number in numbers.tolist():
        record = source.read(number, lazy=True)
        for m in modalities:
            yield number, m, np.asarray(record[m]).reshape(-1, *source.schema.features[m].step_shape)


def fold_statistics(
    source: RecordSource, fold: Fold, modalities: Sequence[str], enrolment: Enrolment | None
) -> dict[str, Any]:
    """By modality the (mean, deviation) of the training set, or BySpeaker where something of the speakers is known.

    `fold` as `enrol` gives it.
    """
    if enrolment is None or not enrolment.is_known:
        return feature_statistics(source, fold.train, modalities)
    found = of_speakers(source, fold, modalities, enrolment)
    if enrolment.mode == 'enrolled':
        rest = _moments(
            (m, x_TD - found[m].of(number)[0]) for number, m, x_TD in _steps(source, fold.train, modalities)
        )
        for m in modalities:
            if m not in rest:
                raise ValueError(f'{m} is missing in all training records; take it out of config.modalities')
            found[m] = dataclasses.replace(found[m], rest=np.stack([rest[m].mean, rest[m].deviation]))
    return found


def of_speakers(
    source: RecordSource,
    fold: Fold,
    modalities: Sequence[str],
    enrolment: Enrolment,
    known: Mapping[str, BySpeaker] | None = None,
) -> dict[str, BySpeaker]:
    """Mean and deviation of each speaker of a fold, by modality; `known`: of a run, whose `rest` is taken."""
    speaker, sets, is_enrolled = source.manifest['speaker'], sets_of(fold, source), enrolment.mode == 'enrolled'
    if is_enrolled:
        numbers, sets = np.flatnonzero(enrolled(fold, source, enrolment, modalities)), np.full(len(source), '')
    else:
        numbers = np.flatnonzero(sets != '')
    groups = sorted({(str(speaker[n]), str(sets[n])) for n in numbers})
    parts = ((m, str(speaker[n]), str(sets[n])) for n in numbers for m in modalities)
    moments = _moments(
        (key, x_TD) for key, (_, _, x_TD) in zip(parts, _steps(source, numbers, modalities), strict=True)
    )
    found = {}
    for m in modalities:
        (size,) = source.schema.features[m].step_shape
        # A speaker who has no step of the modality has no record to normalise either.
        mean, deviation = np.zeros((len(groups), size)), np.ones((len(groups), size))
        for row, group in enumerate(groups):
            if (m, *group) in moments:
                one = moments[m, *group]
                mean[row], deviation[row] = one.mean, deviation[row] if is_enrolled else one.deviation
        rest = known[m].rest if known else np.stack([np.zeros(size), np.ones(size)])
        names, splits = (np.array(column, str) for column in zip(*groups, strict=True))
        found[m] = BySpeaker(mean, deviation, rest, names, splits).placed(source, fold)
    return found


def placed(statistics: Mapping[str, Any], source: RecordSource, fold: Fold) -> dict[str, Any]:
    """A saved run's statistics for the records of a source."""
    return {
        m: s.placed(source, fold) if isinstance(s, BySpeaker) and s.row is None else s for m, s in statistics.items()
    }


# ---- their file ------------------------------------------------------------------------------------------------

FIELDS = ('mean', 'deviation', 'rest', 'speaker', 'split')


def arrays_of(m: str, found: Any) -> dict[str, np.ndarray]:
    """The arrays of one modality's statistics, as a run's statistics.npz holds them."""
    if isinstance(found, BySpeaker):
        return {f'{m}_{name}': getattr(found, name) for name in FIELDS}
    return {f'{m}_mean': found[0], f'{m}_deviation': found[1]}


def read_statistics(path: Path, modalities: Sequence[str], enrolment: Enrolment | None) -> dict[str, Any]:
    """What `arrays_of` gave, of all modalities; ValueError in one line where the file is damaged."""
    is_known = enrolment is not None and enrolment.is_known
    fields = FIELDS if is_known else FIELDS[:2]
    found = read_arrays(path, [f'{m}_{name}' for m in modalities for name in fields])
    values = {m: [found[f'{m}_{name}'] for name in fields] for m in modalities}
    return {m: BySpeaker(*parts) if is_known else tuple(parts) for m, parts in values.items()}
