"""Translation of one sequence into another and back, the building block of MCTN (Pham et al. 2019, section 3).

Written from the paper's idea and sizes; what the paper leaves open is marked below as our choice.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.layers import check_mask, final_state, mask_steps
from mmer_jax.recurrent import LSTM


class CyclicTranslation(nn.Module):
    """A source sequence -> its joint representation (B, T, 2 H), the translation, the translation back.

    joint = encoder(source), a bidirectional LSTM; translation (B, T, target_size) = decoder(joint); if cyclic,
    back (B, T, D) = decoder(encoder(translation)). The joint representation is learnt from both modalities but
    computed from the source alone, which is the point: without target_size (None) only it is computed.

    Our choices: encoder and decoder serve both directions, only the linear embeddings and read-outs belong to a
    modality; the decoder is an LSTM without teacher forcing and without attention, which reads the encoder's final
    state at every step, so all that is translated passes through that one vector. Source and target have the same
    steps (they are aligned before).
    """

    hidden_size: int = 32
    num_layers: int = 1
    cyclic: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, source_BTD: Array, mask_BT: Array, target_size: int | None, train: bool
    ) -> tuple[Array, Array | None, Array | None]:
        mask_BT = check_mask(self, source_BTD, mask_BT, name='source')
        sizes: dict[str, Any] = {'num_layers': self.num_layers, 'dropout': self.dropout, 'dtype': self.dtype}
        encoder = LSTM(self.hidden_size, bidirectional=True, **sizes, name='encoder')
        decoder = LSTM(self.hidden_size, **sizes, name='decoder')

        def dense(size, name):
            return nn.Dense(size, dtype=self.dtype, name=name)

        def encode(x_BTD, embed):
            x_BTD = Dropout(self.dropout)(embed(mask_steps(x_BTD, mask_BT)), deterministic=not train)
            return encoder(x_BTD, mask_BT, train=train)

        def decode(joint_BTH, read_out):
            state_B1H = final_state(joint_BTH, mask_BT, bidirectional=True)[:, None]
            h_BTH = decoder(jnp.broadcast_to(state_B1H, joint_BTH.shape), mask_BT, train=train)
            return mask_steps(read_out(h_BTH), mask_BT)

        joint_BTH = encode(source_BTD, dense(self.hidden_size, 'embed_source'))
        if target_size is None:
            return joint_BTH, None, None
        forward_BTD = decode(joint_BTH, dense(target_size, 'read_target'))
        if not self.cyclic:
            return joint_BTH, forward_BTD, None
        back_joint_BTH = encode(forward_BTD, dense(self.hidden_size, 'embed_target'))
        return joint_BTH, forward_BTD, decode(back_joint_BTH, dense(source_BTD.shape[-1], 'read_source'))
