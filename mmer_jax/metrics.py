"""Metrics of a whole split: numpy `(predictions, labels) -> dict[str, float]`.

Three kinds of task, one function each, in `METRICS`: `classification` (one of C classes), `sentiment` (one real
number per clip, MOSI and MOSEI) and `binary_emotions` (E yes-or-no emotions, IEMOCAP of the CMU pickles and
MOSEI). Every value is a fraction from 0 to 1, except `mae` (in label units) and `corr` (-1 to 1). `floors` gives
the same keys for the best constant prediction: on skewed labels a high accuracy may be no more than that.

A metric is computed once, on the gathered split: a mean over batches is another number for all but `accuracy`
and `mae`. Rows are gathered by the caller, padding rows already removed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

# ---- checks --------------------------------------------------------------------------------------------------


def _finite(what: str, values: np.ndarray) -> np.ndarray:
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


def _same_rows(predictions: np.ndarray, labels: np.ndarray) -> None:
    if len(predictions) != len(labels):
        raise ValueError(
            f'predictions have {len(predictions)} rows and labels {len(labels)}: expected as many; '
            'pass the whole gathered split, without padding rows'
        )


def _class_numbers(what: str, values: np.ndarray, num_classes: int | None) -> np.ndarray:
    """`values` (R,) as int64, each a class number in 0..num_classes-1 (no upper bound where None)."""
    array = _finite(what, values)
    if array.ndim != 1:
        raise ValueError(f'{what} have shape {array.shape}: expected (R,), one class number a row')
    top = np.inf if num_classes is None else num_classes - 1
    bad = (array != np.round(array)) | (array < 0) | (array > top)
    if bad.any():
        row = int(np.argmax(bad))
        expected = 'whole numbers from 0' + ('' if num_classes is None else f' to {num_classes - 1}')
        raise ValueError(f'{what} hold {array[row]:g} in row {row}: expected {expected}')
    return array.astype(np.int64)


def _checked_names(names: Sequence[str] | None, count: int, what: str) -> list[str]:
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
    predicted = _class_numbers('predicted classes', predicted, num_classes)
    labels = _class_numbers('labels', labels, num_classes)
    _same_rows(predicted, labels)
    flat = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise ratio, 0 where the denominator is 0."""
    return numerator / np.maximum(denominator, 1)


def _per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F1 (C,) each; 0 where undefined."""
    hits, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return _ratio(hits, true), _ratio(hits, predicted), _ratio(2 * hits, true + predicted)


def _summary(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, UAR, macro-F1 and weighted F1 of a confusion matrix; all 0 where it is empty."""
    true = confusion.sum(axis=1)
    if not true.sum():
        return {'accuracy': 0.0, 'uar': 0.0, 'macro_f1': 0.0, 'weighted_f1': 0.0}
    recall, _, f1 = _per_class(confusion)
    # A class that no label has cannot be recalled: counted as 0 it would pull the mean down for want of data.
    occurs = true > 0
    return {
        'accuracy': float(np.trace(confusion) / true.sum()),
        'uar': float(recall[occurs].mean()),
        'macro_f1': float(f1[occurs].mean()),
        'weighted_f1': float((f1 * true).sum() / true.sum()),
    }


# ---- one of C classes ----------------------------------------------------------------------------------------


