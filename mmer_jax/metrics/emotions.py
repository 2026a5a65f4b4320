"""Metrics of E yes-or-no emotions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmer_jax.metrics.checks import checked_names, finite, same_rows
from mmer_jax.metrics.confusion import SUMMARY, binary_summary
from mmer_jax.metrics.metric import Kind, Metric, right_answer

EACH = {**SUMMARY, 'weighted_accuracy': Metric('weighted_accuracy')}  # of each emotion, and their means


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


def floors(labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """The metrics of the majority of each emotion; at a tie both answers score the same."""
    present = _emotion_labels(labels)
    majority = (present.mean(axis=0) > 0.5).astype(np.int64)
    return binary_emotions(np.tile(np.eye(2)[majority], (len(present), 1, 1)), present, names=names)


def goodness(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probability of the right answers for labels (R, E), mean over the emotions."""
    return right_answer(predictions.reshape(*labels.shape, -1), labels).mean(-1)


def tell(prediction: np.ndarray, label: np.ndarray, names: Sequence[str]) -> str:
    """Label (E,) and prediction (2E,) of a record in words: the emotions that are present."""
    sides = (label, prediction.reshape(-1, 2).argmax(-1))
    shown = [' and '.join(n for n, on in zip(names, side, strict=True) if on) or 'none' for side in sides]
    return f'label {shown[0]}, predicted {shown[1]}'


BINARY_EMOTIONS = Kind(binary_emotions, floors, whole=EACH, each=EACH, labels='binary', goodness=goodness, tell=tell)
