"""RAVEN: words shifted by what is heard and seen with them (Wang et al. 2019); a baseline of the MFSA tables."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.ctc_alignment import AlignToAnchor
from mmer_jax.fusion.gated_shift import GatedShift
from mmer_jax.layers import last_valid
from mmer_jax.recurrent import LSTM


class Raven(nn.Module):
    """Nonverbal LSTMs, their states shift the words, an LSTM over the shifted words, its last valid state, a head.

    The original reads word-aligned data with a subsequence of audio and vision frames inside every word. Unaligned
    data have no such subsequences: as in the unaligned tables of MulT and MFSA, audio and vision are aligned by CTC
    to one vector a word, the nonverbal LSTM runs over these, and its state at a word is the word's nonverbal state.
    align is 'ctc', 'pool' or 'none' (data with one vector a word already), see fusion/ctc_alignment.py.

    Any one to three modalities; the words are the text, without text the first modality, and with one modality
    there is no shift. Sizes are the published code's (nonverbal 150, words 300, beta 0.2, dropout 0.2); its batch
    normalisation with the statistics of the current batch, which lets rows change each other, is left to the
    normalisation of the features. gate_activation = 'none', scaling = 'floored' and cut_gradient = True are the rest
    of that code (fusion/gated_shift.py). Predictions (B, num_outputs); extras: `features` (B, hidden_size), the
    head's input, and what the CTC loss reads.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    align: str = 'ctc'
    max_text_length: int = 50
    hidden_size: int = 300
    nonverbal_size: int = 150
    beta: float = 0.2
    gate_activation: str = 'sigmoid'
    scaling: str = 'capped'
    cut_gradient: bool = False
    dropout: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        anchor = 'text' if 'text' in self.modalities else self.modalities[0]
        aligner = AlignToAnchor(anchor, self.max_text_length, align=self.align, dtype=self.dtype, name='alignment')
        aligned, mask_BP, extras = aligner(batch, self.modalities, train=train)
        word_BPD = aligned.pop(anchor)
        if aligned:
            states = [self._nonverbal(m, x_BPD, mask_BP, train=train) for m, x_BPD in aligned.items()]
            shift = GatedShift(
                self.beta,
                gate_activation=self.gate_activation,
                scaling=self.scaling,
                cut_gradient=self.cut_gradient,
                dtype=self.dtype,
                name='shift',
            )
            word_BPD = shift(word_BPD, states)
        word_BPD = Dropout(self.dropout)(word_BPD, deterministic=not train)
        h_BPH = LSTM(self.hidden_size, dtype=self.dtype, name='word_lstm')(word_BPD, mask_BP, train=train)
        features_BD = last_valid(h_BPH, mask_BP)
        prediction_BC = nn.Dense(self.num_outputs, dtype=self.dtype, name='head')(features_BD)
        return {'prediction': prediction_BC.astype(jnp.float32), 'features': features_BD, **extras}

    def _nonverbal(self, m, x_BPD, mask_BP, *, train):
        x_BPD = Dropout(self.dropout)(x_BPD, deterministic=not train)
        x_BPD = nn.Dense(self.nonverbal_size, dtype=self.dtype, name=f'{m}_embed')(x_BPD)
        return LSTM(self.nonverbal_size, dtype=self.dtype, name=f'{m}_lstm')(x_BPD, mask_BP, train=train)
