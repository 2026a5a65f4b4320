"""Layers that repeat, compiled once and not once per layer.

The parameters stay those of the layers one by one ('layer_0', 'layer_1', ...), so that converted weights, checkpoints,
patterns of names and decay by layer know nothing of it. Inside a program they are put together and one loop runs over
them: XLA sees one layer where it saw all.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmer_jax.layers import call_block, in_order, orders_of

Call = Callable[..., Any]  # call(name of a block, *arrays)
STACKED = 'stacked'  # the collection in which a module finds the parameters of its layers put together


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
    kinds = {kind for kind, held in module.variables.items() for own in names.values() if own[0] in held} - {STACKED}
    if count == 1 or not loop or module.is_initializing() or kinds != {'params'}:
        seen = []
        for number in range(count):

            def call(name, *arrays, number=number):
                return call_block(blocks[name][number], *arrays, train=train, remat=remat)

            carry, one = step(call, carry, _of(each, number))
            seen.append(one)
        return carry, seen

    loose = {name: layers[0].clone(parent=None, name=None) for name, layers in blocks.items()}
    stacked = {name: _stacked(module.variables, own) for name, own in names.items()}
    keys = jax.random.split(module.make_rng('dropout'), count) if train and module.has_rng('dropout') else None

    def body(carry, layer):
        params, key, own = layer

        def call(name, *arrays):
            orders = orders_of(arrays)

            def apply(params, key, *values):
                rngs = {} if key is None else {'dropout': key}
                return loose[name].apply({'params': params}, *in_order(values, orders), train=train, rngs=rngs)

            own_key = None if key is None else jax.random.fold_in(key, list(blocks).index(name))
            return (jax.checkpoint(apply, prevent_cse=False) if remat else apply)(params[name], own_key, *arrays)

        return step(call, carry, own)

    carry, seen = jax.lax.scan(body, carry, (stacked, keys, each))
    return carry, [_of(seen, number) for number in range(count)]


def _stacked(variables: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The parameters of the layers put together: as a training step has them already, or stacked here."""
    held = [variables['params'][name] for name in names]
    ready = variables.get(STACKED, {}).get(names[0])
    if ready is not None and len(jax.tree.leaves(ready)[0]) == len(names):
        return ready
    return jax.tree.map(lambda *x: jnp.stack(x), *held)


def _of(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda x: x[number], tree)
