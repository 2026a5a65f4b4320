"""The device mesh and where arrays lie on it: the only file that names mesh axes.

Axis 'data' splits the rows of a batch, axis 'seed' the leading seed axis of the state. With the default
seed = 1 every device holds every seed. jit does the rest: gradients and batch statistics are global.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(seed: int = 1, data: int = -1) -> Mesh:
    """A (seed, data) mesh over all devices of all processes; data = -1 takes what is left."""
    devices = jax.device_count()
    data = devices // seed if data == -1 else data
    if seed * data != devices:
        raise ValueError(
            f'mesh seed={seed} x data={data} needs {seed * data} devices, this run has {devices} '
            f'({jax.default_backend()}); set config.mesh.seed and config.mesh.data so that their product is {devices}'
        )
    # Auto axes: under the default Explicit ones linen's Embed and RNN raise ShardingTypeError.
    return jax.make_mesh((seed, data), ('seed', 'data'), axis_types=(AxisType.Auto, AxisType.Auto))


def check_sizes(mesh: Mesh, *, batch_size: int, seeds: int, accumulate: int = 1) -> None:
    """ValueError where a batch or the seeds do not divide over the devices."""
    shards = mesh.shape['data'] * accumulate
    if batch_size % shards:
        raise ValueError(
            f'batch size {batch_size} does not divide by {mesh.shape["data"]} devices on the data axis x '
            f'{accumulate} accumulated parts; choose a multiple of {shards}'
        )
    if seeds % mesh.shape['seed']:
        raise ValueError(f'{seeds} seeds do not divide over {mesh.shape["seed"]} devices on the seed axis')


def splits_seeds(mesh: Mesh) -> bool:
    """Whether different devices hold different seeds."""
    return mesh.shape['seed'] > 1


def state_sharding(mesh: Mesh) -> NamedSharding:
    """Of everything with a leading seed axis."""
    return NamedSharding(mesh, PartitionSpec('seed'))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of a batch: rows over the data axis."""
    return NamedSharding(mesh, PartitionSpec('data'))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """This process's rows of a batch -> one global array a key, rows split over the data axis; drops the host's ids."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items() if key != 'id'}


def put_tree(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, the same in every process, -> global arrays."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(np.shape(leaf), sharding, lambda index: np.asarray(leaf)[index]), tree
    )


def copy_tree(tree: Any) -> Any:
    """A copy of global arrays that lies where they lie, by way of the host: on a device each shape of a leaf would be
    a program to compile, before the first step."""

    def copy(leaf):
        parts = {str(shard.index): shard.data for shard in leaf.addressable_shards}
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: np.array(parts[str(index)]))

    return jax.tree.map(copy, tree)
