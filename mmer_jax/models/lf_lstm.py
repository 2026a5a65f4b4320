"""LF-LSTM: late fusion of one LSTM a modality, the baseline of the MulT (Tsai et al. 2019) and MFSA tables."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.layers import MLP, call_block, check_batch, final_state
from mmer_jax.recurrent import LSTM


class LfLstm(nn.Module):
    """An LSTM over each modality; their final states, concatenated, go through an MLP.

    Works on any one to three modalities, unaligned. Predictions (B, num_outputs); extras: `features`
    (B, modalities x hidden_size, twice that if bidirectional), the MLP's input. remat recomputes each LSTM in the
    backward pass instead of keeping its states.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    hidden_size: int = 32
    num_layers: int = 1
    mlp_size: int = 64
    dropout: float = 0.1
    bidirectional: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        batch = check_batch(self, batch, self.modalities, layouts=('BTD',))
        states = []
        for m in self.modalities:
            mask_BT = batch[f'{m}_mask']
            lstm = LSTM(
                self.hidden_size,
                num_layers=self.num_layers,
                bidirectional=self.bidirectional,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f'{m}_lstm',
            )
            h_BTH = call_block(lstm, batch[m].astype(self.dtype), mask_BT, train=train, remat=self.remat)
            states.append(final_state(h_BTH, mask_BT, bidirectional=self.bidirectional))
        features_BD = jnp.concatenate(states, -1)
        x_BD = Dropout(self.dropout)(features_BD, deterministic=not train)
        head = MLP((self.mlp_size, self.num_outputs), self.dropout, dtype=self.dtype, name='head')
        return {'prediction': head(x_BD, train=train).astype(jnp.float32), 'features': features_BD}
