"""Protocols: pure functions from a manifest to folds, which say who is trained on, selected on and tested on.

A manifest is a dict of equal-length columns, one row a record: `record` (int, different), `id`, `speaker`,
`session`, `split` (str; '' where the data set has none), `label`, and others that protocols ignore. A protocol
returns lists of record numbers; the shards stay as they are, so five folds cost five lists.

The right way is the default: speakers of the test set are in no other set, and a checkpoint is selected on
validation. What published code does otherwise is an option. `check_folds` looks at the folds themselves and marks
what makes a result optimistic or partial, so that a result row cannot leave it out; no marks, an honest protocol.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmer_jax.data.folds import SPLITS, Fold, Manifest, check_folds, records_of, text_column

LEAST_SPEAKERS = 3  # one to test, one to validate, one to train on


def natural(values: np.ndarray) -> list[str]:
    """Different values in natural order: '2' before '10', so that actor numbers without zeros stay in order."""

    def key(value: str) -> tuple[list[str | int], str]:
        parts = re.split('([0-9]+)', value)
        return [int(part) if place % 2 else part for place, part in enumerate(parts)], value

    return sorted({str(value) for value in values}, key=key)


def _whole(protocol: str, name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f'{protocol}: {name} is {value!r}, expected a whole number of at least {low}')


def _fraction(protocol: str, name: str, value: float, hint: str = '') -> None:
    if not (isinstance(value, (int, float)) and 0 < value < 1):
        raise ValueError(f'{protocol}: {name} is {value!r}, expected a fraction above 0 and below 1{hint}')


def _selection(protocol: str, value: str) -> None:
    if value not in ('validation', 'test'):
        raise ValueError(f"{protocol}: selection is {value!r}, expected 'validation' or 'test'")


def _after(values: Sequence[str], group: Sequence[str], count: int) -> list[str]:
    """The `count` values that follow `group`, cyclically; `group` is a run of consecutive `values`."""
    start = values.index(group[-1]) + 1
    return [values[(start + step) % len(values)] for step in range(count)]


def _equal(speakers: Sequence[str], groups: int) -> list[list[str]]:
    return [group.tolist() for group in np.array_split(np.array(speakers), groups)]


def _balanced(manifest: Manifest, speaker: np.ndarray, name: str, protocol: str) -> list[str]:
    """Speakers in natural order, but with the values of the column `name` spread evenly over it: the k-th of the n
    speakers of a value has the place (k + 1/2) / n, and equal places keep the natural order."""
    column = text_column(manifest, name, f'{protocol} with balance={name!r}')
    places: dict[str, float] = {}
    for value in sorted(set(column.tolist())):
        own = natural(speaker[column == value])
        if both := [one for one in own if one in places]:
            found = ' and '.join(map(repr, sorted(set(column[speaker == both[0]].tolist()))))
            raise ValueError(
                f'{protocol}: balance={name!r} needs one value a speaker, but speaker {both[0]!r} has {found} there'
            )
        places |= {one: (k + 0.5) / len(own) for k, one in enumerate(own)}
    return sorted(natural(speaker), key=lambda one: places[one])


def _left_to_train(protocol: str, speakers: Sequence[str], test: int, validation: int) -> None:
    if test + validation >= len(speakers):
        raise ValueError(
            f'{protocol}: of {len(speakers)} speakers {test} test and {validation} validate, which leaves nobody '
            'to train on; expected fewer of either'
        )


def _folds_by(
    manifest: Manifest, column: np.ndarray, tests: Sequence[Sequence[str]], validations: Sequence[Sequence[str]]
) -> list[Fold]:
    """One fold for each group of values of `column` to test and to validate on; trained on all the others."""
    record, folds = records_of(manifest), []
    for number, (test, validation) in enumerate(zip(tests, validations, strict=True)):
        tested, validated = np.isin(column, list(test)), np.isin(column, list(validation))
        sets = (np.sort(record[rows]) for rows in (~tested & ~validated, validated, tested))
        folds.append(Fold(f'fold_{number}' if len(tests) > 1 else 'all', *sets))  # type: ignore[arg-type]
    return folds


def official_split(manifest: Manifest) -> list[Fold]:
    """The data set's own split, from the column `split`; a record whose split is '' is in none of the three."""
    split = text_column(manifest, 'split', 'official_split', may_be_empty=True)
    unknown = sorted(set(split.tolist()) - {*SPLITS, ''})
    if unknown:
        raise ValueError(f"the column 'split' holds {unknown}: expected only {list(SPLITS)}, or '' for none")
    absent = [name for name in SPLITS if name not in split]
    if absent:
        raise ValueError(
            f"official_split needs the column 'split', which has no record of {' or '.join(map(repr, absent))} "
            f'({np.sum(split == "")} of {len(split)} are empty); choose a protocol that makes its own split: '
            f'{", ".join(name for name in PROTOCOLS if name != "official_split")}'
        )
    record = records_of(manifest)
    train, validation, test = (np.sort(record[split == name]) for name in SPLITS)
    return [Fold('all', train, validation, test)]


