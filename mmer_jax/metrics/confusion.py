"""Confusion matrices and what is read from them. numpy only."""

from __future__ import annotations

import numpy as np

from mmer_jax.metrics.checks import class_numbers, same_rows
from mmer_jax.metrics.metric import Metric

SUMMARY = {  # what `summary` measures
    'accuracy': Metric('accuracy'),
    'uar': Metric('UAR'),
    'macro_f1': Metric('macro F1'),
    'weighted_f1': Metric('weighted F1'),
}
PER_CLASS = {'recall': Metric('recall'), 'precision': Metric('precision', undefined_as=0.0), 'f1': Metric('F1')}


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (C, C) int64 of class numbers (R,): the row is the true class, the column the predicted one.

    Raises ValueError on an empty split, on unequal lengths and on a class outside 0..num_classes-1.
    """
    predicted = class_numbers('predicted classes', predicted, num_classes)
    labels = class_numbers('labels', labels, num_classes)
    same_rows(predicted, labels)
    flat = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise ratio, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys of `PER_CLASS` (..., C) of confusion matrices (..., C, C); NaN where undefined, never 0 for that.

    Recall hits / true is undefined for a class that no label has, precision hits / predicted for one that is never
    predicted, F1 = 2 hits / (true + predicted) for one that is neither: scikit-learn's with zero_division=nan.
    """
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return _ratio(hits, true), _ratio(hits, predicted), _ratio(2 * hits, true + predicted)


def summary(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, UAR, macro-F1 and weighted F1 of a confusion matrix; all 0 where it is empty."""
    return {name: float(value) for name, value in summaries(confusion).items()}


def summaries(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """`summary` of many confusion matrices (..., C, C): each value (...)."""
    confusion = np.asarray(confusion)
    true = confusion.sum(axis=-1)
    recall, _, f1 = per_class(confusion)
    # A class that no label has cannot be recalled: counted as 0 it would pull the mean down for want of data.
    occurs = true > 0
    classes, records = np.maximum(occurs.sum(-1), 1), np.maximum(true.sum(-1), 1)
    found, f1 = np.where(occurs, recall, 0), np.where(occurs, f1, 0)
    return {
        'accuracy': np.trace(confusion, axis1=-2, axis2=-1) / records,
        'uar': found.sum(-1) / classes,
        'macro_f1': f1.sum(-1) / classes,
        'weighted_f1': (f1 * true).sum(-1) / records,
    }


def binary_summary(predicted_positive: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """`summary` of a yes-or-no task; a row is (R,) bool."""
    flat = np.bincount(2 * positive.astype(np.int64) + predicted_positive, minlength=4)
    return summary(flat.reshape(2, 2))
