"""Layers in plain float64 numpy, written from their definitions, for tests that recompute equations."""

import math

import numpy as np

erf = np.vectorize(math.erf)


def tree64(params):
    """A parameter tree in float64."""
    if hasattr(params, 'items'):
        return {key: tree64(value) for key, value in params.items()}
    return np.asarray(params, np.float64)


def softmax(x, axis=-1):
    x = np.exp(x - x.max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def log_softmax(x, axis=-1):
    return np.log(softmax(x, axis))


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def dense(x, params):
    return x @ params['kernel'] + params.get('bias', 0)


def layer_norm(x, params, epsilon=1e-6):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * params['scale'] + params['bias']


def mlp(x, params):
    for number in range(len(params)):
        x = dense(np.maximum(x, 0) if number else x, params[f'Dense_{number}'])
    return x


def heads(x, number):
    """(T, D) -> (K, T, D / K)"""
    return x.reshape(len(x), number, -1).transpose(1, 0, 2)


def merge(x):
    """(K, T, D / K) -> (T, D)"""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def conv3x3(image, params):
    """(K, H, W) maps, kernel (3, 3, K in, K out), zeros around."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((params['kernel'].shape[-1], height, width)) + params['bias'][:, None, None]
    for row in range(3):
        for column in range(3):
            patch = padded[:, row : row + height, column : column + width]
            out += np.einsum('khw,ko->ohw', patch, params['kernel'][row, column])
    return out
