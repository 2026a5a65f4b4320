"""The seeds of a run: N calls of one seed's program in turns, or one program over all of them by vmap."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from mmer_jax.run.compiling import Background, ByShape
from mmer_jax.run.flat import FlatOptimizer
from mmer_jax.run.initialise import CHEAP
from mmer_jax.run.kept import Kept
from mmer_jax.run.step import StepParts, held, over_seeds, take_seed, unheld, variables_of

Tree = Any


class Plan(NamedTuple):
    """What both ways need: N seeds, where arrays lie, XLA's options of a training step, the shapes of all states, which
    nobody asks for where the programs are kept."""

    seeds: int
    optimizer: FlatOptimizer
    by_seed: Sharding
    everywhere: Sharding
    options: dict[str, Any] | None
    states: Callable[[], Tree]
    background: Background
    kept: Kept


class Turns:
    """The evaluation of one seed, called for each in turn; `program` is what was compiled."""

    def __init__(self, program: Any, seeds: int):
        self.program, self.seeds = program, seeds

    def __call__(self, variables: Tree, batch: Tree) -> list[Tree]:
        return [self.program(variables, batch, np.int32(n)) for n in range(self.seeds)]


def in_turns(train_step: Any, eval_step: Callable[..., Any], plan: Plan) -> dict[str, Callable[..., Any]]:
    """train, predict, unstack and stack over N seeds as N calls of the compiled program of one seed.

    For CPU: two cores are busy with one seed, and vmapped convolutions are grouped ones, which XLA runs there at
    down to half the speed (benchmarks/seeds.py). Compiling once and taking turns loses nothing.
    """
    seeds, everywhere = plan.seeds, plan.everywhere
    step = step_programs(train_step, lambda function, states: function, everywhere, plan.options)
    predict = program_of(lambda v, batch, number: eval_step(take_seed(v, number), batch), out_shardings=everywhere)

    def lower_train(batch):
        def lower():
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), plan.states())
            shapes = jax.eval_shape(partial(held, optimizer=plan.optimizer), shapes)
            one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
            return step.lower(one, batch), None

        programs = plan.kept.programs('training step in turns', batch, lower, options=plan.options)

        def compile_all():
            program = step.join(programs()[0])

            def train(states, batch):
                pairs = [program(state, batch) for state in states]
                return [state for state, _ in pairs], [numbers for _, numbers in pairs]

            return train

        return compile_all

    def lower_predict(batch):
        def lower():
            return [predict.lower(variables_of(plan.states()), batch, jax.ShapeDtypeStruct((), np.int32))], None

        programs = plan.kept.programs('evaluation in turns', batch, lower)
        return lambda: Turns(programs()[0][0], seeds)

    cheap = options_of_copies()
    return {
        'train': ByShape('the training step', lower_train, plan.background),
        'predict': ByShape('the evaluation', lower_predict, plan.background),
        'unstack': jax.jit(
            lambda state: [held(take_seed(state, n), plan.optimizer) for n in range(seeds)],
            out_shardings=everywhere,
            compiler_options=cheap,
        ),
        'stack': jax.jit(
            lambda states: jax.tree.map(lambda *x: jnp.stack(x), *map(unheld, states)),
            out_shardings=plan.by_seed,
            compiler_options=cheap,
        ),
    }


def by_vmap(train_step: Any, eval_step: Callable[..., Any], plan: Plan) -> dict[str, Callable[..., Any]]:
    """train and predict over N seeds as one program; unstack and stack put parameters into vectors and back."""
    lift = partial(over_seeds, seeds=plan.seeds)
    step = step_programs(train_step, lift, (plan.by_seed, plan.everywhere), plan.options)
    predict = program_of(lift(eval_step), out_shardings=plan.everywhere)

    def lower_predict(batch):
        programs = plan.kept.programs(
            'evaluation', batch, lambda: ([predict.lower(variables_of(plan.states()), batch)], None)
        )
        return lambda: programs()[0][0]

    def lower_train(batch):
        def lower():
            shapes = jax.eval_shape(hold, plan.states())
            states = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=plan.by_seed), shapes)
            return step.lower(states, batch), None

        programs = plan.kept.programs('training step', batch, lower, options=plan.options)
        return lambda: step.join(programs()[0])

    hold, cheap = jax.vmap(partial(held, optimizer=plan.optimizer)), options_of_copies()
    return {
        'train': ByShape('the training step', lower_train, plan.background),
        'predict': ByShape('the evaluation', lower_predict, plan.background),
        'unstack': jax.jit(hold, out_shardings=plan.by_seed, compiler_options=cheap),
        'stack': jax.jit(jax.vmap(unheld), out_shardings=plan.by_seed, compiler_options=cheap),
    }


class StepPrograms(NamedTuple):
    """The programs of a training step: lower(shapes of the state, of the batch) -> each of them lowered; join(the same
    compiled) -> what is called with state and batch.
    """

    lower: Callable[[Tree, Tree], list[Any]]
    join: Callable[[Sequence[Any]], Callable[..., Any]]


def step_programs(
    step: Any, lift: Callable[..., Any], out_shardings: Any, options: dict[str, Any] | None = None
) -> StepPrograms:
    """Of a train step, or of its parts as programs of their own; lift(function, states=number) adds seeds."""
    if not isinstance(step, StepParts):
        train = program_of(
            lift(step, states=1), donate_argnums=0, out_shardings=out_shardings, compiler_options=options
        )
        return StepPrograms(lambda state, batch: [train.lower(state, batch)], lambda programs: programs[0])
    begin = program_of(lift(step.begin, states=1))
    look = step.look and program_of(lift(step.look, states=2), donate_argnums=1, compiler_options=options)
    add = program_of(lift(step.add, states=2), donate_argnums=1, compiler_options=options)
    finish = program_of(lift(step.finish, states=2), donate_argnums=0, out_shardings=out_shardings)
    functions = [begin, *([look] if look else []), add, finish]

    def lower(state, batch):
        if jax.device_count() > 1:  # where XLA puts what is gathered is its own choice, at each part anew
            return []
        first = begin.lower(state, batch)
        gathered, number = first.out_info, jax.ShapeDtypeStruct((), np.int32)
        middle = [one.lower(state, gathered, batch, number) for one in functions[1:-1]]
        return [first, *middle, finish.lower(state, gathered)]

    def join(programs):
        begin, *each, finish = programs or functions

        def train(state, batch):
            gathered = begin(state, batch)
            for function in each:
                for number in range(step.number_of_parts):
                    gathered = function(state, gathered, batch, np.int32(number))
            return finish(state, gathered)

        return train

    return StepPrograms(lower, join)


# What a program takes is then in its text, by which mmer_jax/run/kept.py knows it.
program_of = partial(jax.jit, keep_unused=True)


def options_of_copies() -> dict[str, Any] | None:
    """XLA's options for programs that only move arrays about: LLVM's optimisations gain nothing there."""
    return CHEAP if jax.default_backend() == 'cpu' else None
