"""The double-discriminator strategy of MFSA (section 3.5): which modality does a representation come from?"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.fusion.checks import check_shape, shown
from mmer_jax.fusion.gradient_reversal import reverse_gradient
from mmer_jax.layers import MLP


class DoubleDiscriminator(nn.Module):
    """Specific and agnostic representations (B, M, D), row m being modality m's -> what the losses read.

    `importance_logits` (B, M, M): the importance discriminator D_i, one linear map, on the agnostic representations,
    which it does not train. `importance` (B, M): omega = 1 - D_i's probability of the right modality, a weight through
    which no gradient flows. `agnostic_logits`: the modality discriminator D_m on the agnostic representations behind
    gradient reversal. `specific_logits`: the same D_m on the specific ones. The paper says of D_m only that it maps
    to probabilities; here it has one hidden layer of `hidden_size`.
    """

    hidden_size: int = 64
    reversal: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, specific_BMD: Array, agnostic_BMD: Array, train: bool) -> dict[str, Array]:
        for name, x_BMD in (('specific', specific_BMD), ('agnostic', agnostic_BMD)):
            check_shape('DoubleDiscriminator', x_BMD, 'BMD', name=f'{name} vectors')
        if specific_BMD.shape != agnostic_BMD.shape:
            found = f'{shown(specific_BMD)} and {shown(agnostic_BMD)}'
            raise ValueError(f'DoubleDiscriminator: specific and agnostic vectors of shapes {found}, expected the same')
        modalities = agnostic_BMD.shape[1]
        importance = nn.Dense(modalities, use_bias=False, dtype=self.dtype, name='importance')
        importance_BMM = importance(jax.lax.stop_gradient(agnostic_BMD)).astype(jnp.float32)
        right_BM = jnp.diagonal(jax.nn.softmax(jax.lax.stop_gradient(importance_BMM)), axis1=1, axis2=2)
        discriminator = MLP((self.hidden_size, modalities), dtype=self.dtype, name='modality')
        agnostic_BMM = discriminator(reverse_gradient(agnostic_BMD, self.reversal), train=train)
        return {
            'importance_logits': importance_BMM,
            'importance': 1 - right_BM,
            'agnostic_logits': agnostic_BMM.astype(jnp.float32),
            'specific_logits': discriminator(specific_BMD, train=train).astype(jnp.float32),
        }
