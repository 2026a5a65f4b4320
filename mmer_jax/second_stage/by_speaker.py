"""Vectors of the second stage brought to those of their speaker, from the clips that the enrolment allows."""

import dataclasses

import numpy as np

from mmer_jax.data.enrolment import LEAST, Enrolment, check_known, choose
from mmer_jax.second_stage.folds import FoldFeatures


def by_speaker(fold: FoldFeatures, enrolment: Enrolment | None) -> FoldFeatures:
    """The fold with its vectors normalised by speaker, training records (validation among them) and test records each
    by what the speaker has among them; 'enrolled': by clips that are in no set, the mean alone. Its mark is added.

    Nothing is changed where nothing of a speaker may be known, or without an enrolment. ValueError where a speaker is
    unknown, or has too few clips.
    """
    if enrolment is None:
        return fold
    used = fold.train | fold.test
    check_known(fold.groups, fold.ids, used, fold.name)
    marked = dataclasses.replace(fold, marks=(*fold.marks, *enrolment.marks))
    if enrolment.mode == 'enrolled':
        return _enrolled(marked, used, enrolment)
    return _transductive(marked) if enrolment.is_known else marked


def _enrolled(fold: FoldFeatures, used: np.ndarray, enrolment: Enrolment) -> FoldFeatures:
    able = np.ones(len(fold.ids), bool)
    if enrolment.label:
        if enrolment.label not in fold.class_names:
            raise ValueError(f'enrolment label {enrolment.label!r}: no class; known: {", ".join(fold.class_names)}')
        able = fold.labels == fold.class_names.index(enrolment.label)
    chosen = choose(fold.ids, fold.groups, able, used, enrolment)
    features = {m: x.copy() for m, x in fold.features.items()}
    for speaker in np.unique(fold.groups[used]):
        own = fold.groups == speaker
        for x in features.values():
            x[own] -= x[own & chosen].mean(0)
    sets = {name: getattr(fold, name) & ~chosen for name in ('train', 'validation', 'test')}
    for name in ('train', 'test'):
        if not sets[name].any():
            raise ValueError(f'{fold.name}: all {name} records are enrolled; enrol fewer clips')
    return dataclasses.replace(fold, features=features, **sets)


def _transductive(fold: FoldFeatures) -> FoldFeatures:
    features = {m: x.copy() for m, x in fold.features.items()}
    for name in ('train', 'test'):
        rows = getattr(fold, name)
        for speaker in np.unique(fold.groups[rows]).tolist():
            own = rows & (fold.groups == speaker)
            if own.sum() < LEAST:
                raise ValueError(
                    f'speaker {speaker!r} has one {name} record in {fold.name}: transductive normalisation needs '
                    f'{LEAST} or more; leave the speaker out, or take another mode'
                )
            for x in features.values():
                deviation = x[own].std(0)
                x[own] = (x[own] - x[own].mean(0)) / np.where(deviation > 1e-6, deviation, 1)
    return dataclasses.replace(fold, features=features)
