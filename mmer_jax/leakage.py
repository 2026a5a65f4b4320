"""Leaks that no manifest shows: features of a trained network split anew, a trained run tested on other data."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.protocols import Fold, make_folds
from mmer_jax.records import RecordSource

EXTRACTED = 'extracted'  # key of Schema.info under which mmer_jax.extract says what the features came from
OWN_SPLIT = 'official_split'  # the protocol that reads the split recorded beside the features


def folds_of_source(source: RecordSource, protocol: str, options: Mapping[str, Any]) -> list[Fold]:
    """Folds of a record directory under a protocol; features of a trained run inherit the marks of that run.

    ValueError where features of a trained network would be split in another way than that network's data were.
    """
    extracted = source.schema.info.get(EXTRACTED)
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


def is_same_test(predictions: Path, fold: Fold, source: RecordSource) -> bool:
    """Whether a finished fold's saved test predictions are of the very records that `fold` of `source` tests."""
    if not predictions.is_file():
        return False
    with np.load(predictions) as file:
        return set(file['id'].tolist()) == set(source.manifest['id'][fold.test].tolist())


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
