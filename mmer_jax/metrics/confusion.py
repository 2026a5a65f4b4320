"""Confusion matrices and what is read from them, and the checks that all metrics share. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# ---- checks --------------------------------------------------------------------------------------------------


def finite(what: str, values: np.ndarray) -> np.ndarray:
    """`values` as a float64 array with at least one row; refuses NaN and infinities."""
    array = np.asarray(values).astype(np.float64)
    if array.size == 0 or array.ndim == 0:
        raise ValueError(f'{what} have shape {array.shape}: expected at least one row; is the split empty?')
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f'{what} hold {bad.sum()} values of {array.size} that are not finite, first in row '
            f'{np.argwhere(bad)[0][0]}: expected numbers; look for a diverged model or a broken record'
        )
    return array


def same_rows(predictions: np.ndarray, labels: np.ndarray) -> None:
    if len(predictions) != len(labels):
        raise ValueError(
            f'predictions have {len(predictions)} rows and labels {len(labels)}: expected as many; '
            'pass the whole gathered split, without padding rows'
        )


def class_numbers(what: str, values: np.ndarray, num_classes: int | None) -> np.ndarray:
    """`values` (R,) as int64, each a class number in 0..num_classes-1 (no upper bound where None)."""
    array = finite(what, values)
    if array.ndim != 1:
        raise ValueError(f'{what} have shape {array.shape}: expected (R,), one class number a row')
    top = np.inf if num_classes is None else num_classes - 1
    bad = (array != np.round(array)) | (array < 0) | (array > top)
    if bad.any():
        row = int(np.argmax(bad))
        expected = 'whole numbers from 0' + ('' if num_classes is None else f' to {num_classes - 1}')
        raise ValueError(f'{what} hold {array[row]:g} in row {row}: expected {expected}')
    return array.astype(np.int64)


def checked_names(names: Sequence[str] | None, count: int, what: str) -> list[str]:
    """The names as a list, or '0', '1', ... where there are none."""
    if names is None:
        return [str(index) for index in range(count)]
    listed = [str(name) for name in names]
    if len(listed) != count:
        raise ValueError(f'{len(listed)} names ({", ".join(listed)}) for {count} {what}: expected one name each')
    if len(set(listed)) != count:
        raise ValueError(f'the names of the {what} repeat: {", ".join(listed)}; expected {count} different ones')
    return listed


# ---- counts --------------------------------------------------------------------------------------------------


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
    """Recall, precision and F1 (..., C) of confusion matrices (..., C, C); NaN where undefined, never 0 for that.

    Recall hits / true is undefined for a class that no label has, precision hits / predicted for one that is never
    predicted, F1 = 2 hits / (true + predicted) for one that is neither: scikit-learn's with zero_division=nan.
    """
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return _ratio(hits, true), _ratio(hits, predicted), _ratio(2 * hits, true + predicted)


def summary(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, UAR, macro-F1 and weighted F1 of a confusion matrix; all 0 where it is empty."""
    true = confusion.sum(axis=1)
    if not true.sum():
        return {'accuracy': 0.0, 'uar': 0.0, 'macro_f1': 0.0, 'weighted_f1': 0.0}
    recall, _, f1 = per_class(confusion)
    # A class that no label has cannot be recalled: counted as 0 it would pull the mean down for want of data.
    occurs = true > 0
    return {
        'accuracy': float(np.trace(confusion) / true.sum()),
        'uar': float(recall[occurs].mean()),
        'macro_f1': float(f1[occurs].mean()),
        'weighted_f1': float((f1[occurs] * true[occurs]).sum() / true.sum()),
    }


def binary_summary(predicted_positive: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """`summary` of a yes-or-no task; a row is (R,) bool."""
    flat = np.bincount(2 * positive.astype(np.int64) + predicted_positive, minlength=4)
    return summary(flat.reshape(2, 2))
