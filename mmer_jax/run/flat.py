"""An optimiser over few long vectors instead of many parameters, so that its program is small.

MulT has 605 parameter arrays; Adam over each by itself is most of the lines of a training step and most of what XLA
compiles. Here the parameters that are treated alike lie end to end in one vector, in the order of the parameter tree,
and an optax transformation works on a dictionary of these vectors. Its numbers are those of the transformation over
the tree, but for the order in which a norm is summed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmer_jax.run.vectors import HeldParams, Layout, Place

Tree = Any
Vectors = Mapping[str, Any]


class FlatOptimizer(NamedTuple):
    """An optax transformation (init, update over trees), and its parts over vectors.

    gather(tree) -> vectors; update_vectors(vectors of the gradient, state, params) -> vectors of updates, state;
    apply(params, updates, scale) -> params, where scale is a factor of all updates; members(params) -> the names of the
    parameters in each vector, in order. hold(params) -> the same in vectors, which all of these but members take too:
    the form of params between two steps of training.
    """

    init: Callable[[Tree], Any]
    update: Callable[..., tuple[Tree, Any]]
    gather: Callable[[Tree], Any]
    update_vectors: Callable[[Any, Any, Tree], tuple[Any, Any]]
    apply: Callable[[Tree, Any, Any], Tree]
    members: Callable[[Tree], dict[str, list[str]]]
    hold: Callable[[Tree], Any]


def over_vectors(
    groups_of: Callable[[Sequence[str]], Sequence[str | None]],
    transformation: Callable[[Sequence[str]], optax.GradientTransformation],
) -> FlatOptimizer:
    """groups_of(names of all parameters) -> the group of each, None where a parameter is not trained;
    transformation(groups) -> what works on {group: vector}. Parameters of no group have no state and no update.
    """

    def layout(tree):
        named = jax.tree_util.tree_leaves_with_path(tree)
        names = [name_of(path) for path, _ in named]
        groups = [
            group if group is None or leaf.dtype == jnp.float32 else f'{group}, {leaf.dtype}'
            for group, (_, leaf) in zip(groups_of(names), named, strict=True)
        ]
        return groups, list(dict.fromkeys(group for group in groups if group is not None))

    def gather(tree):
        if isinstance(tree, HeldParams):
            return tree.vectors
        groups, known = layout(tree)
        leaves = jax.tree.leaves(tree)
        parts = {key: [leaf for leaf, group in zip(leaves, groups, strict=True) if group == key] for key in known}
        return {key: jnp.concatenate([leaf.reshape(-1) for leaf in part]) for key, part in parts.items()}

    def scatter(vectors, like, put):
        """put(leaf, its part of a vector, None where it is of no group) for each leaf of the tree `like`."""
        groups, _ = layout(like)
        leaves, treedef = jax.tree.flatten(like)
        taken, found = dict.fromkeys(vectors, 0), []
        for leaf, group in zip(leaves, groups, strict=True):
            part = None
            if group is not None:
                start = taken[group]
                taken[group] = start + leaf.size
                part = jax.lax.slice(vectors[group], (start,), (taken[group],)).reshape(leaf.shape)
            found.append(put(leaf, part))
        return jax.tree.unflatten(treedef, found)

    def init(params):
        vectors = gather(params)
        return transformation(list(vectors)).init(vectors)

    def update_vectors(vectors, state, params):
        return transformation(list(vectors)).update(vectors, state, gather(params))

    def update(gradient, state, params):
        vectors, state = update_vectors(gather(gradient), state, params)
        if isinstance(gradient, HeldParams):
            return gradient.replace(vectors=vectors), state
        return scatter(vectors, gradient, lambda leaf, part: jnp.zeros_like(leaf) if part is None else part), state

    def apply(params, updates, scale):
        scaled = {key: vector * scale for key, vector in updates.items()}
        if isinstance(params, HeldParams):
            return params.replace(vectors={key: p + scaled[key].astype(p.dtype) for key, p in params.vectors.items()})
        return scatter(scaled, params, lambda p, u: p if u is None else p + u.astype(p.dtype))

    def members(tree):
        groups, known = layout(tree)
        names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        return {key: [name for name, group in zip(names, groups, strict=True) if group == key] for key in known}

    def hold(params):
        groups, known = layout(params)
        taken, places, apart = dict.fromkeys(known, 0), [], []
        for (path, leaf), group in zip(jax.tree_util.tree_leaves_with_path(params), groups, strict=True):
            start = 0 if group is None else taken[group]
            places.append(Place(tuple(name_of(path).split('/')), tuple(leaf.shape), group, start))
            if group is None:
                apart.append(leaf)
            else:
                taken[group] += leaf.size
        return HeldParams(gather(params), tuple(apart), Layout(tuple(places), jax.tree.structure(params)))

    return FlatOptimizer(init, update, gather, update_vectors, apply, members, hold)


def as_flat(optimizer: optax.GradientTransformation | FlatOptimizer) -> FlatOptimizer:
    """Itself, or any optax transformation with the same parts, which then work on the tree."""
    if isinstance(optimizer, FlatOptimizer):
        return optimizer

    def apply(params, updates, scale):
        return optax.apply_updates(params, jax.tree.map(lambda u: u * scale, updates))

    def same(tree):
        return tree

    return FlatOptimizer(optimizer.init, optimizer.update, same, optimizer.update, apply, lambda tree: {}, same)


def name_of(path: Sequence[Any]) -> str:
    """'encoder/layer_0/output/kernel' of a path in a tree of parameters."""
    parts = (next(getattr(key, a) for a in ('key', 'name', 'idx') if hasattr(key, a)) for key in path)
    return '/'.join(map(str, parts))
