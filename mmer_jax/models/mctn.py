"""MCTN: multimodal cyclic translation (Pham et al. 2019, "Found in Translation"); a baseline of the MFSA tables."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.ctc_alignment import AlignToAnchor
from mmer_jax.fusion.cyclic_translation import CyclicTranslation
from mmer_jax.layers import last_valid
from mmer_jax.recurrent import LSTM


class Mctn(nn.Module):
    """The source, modalities[0], is translated into modalities[1] and back; the joint representation of that
    translation is translated into modalities[2]; an LSTM over the last joint representation gives the prediction.

    The prediction is a function of the source alone; the other modalities shape it in training, through the losses
    `translation`, `cycle_translation` and `second_translation` (0.1 each, beside the task's with 1.0). With
    train=False the batch need not hold them. One modality: encoder and LSTM only; two: no second translation.

    Targets have the source's steps. align is 'ctc' (as in the unaligned tables; train with the loss `ctc_alignment`
    as well), 'pool' (equal shares of the target) or 'none' (word-aligned data), see fusion/ctc_alignment.py. A text is
    cut to max_length words (the published code's 20), another source is pooled to as many steps. The translation
    losses do not move their own targets: the CTC modules learn from the CTC loss alone.

    Predictions (B, num_outputs). Extras: `features` (B, regressor_size), the head's input; `mctn_forward`,
    `mctn_cycle`, `mctn_second` (B, P, D), each with its `_target` and the `_mask` (B, P) of the steps that have one;
    `mctn_mask` (B, P); what the CTC loss reads.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    align: str = 'ctc'
    max_length: int = 20
    hidden_size: int = 32
    num_layers: int = 1
    regressor_size: int = 32
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        source, *targets = self.modalities
        missing = [m for m in targets if m not in batch]
        if missing and train:
            raise ValueError(f'mctn is trained on {self.modalities}, but the batch has no {", ".join(missing)}')
        aligner = AlignToAnchor(source, self.max_length, align=self.align, dtype=self.dtype, name='alignment')
        aligned, mask_BP, extras = aligner(batch, (source,) if missing else self.modalities, train=train)
        mask_BP &= batch[f'{source}_mask'].any(1, keepdims=True)  # without the source there is nothing to translate
        if not missing:
            extras['mctn_mask'] = mask_BP
        # Without its targets in the batch the model computes what the prediction needs and no more.
        sizes = [None if missing else aligned[m].shape[-1] for m in targets] or [None]
        # A record without a target has nothing to translate to: zeros would be learnt instead.
        there = {m: mask_BP & batch[f'{m}_mask'].any(1, keepdims=True) for m in (() if missing else targets)}

        first = self._translation('translation', cyclic=True)
        joint_BPH, forward_BPD, back_BPD = first(aligned[source], mask_BP, sizes[0], train=train)
        if forward_BPD is not None:
            extras |= _pair('mctn_forward', forward_BPD, aligned[targets[0]], mask_BP=there[targets[0]])
            extras |= _pair('mctn_cycle', back_BPD, aligned[source], mask_BP=mask_BP)
        if len(targets) > 1:
            second = self._translation('second_translation', cyclic=False)
            joint_BPH, second_BPD, _ = second(joint_BPH, mask_BP, sizes[1], train=train)
            if second_BPD is not None:
                extras |= _pair('mctn_second', second_BPD, aligned[targets[1]], mask_BP=there[targets[1]])

        h_BPH = LSTM(self.regressor_size, dtype=self.dtype, name='regressor')(joint_BPH, mask_BP, train=train)
        features_BD = last_valid(h_BPH, mask_BP)
        x_BD = Dropout(self.dropout)(features_BD, deterministic=not train)
        prediction_BC = nn.Dense(self.num_outputs, dtype=self.dtype, name='head')(x_BD)
        return {'prediction': prediction_BC.astype(jnp.float32), 'features': features_BD, **extras}

    def _translation(self, name, cyclic):
        return CyclicTranslation(
            self.hidden_size,
            num_layers=self.num_layers,
            cyclic=cyclic,
            dropout=self.dropout,
            dtype=self.dtype,
            name=name,
        )


def _pair(name, found, target, *, mask_BP):
    return {name: found, f'{name}_target': jax.lax.stop_gradient(target), f'{name}_mask': mask_BP}
