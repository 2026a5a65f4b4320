"""Hierarchical cross-modal attention, HCA (MFSA paper, section 3.4, equations 7 to 10).

A target modality is reinforced in three grains: from all modalities together (mixed), from all others together
(coarse), and from each other one by itself (fine).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.kernels import Dense, LayerNorm
from mmer_jax.layers import call_block, check_mask, check_masks, feed_forward, mask_steps, mixed_and_map
from mmer_jax.map_names import COMMON, OTHERS, MapName

GRAINS = ('mixed', 'coarse', 'fine')


class ModalityReinforcementUnit(nn.Module):
    """MRU: a source (B, S, D) reinforces a target (B, T, D) -> (B, T, D) and the attention maps (B, K, T, S).

    The residual is the normalised target, as equation 8 has it. Sources may be several sequences end to end: what
    counts is the mask.
    """

    num_heads: int
    scale: str = 'head'
    feed_forward: int = 0  # 0: four times the width
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, source_BSD: Array, target_BTD: Array, source_mask_BS: Array, target_mask_BT: Array, train: bool
    ) -> tuple[Array, Array]:
        source_mask_BS = check_mask(self, source_BSD, source_mask_BS, name='source')
        target_mask_BT = check_mask(self, target_BTD, target_mask_BT, name='target')
        features = target_BTD.shape[-1]
        target_BTD = LayerNorm(dtype=self.dtype, name='target_norm')(target_BTD)
        source_BSD = LayerNorm(dtype=self.dtype, name='source_norm')(source_BSD)

        def dense(name, x):
            return Dense(features, use_bias=False, dtype=self.dtype, name=name)(x)

        mixed_BTD, attention_BKTS = mixed_and_map(
            self, dense('query', target_BTD), dense('key', source_BSD),
            value_BSD=dense('value', source_BSD), mask=source_mask_BS,
            num_heads=self.num_heads, scale=(features // self.num_heads if self.scale == 'head' else features) ** -0.5,
            dropout=self.dropout, train=train,
        )  # fmt: skip
        z_BTD = target_BTD + mixed_BTD  # equations 7 and 8
        inner_BTD = LayerNorm(dtype=self.dtype, name='feed_forward_norm')(z_BTD)
        inner_BTD = feed_forward(inner_BTD, self.feed_forward, self.dropout, dtype=self.dtype, train=train)
        z_BTD = inner_BTD + z_BTD  # equation 9
        return mask_steps(z_BTD, target_mask_BT), attention_BKTS


class HierarchicalCrossModalAttention(nn.Module):
    """One HCA layer for every target (equation 10): {m: (B, T_m, D)} -> the same, and {MapName.key(): maps}.

    Works on one to three modalities, in the order of z. With two, the coarse and the fine source are the same
    sequence through units of their own; with one, only the mixed grain is left (the modality attends to itself).
    `grains` leaves out the others: the next grain then starts from what the one before it would have.
    """

    num_heads: int
    grains: tuple[str, ...] = GRAINS
    scale: str = 'head'
    feed_forward: int = 0
    dropout: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, z: Mapping[str, Array], masks: Mapping[str, Array], train: bool
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        unknown = [grain for grain in self.grains if grain not in GRAINS]
        if unknown:
            raise ValueError(f'grains {unknown}: the known ones are {", ".join(GRAINS)}')
        masks = check_masks(self, z, masks)
        attention: dict[str, Array] = {}

        def unit(x_BTD, of, *, name, sources):
            module = ModalityReinforcementUnit(
                num_heads=self.num_heads,
                scale=self.scale,
                feed_forward=self.feed_forward,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f'{of.target}_{name}',
            )
            source_BSD = jnp.concatenate([z[m] for m in sources], 1)
            source_mask_BS = jnp.concatenate([masks[m] for m in sources], 1)
            arrays = source_BSD, x_BTD, source_mask_BS, masks[of.target]
            x_BTD, attention[of.key()] = call_block(module, *arrays, train=train, remat=self.remat)
            return x_BTD

        def map_of(target, source, grain):
            return MapName(layer=0, target=target, source=source, unit=grain)

        reinforced = {}
        for target in z:
            others, x_BTD = [m for m in z if m != target], z[target]
            if 'mixed' in self.grains:
                x_BTD = unit(x_BTD, map_of(target, COMMON, 'mixed'), name='mixed', sources=list(z))
            if 'coarse' in self.grains and others:
                x_BTD = unit(x_BTD, map_of(target, OTHERS, 'coarse'), name='coarse', sources=others)
            if 'fine' in self.grains and others:
                x_BTD = sum(unit(x_BTD, map_of(target, m, 'fine'), name=f'fine_{m}', sources=[m]) for m in others)
            reinforced[target] = x_BTD
        return reinforced, attention
