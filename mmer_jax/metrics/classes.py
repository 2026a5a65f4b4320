"""Metrics of one class out of C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmer_jax.metrics.checks import checked_names, class_numbers, finite
from mmer_jax.metrics.confusion import PER_CLASS, SUMMARY, confusion_matrix, per_class, summary
from mmer_jax.metrics.metric import Kind, right_answer

WHOLE = {**SUMMARY}  # and what only one of C classes has


def classification(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Metrics of one class out of C.

    `predictions` (R, C) are scores, the highest wins and among equals the lowest index; `labels` (R,) class
    numbers; `names` the C class names (None: their indices). Returns `accuracy` (also called weighted accuracy,
    WA), `uar` (unweighted average recall), `macro_f1`, `weighted_f1` (mean F1 weighted by the true counts), and
    `recall_<name>`, `precision_<name>`, `f1_<name>` for each class, NaN where undefined (`per_class`): on one fold, a
    class may have no record, or never be predicted.

    `uar` and `macro_f1` average over the classes that occur in `labels`; a class that occurs and is never predicted has
    F1 0 there. In scikit-learn terms `uar` is `balanced_accuracy_score`, `macro_f1` is
    `f1_score(average='macro', labels=np.unique(labels))`, `weighted_f1` is `f1_score(average='weighted')`; without
    `labels=`, scikit-learn's macro F1 also counts a class that was only predicted, as 0.

    Raises ValueError on an empty split, wrong shapes, values that are not finite and labels outside 0..C-1.
    """
    scores = finite('predictions', predictions)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f'predictions have shape {scores.shape}: expected (R, C), the scores of C >= 2 classes')
    num_classes = scores.shape[1]
    listed = checked_names(names, num_classes, 'classes')
    confusion = confusion_matrix(np.argmax(scores, axis=1), labels, num_classes)
    result = summary(confusion)
    for name, *values in zip(listed, *per_class(confusion), strict=True):
        result |= {f'{metric}_{name}': float(value) for metric, value in zip(PER_CLASS, values, strict=True)}
    return result


def floors(labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """The metrics of the majority class, at a tie the lowest; without `names` the highest label is the last class."""
    true = class_numbers('labels', labels, None if names is None else len(names))
    count = max(2, int(true.max()) + 1) if names is None else len(names)
    constant = np.bincount(true, minlength=count).argmax()
    return classification(np.tile(np.eye(count)[constant], (len(true), 1)), true, names=names)


def tell(prediction: np.ndarray, label: np.ndarray, names: Sequence[str]) -> str:
    """Label and prediction (C,) of a record in words."""
    return f'label {names[int(label)]}, predicted {names[int(prediction.argmax())]}'


CLASSIFICATION = Kind(
    classification, floors, whole=WHOLE, each=PER_CLASS, labels='classes', goodness=right_answer, tell=tell
)
