"""Progressive modality reinforcement, PMR (Lv et al. 2021, CVPR): a message hub between the modalities.

Modalities do not attend to each other but to one common message, all of them end to end in time; the message is
reinforced in return by each of them. The authors published no code, so this is one reading of the method; the
docstrings say what it settles.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.fusion.weighted_attention import WeightedAttention
from mmer_jax.layers import Attention, check_mask, check_masks, feed_forward, mask_steps
from mmer_jax.map_names import COMMON, MapName

MESSAGES = ('pooled', 'sum')


class ReinforcementUnit(nn.Module):
    """A source (B, S, D) reinforces a target (B, T, D) -> (B, T, D) and the maps of its cross-attention (B, K, T, S).

    SA is the target's attention to itself, CA its attention to the source; a gate mixes them feature by feature,
    G CA + (1 - G) SA with G = sigmoid(W1 SA + W2 CA + b). LayerNorm, the position-wise network with a residual around
    it, and LayerNorm follow. The target itself has no residual: where G is 0 it goes on as its self-attention. The
    projections of the attentions have no bias.
    """

    num_heads: int
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

        def attention(name):
            return Attention(self.num_heads, self.dropout, use_bias=False, dtype=self.dtype, name=name)

        sa_BTD, _ = attention('self_attention')(target_BTD, target_BTD, target_mask_BT, train=train)
        ca_BTD, maps_BKTS = attention('cross_attention')(target_BTD, source_BSD, source_mask_BS, train=train)
        gate_BTD = nn.sigmoid(
            nn.Dense(features, use_bias=False, dtype=self.dtype, name='gate_self')(sa_BTD)
            + nn.Dense(features, dtype=self.dtype, name='gate_cross')(ca_BTD)
        )
        z_BTD = nn.LayerNorm(dtype=self.dtype, name='mix_norm')(gate_BTD * ca_BTD + (1 - gate_BTD) * sa_BTD)
        forward_BTD = feed_forward(z_BTD, self.feed_forward, self.dropout, dtype=self.dtype, train=train)
        z_BTD = nn.LayerNorm(dtype=self.dtype, name='norm')(z_BTD + forward_BTD)
        return mask_steps(z_BTD, target_mask_BT), maps_BKTS


class MessageHub(nn.Module):
    """One PMR layer: {m: (B, T_m, D)} and the common message (B, T_C, D) -> both again, and the attention maps.

    Every modality is reinforced from the message, then the message from every reinforced modality, each by a unit of
    its own. The resulting messages, one a modality and all of T_C steps, become one by the weights psi of
    WeightedAttention (message='pooled'; over all T_C x D values instead of their mean these would take billions of
    parameters) or by their plain sum ('sum'); then x + FFN(LayerNorm(x)). A single message needs no weights.

    The message's mask (B, T_C) may have padding anywhere. Maps, by MapName.key(), are of unit 'message':
    (B, K, T_m, T_C) from the message, and (B, K, T_C, T_m) to it.
    """

    num_heads: int
    feed_forward: int = 0  # 0: four times the width
    dropout: float = 0.0
    message: str = 'pooled'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        z: Mapping[str, Array],
        common_BTD: Array,
        masks: Mapping[str, Array],
        common_mask_BT: Array,
        train: bool,
    ) -> tuple[dict[str, Array], Array, dict[str, Array]]:
        if self.message not in MESSAGES:
            raise ValueError(f'message {self.message!r}: expected one of {", ".join(map(repr, MESSAGES))}')
        masks, common_mask_BT = check_masks(self, z, masks), check_mask(self, common_BTD, common_mask_BT, name='common')
        maps, reinforced, messages = {}, {}, {}

        def unit(target, source):
            return ReinforcementUnit(
                self.num_heads,
                feed_forward=self.feed_forward,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f'{target}_from_{source}',
            )

        def map_of(target, source):
            return MapName(layer=0, target=target, source=source, unit='message').key()

        for m in z:
            reinforced[m], maps[map_of(m, COMMON)] = unit(m, COMMON)(
                common_BTD, z[m], source_mask_BS=common_mask_BT, target_mask_BT=masks[m], train=train
            )
        for m in z:
            messages[m], maps[map_of(COMMON, m)] = unit(COMMON, m)(
                reinforced[m], common_BTD, source_mask_BS=masks[m], target_mask_BT=common_mask_BT, train=train
            )
        if self.message == 'pooled' and len(messages) > 1:
            weigh = WeightedAttention(dtype=self.dtype, name='weighted_attention')
            messages, _ = weigh(messages, dict.fromkeys(messages, common_mask_BT))
        common_BTD = sum(messages.values())
        inner_BTD = nn.LayerNorm(dtype=self.dtype, name='norm')(common_BTD)
        inner_BTD = feed_forward(inner_BTD, self.feed_forward, self.dropout, dtype=self.dtype, train=train)
        return reinforced, mask_steps(common_BTD + inner_BTD, common_mask_BT), maps


class SelfAttentionLayer(nn.Module):
    """A Transformer layer with LayerNorm before each half, (B, T, D) -> (B, T, D); padding may be anywhere."""

    num_heads: int
    feed_forward: int = 0  # 0: four times the width
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array, train: bool) -> Array:
        mask_BT = check_mask(self, x_BTD, mask_BT)
        inner_BTD = nn.LayerNorm(dtype=self.dtype, name='attention_norm')(x_BTD)
        attention = Attention(self.num_heads, self.dropout, use_bias=False, dtype=self.dtype, name='attention')
        attended_BTD, _ = attention(inner_BTD, inner_BTD, mask_BT, train=train)
        x_BTD += attended_BTD
        inner_BTD = nn.LayerNorm(dtype=self.dtype, name='feed_forward_norm')(x_BTD)
        return x_BTD + feed_forward(inner_BTD, self.feed_forward, self.dropout, dtype=self.dtype, train=train)


def last_step(x_BTD: Array, mask_BT: Array) -> Array:
    """The step of the last True in the mask, (B, D), wherever padding stands; 0 for a row that has none."""
    steps = mask_BT.shape[1]
    index_B = steps - 1 - jnp.argmax(mask_BT[:, ::-1], axis=1)  # of a row without True: the last one, masked below
    last_BD = jnp.take_along_axis(x_BTD, index_B[:, None, None], axis=1)[:, 0]
    return jnp.where(mask_BT.any(1)[:, None], last_BD, 0)
