"""BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019): tokens -> features."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.encoders.transformer import INIT, Norm, TransformerEncoder
from mmer_jax.layers import mask_steps


class TextEmbeddings(nn.Module):
    """Token, position and token-type vectors summed and normalised, (B, T) -> (B, T, D)."""

    features: int
    vocab_size: int
    max_positions: int
    type_vocab_size: int
    position_offset: int
    epsilon: float
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids_BT: Array, types_BT: Array, mask_BT: Array, *, train: bool) -> Array:
        def table(rows, name):
            return nn.Embed(rows, self.features, embedding_init=INIT, dtype=self.dtype, name=name)

        positions_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1])[None], ids_BT.shape)
        if self.position_offset:
            # As fairseq counts: the id of padding is the number before the first token's position, and every padding
            # token, one inside the text too, stands at that position and is not counted.
            padding = self.position_offset - 1
            counted_BT = mask_BT & (ids_BT != padding)
            positions_BT = jnp.where(counted_BT, counted_BT.cumsum(1) + padding, padding)
        x_BTD = table(self.vocab_size, 'tokens')(ids_BT) + table(self.max_positions, 'positions')(positions_BT)
        if self.type_vocab_size:
            x_BTD = x_BTD + table(self.type_vocab_size, 'types')(types_BT)
        x_BTD = Norm(self.epsilon, self.dtype, name='norm')(x_BTD)
        return Dropout(self.dropout)(x_BTD, deterministic=not train)


class Bert(TransformerEncoder):
    """Token ids (B, T) integers, or with their token types (B, T, 2) -> features (B, T, 768); BERT base by default.

    The ids include the class and separator tokens that the tokenizer adds; types are 0 where none are given. Padding
    is on the right. `pool` gives the first token's state; with projector = 768 what BERT's classifier reads.
    context: tokens of type 1 are what was said before: the others attend to them, and the features' mask, which pooling
    and a model behind see, leaves them out.
    ValueError: more steps than positions, ids that are not integers, or context without types.
    """

    pooling: str = 'first'
    pool_dropout: float = 0.1
    vocab_size: int = 30522
    max_positions: int = 512
    type_vocab_size: int = 2  # 0: none
    position_offset: int = 0  # position of the first token, RoBERTa's is 2; above 0 also 1 + the id of padding
    context: bool = False

    def setup(self):
        super().setup()
        self.embeddings = TextEmbeddings(
            features=self.hidden_size,
            vocab_size=self.vocab_size,
            max_positions=self.max_positions,
            type_vocab_size=self.type_vocab_size,
            position_offset=self.position_offset,
            epsilon=self.epsilon,
            dropout=self.dropout,
            dtype=self.dtype,
        )

    def embed(self, x_BT: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        if not jnp.issubdtype(x_BT.dtype, jnp.integer):
            raise ValueError(f'token ids must be integers, found {x_BT.dtype}: floating point would round large ids')
        longest = self.max_positions - self.position_offset
        if x_BT.shape[1] > longest:
            raise ValueError(
                f'{x_BT.shape[1]} tokens are more than the {longest} positions of this model: '
                f'set config.data.max_length of this modality to {longest} or less'
            )
        x_BT = mask_steps(x_BT, mask_BT)
        ids_BT, types_BT = (x_BT[..., 0], x_BT[..., 1]) if x_BT.ndim == 3 else (x_BT, jnp.zeros_like(x_BT))
        types_BT = jnp.minimum(types_BT, max(self.type_vocab_size - 1, 0))  # RoBERTa has one type for both texts
        return self.embeddings(ids_BT, types_BT, mask_BT, train=train), mask_BT

    def __call__(self, x_BT: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        features_BTD, mask_BT = super().__call__(x_BT, mask_BT, train=train)
        if not self.context:
            return features_BTD, mask_BT
        if x_BT.ndim != 3:
            raise ValueError(f'context: found token ids {x_BT.shape} without types, expected (B, T, 2)')
        mask_BT = mask_BT & (x_BT[..., 1] == 0)
        return mask_steps(features_BTD, mask_BT), mask_BT


class Roberta(Bert):
    """RoBERTa base. Its classifier reads a dense layer with tanh behind the first token: projector = 768."""

    epsilon: float = 1e-5
    vocab_size: int = 50265
    max_positions: int = 514
    type_vocab_size: int = 1
    position_offset: int = 2


class DistilBert(Bert):
    """DistilBERT base: 6 layers, no token types. Its classifier's first layer: projector = 768, with ReLU.

    In training the original drops nothing behind its attention, this one `dropout` as BERT does.
    """

    num_layers: int = 6
    pool_dropout: float = 0.2
    projector_activation: str = 'relu'
    type_vocab_size: int = 0