def leave_sessions_out(manifest: Manifest, *, validation_sessions: int = 1, test_sessions: int = 1) -> list[Fold]:
    """Leave one session out: each session is the test set once and the next one, cyclically, validates.

    IEMOCAP has five sessions of two speakers each, so five folds of 3/1/1. With `test_sessions` above 1,
    consecutive sessions are tested together, the last group being what is left. At least one session must be left
    to train on.
    """
    protocol = 'leave_sessions_out'
    _whole(protocol, 'validation_sessions', validation_sessions, 1)
    _whole(protocol, 'test_sessions', test_sessions, 1)
    column = text_column(manifest, 'session', protocol)
    sessions = natural(column)
    needed = validation_sessions + test_sessions + 1
    if len(sessions) < needed:
        raise ValueError(
            f'{protocol}: {len(sessions)} sessions ({", ".join(sessions)}), expected at least {needed}: '
            f'{test_sessions} to test, {validation_sessions} to validate, 1 to train; choose another protocol'
        )
    tests = [sessions[start : start + test_sessions] for start in range(0, len(sessions), test_sessions)]
    return _folds_by(manifest, column, tests, [_after(sessions, test, validation_sessions) for test in tests])


def leave_speakers_out(
    manifest: Manifest,
    *,
    folds: int | None = None,
    speakers_per_fold: int | None = None,
    validation_speakers: int = 2,
    balance: str | None = None,
    selection: str = 'validation',
    max_folds: int | None = None,
) -> list[Fold]:
    """Cross-validation over speakers: consecutive speakers, in natural order, form the test group of each fold.

    Every speaker is tested once, either in `folds` groups as equal as they can be (5 where neither is given), or in
    groups of `speakers_per_fold`, of which the last is what is left. The `validation_speakers` that follow a test
    group, cyclically, validate. `balance` names a column with one value a speaker, such as RAVDESS's `gender`: its
    values are spread evenly over the order, so that each group holds two values in their proportion, to within one
    speaker. Of RAVDESS's 24 actors four make six folds: actors 1 to 4, 5 to 8, ..., two men (odd) and two women.

    As published: `selection='test'` validates on the test group and trains on everybody else
    (`validation_speakers` is then not used); `max_folds` stops after so many groups. The code of CFN-SR does both: of
    24 actors in groups of 24 // 5 = 4 it tests the first five, and the last four never.
    """
    protocol, size = 'leave_speakers_out', speakers_per_fold
    if folds is not None and size is not None:
        raise ValueError(
            f'{protocol}: folds={folds} and speakers_per_fold={size} both size the groups; expected one of them '
            '(max_folds stops after so many groups)'
        )
    _whole(protocol, 'validation_speakers', validation_speakers, 1)
    for name, value, low in (('folds', folds, 2), ('speakers_per_fold', size, 1), ('max_folds', max_folds, 2)):
        _whole(protocol, name, low if value is None else value, low)
    _selection(protocol, selection)
    column = text_column(manifest, 'speaker', protocol)
    speakers = natural(column) if balance is None else _balanced(manifest, column, balance, protocol)
    least = size + 1 if size else folds or 5
    if least > len(speakers):
        wanted = f'groups of {size}' if size else f'{least} folds'
        raise ValueError(f'{protocol}: {len(speakers)} speakers are too few for {wanted}; expected {least} or more')
    cut = [speakers[start : start + size] for start in range(0, len(speakers), size)] if size else None
    tests = (cut or _equal(speakers, folds or 5))[:max_folds]
    if selection == 'test':
        return _folds_by(manifest, column, tests, tests)
    _left_to_train(protocol, speakers, max(map(len, tests)), validation_speakers)
    return _folds_by(manifest, column, tests, [_after(speakers, test, validation_speakers) for test in tests])


