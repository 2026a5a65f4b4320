"""MSAF, multimodal split attention fusion (Su et al. 2020): channels in blocks, and attention among all blocks.

It sits between stages of unimodal networks and couples feature maps of any spatial rank, without changing their shape.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.checks import check_maps
from mmer_jax.fusion.mmtm import MAPS, squeeze
from mmer_jax.layers import check_masks


class Msaf(nn.Module):
    """{m: (B, ..., C_m)} -> the same, weighted; one or more modalities, each of any spatial rank.

    The channels of each map are split into blocks of `block_channel` (zeros fill up a last one). The blocks' sum,
    averaged over positions and summed over modalities, goes through a dense layer to block_channel / `reduction`,
    batch normalisation and ReLU: the joint representation. A dense layer a block makes it `block_channel` logits, and a
    softmax over the blocks of all modalities, channel by channel, the weights of the blocks.

    `block_dropout` drops whole blocks of a row in training. The authors' code multiplies by that mask before and after
    the attention, so that a kept block grows by 1 / (1 - p)^2: `drop_twice`. `lowest_attention` maps weights w to
    lowest + w (1 - lowest). masks: {m: (B, T)}, or {} where every step counts; rows that are padding in all of them are
    left out of the batch statistics. On RAVDESS: 5,356 parameters for channels (1024, 32) in blocks of 16, 19,288 for
    (2048, 64) in blocks of 32.
    """

    block_channel: int
    reduction: int = 4
    block_dropout: float = 0.2
    lowest_attention: float = 0.0
    drop_twice: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Mapping[str, Array], masks: Mapping[str, Array], train: bool) -> dict[str, Array]:
        check_maps('Msaf', x)
        masks = check_masks(self, x, masks, layouts=MAPS) if masks else {}
        blocks = {m: self._split(maps) for m, maps in x.items()}  # (B, ..., N, block_channel)
        kept = {m: self._kept(maps, train) for m, maps in blocks.items()}
        blocks = {m: maps * kept[m] for m, maps in blocks.items()}
        summed_BC = sum(squeeze(maps.sum(-2), masks.get(m)) for m, maps in blocks.items())

        joint_BD = nn.Dense(self.block_channel // self.reduction, dtype=self.dtype, name='joint')(summed_BC)
        joint_BD = nn.relu(self._norm(joint_BD, masks, train))
        counts = {m: maps.shape[-2] for m, maps in blocks.items()}
        logits = [nn.Dense(n * self.block_channel, dtype=self.dtype, name=f'{m}_blocks') for m, n in counts.items()]
        logits_BNC = jnp.concatenate(
            [dense(joint_BD).reshape(len(joint_BD), -1, self.block_channel) for dense in logits], 1
        )
        weight_BNC = nn.softmax(logits_BNC.astype(jnp.float32), axis=1).astype(logits_BNC.dtype)
        weight_BNC = self.lowest_attention + weight_BNC * (1 - self.lowest_attention)

        weighted, start = {}, 0
        for m, maps in blocks.items():
            part_BNC = weight_BNC[:, start : start + counts[m]]
            start += counts[m]
            maps = maps * part_BNC.reshape(len(maps), *(1,) * (maps.ndim - 3), *part_BNC.shape[1:])
            maps = maps * kept[m] if self.drop_twice else maps
            weighted[m] = maps.reshape(*maps.shape[:-2], -1)[..., : x[m].shape[-1]]
        return weighted

    def _split(self, maps):
        filled = jnp.pad(maps, [(0, 0)] * (maps.ndim - 1) + [(0, -maps.shape[-1] % self.block_channel)])
        return filled.reshape(*maps.shape[:-1], -1, self.block_channel)

    def _kept(self, maps, train):
        """0 for a dropped block, 1 / (1 - p) for another, (B, 1, ..., N, 1)."""
        ones = jnp.ones((len(maps), *(1,) * (maps.ndim - 3), maps.shape[-2], 1), maps.dtype)
        return Dropout(self.block_dropout)(ones, deterministic=not train)

    def _norm(self, joint_BD, masks, train):
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name='norm')
        if not masks:
            return norm(joint_BD)
        # As in the encoders: padding rows change no statistics, and where there is no other row all are taken.
        rows_B = jnp.stack([mask.any(1) for mask in masks.values()]).any(0)
        rows_B = rows_B | ~rows_B.any()
        return norm(joint_BD, mask=rows_B[:, None])
