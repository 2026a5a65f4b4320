"""Metrics of a whole split: numpy `(predictions, labels) -> dict[str, float]`.

Five kinds of task, one function each, in `METRICS`: `classification` (one of C classes), `binary_emotions` (E
yes-or-no emotions, IEMOCAP of the CMU pickles and MOSEI), and for one real number per clip three, of which
`metric_kind` takes the one whose definitions fit the labels: `sentiment` (-3 to 3, MOSI and MOSEI), `polarity`
(negative and positive, -1 to 1), `regression` (any other scale). Every value is a fraction from 0 to 1, except `mae`
and `rmse` (in label units), `corr` and `ccc` (-1 to 1). `floors` gives the same keys for the best constant prediction:
on skewed labels a high accuracy may be no more than that.

A metric is computed once, on the gathered split: a mean over batches is another number for all but `accuracy`
and `mae`. Rows are gathered by the caller, padding rows already removed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from mmer_jax.metrics.confusion import (
    binary_summary,
    checked_names,
    class_numbers,
    confusion_matrix,
    finite,
    per_class,
    same_rows,
    summary,
)

# ---- one of C classes ----------------------------------------------------------------------------------------


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
    for name, recall, precision, f1 in zip(listed, *per_class(confusion), strict=True):
        result |= {f'recall_{name}': float(recall), f'precision_{name}': float(precision), f'f1_{name}': float(f1)}
    return result


# ---- one real number -----------------------------------------------------------------------------------------


def _rounded(values: np.ndarray, limit: int) -> np.ndarray:
    # np.round is banker's rounding (0.5 -> 0, 1.5 -> 2, 2.5 -> 2), as in the code of MulT, MISA, MMSA and
    # Self-MM. Many MOSI and MOSEI labels end in .5, so rounding half up would be another metric.
    return np.round(np.clip(values, -limit, limit))


def _cmu_bucket(values: np.ndarray) -> np.ndarray:
    """Seven classes of the CMU-MOSEI README: 0 is exactly 0, (0, 1] is 1, (1, 2] is 2, above is 3; mirrored."""
    return np.sign(values) * np.minimum(np.ceil(np.abs(values)), 3)


def _signs(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Metrics of the sign, predicted (R,) against true (R,)."""
    nonzero = true != 0
    has0 = binary_summary(predicted >= 0, true >= 0)
    non0 = binary_summary(predicted[nonzero] > 0, true[nonzero] > 0)
    return {
        'acc2_has0': has0['accuracy'],
        'f1_has0': has0['weighted_f1'],
        'acc2_non0': non0['accuracy'],
        'f1_non0': non0['weighted_f1'],
        'uar_non0': non0['uar'],
        'macro_f1_non0': non0['macro_f1'],
    }


def _sentiment_classes(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Every sentiment metric on classes made from the numbers, predicted (R,) against true (R,)."""
    return {
        'acc7_round': float(np.mean(_rounded(predicted, 3) == _rounded(true, 3))),
        'acc7_cmu_bucket': float(np.mean(_cmu_bucket(predicted) == _cmu_bucket(true))),
        'acc5_round': float(np.mean(_rounded(predicted, 2) == _rounded(true, 2))),
        **_signs(predicted, true),
    }


def _agreement(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Pearson's r and Lin's concordance; both 0, with a RuntimeWarning, where one side is constant."""
    scale = max(np.abs(predicted).max(), np.abs(true).max()) or 1.0  # squares of very large numbers are infinite
    centred, scaled = [], []
    for what, values in (('predictions', predicted), ('labels', true)):
        spread = values.max() - values.min()
        # Compared by spread, since the mean of equal numbers may differ from them in the last bit.
        if spread == 0:
            message = f'the correlation is undefined, and given as 0: all {len(values)} {what} are {values[0]:g}'
            warnings.warn(message, RuntimeWarning, stacklevel=4)
            return 0.0, 0.0
        centred.append(values / spread - (values / spread).mean())
        scaled.append(values / scale)
    (a, b), (x, y) = centred, scaled
    dx, dy = x - x.mean(), y - y.mean()
    ccc = 2 * (dx @ dy) / (dx @ dx + dy @ dy + len(x) * (x.mean() - y.mean()) ** 2)
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0)), float(np.clip(ccc, -1.0, 1.0))


def _value_labels(labels: np.ndarray) -> np.ndarray:
    true = finite('labels', labels)
    if true.ndim != 1:
        raise ValueError(f'labels have shape {true.shape}: expected (R,), one number a row')
    return true


