"""A config as text: each key with its value, as `--config.KEY=VALUE` takes it, and its comment in configs/base.py."""

import dataclasses
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from mmer_jax.settings.keys import KEYS, OPEN, leaves
from mmer_jax.settings.overrides import ROOT

WIDTH = 44  # of a key and its value; comments begin behind it


def comments() -> tuple[dict[str, str], dict[str, str]]:
    """Of configs/base.py, in its order: the comment behind each key ('' for none), and those that stand above a key."""
    text = (ROOT / 'configs' / 'base.py').read_text(encoding='utf-8')
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = {token.start[0]: token.string.lstrip('# ') for token in tokens if token.type == tokenize.COMMENT}
    behind: dict[str, str] = {}
    above: dict[str, str] = {}
    waiting = ''
    for number, line in enumerate(text.splitlines(), 1):
        assigned = re.match(r'\s+config\.([\w.]+) = ', line)
        if assigned and assigned[1] in (*KEYS, *OPEN):
            behind[assigned[1]] = found.get(number, '')
            if waiting:
                above[assigned[1]], waiting = waiting, ''
        elif number in found:
            waiting = f'{waiting} {found[number]}'.strip()
    return behind, above


def lines(config: ConfigDict) -> Iterator[str]:
    """Every key in the order of configs/base.py, and the fields of the model that the config leaves at their defaults.

    The config is one that check_config_values lets pass.
    """
    behind, above = comments()
    flat = dict(leaves(config.to_dict()))
    for key in behind:
        if key in above:
            yield from ('', f'  {above[key]}')
        inside = list(members(flat[key], key)) if key in OPEN else []
        if not inside:
            yield _line(key, flat[key], behind[key] or (KEYS[key].words if key in KEYS else ''))
        for number, (name, value) in enumerate(inside):
            yield _line(name, value, '' if number else behind[key])
        if key == 'model' and flat[key].get('name'):
            for name, value in defaults(flat[key]):
                yield _line(name, value, 'default, if the weights do not say it' if flat['pretrained'] else 'default')


def members(values: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """What lies in a dictionary, by dotted key."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from members(value, f'{where}.{name}')
        else:
            yield f'{where}.{name}', value


def defaults(model: Mapping[str, Any], where: str = 'model', of: str = 'model') -> Iterator[tuple[str, Any]]:
    """The fields of the modules of config.model that are not set, by dotted key."""
    from mmer_jax.settings import model_fields  # with flax and all models

    module = model_fields.table_of(of)[1][model['name']]
    known = model_fields.fields_of(module)
    for field in dataclasses.fields(module):
        given = model.get(field.name)
        if field.name not in known:
            continue
        if isinstance(given, Mapping) and model_fields.is_module(known[field.name]):
            yield from defaults(given, f'{where}.{field.name}', field.name)
        elif field.name not in model and field.default is not dataclasses.MISSING:
            yield f'{where}.{field.name}', field.default


def value_text(value: Any) -> str:
    """A value as `--config.KEY=` takes it: a,b for a tuple of words or numbers."""
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, tuple | list):
        plain = all(isinstance(item, str | int | float) and re.fullmatch(r'[\w.+-]+', str(item)) for item in value)
        return ','.join(map(str, value)) if value and plain else repr(tuple(value))
    return repr(value)


def _line(key: str, value: Any, comment: str) -> str:
    text = f'  {key} = {value_text(value)}'
    return f'{text:<{WIDTH}}  # {comment}' if comment else text
