"""Feature directories of several modalities -> folds of vectors, joined by record id, for fusion and classifiers.

What mmer_jax.extract wrote has a model and a split for every fold; of plain record directories a protocol makes the
folds. Whatever the modalities disagree on is an error.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from mmer_jax.data.folds import SPLITS
from mmer_jax.data.leakage import EXTRACTED, folds_of_source, trained_split
from mmer_jax.data.records import RecordSource


@dataclasses.dataclass(frozen=True)
class FoldFeatures:
    """One fold: features {m: (R, D_m)}, class probabilities {m: (R, C)} of unimodal models where there are such, labels
    (R,), `train` and `test` (R,) bool, `validation` the part of `train` that the unimodal networks were not fitted on,
    `groups` (R,) speakers, for choices within the training records, the `marks` of the protocol, and the names of the
    data sets that the features are of."""

    name: str
    features: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    validation: np.ndarray
    marks: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


def read_folds(
    directories: Mapping[str, str | Path], protocol: str, options: Mapping[str, Any]
) -> tuple[list[FoldFeatures], list[str]]:
    """Folds of record directories {m: DIR}, and notes on records that a modality lacks.

    DIR with fold_<k> folders is what mmer_jax.extract writes: a model and a split for every fold. A plain directory
    holds the same features for all folds; `protocol` and its options make them. Records that every modality has are
    taken, in the order of their ids. ValueError where folds, labels or speakers of modalities disagree, folds are
    missing, or `protocol` would test what extracted features come from.
    """
    folders = {m: _fold_folders(Path(path)) for m, path in directories.items()}
    counts = {m: len(found) for m, found in folders.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f'the modalities have different numbers of folds: {counts}; extract them with one protocol')
    if any(counts.values()):
        names = [path.name for path in next(iter(folders.values()))]
        parts = [{m: RecordSource(folders[m][k]) for m in folders} for k in range(len(names))]
        splits = [_given_split(sources, name) for sources, name in zip(parts, names, strict=True)]
        marks = [_given_marks(sources) for sources in parts]
    else:
        sources = {m: RecordSource(path) for m, path in directories.items()}
        first = next(iter(sources.values()))
        made = folds_of_source(first, protocol, options)
        extracted = {m: source for m, source in sources.items() if trained_split(source) is not None}
        if extracted:
            _given_split({next(iter(sources)): first, **extracted}, 'the split')
        own = [fold.marks for source in extracted.values() for fold in folds_of_source(source, protocol, options)]
        marks = [tuple(dict.fromkeys(itertools.chain(fold.marks, *own))) for fold in made]
        names, parts, splits = [fold.name for fold in made], [sources] * len(made), []
        for fold in made:
            words = {str(first.manifest['id'][n]): s for s in SPLITS for n in getattr(fold, s)}
            splits.append(words)
    notes: list[str] = []
    read: dict[int, dict] = {}  # plain directories are the same object in every fold: read once
    folds = []
    for name, sources, split, earned in zip(names, parts, splits, marks, strict=True):
        if id(sources) not in read:
            read = {id(sources): _read(sources, notes if not read else [])}
        folds.append(_fold(name, split, earned, read[id(sources)]))
    return folds, notes


def fingerprint(folds: Sequence[FoldFeatures]) -> str:
    """Of all that results depend on: ids, labels, speakers, features, probabilities and sets of every fold."""
    found = hashlib.sha256()
    for fold in folds:
        found.update('\n'.join([fold.name, *fold.ids, *map(str, fold.groups), *fold.class_names]).encode())
        arrays = [fold.labels, fold.train, fold.validation, fold.test]
        for array in (*arrays, *fold.features.values(), *fold.probabilities.values()):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _fold_folders(directory: Path) -> list[Path]:
    """The folders fold_0, fold_1, ... of an extracted run in order; none where it has one split."""
    found, unfinished = {}, []
    for path in directory.glob('fold_*'):
        if match := re.fullmatch(r'fold_(\d+)(\.parts)?', path.name):
            if match[2] and not path.with_suffix('').is_dir():
                unfinished.append(path.name)
            elif not match[2]:
                found[int(match[1])] = path
    folders = [found[number] for number in sorted(found)]
    expected = RecordSource(folders[0]).schema.info.get(EXTRACTED, {}).get('folds', len(folders)) if folders else 0
    if unfinished or len(folders) < expected:
        raise ValueError(
            f'{directory} has {len(folders)} of {expected or "all"} folds'
            + (f' ({", ".join(unfinished)} is unfinished)' if unfinished else '')
            + ': run the command of mmer_jax.extract again until it is done, or give one fold by its own folder'
        )
    return folders


def _given_marks(sources: Mapping[str, RecordSource]) -> tuple[str, ...]:
    found = [mark for source in sources.values() for mark in source.schema.info.get(EXTRACTED, {}).get('marks', ())]
    return tuple(dict.fromkeys(found))


def _given_split(sources, name):
    words = [dict(zip(source.manifest['id'], source.manifest['split'], strict=True)) for source in sources.values()]
    shared = set.intersection(*map(set, words))
    for other, m in zip(words[1:], list(sources)[1:], strict=True):
        for record in sorted(shared):
            if words[0][record] != other[record]:
                raise ValueError(
                    f'{name}: record {record} is in {words[0][record]!r} of {next(iter(sources))} and in '
                    f'{other[record]!r} of {m}: the models were trained under different protocols'
                )
    return {str(record): str(words[0][record]) for record in shared}


def _read(sources, notes):
    """What all folds have in common, by the fields of FoldFeatures: the records that every modality has."""
    schemas = {m: source.schema for m, source in sources.items()}
    names = {m: schema.label.names for m, schema in schemas.items()}
    if len(set(names.values())) > 1 or any(schema.label.kind != 'classes' for schema in schemas.values()):
        raise ValueError(f'classifiers need the same classes in every modality, found {names}')
    for m, schema in schemas.items():
        if m not in schema.features or len(schema.features[m].shape) != 1 or schema.features[m].is_sequence:
            raise ValueError(
                f'{sources[m].directory} has no vector {m!r}: expected what mmer_jax.extract --level pooled writes'
            )
    places = {m: {str(s.manifest['id'][n]): int(n) for n in _present(s, m)} for m, s in sources.items()}
    shared = sorted(set.intersection(*map(set, places.values())))
    if not shared:
        some = {m: min(found) for m, found in places.items()}
        raise ValueError(f'no record is in every modality: they are joined by id, and the first ids are {some}')
    _check_agreement(sources, places, shared)
    everything = set.union(*map(set, places.values()))
    if len(shared) < len(everything):
        lacking = {m: len(everything) - len(found) for m, found in places.items()}
        notes.append(
            f'{len(everything) - len(shared)} records are left out: not every modality has them ({lacking} lack)'
        )
    features, probabilities = {}, {}
    for m, source in sources.items():
        records = [source[places[m][name]] for name in shared]
        features[m] = np.stack([record[m] for record in records]).astype(np.float64)
        if 'prediction' in schemas[m].features:
            probabilities[m] = softmax(
                np.stack([record['prediction'] for record in records]).astype(np.float64), axis=-1
            )
    first, source = next(iter(sources.items()))
    numbers = np.array([places[first][name] for name in shared])
    return {
        'features': features,
        'probabilities': probabilities,
        'labels': source.manifest['label'][numbers].astype(np.int64),
        'groups': source.manifest['speaker'][numbers],
        'ids': np.array(shared),
        'class_names': tuple(names[first]),
        'datasets': tuple(schema.name for schema in schemas.values()),
    }


def _present(source, m):
    """Numbers of the records that do not lack the feature."""
    return np.flatnonzero(source.manifest.get(f'length_{m}', np.ones(len(source), np.int64)))


def _check_agreement(sources, places, shared):
    """ValueError where a record has another label or speaker in another modality."""
    columns = ('label', 'speaker')
    of = {
        m: {column: source.manifest[column][[places[m][name] for name in shared]] for column in columns}
        for m, source in sources.items()
    }
    first, *others = of
    for m, column in ((m, column) for m in others for column in columns):
        if (different := np.flatnonzero(of[first][column] != of[m][column])).size:
            row = int(different[0])
            raise ValueError(
                f'{different.size} of {len(shared)} records have another {column} in {m} than in {first} (first: '
                f'{shared[row]}, {of[m][column][row]} and {of[first][column][row]}): they were prepared from different '
                'data, or with other options'
            )


def _fold(name, split, marks, common):
    words = np.array([split.get(str(record), '') for record in common['ids']])
    train, test = np.isin(words, ('train', 'validation')), words == 'test'
    if not train.any() or not test.any():
        raise ValueError(f'{name} has {train.sum()} training and {test.sum()} test records, expected some of each')
    return FoldFeatures(name=name, train=train, test=test, validation=words == 'validation', marks=marks, **common)
