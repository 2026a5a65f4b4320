"""What the protocol may know of the speaker that it tests: declared in the config, and marked in each row.

With config.data.normalize_by = 'speaker' the features of a record are brought to those of its speaker, in training and
in test alike (data/speakers.py); config.data.enrolment.mode says from which clips:

    strict        of none: all records are brought to the statistics of the training set, as with 'all'; no mark
    enrolled      of k clips of each speaker, which are then in no set; the mean of the speaker is taken away
    transductive  of all clips that the speaker has in the set, without their labels: mean and deviation
"""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmer_jax.data.folds import SPLITS, Fold
from mmer_jax.data.manifest import parse_labels
from mmer_jax.data.records import RecordSource, Schema
from mmer_jax.marks import BY_SPEAKER

NORMALIZE_BY = ('all', 'speaker')
MODES = ('strict', 'enrolled', 'transductive')
LEAST = 2  # clips of a speaker in a set of which a deviation can be told


@dataclasses.dataclass(frozen=True)
class Enrolment:
    """What may be known of a speaker: the mode; of 'enrolled' how many clips, of which class ('': any, and no label is
    read), and the seed that chooses them."""

    mode: str = 'strict'
    clips: int = 2
    label: str = ''
    seed: int = 0

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f'enrolment mode {self.mode!r}: expected one of {", ".join(MODES)}')

    @property
    def is_known(self) -> bool:
        """Whether anything of the speaker is used."""
        return self.mode != 'strict'

    @property
    def marks(self) -> tuple[str, ...]:
        """What stands in every row; nothing of strict, which is the honest protocol."""
        if self.mode == 'enrolled':
            clips = f'{self.clips} clip{"s" * (self.clips > 1)} of each in no set'
            return (f'{BY_SPEAKER}enrolled ({clips}, {self.label or "labels unknown"})',)
        return (f'{BY_SPEAKER}transductive',) if self.is_known else ()


def of_config(data: Any) -> Enrolment | None:
    """The enrolment of config.data; None where it is normalised by all."""
    own = data.enrolment
    enrolment = Enrolment(own.mode, own.clips, own.label, own.seed)
    return enrolment if data.normalize_by == 'speaker' else None


# ---- who is enrolled -------------------------------------------------------------------------------------------


def check_known(speaker: np.ndarray, ids: np.ndarray, used: np.ndarray, where: str) -> None:
    """ValueError where a record that is used (R,) bool has no speaker."""
    unknown = np.flatnonzero(used & (speaker == ''))
    if unknown.size:
        raise ValueError(
            f'{where}: {unknown.size} of {used.sum()} records have no speaker (first: {ids[unknown[0]]}); '
            "normalisation by speaker needs the manifest's column speaker: fill it in, or normalise by all"
        )


def choose(
    ids: np.ndarray, speaker: np.ndarray, able: np.ndarray, used: np.ndarray, enrolment: Enrolment
) -> np.ndarray:
    """(R,) bool: the clips to enrol of each speaker of the records that are `used`, among those that are `able`.

    A function of the seed and the speaker's own ids: other speakers, folds and the order of records change nothing.
    ValueError where a speaker has too few, or none would be left.
    """
    chosen = np.zeros(len(ids), bool)
    for name in np.unique(speaker[used]).tolist():
        own = np.flatnonzero((speaker == name) & able)
        of = f'of class {enrolment.label!r} ' if enrolment.label else ''
        if len(own) < enrolment.clips:
            raise ValueError(
                f'speaker {name!r} has {len(own)} clips {of}with all features, and {enrolment.clips} are to be '
                'enrolled: enrol fewer, leave the speaker out, or take another mode'
            )
        own = own[np.argsort(ids[own], kind='stable')]
        order = np.random.RandomState(zlib.crc32(f'{enrolment.seed} {name}'.encode())).permutation(len(own))
        chosen[own[order[: enrolment.clips]]] = True
        if not (used & (speaker == name) & ~chosen).any():
            raise ValueError(
                f'speaker {name!r} has no clip left beside the {enrolment.clips} enrolled: enrol fewer, or leave the '
                'speaker out'
            )
    return chosen


