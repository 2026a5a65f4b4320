"""The seeds of a run: N calls of one seed's program in turns, or one program over all of them by vmap."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from mmer_jax.run.compiling import Background, ByShape, placed
from mmer_jax.run.initialise import CHEAP
from mmer_jax.run.step import StepParts, over_seeds, take_seed, variables_of

Tree = Any


class Plan(NamedTuple):
    """What both ways need: N seeds, where arrays lie, XLA's options of a training step, the shapes of all states."""

    seeds: int
    by_seed: Sharding
    everywhere: Sharding
    options: dict[str, Any] | None
    states: Callable[[], Tree]
    background: Background


def in_turns(train_step: Any, eval_step: Callable[..., Any], plan: Plan) -> dict[str, Callable[..., Any]]:
    """train, predict, unstack and stack over N seeds as N calls of the compiled program of one seed.

    For CPU: two cores are busy with one seed, and vmapped convolutions are grouped ones, which XLA runs there at
    down to half the speed (benchmarks/seeds.py). Compiling once and taking turns loses nothing.
    """
    seeds, everywhere = plan.seeds, plan.everywhere
    compile_one = step_compiler(train_step, lambda function, states: function, everywhere, plan.options)
    predict = jax.jit(lambda v, batch, number: eval_step(take_seed(v, number), batch), out_shardings=everywhere)

    def compile_train(batch):
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=everywhere), plan.states())
        program = compile_one(one, batch)

        def train(states, batch):
            pairs = [program(state, batch) for state in states]
            return [state for state, _ in pairs], [numbers for _, numbers in pairs]

        return train

    def compile_predict(batch):
        number = jax.ShapeDtypeStruct((), np.int32)
        program = predict.lower(variables_of(plan.states()), batch, number).compile()
        return lambda variables, batch: [program(variables, batch, np.int32(n)) for n in range(seeds)]

    cheap = options_of_copies()
    return {
        'train': ByShape('the training step', compile_train, plan.background),
        'predict': ByShape('the evaluation', compile_predict, plan.background),
        'unstack': jax.jit(
            lambda state: [take_seed(state, n) for n in range(seeds)], out_shardings=everywhere, compiler_options=cheap
        ),
        'stack': jax.jit(
            lambda states: jax.tree.map(lambda *x: jnp.stack(x), *states),
            out_shardings=plan.by_seed,
            compiler_options=cheap,
        ),
    }


def by_vmap(train_step: Any, eval_step: Callable[..., Any], plan: Plan) -> dict[str, Callable[..., Any]]:
    """train and predict over N seeds as one program; the state stays whole."""
    lift = partial(over_seeds, seeds=plan.seeds)
    compile_train = step_compiler(train_step, lift, (plan.by_seed, plan.everywhere), plan.options)
    predict = jax.jit(lift(eval_step), out_shardings=plan.everywhere)

    def compile_predict(batch):
        return predict.lower(variables_of(plan.states()), batch).compile()

    train = ByShape('the training step', lambda batch: compile_train(plan.states(), batch), plan.background)
    return {
        'train': train,
        'predict': ByShape('the evaluation', compile_predict, plan.background),
        'unstack': lambda state: state,
        'stack': lambda state: state,
    }


def step_compiler(
    step: Any, lift: Callable[..., Any], out_shardings: Any, options: dict[str, Any] | None = None
) -> Callable[[Tree, Tree], Callable[..., Any]]:
    """A train step, or its parts as programs of their own -> compile(shapes of the state, of the batch), which gives
    what is called with both; lift(function, states=number) adds seeds.
    """
    if not isinstance(step, StepParts):
        train = jax.jit(lift(step, states=1), donate_argnums=0, out_shardings=out_shardings, compiler_options=options)
        return lambda state, batch: train.lower(state, batch).compile()
    begin = jax.jit(lift(step.begin, states=1))
    look = step.look and jax.jit(lift(step.look, states=2), donate_argnums=1, compiler_options=options)
    add = jax.jit(lift(step.add, states=2), donate_argnums=1, compiler_options=options)
    finish = jax.jit(lift(step.finish, states=2), donate_argnums=0, out_shardings=out_shardings)
    parts = step.number_of_parts

    def in_parts(begin, each, finish):
        def train(state, batch):
            gathered = begin(state, batch)
            for function in each:
                for number in range(parts):
                    gathered = function(state, gathered, batch, np.int32(number))
            return finish(state, gathered)

        return train

    def compile_parts(state, batch):
        if jax.device_count() > 1:  # where XLA puts what is gathered is its own choice, at each part anew
            return in_parts(begin, [one for one in (look, add) if one], finish)
        number = jax.ShapeDtypeStruct((), np.int32)
        lowered = begin.lower(state, batch)
        first = lowered.compile()
        gathered = placed(lowered.out_info, first.output_shardings)
        each = [one.lower(state, gathered, batch, number).compile() for one in (look, add) if one]
        return in_parts(first, each, finish.lower(state, gathered).compile())

    return compile_parts


def options_of_copies() -> dict[str, Any] | None:
    """XLA's options for programs that only move arrays about: LLVM's optimisations gain nothing there."""
    return CHEAP if jax.default_backend() == 'cpu' else None
