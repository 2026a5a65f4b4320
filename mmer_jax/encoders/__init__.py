"""Encoders: one modality in, features out. `encoder(x, mask, train=...) -> (features, mask)`, then `encoder.pool`."""

from mmer_jax.encoders.erann import Erann
from mmer_jax.encoders.mfcc_cnn import MfccCnn
from mmer_jax.encoders.mlp import VectorEncoder
from mmer_jax.encoders.resnext3d import ResNeXt3D

ENCODERS = {
    'erann': Erann,
    'mfcc_cnn': MfccCnn,
    'resnext3d': ResNeXt3D,
    'vector_encoder': VectorEncoder,
}

__all__ = ['ENCODERS', 'Erann', 'MfccCnn', 'ResNeXt3D', 'VectorEncoder']
