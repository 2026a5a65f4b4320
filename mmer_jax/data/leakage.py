"""Leaks that no manifest shows: of extracted features split anew, of runs begun with or tested on what others saw."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.protocols import Fold, make_folds
from mmer_jax.data.records import RecordSource
from mmer_jax.files.npy import FAULTS

EXTRACTED = 'extracted'  # key of Schema.info under which mmer_jax.extract says what the features came from
SUFFIX = '_features'  # of the data set's name then
OWN_SPLIT = 'official_split'  # the protocol that reads the split recorded beside the features


def trained_split(source: RecordSource) -> dict[str, Any] | None:
    """What mmer_jax.extract says of features whose network was trained on a part of these very records, else None.

    Features of another data set, or of speakers that it was not trained on, are like any others: their network saw none
    of them.
    """
    extracted = source.schema.info.get(EXTRACTED)
    if extracted is None:
        return None
    trained_on = extracted.get('trained_on')
    if extracted.get('unseen'):
        return None
    return extracted if trained_on is None or trained_on + SUFFIX == source.schema.name else None


def folds_of_source(source: RecordSource, protocol: str, options: Mapping[str, Any]) -> list[Fold]:
    """Folds of a record directory under a protocol; features of a trained run inherit the marks of that run.

    ValueError where features of a trained network would be split in another way than that network's data were.
    """
    extracted = trained_split(source)
    if extracted is None:
        return make_folds(source.manifest, protocol, **options)
    if protocol != OWN_SPLIT:
        raise ValueError(
            f'{source.directory} holds features of a network that was trained on the records its split column calls '
            f'train; {protocol} would test some of them. Use {OWN_SPLIT}, or the folder of all folds'
        )
    inherited = tuple(extracted.get('marks', ()))
    return [
        dataclasses.replace(fold, marks=tuple(dict.fromkeys((*fold.marks, *inherited))))
        for fold in make_folds(source.manifest, protocol, **options)
    ]


def tests_nothing_new(predictions: Path, fold: Fold, source: RecordSource) -> bool:
    """Whether `fold` of `source` tests only records that a finished fold, by its saved test predictions, tested."""
    try:
        with open(predictions, 'rb') as stream, np.load(stream) as file:
            return set(source.manifest['id'][fold.test].tolist()) <= set(file['id'].tolist())
    except FAULTS:  # not there, or damaged: unknown
        return False


def check_unseen(trained: Fold, trained_source: RecordSource, fold: Fold, source: RecordSource, where: str) -> None:
    """ValueError where what a run begins with was trained on records that its `fold` of `source` validates or tests on.

    trained: the fold that it was trained on, of `trained_source`; where: its name in the message.
    """
    trained_on = set(trained_source.manifest['id'][trained.train].tolist())
    for split in ('validation', 'test'):
        ids = source.manifest['id'][getattr(fold, split)].tolist()
        seen = [name for name in ids if name in trained_on]
        if seen:
            raise ValueError(
                f'{where} was trained on {len(seen)} of the {len(ids)} {split} records of fold {fold.name!r}, '
                f'such as {seen[0]}: give both runs the same protocol and options'
            )


@dataclasses.dataclass(frozen=True)
class Seen:
    """Which records of another directory (R,) a model was trained or selected on, and which are of such speakers."""

    records: np.ndarray
    speakers: np.ndarray

    @classmethod
    def of(cls, source: RecordSource, trained: Fold, trained_source: RecordSource) -> 'Seen':
        used = np.concatenate([trained.train, trained.validation])
        found = {}
        for column in ('id', 'speaker'):
            empty = np.full(len(source), '')
            known = set(trained_source.manifest.get(column, empty)[used].tolist()) - {''}
            found[column] = (
                np.isin(source.manifest.get(column, empty), list(known)) if known else np.zeros(len(source), bool)
            )
        return cls(found['id'], found['speaker'])

    def words(self, source: RecordSource) -> str:
        """'3 records and 2 speakers that its model was trained on (first: clip_001)'; '' for none."""
        parts, first = [], ''
        for what, column, mask in (('records', 'id', self.records), ('speakers', 'speaker', self.speakers)):
            if mask.any():
                names = sorted(set(source.manifest[column][mask].tolist()))
                parts.append(f'{len(names)} {what}')
                first = first or names[0]
        return f'{" and ".join(parts)} that its model was trained on (first: {first})' if parts else ''
