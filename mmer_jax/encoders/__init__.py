"""Encoders: one modality in, features out. `encoder(x, mask, train=...) -> (features, mask)`, then `encoder.pool`."""

from mmer_jax.encoders.mfcc_cnn import MfccCnn

ENCODERS = {
    'mfcc_cnn': MfccCnn,
}

__all__ = ['ENCODERS', 'MfccCnn']
