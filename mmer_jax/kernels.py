"""Operations with a backward pass of their own: dense layer, ReLU, LayerNorm, a mask over steps, and attention.

What JAX makes of these by itself keeps more for the backward pass, attention maps above all, and writes longer
programs. Each is a `whole` function forward and another one backward. Numbers are those of JAX's own derivative but
for rounding.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mmer_jax.dropout import keep, keep_from
from mmer_jax.whole import whole

LOWEST = -1e30  # a logit that no attention reaches, finite so that gradients are too
FUSED = False  # on accelerators, where nothing is dropped, attention by `fused`; not yet measured there
BLOCK = 2**19  # elements of attention maps that are made at once on CPU: 2 MiB of float32 stay in a core's cache


class Dense(nn.Module):
    """As flax.linen.Dense: x @ kernel + bias over the last axis."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return product(x, kernel) if bias is None else product_and_sum(x, kernel, bias)


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """x @ kernel over the last axis of x."""
    return _product(x, kernel)[0]


@jax.custom_vjp
def product_and_sum(x: Array, kernel: Array, bias: Array) -> Array:
    """x @ kernel + bias over the last axis of x."""
    return _product(x, kernel, bias)[0]


@whole
def _product(x, kernel, *bias):
    y = x @ kernel
    return [y + jnp.expand_dims(b, range(y.ndim - 1)) for b in bias] or [y]


@whole
def _product_backward(x, kernel, gradient):
    x_ND, gradient_NF = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return [(gradient_NF @ kernel.T).reshape(x.shape), x_ND.T @ gradient_NF, gradient_NF.sum(0)]


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), lambda saved, g: _product_backward(*saved, g)[:2])
product_and_sum.defvjp(
    lambda x, kernel, bias: (product_and_sum(x, kernel, bias), (x, kernel)),
    lambda saved, g: _product_backward(*saved, g),
)


@jax.custom_vjp
def relu(x: Array) -> Array:
    """max(x, 0), with derivative 0 at 0."""
    return _relu(x)[0]


@whole
def _relu(x):
    return [jnp.maximum(x, 0)]


@whole
def _relu_backward(y, gradient):
    return [lax.select(y > 0, gradient, jnp.zeros_like(gradient))]


def _relu_forward(x):
    y = relu(x)
    return y, y


relu.defvjp(_relu_forward, lambda y, g: _relu_backward(y, g))


@jax.custom_vjp
def only(x: Array, mask: Array) -> Array:
    """x where the mask of its first axes is True, else 0 (where x is NaN too)."""
    return _only(x, mask)[0]


@whole
def _only(x, mask):
    whole_mask = lax.broadcast_in_dim(mask, x.shape, tuple(range(mask.ndim)))
    return [lax.select(whole_mask, x, jnp.zeros_like(x))]


only.defvjp(lambda x, mask: (only(x, mask), mask), lambda mask, g: (only(g, mask), None))


