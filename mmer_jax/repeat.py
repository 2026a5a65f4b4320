"""Layers that repeat, compiled once and not once per layer.

The parameters stay those of the layers one by one ('layer_0', 'layer_1', ...), so that converted weights, checkpoints,
patterns of names and decay by layer know nothing of it. Inside a program they are put together and one loop runs over
them: XLA sees one layer where it saw all.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.layers import call_block, in_order, orders_of
from mmer_jax.whole import whole

Call = Callable[..., Any]  # call(name of a block, *arrays)
Form = Sequence[tuple[Any, tuple[int, ...]]]  # path and shape of each parameter of a layer
STACKED = 'stacked'  # the collection in which a module finds the parameters of its layers put together
ROWS = 'rows'  # and the one with the same numbers end to end, one row per layer, to which the gradient goes
FEW = 2  # parameters of a module that no function of its own is worth


def repeat_layers(
    module: nn.Module,
    blocks: Mapping[str, Sequence[nn.Module]],
    step: Callable[[Call, Any, Any], tuple[Any, Any]],
    carry: Any,
    *,
    train: bool,
    each: Any = None,
    remat: bool = False,
    loop: bool = True,
) -> tuple[Any, list[Any]]:
    """step(call, carry, own) -> (carry, seen) for each layer, one after another -> the last carry, seen of each.

    blocks: the layers' modules by their name in `step`, {'layer': [Block(..., name='layer_0'), ...]}: submodules
    of `module`, those of a list alike but for their names, that take arrays and `train`. step calls each once, and
    nothing else in it may have parameters or draw random numbers; what it closes over is the same for all layers.
    own: the layer's part of `each`, arrays whose first axis is that of the layers. The carry keeps its shapes and
    types; its dictionaries come with their keys sorted. remat: what is inside a block is computed again in the
    backward pass.

    A single layer, layers whose parameters are being made, layers that have more than parameters (batch statistics),
    and all where loop is False, run one by one. In the loop, dropout draws from a key per layer. Each step copies the
    parameters once, so large ones that are only applied are better off without.
    """
    count = len(next(iter(blocks.values())))
    if not count:
        return carry, []
    names = {name: [str(layer.name) for layer in layers] for name, layers in blocks.items()}
    kinds = {kind for kind, held in module.variables.items() for own in names.values() if own[0] in held} - {
        STACKED,
        ROWS,
    }
    if count == 1 or not loop or module.is_initializing() or kinds != {'params'}:
        seen = []
        for number in range(count):

            def call(name, *arrays, number=number):
                return call_block(blocks[name][number], *arrays, train=train, remat=remat)

            carry, one = step(call, carry, _of(each, number))
            seen.append(one)
        return carry, seen

    loose = {name: layers[0].clone(parent=None, name=None) for name, layers in blocks.items()}
    stacked, rows = {}, {}
    for name, own in names.items():
        stacked[name], rows[name] = _stacked(module.variables, own)
    keys = jax.random.split(module.make_rng('dropout'), count) if train and module.has_rng('dropout') else None

    def body(carry, layer):
        params, rows, key, own = layer
        params = {name: _of_rows(params[name], rows[name]) for name in blocks}

        def call(name, *arrays):
            orders = orders_of(arrays)

            def apply(params, key, *values):
                rngs = {} if key is None else {'dropout': key}
                return loose[name].apply({'params': params}, *in_order(values, orders), train=train, rngs=rngs)

            own_key = None if key is None else jax.random.fold_in(key, list(blocks).index(name))
            return (jax.checkpoint(apply, prevent_cse=False) if remat else apply)(params[name], own_key, *arrays)

        return step(call, carry, own)

    carry, seen = jax.lax.scan(body, carry, (stacked, rows, keys, each))
    return carry, [_of(seen, number) for number in range(count)]


class Stack(flax.struct.PyTreeNode):
    """A parameter of layers, the layers first; their names, and the name of the rows that hold its numbers too."""

    layers: Array
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    rows: str = flax.struct.field(pytree_node=False)


def _stacked(variables: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, Mapping[str, Array]]:
    """The parameters of the layers put together and their rows: as a training step has them, or stacked here."""
    for first, stacks in variables.get(STACKED, {}).items():
        known = jax.tree.leaves(stacks, is_leaf=_is_stack)[0].names
        start = known.index(names[0]) if names[0] in known else 0
        end = start + len(names)
        if known[0] == first and known[start:end] == tuple(names):
            ready = stacks, variables[ROWS][first]
            return ready if len(known) == len(names) else jax.tree.map(operator.itemgetter(slice(start, end)), ready)
    return jax.tree.map(lambda *x: jnp.stack(x), *(variables['params'][name] for name in names)), {}


def _is_stack(x: Any) -> bool:
    return isinstance(x, Stack)


def _of_rows(params: Any, rows: Mapping[str, Array]) -> Any:
    """The parameters of one layer, whose gradient is put together in its rows: a loop then carries few arrays, where
    it would carry one for the gradient of each parameter."""
    if not rows:
        return params
    named, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_stack)
    found: dict[int, Array] = {}
    for name, row in rows.items():
        own = {number: (path, stack.layers) for number, (path, stack) in enumerate(named) if stack.rows == name}
        form = tuple((path, tuple(array.shape)) for path, array in own.values())
        arrays = _of_row(tuple(parts_alike(form)), row, [array for _, array in own.values()])
        found |= zip(own, arrays, strict=True)
    return jax.tree.unflatten(treedef, [found[number] for number in range(len(named))])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _of_row(parts: tuple[int, ...], row: Array, arrays: list[Array]) -> list[Array]:
    return arrays


def _of_row_backward(parts, _, gradients):
    left = iter(gradients)
    return jnp.concatenate([join(*itertools.islice(left, count))[0] for count in parts]), None


_of_row.defvjp(lambda parts, row, arrays: (arrays, None), _of_row_backward)


def parts_alike(form: Form) -> list[int]:
    """Into how many parameters each to cut a layer, so that modules in it that are alike are cut by one function."""
    modules = [tuple(own) for _, own in itertools.groupby(form, lambda one: one[0][0])]
    forms = [tuple((path[1:], shape) for path, shape in own) for own in modules]
    return [*map(len, modules)] if any(forms.count(own) > 1 for own in forms if len(own) > FEW) else [len(form)]


def cut(rows: Array, form: Form) -> list[Array]:
    """Arrays (..., *shape) of the form, out of rows (..., N) in which they lie end to end."""
    found: list[Array] = []
    start, left = 0, iter(shape for _, shape in form)
    for count in parts_alike(form):
        shapes = tuple(itertools.islice(left, count))
        end = start + sum(map(math.prod, shapes))
        found += cut_shapes(jax.lax.slice_in_dim(rows, start, end, axis=rows.ndim - 1), shapes=shapes)
        start = end
    return found


@whole
def cut_shapes(rows, *, shapes):
    """As `cut`, by one function per list of shapes."""
    arrays, start = [], 0
    for shape in shapes:
        part = jax.lax.slice_in_dim(rows, start, start + math.prod(shape), axis=rows.ndim - 1)
        arrays.append(part.reshape(*rows.shape[:-1], *shape))
        start += math.prod(shape)
    return arrays


@whole
def join(*arrays):
    """One vector (N,), the arrays end to end."""
    return [jnp.concatenate([x.reshape(-1) for x in arrays])]


def _of(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda x: x[number], tree)
