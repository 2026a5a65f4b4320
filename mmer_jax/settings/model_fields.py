"""What the fields of config.model may be: their types are those of the module, their ranges stand here by name.

A field whose name is not in FIELDS follows from its type: a whole number is at least 1, what ends in `dropout` lies in
[0, 1), text and bool are themselves. A field whose type is a module is a dictionary with the `name` of an encoder or,
where it is called `model`, of a model.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from mmer_jax.encoders import ENCODERS, Encoder
from mmer_jax.models import MODELS
from mmer_jax.settings import ranges

GIVEN = ('modalities', 'num_outputs', 'num_records', 'dtype')  # filled in from the data and config.compute_dtype
FIELDS: dict[str, ranges.Number] = {
    # 0 has a meaning of its own: off, or a size that follows from others.
    **dict.fromkeys(
        (
            'auxiliary', 'coarse_stages', 'feed_forward', 'hca_layers', 'mask_fewest', 'memory_layers',
            'patch_channels', 'position_offset', 'projector', 'psa_layers', 'resize', 'type_vocab_size',
        ),
        ranges.COUNT_OR_0,
    ),
    'return_layer': ranges.Number(int, low=-ranges.LARGEST, high=ranges.LARGEST),  # from the end; the encoder has more
    'sketch_seed': ranges.NUMPY_SEED,
    'beta': ranges.NOT_NEGATIVE,
    'epsilon': ranges.POSITIVE,
    'gate_scale': ranges.POSITIVE,
    'limit': ranges.NOT_NEGATIVE,
    'layer_drop': ranges.BELOW_1,
    'mask_share': ranges.BELOW_1,
    'mean': ranges.FINITE,
    'mu': ranges.FRACTION,
    'pool_epsilon': ranges.POSITIVE,
    'pull_threshold': ranges.NOT_NEGATIVE,
    'reversal': ranges.NOT_NEGATIVE,
    'std': ranges.POSITIVE,
}  # fmt: skip
DIVIDES = (('num_heads', 'width'), ('num_heads', 'hidden_size'), ('fusion_heads', 'output_width'))


def fields_of(module: type) -> dict[str, Any]:
    """The type of each field that a config may set."""
    hidden = ('parent', 'name', *GIVEN)
    return {field.name: field.type for field in dataclasses.fields(module) if field.name not in hidden}


def is_module(annotation: Any) -> bool:
    """Whether a field holds another module, or may."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return any(option is Encoder or (isinstance(option, type) and issubclass(option, nn.Module)) for option in options)


def kind_of(name: str, annotation: Any) -> ranges.Kind:
    """What a field of this name and type may be."""
    arguments = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType):
        return ranges.Either(tuple(kind_of(name, option) for option in arguments))
    if typing.get_origin(annotation) is tuple:
        fixed = Ellipsis not in arguments
        return ranges.Items(kind_of(name, arguments[0]), len(arguments) if fixed else None)
    if annotation in (int, float):
        if name.endswith('dropout'):
            return ranges.BELOW_1
        return FIELDS.get(name, ranges.COUNT if annotation is int else ranges.FINITE)
    simple: dict[Any, ranges.Kind] = {bool: ranges.FLAG, str: ranges.TEXT, types.NoneType: ranges.Nothing()}
    return simple.get(annotation, ranges.Anything())


def table_of(key: str) -> tuple[str, Mapping[str, type]]:
    """'model' or 'encoder' and the modules that a field of this name may hold."""
    return ('model', MODELS) if key == 'model' else ('encoder', ENCODERS)


def known_words(module: type) -> str:
    return f'its fields are {ranges.join(list(fields_of(module)))}'


def faults(values: Mapping[str, Any], where: str = 'config.model', key: str = 'model') -> Iterator[str]:
    """What is wrong in config.model, one line each: unknown names and fields, values out of their range."""
    what, table = table_of(key)
    name = values.get('name')
    if not isinstance(name, str) or name not in table:
        yield f'{where}.name: found {name!r}, expected the name of a known {what}: {", ".join(table)}'
        return
    module, known = table[name], fields_of(table[name])
    for field, value in values.items():
        place = f'{where}.{field}'
        if field == 'name':
            continue
        if field in GIVEN:
            yield f'{place}: found {value!r}, expected nothing: the data and config.compute_dtype decide it'
        elif field not in known:
            yield f'{place}: {module.__name__} has no field {field}; {known_words(module)}'
        elif is_module(known[field]):
            if isinstance(value, Mapping):
                yield from faults(value, place, field)
            elif value is not None or types.NoneType not in typing.get_args(known[field]):
                yield f"{place}: found {value!r}, expected a dictionary with the 'name' of a module and its fields"
        elif fault := kind_of(field, known[field]).fault(value):
            yield f'{place}: {fault}'
    yield from _indivisible(module, values, where)


def _indivisible(module: type, values: Mapping[str, Any], where: str) -> Iterator[str]:
    """Heads that do not divide the width they share, with the module's own defaults for what is not given.

    An encoder without a width in the config may have it from its weights: it is not judged here.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(module)}
    for heads, width in DIVIDES:
        if heads in defaults and width in defaults and (width in values or module not in ENCODERS.values()):
            a, b = values.get(heads, defaults[heads]), values.get(width, defaults[width])
            if type(a) is int and type(b) is int and a > 0 and b % a:
                yield f'{where}.{heads}: found {a}, expected a divisor of {width} = {b}'
