"""What three or more encoders, fusion blocks and models share. Masks are True where a step is valid.

Every public block checks what it is given by `check_mask`, `check_masks` or `check_batch`. They look at shapes and
types only, which are known when a program is traced: a compiled step does not contain them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.convolve import Conv
from mmer_jax.dropout import Dropout
from mmer_jax.kernels import LOWEST, Dense, mix, only, relu


def as_mask(mask: Array | None, what: str = 'the mask', of: Array | None = None) -> Array:
    """The mask as bool, True where a step is valid. It may be bool, or integers 0 and 1.

    ValueError for None and for any other type: 0 and -1e9, added to logits elsewhere, would mean the opposite here, and
    under jit, where values are not known, nothing tells 0.0 and 1.0 from them. Integers other than 0 and 1 are refused
    where values are known; under jit those above 0 are taken as valid. of: the array (B, T, ...) whose steps are meant;
    ValueError where the mask is not (B, T).
    """
    dtype, expected = getattr(mask, 'dtype', None), 'expected bool (or integers 0 and 1), True at valid steps'
    if mask is None or dtype is None:
        raise ValueError(f'{what} is {"missing (None)" if mask is None else type(mask).__name__}: {expected}')
    if of is not None and tuple(mask.shape) != tuple(of.shape[:2]):
        raise ValueError(
            f'{what} has shape {tuple(mask.shape)}, expected {tuple(of.shape[:2])}, one a step of {tuple(of.shape)}'
        )
    if np.dtype(dtype).kind == 'b':
        return mask
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f'{what} is {dtype}: {expected}; make it of an additive mask (0 or -1e9) by mask == 0, of 0.0 and 1.0 by '
            'mask > 0.5'
        )
    if not isinstance(mask, jax.core.Tracer) and getattr(mask, 'is_fully_addressable', True):
        values = np.asarray(mask)
        if ((values != 0) & (values != 1)).any():
            found = values[(values != 0) & (values != 1)][0]
            raise ValueError(f'{what} holds {found}: {expected}')
    return mask > 0


def check_mask(
    module: Any, x: Array, mask: Array | None, layouts: Sequence[str] = ('BTD',), *, name: str = 'x'
) -> Array:
    """The mask of x as bool, as `as_mask`; ValueError, naming the module, where x or the mask has another shape.

    layouts: the axes that x may have, a letter each. The mask has the first two, (B, T); where there is no T (pictures
    without frames, vectors) it may be (B,) or (B, 1). name: of x, in the message.
    """
    who, shape = f'{type(module).__name__}: ', getattr(x, 'shape', None)
    expected = ' or '.join(f'({", ".join(layout)})' for layout in layouts)
    if shape is None:
        raise ValueError(f'{who}{name} is {"missing (None)" if x is None else type(x).__name__}, expected {expected}')
    fits = [layout for layout in layouts if len(layout) == len(shape)]
    if not fits:
        alone = f'; one clip alone is {name}[None]' if any(len(layout) == len(shape) + 1 for layout in layouts) else ''
        raise ValueError(f'{who}{name} has shape {tuple(shape)}, expected {expected}{alone}')
    mask = as_mask(mask, f'{who}the mask of {name}')
    allowed = [tuple(shape[:2])] if 'T' in fits[0] else [(shape[0],), (shape[0], 1)]
    if tuple(mask.shape) not in allowed:
        raise ValueError(
            f'{who}the mask of {name} has shape {tuple(mask.shape)}, expected {" or ".join(map(str, allowed))}, one '
            f'{"a step" if "T" in fits[0] else "a row"} of {name}, which has shape {tuple(shape)}'
        )
    return mask


def check_masks(
    module: Any, x: Mapping[str, Array], masks: Mapping[str, Array], layouts: Sequence[str] = ('BTD',)
) -> dict[str, Array]:
    """The masks of {m: x_m} as bool, in the order of x; ValueError where one is missing or `check_mask` refuses it."""
    for what, found in (('sequences', x), ('masks', masks)):
        _check_mapping(module, what, found)
    missing = [m for m in x if m not in masks]
    if missing or not x:
        raise ValueError(
            f'{type(module).__name__}: no mask of {", ".join(missing) or "any modality"}; found sequences of '
            f'{", ".join(x) or "nothing"} and masks of {", ".join(masks) or "nothing"}'
        )
    checked = {m: check_mask(module, x[m], masks[m], layouts=layouts, name=m) for m in x}
    _check_rows(module, x)
    return checked


ANY_STEPS = ('BT', 'BTD', 'BTHW', 'BTHWC')


def check_batch(
    module: Any, batch: Mapping[str, Array], modalities: Sequence[str], layouts: Sequence[str] = ANY_STEPS
) -> dict[str, Array]:
    """The batch of a model with the masks of its modalities as bool; ValueError where it is not what models take.

    That is {m: (B, T_m, ...), m_mask: (B, T_m)} for each modality m, with the axes of one of `layouts`. Other keys stay
    as they are.
    """
    _check_mapping(module, 'batch', batch)
    wanted = [key for m in modalities for key in (m, f'{m}_mask')]
    missing = [key for key in wanted if key not in batch]
    if missing or not wanted:
        raise ValueError(
            f'{type(module).__name__}: the batch lacks {", ".join(missing) or "every modality"}; the modalities are '
            f'{tuple(modalities)}, the batch has {", ".join(batch)}'
        )
    masks = {f'{m}_mask': check_mask(module, batch[m], batch[f'{m}_mask'], layouts=layouts, name=m) for m in modalities}
    _check_rows(module, {m: batch[m] for m in modalities})
    return {**batch, **masks}


def _check_mapping(module, what, found):
    if not isinstance(found, Mapping):
        kind = 'None' if found is None else type(found).__name__
        raise ValueError(f'{type(module).__name__}: expected a dictionary by modality, found {what} of type {kind}')


def _check_rows(module, x):
    rows = {m: x_m.shape[0] for m, x_m in x.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f'{type(module).__name__}: {rows} rows, expected as many of every modality')


def masked_mean(x_BTD: Array, mask_BT: Array) -> Array:
    """Mean over the valid steps, (B, D); 0 for a row without valid steps."""
    mask_BT = as_mask(mask_BT, of=x_BTD)
    count_B1 = mask_BT.sum(1, keepdims=True).astype(x_BTD.dtype)
    return mask_steps(x_BTD, mask_BT).sum(1) / jnp.maximum(count_B1, 1)


def last_valid(x_BTD: Array, mask_BT: Array) -> Array:
    """The last valid step, (B, D), of right-padded sequences; 0 for a row without valid steps."""
    length_B = as_mask(mask_BT, of=x_BTD).sum(1)
    index_B11 = jnp.maximum(length_B - 1, 0)[:, None, None]
    last_BD = jnp.take_along_axis(x_BTD, index_B11, axis=1)[:, 0]
    return jnp.where(length_B[:, None] > 0, last_BD, 0)


def final_state(h_BTH: Array, mask_BT: Array, *, bidirectional: bool = False) -> Array:
    """Where an LSTM's outputs have read the whole sequence, (B, H): the last valid step, but the first step for the
    backward half of a bidirectional one (its last valid step has read one step only)."""
    if not bidirectional:
        return last_valid(h_BTH, mask_BT)
    forward_BTH, backward_BTH = jnp.split(h_BTH, 2, axis=-1)
    return jnp.concatenate([last_valid(forward_BTH, mask_BT), backward_BTH[:, 0]], -1)


def mask_steps(x_BTD: Array, mask_BT: Array) -> Array:
    """x with padded steps set to 0, so that what follows cannot see what stood there (NaN included)."""
    return only(x_BTD, as_mask(mask_BT))


def fix_length(x_BTD: Array, steps: int) -> Array:
    """x cut, or padded with 0 on the right, to exactly `steps` steps."""
    x_BTD = x_BTD[:, :steps]
    missing = steps - x_BTD.shape[1]
    return jnp.pad(x_BTD, ((0, 0), (0, missing)) + ((0, 0),) * (x_BTD.ndim - 2)) if missing else x_BTD


def sinusoidal_positions(steps: int, features: int) -> np.ndarray:
    """Positions 1 to `steps`, float32 (steps, features): sines, then cosines, of frequencies 1 down to 1/10000.

    The arrangement of fairseq and MulT (position 0 is theirs for padding); an odd last feature is 0.
    """
    half = features // 2
    frequency_H = np.exp(np.arange(half) * -(np.log(10000) / max(half - 1, 1)))
    angle_TH = np.arange(1, steps + 1)[:, None] * frequency_H[None]
    table_TD = np.concatenate([np.sin(angle_TH), np.cos(angle_TH)], 1)
    return np.pad(table_TD, ((0, 0), (0, features % 2))).astype(np.float32)


def masked_softmax(logits: Array, mask: Array) -> Array:
    """Softmax over the last axis among the positions where mask is True, in float32; 0 at the others, and everywhere
    in a row that has none."""
    mask = as_mask(mask)
    weights = jax.nn.softmax(jnp.where(mask, logits.astype(jnp.float32), LOWEST), axis=-1)
    return jnp.where(mask, weights, 0)


def attention_logits(query_BTD: Array, key_BSD: Array, num_heads: int) -> Array:
    """Dot products by head, (B, K, T, S), not scaled; head k has the features k D/K to (k + 1) D/K."""
    query_BTKd, key_BSKd = _heads(query_BTD, num_heads), _heads(key_BSD, num_heads)
    return jnp.einsum('btkd,bskd->bkts', query_BTKd, key_BSKd)


def attend(weights_BKTS: Array, value_BSD: Array) -> Array:
    """Weighted sums of the values by head, heads side by side again, (B, T, D)."""
    value_BSKd = _heads(value_BSD, weights_BKTS.shape[1])
    mixed_BTKd = jnp.einsum('bkts,bskd->btkd', weights_BKTS.astype(value_BSD.dtype), value_BSKd)
    return mixed_BTKd.reshape(*mixed_BTKd.shape[:2], -1)


def _heads(x_BTD, num_heads):
    if x_BTD.shape[-1] % num_heads:
        raise ValueError(f'{x_BTD.shape[-1]} features do not divide by {num_heads} attention heads')
    return x_BTD.reshape(*x_BTD.shape[:2], num_heads, -1)


def over_sources(mask: Array) -> Array:
    """A mask of sources (B, S), or of pairs (B, T, S), as attention maps (B, K, T, S) take it."""
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]


def mixed_and_map(
    module: nn.Module, query_BTD: Array, key_BSD: Array, value_BSD: Array, mask: Array, *,
    num_heads: int, dropout: float, train: bool, scale: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """kernels.mix with a random key of `module`, (B, T, D), and its maps (B, K, T, S) before dropout: a computation of
    their own, which a program in which nobody reads them does not contain.
    """
    key = module.make_rng('dropout') if train and dropout else None
    fixed: Any = {'num_heads': num_heads, 'scale': scale or 1 / np.sqrt(query_BTD.shape[-1] // num_heads)}
    mixed_BTD = mix(query_BTD, key_BSD, value_BSD, mask, dropout=dropout, key=key, **fixed)
    logits_BKTS = attention_logits(query_BTD, key_BSD, num_heads) * jnp.asarray(fixed['scale'], query_BTD.dtype)
    return mixed_BTD, masked_softmax(logits_BKTS, over_sources(mask))


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017): -> (B, T, D) and the maps (B, K, T, S).

    D is the target's width. `mask` (B, S), or (B, T, S), says which sources may be seen.
    """

    num_heads: int
    dropout: float = 0.0
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, target_BTD: Array, source_BSD: Array, mask: Array, train: bool) -> tuple[Array, Array]:
        features, mask = target_BTD.shape[-1], as_mask(mask, 'Attention: the mask of the source')
        pairs = (*target_BTD.shape[:2], source_BSD.shape[1])
        if tuple(mask.shape) not in (source_BSD.shape[:2], pairs):
            raise ValueError(
                f'Attention: the mask has shape {tuple(mask.shape)}, expected {source_BSD.shape[:2]}, one a step of '
                f'the source, or {pairs}, one a pair of steps'
            )

        def dense(name):
            init = nn.initializers.xavier_uniform()
            return Dense(features, use_bias=self.use_bias, kernel_init=init, dtype=self.dtype, name=name)

        query_BTD, key_BSD = dense('query')(target_BTD), dense('key')(source_BSD)
        mixed_BTD, map_BKTS = mixed_and_map(
            self, query_BTD, key_BSD, dense('value')(source_BSD), mask,
            num_heads=self.num_heads, dropout=self.dropout, train=train,
        )  # fmt: skip
        return dense('out')(mixed_BTD), map_BKTS


