"""EF-LSTM: early fusion, one LSTM over the concatenated modalities; a baseline of the MulT and MFSA tables."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.ctc_alignment import AlignToAnchor
from mmer_jax.layers import MLP, final_state
from mmer_jax.recurrent import LSTM


class EfLstm(nn.Module):
    """Modalities aligned to the text, concatenated at each word, an LSTM over the words, its final state, an MLP.

    Works on any one to three modalities; without text the first one is the anchor of the alignment. align is 'ctc'
    (train with the loss `ctc_alignment` beside the task's), 'pool' or 'none' (word-aligned data), see
    fusion/ctc_alignment.py; one modality needs no alignment module. A text is cut to max_text_length words.
    Predictions (B, num_outputs). Extras: `features` (B, hidden_size, twice that if bidirectional), the MLP's input,
    and what the CTC loss reads.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    align: str = 'ctc'
    max_text_length: int = 50
    hidden_size: int = 32
    num_layers: int = 1
    mlp_size: int = 64
    dropout: float = 0.1
    bidirectional: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        anchor = 'text' if 'text' in self.modalities else self.modalities[0]
        aligner = AlignToAnchor(anchor, self.max_text_length, align=self.align, dtype=self.dtype, name='alignment')
        aligned, mask_BP, extras = aligner(batch, self.modalities, train=train)
        x_BPD = jnp.concatenate([aligned[m] for m in self.modalities], -1)
        lstm = LSTM(
            self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            dtype=self.dtype,
            name='lstm',
        )
        features_BD = final_state(lstm(x_BPD, mask_BP, train=train), mask_BP, bidirectional=self.bidirectional)
        x_BD = Dropout(self.dropout)(features_BD, deterministic=not train)
        head = MLP((self.mlp_size, self.num_outputs), self.dropout, dtype=self.dtype, name='head')
        return {'prediction': head(x_BD, train=train).astype(jnp.float32), 'features': features_BD, **extras}
