"""The transformer that the pretrained text, speech, picture and video encoders share (Vaswani et al. 2017).

Post-norm as in BERT and wav2vec 2.0 base, pre-norm as in ViT and the large speech models. Softmax and LayerNorm are
computed in float32 whatever `dtype` is.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.layers import attend, attention_logits, check_mask, mask_steps, masked_mean, masked_softmax
from mmer_jax.repeat import repeat_layers

ACTIVATIONS = {
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_new': lambda x: jax.nn.gelu(x, approximate=True),
    'linear': lambda x: x,
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
    'tanh': jnp.tanh,
}
POOLINGS = ('first', 'first_two', 'mean')
INIT = nn.initializers.normal(0.02)


def activate(name: str, x: Array) -> Array:
    if name not in ACTIVATIONS:
        raise ValueError(f'activation {name!r} is unknown; the known ones are {", ".join(ACTIVATIONS)}')
    return ACTIVATIONS[name](x)


class Norm(nn.Module):
    """LayerNorm over the last axis in float32, its result in `dtype`."""

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        x = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        broadcast = (None,) * (x.ndim - 1)
        return (x * scale[broadcast] + bias[broadcast]).astype(self.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention, (B, T, D) -> (B, T, D). mask_BT: steps that may be seen; None: all.

    jax.nn.dot_product_attention does the work; only where weights are dropped, in training, are they formed here.
    """

    num_heads: int
    qkv_bias: bool = True
    key_bias: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array | None, train: bool) -> Array:
        features = x_BTD.shape[-1]
        if features % self.num_heads:
            raise ValueError(f'{features} features do not divide by {self.num_heads} attention heads')

        def dense(name, use_bias=True):
            return nn.Dense(features, use_bias=use_bias, kernel_init=INIT, dtype=self.dtype, name=name)

        query_BTD = dense('query', self.qkv_bias)(x_BTD)
        key_BTD = dense('key', self.qkv_bias and self.key_bias)(x_BTD)
        value_BTD = dense('value', self.qkv_bias)(x_BTD)
        if train and self.dropout:
            logits_BKTT = attention_logits(query_BTD, key_BTD, self.num_heads) / np.sqrt(features // self.num_heads)
            mask = jnp.ones((1, 1, 1, 1), bool) if mask_BT is None else mask_BT[:, None, None]
            weights_BKTT = Dropout(self.dropout)(masked_softmax(logits_BKTT, mask), deterministic=False)
            return dense('out')(attend(weights_BKTT, value_BTD))
        heads = (*x_BTD.shape[:2], self.num_heads, features // self.num_heads)
        mixed_BTKd = jax.nn.dot_product_attention(
            query_BTD.reshape(heads),
            key_BTD.reshape(heads),
            value_BTD.reshape(heads),
            mask=None if mask_BT is None else mask_BT[:, None, None],
        )
        return dense('out')(mixed_BTKd.reshape(x_BTD.shape))


class TransformerLayer(nn.Module):
    """Self-attention and two dense layers, each with a residual connection; normalised before or after them."""

    num_heads: int
    intermediate_size: int
    pre_norm: bool = False
    activation: str = 'gelu'
    epsilon: float = 1e-12
    qkv_bias: bool = True
    key_bias: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT: Array | None, train: bool) -> Array:
        def drop(rate, x):
            return Dropout(rate)(x, deterministic=not train)

        def dense(features, name):
            return nn.Dense(features, kernel_init=INIT, dtype=self.dtype, name=name)

        def feed_forward(x_BTD):
            inner = activate(self.activation, dense(self.intermediate_size, 'intermediate')(x_BTD))
            outer_BTD = dense(x_BTD.shape[-1], 'output')(drop(self.activation_dropout, inner))
            return drop(self.dropout, outer_BTD)

        attention = SelfAttention(
            self.num_heads,
            qkv_bias=self.qkv_bias,
            key_bias=self.key_bias,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            name='attention',
        )
        attention_norm = Norm(self.epsilon, self.dtype, name='attention_norm')
        output_norm = Norm(self.epsilon, self.dtype, name='output_norm')
        if self.pre_norm:
            x_BTD = x_BTD + drop(self.dropout, attention(attention_norm(x_BTD), mask_BT, train))
            return x_BTD + feed_forward(output_norm(x_BTD))
        x_BTD = attention_norm(x_BTD + drop(self.dropout, attention(x_BTD, mask_BT, train)))
        return output_norm(x_BTD + feed_forward(x_BTD))


class TransformerEncoder(nn.Module):
    """Base of the pretrained encoders: a subclass gives `embeddings` and `embed`; sizes default to the base models.

    Parameters: embeddings/..., layer_0/... to layer_N/..., norm (with final_norm), and those of `pool`: pool_norm,
    projector. `mmer_jax.optimizer` reads the depth of a parameter from these names.

    return_layer: which state the features are, 0 for the embeddings to num_layers, or from the end; the last one is
    normalised by `norm`. layer_sum: the features are the learnt sum of all num_layers + 1 states instead, weighted by
    the softmax of the parameter `layer_weights` (num_layers + 1,), which begins with equal weights, as transformers'
    use_weighted_layer_sum and S3PRL (Yang et al. 2021, section 3) have it; where there is a `norm`, the last state goes
    in as it was before it, or behind it with layer_sum_norm, as in speech models of transformers before 5.16 and in
    S3PRL. projector: width of a dense layer behind the pooling, 0 for none (BERT's pooler: 768 with
    'tanh'; DistilBERT's pre_classifier: 768 with 'relu'; wav2vec 2.0's projector: 256 with 'linear'). layer_drop
    skips a layer in training with this probability. remat recomputes the inside of layers in the backward pass.
    """

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    pre_norm: bool = False
    final_norm: bool = False
    activation: str = 'gelu'
    epsilon: float = 1e-12
    qkv_bias: bool = True
    key_bias: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layer_drop: float = 0.0
    return_layer: int = -1
    layer_sum: bool = False
    layer_sum_norm: bool = False
    pooling: str = 'mean'  # of the valid steps; 'first': the class token; 'first_two': class and distillation token
    pool_norm: bool = False
    pool_epsilon: float = 1e-12
    pool_dropout: float = 0.0
    projector: int = 0
    projector_activation: str = 'tanh'
    remat: bool = False
    dtype: Any = jnp.float32

    stages = ()
    attends_to_all = False  # whether every position of a row is seen, as where rows have one fixed size

    def setup(self):
        if not -self.num_layers - 1 <= self.return_layer <= self.num_layers:
            raise ValueError(f'return_layer = {self.return_layer}: the states are 0 to {self.num_layers}, or from -1')
        if self.pooling not in POOLINGS:
            raise ValueError(f'pooling {self.pooling!r} is unknown; the known ones are {", ".join(POOLINGS)}')
        if self.layer_sum and self.return_layer != -1:
            raise ValueError(
                f'return_layer = {self.return_layer} is one state, layer_sum adds all: leave out one of them'
            )
        shared = ['num_heads', 'intermediate_size', 'pre_norm', 'activation', 'epsilon', 'qkv_bias', 'key_bias']
        shared += ['dropout', 'attention_dropout', 'activation_dropout', 'dtype']
        self.layer = [
            TransformerLayer(**{name: getattr(self, name) for name in shared}) for _ in range(self.num_layers)
        ]
        if self.layer_sum:
            equal = nn.initializers.constant(1 / (self.num_layers + 1))
            self.layer_weights = self.param('layer_weights', equal, (self.num_layers + 1,))
        if self.final_norm:
            self.norm = Norm(self.epsilon, self.dtype)
        if self.pool_norm:
            self.pool_normalise = Norm(self.pool_epsilon, self.dtype, name='pool_norm')
        if self.projector:
            self.project = nn.Dense(self.projector, kernel_init=INIT, dtype=self.dtype, name='projector')
        self.pool_drop = Dropout(self.pool_dropout)

    def _layouts(self) -> tuple[str, ...]:
        """The axes that the input may have."""
        return 'BT', 'BTC'

    def embed(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        """Input and its mask -> embeddings (B, T, D) and their mask (B, T)."""
        raise NotImplementedError

    def _run_layers(self, x, mask, train):
        """num_layers + 1 states before any final norm, the embeddings first, and their mask."""
        h_BTD, mask_BT = self.embed(x, check_mask(self, x, mask, layouts=self._layouts()), train=train)
        visible_BT = None if self.attends_to_all else mask_BT
        kept_L = None
        if train and self.layer_drop:
            kept_L = jax.random.bernoulli(self.make_rng('dropout'), 1 - self.layer_drop, (self.num_layers,))

        def step(call, before_BTD, kept):
            after_BTD = call('layer', before_BTD, visible_BT)
            after_BTD = after_BTD if kept is None else jnp.where(kept, after_BTD, before_BTD)
            return after_BTD, after_BTD

        # In evaluation the program is small as it is, and a loop would copy all weights for one pass over them.
        how = {'train': train, 'each': kept_L, 'remat': self.remat, 'loop': train}
        _, states = repeat_layers(self, {'layer': self.layer}, step, h_BTD, **how)
        return [h_BTD, *states], mask_BT

    def states(self, x: Array, mask: Array, *, train: bool) -> tuple[tuple[Array, ...], Array]:
        """num_layers + 1 states (B, T, D), the embeddings first, the last one behind `norm`; their mask (B, T)."""
        states, mask_BT = self._run_layers(x, mask, train)
        if self.final_norm:
            states[-1] = self.norm(states[-1])
        return tuple(states), mask_BT

    def __call__(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        """-> features (B, T, D), 0 where padded, and their mask. All layers run; what is not used is compiled away."""
        if not self.layer_sum:
            states, mask_BT = self.states(x, mask, train=train)
            return mask_steps(states[self.return_layer], mask_BT), mask_BT
        run = self.states if self.layer_sum_norm else self._run_layers
        states, mask_BT = run(x, mask, train=train)
        weights = jax.nn.softmax(self.layer_weights.astype(jnp.float32))
        summed_BTD = sum(weights[n] * h_BTD.astype(jnp.float32) for n, h_BTD in enumerate(states))
        return mask_steps(summed_BTD.astype(self.dtype), mask_BT), mask_BT

    def pool(self, features_BTD: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, D) -> (B, D), or (B, projector)."""
        if self.pooling == 'mean':
            pooled_BD = masked_mean(features_BTD.astype(jnp.float32), mask_BT).astype(self.dtype)
        else:
            pooled_BD = features_BTD[:, : 2 if self.pooling == 'first_two' else 1].mean(1)
        if self.pool_norm:
            pooled_BD = self.pool_normalise(pooled_BD)
        if self.projector:
            pooled_BD = activate(self.projector_activation, self.project(pooled_BD))
        return self.pool_drop(pooled_BD, deterministic=not train)
