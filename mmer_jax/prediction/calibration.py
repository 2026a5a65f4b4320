"""Probabilities that mean what they say: one temperature per model, fitted on validation (Guo et al. 2017)."""

import numpy as np

LOWEST, HIGHEST = -3.0, 5.0  # of the logarithm of the temperature
LEAST = 10  # validation records


def temperature(logits_RC: np.ndarray, label_R: np.ndarray) -> float:
    """The temperature by which logits (R, C) are divided so that the mean log-likelihood of labels (R,) is largest.

    ValueError where there are fewer than 10 records.
    """
    if len(label_R) < LEAST:
        raise ValueError(f'{len(label_R)} validation records are too few to calibrate on; expected {LEAST} or more')
    from scipy.optimize import minimize_scalar  # only those who calibrate wait for scipy
    from scipy.special import log_softmax

    rows, logits_RC = np.arange(len(label_R)), np.asarray(logits_RC, np.float64)

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits_RC / np.exp(log_temperature), axis=-1)[rows, label_R].mean())

    found = minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method='bounded', options={'xatol': 1e-4})
    return float(np.exp(found.x)) if found.fun <= loss(0.0) else 1.0


def fit(kind: str, prediction: np.ndarray, label: np.ndarray) -> float:
    """Of one seed's predictions on validation (R, C), with labels as in predictions/validation.npz."""
    if kind == 'regression':
        raise ValueError('only probabilities are calibrated: the run predicts a number, leave --calibrate out')
    if kind == 'binary':
        return temperature(prediction.reshape(-1, 2), label.reshape(-1))
    return temperature(prediction, label)
