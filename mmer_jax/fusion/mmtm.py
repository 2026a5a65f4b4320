"""MMTM, the multimodal transfer module (Joze et al. 2020): each modality's channels are gated by what all of them see.

It sits between stages of unimodal networks and couples feature maps of any spatial rank.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.fusion.checks import check_maps
from mmer_jax.layers import check_masks, masked_mean

MAPS = ('BC', 'BTC', 'BTHC', 'BTHWC')


def squeeze(x: Array, mask_BT: Array | None = None) -> Array:
    """Mean of a feature map (B, C), (B, T, C), (B, T, H, C), ... over everything but rows and channels -> (B, C).

    mask_BT: the valid steps of a map that has steps; None: all.
    """
    if x.ndim == 2:
        return x
    x_BTC = x.mean(tuple(range(2, x.ndim - 1)))
    return x_BTC.mean(1) if mask_BT is None else masked_mean(x_BTC, mask_BT)


def over_channels(gate_BC: Array, x: Array) -> Array:
    """(B, C) as (B, 1, ..., C), to multiply a map with."""
    return gate_BC.reshape(len(x), *(1,) * (x.ndim - 2), -1)


class Mmtm(nn.Module):
    """{m: (B, ..., C_m)} -> the same, gated; two or more modalities, each of any spatial rank.

    squeeze: the mean of each map (equation 1); joint: a dense layer over all of them with 2 sum(C_m) / `ratio` outputs
    and ReLU (equation 2); excite: a dense layer and a sigmoid a modality (equation 3); out: `gate_scale` x gate x map
    (equation 4). The paper's scale is 2, so that a gate of 1/2 changes nothing; the authors' code has 1.
    masks: {m: (B, T)}, (B, 1) of vectors, or {} where every step counts.
    """

    ratio: int = 4
    gate_scale: float = 2.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Mapping[str, Array], masks: Mapping[str, Array]) -> dict[str, Array]:
        check_maps('Mmtm', x)
        masks = check_masks(self, x, masks, layouts=MAPS) if masks else {}
        squeezed_BC = jnp.concatenate([squeeze(maps, masks.get(m)) for m, maps in x.items()], -1)
        joint_size = 2 * squeezed_BC.shape[-1] // self.ratio
        joint_BD = nn.relu(nn.Dense(joint_size, dtype=self.dtype, name='joint')(squeezed_BC))
        gated = {}
        for m, maps in x.items():
            gate_BC = nn.sigmoid(nn.Dense(maps.shape[-1], dtype=self.dtype, name=f'{m}_gate')(joint_BD))
            gated[m] = self.gate_scale * over_channels(gate_BC, maps) * maps
        return gated
