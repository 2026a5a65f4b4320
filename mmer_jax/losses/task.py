"""Losses of the task itself: predictions against labels."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax import Array

from mmer_jax.losses.inputs import prediction_and_label


def _check(name, prediction, expected, label):
    if prediction.shape != expected:
        raise ValueError(f'{name}: prediction {prediction.shape}, expected {expected} for labels {label.shape}')


def cross_entropy(outputs: Mapping[str, Array], batch: Mapping[str, Array], *, smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy of logits (B, C) with class labels (B,).

    smoothing: the share of the target that all C classes have alike (label smoothing, Szegedy et al. 2016).
    """
    prediction_BC, label_B = prediction_and_label('cross_entropy', outputs, batch)
    if prediction_BC.ndim != 2 or label_B.shape != prediction_BC.shape[:1]:
        raise ValueError(
            f'cross_entropy: prediction {prediction_BC.shape} and label {label_B.shape}, expected (B, C) and (B,)'
        )
    loss_B = optax.softmax_cross_entropy_with_integer_labels(prediction_BC, label_B)
    if not smoothing:
        return loss_B
    return (1 - smoothing) * loss_B - smoothing * jax.nn.log_softmax(prediction_BC).mean(-1)


def double_softmax(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Cross-entropy of logits that went through a softmax already, as the published shared-encoder code trains.

    Never below log(e + C - 1) - 1 (1.0436 with six classes); only for `_as_published` configs.
    """
    prediction_BC, label_B = prediction_and_label('double_softmax', outputs, batch)
    return cross_entropy({'prediction': jax.nn.softmax(prediction_BC)}, {'label': label_B})


def true_class_score(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Minus the score of the true class, scores (B, C): the loss of the multiplicative layer (Liu et al. 2018)."""
    prediction_BC, label_B = prediction_and_label('true_class_score', outputs, batch)
    if prediction_BC.ndim != 2 or label_B.shape != prediction_BC.shape[:1]:
        raise ValueError(
            f'true_class_score: prediction {prediction_BC.shape} and label {label_B.shape}, expected (B, C) and (B,)'
        )
    return -jnp.take_along_axis(prediction_BC, label_B[:, None], axis=1)[:, 0]


def l1(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Absolute error of predictions (B, 1) against labels (B,): sentiment regression of MulT and MFSA."""
    prediction_B1, label_B = prediction_and_label('l1', outputs, batch)
    _check('l1', prediction_B1, (*label_B.shape, 1), label_B)
    return jnp.abs(prediction_B1[:, 0] - label_B)


def mse(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Squared error of predictions (B, 1) against labels (B,)."""
    prediction_B1, label_B = prediction_and_label('mse', outputs, batch)
    _check('mse', prediction_B1, (*label_B.shape, 1), label_B)
    return jnp.square(prediction_B1[:, 0] - label_B)


def binary_cross_entropy(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Mean over E emotions of the two-class cross-entropy (MulT on IEMOCAP): predictions (B, 2 E), labels (B, E)."""
    prediction, label_BE = prediction_and_label('binary_cross_entropy', outputs, batch)
    if label_BE.ndim != 2:
        raise ValueError(f'binary_cross_entropy: label {label_BE.shape}, expected (B, E), one column an emotion')
    _check('binary_cross_entropy', prediction, (len(label_BE), 2 * label_BE.shape[-1]), label_BE)
    logits_BE2 = prediction.reshape(*label_BE.shape, 2)
    return optax.softmax_cross_entropy_with_integer_labels(logits_BE2, label_BE).mean(-1)
