"""Metrics of one real number per clip: sentiment, polarity, regression."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from mmer_jax.metrics.checks import finite, same_rows
from mmer_jax.metrics.confusion import binary_summary
from mmer_jax.metrics.metric import Kind, Metric

ERRORS = {
    'mae': Metric('MAE', percent=False, lower_is_better=True),
    'rmse': Metric('RMSE', percent=False, lower_is_better=True),
    'corr': Metric('correlation', percent=False),
    'ccc': Metric('CCC', percent=False),
}
ROUNDED = {
    'acc7_round': Metric('Acc-7'),
    'acc7_cmu_bucket': Metric('Acc-7 (CMU buckets)'),
    'acc5_round': Metric('Acc-5'),
}
SIGNS = {
    'acc2_has0': Metric('Acc-2 (has 0)'),
    'f1_has0': Metric('F1 (has 0)'),
    'acc2_non0': Metric('Acc-2 (non-0)'),
    'f1_non0': Metric('F1 (non-0)'),
    'uar_non0': Metric('uar_non0'),
    'macro_f1_non0': Metric('macro_f1_non0'),
}


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


# ---- floors, fit, and one record in words --------------------------------------------------------------------


def _floors(labels: np.ndarray, classes: Callable[..., dict[str, float]]) -> dict[str, float]:
    """Of each metric its value for its own best constant; `classes` measures those on classes."""
    true = _value_labels(labels)
    errors = {'mae': float(np.mean(np.abs(true - np.median(true)))), 'rmse': float(np.std(true))}
    # These seven constants reach every class of every definition.
    trials = [classes(np.full(len(true), float(value)), true) for value in range(-3, 4)]
    return {**errors, 'corr': 0.0, 'ccc': 0.0} | {key: max(trial[key] for trial in trials) for key in trials[0]}


def sentiment_floors(labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    del names
    return _floors(labels, _sentiment_classes)


def polarity_floors(labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    del names
    return _floors(labels, _signs)


def regression_floors(labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    del names
    return _floors(labels, lambda *_: {})


def _within(labels: np.ndarray, low: float, high: float) -> bool:
    """Whether labels (R,) have both signs, and the largest of them lies above `low` and up to `high`."""
    true = _value_labels(labels)
    slack, largest = 1 + 1e-6, np.abs(true).max()
    return bool(true.min() < 0 < true.max() and low * slack < largest <= high * slack)


def goodness(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the absolute error of predictions (R, 1)."""
    return -np.abs(predictions[:, 0] - labels)


def tell(prediction: np.ndarray, label: np.ndarray, names: Sequence[str]) -> str:
    """Label and prediction (1,) of a record in words."""
    del names
    return f'label {label:.2f}, predicted {prediction[0]:.2f}'


SENTIMENT = Kind(
    sentiment,
    sentiment_floors,
    whole=ERRORS | ROUNDED | SIGNS,
    labels='regression',
    goodness=goodness,
    tell=tell,
    largest=3.0,
    fits=lambda labels: _within(labels, 1.0, 3.0),
)
POLARITY = Kind(
    polarity,
    polarity_floors,
    whole=ERRORS | SIGNS,
    labels='regression',
    goodness=goodness,
    tell=tell,
    largest=1.0,
    fits=lambda labels: _within(labels, 0.0, 1.0),
)
REGRESSION = Kind(regression, regression_floors, whole=ERRORS, labels='regression', goodness=goodness, tell=tell)
