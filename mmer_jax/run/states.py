"""How a run begins: the states of all its seeds, and their shapes."""

import dataclasses
import functools
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from mmer_jax.run import initialise, sharding
from mmer_jax.run.flat import FlatOptimizer
from mmer_jax.run.initialise import Recipe, Traced, trace
from mmer_jax.run.kept import Gone, Kept
from mmer_jax.run.step import TrainState, init_state


@dataclasses.dataclass(frozen=True)
class States:
    """How a run begins: the shapes of its states and their values. The module is traced once for both, and not at all
    where the program of its initialisation is kept.
    """

    model: nn.Module
    optimizer: FlatOptimizer
    example: Mapping[str, np.ndarray]
    by_seed: Any
    seeds: int
    kept: Kept
    average: bool = False

    @functools.cached_property
    def traced(self) -> Traced:
        """Parameters, other variables and key of one seed."""

        def begin(seed):
            state = init_state(self.model, optax.identity(), self.example, seed)
            return state.params, state.model_state, state.key

        return trace(begin, np.int32(0))

    @functools.cached_property
    def program(self) -> tuple[Any, Recipe]:
        """The compiled initialisation of all seeds, and what it takes."""

        def lower():
            lowered, recipe = initialise.lowered(self.traced, self.seeds)
            return [lowered], recipe

        def find():
            seeds, device = jax.ShapeDtypeStruct((self.seeds,), np.int32), initialise.device()
            options = initialise.options_on(device)
            return self.kept.programs('initialisation', seeds, lower, options=options, devices=[device])()

        try:
            (program,), recipe = find()
        except Gone:
            (program,), recipe = find()
        return program, recipe

    def _begin(self, seeds: np.ndarray) -> Any:
        """Parameters, other variables and keys of all seeds, as numpy."""
        if self.kept.facts and len(seeds) == self.seeds:
            return initialise.fresh_by(*self.program, seeds)
        return initialise.fresh(self.traced, seeds)

    def shapes(self, seeds: int) -> TrainState:
        """What `init` gives of as many seeds, as jax.ShapeDtypeStruct; nothing is computed."""
        number: Any = partial(jax.ShapeDtypeStruct, ())
        params, model_state, key = self.kept.value('shapes', lambda: self.traced.shapes)
        one = TrainState(
            step=number(np.int32),
            params=params,
            model_state=model_state,
            opt_state=jax.eval_shape(self.optimizer.init, params),
            key=key,
            lr_scale=number(np.float32),
            average=params if self.average else None,
        )
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype, sharding=self.by_seed), one)

    def init(self, seeds: np.ndarray) -> TrainState:
        """Fresh states of all `seeds` (N,), placed: a leading seed axis everywhere. Same values as `init_state`."""
        params, model_state, key = sharding.put_tree(self._begin(np.asarray(seeds, np.int32)), self.by_seed)
        return TrainState(
            step=sharding.put_tree(np.zeros(len(seeds), np.int32), self.by_seed),
            params=params,
            model_state=model_state,
            opt_state=jax.jit(jax.vmap(self.optimizer.init), out_shardings=self.by_seed)(params),
            key=key,
            lr_scale=sharding.put_tree(np.ones(len(seeds), np.float32), self.by_seed),
            average=sharding.copy_tree(params) if self.average else None,
        )