def _values(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (R,) or (R, 1) and labels (R,), both as (R,)."""
    predicted, true = finite('predictions', predictions), _value_labels(labels)
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = predicted[:, 0]
    if predicted.ndim != 1:
        raise ValueError(f'predictions have shape {predicted.shape}: expected (R,) or (R, 1), one number a row')
    same_rows(predicted, true)
    return predicted, true


def _errors(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    error = predicted - true
    scale = np.abs(error).max() or 1.0  # squares of large numbers would be infinite
    corr, ccc = _agreement(predicted, true)
    rmse = float(scale * np.sqrt(np.mean(np.square(error / scale))))
    return {'mae': float(np.mean(np.abs(error))), 'rmse': rmse, 'corr': corr, 'ccc': ccc}


def regression(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Metrics of one real number per clip on any scale: valence, arousal, an intensity, a rating.

    `predictions` (R,) or (R, 1) and `labels` (R,) are in label units; `names` is accepted and not used.
    - `mae`: mean absolute error; `rmse`: root of the mean squared error; nothing is clipped.
    - `corr`: Pearson's r.
    - `ccc`: concordance correlation coefficient (Lin 1989), the standard for dimensional emotion (AVEC):
      2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2), with variances and covariance over R (not R - 1). Other than r it falls
      where predictions are shifted or scaled.
    Both are 0, with a RuntimeWarning, where predictions or labels are constant.

    Raises ValueError on an empty split, wrong shapes and values that are not finite.
    """
    del names
    return _errors(*_values(predictions, labels))


def polarity(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Those of `regression` and those of the sign, for labels from negative to positive on another scale than -3 to 3.

    `acc2_has0` to `macro_f1_non0` are those of `sentiment`, which says what they are; rounding to seven or five classes
    has no meaning on a scale from -1 to 1 (CH-SIMS; valence). Arguments and errors as in `regression`.
    """
    del names
    predicted, true = _values(predictions, labels)
    _warn_of_zeros(true)
    return _errors(predicted, true) | _signs(predicted, true)


def _warn_of_zeros(true):
    if not true.any():
        message = f'the metrics without zero labels are given as 0: all {len(true)} labels are 0'
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def sentiment(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Metrics of sentiment regression on MOSI and MOSEI, labels from -3 to 3, under every definition in use.

    `mae`, `rmse`, `corr` and `ccc` as in `regression`, whose arguments and errors these are; and on classes:
    - `acc7_round`, `acc5_round`: clip to -3..3 or -2..2, then np.round, halves to even (MulT, MISA, MMSA).
    - `acc7_cmu_bucket`: the CMU-MOSEI README's classes, where 0 is only exactly 0; (0, 1] is 1, and so on.
    - `acc2_has0`, `f1_has0`: non-negative against negative, every row (as before 2019).
    - `acc2_non0`, `f1_non0`, `uar_non0`, `macro_f1_non0`: positive against the rest, without the rows whose label
      is 0 (MulT and after). All 0, with a RuntimeWarning, where every label is 0.
    Both F1s are weighted by the true counts; `uar_non0` and `macro_f1_non0` weigh both signs alike.
    """
    del names
    predicted, true = _values(predictions, labels)
    _warn_of_zeros(true)
    return _errors(predicted, true) | _sentiment_classes(predicted, true)


# ---- yes-or-no emotions --------------------------------------------------------------------------------------


def _emotion_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (R, E) bool of (R, E) zeros and ones, or of (R, E, 2) one-hot pairs (absent, present)."""
    array = finite('labels', labels)
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
    scores, present = finite('predictions', predictions), _emotion_labels(labels)
    emotions = present.shape[1]
    if scores.ndim == 2 and scores.shape[1] == 2 * emotions:
        scores = scores.reshape(-1, emotions, 2)
    if scores.ndim != 3 or scores.shape[1:] != (emotions, 2):
        raise ValueError(
            f'predictions have shape {scores.shape}: labels with {emotions} emotions expect '
            f'(R, {emotions}, 2) or (R, {2 * emotions})'
        )
    same_rows(scores, present)
    result: dict[str, float] = {}
    listed = checked_names(names, emotions, 'emotions')
    for index, name in enumerate(listed):
        one = binary_summary(scores[:, index, 1] > scores[:, index, 0], present[:, index])
        one['weighted_accuracy'] = one['uar']
        result |= {f'{key}_{name}': value for key, value in one.items()}
    means = {key: float(np.mean([result[f'{key}_{name}'] for name in listed])) for key in one}
    return means | result


METRICS: dict[str, Callable[..., dict[str, float]]] = {
    'classification': classification,
    'sentiment': sentiment,
    'polarity': polarity,
    'regression': regression,
    'binary_emotions': binary_emotions,
}
LABEL_METRICS = {'classes': 'classification', 'binary': 'binary_emotions'}
SENTIMENT_LIMIT, UNIT = 3.0, 1.0
LOWER_IS_BETTER = ('mae', 'rmse', 'loss')


def metric_kind(label_kind: str, labels: np.ndarray) -> str:
    """The key of `METRICS` whose definitions fit all labels of a data set; `label_kind` is a schema's.

    'classes' and 'binary' have one each. Of 'regression' the labels (R,) decide, all of them, not those of one split:
    `sentiment` where they lie within -3..3, have both signs, and go beyond -1..1; `polarity` where they have both signs
    and stay within -1..1; `regression` else, such as for ratings from 1 to 5.
    """
    if label_kind in LABEL_METRICS:
        return LABEL_METRICS[label_kind]
    true = _value_labels(labels)
    largest = np.abs(true).max()
    if true.min() >= 0 or true.max() <= 0 or largest > SENTIMENT_LIMIT * (1 + 1e-6):
        return 'regression'
    return 'sentiment' if largest > UNIT * (1 + 1e-6) else 'polarity'


def unfit(kind: str, labels: np.ndarray) -> str:
    """Why a metric of another kind than `kind` is not measured on labels of real numbers; '' for other kinds."""
    if kind not in ('polarity', 'regression'):
        return ''
    low, high = float(np.min(labels)), float(np.max(labels))
    return (
        f'; the labels go from {low:g} to {high:g}: Acc-7 and Acc-5 are defined for labels from -3 to 3, Acc-2 and F1 '
        'for negative and positive ones'
    )


# ---- floors and direction ------------------------------------------------------------------------------------


def floors(kind: str, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """The metrics, with the same keys, of the best constant prediction for `labels`.

    A constant is the majority class, at a tie the lowest (for `binary_emotions` the majority of each emotion; at a tie
    both score the same). For real numbers each key has its own best constant: the median for `mae`, the mean for
    `rmse`, the majority sign or class for the others; `corr` and `ccc` are 0. The constant is chosen on these very
    labels, so it is never lower (for `mae` and `rmse` never higher) than one chosen on training labels: a model below
    it has not shown that it learnt anything.

    `labels` as in `METRICS[kind]`. Without `names`, `classification` takes the highest label as the last class;
    pass `names` where the last classes may be absent. Raises ValueError as the metrics do, and on an unknown kind.
    """
    if kind == 'classification':
        true = class_numbers('labels', labels, None if names is None else len(names))
        count = max(2, int(true.max()) + 1) if names is None else len(names)
        constant = np.bincount(true, minlength=count).argmax()
        return classification(np.tile(np.eye(count)[constant], (len(true), 1)), true, names=names)
    if kind in ('sentiment', 'polarity', 'regression'):
        true = _value_labels(labels)
        errors = {'mae': float(np.mean(np.abs(true - np.median(true)))), 'rmse': float(np.std(true))}
        classes = {'sentiment': _sentiment_classes, 'polarity': _signs}.get(kind, lambda *_: {})
        # These seven constants reach every class of every definition.
        trials = [classes(np.full(len(true), float(value)), true) for value in range(-3, 4)]
        return {**errors, 'corr': 0.0, 'ccc': 0.0} | {key: max(trial[key] for trial in trials) for key in trials[0]}
    if kind == 'binary_emotions':
        present = _emotion_labels(labels)
        majority = (present.mean(axis=0) > 0.5).astype(np.int64)
        return binary_emotions(np.tile(np.eye(2)[majority], (len(present), 1, 1)), present, names=names)
    raise ValueError(f'no metrics of kind {kind!r}: expected one of {", ".join(METRICS)}')


def is_better_high(name: str) -> bool:
    """Whether a higher value is better: all but those of LOWER_IS_BETTER, within `validation/mae` too."""
    leaf = name.rsplit('/', 1)[-1]
    return not any(leaf == low or leaf.startswith(f'{low}_') or leaf.endswith(f'_{low}') for low in LOWER_IS_BETTER)
