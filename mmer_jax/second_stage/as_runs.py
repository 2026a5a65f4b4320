"""Classifiers as runs: predictions and results.json of each, so that mmer_jax.report shows, tests and averages them
beside trained networks (`report --ensemble`).

The test records are answered by a classifier of all training records; those that validate by one that was not fitted on
them, so that weights can be fitted there.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import save_arrays, write_json
from mmer_jax.files.outputs import check_folder
from mmer_jax.metrics import KINDS, as_json, expected_calibration_error, floors
from mmer_jax.second_stage.classify import fitted, fuse
from mmer_jax.second_stage.folds import FoldFeatures

WITH_PROBABILITIES = ('mlp', 'lda', 'logistic')
KIND, HEADLINE = 'classification', ('accuracy', 'uar', 'macro_f1')
SMALLEST = 1e-7  # probability in a logarithm
MADE_BY = 'mmer_jax.classifiers'


def save_runs(
    folder: Path,
    folds: Sequence[FoldFeatures],
    classifiers: Sequence[str],
    seeds: Sequence[int],
    protocol: str,
    *,
    tune: bool = False,
) -> list[Path]:
    """FOLDER/<classifier>_<modality> and, of several modalities side by side, <classifier>_early; the folders.

    ValueError where none of the classifiers gives probabilities; those that do not are left out.
    """
    chosen = [name for name in classifiers if name in WITH_PROBABILITIES]
    if not chosen:
        raise ValueError(
            f'--save_runs: {", ".join(classifiers)} gives no probabilities to keep; add one or more of '
            f'{", ".join(WITH_PROBABILITIES)} to --classifiers'
        )
    inputs: dict[str, tuple[str, ...]] = {m: (m,) for m in folds[0].features}
    if len(inputs) > 1:
        inputs['early'] = tuple(folds[0].features)
    return [
        _save(folder / f'{classifier}_{name}', folds, classifier, modalities, seeds, protocol, tune)
        for classifier in chosen
        for name, modalities in inputs.items()
    ]


def answers(
    fold: FoldFeatures, modalities: Sequence[str], classifier: str, seeds: Sequence[int], *, tune: bool = False
) -> tuple[np.ndarray, int]:
    """Logarithms of the probabilities of the fold's test records (N, R, C), and the classifier's parameters."""
    x = fuse([fold.features[m] for m in modalities], fold.train, 'concat')
    found = np.full((len(seeds), int(fold.test.sum()), len(fold.class_names)), np.log(SMALLEST))
    for n, seed in enumerate(seeds):
        model, classes = fitted(x, fold, classifier, seed, tune=tune)
        found[n][:, classes] = np.log(np.maximum(model.predict_proba(x[fold.test]), SMALLEST))
    layers = [model.coefs_, model.intercepts_] if classifier == 'mlp' else [[model.coef_], [model.intercept_]]
    return found, sum(array.size for arrays in layers for array in arrays)


def _save(folder, folds, classifier, modalities, seeds, protocol, tune):
    check_folder(folder, {'results.json': MADE_BY.encode()})
    rows: list[dict[str, Any]] = []
    size = 0
    for fold in folds:
        held = dataclasses.replace(fold, train=fold.train & ~fold.validation, test=fold.validation)
        parts: Mapping[str, FoldFeatures] = {'test': fold, **({'validation': held} if fold.validation.any() else {})}
        measured: list[dict[str, Any]] = [{} for _ in seeds]
        for split, part in parts.items():
            found, size = answers(part, modalities, classifier, seeds, tune=tune)
            labels, ids, speakers = (array[part.test] for array in (fold.labels, fold.ids, fold.groups))
            save_arrays(
                folder / fold.name / 'predictions' / f'{split}.npz',
                id=ids, label=labels, prediction=found.astype(np.float32), seed=np.array(seeds), speaker=speakers,
            )  # fmt: skip
            for row, scores in zip(measured, found, strict=True):
                values = KINDS[KIND].measure(scores, labels, fold.class_names)
                values['ece'] = expected_calibration_error(scores, labels)
                row[split] = {'loss': float(-scores[np.arange(len(labels)), labels].mean()), **as_json(values)}
        floor = as_json(floors(KIND, fold.labels[fold.test], names=fold.class_names))
        counts = {name: int(getattr(fold, name).sum()) for name in ('train', 'validation', 'test')}
        none = {'best_epoch': 0, 'epochs': 0}  # nothing is trained by epochs
        common = {'fold': fold.name, 'marks': list(fold.marks), **none, 'counts': counts}
        own = [{**common, 'seed': seed, **row, 'floor': floor} for seed, row in zip(seeds, measured, strict=True)]
        called = f'{classifier}, tuned' if tune else classifier
        described = _described(folder.name, fold, called, modalities, protocol, size)
        write_json(folder / fold.name / 'results.json', {**described, 'rows': own})
        rows += own
    write_json(folder / 'results.json', {**described, 'rows': rows})
    return folder


def _described(name, fold, classifier, modalities, protocol, size):
    return {
        'format': 1, 'config': name, 'variant': '', 'model': f'{MADE_BY}: {classifier}',
        'dataset': fold.datasets[0] if fold.datasets else '', 'modalities': list(modalities), 'protocol': protocol,
        'parameters': size, 'metrics': KIND, 'headline': list(HEADLINE), 'class_names': list(fold.class_names),
        'published': None, 'selection': 'none',
    }  # fmt: skip