def classification(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Metrics of one class out of C.

    `predictions` (R, C) are scores, the highest wins and among equals the lowest index; `labels` (R,) class
    numbers; `names` the C class names (None: their indices). Returns `accuracy` (also called weighted accuracy,
    WA), `uar` (unweighted average recall), `macro_f1`, `weighted_f1` (mean F1 weighted by the true counts), and
    `recall_<name>`, `precision_<name>`, `f1_<name>` for each class, 0 where undefined.

    `uar` and `macro_f1` average over the classes that occur in `labels`. In scikit-learn terms `uar` is
    `balanced_accuracy_score`, and `macro_f1` is `f1_score(average='macro', labels=np.unique(labels))`; without
    `labels=`, scikit-learn also counts a class that was only predicted, as 0.

    Raises ValueError on an empty split, wrong shapes, values that are not finite and labels outside 0..C-1.
    """
    scores = _finite('predictions', predictions)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f'predictions have shape {scores.shape}: expected (R, C), the scores of C >= 2 classes')
    num_classes = scores.shape[1]
    listed = _checked_names(names, num_classes, 'classes')
    confusion = confusion_matrix(np.argmax(scores, axis=1), labels, num_classes)
    result = _summary(confusion)
    for name, recall, precision, f1 in zip(listed, *_per_class(confusion), strict=True):
        result |= {f'recall_{name}': float(recall), f'precision_{name}': float(precision), f'f1_{name}': float(f1)}
    return result


# ---- sentiment -----------------------------------------------------------------------------------------------


def _binary(predicted_positive: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """`_summary` of a yes-or-no task; a row is (R,) bool."""
    flat = np.bincount(2 * positive.astype(np.int64) + predicted_positive, minlength=4)
    return _summary(flat.reshape(2, 2))


def _rounded(values: np.ndarray, limit: int) -> np.ndarray:
    # np.round is banker's rounding (0.5 -> 0, 1.5 -> 2, 2.5 -> 2), as in the code of MulT, MISA, MMSA and
    # Self-MM. Many MOSI and MOSEI labels end in .5, so rounding half up would be another metric.
    return np.round(np.clip(values, -limit, limit))


def _cmu_bucket(values: np.ndarray) -> np.ndarray:
    """Seven classes of the CMU-MOSEI README: 0 is exactly 0, (0, 1] is 1, (1, 2] is 2, above is 3; mirrored."""
    return np.sign(values) * np.minimum(np.ceil(np.abs(values)), 3)


def _sentiment_classes(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Every sentiment metric on classes made from the numbers, predicted (R,) against true (R,)."""
    nonzero = true != 0
    has0 = _binary(predicted >= 0, true >= 0)
    non0 = _binary(predicted[nonzero] > 0, true[nonzero] > 0)
    return {
        'acc7_round': float(np.mean(_rounded(predicted, 3) == _rounded(true, 3))),
        'acc7_cmu_bucket': float(np.mean(_cmu_bucket(predicted) == _cmu_bucket(true))),
        'acc5_round': float(np.mean(_rounded(predicted, 2) == _rounded(true, 2))),
        'acc2_has0': has0['accuracy'],
        'f1_has0': has0['weighted_f1'],
        'acc2_non0': non0['accuracy'],
        'f1_non0': non0['weighted_f1'],
        'uar_non0': non0['uar'],
        'macro_f1_non0': non0['macro_f1'],
    }


def _correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson's r; 0 and a RuntimeWarning where one side is constant."""
    centred = []
    for what, values in (('predictions', predicted), ('labels', true)):
        spread = values.max() - values.min()
        # Compared by spread, since the mean of equal numbers may differ from them in the last bit.
        if spread == 0:
            message = f'the correlation is undefined, and given as 0: all {len(values)} {what} are {values[0]:g}'
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return 0.0
        scaled = values / spread
        centred.append(scaled - scaled.mean())
    a, b = centred
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _sentiment_labels(labels: np.ndarray) -> np.ndarray:
    true = _finite('labels', labels)
    if true.ndim != 1:
        raise ValueError(f'labels have shape {true.shape}: expected (R,), one sentiment a row')
    return true


def sentiment(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Metrics of sentiment regression on MOSI and MOSEI, labels from -3 to 3, under every definition in use.

    `predictions` (R,) or (R, 1) and `labels` (R,) are in label units; `names` is accepted and not used.
    - `mae`: mean absolute error, nothing clipped. `corr`: Pearson's r, 0 with a RuntimeWarning where undefined.
    - `acc7_round`, `acc5_round`: clip to -3..3 or -2..2, then np.round, halves to even (MulT, MISA, MMSA).
    - `acc7_cmu_bucket`: the CMU-MOSEI README's classes, where 0 is only exactly 0; (0, 1] is 1, and so on.
    - `acc2_has0`, `f1_has0`: non-negative against negative, every row (as before 2019).
    - `acc2_non0`, `f1_non0`, `uar_non0`, `macro_f1_non0`: positive against the rest, without the rows whose label
      is 0 (MulT and after). All 0, with a RuntimeWarning, where every label is 0.
    Both F1s are weighted by the true counts; `uar_non0` and `macro_f1_non0` weigh both signs alike.

    Raises ValueError on an empty split, wrong shapes and values that are not finite.
    """
    del names
    predicted, true = _finite('predictions', predictions), _sentiment_labels(labels)
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = predicted[:, 0]
    if predicted.ndim != 1:
        raise ValueError(f'predictions have shape {predicted.shape}: expected (R,) or (R, 1), one number a row')
    _same_rows(predicted, true)
    if not true.any():
        message = f'the metrics without zero labels are given as 0: all {len(true)} labels are 0'
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    mae = float(np.mean(np.abs(predicted - true)))
    return {'mae': mae, 'corr': _correlation(predicted, true)} | _sentiment_classes(predicted, true)


# ---- yes-or-no emotions --------------------------------------------------------------------------------------


def _emotion_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (R, E) bool of (R, E) zeros and ones, or of (R, E, 2) one-hot pairs (absent, present)."""
    array = _finite('labels', labels)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 2)):
        raise ValueError(f'labels have shape {array.shape}: expected (R, E), or (R, E, 2) one-hot')
    bad = (array != 0) & (array != 1)
    if bad.any():
        found = array[bad][0]
        raise ValueError(
            f'labels hold {found:g} in row {np.argwhere(bad)[0][0]}: expected 0 or 1; '
            'turn an intensity into presence first (MOSEI: > 0)'
        )
    if array.ndim == 2:
        return array == 1
    ones = array.sum(axis=2)
    if (ones != 1).any():
        row, emotion = np.argwhere(ones != 1)[0]
        raise ValueError(
            f'labels of shape {array.shape} are not one-hot: row {row}, emotion {emotion} is '
            f'{array[row, emotion].tolist()}; expected [1, 0] (absent) or [0, 1] (present)'
        )
    return array[:, :, 1] == 1


