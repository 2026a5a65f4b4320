"""A fold (who is trained on, selected on and tested on), its checks, and the marks of what makes it dishonest.

A manifest is a dict of equal-length columns, one row a record: `record` (int, different), `id`, `speaker`,
`session`, `split` (str; '' where the data set has none), `label`, and others. protocols.py makes folds of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

Manifest = Mapping[str, np.ndarray]
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value, so folds are not compared
class Fold:
    """One training run: the record numbers of its three sets, int64 and sorted, and the marks they earned."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    marks: tuple[str, ...] = ()


def records_of(manifest: Manifest) -> np.ndarray:
    """The record numbers (n,) int64 in manifest order."""
    if 'record' not in manifest:
        raise ValueError(f"the manifest has no column 'record' (it has: {', '.join(manifest)})")
    record = np.asarray(manifest['record'])
    if record.ndim != 1 or not record.size or record.dtype.kind not in 'iu':
        raise ValueError(
            f"the manifest's column 'record' has shape {record.shape} and type {record.dtype}: "
            'expected one whole number for each record, and at least one record'
        )
    if len(np.unique(record)) != len(record):
        raise ValueError(
            f"the manifest's column 'record' has {len(record)} rows but {len(np.unique(record))} different "
            'numbers: expected each record once'
        )
    return record.astype(np.int64)


def text_column(manifest: Manifest, name: str, protocol: str, may_be_empty: bool = False) -> np.ndarray:
    """A text column (n,); '' is an unknown value, refused unless `may_be_empty`."""
    if name not in manifest:
        raise ValueError(
            f'{protocol} needs the column {name!r}, which the manifest does not have (it has: '
            f'{", ".join(manifest)}); prepare the data set with it, or choose another protocol'
        )
    column, record = np.asarray(manifest[name]).astype(str), records_of(manifest)
    if column.shape != record.shape:
        raise ValueError(f'the column {name!r} has shape {column.shape}: expected {record.shape}, one a record')
    empty = record[column == '']
    if empty.size and not may_be_empty:
        raise ValueError(
            f'{protocol} needs the column {name!r}, which is empty for {empty.size} of {len(column)} records '
            f'(first: record {empty[0]}); fill it in, leave these records out, or choose another protocol'
        )
    return column


def _checked_set(fold: Fold, name: str, record: np.ndarray) -> np.ndarray:
    """One set of a fold as sorted int64, after checking its numbers against the manifest's."""
    where, values = f'fold {fold.name!r}: the {name} set', np.asarray(getattr(fold, name))
    if values.ndim != 1 or not values.size:
        raise ValueError(f'{where} has shape {values.shape}: expected (n,) with at least one record')
    if values.dtype.kind not in 'iu':
        raise ValueError(f'{where} has type {values.dtype}: expected record numbers, not a mask or fractions')
    outside = np.setdiff1d(values, record)
    if outside.size:
        raise ValueError(
            f'{where} holds record {outside[0]}, and {outside.size - 1} more, out of range: the manifest has '
            f'{len(record)} records from {record.min()} to {record.max()}'
        )
    if len(np.unique(values)) != len(values):
        repeated = len(values) - len(np.unique(values))
        raise ValueError(f'{where} repeats {repeated} of its {len(values)} records: expected each once')
    return np.sort(values).astype(np.int64)


def _checked_fold(fold: Fold, record: np.ndarray) -> Fold:
    """The fold with sorted sets; refuses sets that overlap, unless validation is exactly test, or all are one set."""
    sets = {name: _checked_set(fold, name, record) for name in SPLITS}
    if all(np.array_equal(sets['train'], sets[name]) for name in SPLITS):
        return dataclasses.replace(fold, **sets)  # type: ignore[arg-type]
    for first, second in (('train', 'test'), ('train', 'validation'), ('validation', 'test')):
        common = np.intersect1d(sets[first], sets[second])
        same_set = first == 'validation' and np.array_equal(sets[first], sets[second])
        if common.size and not same_set:
            hint = ', or two identical sets to select on test' if first == 'validation' else ''
            raise ValueError(
                f'fold {fold.name!r}: {first} and {second} share {common.size} records (first: {common[0]}); '
                f'expected none{hint}'
            )
    return dataclasses.replace(fold, **sets)  # type: ignore[arg-type]


def _fold_marks(fold: Fold, record: np.ndarray, speaker: np.ndarray) -> list[str]:
    """The marks that one fold earns by itself."""
    people = {name: set(speaker[np.isin(record, getattr(fold, name))].tolist()) for name in SPLITS}
    used = np.isin(record, np.concatenate([fold.train, fold.validation, fold.test]))
    unknown = np.sum(used & (speaker == ''))
    train, validation, test = (people[name] - {''} for name in SPLITS)
    marks = []
    selected_on_test = np.array_equal(fold.validation, fold.test)
    if np.array_equal(fold.train, fold.test):
        marks.append('tested on the training records')
    elif selected_on_test:
        marks.append('selected on test')
    if train & test:
        marks.append(f'speakers shared ({len(train & test)} of {len(test)} test speakers are in train)')
    elif not selected_on_test:
        # Less harm than a shared test, but selection then favours known voices, or the very voices of the test.
        for other, who in (('train', train), ('test', test)):
            if validation & who:
                count = f'{len(validation & who)} of {len(validation)} validation speakers are in {other}'
                marks.append(f'validation speakers shared ({count})')
    if unknown:
        marks.append(f'speakers unknown ({unknown} of {used.sum()} records)')
    if not used.all():
        marks.append(f'{np.sum(~used)} of {len(record)} records in no split')
    return marks


def check_folds(folds: Sequence[Fold], manifest: Manifest) -> list[Fold]:
    """The folds, sets sorted and `marks` computed from the sets and the manifest's speakers, never declared.

    Marks: 'tested on the training records', or 'selected on test'; 'speakers shared (...)' between train and test, or
    else 'validation speakers shared (...)' with either; 'speakers unknown (...)'; 'N of M records in no split'; and,
    over several folds, 'N of M records never tested' and 'N of M records tested more than once'. No marks: an honest
    protocol.

    Raises ValueError on no folds or two of one name, an empty set, a record that the manifest does not have or
    that a set repeats, and sets that overlap; only validation and test, or all three, may be identical.
    """
    names = [fold.name for fold in folds]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'folds are named {names}: expected at least one fold, each with a name of its own')
    record, speaker = records_of(manifest), text_column(manifest, 'speaker', 'check_folds', may_be_empty=True)
    checked = [_checked_fold(fold, record) for fold in folds]
    times = np.sum([np.isin(record, fold.test) for fold in checked], axis=0)
    counts = {'never tested': np.sum(times == 0), 'tested more than once': np.sum(times > 1)}
    over_all = [f'{n} of {len(record)} records {what}' for what, n in counts.items() if n and len(checked) > 1]
    return [dataclasses.replace(fold, marks=(*_fold_marks(fold, record, speaker), *over_all)) for fold in checked]
