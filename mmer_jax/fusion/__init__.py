"""Fusion blocks, each importable by itself; each module's docstring names its paper and equations."""

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