class LayerNorm(nn.Module):
    """As flax.linen.LayerNorm over the last axis: in float32, its result in `dtype`; the variance in two passes."""

    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        kind = jnp.promote_types(x.dtype, jnp.float32)
        return layer_norm(x.astype(kind), scale.astype(kind), bias.astype(kind), self.epsilon).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis."""
    return _norm(x, scale, bias, epsilon=epsilon)[0]


def _along_last(x, like):
    """A vector (D,) for each place of `like` (..., D)."""
    return lax.broadcast_in_dim(x, like.shape, (like.ndim - 1,))


def _normal(x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    inverse = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    return centred * inverse, inverse


@whole
def _norm(x, scale, bias, *, epsilon):
    return [_normal(x, epsilon)[0] * _along_last(scale, x) + _along_last(bias, x)]


@whole
def _norm_backward(x, scale, gradient, *, epsilon):
    axes = tuple(range(x.ndim - 1))
    normal, inverse = _normal(x, epsilon)
    inner = gradient * _along_last(scale, x)
    along = (inner * normal).mean(-1, keepdims=True)
    dx = inverse * (inner - inner.mean(-1, keepdims=True) - normal * along)
    return [dx, (gradient * normal).sum(axes), gradient.sum(axes)]


layer_norm.defvjp(
    lambda x, scale, bias, epsilon: (layer_norm(x, scale, bias, epsilon), (x, scale)),
    lambda epsilon, saved, g: _norm_backward(*saved, g, epsilon=epsilon),
)


# ---- attention -----------------------------------------------------------------------------------------------


def mix(
    query_BTD: Array, key_BSD: Array, value_BSD: Array, mask: Array, *,
    num_heads: int, scale: float = 0.0, dropout: float = 0.0, key: Array | None = None,
) -> Array:  # fmt: skip
    """Multi-head attention without projections, (B, T, D): softmax over sources of scaled dot products, times values.

    mask: bool, (B, S) or (B, T, S), True where a source may be seen; a row without sources is 0. scale: of the dot
    products, 0 for 1 over the root of a head's width. key: of jax.random; a share `dropout` of the softmax is then 0,
    and the rest as much larger. The softmax is float32. On CPU maps exist a few heads at a time, forward and backward,
    because a pass through memory costs more there than making them again.
    """
    if query_BTD.shape[-1] % num_heads:
        raise ValueError(f'{query_BTD.shape[-1]} features do not divide by {num_heads} attention heads')
    mask = mask[:, None] if mask.ndim == 2 else mask
    scale = scale or 1 / math.sqrt(query_BTD.shape[-1] // num_heads)
    rate = 0.0 if key is None else dropout
    scaled_BTD = query_BTD * jnp.asarray(scale, query_BTD.dtype)
    query, keys, values = (_heads(x, num_heads) for x in (scaled_BTD, key_BSD, value_BSD))
    if rate == 1:
        mixed_BKTd = jnp.zeros_like(query)
    elif jax.default_backend() == 'cpu':
        words = jnp.zeros(2, jnp.uint32) if key is None else jax.random.key_data(key).reshape(-1)
        kind = jnp.promote_types(value_BSD.dtype, jnp.float32)
        hidden = lax.select(mask, jnp.zeros(mask.shape, kind), jnp.full(mask.shape, LOWEST, kind))
        mixed_BKTd = _in_blocks(query, keys, values, hidden, words, rate)
    elif FUSED and not rate:
        mixed_BKTd = fused(query, keys, values, mask)
    else:
        mixed_BKTd = _at_once(query, keys, values, mask, key, rate=rate)
    return jnp.swapaxes(mixed_BKTd, 1, 2).reshape(query_BTD.shape)


def _heads(x_BTD, num_heads):
    return jnp.swapaxes(x_BTD.reshape(*x_BTD.shape[:2], num_heads, -1), 1, 2)


def _at_once(query, keys, values, mask, key, *, rate):
    """For accelerators: XLA's own derivative, maps in memory."""
    logits = jnp.einsum('bktd,bksd->bkts', query, keys).astype(jnp.float32)
    weights = jnp.where(mask[:, None], jax.nn.softmax(jnp.where(mask[:, None], logits, LOWEST)), 0)
    if rate:
        weights = jnp.where(keep(key, weights.shape, rate), weights / (1 - rate), 0)
    return jnp.einsum('bkts,bksd->bktd', weights.astype(values.dtype), values)


def fused(query: Array, keys: Array, values: Array, mask: Array) -> Array:
    """Attention of heads (B, K, T, d) without dropout by jax.nn.dot_product_attention, in cuDNN where that can."""
    half = query.dtype in (jnp.bfloat16, jnp.float16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128
    q_BTKd, k_BSKd, v_BSKd = (jnp.swapaxes(x, 1, 2) for x in (query, keys, values))
    mask = jnp.broadcast_to(mask[:, None], (*mask.shape[:1], 1, query.shape[2], mask.shape[2]))
    mixed_BTKd = jax.nn.dot_product_attention(
        q_BTKd, k_BSKd, v_BSKd, mask=mask, scale=1.0, implementation='cudnn' if half and on_cuda() else 'xla'
    )
    return jnp.where(mask.any(-1)[..., None], jnp.swapaxes(mixed_BTKd, 1, 2), 0)  # a row that sees nothing


def on_cuda() -> bool:
    return jax.default_backend() == 'gpu' and 'cuda' in jax.devices()[0].client.platform_version


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _in_blocks(query, keys, values, hidden, words, rate):
    return _attend(query, keys, values, hidden, words, rate=rate)[0]


def _block_sizes(rows: int, heads: int, pairs: int) -> tuple[int, int]:
    """Rows and heads of a block: some heads of one row, or some rows with all heads."""

    def most(count, size):
        return max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * size <= BLOCK))

    if heads * pairs > BLOCK:
        return 1, most(heads, pairs)
    return most(rows, heads * pairs), heads


