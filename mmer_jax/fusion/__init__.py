"""Fusion blocks, each importable by itself; each module's docstring names its paper and equations."""

from mmer_jax.fusion.double_discriminator import DoubleDiscriminator
from mmer_jax.fusion.gradient_reversal import reverse_gradient
from mmer_jax.fusion.hierarchical_cross_modal import HierarchicalCrossModalAttention, ModalityReinforcementUnit
from mmer_jax.fusion.predictive_self_attention import PredictiveSelfAttention
from mmer_jax.fusion.weighted_attention import WeightedAttention

__all__ = [
    'DoubleDiscriminator',
    'HierarchicalCrossModalAttention',
    'ModalityReinforcementUnit',
    'PredictiveSelfAttention',
    'WeightedAttention',
    'reverse_gradient',
]
