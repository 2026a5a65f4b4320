"""Parameters as the few vectors that the optimiser works on.

Between two steps of training nobody needs them one by one: they stay end to end in the vectors of `flat`, and a
training step takes out of these what the model asks for. Layers that repeat are taken out together, one array per
parameter of a layer with the layers as first axis, which is how `mmer_jax.repeat` wants them, and their gradient comes
back as one row per layer. A step of MulT, 603 parameters, has a third fewer operations so.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from mmer_jax.repeat import FEW, ROWS, STACKED, Stack, cut, cut_shapes, join

Tree = Any


@dataclasses.dataclass(frozen=True)
class Place:
    """A parameter: its path in the tree, its shape, and its vector (None: it is in none) and first element there."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    vector: str | None
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Block:
    """Parameters of layers that are alike, which follow each other in the vector of each layer: members[layer][n]."""

    members: tuple[tuple[int, ...], ...]  # numbers of places
    names: tuple[str, ...]  # of the layers
    path: tuple[str, ...]  # of the first one
    form: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]  # path inside a layer and shape of each n

    def end_to_end(self, places: Sequence[Place]) -> bool:
        """Whether the layers follow each other too, in one vector."""
        starts = [(places[layer[0]].vector, places[layer[0]].start) for layer in self.members]
        width = sum(places[number].size for number in self.members[0])
        return all(start == (starts[0][0], starts[0][1] + n * width) for n, start in enumerate(starts))