class _Blocks:
    """Arrays (B, K, T, d) cut into blocks (r, h, T, d), and what every block needs of mask and dropout."""

    def __init__(self, query, keys, hidden, words, rate):
        self.rows, self.heads, self.steps = query.shape[:3]
        self.hidden, self.words, self.rate = hidden, words, rate
        self.r, self.h = _block_sizes(self.rows, self.heads, self.steps * keys.shape[2])
        self.count = self.rows * self.heads // (self.r * self.h)
        self.shape = (self.r, self.h, self.steps, keys.shape[2])

    def run(self, function, *arrays):
        """function(number, blocks of the arrays) -> blocks, for each; whole arrays again."""
        if self.count == 1:
            return list(function(np.uint32(0), *arrays))
        cut = [x.reshape(self.count, self.r, self.h, *x.shape[2:]) for x in arrays]
        numbers = lax.iota(np.uint32, self.count)
        found = lax.scan(lambda _, one: (None, function(*one)), None, (numbers, *cut))[1]
        return [y.reshape(self.rows, self.heads, *y.shape[3:]) for y in found]

    def logits(self, number, query, keys):
        hidden = self.hidden
        if self.count > 1:
            row = lax.div(number, np.uint32(self.heads // self.h)) if self.r == 1 else number * np.uint32(self.r)
            hidden = lax.dynamic_slice_in_dim(hidden, row, self.r)
        return _outer(query, keys, hidden.dtype) + lax.broadcast_in_dim(hidden, self.shape, (0, 2, 3))

    def kept(self, number, x):
        """x where it is not dropped, else 0; element by element what `keep` says for all maps."""
        if not self.rate:
            return x
        start = number * np.uint32(math.prod(self.shape) % 2**32)
        return lax.select(keep_from(self.words, start, self.shape, self.rate), x, jnp.zeros_like(x))


@whole
def _attend(query, keys, values, hidden, words, *, rate):
    """`hidden` is added to the logits: 0, or LOWEST where a source may not be seen."""
    blocks, kind = _Blocks(query, keys, hidden, words, rate), hidden.dtype

    def one(number, query, keys, values):
        logits = blocks.logits(number, query, keys)
        top = logits.max(-1, keepdims=True)
        weights = jnp.exp(logits - top)
        return _weighted(blocks.kept(number, weights), values, kind), top, weights.sum(-1, keepdims=True)

    mixed, top, total = blocks.run(one, query, keys, values)
    inverse = lax.select(top > LOWEST, 1 / total, jnp.zeros_like(total))  # 0: nothing is seen
    return [(mixed * (inverse / (1 - rate))).astype(values.dtype), top, inverse]


@whole
def _attend_backward(query, keys, values, hidden, words, mixed, top, inverse, gradient, *, rate):
    blocks, kind = _Blocks(query, keys, hidden, words, rate), hidden.dtype
    gradient = gradient.astype(kind)
    # What the sum over sources of weight times its gradient is, without another pass over the map.
    along = (gradient * mixed.astype(kind)).sum(-1, keepdims=True)

    def one(number, query, keys, values, top, inverse, gradient, along):
        weights = jnp.exp(blocks.logits(number, query, keys) - top) * inverse
        kept = blocks.kept(number, weights)
        d_logits = kept * _outer(gradient, values, kind) - weights * along
        # (d, S) and not (S, d): the products of long rows are the fast ones.
        d_values = jnp.einsum('rhts,rhtd->rhds', kept, gradient)
        d_keys = jnp.einsum('rhts,rhtd->rhds', d_logits, query.astype(kind))
        return _weighted(d_logits, keys, kind), d_keys, d_values

    arrays = query, keys, values, top, inverse, gradient / (1 - rate), along
    d_query, d_keys, d_values = blocks.run(one, *arrays)
    found = d_query, jnp.swapaxes(d_keys, 2, 3), jnp.swapaxes(d_values, 2, 3)
    return [d.astype(x.dtype) for d, x in zip(found, (query, keys, values), strict=True)]


def _in_blocks_forward(query, keys, values, hidden, words, rate):
    mixed, top, inverse = _attend(query, keys, values, hidden, words, rate=rate)
    return mixed, (query, keys, values, hidden, words, mixed, top, inverse)


def _in_blocks_backward(rate, saved, gradient):
    return (*_attend_backward(*saved, gradient, rate=rate), None, None)


_in_blocks.defvjp(_in_blocks_forward, _in_blocks_backward)


def _outer(a, b, kind):
    return jnp.einsum('rhtd,rhsd->rhts', a, b, preferred_element_type=kind)


def _weighted(weights, values, kind):
    return jnp.einsum('rhts,rhsd->rhtd', weights.astype(values.dtype), values, preferred_element_type=kind)
