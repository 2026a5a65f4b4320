"""State and steps: pure functions of arrays, written for one seed, then lifted over many.

train_step(state, batch) -> (state, numbers) and eval_step(state, batch) -> outputs know nothing of seeds, meshes
or files. `over_seeds` maps them over a leading seed axis of the state, so several seeds train in one program on
the same batches; train.py jits the result once over a mesh.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from mmer_jax.losses import Loss, WeightedLoss, check_outputs, keys_read, total_loss
from mmer_jax.models.self_mm import MEMORY
from mmer_jax.run.flat import FlatOptimizer, as_flat
from mmer_jax.run.mixup import mix, of_both_labels
from mmer_jax.run.optimizer import without_frozen
from mmer_jax.run.vectors import HeldParams

Batch = Mapping[str, Array | np.ndarray]


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes; a pytree of arrays.

    key is raw key data, uint32; the key of a step is fold_in(key, step), so resuming needs no more than this. params is
    the model's tree, or while steps follow each other the same in vectors (`held`).
    lr_scale multiplies the update (plateau decay). model_state holds batch statistics and what a model remembers of the
    records. average is the exponential moving average of params that evaluation sees, or None where it sees params
    themselves.
    """

    step: Array
    params: Any
    model_state: Any
    opt_state: Any
    key: Array
    lr_scale: Array
    average: Any = None


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation | FlatOptimizer,
    batch: Batch,
    seed: ArrayLike,
    *,
    average: bool = False,
) -> TrainState:
    """A fresh state of one seed (an int32 scalar, traced or not); `batch` gives the shapes."""
    init_key, key = jax.random.split(jax.random.key(seed))
    variables = dict(model.init(init_key, batch, train=False))
    params = variables.pop('params')
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=jax.jit(optimizer.init)(params),  # one program, not one for each shape
        key=jax.random.key_data(key),
        lr_scale=jnp.ones((), jnp.float32),
        average=jax.tree.map(jnp.copy, params) if average else None,
    )


class StepParts(NamedTuple):
    """A training step taken apart: begin(state, batch) -> gathered; look and add, each (state, gathered, batch, number)
    -> gathered, for each number below `number_of_parts`, all of look before the first of add; finish(state, gathered)
    -> (state, numbers). look is None where no loss needs to see the whole batch.
    """

    number_of_parts: int
    begin: Callable[..., Any]
    look: Callable[..., Any] | None
    add: Callable[..., Any]
    finish: Callable[..., Any]


class Gathered(NamedTuple):
    """What the parts of a step have given so far."""

    value: Array
    model_state: Any
    gradient: Any
    loss_by_part: Array  # (parts, rows of a part)
    seen: dict[str, Array]  # what coupled losses read of the outputs, (parts, rows of a part, ...)