def check_features(schema: Schema, modalities: Sequence[str]) -> None:
    """ValueError for a modality that has no mean of use: tokens, pictures, samples of sound; and for none at all."""
    if not modalities:
        raise ValueError(
            "config.data.normalize is empty: name the modalities that are normalised by speaker, ('audio',)"
        )
    for m in modalities:
        feature = schema.features[m]
        if feature.dtype != 'float32' or len(feature.step_shape) != 1:
            found = f'{feature.dtype} {feature.shape}'
            raise ValueError(
                f'{m} of {schema.name} is {found}: tokens, pictures and samples cannot be normalised by speaker, '
                f'features (T, D) or (D,) can; take {m!r} out of config.data.normalize'
            )


def enrol(
    folds: Sequence[Fold], source: RecordSource, enrolment: Enrolment | None, modalities: Sequence[str]
) -> list[Fold]:
    """The folds with the mark of the enrolment; the enrolled clips are taken out of all their sets.

    ValueError where a speaker is unknown or has too few clips, a modality has no features, or a set is left empty.
    """
    if enrolment is None:
        return list(folds)
    check_features(source.schema, modalities)
    found = []
    for fold in folds:
        check_known(source.manifest['speaker'], source.manifest['id'], used_by(fold, source), f'fold {fold.name!r}')
        chosen = enrolled(fold, source, enrolment, modalities)
        left = {name: numbers[~chosen[numbers]] for name in SPLITS if len(numbers := getattr(fold, name))}
        for name, numbers in left.items():
            if not len(numbers):
                raise ValueError(f'fold {fold.name!r}: all records of the {name} set are enrolled; enrol fewer clips')
        if enrolment.mode == 'transductive':
            _check_enough(fold, source)
        found.append(dataclasses.replace(fold, **left, marks=(*fold.marks, *enrolment.marks)))
    return found


def enrolled(fold: Fold, source: RecordSource, enrolment: Enrolment, modalities: Sequence[str]) -> np.ndarray:
    """(R,) bool: the clips to enrol of the speakers of a fold, before or after they are taken out; none by mode."""
    if enrolment.mode != 'enrolled':
        return np.zeros(len(source), bool)
    manifest, names = source.manifest, source.schema.label.names
    able = np.ones(len(source), bool)
    for m in modalities:
        able &= manifest.get(f'length_{m}', np.ones(len(source), np.int64)) > 0
    if enrolment.label:
        if source.schema.label.kind != 'classes' or enrolment.label not in names:
            raise ValueError(f'config.data.enrolment.label {enrolment.label!r}: no class; known: {", ".join(names)}')
        able &= parse_labels(manifest['label'], source.schema.label) == names.index(enrolment.label)
    return choose(manifest['id'], manifest['speaker'], able, used_by(fold, source), enrolment)


def used_by(fold: Fold, source: RecordSource) -> np.ndarray:
    """(R,) bool: the records of a set."""
    return sets_of(fold, source) != ''


def sets_of(fold: Fold, source: RecordSource) -> np.ndarray:
    """(R,) the set of each record, '' for none; of sets that are one, the last."""
    found = np.full(len(source), '', f'U{max(map(len, SPLITS))}')
    for name in SPLITS:
        found[getattr(fold, name)] = name
    return found


def _check_enough(fold: Fold, source: RecordSource) -> None:
    sets, speaker = sets_of(fold, source), source.manifest['speaker']
    for name in SPLITS:
        who, counts = np.unique(speaker[sets == name], return_counts=True)
        if (few := who[counts < LEAST]).size:
            raise ValueError(
                f'speaker {str(few[0])!r} has one clip in the {name} set of fold {fold.name!r}: transductive '
                f'normalisation needs {LEAST} or more; leave the speaker out, or take another mode'
            )
