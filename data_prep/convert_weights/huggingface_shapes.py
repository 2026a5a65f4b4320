"""What an encoder's parameters must look like in the original: shapes without memory, by jax.eval_shape."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import errors, traverse_util

from mmer_jax.encoders import ENCODERS

Shape = tuple[int, ...]
FAULTS = (ArithmeticError, IndexError, TypeError, ValueError, errors.FlaxError)


def smallest_input(family: str, fields: Mapping[str, Any]) -> tuple[Shape, Any]:
    """Shape and type of the smallest batch (1, T, ...) of an encoder that makes all of its parameters."""
    if family == 'ast':
        return (1, 1, fields['num_bands']), jnp.float32
    if family in ('vit', 'videomae'):
        return (1, fields.get('num_frames', 1), fields['image_size'], fields['image_size'], 3), jnp.uint8
    return ((1, 1), jnp.float32) if family in ('wav2vec2', 'hubert') else ((1, 1), jnp.int32)


def _whole(module, x, mask):
    """Whatever has parameters; the final norm has, where a sum over layers does without it."""
    if module.layer_sum:
        module.states(x, mask, train=False)
    features, mask = module(x, mask, train=False)
    return module.pool(features, mask, train=False)


def parameter_shapes(family: str, fields: Mapping[str, Any], source: str) -> dict[str, Shape]:
    """Shape of each parameter by our name ('layer_0/output/kernel'); ValueError where the sizes make no network."""
    shape, dtype = smallest_input(family, fields)
    x, mask = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[:2], bool)
    try:
        encoder: Any = ENCODERS[family](**fields)
        made = jax.eval_shape(lambda x, mask: encoder.init(jax.random.key(0), x, mask, method=_whole), x, mask)
    except FAULTS as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'the sizes in {source} make no {family} network: {reason}') from error
    return {name: leaf.shape for name, leaf in traverse_util.flatten_dict(made['params'], sep='/').items()}


def original_shape(name: str, shape: Shape) -> Shape:
    """The shape that the original has for our parameter; the order of axes of `huggingface.to_original`."""
    if name.endswith(('/kernel', '/direction')):
        return (shape[-1], shape[-2], *shape[:-2])
    return (1, 1, *shape) if name.endswith('/magnitude') else shape