def make_step_parts(
    model: nn.Module,
    optimizer: optax.GradientTransformation | FlatOptimizer,
    loss: Loss,
    *,
    accumulate: int = 1,
    average: float = 0.0,
    freeze: tuple[str, ...] = (),
    mixup: float = 0.0,
) -> StepParts:
    """The parts of `make_train_step` for a caller that runs them itself, one program after another.

    XLA compiles one part instead of `accumulate`, and holds what one needs for its backward pass. In a loop of its own,
    which is what a device wants, convolutions are ten times slower on CPU; unrolled, MFSA on CMU-MOSI in four parts
    took 27 GiB of temporary memory.
    """

    flat = as_flat(optimizer)
    own: Loss | None = loss
    coupled: Loss | None = None
    if accumulate > 1 and isinstance(loss, WeightedLoss):
        own, coupled = loss.own, loss.coupled
    if mixup and own is not None:
        own = of_both_labels(own)

    def apply(params, model_state, batch, key):
        held = params.variables() if isinstance(params, HeldParams) else {'params': params}
        outputs, changed = model.apply(
            {**held, **model_state}, batch, train=True, rngs={'dropout': key}, mutable=list(model_state)
        )
        check_outputs(outputs, batch)
        return outputs, changed

    def loss_fn(params, model_state, part, key, batch, seen, number):
        """Of a part of `batch`. A loss that couples rows sees all rows: the other parts' are what `look` saw of them,
        constants here. By the chain rule the gradients of all parts, each with its own rows live, add up to that of the
        whole batch.
        """
        outputs, changed = apply(params, model_state, part, key)
        total_weight, value, loss_B = batch['weight'].sum(), jnp.zeros(()), jnp.zeros(())
        if own is not None:
            loss_B = own(outputs, part)
            value = total_loss(loss_B, part['weight'], total_weight)
        if coupled is not None:
            whole = {key: _join_parts(x.at[number].set(outputs[key])) for key, x in seen.items()}
            coupled_B = coupled(whole, batch)
            value = value + total_loss(coupled_B, batch['weight'], total_weight)
            loss_B = loss_B + _take_part(coupled_B, number, accumulate)
        return value, (changed, loss_B)

    def part_of(state, batch, number):
        """Part p holds the rows p, p + k, ...: each device finds its share of every part among its own rows.

        -> (the part, its key, the whole batch). The whole batch is mixed, so that partners may be in other parts.
        """
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if mixup:
            batch = mix(batch, key, mixup)
        if accumulate == 1:
            return batch, key, batch
        part = {m: _take_part(x, number, accumulate) for m, x in batch.items()}
        return part, jax.random.fold_in(key, number), batch

    def begin(state, batch):
        gradient, seen = jax.tree.map(jnp.zeros_like, state.params), {}
        if coupled is not None:
            part, key, _ = part_of(state, batch, 0)
            outputs, _ = jax.eval_shape(apply, state.params, state.model_state, part, key)
            read = keys_read(coupled, outputs, part)
            seen = {key: jnp.zeros((accumulate, *outputs[key].shape), outputs[key].dtype) for key in read}
        loss_by_part = jnp.zeros((accumulate, len(batch['weight']) // accumulate))
        return Gathered(jnp.zeros(()), state.model_state, gradient, loss_by_part, seen)

    def look(state, gathered, batch, number):
        part, key, _ = part_of(state, batch, number)
        outputs, _ = apply(state.params, state.model_state, part, key)
        return gathered._replace(seen={key: x.at[number].set(outputs[key]) for key, x in gathered.seen.items()})

    def add(state, gathered, batch, number):
        part, key, batch = part_of(state, batch, number)
        (value, (model_state, loss_B)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, gathered.model_state, part, key, batch, gathered.seen, number
        )
        if freeze and not isinstance(gradient, HeldParams):
            gradient = without_frozen(gradient, freeze)
        if accumulate == 1:
            return Gathered(value, model_state, gradient, loss_B[None], {})
        value = total_loss(loss_B, part['weight'], batch['weight'].sum())  # of its own rows: the parts add up
        filled = part['weight'].sum() > 0  # a part of padding rows alone has no statistics
        model_state = jax.tree.map(lambda new, old: jnp.where(filled, new, old), model_state, gathered.model_state)
        return Gathered(
            gathered.value + value,
            model_state,
            jax.tree.map(jnp.add, gathered.gradient, gradient),
            gathered.loss_by_part.at[number].set(loss_B),
            gathered.seen,
        )

    def finish(state, gathered):
        value, model_state, gradient, loss_by_part, _ = gathered
        vectors = flat.gather(gradient)
        updates, opt_state = flat.update_vectors(vectors, state.opt_state, state.params)
        params = flat.apply(state.params, updates, state.lr_scale)
        numbers = {'loss': value, 'grad_norm': optax.tree.norm(vectors), 'example_loss': loss_by_part.T.reshape(-1)}
        changes = {'params': params, 'model_state': model_state, 'opt_state': opt_state}
        if average:
            decay = jnp.minimum(average, (1 + state.step) / (10 + state.step))
            changes['average'] = optax.incremental_update(params, state.average, 1 - decay)
        return state.replace(step=state.step + 1, **changes), numbers

    return StepParts(accumulate, begin, look if coupled is not None else None, add, finish)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation | FlatOptimizer,
    loss: Loss,
    *,
    accumulate: int = 1,
    average: float = 0.0,
    freeze: tuple[str, ...] = (),
    mixup: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """One optimiser step on one batch. numbers: `loss`, `grad_norm` (before clipping) and `example_loss` (B,).

    accumulate = k splits the batch into k parts, one after another, with the gradient of the whole batch's
    weighted mean loss: the same step with less memory (batch statistics and dropout masks are those of the parts, and
    what Self-MM remembers moves on between them). A loss that couples rows sees the whole batch all the same, which
    costs a second forward pass of every part. average > 0 is the decay of state.average, less in the first steps:
    (1 + step) / (10 + step). Gradients of the parameters that match `freeze` (the optimiser's own patterns) are 0, so
    that they cost nothing. mixup > 0 mixes rows in pairs (run/mixup.py).
    """
    parts = make_step_parts(model, optimizer, loss, accumulate=accumulate, average=average, freeze=freeze, mixup=mixup)

    def train_step(state, batch):
        gathered = parts.begin(state, batch)
        if accumulate == 1:
            return parts.finish(state, parts.add(state, gathered, batch, 0))
        for each in filter(None, (parts.look, parts.add)):

            def one(gathered, number, each=each):
                return each(state, gathered, batch, number), None

            gathered, _ = jax.lax.scan(one, gathered, jnp.arange(accumulate))
        return parts.finish(state, gathered)

    return train_step


def _take_part(x: Array, number: Array, count: int) -> Array:
    return jax.lax.dynamic_index_in_dim(x.reshape(-1, count, *x.shape[1:]), number, axis=1, keepdims=False)


def _join_parts(x_by_part: Array) -> Array:
    """(parts, rows of a part, ...) -> (B, ...) in the order of the batch: `_take_part` for every part taken back."""
    return jnp.moveaxis(x_by_part, 0, 1).reshape(-1, *x_by_part.shape[2:])


def make_eval_step(model: nn.Module, loss: Loss) -> Callable[[Any, Batch], dict[str, Array]]:
    """variables {'params', ...} of one seed and a batch -> `prediction` (B, C), `loss` (B,).

    A loss that couples rows is that of the batch it is evaluated in, its padding rows left out: it changes with
    eval_batch_size, predictions do not.
    """

    def eval_step(variables, batch):
        outputs: Any = model.apply(variables, batch, train=False)
        check_outputs(outputs, batch)
        return {'prediction': outputs['prediction'], 'loss': loss(outputs, batch)}

    return eval_step


def held(state: TrainState, optimizer: optax.GradientTransformation | FlatOptimizer) -> TrainState:
    """The state of one seed in the form in which steps follow each other: params, and their average, in vectors."""
    hold = as_flat(optimizer).hold
    return state.replace(params=hold(state.params), average=None if state.average is None else hold(state.average))


def unheld(state: TrainState) -> TrainState:
    """What `held` was given."""

    def tree(params):
        return params.tree() if isinstance(params, HeldParams) else params

    return state.replace(params=tree(state.params), average=tree(state.average))


def variables_of(state: TrainState) -> dict[str, Any]:
    """What evaluation needs of a state: {'params': ..., 'batch_stats': ...}."""
    return to_evaluate({'params': state.params if state.average is None else state.average, **state.model_state})


def to_evaluate(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables without what is remembered of the training records, which only training reads."""
    return {name: tree for name, tree in variables.items() if name != MEMORY}


def over_seeds(function: Callable[..., Any], seeds: int, states: int = 1) -> Callable[..., Any]:
    """Maps function(state, batch) over the leading axis of state (N seeds); the batch is shared.

    states: how many of the first arguments have that axis. With one seed it is only taken off and put back, so that a
    single run compiles to exactly its own program.
    """

    def mapped(*arguments):
        if seeds > 1:
            axes = [0 if place < states else None for place in range(len(arguments))]
            return jax.vmap(function, in_axes=axes)(*arguments)
        own = jax.tree.map(lambda x: x[0], arguments[:states])
        return jax.tree.map(lambda x: x[None], function(*own, *arguments[states:]))

    return mapped


def take_seed(tree: Any, number: ArrayLike) -> Any:
    """One seed's part of arrays with a leading seed axis."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), tree)
