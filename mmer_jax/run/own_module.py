"""What identifies a module of one's own, `train_and_evaluate(..., model=MyModule())`, in a workdir.

config.json cannot name it, so its class, its fields and a fingerprint of what it computes stand there under
`own_module`. The fingerprint is of the traced programs (jaxprs) of its initialisation, its training and its evaluation
pass: comments, formatting and renamed variables change nothing, an edited body does, also in what it calls. It holds
for one version of jax and one kind of device, and is compared only there; class and fields always are.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

KEY = 'own_module'  # of config.json
ADDRESS = re.compile(r' at 0x[0-9a-f]+')


def outline(module: nn.Module) -> dict[str, Any]:
    """Class and fields of a module, as JSON; a field that holds a module is such a dictionary itself."""
    fields = [field.name for field in dataclasses.fields(module) if field.name not in ('parent', 'name')]
    return {'class': type(module).__qualname__, 'fields': {name: _plain(getattr(module, name)) for name in fields}}


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return outline(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return ADDRESS.sub('', repr(value))


def describe(module: nn.Module, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The entry of config.json; `batch` as program.example_batch makes it."""
    shapes = {key: [list(array.shape), str(array.dtype)] for key, array in batch.items()}
    where = {'jax': jax.__version__, 'backend': jax.default_backend()}
    return {**outline(module), 'batch': shapes, **where, 'program': fingerprint(module, batch)}


def fingerprint(module: nn.Module, batch: Mapping[str, Any]) -> str:
    """Of the traced programs of a module on batches of these shapes; nothing is computed."""

    def begin(batch):
        return module.init(jax.random.key(0), batch, train=False)

    def evaluate(variables, batch):
        return module.apply(variables, batch, train=False)

    def train(variables, batch):
        changing = [name for name in variables if name != 'params']
        return module.apply(variables, batch, train=True, rngs={'dropout': jax.random.key(0)}, mutable=changing)

    batch = {key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in batch.items()}
    variables = jax.eval_shape(begin, batch)
    found = hashlib.sha256()
    for function, arguments in ((begin, (batch,)), (evaluate, (variables, batch)), (train, (variables, batch))):
        traced = jax.make_jaxpr(function)(*arguments)
        found.update(ADDRESS.sub('', str(traced)).encode())
        for constant in traced.consts:
            if jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
                constant = jax.random.key_data(constant)
            found.update(np.asarray(constant).tobytes())
    return found.hexdigest()[:16]


def check(saved: Mapping[str, Any] | None, module: nn.Module | None, where: Any) -> None:
    """ValueError where the workdir `where` was begun with another module than `module`; None is the config's own."""
    if saved is None:
        if module is None:
            return
        raise ValueError(
            f'{where} was begun with the model of its config (or its own module was not recorded), now it is '
            f'{outline(module)["class"]}: leave model= out, or take a new --workdir'
        )
    if module is None:
        raise ValueError(
            f'{where} was begun with an own module, {saved["class"]}, which no config can build: give it to the Python '
            'function, model=... (train_and_evaluate, open_run, evaluate_checkpoint, ablate, tasks_of)'
        )
    different = list(_differences(saved, outline(module)))
    if not different and (saved['jax'], saved['backend']) == (jax.__version__, jax.default_backend()):
        batch = {key: jax.ShapeDtypeStruct(tuple(shape), dtype) for key, (shape, dtype) in saved['batch'].items()}
        if fingerprint(module, batch) != saved['program']:
            different = [f'{saved["class"]} computes something else than then, its code was edited']
    if different:
        raise ValueError(
            f'{where} was begun with another module: {"; ".join(different)}. Take a new --workdir, or that module'
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = '') -> Any:
    """'field hidden: 3, now 4' for whatever differs between two outlines."""
    if old['class'] != new['class']:
        yield f'{prefix or "class"}: {old["class"]}, now {new["class"]}'
        return
    for name in sorted({*old['fields'], *new['fields']}):
        a, b = old['fields'].get(name), new['fields'].get(name)
        if all(isinstance(value, Mapping) and 'class' in value and 'fields' in value for value in (a, b)):
            yield from _differences(a, b, f'{prefix}{name}.')
        elif a != b:
            yield f'field {prefix}{name}: {a!r}, now {b!r}'
