"""Features of several modalities -> one vector a record -> a classifier (Babaali and Shayaninasab 2023, 3.3 and 3.4).

Early fusion joins the features themselves, late fusion the class probabilities of the unimodal models; both by
concatenation, sum or product. Everything that is fitted (scaling, unimodal probabilities, classifier) sees the training
records of a fold only, those that validate among them.
"""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mmer_jax.metrics import classification
from mmer_jax.second_stage.folds import FoldFeatures

OPERATIONS = ('concat', 'sum', 'product')
STAGES = ('early', 'late')
CLASSIFIERS = ('svm', 'mlp', 'xgboost', 'lda', 'logistic')
OF_THE_PAPER = CLASSIFIERS[:3]
INNER_FOLDS = 4
# What `tune` tries of each classifier; the settings of make_classifier come first, and stay where none is better.
GRIDS: dict[str, dict[str, list[Any]]] = {
    'svm': {'C': [1.0, 0.3, 3.0, 10.0, 30.0]},
    'mlp': {'alpha': [1e-3, 1e-1, 10.0]},
    'xgboost': {'max_depth': [4, 2, 6]},
    'lda': {'shrinkage': [0.5, 0.1, 0.3, 0.7, 0.9]},
    'logistic': {'C': [0.03, 0.003, 0.01, 0.1, 0.3]},
}


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
    """'svm' (RBF kernel, C = 1), 'mlp' (one hidden layer of 256) or 'xgboost' (100 rounds of trees of depth 4), which
    the paper names without settings; 'lda' (linear discriminant analysis, its covariance shrunk by half) or 'logistic'
    (regression, C = 0.03), for many features of few records. ImportError says how to install xgboost.
    """
    if name == 'svm':
        return SVC(C=1.0, kernel='rbf', gamma='scale')
    if name == 'mlp':
        return MLPClassifier((256,), alpha=1e-3, max_iter=60, random_state=seed)
    if name == 'lda':
        return LinearDiscriminantAnalysis(solver='lsqr', shrinkage=0.5)
    if name == 'logistic':
        return LogisticRegression(C=0.03, max_iter=1000)
    if name != 'xgboost':
        raise ValueError(f'classifier {name!r} is unknown; the known ones are {", ".join(CLASSIFIERS)}')
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise ImportError("xgboost is not installed: pip install -e '.[classifiers]'") from error
    return XGBClassifier(
        n_estimators=100, max_depth=4, max_bin=64, subsample=0.8, colsample_bytree=0.3, random_state=seed
    )


def classify(x: np.ndarray, fold: FoldFeatures, classifier: str, seed: int, *, tune: bool = False) -> np.ndarray:
    """Predicted classes (number of test records,) of a classifier fitted on the fold's training records."""
    model, classes = fitted(x, fold, classifier, seed, tune=tune)
    return classes[model.predict(x[fold.test])]


def fitted(
    x: np.ndarray, fold: FoldFeatures, classifier: str, seed: int, *, tune: bool = False
) -> tuple[Any, np.ndarray]:
    """A classifier of the fold's training records, and the classes that they have, by its own numbers of them.

    tune: with the settings of GRIDS that are best, by accuracy, in inner folds of the training records: four, by
    speaker where there are as many; on the validation records where networks were fitted on the others. In late fusion
    the choice is a little hopeful: the probabilities of fitted records were made with the labels of those held out.
    """
    classes, encoded = np.unique(fold.labels[fold.train], return_inverse=True)  # xgboost wants 0 .. C - 1
    model = make_classifier(classifier, seed)
    if tune:
        pairs = [tuple(np.flatnonzero(part[fold.train]) for part in sets) for sets in _inner_sets(fold)]
        for train, _ in pairs if classifier == 'xgboost' else ():
            if lacking := [fold.class_names[classes[c]] for c in range(len(classes)) if c not in encoded[train]]:
                raise ValueError(
                    f'{fold.name}: xgboost cannot be tuned where an inner fold has no record of {", ".join(lacking)} '
                    'to fit on; leave it out of --classifiers, or leave out --tune'
                )
        model = GridSearchCV(model, GRIDS[classifier], scoring='accuracy', cv=pairs, error_score='raise')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # 60 epochs are the setting, not a failure
        model.fit(x[fold.train], encoded)
    return model.best_estimator_ if tune else model, classes


def settings_of(model: Any, classifier: str) -> dict[str, Any]:
    """Those of GRIDS that a classifier has."""
    return {name: model.get_params()[name] for name in GRIDS[classifier]}


def measure(predicted: np.ndarray, fold: FoldFeatures) -> dict[str, float]:
    """Metrics of predicted classes of the fold's test records; `weighted_precision` is weighted by true counts.

    In it a class that is never predicted has precision 0, as in scikit-learn.
    """
    names, labels = fold.class_names, fold.labels[fold.test]
    found = classification(np.eye(len(names))[predicted], labels, names)
    shares = np.bincount(labels, minlength=len(names)) / len(labels)
    precision = sum(
        share * np.nan_to_num(found[f'precision_{name}']) for share, name in zip(shares, names, strict=True)
    )
    return found | {'weighted_precision': float(precision)}


def choose(
    fold: FoldFeatures, combinations: Sequence[tuple[str, str, str]], seed: int, *, tune: bool = False
) -> tuple[str, str, str]:
    """The combination (stage, operation, classifier) with the best accuracy in inner folds of the training records.

    tune: each is tuned within the records that it is fitted on there.

    What a trained network says of the records it was fitted on tells nothing of others: its features and probabilities
    are compared on the validation records instead, after fitting on the rest.
    """
    score = dict.fromkeys(combinations, 0.0)
    for train, test in _inner_sets(fold):
        inner = dataclasses.replace(fold, train=train, test=test)
        for stage, operation in dict.fromkeys((s, o) for s, o, _ in combinations):
            x = fused(inner, stage, operation)
            for combination in combinations:
                if combination[:2] == (stage, operation):
                    predicted = classify(x, inner, combination[2], seed, tune=tune)
                    score[combination] += measure(predicted, inner)['accuracy']
    return max(combinations, key=lambda combination: score[combination])


def _inner_sets(fold: FoldFeatures) -> list[tuple[np.ndarray, np.ndarray]]:
    """(R,) bool pairs within the training records: to fit on, to compare on."""
    held = fold.validation & fold.train
    if fold.probabilities and held.any():
        return [(fold.train & ~held, held)]
    numbers = np.flatnonzero(fold.train)
    cut, by = inner_folds(fold.groups[numbers])
    sets = []
    for fitted, held in cut.split(numbers, fold.labels[numbers], by):
        train, test = np.zeros_like(fold.train), np.zeros_like(fold.test)
        train[numbers[fitted]], test[numbers[held]] = True, True
        sets.append((train, test))
    return sets


def parse_options(text: str) -> dict[str, Any]:
    """Options of a protocol as JSON, '{"folds": 5}'; ValueError where it is none."""
    try:
        options = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f'--protocol_options {text!r} is no JSON object: {error}') from error
    if not isinstance(options, dict):
        raise ValueError(f'--protocol_options {text!r}: expected a JSON object such as {{"folds": 5}}')
    return options
