"""MulT: the Multimodal Transformer for unaligned sequences (Tsai et al. 2019)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.cross_modal_attention import PairwiseCrossModal, ResidualHead, one_a_modality
from mmer_jax.layers import Dropouts, TemporalConv, check_batch


class Mult(nn.Module):
    """Temporal convolutions to one width, cross-modal transformers between all pairs, memories, a residual head.

    Works on any one to three modalities, unaligned; two have one source each, one has its memory alone. Predictions
    (B, num_outputs); extras: `features` (B, M max(M - 1, 1) width), the memories' last valid steps, and with
    capture_attention `attention`, by MapName.key(): {'text_from_audio/0': (B, K, T, S), 'text_memory/0': (B, K, T, T)}.

    Sizes default to the paper's (its appendix: 10 heads on MOSI and IEMOCAP, 8 on MOSEI); the published code has
    width=30, num_layers=5, num_heads=5, kernel_sizes=1. num_heads must divide the width. kernel_sizes and
    attention_dropout are a number, or one a modality; attention_dropout goes by the source, and the code has 0.1, 0
    and 0 for text, audio and vision. text_dropout acts on the text features, embedding_dropout on what enters a
    transformer; the code has one number for both. Unlike the code, a modality as wide as `width` is projected too.

    As published: `causal` (the future mask, on in the code), and `left_padded_to`, one number of steps a modality:
    the code reads pickles padded with zeros on the left and masks nothing, so every sequence is moved to the right
    end of exactly that many steps (of a longer one the last are kept), its padding is attended, and positions count
    padded steps. By default padding is masked, position 1 is the first valid step, and the last valid one the summary.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    width: int = 40
    num_layers: int = 4
    memory_layers: int = 3  # at least; memories never have fewer layers than num_layers
    num_heads: int = 10
    kernel_sizes: int | tuple[int, ...] = 3
    text_dropout: float = 0.25
    embedding_dropout: float = 0.25
    attention_dropout: float | tuple[float, ...] = 0.1
    memory_attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    output_dropout: float = 0.1
    causal: bool = False
    left_padded_to: tuple[int, ...] = ()
    capture_attention: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Any]:
        kernels = one_a_modality(self.kernel_sizes, self.modalities, 'kernel_sizes')
        steps = one_a_modality(self.left_padded_to or 0, self.modalities, 'left_padded_to')
        batch = check_batch(self, batch, self.modalities, layouts=('BTD',))
        x, masks = {}, {}
        for m, kernel, length in zip(self.modalities, kernels, steps, strict=True):
            x_BTD, masks[m] = batch[m].astype(self.dtype), batch[f'{m}_mask']
            if length:
                x_BTD = pad_left(x_BTD, masks[m], length)
                masks[m] = jnp.ones(x_BTD.shape[:2], bool)
            if m == 'text':
                x_BTD = Dropout(self.text_dropout)(x_BTD, deterministic=not train)
            x[m] = TemporalConv(self.width, kernel, dtype=self.dtype, name=f'{m}_projection')(x_BTD, masks[m])

        fusion = PairwiseCrossModal(
            num_layers=self.num_layers,
            memory_layers=self.memory_layers,
            num_heads=self.num_heads,
            attention_dropout=one_a_modality(self.attention_dropout, self.modalities, 'attention_dropout'),
            dropouts=Dropouts(
                attention=self.memory_attention_dropout,
                relu=self.relu_dropout,
                residual=self.residual_dropout,
                embedding=self.embedding_dropout,
            ),
            causal=self.causal,
            positions_where_nonzero=bool(self.left_padded_to),
            remat=self.remat,
            dtype=self.dtype,
            name='fusion',
        )
        features_BD, attention = fusion(x, masks, train=train)
        head = ResidualHead(self.num_outputs, self.output_dropout, dtype=self.dtype, name='head')
        outputs = {'prediction': head(features_BD, train=train), 'features': features_BD}
        return {**outputs, 'attention': attention} if self.capture_attention else outputs


def pad_left(x_BTD: Array, mask_BT: Array, steps: int) -> Array:
    """Right-padded sequences moved to the right end of `steps` steps, 0 before them; of longer ones the last steps."""
    source_BT = jnp.arange(steps)[None] - steps + mask_BT.sum(1)[:, None]
    moved_BTD = jnp.take_along_axis(x_BTD, jnp.maximum(source_BT, 0)[..., None], axis=1)
    return jnp.where((source_BT >= 0)[..., None], moved_BTD, 0)
