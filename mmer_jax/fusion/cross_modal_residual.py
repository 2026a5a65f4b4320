"""The cross-modal block of CFN-SR (Fu et al. 2021, section 2.3, equations 5 to 8; its code for what they leave open).

One modality (the source) is summarised by self-attention; the summary decides where in the other's feature map (the
target) to look; the attended map is added to the map itself.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.fusion.cross_modal_attention import CrossModalTransformer
from mmer_jax.layers import Dropouts, check_mask, last_valid, mask_steps, masked_softmax


class CrossModalResidual(nn.Module):
    """target (B, T, ..., C) and source (B, S, D) -> the fused target, of the target's shape, and the map (B, T, ...).

    source: a transformer of `num_layers` layers (equations 5 and 6), its last valid step, a linear map without bias to
    `width`. target: a linear map of the channels to `width`. Their sum, tanh (equation 7), one number a position, and a
    softmax: the map. Out: target x map + target (equation 8). The paper's softmax has `width` channels, which do not
    fit the target's C; one number a position is the code's. So is the softmax among the positions of each step by
    itself; `joint_softmax` takes all valid steps together, as is always done where steps have no positions (B, T, C).

    By default as in the paper: audio of 64 channels into video of 2048. A source of another width than `width` is
    mapped to it before the transformer, not after it (self-attention over 2048 channels would have 250 million
    weights); the count stays the same, 385,345 for (64, 2048) and for (2048, 64). Table 2: `self_attention` = False
    takes the last valid step of the source itself, `residual` = False leaves target x map.

    As published: `causal`, the code's mask, of which the paper does not speak; and `attention_summed_over_batch`, by
    which the code multiplies every row by the sum of all rows' maps, so that a prediction depends on the others of its
    batch, in evaluation too.
    """

    width: int = 64
    num_layers: int = 5
    num_heads: int = 8
    dropouts: Dropouts = Dropouts(attention=0.1, relu=0.1, residual=0.1, embedding=0.3)
    self_attention: bool = True
    residual: bool = True
    joint_softmax: bool = False
    causal: bool = False
    attention_summed_over_batch: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, target: Array, source_BSD: Array, target_mask_BT: Array, source_mask_BS: Array, train: bool
    ) -> tuple[Array, Array]:
        target_mask_BT = check_mask(self, target, target_mask_BT, layouts=('BTC', 'BTHC', 'BTHWC'), name='target')
        source_mask_BS = check_mask(self, source_BSD, source_mask_BS, name='source')
        target = mask_steps(target, target_mask_BT)
        summary_BD = self._summary(source_BSD, source_mask_BS, train)
        # Equation 7, with the positions of a step in one axis, P.
        target_BTPC = target.reshape(*target.shape[:2], -1, target.shape[-1])
        query_BTPD = nn.Dense(self.width, dtype=self.dtype, name='target')(target_BTPC)
        score = nn.Dense(1, dtype=self.dtype, name='score')
        logits_BTP = score(nn.tanh(query_BTPD + summary_BD[:, None, None]))[..., 0]
        valid_BTP = jnp.broadcast_to(target_mask_BT[..., None], logits_BTP.shape)
        if self.joint_softmax or logits_BTP.shape[2] == 1:
            rows = len(target)
            map_BTP = masked_softmax(logits_BTP.reshape(rows, -1), valid_BTP.reshape(rows, -1))
            map_BTP = map_BTP.reshape(logits_BTP.shape)
        else:
            map_BTP = masked_softmax(logits_BTP, valid_BTP)
        # Equation 8.
        used_BTP = map_BTP.sum(0, keepdims=True) if self.attention_summed_over_batch else map_BTP
        fused_BTPC = target_BTPC * used_BTP[..., None].astype(target_BTPC.dtype)
        if self.residual:
            fused_BTPC = fused_BTPC + target_BTPC
        return fused_BTPC.reshape(target.shape), map_BTP.reshape(target.shape[:-1])

    def _summary(self, source_BSD, mask_BS, train):
        """(B, width)"""
        source_BSD = mask_steps(source_BSD, mask_BS)
        dense = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name='source')
        if not self.self_attention:
            return dense(last_valid(source_BSD, mask_BS))
        first = source_BSD.shape[-1] != self.width
        transformer = CrossModalTransformer(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            dropouts=self.dropouts,
            causal=self.causal,
            dtype=self.dtype,
            name='self_attention',
        )
        h_BSD = dense(source_BSD) if first else source_BSD
        h_BSD, _ = transformer(h_BSD, None, target_mask_BT=mask_BS, source_mask_BS=None, train=train)
        summary_BD = last_valid(h_BSD, mask_BS)
        return summary_BD if first else dense(summary_BD)