@dataclasses.dataclass(frozen=True)
class Layout:
    """The places of all parameters, in the order of the tree's leaves."""

    places: tuple[Place, ...]
    treedef: Any

    @functools.cached_property
    def modules(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the places of each module of the model that lies in one vector and has another one like it."""
        found: dict[Any, list[tuple[int, ...]]] = {}
        for _, group in itertools.groupby(range(len(self.places)), lambda number: self.places[number].path[0]):
            numbers = tuple(group)
            form = tuple((self.places[n].path[1:], self.places[n].shape) for n in numbers)
            if len(numbers) > FEW and len({self.places[n].vector for n in numbers}) == 1:
                found.setdefault((form, self.places[numbers[0]].vector), []).append(numbers)
        alike = (own for (_, vector), own in found.items() if vector is not None and len(own) > 1)
        return tuple(itertools.chain.from_iterable(alike))

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Of the layers that are alike: siblings whose names differ in their first number alone, in its order."""
        layers: dict[tuple[Any, ...], dict[int, list[int]]] = {}
        for number, place in enumerate(self.places):
            for depth, name in enumerate(place.path[:-1]):
                if found := re.match(r'(\D*)(\d+)(.*)', name):
                    key = (place.path[:depth], found[1], found[3])
                    layers.setdefault(key, {}).setdefault(int(found[2]), []).append(number)
                    break
        blocks = []
        for by_number in layers.values():
            alike: dict[Any, list[list[int]]] = {}
            for _, numbers in sorted(by_number.items()):
                path = self.places[numbers[0]].path
                depth = next(n for n, part in enumerate(path) if re.search(r'\d', part)) + 1
                form = tuple((self.places[n].path[depth:], self.places[n].shape) for n in numbers)
                alike.setdefault(form, []).append(numbers)
            for form, same in alike.items():
                if len(same) > 1 and all(self.places[n].vector is not None for numbers in same for n in numbers):
                    blocks += self._split(same, form)
        return tuple(blocks)

    def _split(self, layers: list[list[int]], form: Sequence[Any]) -> list[Block]:
        """One block per combination of vectors: with weight decay, biases lie in another vector than kernels."""
        columns: dict[tuple[Any, ...], list[int]] = {}
        for column in range(len(layers[0])):
            key = tuple(self.places[numbers[column]].vector for numbers in layers)
            columns.setdefault(key, []).append(column)
        paths = [self.places[numbers[0]].path[: -len(form[0][0])] for numbers in layers]
        names = tuple(path[-1] for path in paths)
        return [
            Block(
                tuple(tuple(numbers[c] for c in taken) for numbers in layers),
                names=names,
                path=paths[0],
                form=tuple(form[c] for c in taken),
            )
            for taken in columns.values()
        ]


class HeldParams(flax.struct.PyTreeNode):
    """Parameters in `vectors`, those that are not trained in `apart`; `layout` says what is where."""

    vectors: Mapping[str, Array]
    apart: tuple[Array, ...]
    layout: Layout = flax.struct.field(pytree_node=False)

    def variables(self) -> dict[str, Tree]:
        """What a model is applied to: 'params', and its repeated layers put together."""
        leaves, rows = _take_out(self.layout, dict(self.vectors))
        stacked: dict[str, Any] = {}
        by_layer: dict[str, Any] = {}
        for number, (block, rows_LN) in enumerate(zip(self.layout.blocks, rows, strict=True)):
            _put(by_layer, (*block.path, str(number)), rows_LN)
            arrays = cut(jax.lax.stop_gradient(rows_LN), block.form)
            for (path, _), array in zip(block.form, arrays, strict=True):
                _put(stacked, (*block.path, *path), Stack(array, block.names, str(number)))
        return {'params': self._tree(leaves), STACKED: stacked, ROWS: by_layer}

    def tree(self) -> Tree:
        """The parameters one by one."""
        return self._tree(_leaves(self.layout, dict(self.vectors)))

    def _tree(self, leaves: Sequence[Array]) -> Tree:
        apart = iter(jax.lax.stop_gradient(self.apart))
        trained = iter(leaves)
        found = [next(apart if place.vector is None else trained) for place in self.layout.places]
        return jax.tree.unflatten(self.layout.treedef, found)


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _leaves(layout: Layout, vectors: Mapping[str, Array]) -> list[Array]:
    places, found = layout.places, dict[int, Array]()
    for numbers in layout.modules:
        row = _part(vectors, places[numbers[0]], sum(places[n].size for n in numbers))
        found |= zip(numbers, cut_shapes(row, shapes=tuple(places[n].shape for n in numbers)), strict=True)
    for number, place in enumerate(places):
        if place.vector is not None and number not in found:
            found[number] = _part(vectors, place, place.size).reshape(place.shape)
    return [found[number] for number in sorted(found)]


def _part(vectors: Mapping[str, Array], place: Place, size: int) -> Array:
    assert place.vector is not None
    return jax.lax.slice(vectors[place.vector], (place.start,), (place.start + size,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _take_out(layout: Layout, vectors: dict[str, Array]) -> tuple[list[Array], list[Array]]:
    """The trained parameters one by one, and those of each block end to end, one row per layer. What nobody uses costs
    nothing."""
    places, rows = layout.places, []
    for block in layout.blocks:
        width = sum(places[number].size for number in block.members[0])
        heads = [places[numbers[0]] for numbers in block.members]
        if block.end_to_end(places):
            found = _part(vectors, heads[0], width * len(heads))
        else:
            found = jnp.concatenate([_part(vectors, head, width) for head in heads])
        rows.append(found.reshape(len(heads), width))
    return _leaves(layout, vectors), rows


def _take_out_forward(layout: Layout, vectors: Any) -> tuple[Any, dict[str, Any]]:
    values = {key: primal.value for key, primal in vectors.items()}
    return _take_out(layout, values), {key: jnp.zeros((), value.dtype) for key, value in values.items()}


def _take_out_backward(layout: Layout, types: Mapping[str, Array], gradient: Any) -> tuple[dict[str, Array]]:
    """Puts together what has a gradient, in the order of the vectors: without it, JAX would add as many vectors."""
    by_leaf, by_block = gradient
    numbers = [number for number, place in enumerate(layout.places) if place.vector is not None]
    parts = {n: g for n, g in zip(numbers, by_leaf, strict=True) if not isinstance(g, SymbolicZero)}
    pieces: dict[str, dict[int, Array]] = {}  # first element of a piece of a vector: the piece
    done: set[int] = set()
    for block, rows in zip(layout.blocks, by_block, strict=True):
        if isinstance(rows, SymbolicZero):
            continue
        inner = [number for layer in block.members for number in layer]
        head = layout.places[inner[0]]
        if block.end_to_end(layout.places) and not parts.keys() & set(inner):
            pieces.setdefault(str(head.vector), {})[head.start] = rows.reshape(-1)
            done.update(inner)
            continue
        for layer, row in zip(block.members, rows, strict=True):
            head = layout.places[layer[0]]
            if parts.keys() & set(layer):  # used both ways
                row = row + join(*(parts.get(n, jnp.zeros(layout.places[n].shape, row.dtype)) for n in layer))[0]
            pieces.setdefault(str(head.vector), {})[head.start] = row
            done.update(layer)
    for module in layout.modules:
        if not done & set(module) and parts.keys() >= set(module):
            head = layout.places[module[0]]
            pieces.setdefault(str(head.vector), {})[head.start] = join(*(parts[number] for number in module))[0]
            done.update(module)
    for number in numbers:
        place = layout.places[number]
        if number not in done:
            missing = number not in parts
            part = jnp.zeros(place.size, types[str(place.vector)].dtype) if missing else parts[number].reshape(-1)
            pieces.setdefault(str(place.vector), {})[place.start] = part
    return ({key: jnp.concatenate([part for _, part in sorted(found.items())]) for key, found in pieces.items()},)


_take_out.defvjp(_take_out_forward, _take_out_backward, symbolic_zeros=True)
