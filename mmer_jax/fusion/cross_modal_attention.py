"""Directional pairwise cross-modal attention of MulT (Tsai et al. 2019, section 3; its code for what that leaves open).

CrossModalTransformer lets one sequence attend to another, step by step and unaligned; PairwiseCrossModal does so for
every ordered pair of modalities and then lets each modality attend to itself.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.kernels import Dense, LayerNorm
from mmer_jax.layers import (
    MLP,
    Dropouts,
    check_mask,
    check_masks,
    feed_forward,
    last_valid,
    mask_steps,
    mixed_and_map,
    sinusoidal_positions,
)
from mmer_jax.map_names import MapName
from mmer_jax.repeat import repeat_layers

Observe = Callable[[Array, Array, Array, Array], Any]  # of queries, keys, maps and the mask of pairs, in a layer


def attention_map(query_BTD: Array, key_BSD: Array, map_BKTS: Array, pairs_BTS: Array) -> Array:
    """What is observed of a layer by default: its attention maps (B, K, T, S), 0 at padded steps of either side."""
    del query_BTD, key_BSD, pairs_BTS
    return map_BKTS


def visible_pairs(target_mask_BT: Array, source_mask_BS: Array, *, causal: bool) -> Array:
    """(B, T, S), True where both steps are valid and, if causal, the target may look at the source.

    The published future mask: with T target and S source steps, step t sees the sources s < t + 1 + |S - T|. T and S
    are each row's own lengths, so that padding changes nothing.
    """
    pairs_BTS = target_mask_BT[:, :, None] & source_mask_BS[:, None, :]
    if not causal:
        return pairs_BTS
    offset_B = 1 + jnp.abs(source_mask_BS.sum(1) - target_mask_BT.sum(1))
    behind_TS = np.arange(source_mask_BS.shape[1])[None] - np.arange(target_mask_BT.shape[1])[:, None]
    return pairs_BTS & (behind_TS[None] < offset_B[:, None, None])


class CrossModalBlock(nn.Module):
    """One pre-norm layer (equation 4): the target attends to the source, or to itself where source_BSD is None.

    Target and source go through the same first LayerNorm, as in the code. -> (B, T, D), and what `observe` makes of
    the attention, computed inside the block so that recomputation (remat) covers it too.
    """

    num_heads: int
    feed_forward: int = 0  # 0: four times the width
    dropouts: Dropouts = Dropouts()
    observe: Observe = attention_map
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, target_BTD: Array, source_BSD: Array | None, pairs_BTS: Array, train: bool) -> tuple[Array, Any]:
        features = target_BTD.shape[-1]
        norm = _norm('attention_norm', self.dtype)
        query_norm_BTD = norm(target_BTD)
        key_norm_BSD = query_norm_BTD if source_BSD is None else norm(source_BSD)

        def dense(name, scale):
            init = nn.initializers.variance_scaling(scale, 'fan_avg', 'uniform')
            return Dense(features, kernel_init=init, dtype=self.dtype, name=name)

        # The code draws queries, keys and values as one 3D x D matrix, which halves Xavier's variance.
        query_BTD, key_BSD = dense('query', 0.5)(query_norm_BTD), dense('key', 0.5)(key_norm_BSD)
        mixed_BTD, map_BKTS = mixed_and_map(
            self, query_BTD, key_BSD, value_BSD=dense('value', 0.5)(key_norm_BSD), mask=pairs_BTS,
            num_heads=self.num_heads, dropout=self.dropouts.attention, train=train,
        )  # fmt: skip
        mixed_BTD = dense('out', 1.0)(mixed_BTD)
        x_BTD = target_BTD + Dropout(self.dropouts.residual)(mixed_BTD, deterministic=not train)

        inner_BTD = _norm('feed_forward_norm', self.dtype)(x_BTD)
        inner_BTD = feed_forward(inner_BTD, self.feed_forward, self.dropouts.relu, dtype=self.dtype, train=train)
        x_BTD = x_BTD + Dropout(self.dropouts.residual)(inner_BTD, deterministic=not train)
        return x_BTD, self.observe(query_BTD, key_BSD, map_BKTS, pairs_BTS)


class CrossModalTransformer(nn.Module):
    """`num_layers` blocks by which a target (B, T, D) takes in a source (B, S, D), or itself if the source is None.

    -> (B, T, D), 0 at padded steps, and a list of what `observe` returns in each layer, by default its attention maps
    (B, K, T, S). Both inputs are multiplied by sqrt(D) and get sinusoidal positions, 1 at the first step; the source
    is the same in every layer; a last LayerNorm ends it. `causal` is the published future mask (visible_pairs).
    `positions_where_nonzero` is the published code's rule that a step whose first feature is exactly 0 is padding and
    gets the zero vector for a position (yet is attended: masks are another matter). Keys and values see one dropout
    mask of the embedded source, where the code draws one for each. `remat` recomputes each block in the backward
    pass. Errors: D that does not divide by num_heads.
    """

    num_layers: int
    num_heads: int
    feed_forward: int = 0  # 0: four times the width
    dropouts: Dropouts = Dropouts()
    causal: bool = False
    positions_where_nonzero: bool = False
    observe: Observe = attention_map
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        target_BTD: Array,
        source_BSD: Array | None,
        target_mask_BT: Array,
        source_mask_BS: Array | None,
        train: bool,
    ) -> tuple[Array, list[Any]]:
        target_mask_BT = check_mask(self, target_BTD, target_mask_BT, name='target')
        x_BTD = self._embed(target_BTD, target_mask_BT, train)
        seen_mask_BS, embedded_BSD = target_mask_BT, None
        if source_BSD is not None:
            seen_mask_BS = check_mask(self, source_BSD, source_mask_BS, name='source')
            embedded_BSD = self._embed(source_BSD, seen_mask_BS, train)
        pairs_BTS = visible_pairs(target_mask_BT, seen_mask_BS, causal=self.causal)

        fields = {name: getattr(self, name) for name in ('num_heads', 'feed_forward', 'dropouts', 'observe', 'dtype')}
        layers = [CrossModalBlock(**fields, name=f'layer_{layer}') for layer in range(self.num_layers)]
        x_BTD, observed = repeat_layers(
            self,
            {'layer': layers},
            lambda call, x_BTD, _: call('layer', x_BTD, embedded_BSD, pairs_BTS),
            x_BTD,
            train=train,
            remat=self.remat,
        )
        return mask_steps(_norm('norm', self.dtype)(x_BTD), target_mask_BT), observed

    def _embed(self, x_BTD, mask_BT, train):
        x_BTD = mask_steps(x_BTD, mask_BT)
        positions_TD = sinusoidal_positions(*x_BTD.shape[1:])
        counted_BT = mask_BT & (x_BTD[..., 0] != 0) if self.positions_where_nonzero else mask_BT
        positions_BTD = jnp.where(counted_BT[..., None], positions_TD[None], 0)
        embedded_BTD = np.sqrt(x_BTD.shape[-1]) * x_BTD + positions_BTD
        return Dropout(self.dropouts.embedding)(embedded_BTD.astype(self.dtype), deterministic=not train)


class PairwiseCrossModal(nn.Module):
    """MulT between projection and head: {m: (B, T_m, D)} -> summary (B, M max(M - 1, 1) D), and what was observed.

    Each target takes in every other modality by a transformer of its own ('<target>_from_<source>'); the results, side
    by side, go through a self-attending one ('<target>_memory') of max(num_layers, memory_layers) layers, whose last
    valid step is the target's part of the summary. A single modality has its memory only, over x itself. Observed:
    {MapName.key(): value}, of cross-modal layers what `observe` returns, of memory layers their maps.
    `attention_dropout` is one number per modality, in the order of x, and goes by the source; it is that of cross-modal
    layers, `dropouts.attention` that of the memories.
    """

    num_layers: int
    memory_layers: int
    num_heads: int
    attention_dropout: tuple[float, ...]
    dropouts: Dropouts = Dropouts()
    causal: bool = False
    positions_where_nonzero: bool = False
    observe: Observe = attention_map
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Mapping[str, Array], masks: Mapping[str, Array], train: bool) -> tuple[Array, dict[str, Any]]:
        masks = check_masks(self, x, masks)
        by_source = dict(zip(x, self.attention_dropout, strict=True))
        all_observed: dict[str, Any] = {}

        def transformer(name, num_layers, dropouts, *, observe):
            return CrossModalTransformer(
                num_layers=num_layers,
                num_heads=self.num_heads,
                dropouts=dropouts,
                causal=self.causal,
                positions_where_nonzero=self.positions_where_nonzero,
                observe=observe,
                remat=self.remat,
                dtype=self.dtype,
                name=name,
            )

        def keep(h_BTD, observed, of):
            all_observed.update({of._replace(layer=n).key(): value for n, value in enumerate(observed)})
            return h_BTD

        def cross(target, source):
            dropouts = dataclasses.replace(self.dropouts, attention=by_source[source])
            module = transformer(f'{target}_from_{source}', self.num_layers, dropouts, observe=self.observe)
            h_BTD, observed = module(
                x[target], x[source], target_mask_BT=masks[target], source_mask_BS=masks[source], train=train
            )
            return keep(h_BTD, observed, MapName(layer=0, target=target, source=source, unit='cross'))

        def remember(target, h_BTD):
            num_layers = max(self.num_layers, self.memory_layers)
            module = transformer(f'{target}_memory', num_layers, self.dropouts, observe=attention_map)
            h_BTD, observed = module(h_BTD, None, target_mask_BT=masks[target], source_mask_BS=None, train=train)
            return keep(h_BTD, observed, MapName(layer=0, target=target, source=target, unit='memory'))

        summaries = []
        for target in x:
            parts = [cross(target, source) for source in x if source != target]
            h_BTD = remember(target, jnp.concatenate(parts, -1) if parts else x[target])
            summaries.append(last_valid(h_BTD, masks[target]))
        return jnp.concatenate(summaries, -1), all_observed


class ResidualHead(nn.Module):
    """MulT's head: x + W2 dropout(relu(W1 x)), then a linear map; (B, D) -> float32 (B, num_outputs)."""

    num_outputs: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BD: Array, train: bool) -> Array:
        features = x_BD.shape[-1]
        residual_BD = MLP((features, features), self.dropout, dtype=self.dtype, name='residual')(x_BD, train=train)
        output_BC = Dense(self.num_outputs, dtype=self.dtype, name='out')(x_BD + residual_BD)
        return output_BC.astype(jnp.float32)


def one_a_modality(value: Any, modalities: Sequence[str], field: str) -> tuple[Any, ...]:
    """A number for all, or one each in the order of `modalities`, as a tuple; ValueError for another count."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * len(modalities)
    if len(values) != len(modalities):
        raise ValueError(
            f'{field} has {len(values)} numbers for {len(modalities)} modalities ({", ".join(modalities)}): '
            'give one for all or one each'
        )
    return values


def _norm(name, dtype):
    # PyTorch's epsilon.
    return LayerNorm(1e-5, dtype=dtype, name=name)
