"""Whole models: `model(batch, train=...) -> {'prediction': (B, num_outputs), ...}`; their fields are their config."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmer_jax.encoders import ENCODERS
from mmer_jax.models.any_input import AnyInput
from mmer_jax.models.audio_visual import AudioVisual
from mmer_jax.models.cfn_sr import CfnSr
from mmer_jax.models.ef_lstm import EfLstm
from mmer_jax.models.encoded import Encoded
from mmer_jax.models.lf_lstm import LfLstm
from mmer_jax.models.mctn import Mctn
from mmer_jax.models.mfsa import Mfsa
from mmer_jax.models.mica import Mica
from mmer_jax.models.mult import Mult
from mmer_jax.models.ordinal import Ordinal
from mmer_jax.models.pmr import Pmr
from mmer_jax.models.raven import Raven
from mmer_jax.models.self_mm import SelfMm
from mmer_jax.models.stacked_input import StackedInput
from mmer_jax.models.unimodal import Unimodal

MODELS = {
    'any_input': AnyInput,
    'audio_visual': AudioVisual,
    'cfn_sr': CfnSr,
    'ef_lstm': EfLstm,
    'encoded': Encoded,
    'lf_lstm': LfLstm,
    'mctn': Mctn,
    'mfsa': Mfsa,
    'mica': Mica,
    'mult': Mult,
    'ordinal': Ordinal,
    'pmr': Pmr,
    'raven': Raven,
    'self_mm': SelfMm,
    'stacked_input': StackedInput,
    'unimodal': Unimodal,
}

__all__ = [
    'MODELS',
    'AnyInput',
    'AudioVisual',
    'CfnSr',
    'EfLstm',
    'Encoded',
    'LfLstm',
    'Mctn',
    'Mfsa',
    'Mica',
    'Mult',
    'Ordinal',
    'Pmr',
    'Raven',
    'SelfMm',
    'StackedInput',
    'Unimodal',
    'build_model',
    'check_module',
    'reads_records',
]


def build_model(fields: Mapping[str, Any], **common: Any) -> nn.Module:
    """{'name': ..., field: value, ...} -> a module; a nested {'name': ..., ...} is an encoder, under `model` a model.

    `common` are the fields that every model has: modalities, num_outputs, dtype; and num_records, the size of the data
    set, for those that remember its records. An unknown name lists the known ones; a field that the model does not have
    is a TypeError that names it.
    """
    fields = dict(fields)
    model = _lookup(MODELS, 'model', fields.pop('name', None))
    inside = {**common, 'num_outputs': model.outputs_inside(fields)} if hasattr(model, 'outputs_inside') else common
    remembers = _remembers(model)
    if remembers and 'num_records' not in common:
        raise ValueError(f'{model.__name__} remembers records: give num_records, how many the data set has')
    given = {key: value for key, value in common.items() if key != 'num_records' or remembers}
    return _construct(model, {key: _build_field(key, value, inside) for key, value in {**fields, **given}.items()})


def reads_records(fields: Mapping[str, Any]) -> bool:
    """Whether a model, or the one inside it, is trained with batch['record'], the numbers of its records."""
    inside = fields.get('model')
    own = fields.get('name') in MODELS and _remembers(MODELS[fields['name']])
    return own or (isinstance(inside, Mapping) and reads_records(inside))


def _remembers(model: Any) -> bool:
    return 'num_records' in model.__dataclass_fields__


def check_module(model: Any) -> nn.Module:
    """A module of one's own, checked for how it is called; TypeError where the steps could not call it."""
    if not isinstance(model, nn.Module):
        hint = '; give an instance, not the class' if isinstance(model, type) else ''
        raise TypeError(
            f'the model is {getattr(model, "__name__", type(model).__name__)}, expected a linen module{hint}'
        )
    parameters = inspect.signature(type(model).__call__).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    positional = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not (takes_any or 'train' in parameters) or len(positional) < 2:
        raise TypeError(
            f'{type(model).__name__}.__call__({", ".join(parameters)}) cannot be trained: expected '
            '__call__(self, batch, *, train), the batch a dictionary, train=True where dropout acts'
        )
    return model


def _build_field(key, value, common):
    if isinstance(value, Mapping) and key == 'model':
        return build_model(value, **common)
    if isinstance(value, Mapping):
        value = dict(value)
        encoder = _lookup(ENCODERS, 'encoder', value.pop('name', None))
        nested = {key: _build_field(key, v, common) for key, v in value.items()}
        return _construct(encoder, {**nested, 'dtype': common['dtype']})
    return tuple(value) if isinstance(value, list) else value


def _construct(module, fields):
    known = [name for name in module.__dataclass_fields__ if name not in ('parent', 'name')]
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise TypeError(f'{module.__name__} has no field {", ".join(unknown)}; its fields are {", ".join(known)}')
    return module(**fields)


def _lookup(table, kind, name):
    if name not in table:
        raise ValueError(f'{kind} {name!r} is unknown; the known ones are {", ".join(table)}')
    return table[name]
