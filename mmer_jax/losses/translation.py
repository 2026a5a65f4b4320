"""Losses of translating one modality's sequence into another's (MCTN, Pham et al. 2019): masked squared errors.

They read the extras of models/mctn.py: `mctn_<what>` and `mctn_<what>_target` (B, P, D), and `mctn_mask` (B, P), or
`mctn_<what>_mask` where some records lack the target.
Every value is a mean over a row's valid steps and the features, 0 for a row without steps. A translation that the
model's modalities do not have (none with one modality, no second one with two) counts 0.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from mmer_jax.losses.inputs import check_mapping


def translation(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Source to first target, (B,)."""
    del batch
    return _masked_mse(outputs, 'translation', 'mctn_forward')


def cycle_translation(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """The generated first target back to the source, (B,)."""
    del batch
    return _masked_mse(outputs, 'cycle_translation', 'mctn_cycle')


def second_translation(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """The joint representation of source and first target to the second target, (B,)."""
    del batch
    return _masked_mse(outputs, 'second_translation', 'mctn_second')


def _masked_mse(outputs, name, key):
    check_mapping(name, outputs)
    if 'mctn_mask' not in outputs:
        raise ValueError(
            f"{name}: the model's outputs have no mctn_mask (they have {sorted(outputs)}); "
            'take the model mctn with all its modalities in the batch, or drop this loss'
        )
    if key not in outputs:
        return jnp.zeros(len(outputs['mctn_mask']))
    mask_BP = outputs.get(f'{key}_mask', outputs['mctn_mask'])
    found, target = outputs[key], outputs[f'{key}_target']
    if found.shape != target.shape:
        raise ValueError(f'{name}: {key} {found.shape} and {key}_target {target.shape}, expected one shape (B, P, D)')
    error_BPD = found.astype(jnp.float32) - target.astype(jnp.float32)
    error_BP = jnp.square(jnp.where(mask_BP[..., None], error_BPD, 0)).mean(-1)
    return error_BP.sum(1) / jnp.maximum(mask_BP.astype(jnp.float32).sum(1), 1)
