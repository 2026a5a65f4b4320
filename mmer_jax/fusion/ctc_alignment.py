"""Alignment of unaligned sequences to the steps of one of them, the anchor: what a word-level model needs.

MulT (Tsai et al. 2019) compares itself on unaligned data with word-level models behind a CTC module (Graves et al.
2006), and the MFSA tables (EF-LSTM, RAVEN, MCTN) come from there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.layers import check_batch, check_mask, fix_length, mask_steps
from mmer_jax.recurrent import LSTM


class CtcAlignment(nn.Module):
    """A two-layer LSTM tells at which of P positions each step belongs: (B, T, D) -> aligned (B, P, D), logits.

    The LSTM has P + 1 units, one a class; its outputs are the logits (B, T, P + 1) that the CTC loss reads, class 0
    being the blank. aligned = probabilities without the blank, transposed, times x: a sum over the valid steps, not
    a mean, so its scale grows with T, as in MulT's code. Outputs of an LSTM lie in (-1, 1), so no position gets
    more than e^2 / (e^2 + P) of a step (0.13 for P = 50): the alignment stays soft.
    Positions behind the end of the anchor are the caller's to mask.

    Trainable parameters, and those of MulT's module in torch, whose cells have a second, redundant bias
    (2 layers x 4 (P + 1)):

        data set (P)    audio   (torch)    vision  (torch)
        MOSI (50)       32,640  33,048     35,700  36,108
        MOSEI (50)      46,716  47,124     38,760  39,168
        IEMOCAP (20)    11,676  11,844      8,400   8,568

    The features have sizes 5 and 20 (MOSI), 74 and 35 (MOSEI, IEMOCAP).
    """

    num_positions: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array, train: bool) -> tuple[Array, Array]:
        mask_BT = check_mask(self, x_BTD, mask_BT)
        lstm = LSTM(self.num_positions + 1, num_layers=2, dtype=self.dtype, name='lstm')
        logits_BTC = lstm(x_BTD, mask_BT, train=train).astype(jnp.float32)
        position_BTP = mask_steps(nn.softmax(logits_BTC)[..., 1:], mask_BT)
        x_BTD = mask_steps(x_BTD, mask_BT)
        return jnp.einsum('btp,btd->bpd', position_BTP.astype(x_BTD.dtype), x_BTD), logits_BTC


def pool_to_positions(x_BTD: Array, mask_BT: Array, position_mask_BP: Array) -> Array:
    """Means over equal shares of the valid steps, (B, P, D), one share a valid position; 0 at the other positions.

    Adaptive average pooling by each row's own lengths: position p of n is the mean of the steps from floor(p L / n)
    to before ceil((p + 1) L / n). Where L < n steps are repeated, so a single step is repeated at every position.
    """
    length_B1 = mask_BT.sum(1, keepdims=True)
    positions_B1 = jnp.maximum(position_mask_BP.sum(1, keepdims=True), 1)
    number_1P = jnp.arange(position_mask_BP.shape[1])[None]
    first_BP = number_1P * length_B1 // positions_B1
    end_BP = -(-(number_1P + 1) * length_B1 // positions_B1)
    step = jnp.arange(x_BTD.shape[1])[None, None]
    share_BPT = (step >= first_BP[..., None]) & (step < end_BP[..., None]) & position_mask_BP[..., None]
    weight_BPT = share_BPT / jnp.maximum(share_BPT.sum(-1, keepdims=True), 1)
    x_BTD = mask_steps(x_BTD, mask_BT)
    return jnp.einsum('bpt,btd->bpd', weight_BPT.astype(x_BTD.dtype), x_BTD)


class AlignToAnchor(nn.Module):
    """Modalities of a batch -> sequences over the anchor's steps, {m: (B, P, D_m)}, their one mask (B, P), extras.

    align:
      'ctc': every other modality through a CtcAlignment of its own. One that comes as a single step (T = 1, an
        utterance's vector) is repeated at every position instead. Extras for the losses of losses/alignment.py:
        `ctc_logits_<m>` (B, T, P + 1), `ctc_mask_<m>` (B, T), `ctc_target_mask` (B, P).
      'pool': every other modality in equal shares (pool_to_positions); no parameters, no loss.
      'none': word-aligned data. All modalities must have the same number of steps (ValueError) and are taken as they
        are, with the anchor's mask; num_positions is not used.
    For 'ctc' and 'pool' there are exactly num_positions positions, so that a result does not depend on the padded
    length: a text is cut to its first num_positions words, as published; any other anchor that is longer is
    pooled into num_positions shares, for its first steps alone would be a small part of it. A record that lacks the
    anchor has the positions of its longest other modality, so that it is not lost altogether, and no part in the loss.
    """

    anchor: str
    num_positions: int
    align: str = 'ctc'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, batch: Mapping[str, Array], modalities: Sequence[str], train: bool
    ) -> tuple[dict[str, Array], Array, dict[str, Array]]:
        if self.align not in ('ctc', 'pool', 'none'):
            raise ValueError(f"align = {self.align!r}: expected 'ctc', 'pool' or 'none'")
        batch = check_batch(self, batch, tuple(dict.fromkeys((self.anchor, *modalities))), layouts=('BTD',))
        mask_BP = self._positions(batch, modalities)
        aligned: dict[str, Array] = {}
        has_anchor_B1 = batch[f'{self.anchor}_mask'].any(1, keepdims=True)
        extras = {'ctc_target_mask': mask_BP & has_anchor_B1} if self.align == 'ctc' else {}
        for m in modalities:
            x_BTD, mask_BT = batch[m].astype(self.dtype), batch[f'{m}_mask']
            if self.align == 'none':
                aligned[m] = mask_steps(x_BTD, mask_BT)
            elif m == 'text' == self.anchor:
                aligned[m] = fix_length(mask_steps(x_BTD, mask_BT), self.num_positions)
            elif m == self.anchor or self.align == 'pool' or x_BTD.shape[1] == 1:
                aligned[m] = pool_to_positions(x_BTD, mask_BT, mask_BP)
            else:
                ctc = CtcAlignment(self.num_positions, dtype=self.dtype, name=f'{m}_ctc')
                aligned[m], extras[f'ctc_logits_{m}'] = ctc(x_BTD, mask_BT, train=train)
                extras[f'ctc_mask_{m}'] = mask_BT & has_anchor_B1  # else it would learn that there is nothing to align
            aligned[m] = mask_steps(aligned[m], mask_BP)
        return aligned, mask_BP, extras

    def _positions(self, batch, modalities):
        """The anchor's valid steps after cutting or pooling, (B, P), those of another modality where it has none."""
        anchor_BT, others = batch[f'{self.anchor}_mask'], [m for m in modalities if m != self.anchor]
        if self.align != 'none':
            length_B1 = anchor_BT.sum(1, keepdims=True)
            for m in others:  # the longest that a record without the anchor has
                other_B1 = batch[f'{m}_mask'].sum(1, keepdims=True)
                length_B1 = jnp.where(anchor_BT.any(1, keepdims=True), length_B1, jnp.maximum(length_B1, other_B1))
            return jnp.arange(self.num_positions)[None] < jnp.minimum(length_B1, self.num_positions)
        steps = {m: batch[m].shape[1] for m in modalities}
        if len(set(steps.values())) > 1:
            raise ValueError(
                f"align = 'none' takes word-aligned data, one number of steps for all modalities; found {steps}; "
                "use align = 'ctc' or 'pool'"
            )
        mask_BT = anchor_BT
        for m in others:
            mask_BT = jnp.where(anchor_BT.any(1, keepdims=True), anchor_BT, mask_BT | batch[f'{m}_mask'])
        return mask_BT
