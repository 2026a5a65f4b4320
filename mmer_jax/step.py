"""State and steps: pure functions of arrays, written for one seed, then lifted over many.

train_step(state, batch) -> (state, numbers) and eval_step(state, batch) -> outputs know nothing of seeds, meshes
or files. `over_seeds` maps them over a leading seed axis of the state, so several seeds train in one program on
the same batches; train.py jits the result once over a mesh.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from mmer_jax.losses import Loss, total_loss
from mmer_jax.optimizer import without_frozen

Array = Any
Batch = Mapping[str, Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes; a pytree of arrays.

    key is raw key data, uint32; the key of a step is fold_in(key, step), so resuming needs no more than this.
    lr_scale multiplies the update (plateau decay). model_state holds batch statistics and the like. average is the
    exponential moving average of params that evaluation sees, or None where it sees params themselves.
    """

    step: Array
    params: Any
    model_state: Any
    opt_state: Any
    key: Array
    lr_scale: Array
    average: Any = None


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, batch: Batch, seed: Array, *, average: bool = False
) -> TrainState:
    """A fresh state of one seed (an int32 scalar, traced or not); `batch` gives the shapes."""
    init_key, key = jax.random.split(jax.random.key(seed))
    variables = dict(model.init(init_key, batch, train=False))
    params = variables.pop('params')
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(params),
        key=jax.random.key_data(key),
        lr_scale=jnp.ones((), jnp.float32),
        average=jax.tree.map(jnp.copy, params) if average else None,
    )


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    accumulate: int = 1,
    unroll: bool = True,
    average: float = 0.0,
    freeze: tuple[str, ...] = (),
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """One optimiser step on one batch. numbers: `loss`, `grad_norm` (before clipping) and `example_loss` (B,).

    accumulate = k splits the batch into k parts, one after another, with the gradient of the whole batch's
    weighted mean loss: the same step with less memory (batch statistics are those of the parts). unroll keeps the
    parts out of a loop, which on CPU makes convolutions ten times slower; on a device a loop saves memory.
    average > 0 is the decay of state.average, less in the first steps: (1 + step) / (10 + step). Gradients of the
    parameters that match `freeze` (the optimiser's own patterns) are 0, so that they cost nothing.
    """

    def loss_fn(params, model_state, batch, key, total_weight):
        outputs, changed = model.apply(
            {'params': params, **model_state}, batch, train=True, rngs={'dropout': key}, mutable=list(model_state)
        )
        loss_B = loss(outputs, batch)
        return total_loss(loss_B, batch['weight'], total_weight), (changed, loss_B)

    def part_gradient(state, model_state, batch, part, total_weight):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        key = jax.random.fold_in(key, part) if accumulate > 1 else key
        (value, (model_state, loss_B)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, model_state, batch, key, total_weight
        )
        return value, model_state, loss_B, without_frozen(gradient, freeze) if freeze else gradient

    def accumulated_gradient(state, batch, total_weight):
        # Part p holds the rows p, p + k, ...: each device finds its share of every part among its own rows.
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0), dict(batch))

        def body(carry, part):
            value, model_state, gradient = carry
            part_value, changed, loss_B, part_grad = part_gradient(
                state, model_state, part['batch'], part['number'], total_weight
            )
            filled = part['batch']['weight'].sum() > 0  # a part of padding rows alone has no statistics
            model_state = jax.tree.map(lambda new, old: jnp.where(filled, new, old), changed, model_state)
            return (value + part_value, model_state, jax.tree.map(jnp.add, gradient, part_grad)), loss_B

        zero = (jnp.zeros(()), state.model_state, jax.tree.map(jnp.zeros_like, state.params))
        (value, model_state, gradient), loss_PB = jax.lax.scan(
            body, zero, {'batch': parts, 'number': jnp.arange(accumulate)}, unroll=accumulate if unroll else 1
        )
        return value, model_state, loss_PB.T.reshape(-1), gradient

    def train_step(state, batch):
        total_weight = batch['weight'].sum()
        if accumulate > 1:
            value, model_state, loss_B, gradient = accumulated_gradient(state, batch, total_weight)
        else:
            value, model_state, loss_B, gradient = part_gradient(state, state.model_state, batch, 0, total_weight)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: u * state.lr_scale, updates))
        numbers = {'loss': value, 'grad_norm': optax.tree.norm(gradient), 'example_loss': loss_B}
        changes = {'params': params, 'model_state': model_state, 'opt_state': opt_state}
        if average:
            decay = jnp.minimum(average, (1 + state.step) / (10 + state.step))
            changes['average'] = optax.incremental_update(params, state.average, 1 - decay)
        return state.replace(step=state.step + 1, **changes), numbers

    return train_step


def make_eval_step(model: nn.Module, loss: Loss) -> Callable[[Any, Batch], dict[str, Array]]:
    """variables {'params', ...} of one seed and a batch -> `prediction` (B, C), `loss` (B,)."""

    def eval_step(variables, batch):
        outputs: Any = model.apply(variables, batch, train=False)
        return {'prediction': outputs['prediction'], 'loss': loss(outputs, batch)}

    return eval_step


def variables_of(state: TrainState) -> dict[str, Any]:
    """What evaluation needs of a state: {'params': ..., 'batch_stats': ...}."""
    return {'params': state.params if state.average is None else state.average, **state.model_state}


def over_seeds(function: Callable[..., Any], seeds: int) -> Callable[..., Any]:
    """Maps function(state, batch) over the leading axis of state (N seeds); the batch is shared.

    With one seed the axis is only taken off and put back, so that a single run compiles to exactly its own program.
    """
    if seeds > 1:
        return jax.vmap(function, in_axes=(0, None))

    def single(state, batch):
        return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], state), batch))

    return single


def take_seed(tree: Any, number: Array) -> Any:
    """One seed's part of arrays with a leading seed axis."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), tree)
