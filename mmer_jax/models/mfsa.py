"""MFSA: modality-specific and -agnostic representations of asynchronous sequences (Yang et al., ACM MM 2022).

Section 3 of the paper from top to bottom. There is no official code; what the paper leaves open is a field here, and
BUILD.md lists the choices.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.fusion.double_discriminator import DoubleDiscriminator
from mmer_jax.fusion.hierarchical_cross_modal import GRAINS, HierarchicalCrossModalAttention
from mmer_jax.fusion.predictive_self_attention import PredictiveSelfAttention
from mmer_jax.fusion.weighted_attention import WeightedAttention
from mmer_jax.kernels import LayerNorm
from mmer_jax.layers import MLP, Attention, TemporalConv, check_batch, last_valid, masked_mean, sinusoidal_positions
from mmer_jax.map_names import MapName, at_layer
from mmer_jax.recurrent import LSTM
from mmer_jax.repeat import repeat_layers

WEIGHTS = 'weights'  # what the weighted attention layer is called among the modalities' self-attentions

REPRESENTATIONS = ('specific', 'agnostic')


class Mfsa(nn.Module):
    """Two branches over the same low-level sequences, six vectors, one fusion layer; one to three modalities.

    Ablations of Table 4 are fields: psa_layers=0, prediction_chain=False, weighted_attention='none', hca_layers=0,
    grains without one of its three, fused=('specific',) or ('agnostic',); the two rows on regularisation are losses
    left out. psa_mix, attention_scale: see PredictiveSelfAttention; weighted_attention and its steps: see
    WeightedAttention. kernel_sizes: one for all modalities, or one each. remat recomputes every attention layer in the
    backward pass. With one modality there is nothing to discriminate: the adversarial losses are 0.

    As printed, equation 3 takes the norm of its input, which cancels the weight that equations 5 and 6 have just given
    it: only the weighted attention behind the last PSA layer acts and learns (gradients of the others are of the size
    of rounding). psa_residual='input' is the variant in which all of them do.

    Predictions (B, num_outputs). Extras: `specific`, `agnostic` (B, M, output_width), those of DoubleDiscriminator,
    `features` (B, 2 M output_width), the head's input; with capture_attention `attention`, maps (B, K, T, S) by
    MapName.key(), 'psa/<layer>/<modality>' and 'hca/<layer>/<target>/<unit>', and `modality_weights` (B, M) by layer.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    width: int = 40
    output_width: int = 128
    num_heads: int = 8
    psa_layers: int = 5
    hca_layers: int = 2
    mu: float = 0.25
    psa_mix: str = 'literal'
    attention_scale: str = 'head'
    psa_residual: str = 'norm'  # equation 3 as printed; or input
    prediction_chain: bool = True
    weighted_attention: str = 'pooled'  # or literal, none
    weighted_attention_steps: tuple[int, ...] = ()
    grains: tuple[str, ...] = GRAINS
    fused: tuple[str, ...] = REPRESENTATIONS
    kernel_sizes: int | tuple[int, ...] = 3
    pooling: str = 'mean'  # or last
    feed_forward: int = 0  # 0: four times the width
    fusion_heads: int = 2
    fusion_feed_forward: int = 2048
    discriminator_size: int = 64
    reversal: float = 1.0
    embedding_dropout: float = 0.1  # of the input features
    embedding_scale: bool = False  # by root width before positions are added, as in Vaswani et al. 2017
    dropout: float = 0.1
    remat: bool = False
    capture_attention: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        self._check()
        batch = check_batch(self, batch, self.modalities, layouts=('BTD',))
        masks = {m: batch[f'{m}_mask'] for m in self.modalities}
        z = {m: self._extract(m, batch[m], masks[m], number=n, train=train) for n, m in enumerate(self.modalities)}
        specific_z, psa_maps, modality_weights = self._specific_branch(z, masks, train)
        agnostic_z, hca_maps = self._agnostic_branch(z, masks, train)
        specific_BMD = jnp.stack(
            [self._encoder(f'specific_{m}')(self._pool(specific_z[m], masks[m]), train=train) for m in self.modalities],
            1,
        )
        shared = self._encoder('agnostic')
        pooled_BMD = jnp.stack([self._pool(agnostic_z[m], masks[m]) for m in self.modalities], 1)
        agnostic_BMD = shared(pooled_BMD, train=train)
        prediction_BC, features_BD = self._fuse(specific_BMD, agnostic_BMD, train)
        outputs = {
            'prediction': prediction_BC.astype(jnp.float32),
            'specific': specific_BMD,
            'agnostic': agnostic_BMD,
            'features': features_BD,
            **self._discriminate(specific_BMD, agnostic_BMD, train),
        }
        if self.capture_attention:
            outputs |= {'attention': psa_maps | hca_maps, 'modality_weights': modality_weights}
        return outputs

    def _check(self):
        unknown = [name for name in self.fused if name not in REPRESENTATIONS]
        if unknown or not self.fused:
            raise ValueError(f'fused = {self.fused}: expected one or both of {REPRESENTATIONS}')
        if self.pooling not in ('mean', 'last'):
            raise ValueError(f"pooling {self.pooling!r}: expected 'mean' or 'last'")
        if not isinstance(self.kernel_sizes, int) and len(self.kernel_sizes) != len(self.modalities):
            raise ValueError(f'kernel_sizes {self.kernel_sizes}: expected one number, or {len(self.modalities)}')

    def _extract(self, m, x_BTD, mask_BT, *, number, train):
        """Section 3.2: convolution over time, positions, BiLSTM (equation 1)."""
        x_BTD = Dropout(self.embedding_dropout)(x_BTD.astype(self.dtype), deterministic=not train)
        kernel = self.kernel_sizes if isinstance(self.kernel_sizes, int) else self.kernel_sizes[number]
        x_BTD = TemporalConv(self.width, kernel, dtype=self.dtype, name=f'{m}_conv')(x_BTD, mask_BT)
        scale = self.width**0.5 if self.embedding_scale else 1.0
        x_BTD = x_BTD * scale + sinusoidal_positions(x_BTD.shape[1], self.width).astype(x_BTD.dtype)[None]
        lstm = LSTM(self.width // 2, bidirectional=True, dtype=self.dtype, name=f'{m}_lstm')
        return lstm(x_BTD, mask_BT, train=train)

    def _specific_branch(self, z, masks, train):
        """Section 3.3: PSA layers, each with its weighted attention layer."""
        attention, weights = {}, {}
        weighs = self.weighted_attention != 'none' and len(z) > 1

        def blocks(layers):
            found = {m: [self._psa(layer, m) for layer in layers] for m in z}
            return {**found, WEIGHTS: [self._wal(layer) for layer in layers]} if weighs else found

        def step(call, carry, _):
            z, previous = carry
            found = {m: call(m, z[m], masks[m], previous[m]) for m in masks}
            z, weight = {m: z_BTD for m, (z_BTD, _, _) in found.items()}, None
            if weighs:
                z, weight = call(WEIGHTS, z, masks)
            maps = {m: maps_BKTT if self.prediction_chain else None for m, (_, maps_BKTT, _) in found.items()}
            return (z, maps), ({m: attention_BKTT for m, (_, _, attention_BKTT) in found.items()}, weight)

        carry, number = (dict(z), dict.fromkeys(z)), 0
        # The first layer has nothing to predict from, and so no prediction: it is another one than the rest.
        first = min(self.psa_layers, 1 if self.prediction_chain else 0)
        for layers in (range(first), range(first, self.psa_layers)):
            carry, seen = repeat_layers(self, blocks(layers), step, carry, train=train, remat=self.remat)
            for maps, weight in seen:
                for m, attention_BKTT in maps.items():
                    attention[MapName(layer=number, target=m, source=m, unit='psa').key()] = attention_BKTT
                if weighs:
                    weights[f'wal/{number}'] = weight
                number += 1
        return {m: carry[0][m] for m in masks}, attention, weights

    def _psa(self, layer, m):
        return PredictiveSelfAttention(
            num_heads=self.num_heads,
            mu=self.mu,
            mix=self.psa_mix,
            scale=self.attention_scale,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
            dtype=self.dtype,
            residual=self.psa_residual,
            name=f'psa{layer}_{m}',
        )

    def _wal(self, layer):
        steps = self.weighted_attention_steps
        return WeightedAttention(self.weighted_attention, steps, dtype=self.dtype, name=f'wal{layer}')

    def _agnostic_branch(self, z, masks, train):
        """Section 3.4: HCA layers, each reinforcing every modality from all that the layer before gave."""
        layers = [
            HierarchicalCrossModalAttention(
                num_heads=self.num_heads,
                grains=self.grains,
                scale=self.attention_scale,
                feed_forward=self.feed_forward,
                dropout=self.dropout,
                remat=self.remat,
                dtype=self.dtype,
                name=f'hca{layer}',
            )
            for layer in range(self.hca_layers)
        ]
        z, seen = repeat_layers(
            self, {'hca': layers}, lambda call, z, _: call('hca', {m: z[m] for m in masks}, masks), dict(z), train=train
        )
        z = {m: z[m] for m in masks}
        attention: dict[str, Array] = {}
        for layer, maps in enumerate(seen):
            attention |= at_layer(maps, layer)
        return z, attention

    def _pool(self, z_BTD, mask_BT):
        return (masked_mean if self.pooling == 'mean' else last_valid)(z_BTD, mask_BT)

    def _encoder(self, name):
        """The feed-forward encoders of equations 11 and 12: one a modality, and one shared by all."""
        return MLP((self.output_width, self.output_width), self.dropout, dtype=self.dtype, name=f'{name}_encoder')

    def _discriminate(self, specific_BMD, agnostic_BMD, train):
        if len(self.modalities) == 1:
            nothing_B11 = jnp.zeros((len(specific_BMD), 1, 1))
            names = ('importance_logits', 'agnostic_logits', 'specific_logits')
            return {**dict.fromkeys(names, nothing_B11), 'importance': nothing_B11[..., 0]}
        discriminator = DoubleDiscriminator(
            self.discriminator_size, self.reversal, dtype=self.dtype, name='double_discriminator'
        )
        return discriminator(specific_BMD, agnostic_BMD, train=train)

    def _fuse(self, specific_BMD, agnostic_BMD, train):
        """Section 3.6: the representations as tokens of one transformer layer (post-norm), then the head."""
        tokens = {'specific': specific_BMD, 'agnostic': agnostic_BMD}
        x_BMD = jnp.concatenate([tokens[name] for name in REPRESENTATIONS if name in self.fused], 1)
        every_BM = jnp.ones(x_BMD.shape[:2], bool)
        drop = Dropout(self.dropout, deterministic=not train)
        attention = Attention(self.fusion_heads, self.dropout, dtype=self.dtype, name='fusion_attention')
        mixed_BMD, _ = attention(x_BMD, x_BMD, every_BM, train=train)
        x_BMD = LayerNorm(dtype=self.dtype, name='fusion_attention_norm')(x_BMD + drop(mixed_BMD))
        forward = MLP((self.fusion_feed_forward, self.output_width), self.dropout, dtype=self.dtype, name='fusion_mlp')
        x_BMD = LayerNorm(dtype=self.dtype, name='fusion_mlp_norm')(x_BMD + drop(forward(x_BMD, train=train)))
        features_BD = x_BMD.reshape(len(x_BMD), -1)
        head = MLP((features_BD.shape[-1] // 2, self.num_outputs), self.dropout, dtype=self.dtype, name='head')
        return head(features_BD, train=train), features_BD
