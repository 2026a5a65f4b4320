"""The loss of modalities by themselves: what mmer_jax/models/self_mm.py puts beside its prediction."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from mmer_jax.losses.inputs import check_mapping

READ = ('unimodal', 'unimodal_label', 'unimodal_weight')


def unimodal_l1(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Sum over the modalities of weight x |prediction - label|, each (B, M) (Self-MM, Yu et al. 2021).

    The weight is tanh |label of the modality - label of the record|: records whose modalities differ count more. It is
    0 until a record is seen for the third time, where it lacks the modality, and in evaluation.
    """
    del batch
    check_mapping('unimodal_l1', outputs)
    missing = [key for key in READ if key not in outputs]
    if missing:
        raise ValueError(
            f'unimodal_l1 reads outputs[{missing[0]!r}], which is not among {", ".join(outputs) or "no outputs"}; '
            'the model self_mm gives it'
        )
    prediction_BM, label_BM, weight_BM = (outputs[key] for key in READ)
    if prediction_BM.ndim != 2 or not prediction_BM.shape == label_BM.shape == weight_BM.shape:
        raise ValueError(
            f'unimodal_l1: predictions {prediction_BM.shape}, labels {label_BM.shape} and weights {weight_BM.shape}, '
            'expected (B, M) each'
        )
    return (weight_BM * jnp.abs(prediction_BM - label_BM)).sum(-1)
