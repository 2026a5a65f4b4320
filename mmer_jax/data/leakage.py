"""Leaks that no manifest shows: features of a trained network split anew, a trained run tested on other data."""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.protocols import Fold, make_folds
from mmer_jax.data.records import RecordSource

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
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or damaged: unknown
        return False


def check_tested(fold: Fold, source: RecordSource, trained_fold: Fold, trained_source: RecordSource) -> None:
    """ValueError where `fold` of `source` tests records or speakers that `trained_fold`'s model was trained on.

    What the run's own fold shares already is said by its marks and allowed; names mean nothing across data sets.
    """
    if source.schema.name != trained_source.schema.name:
        return
    for what, column in (('records', 'id'), ('speakers', 'speaker')):
        own = trained_source.manifest[column]
        trained = set(own[trained_fold.train].tolist()) - {''}
        shared = trained & set(source.manifest[column][fold.test].tolist())
        if shared and not trained & set(own[trained_fold.test].tolist()):
            raise ValueError(
                f'{source.directory}: fold {fold.name} would test {len(shared)} {what} that its model was trained on '
                f'(first: {min(shared)}): the run was trained on {trained_source.directory}. Leave them out of the '
                'other directory, or prepare it from the same speakers so that its folds are the same'
            )
