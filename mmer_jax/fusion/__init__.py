"""Fusion blocks, each importable by itself; each module's docstring names its paper and equations.

They are linen modules with the same conventions. Sequences are (B, T, D) and padded on the right. A mask is bool
(B, T), True at valid steps; what stands at the others changes nothing. `train` is given by its name; where it is True,
dropout needs a key. Dictionaries of modalities are best sorted by name: jax hands them on in that order in jit, grad
and remat, and for blocks that put modalities side by side the order is part of what they have learnt. One block as an
example, by which audio reinforces text:

>>> import flax.linen as nn, jax, jax.numpy as jnp
>>> from mmer_jax.fusion import ModalityReinforcementUnit
>>> audio, text = jax.random.normal(jax.random.key(0), (2, 7, 8)), jnp.ones((2, 5, 8))
>>> audio_mask = jnp.arange(7)[None] < jnp.array([[7], [4]])  # the second clip has 4 steps of audio
>>> text_mask = jnp.arange(5)[None] < jnp.array([[5], [2]])  # and 2 words
>>> inputs = audio, text, audio_mask, text_mask
>>> block = ModalityReinforcementUnit(num_heads=2, dropout=0.1)
>>> variables = block.init(jax.random.key(1), *inputs, train=False)
>>> reinforced, maps = block.apply(variables, *inputs, train=True, rngs={'dropout': jax.random.key(2)})
>>> reinforced.shape, maps.shape  # (B, T, D), and the attention of 2 heads
((2, 5, 8), (2, 2, 5, 7))
>>> bool((reinforced[1, 2:] == 0).all()), bool((maps[1, :, :, 4:] == 0).all())  # padding
(True, True)

`nn.remat` computes a block again in the backward pass, which saves memory. There `train` is static, so it is given by
its place, 5 counted from `self`:

>>> remat = nn.remat(ModalityReinforcementUnit, static_argnums=(5,))(num_heads=2, dropout=0.1)
>>> again, _ = remat.apply(variables, *inputs, True, rngs={'dropout': jax.random.key(2)})
>>> bool(jnp.allclose(again, reinforced, atol=1e-5))
True
"""

from mmer_jax.fusion.compact_bilinear import CompactBilinear
from mmer_jax.fusion.cross_modal_attention import CrossModalTransformer, PairwiseCrossModal
from mmer_jax.fusion.cross_modal_residual import CrossModalResidual
from mmer_jax.fusion.ctc_alignment import AlignToAnchor, CtcAlignment
from mmer_jax.fusion.cyclic_translation import CyclicTranslation
from mmer_jax.fusion.double_discriminator import DoubleDiscriminator
from mmer_jax.fusion.gated_shift import GatedShift
from mmer_jax.fusion.gradient_reversal import reverse_gradient
from mmer_jax.fusion.hierarchical_cross_modal import HierarchicalCrossModalAttention, ModalityReinforcementUnit
from mmer_jax.fusion.late import ConcatFc, averaging, multiplication, multiplicative
from mmer_jax.fusion.message_hub import MessageHub, ReinforcementUnit
from mmer_jax.fusion.mmtm import Mmtm
from mmer_jax.fusion.msaf import Msaf
from mmer_jax.fusion.predictive_self_attention import PredictiveSelfAttention
from mmer_jax.fusion.weighted_attention import WeightedAttention

__all__ = [
    'AlignToAnchor',
    'CompactBilinear',
    'ConcatFc',
    'CrossModalResidual',
    'CrossModalTransformer',
    'CtcAlignment',
    'CyclicTranslation',
    'DoubleDiscriminator',
    'GatedShift',
    'HierarchicalCrossModalAttention',
    'MessageHub',
    'Mmtm',
    'ModalityReinforcementUnit',
    'Msaf',
    'PairwiseCrossModal',
    'PredictiveSelfAttention',
    'ReinforcementUnit',
    'WeightedAttention',
    'averaging',
    'multiplication',
    'multiplicative',
    'reverse_gradient',
]