class TemporalConv(nn.Module):
    """1-D convolution over time that keeps the length and sees zeros beyond the last valid step; no bias."""

    features: int
    kernel_size: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array) -> Array:
        mask_BT = check_mask(self, x_BTD, mask_BT)
        conv = Conv(self.features, (self.kernel_size,), use_bias=False, dtype=self.dtype)
        return mask_steps(conv(mask_steps(x_BTD, mask_BT)), mask_BT)


class MLP(nn.Module):
    """Dense layers with ReLU and dropout between them, none behind the last."""

    sizes: Sequence[int]
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for size in self.sizes[:-1]:
            x = relu(Dense(size, dtype=self.dtype)(x))
            x = Dropout(self.dropout)(x, deterministic=not train)
        return Dense(self.sizes[-1], dtype=self.dtype)(x)


@dataclasses.dataclass(frozen=True)
class Dropouts:
    """The shares, 0 to 1, that a cross-modal transformer drops in training."""

    attention: float = 0.0  # of the attention maps
    relu: float = 0.0  # of the hidden layer of the feed-forward half
    residual: float = 0.0  # of what each half of a layer adds to its input
    embedding: float = 0.0  # of the input with its positions


def feed_forward(x_BTD: Array, size: int, dropout: float, *, dtype: Any, train: bool) -> Array:
    """The position-wise half of a transformer layer, without norm and residual: dense, ReLU, dropout, dense.

    For the inside of a compact method, whose module gets the parameters `feed_forward`. size: of the hidden layer,
    0 for four times the width.
    """
    features = x_BTD.shape[-1]
    return MLP((size or 4 * features, features), dropout, dtype=dtype, name='feed_forward')(x_BTD, train=train)


def call_block(block: nn.Module, *arrays: Any, train: bool, remat: bool) -> Any:
    """block(*arrays, train=train); with remat the backward pass computes it again instead of keeping what is inside."""

    if not remat:
        return block(*arrays, train=train)
    orders = orders_of(arrays)

    def call(block, *arrays):
        return block(*in_order(arrays, orders), train=train)

    return nn.remat(call)(block, *arrays)


def orders_of(arrays: Sequence[Any]) -> list[list[str] | None]:
    """The order of the keys of each dictionary among the arguments; jax sorts them in what goes through it."""
    return [list(x) if isinstance(x, Mapping) else None for x in arrays]


def in_order(arrays: Sequence[Any], orders: Sequence[list[str] | None]) -> list[Any]:
    """The arguments with the keys of their dictionaries in the order noted before."""
    pairs = zip(arrays, orders, strict=True)
    return [x if order is None else {key: x[key] for key in order} for x, order in pairs]
