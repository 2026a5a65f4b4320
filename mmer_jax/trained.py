"""A finished run's model, data and chosen variables, to apply it again: what figures.py needs of a workdir."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax import data, experiment, sharding, step, writer
from mmer_jax.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one fold of a finished workdir, without its variables."""

    folder: Path
    config: Any
    fold_data: experiment.FoldData
    model: nn.Module
    seed: int

    @property
    def name(self) -> str:
        """config:variant."""
        return self.config.name + (f':{self.config.variant}' if self.config.variant else '')

    def batches(self, numbers: np.ndarray, *, alone: bool = False) -> data.LoadBatch:
        """The given records as evaluation reads them, in the run's shapes; alone: one a batch, nothing padded."""
        lengths = self.lengths(numbers)
        load = self.fold_data.loaders['test']
        whole = {m: max(int(lengths[m].max()), 1) for m in lengths}
        plan = dataclasses.replace(
            load.plan, records=numbers, lengths=lengths,
            shapes=[whole] if alone else load.plan.shapes, batch_size=1 if alone else load.plan.batch_size,
        )  # fmt: skip
        return dataclasses.replace(load, plan=plan, process_index=0, process_count=1)

    def lengths(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Steps of each modality of the given records, after the cut to max_length."""
        source, max_length = self.fold_data.source, self.config.data.max_length.to_dict()
        return {m: n[numbers] for m, n in data.record_lengths(source, self.config.modalities, max_length).items()}


def open_run(workdir: str | Path, *, fold: int = 0, seed: int | None = None, directory: str | None = None) -> Run:
    """A finished run and the fold numbered `fold`, or the fold whose folder `workdir` is; seed None: the first.

    directory: another shard directory than the config's, with folds of its own. ValueError says what is missing or out
    of range, and where a fold would test records or speakers that its model was trained on.
    """
    workdir = Path(workdir)
    parent = workdir if (workdir / 'config.json').is_file() else workdir.parent
    if not workdir.is_dir() or not (parent / 'config.json').is_file():
        raise ValueError(f'{workdir} is no workdir: it has no config.json; give the --workdir of a finished run')
    own = ConfigDict(writer.read_json(parent / 'config.json'))
    config = experiment.elsewhere(own, directory)
    source = experiment.open_source(config)
    folds = experiment.folds_of(config, source)
    named = [one.name for one in folds]
    if parent != workdir:
        if len(folds) == 1 or workdir.name not in named:
            raise ValueError(f'{workdir} is no fold of the run {parent}; give {parent}, and --fold if it has several')
        fold = named.index(workdir.name)
    if not 0 <= fold < len(folds):
        raise ValueError(f'{workdir} has no fold {fold}; protocol {config.protocol.name!r} has 0..{len(folds) - 1}')
    folder = parent / folds[fold].name if len(folds) > 1 else parent
    if not (folder / 'results.json').is_file():
        raise ValueError(f'{folder} is unfinished: it has no results.json; train it to its end with the same command')
    experiment.check_data(own, source, folds[fold], folder)
    seeds = range(config.seed, config.seed + config.seeds)
    if seed is not None and seed not in seeds:
        raise ValueError(f'{folder} has no seed {seed}; it has {", ".join(map(str, seeds))}')
    statistics = experiment.read_statistics(folder / 'statistics.npz', tuple(config.data.normalize))
    fold_data = experiment.load_fold(config, source, folds[fold], statistics)
    model = experiment.make_model(config, source)
    return Run(folder, config, fold_data, model, config.seed if seed is None else seed)


def with_seed(run: Run, seed: int) -> Run:
    """The same run, another of its seeds."""
    return dataclasses.replace(run, seed=seed)


def chosen_variables(run: Run) -> Any:
    """The variables of the run's seed at its best epoch, from the checkpoint, as host arrays."""
    example = experiment.example_batch(run.fold_data.loaders['train'])
    one = jax.eval_shape(lambda: run.model.init(jax.random.key(0), example, train=False))
    by_seed = sharding.state_sharding(sharding.make_mesh())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((run.config.seeds, *x.shape), x.dtype, sharding=by_seed), dict(one)
    )
    with Checkpoints(run.folder / 'checkpoints') as checkpoints:
        latest = checkpoints.latest()
        if latest is None:
            raise ValueError(f'{run.folder / "checkpoints"} holds no complete checkpoint; train again')
        best = checkpoints.restore_best(latest, shapes)
    return jax.device_get(step.take_seed(best, run.seed - run.config.seed))


def apply(model: nn.Module, variables: Any, load: data.LoadBatch, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The outputs named, on every batch of the plan, as host arrays, padding rows included."""
    return apply_batches(model, variables, load, range(len(load.plan)), keys)


def apply_batches(
    model: nn.Module, variables: Any, load: data.LoadBatch, steps: Sequence[int], keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The same on the batches numbered; KeyError where the model has no such output."""
    outputs_of, found = _compiled(model, keys), []
    for step_number in steps:
        batch = load(load.plan[step_number])
        found.append(jax.device_get(outputs_of(variables, {k: v for k, v in batch.items() if k != 'id'})))
    return found


@functools.lru_cache(maxsize=8)  # a second record of the same lengths, or another seed, compiles nothing
def _compiled(model: nn.Module, keys: tuple[str, ...]) -> Any:
    def outputs_of(variables, batch):
        outputs: Any = model.apply(variables, batch, train=False)
        return {key: outputs[key] for key in keys}

    return jax.jit(outputs_of)
