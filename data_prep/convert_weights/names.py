"""What the converters of PyTorch networks share: rules of names, shapes and orders of axes; strict both ways.

A family's converter lists its network as rules, parameter by parameter; `apply_rules` reads the tensors one at a time
and refuses a file that lacks one, holds one too many, or has one in another shape.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmer_jax.pretrained import Head, listed

Shape = tuple[int, ...]
COUNTERS = r'(^|\.)num_batches_tracked$'  # batches a normalisation has seen; nothing here asks for it


class Rule(NamedTuple):
    """Our name ('params/conv1/kernel'), the original's ('conv1.weight') and the shape the original has."""

    ours: str
    original: str
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a file of weights became.

    family: a name of ENCODERS; fields: those of the encoder that the weights fit; arrays: {'params/conv1/kernel': ...};
    unused: tensors that no parameter takes (a classifier); fresh: our parameters that stay at their initialisation;
    origin: what source.json says beside that, as `origin_of` does; not_read: settings that may change what the original
    computes, and that nothing here stands for; head: the last layer of a classifier.
    """

    family: str
    fields: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    unused: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    not_read: tuple[str, ...] = ()
    head: Head | None = None


def conv(ours: str, original: str, shape: Shape, *, bias: bool = False) -> list[Rule]:
    """A convolution of any number of axes; `shape` is the original's, (features, channels / groups, ...)."""
    rules = [Rule(f'params/{ours}/kernel', f'{original}.weight', shape)]
    return rules + [Rule(f'params/{ours}/bias', f'{original}.bias', shape[:1])] * bias


def dense(ours: str, original: str, shape: Shape, *, bias: bool = True) -> list[Rule]:
    """A dense layer; `shape` is the original's, (features, inputs)."""
    return conv(ours, original, shape, bias=bias)


def batch_norm(ours: str, original: str, features: int) -> list[Rule]:
    """Scale and bias go to `params`, the running mean and variance to `batch_stats`."""
    pairs = (
        ('params', 'scale', 'weight'),
        ('params', 'bias', 'bias'),
        ('batch_stats', 'mean', 'running_mean'),
        ('batch_stats', 'var', 'running_var'),
    )
    return [Rule(f'{kind}/{ours}/{name}', f'{original}.{theirs}', (features,)) for kind, name, theirs in pairs]


def to_ours(name: str, array: np.ndarray) -> np.ndarray:
    """A tensor in the order of our parameter, float32: kernels (features, channels, ...) -> (..., channels, features).

    That turns dense layers (features, inputs) -> (inputs, features) too.
    """
    if name.endswith('/kernel'):
        array = array.transpose(*range(2, array.ndim), 1, 0)
    return np.ascontiguousarray(array, np.float32)


class Renamed(Mapping):
    """Tensors under names without a prefix, such as the 'module.' that DataParallel puts before every name."""

    def __init__(self, tensors: Mapping[str, np.ndarray], prefix: str = 'module.'):
        self._tensors, self._names = tensors, {name.removeprefix(prefix): name for name in tensors}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self._names[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the inherited one would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def apply_rules(
    tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], *, source: str, unused: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """({'params/conv1/kernel': array, ...}, tensors left over) of a file's tensors under the original's names.

    Every rule needs its tensor; a tensor without a rule must match one of the regular expressions `unused`, searched
    in its name. ValueError names the file and lists what is missing, too many or of another shape.
    """
    wanted = {rule.original for rule in rules}
    left = [name for name in tensors if name not in wanted and not re.search(COUNTERS, name)]
    faults = [f'{rule.original} is missing' for rule in rules if rule.original not in tensors]
    faults += [f'{name} is not known' for name in left if not any(re.search(pattern, name) for pattern in unused)]
    if faults:
        raise ValueError(f'{source} does not fit: {listed(faults)}')
    flat = {}
    for rule in rules:
        array = tensors[rule.original]
        if array.shape != rule.shape:
            faults.append(f'{rule.original} has shape {array.shape}, expected {rule.shape}')
        elif not faults:
            flat[rule.ours] = to_ours(rule.ours, array)
    if faults:
        raise ValueError(f'{source} does not fit: {listed(faults)}')
    return flat, tuple(left)


def differences(source: Mapping[str, Any], family: str, fields: Mapping[str, Any]) -> list[str]:
    """Where the source.json of converted weights says another family, or other fields, than the original gives."""
    faults = []
    if source.get('family') != family:
        faults.append(f'source.json has family {source.get("family")!r}, the original gives {family!r}')
    written = source.get('fields')
    if not isinstance(written, Mapping):
        return [*faults, f'source.json has fields {written!r}, expected those of the encoder by name']
    wanted = json.loads(json.dumps(dict(fields)))  # tuples become lists, as in the file
    for name in sorted(wanted.keys() | written.keys()):
        found, expected = (repr(side[name]) if name in side else 'nothing' for side in (written, wanted))
        if found != expected:
            faults.append(f'source.json has {name} = {found}, the original gives {expected}')
    return faults


def origin_of(path: Path) -> dict[str, Any]:
    """What source.json says of one file of weights: its name and its SHA-256."""
    return {'source': path.name, 'sha256': {path.name: file_hash(path)}}


def file_hash(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
