"""Shapes of what blocks without a mask are given; what does not fit is one line that names the block."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array


def shown(x: Any) -> str:
    """The shape of an array, the type of anything else."""
    return str(tuple(x.shape)) if hasattr(x, 'shape') else 'None' if x is None else type(x).__name__


def check_vectors(block: str, vectors: Sequence[Array]) -> None:
    """ValueError where `vectors` are not a list of one or more (B, D_m) with as many rows each."""
    listed = isinstance(vectors, (list, tuple))
    if not listed or not vectors or any(getattr(x, 'ndim', None) != 2 for x in vectors):
        found = f'[{", ".join(map(shown, vectors))}]' if listed else shown(vectors)
        raise ValueError(f'{block}: found {found}, expected a list of one or more vectors (B, D), one a modality')
    if len({len(x) for x in vectors}) > 1:
        found = ', '.join(map(shown, vectors))
        raise ValueError(f'{block}: vectors of shapes {found}, expected as many rows of every modality')


def check_shape(block: str, x: Array, axes: str, *, name: str) -> None:
    """ValueError where x is no array with these axes, a letter each."""
    if getattr(x, 'ndim', None) != len(axes):
        hint = '; jnp.stack(list, 1) makes it of a list' if isinstance(x, (list, tuple)) and axes[1:2] == 'M' else ''
        raise ValueError(f'{block}: {name} are {shown(x)}, expected ({", ".join(axes)}){hint}')


def check_maps(block: str, x: Mapping[str, Array]) -> None:
    """ValueError where x is no dictionary of vectors or maps (B, ..., C) by modality, with as many rows each."""
    named = isinstance(x, Mapping)
    fits = named and bool(x) and all(getattr(x_m, 'ndim', 0) >= 2 for x_m in x.values())
    if not fits or len({len(x_m) for x_m in x.values()}) > 1:
        found = {m: shown(x_m) for m, x_m in x.items()} if named else shown(x)
        raise ValueError(
            f'{block}: found {found}, expected a dictionary of (B, ..., C) by modality, as many rows of each'
        )
