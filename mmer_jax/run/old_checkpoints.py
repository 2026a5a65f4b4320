"""Training states written by version 0.1, whose optimiser kept an array for each parameter instead of few vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmer_jax.run import flat, sharding

Tree = Any
MOMENTS = ('mu', 'nu', 'trace')  # of Adam, and of momentum


class Unreadable(ValueError):
    """A state of 0.1 that lacks something which the optimiser keeps."""


def convert(saved: Tree, wanted: Tree, groups: Mapping[str, Sequence[str]]) -> Tree:
    """The state of 0.1, as orbax gives it without a target, in the form of `wanted` (jax.ShapeDtypeStruct).

    groups: the names of the parameters of each vector, in order. Parameters, statistics, keys and counters are taken as
    they are; the moments of a vector are those of its parameters, end to end, for each seed.
    """
    names = {flat.name_of(path): leaf for path, leaf in _leaves(saved)}

    def find(path, leaf):
        name = flat.name_of(path)
        moment = next((part for part in name.split('/') if part in MOMENTS), None)
        if not name.startswith('opt_state'):
            value = _taken(names, name)
        elif moment is None:
            counts = [v for n, v in names.items() if n.startswith('opt_state') and n.endswith('/count')]
            if not counts or not name.endswith('/count'):
                raise Unreadable(f'the optimiser keeps {name}, which the checkpoint of version 0.1 has not')
            value = counts[0]  # all of them count steps
        else:
            group = next(key for key in groups if name.endswith(f'/{key}'))
            own = [_taken(names, f'/{moment}/{parameter}') for parameter in groups[group]]
            value = np.concatenate([part.reshape(len(part), -1) for part in own], 1)
        if value.shape != leaf.shape:
            raise Unreadable(f'{name} has shape {value.shape} in the checkpoint of version 0.1, expected {leaf.shape}')
        return sharding.put_tree(np.asarray(value, leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(find, wanted)


def _leaves(saved: Tree) -> list[tuple[Sequence[Any], np.ndarray]]:
    return [(path, np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(saved)]


def _taken(names: dict[str, np.ndarray], wanted: str) -> np.ndarray:
    found = [value for name, value in names.items() if name == wanted or (wanted[0] == '/' and name.endswith(wanted))]
    if len(found) != 1:
        raise Unreadable(f'the checkpoint of version 0.1 has {len(found)} arrays called {wanted}, expected 1')
    return found[0]