def speaker_disjoint_random(
    manifest: Manifest,
    *,
    folds: int = 1,
    test_fraction: float | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> list[Fold]:
    """Random speakers to test, to validate and to train on; no speaker is in two sets.

    Fractions are of the speakers, rounded, at least one each. One fold tests `test_fraction` (None: 0.2) of them.
    With more folds the shuffled speakers are cut into `folds` test groups, so that everybody is tested once;
    `test_fraction` is then 1 / folds and must not be given. The same seed gives the same folds, whatever the
    order of the rows.
    """
    protocol = 'speaker_disjoint_random'
    _whole(protocol, 'folds', folds, 1)
    _whole(protocol, 'seed', seed, 0)
    if folds > 1 and test_fraction is not None:
        raise ValueError(f'{protocol}: folds={folds} tests 1/{folds} in each; expected no test_fraction beside it')
    test_fraction = 0.2 if test_fraction is None else test_fraction
    _fraction(protocol, 'test_fraction', test_fraction)
    _fraction(protocol, 'validation_fraction', validation_fraction)
    column = text_column(manifest, 'speaker', protocol)
    speakers = natural(column)
    # RandomState's numbers are frozen for good; a Generator's may change with the version of numpy.
    shuffled = [speakers[place] for place in np.random.RandomState(seed).permutation(len(speakers))]
    if folds > len(speakers):
        raise ValueError(f'{protocol}: {len(speakers)} speakers are too few for {folds} folds')
    if folds > 1:
        tests = _equal(shuffled, folds)
    else:
        tests = [shuffled[: max(1, round(test_fraction * len(shuffled)))]]
    validation = max(1, round(validation_fraction * len(shuffled)))
    _left_to_train(protocol, speakers, max(map(len, tests)), validation)
    return _folds_by(manifest, column, tests, [_after(shuffled, test, validation) for test in tests])


def random_clips_shared_speakers(
    manifest: Manifest,
    *,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 42,
    selection: str = 'validation',
) -> list[Fold]:
    """Random clips to test on, whoever speaks: as published by the shared-encoders code, and optimistic.

    `selection='test'` validates on the test set, as that code does, and trains on everything else;
    `selection='validation'` needs a `validation_fraction` above 0. Fractions are of the records, rounded up. The
    test set is the one that scikit-learn's train_test_split(test_size, random_state=seed) draws from records in
    numerical order; the published one followed the order of a folder listing and cannot be recovered.
    """
    protocol = 'random_clips_shared_speakers'
    _selection(protocol, selection)
    _whole(protocol, 'seed', seed, 0)
    _fraction(protocol, 'test_fraction', test_fraction)
    if selection == 'test' and validation_fraction:
        found = f'expected validation_fraction=0, found {validation_fraction!r}'
        raise ValueError(f"{protocol}: selection='test' validates on the test set; {found}")
    if selection == 'validation':
        hint = "; or selection='test' to select on the test set, as published"
        _fraction(protocol, 'validation_fraction', validation_fraction, hint)
    record = np.sort(records_of(manifest))
    shuffled = record[np.random.RandomState(seed).permutation(len(record))]
    tested, validated = (math.ceil(part * len(record)) for part in (test_fraction, validation_fraction))
    if tested + validated >= len(record):
        raise ValueError(
            f'{protocol}: of {len(record)} records {tested} test and {validated} validate, which leaves none to '
            'train on; expected smaller fractions'
        )
    test, rest = np.sort(shuffled[:tested]), shuffled[tested:]
    validation = test if selection == 'test' else np.sort(rest[:validated])
    return [Fold('all', np.sort(rest[validated:]), validation, test)]


def resubstitution(manifest: Manifest) -> list[Fold]:
    """All records train, validate and test: does a network fit what it is shown. Says nothing of other clips."""
    record = np.sort(records_of(manifest))
    return [Fold('all', record, record, record)]


def by_what_is_known(manifest: Manifest, *, folds: int = 5, seed: int = 0) -> list[Fold]:
    """For data of one's own: the official split where the column `split` has all three of its sets; else
    cross-validation over speakers, at most `folds` groups, where three or more are known; else over random clips, whose
    voices and faces are then trained on and tested, which marks each row.

    Clips without a speaker count as one speaker, so that nobody who may be among them is on both sides.
    """
    protocol = 'by_what_is_known'
    _whole(protocol, 'folds', folds, 2)
    _whole(protocol, 'seed', seed, 0)
    empty = np.full(len(records_of(manifest)), '')
    if set(SPLITS) <= set(np.asarray(manifest.get('split', empty)).astype(str).tolist()):
        return official_split(manifest)
    speaker = np.asarray(manifest.get('speaker', empty)).astype(str)
    if len(set(speaker.tolist()) - {''}) >= LEAST_SPEAKERS:
        known = {**manifest, 'speaker': np.where(speaker == '', '(unknown)', speaker)}
        count = len(set(known['speaker'].tolist()))
        number = min(folds, count)
        # The validation speakers and the largest test group must leave somebody to train on.
        validation = max(1, min(count // 6, count - math.ceil(count / number) - 1))
        return leave_speakers_out(known, folds=number, validation_speakers=validation)
    record = np.sort(records_of(manifest))
    if len(record) < LEAST_SPEAKERS:
        raise ValueError(f'{protocol}: {len(record)} records are too few; expected {LEAST_SPEAKERS} or more')
    groups = np.array_split(record[np.random.RandomState(seed).permutation(len(record))], min(folds, len(record)))
    return [
        Fold(
            f'fold_{k}' if len(groups) > 1 else 'all',
            np.sort(np.concatenate([g for n, g in enumerate(groups) if n not in (k, (k + 1) % len(groups))])),
            np.sort(groups[(k + 1) % len(groups)]),
            np.sort(groups[k]),
        )
        for k in range(len(groups))
    ]


PROTOCOLS: dict[str, Callable[..., list[Fold]]] = {
    'official_split': official_split,
    'leave_sessions_out': leave_sessions_out,
    'leave_speakers_out': leave_speakers_out,
    'speaker_disjoint_random': speaker_disjoint_random,
    'random_clips_shared_speakers': random_clips_shared_speakers,
    'resubstitution': resubstitution,
    'by_what_is_known': by_what_is_known,
}


def make_folds(manifest: Manifest, name: str, **options: Any) -> list[Fold]:
    """The checked folds of the protocol `name`; `options` are its keyword arguments.

    Raises ValueError on an unknown protocol or option, and as the protocol and `check_folds` do.
    """
    if name not in PROTOCOLS:
        raise ValueError(f'no protocol {name!r}: expected one of {", ".join(PROTOCOLS)}')
    known = list(inspect.signature(PROTOCOLS[name]).parameters)[1:]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f'{name} has no option {" or ".join(map(repr, unknown))}: expected {", ".join(known) or "none"}'
        )
    return check_folds(PROTOCOLS[name](manifest, **options), manifest)
