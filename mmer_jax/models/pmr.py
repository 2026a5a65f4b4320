"""PMR: progressive modality reinforcement of unaligned sequences through a message hub (Lv et al. 2021, CVPR)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.message_hub import MessageHub, SelfAttentionLayer, last_step
from mmer_jax.layers import MLP, TemporalConv, check_batch, sinusoidal_positions
from mmer_jax.map_names import at_layer
from mmer_jax.repeat import repeat_layers

FINAL_ORDER = ('text', 'vision', 'audio')  # the paper's [C, L, V, A]


class Pmr(nn.Module):
    """Message hub layers between the modalities and their common message; a Transformer over all of them.

    A convolution brings each modality to `width`, positions are added, and the common message starts as all
    modalities end to end. After num_layers hubs the message, text, vision and audio, end to end in this order whatever
    that of the field `modalities`, go through final_layers Transformer layers; the last valid step, of audio where
    there is any, is the summary, and a two-layer head with a residual predicts from it. Works on any one to three
    modalities, unaligned.

    num_layers, num_heads and final_layers default to the sizes of MulT (Tsai et al. 2019), not to ones that PMR
    published. message='sum' adds the messages up instead of weighing them. remat recomputes each layer in
    the backward pass instead of keeping its maps, which grow with (the sum of all lengths) squared.

    Predictions (B, num_outputs); extras: `features` (B, width), the summary; with capture_attention also `attention`,
    maps (B, K, T, S) by MapName.key(), '<layer>/<m>_from_common' and '<layer>/common_from_<m>', layers from 0.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    width: int = 40
    num_layers: int = 4
    num_heads: int = 8
    final_layers: int = 3
    feed_forward: int = 0  # 0: four times the width
    kernel_size: int = 3
    dropout: float = 0.1
    message: str = 'pooled'
    remat: bool = False
    capture_attention: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Any]:
        if self.final_layers < 1:
            raise ValueError(
                f'final_layers is {self.final_layers}; it must be 1 or more: the summary is a step of one '
                'modality, and reads the message and the other modalities only there'
            )
        batch = check_batch(self, batch, self.modalities, layouts=('BTD',))
        masks = {m: batch[f'{m}_mask'] for m in self.modalities}
        z = {m: self._embed(m, batch[m], masks[m], train=train) for m in self.modalities}
        common_BTD = jnp.concatenate(list(z.values()), 1)
        common_mask_BT = jnp.concatenate(list(masks.values()), 1)
        sizes: dict[str, Any] = {
            name: getattr(self, name) for name in ('num_heads', 'feed_forward', 'dropout', 'dtype')
        }
        how = {'train': train, 'remat': self.remat}
        attention: dict[str, Array] = {}

        def exchange(call, carry, _):
            z, common_BTD = carry
            z, common_BTD, maps = call('hub', {m: z[m] for m in masks}, common_BTD, masks, common_mask_BT)
            return (z, common_BTD), maps

        hubs = [MessageHub(**sizes, message=self.message, name=f'hub_{n}') for n in range(self.num_layers)]
        if hubs:
            (z, common_BTD), seen = repeat_layers(self, {'hub': hubs}, exchange, (z, common_BTD), **how)
            for number, maps in enumerate(seen):
                attention |= at_layer(maps, number)

        final = sorted(self.modalities, key=lambda m: FINAL_ORDER.index(m) if m in FINAL_ORDER else -1)
        x_BTD = jnp.concatenate([common_BTD, *(z[m] for m in final)], 1)
        mask_BT = jnp.concatenate([common_mask_BT, *(masks[m] for m in final)], 1)
        layers = [SelfAttentionLayer(**sizes, name=f'final_{number}') for number in range(self.final_layers)]
        x_BTD, _ = repeat_layers(
            self, {'final': layers}, lambda call, x_BTD, _: (call('final', x_BTD, mask_BT), None), x_BTD, **how
        )
        features_BD = nn.LayerNorm(dtype=self.dtype, name='final_norm')(last_step(x_BTD, mask_BT))

        hidden_BD = MLP((self.width, self.width), self.dropout, dtype=self.dtype, name='head')(features_BD, train=train)
        prediction_BC = nn.Dense(self.num_outputs, dtype=self.dtype, name='prediction')(features_BD + hidden_BD)
        outputs = {'prediction': prediction_BC.astype(jnp.float32), 'features': features_BD}
        return outputs | ({'attention': attention} if self.capture_attention else {})

    def _embed(self, m, x_BTD, mask_BT, *, train):
        """Convolution, positions, dropout. Positions count from each modality's own first step, and are added nowhere
        later: in a sequence of several, they would change with the padding of the modalities before."""
        conv = TemporalConv(self.width, self.kernel_size, dtype=self.dtype, name=f'{m}_conv')
        x_BTD = conv(x_BTD.astype(self.dtype), mask_BT)
        x_BTD += jnp.asarray(sinusoidal_positions(x_BTD.shape[1], self.width), self.dtype)[None]
        return Dropout(self.dropout)(x_BTD, deterministic=not train)