def binary_emotions(
    predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Metrics of E yes-or-no emotions (IEMOCAP of the CMU pickles: four; MOSEI: six).

    `predictions` (R, E, 2), or (R, 2E) that reshapes to it, hold the scores of absent and present: present wins
    only where strictly higher. `labels` (R, E) are 0 or 1, or (R, E, 2) one-hot; `names` the E emotions (None:
    their indices). Returns `<metric>_<name>` for each emotion, and its mean over the emotions `<metric>`, of
    `accuracy`, `weighted_f1`, `uar`, `macro_f1` and `weighted_accuracy` = (tp * n / p + tn) / (2n), with p
    positive and n negative labels: MOSEI's measure, the mean of both recalls, so it equals `uar` by definition
    and is repeated under the name that tables use. Where an emotion has one class only, both are its recall.

    Raises ValueError on an empty split, wrong shapes, values that are not finite and labels other than 0 and 1.
    """
    scores, present = _finite('predictions', predictions), _emotion_labels(labels)
    emotions = present.shape[1]
    if scores.ndim == 2 and scores.shape[1] == 2 * emotions:
        scores = scores.reshape(-1, emotions, 2)
    if scores.ndim != 3 or scores.shape[1:] != (emotions, 2):
        raise ValueError(
            f'predictions have shape {scores.shape}: labels with {emotions} emotions expect '
            f'(R, {emotions}, 2) or (R, {2 * emotions})'
        )
    _same_rows(scores, present)
    result: dict[str, float] = {}
    listed = _checked_names(names, emotions, 'emotions')
    for index, name in enumerate(listed):
        one = _binary(scores[:, index, 1] > scores[:, index, 0], present[:, index])
        one['weighted_accuracy'] = one['uar']
        result |= {f'{key}_{name}': value for key, value in one.items()}
    means = {key: float(np.mean([result[f'{key}_{name}'] for name in listed])) for key in one}
    return means | result


METRICS: dict[str, Callable[..., dict[str, float]]] = {
    'classification': classification,
    'sentiment': sentiment,
    'binary_emotions': binary_emotions,
}


# ---- floors and direction ------------------------------------------------------------------------------------


def floors(kind: str, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """The metrics, with the same keys, of the best constant prediction for `labels`.

    A constant is the majority class (for `binary_emotions` the majority of each emotion; ties take the lowest).
    For `sentiment` each key has its own best constant: the median for `mae`, the majority sign or class for the
    others, and `corr` is 0. The constant is chosen on these very labels, so it is never lower (for `mae` never
    higher) than one chosen on training labels: a model below it has not shown that it learnt anything.

    `labels` as in `METRICS[kind]`. Without `names`, `classification` takes the highest label as the last class;
    pass `names` where the last classes may be absent. Raises ValueError as the metrics do, and on an unknown kind.
    """
    if kind == 'classification':
        true = _class_numbers('labels', labels, None if names is None else len(names))
        count = max(2, int(true.max()) + 1) if names is None else len(names)
        constant = np.bincount(true, minlength=count).argmax()
        return classification(np.tile(np.eye(count)[constant], (len(true), 1)), true, names=names)
    if kind == 'sentiment':
        true = _sentiment_labels(labels)
        # These seven constants reach every class of every definition.
        trials = [_sentiment_classes(np.full(len(true), float(value)), true) for value in range(-3, 4)]
        best = {key: max(trial[key] for trial in trials) for key in trials[0]}
        return {'mae': float(np.mean(np.abs(true - np.median(true)))), 'corr': 0.0} | best
    if kind == 'binary_emotions':
        present = _emotion_labels(labels)
        majority = (present.mean(axis=0) > 0.5).astype(np.int64)
        return binary_emotions(np.tile(np.eye(2)[majority], (len(present), 1, 1)), present, names=names)
    raise ValueError(f'no metrics of kind {kind!r}: expected one of {", ".join(METRICS)}')


def is_better_high(name: str) -> bool:
    """Whether a higher value is better: all but `mae` and `loss`, also within `validation/mae` or `total_loss`."""
    leaf = name.rsplit('/', 1)[-1]
    return not (leaf in ('mae', 'loss') or leaf.startswith(('mae_', 'loss_')) or leaf.endswith(('_mae', '_loss')))
