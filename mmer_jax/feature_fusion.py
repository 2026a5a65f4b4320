"""Features of several modalities -> one vector a record -> a classifier (Babaali and Shayaninasab 2023, 3.3 and 3.4).

Early fusion joins the features themselves, late fusion the class probabilities of the unimodal models; both by
concatenation, sum or product. Everything that is fitted (scaling, unimodal probabilities, classifier) sees the training
records of a fold only, those that validate among them.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mmer_jax.metrics import classification
from mmer_jax.protocols import make_folds
from mmer_jax.records import RecordSource

OPERATIONS = ('concat', 'sum', 'product')
STAGES = ('early', 'late')
CLASSIFIERS = ('svm', 'mlp', 'xgboost')
INNER_FOLDS = 4


@dataclasses.dataclass(frozen=True)
class FoldFeatures:
    """One fold: features {m: (R, D_m)}, class probabilities {m: (R, C)} of unimodal models where there are such, labels
    (R,), `train` and `test` (R,) bool, `groups` (R,) speakers, for choices within the training records."""

    name: str
    features: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]


# ---- reading -------------------------------------------------------------------------------------------------


def read_folds(
    directories: Mapping[str, str | Path], protocol: str, options: Mapping[str, Any]
) -> tuple[list[FoldFeatures], list[str]]:
    """Folds of record directories {m: DIR}, and notes on records that a modality lacks.

    DIR with fold_<k> folders is what mmer_jax.extract writes: a model and a split for every fold. A plain directory
    holds the same features for all folds; `protocol` and its options make them. Records that every modality has are
    taken, in the order of their ids. ValueError where folds or labels of modalities disagree.
    """
    folders = {m: sorted(Path(path).glob('fold_*'), key=_number) for m, path in directories.items()}
    counts = {m: len(found) for m, found in folders.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f'the modalities have different numbers of folds: {counts}; extract them with one protocol')
    if any(counts.values()):
        names = [path.name for path in next(iter(folders.values()))]
        parts = [{m: RecordSource(folders[m][k]) for m in folders} for k in range(len(names))]
        splits = [_given_split(sources, name) for sources, name in zip(parts, names, strict=True)]
    else:
        sources = {m: RecordSource(path) for m, path in directories.items()}
        first = next(iter(sources.values()))
        made = make_folds(first.manifest, protocol, **options)
        names, parts, splits = [fold.name for fold in made], [sources] * len(made), []
        for fold in made:
            words = {str(first.manifest['id'][n]): s for s in ('train', 'validation', 'test') for n in getattr(fold, s)}
            splits.append(words)
    notes: list[str] = []
    read: dict[int, tuple] = {}  # plain directories are the same object in every fold: read once
    folds = []
    for name, sources, split in zip(names, parts, splits, strict=True):
        if id(sources) not in read:
            read = {id(sources): _read(sources, notes if not read else [])}
        folds.append(_fold(name, split, *read[id(sources)]))
    return folds, notes


def _number(path: Path) -> tuple[int, str]:
    digits = path.name.removeprefix('fold_')
    return (int(digits), '') if digits.isdigit() else (-1, digits)


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
    """(features, probabilities, labels, groups, ids, class names) of the records that all modalities have."""
    schemas = {m: source.schema for m, source in sources.items()}
    names = {m: schema.label.names for m, schema in schemas.items()}
    if len(set(names.values())) > 1 or any(schema.label.kind != 'classes' for schema in schemas.values()):
        raise ValueError(f'classifiers need the same classes in every modality, found {names}')
    for m, schema in schemas.items():
        if m not in schema.features or len(schema.features[m].shape) != 1 or schema.features[m].is_sequence:
            raise ValueError(
                f'{sources[m].directory} has no vector {m!r}: expected what mmer_jax.extract --level pooled writes'
            )
    places = {m: {str(name): n for n, name in enumerate(s.manifest['id'])} for m, s in sources.items()}
    shared = sorted(set.intersection(*map(set, places.values())))
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
            probabilities[m] = softmax(np.stack([record['prediction'] for record in records]).astype(np.float64))
    first, source = next(iter(sources.items()))
    numbers = np.array([places[first][name] for name in shared])
    labels, groups = source.manifest['label'][numbers].astype(np.int64), source.manifest['speaker'][numbers]
    return features, probabilities, labels, groups, np.array(shared), tuple(names[first])


def _fold(name, split, features, probabilities, labels, groups, ids, class_names):
    words = np.array([split.get(str(record), '') for record in ids])
    train, test = np.isin(words, ('train', 'validation')), words == 'test'
    if not train.any() or not test.any():
        raise ValueError(f'{name} has {train.sum()} training and {test.sum()} test records, expected some of each')
    return FoldFeatures(name, features, probabilities, labels, train, test, groups, ids, class_names)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


# ---- fusing --------------------------------------------------------------------------------------------------


def unimodal_probabilities(fold: FoldFeatures, m: str) -> np.ndarray:
    """(R, C): what the unimodal network said; without one, the probabilities of a logistic regression.

    Those of training records then come from models that did not see them (folds by speaker where there are enough).
    """
    if m in fold.probabilities:
        return fold.probabilities[m]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    x, labels, train = fold.features[m], fold.labels, fold.train
    inner, groups = inner_folds(fold.groups[train])
    found = np.zeros((len(labels), len(fold.class_names)))
    classes = np.unique(labels[train])
    held = cross_val_predict(model, x[train], labels[train], groups=groups, cv=inner, method='predict_proba')
    found[np.ix_(train, classes)] = held
    found[np.ix_(~train, classes)] = model.fit(x[train], labels[train]).predict_proba(x[~train])
    return found


def fuse(vectors: Sequence[np.ndarray], train: np.ndarray, operation: str) -> np.ndarray:
    """Vectors (R, D_m) of each modality -> (R, D), scaled by training records to mean 0, deviation 1, before and after.

    ValueError where sum or product meet different sizes.
    """
    scaled = [StandardScaler().fit(x[train]).transform(x) for x in vectors]
    if operation == 'concat':
        joined = np.concatenate(scaled, 1)
    elif operation in ('sum', 'product'):
        sizes = [x.shape[1] for x in scaled]
        if len(set(sizes)) > 1:
            raise ValueError(f'{operation} needs vectors of one size, found {", ".join(map(str, sizes))}')
        joined = np.sum(scaled, 0) if operation == 'sum' else np.prod(scaled, 0)
    else:
        raise ValueError(f'operation {operation!r} is unknown; the known ones are {", ".join(OPERATIONS)}')
    return StandardScaler().fit(joined[train]).transform(joined)


def fused(fold: FoldFeatures, stage: str, operation: str) -> np.ndarray:
    """(R, D) of 'early' or 'late' fusion of all modalities of the fold."""
    if stage == 'early':
        return fuse(list(fold.features.values()), fold.train, operation)
    if stage != 'late':
        raise ValueError(f'stage {stage!r} is unknown; the known ones are {", ".join(STAGES)}')
    return fuse([unimodal_probabilities(fold, m) for m in fold.features], fold.train, operation)


def inner_folds(groups: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """How training records are divided for what is chosen or fitted twice: by speaker, where they are enough."""
    if len(np.unique(groups)) >= INNER_FOLDS:
        return GroupKFold(INNER_FOLDS), groups
    return StratifiedKFold(INNER_FOLDS), None


# ---- classifying ---------------------------------------------------------------------------------------------


def make_classifier(name: str, seed: int) -> Any:
    """'svm' (RBF kernel, C = 1), 'mlp' (one hidden layer of 256) or 'xgboost' (100 rounds of trees of depth 4).

    The paper names the classifiers and no settings. ImportError says how to install xgboost.
    """
    if name == 'svm':
        return SVC(C=1.0, kernel='rbf', gamma='scale')
    if name == 'mlp':
        return MLPClassifier((256,), alpha=1e-3, max_iter=60, random_state=seed)
    if name != 'xgboost':
        raise ValueError(f'classifier {name!r} is unknown; the known ones are {", ".join(CLASSIFIERS)}')
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise ImportError("xgboost is not installed: pip install -e '.[classifiers]'") from error
    return XGBClassifier(
        n_estimators=100, max_depth=4, max_bin=64, subsample=0.8, colsample_bytree=0.3, random_state=seed
    )


def classify(x: np.ndarray, fold: FoldFeatures, classifier: str, seed: int) -> np.ndarray:
    """Predicted classes (number of test records,) of a classifier fitted on the fold's training records."""
    classes, encoded = np.unique(fold.labels[fold.train], return_inverse=True)  # xgboost wants 0 .. C - 1
    model = make_classifier(classifier, seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # 60 epochs are the setting, not a failure
        model.fit(x[fold.train], encoded)
    return classes[model.predict(x[fold.test])]


def measure(predicted: np.ndarray, fold: FoldFeatures) -> dict[str, float]:
    """Metrics of predicted classes of the fold's test records."""
    return classification(np.eye(len(fold.class_names))[predicted], fold.labels[fold.test], fold.class_names)


def choose(fold: FoldFeatures, combinations: Sequence[tuple[str, str, str]], seed: int) -> tuple[str, str, str]:
    """The combination (stage, operation, classifier) with the best accuracy in inner folds of the training records."""
    numbers = np.flatnonzero(fold.train)
    labels, groups = fold.labels[numbers], fold.groups[numbers]
    cut, by = inner_folds(groups)
    score = dict.fromkeys(combinations, 0.0)
    for fitted, held in cut.split(numbers, labels, by):
        train, test = np.zeros_like(fold.train), np.zeros_like(fold.test)
        train[numbers[fitted]], test[numbers[held]] = True, True
        inner = dataclasses.replace(fold, train=train, test=test)
        for stage, operation in dict.fromkeys((s, o) for s, o, _ in combinations):
            x = fused(inner, stage, operation)
            for combination in combinations:
                if combination[:2] == (stage, operation):
                    score[combination] += measure(classify(x, inner, combination[2], seed), inner)['accuracy']
    return max(combinations, key=lambda combination: score[combination])


def parse_options(text: str) -> dict[str, Any]:
    """Options of a protocol as JSON, '{"folds": 5}'; ValueError where it is none."""
    try:
        options = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f'--protocol_options {text!r} is no JSON object: {error}') from error
    if not isinstance(options, dict):
        raise ValueError(f'--protocol_options {text!r}: expected a JSON object such as {{"folds": 5}}')
    return options
