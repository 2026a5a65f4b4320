"""How far probabilities are what they say: the expected calibration error. numpy only."""

from __future__ import annotations

import numpy as np

from mmer_jax.metrics.checks import class_numbers, finite, same_rows
from mmer_jax.metrics.metric import Metric

BINS = 15
ECE = {'ece': Metric('ECE', lower_is_better=True)}  # beside the metrics of classes; no epoch is chosen by it


def expected_calibration_error(scores_RC: np.ndarray, label_R: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3): the mean, over the records, of the distance between
    confidence and accuracy of a record's bin; 0 is best, the largest is 1.

    scores_RC: logits of C classes, turned into probabilities by a softmax; the confidence of a record is its largest
    one. Bin m of M equal ones holds the confidences in ((m - 1) / M, m / M]; within a bin stand the share of right
    answers and the mean confidence, weighted by the bin's share of the records. label_R: class numbers.

    Few records make it larger than it is: of a perfectly calibrated model a bin of n records is off by about
    sqrt(p (1 - p) / n) all the same.

    Raises ValueError as the metrics do: an empty split, wrong shapes, values that are not finite, unknown classes.
    """
    scores = finite('predictions', scores_RC)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f'predictions have shape {scores.shape}: expected (R, C), the logits of C >= 2 classes')
    labels = class_numbers('labels', label_R, scores.shape[1])
    same_rows(scores, labels)
    powers = np.exp(scores - scores.max(1, keepdims=True))
    confidence = 1.0 / powers.sum(1)  # the largest power is exp(0)
    right = scores.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    distance = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(distance).sum() / len(labels))
