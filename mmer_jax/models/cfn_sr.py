"""CFN-SR: audio decides where in the video to look, and nothing of either is lost (Fu et al. 2021)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.protocol import Encoder
from mmer_jax.fusion.cross_modal_residual import CrossModalResidual
from mmer_jax.layers import Dropouts, check_batch

DIRECTIONS = {'audio_to_video': ('vision', 'audio'), 'video_to_audio': ('audio', 'vision')}  # target, source


class CfnSr(nn.Module):
    """Two encoders, a cross-modal block between their feature maps, both pooled and side by side, a linear head.

    `audio` and `vision` are encoders: mfcc_cnn and resnext3d in the paper. The block changes the target's map only; the
    other one is joined as it was encoded (equation 9). Predictions (B, num_outputs); extras: `features` (B, D), the
    head's input, vision before audio, and with capture_attention `attention`, {'audio_to_video': (B, T', H', W')}.

    Table 2 by fields, with the parameters of eight classes:

    | row | field | parameters | published |
    |---|---|---|---|
    | CFN-SR, and A->V | - | 26,301,417 | 26.30M |
    | without cross-modal blocks | direction='none' | 25,916,072 | 25.92M |
    | V->A | direction='video_to_audio' | 26,301,417 | 25.67M |
    | without self-attention | self_attention=False | 26,051,369 | 26.05M |
    | without residual | residual=False | 26,301,417 | 26.30M |

    No code of V->A is public, and no block has a negative count: 25.67M is less than the model without one, by just the
    self-attention's 250,048. Ours mirrors the block: the mean of the video's map over height and width, step by step,
    is the source, the audio's steps are the positions (CrossModalResidual maps a wide source before its transformer).

    As published (off by default): `causal`, `attention_summed_over_batch` (both in fusion/cross_modal_residual.py), and
    in the video encoder the missing activation of its stem, resnext3d's `stem_activation` = False. Dropouts and sizes
    default to the code's; they are those of the block, the encoders have their own.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    audio: Encoder
    vision: Encoder
    direction: str = 'audio_to_video'
    self_attention: bool = True
    residual: bool = True
    joint_softmax: bool = False
    width: int = 64
    num_layers: int = 5
    num_heads: int = 8
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    embedding_dropout: float = 0.3
    causal: bool = False
    attention_summed_over_batch: bool = False
    capture_attention: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Any]:
        self._check()
        batch = check_batch(self, batch, self.modalities)
        maps, masks = {}, {}
        for m, encoder in (('vision', self.vision), ('audio', self.audio)):
            maps[m], masks[m] = encoder(batch[m], batch[f'{m}_mask'], train=train)
        attention = {}
        if self.direction != 'none':
            target, source = DIRECTIONS[self.direction]
            source_BSD = maps[source]
            source_BSD = source_BSD.mean(tuple(range(2, source_BSD.ndim - 1)))
            fused, attention[self.direction] = self._block()(
                maps[target], source_BSD, target_mask_BT=masks[target], source_mask_BS=masks[source], train=train
            )
            maps = {**maps, target: fused}
        pooled = [
            encoder.pool(maps[m], masks[m], train=train)
            for m, encoder in (('vision', self.vision), ('audio', self.audio))
        ]
        features_BD = jnp.concatenate(pooled, -1)
        prediction_BC = nn.Dense(self.num_outputs, dtype=self.dtype, name='head')(features_BD)
        outputs = {'prediction': prediction_BC.astype(jnp.float32), 'features': features_BD}
        return {**outputs, 'attention': attention} if self.capture_attention else outputs

    def _block(self):
        return CrossModalResidual(
            width=self.width,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            dropouts=Dropouts(
                attention=self.attention_dropout,
                relu=self.relu_dropout,
                residual=self.residual_dropout,
                embedding=self.embedding_dropout,
            ),
            self_attention=self.self_attention,
            residual=self.residual,
            joint_softmax=self.joint_softmax,
            causal=self.causal,
            attention_summed_over_batch=self.attention_summed_over_batch,
            dtype=self.dtype,
            name='cross_modal',
        )

    def _check(self):
        if set(self.modalities) != {'audio', 'vision'}:
            raise ValueError(f'cfn_sr needs the modalities audio and vision, found {self.modalities}')
        if self.direction not in (*DIRECTIONS, 'none'):
            raise ValueError(
                f'direction {self.direction!r} is unknown; the known ones are {", ".join(DIRECTIONS)}, none'
            )
