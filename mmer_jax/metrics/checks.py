"""The checks of predictions, labels and names that all metrics share. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
