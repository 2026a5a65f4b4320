"""What an answer costs: floating-point operations per example, as XLA counts them in programs that are compiled anyway.

It stands in results.json as `flops_per_example`, a fact of model, shapes and compiler, not of the clock.
"""

import collections
from typing import Any, cast

import jax
import numpy as np

from mmer_jax.data.batches import LoadBatch
from mmer_jax.run import sharding
from mmer_jax.run.compiling import ByShape, shapes_of
from mmer_jax.run.program import Program
from mmer_jax.run.seeds import Turns

KEY = 'flops_per_example'
LOOP = ' while('  # in the text of a compiled program


def of_answers(program: Program, load: LoadBatch, params: Any, seeds: int) -> dict[str, float | None]:
    """{'parameters': number of one seed's, KEY: operations per record of a split that was predicted, of one seed, the
    mean over its records as they were padded}.

    params: of all seeds. KEY is None where operations are not known (`operations`); nothing is compiled.
    """
    parameters = sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(params))
    return {'parameters': parameters, KEY: _flops(program, load, seeds)}


def _flops(program: Program, load: LoadBatch, seeds: int) -> float | None:
    sizes = collections.Counter(bucket for bucket, records in load.plan.epoch(0) for _ in records)
    total, predict = 0.0, cast(ByShape, program.predict)
    for bucket, records in sizes.items():
        empty = load((0, bucket, np.zeros(0, np.int64)))
        batch = shapes_of(empty, sharding.batch_sharding(program.mesh), load.process_count)
        found = operations(predict.known(batch), program.mesh.size, seeds)
        if found is None:
            return None
        total += found / len(empty['weight']) / load.process_count * records
    return round(total / sum(sizes.values()), 1)


def operations(program: Any, devices: int, seeds: int) -> float | None:
    """Of one seed in a compiled evaluation: a multiplication with its addition counts as two. None where there is no
    program, where the backend does not say, and where it has loops: of those XLA counts one turn."""
    each, one = (1, program.program) if isinstance(program, Turns) else (seeds, program)
    if one is None or LOOP in one.as_text():
        return None
    counted = (one.cost_analysis() or {}).get('flops', 0.0)  # of one device
    return counted * devices / each if counted > 0 else None
