"""Losses of alignment: connectionist temporal classification (Graves et al. 2006) of steps against positions.

They read the extras of a model that aligns by CTC (fusion/ctc_alignment.py): `ctc_logits_<m>` (B, T, P + 1) and
`ctc_mask_<m>` (B, T) of each aligned modality m, and `ctc_target_mask` (B, P), the positions that exist. Values are
negative log likelihoods of whole sequences, in nats, summed over the aligned modalities; 0 where nothing is aligned
(one modality only).

They are large, some nats for every step, so a small weight (0.001) and a norm of their own for the alignment modules
(config.optimizer.clip_alone) keep clipping from shrinking the task's gradient. MulT's code takes the sum over the batch
(a weight of the batch size, here), and clips and updates the alignment modules by themselves.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jax import Array

from mmer_jax.losses.inputs import check_mapping

PREFIX = 'ctc_logits_'


def ctc_alignment(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """CTC loss (B,) of the targets 1, 2 .. L, where L is the row's own number of words.

    A row with fewer steps than words has no path and counts 0 with no gradient (zero_infinity of torch); so does a
    row without steps.
    """
    del batch
    return _ctc(outputs, _target_mask(outputs, 'ctc_alignment'))


def ctc_alignment_padded(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """CTC loss (B,) of the targets 1, 2 .. P for every row, as MulT's code trains: padded words are targets too.

    The steps are the valid ones only (there, padded steps count as well). Only for `_as_published` configs.
    """
    del batch
    return _ctc(outputs, jnp.ones_like(_target_mask(outputs, 'ctc_alignment_padded')))


def _target_mask(outputs, name):
    check_mapping(name, outputs)
    if 'ctc_target_mask' not in outputs:
        raise ValueError(
            f"{name}: the model's outputs have no ctc_target_mask (they have {sorted(outputs)}); "
            "take a model that aligns, with align = 'ctc', or drop this loss"
        )
    return outputs['ctc_target_mask']


def _ctc(outputs, target_mask):
    total = jnp.zeros(len(target_mask))
    for key in sorted(outputs):
        if key.startswith(PREFIX):
            total = total + _one_modality(outputs[key], outputs[f'ctc_mask_{key.removeprefix(PREFIX)}'], target_mask)
    return total


def _one_modality(logits_BTC, mask_BT, target_mask_BP):
    if logits_BTC.shape[-1] != target_mask_BP.shape[1] + 1:
        raise ValueError(
            f'CTC loss: logits {logits_BTC.shape} for {target_mask_BP.shape[1]} positions; expected '
            f'{target_mask_BP.shape[1] + 1} classes, the blank first'
        )
    # The targets are all different, so a path exists exactly where there are as many steps as targets.
    steps_B = mask_BT.sum(1)
    feasible_B = (steps_B >= target_mask_BP.sum(1)) & (steps_B > 0)
    logits_BTC = jnp.where(feasible_B[:, None, None] & mask_BT[..., None], logits_BTC.astype(jnp.float32), 0)
    label_BP = jnp.broadcast_to(1 + jnp.arange(target_mask_BP.shape[1])[None], target_mask_BP.shape)
    loss_B = optax.ctc_loss(
        logits_BTC, 1 - mask_BT.astype(jnp.float32), label_BP, 1 - target_mask_BP.astype(jnp.float32)
    )
    return jnp.where(feasible_B, loss_B, 0)
