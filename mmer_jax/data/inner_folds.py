"""Inner folds: all that a fold does not test, divided again by speaker to choose how long to train.

One or two validation speakers are a noisy judge of an epoch. With inner folds everybody who is not tested validates
once and the curves are averaged; then all of them are trained on. The tested records are in no inner fold.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmer_jax.data.folds import Fold, Manifest
from mmer_jax.data.protocols import natural

NOBODY = np.zeros(0, np.int64)
NAME = 'inner_'
BY_SESSION = 'leave_sessions_out'  # speakers of a session talk with each other there


def merged(fold: Fold) -> Fold:
    """The fold that trains on its validation records too and validates on none; ValueError where they are tested."""
    common = np.intersect1d(np.union1d(fold.train, fold.validation), fold.test)
    if common.size:
        raise ValueError(
            f'config.selection.folds: fold {fold.name!r} tests {common.size} records that it trains or validates on; '
            'take a protocol whose test records are in no other set, or config.selection.folds=0'
        )
    return dataclasses.replace(fold, train=np.union1d(fold.train, fold.validation), validation=NOBODY)


def groups_of(manifest: Manifest, protocol: str) -> tuple[str, np.ndarray]:
    """What stays together, in words, and the group (R,) str of each record: its session where the protocol leaves out
    sessions, its speaker where any is known (those without are one group), else the record itself."""
    name = 'session' if protocol == BY_SESSION else 'speaker'
    column = np.asarray(manifest.get(name, [''] * len(manifest['record']))).astype(str)
    if not (column != '').any():
        return 'records', np.asarray(manifest['record']).astype(str)
    return f'{name}s', column


def inner_folds(
    fold: Fold, manifest: Manifest, count: int, *, protocol: str, options: Mapping[str, Any], seed: int
) -> list[Fold]:
    """`count` folds of the training records of a `merged` fold: each group validates once, none is tested.

    Groups are shuffled by `seed` and dealt out one by one, those of one value of the protocol's column `balance` after
    the other, so that inner folds differ by one group at most in all and in each value. The same for any order of rows.

    ValueError where there are fewer groups than folds.
    """
    what, group = groups_of(manifest, protocol)
    rows = np.isin(manifest['record'], fold.train)
    names = natural(group[rows])
    if len(names) < count:
        raise ValueError(
            f'config.selection.folds: found {count}, but fold {fold.name!r} has {len(names)} {what} that are not '
            f'tested; expected at most {len(names)}, or 0'
        )
    balance = options.get('balance')
    column = np.asarray(manifest[balance]).astype(str) if balance else np.full(len(group), '')
    value = {name: str(column[group == name][0]) for name in names}
    order = np.random.RandomState(seed).permutation(len(names))  # its numbers are frozen for good
    dealt = sorted((names[place] for place in order), key=lambda name: value[name])  # stable: shuffled within a value
    found = []
    for number in range(count):
        held = rows & np.isin(group, dealt[number::count])
        train, validation = (np.sort(np.asarray(manifest['record'])[part]) for part in (rows & ~held, held))
        found.append(Fold(f'{NAME}{number}', train, validation, NOBODY, fold.marks))
    return found
