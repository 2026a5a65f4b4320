"""Mixup (Zhang et al. 2018): a row is trained as a mixture of itself and of another row of its batch.

It is made on the device, from the key of the step, so that a run that was killed goes on bit for bit. The loss of a
mixture is the mixture of the losses with either label, which for cross-entropy is the loss of the mixed label, and
serves every kind of label.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.losses import Loss

OWN, PARTNER = 'mixup_share', 'mixup_label'  # what `mix` adds to a batch: (B,) and the shape of `label`
STREAM = 0x6D6978  # apart from the keys of dropout


def mix(batch: Mapping[str, Any], key: Array, alpha: float) -> dict[str, Array]:
    """The batch with share x + (1 - share) x of another row for every modality x; share of Beta(alpha, alpha), by row.

    A step is valid where it is valid in either row. Rows of weight 0 stay as they are and are nobody's partner. The
    larger of the two shares is a row's own, as the order of a pair means nothing. ValueError where a modality is no
    real numbers.
    """
    modalities = [name.removesuffix('_mask') for name in batch if name.endswith('_mask')]
    for m in modalities:
        if not jnp.issubdtype(batch[m].dtype, jnp.floating):
            raise ValueError(
                f'config.mixup mixes real numbers, and {m} holds {batch[m].dtype} (tokens, pictures or samples); set '
                'config.mixup to 0'
            )
    share_key, order_key = jax.random.split(jax.random.fold_in(key, STREAM))
    weight_B = batch['weight']
    share_B = jax.random.beta(share_key, alpha, alpha, weight_B.shape)
    share_B = jnp.maximum(share_B, 1 - share_B)
    partner_B = _partners(weight_B > 0, order_key)
    mixed = {**batch, OWN: share_B, PARTNER: batch['label'][partner_B]}
    for m in modalities:
        mask_BT = batch[f'{m}_mask'] > 0
        x = jnp.where(_like(mask_BT, batch[m]), batch[m], 0)
        share = _like(share_B, x).astype(x.dtype)
        mixed[m] = share * x + (1 - share) * x[partner_B]
        mixed[f'{m}_mask'] = mask_BT | mask_BT[partner_B]
    return mixed


def _partners(real_B: Array, key: Array) -> Array:
    """Of each real row another one, at random: the next in a random circle of them. The others have themselves."""
    number_B = jnp.arange(len(real_B))
    order_B = jnp.argsort(jnp.where(real_B, jax.random.uniform(key, real_B.shape), jnp.inf))
    next_B = order_B[jnp.where(number_B + 1 < real_B.sum(), number_B + 1, 0)]
    return jnp.where(real_B, jnp.zeros_like(order_B).at[order_B].set(next_B), number_B)


def _like(x: Array, array: Array) -> Array:
    return x.reshape(*x.shape, *(1,) * (array.ndim - x.ndim))


def of_both_labels(loss: Loss) -> Loss:
    """The loss of a batch that `mix` made; of another batch the loss itself."""

    def mixed(outputs, batch):
        if OWN not in batch:
            return loss(outputs, batch)
        share_B = batch[OWN]
        return share_B * loss(outputs, batch) + (1 - share_B) * loss(outputs, {**batch, 'label': batch[PARTNER]})

    return mixed
