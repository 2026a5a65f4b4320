"""MICA: modality-invariant cross-modal attention (Liang et al. 2021, "Attention is not enough"), an interpretation.

No code was published and only the abstract was at hand. It says: MulT's cross-modal attention suffers from the
distribution mismatch of modalities, so the marginal distributions and the elements with high-confidence correlations
are aligned over the common space of query and key vectors. Here that is MulT with auxiliary losses on the queries and
keys of every cross-modal layer: `distribution_alignment` (or `alignment_adversary`) and `correlation_pull`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.cross_modal_attention import PairwiseCrossModal, ResidualHead, one_a_modality
from mmer_jax.fusion.distribution_alignment import PairStatistics, SideDiscriminator, pair_statistics
from mmer_jax.layers import Dropouts, TemporalConv, check_batch


class Mica(nn.Module):
    """MulT's structure (models/mult.py says what its fields are) whose queries and keys the losses bring together.

    Works on any two or three modalities, unaligned; ValueError for one, which has nothing to be aligned with.
    Predictions (B, num_outputs); extras: `features` (B, M (M - 1) width); over the A = M (M - 1) num_layers cross-modal
    layers `queries` and `keys` (B, A, width), means over time, and `correlation_distance` (B, A), of the pairs whose
    attention exceeds pull_threshold times the uniform one; with `adversarial` also `query_logits` and `key_logits`
    (B, A) of discriminators behind gradient reversal, whose parameters only the loss alignment_adversary trains; with
    capture_attention `attention`, as in MulT.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    width: int = 40
    num_layers: int = 4
    memory_layers: int = 3
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
    pull_threshold: float = 1.5  # a lone source step never exceeds it
    adversarial: bool = False
    discriminator_size: int = 64
    reversal: float = 1.0
    capture_attention: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Any]:
        if len(self.modalities) < 2:
            raise ValueError(
                f'mica aligns modalities with each other: it needs two or three, found {self.modalities}; '
                'for one modality use mult'
            )
        batch = check_batch(self, batch, self.modalities, layouts=('BTD',))
        x, masks = {}, {}
        kernels = one_a_modality(self.kernel_sizes, self.modalities, 'kernel_sizes')
        for m, kernel in zip(self.modalities, kernels, strict=True):
            x_BTD, masks[m] = batch[m].astype(self.dtype), batch[f'{m}_mask']
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
            observe=functools.partial(pair_statistics, threshold=self.pull_threshold),
            remat=self.remat,
            dtype=self.dtype,
            name='fusion',
        )
        features_BD, observed = fusion(x, masks, train=train)
        head = ResidualHead(self.num_outputs, self.output_dropout, dtype=self.dtype, name='head')
        outputs: dict[str, Any] = {'prediction': head(features_BD, train=train), 'features': features_BD}
        outputs |= self._aligned([seen for seen in observed.values() if isinstance(seen, PairStatistics)], train)
        if self.capture_attention:
            maps = {k: seen.map_BKTS if isinstance(seen, PairStatistics) else seen for k, seen in observed.items()}
            outputs['attention'] = maps
        return outputs

    def _aligned(self, layers, train):
        outputs = {
            'queries': jnp.stack([layer.query_BD for layer in layers], 1),
            'keys': jnp.stack([layer.key_BD for layer in layers], 1),
            'correlation_distance': jnp.stack([layer.distance_B for layer in layers], 1),
        }
        if self.adversarial:
            discriminator = SideDiscriminator(
                self.discriminator_size, self.reversal, dtype=self.dtype, name='discriminator'
            )
            outputs['query_logits'] = discriminator(outputs['queries'], train=train)
            outputs['key_logits'] = discriminator(outputs['keys'], train=train)
        return outputs
