"""From a config to the parts of a run: data of a fold, model, mesh, and the compiled program.

What training, evaluation, extraction and prediction all need to put together, put together once.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data import augment, enrolment, inner_folds, leakage, speakers
from mmer_jax.data.batches import (
    BatchPlan,
    LoadBatch,
    check_modalities,
    plan_shapes,
    record_lengths,
)
from mmer_jax.data.folds import SPLITS, Fold
from mmer_jax.data.records import RecordSource
from mmer_jax.files import save_arrays
from mmer_jax.losses import make_loss
from mmer_jax.models import build_model, check_module, reads_records
from mmer_jax.run import old_checkpoints, seeds, sharding
from mmer_jax.run.choices import COMPUTE_DTYPES, SEEDS_BY
from mmer_jax.run.compiling import Background, shapes_of
from mmer_jax.run.kept import kept_of
from mmer_jax.run.optimizer import make_optimizer
from mmer_jax.run.states import States
from mmer_jax.run.step import (
    make_eval_step,
    make_step_parts,
    make_train_step,
    variables_of,
)

DTYPES = {name: jnp.dtype(name) for name in COMPUTE_DTYPES}
# On CPU XLA takes the barriers out that keep remat's second forward pass from being merged with the first, and remat
# then saves nothing. This pass is the one that does it (I3D, 4 x 135 x 224 x 448: 35.5 GiB with it, 12.5 without).
KEEP_REMAT = {'xla_disable_hlo_passes': 'cse_barrier_expander'}


@dataclasses.dataclass(frozen=True)
class FoldData:
    """The data of one fold: `loaders` by split ('train' shuffled and augmented), what features are normalised by."""

    source: RecordSource
    fold: Fold
    loaders: Mapping[str, LoadBatch]
    statistics: Mapping[str, Any]

    def whole(self, split: str) -> LoadBatch:
        """A loader of each record of the split once, in order, nothing augmented: for measuring, also on 'train'."""
        if not len(getattr(self.fold, split)):
            why = ': config.selection.folds trained on them' if split == 'validation' else ''
            raise ValueError(f'fold {self.fold.name!r} has no {split} records{why}; choose another split')
        load, size = self.loaders[split], self.loaders['test'].plan.batch_size
        plan = dataclasses.replace(load.plan, batch_size=size, shuffle=False, epochs=1)
        return dataclasses.replace(load, plan=plan, augmentations=())


def open_source(config: ConfigDict) -> RecordSource:
    """The config's shard directory, with its modalities checked."""
    if not config.data.directory:
        raise ValueError('config.data.directory is empty: set it to a shard directory (--config.data.directory=DIR)')
    source = RecordSource(config.data.directory)
    check_modalities(config.modalities, source.schema)
    return source


def folds_of(config: ConfigDict, source: RecordSource) -> list[Fold]:
    """All folds of the config's protocol, checked, with their marks; enrolled clips are in none of their sets.

    With inner folds (config.selection.folds) all that are not tested are trained on, and none validates.
    """
    folds = leakage.folds_of_source(source, config.protocol.name, config.protocol.options.to_dict())
    folds = enrolment.enrol(folds, source, enrolment.of_config(config.data), tuple(config.data.normalize))
    return [inner_folds.merged(fold) for fold in folds] if config.selection.folds else folds


def elsewhere(config: ConfigDict, directory: str | Path | None) -> ConfigDict:
    """The config with another shard directory; itself where there is none."""
    if directory is None:
        return config
    other = copy.deepcopy(config)
    other.data.directory = str(directory)
    return other


def load_fold(
    config: ConfigDict, source: RecordSource, fold: Fold, statistics: Mapping[str, Any] | None = None
) -> FoldData:
    """Plans the batches of each split; `statistics` given (a saved run's) are used instead of computed ones."""
    modalities, max_length = tuple(config.modalities), config.data.max_length.to_dict()
    if statistics is None:
        known = enrolment.of_config(config.data)
        statistics = speakers.fold_statistics(source, fold, tuple(config.data.normalize), known)
    statistics = speakers.placed(statistics, source, fold)
    lengths = record_lengths(source, modalities, max_length)
    smallest = max(len(fold.train) // (4 * config.data.batch_size), 1)  # a shape is worth compiling for four batches
    shapes = plan_shapes(lengths, min(config.data.max_shapes, smallest))
    numbered = reads_records(config.model.to_dict())
    if numbered and config.mixup:
        raise ValueError(
            f'config.mixup {config.mixup}: the model remembers each record (self_mm), and a mixture of two is none; '
            'set config.mixup to 0'
        )
    loaders = {}
    for split in SPLITS:
        numbers, train = getattr(fold, split), split == 'train'
        plan = BatchPlan(
            records=numbers,
            lengths={m: lengths[m][numbers] for m in modalities},
            shapes=shapes,
            batch_size=config.data.batch_size if train else config.data.eval_batch_size or config.data.batch_size,
            shuffle=train,
            seed=config.data_seed,
            epochs=config.epochs if train else 1,
        )
        loaders[split] = LoadBatch(
            source=source,
            modalities=modalities,
            plan=plan,
            statistics=statistics,
            max_length=max_length,
            augmentations=augment.make_augmentations(config.data.augment) if train else (),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            numbered=numbered,
        )
    return FoldData(source, fold, loaders, statistics)


def make_model(config: ConfigDict, source: RecordSource) -> nn.Module:
    """config.model with the fields that the data decide: modalities, number of outputs, compute type."""
    if config.compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(f'compute_dtype {config.compute_dtype!r}: the known ones are {", ".join(COMPUTE_DTYPES)}')
    return build_model(
        config.model.to_dict(),
        modalities=tuple(config.modalities),
        num_outputs=source.schema.label.num_outputs,
        num_records=len(source),
        dtype=DTYPES[config.compute_dtype],
    )


@dataclasses.dataclass(frozen=True)
class Program:
    """The jitted functions of a run, over N seeds and a mesh; every fold of the same sizes shares them.

    init(seeds (N,)) -> state, every array with a leading seed axis; shapes(N) -> what it will be. unstack(state) gives
    it as train wants it, stack the whole again. train(unstacked state, batch) -> (unstacked state, numbers), the state
    donated; predict(variables, batch) -> outputs, whole on every process; `fetch` takes numbers and outputs to the
    host. keep_best(best, state, improved (N,)) -> best; schedule(step) -> learning rate; convert(saved,
    wanted) -> a state that version 0.1 saved, in today's form.
    """

    mesh: Any
    total_steps: int
    init: Callable[..., Any]
    shapes: Callable[..., Any]
    train: Callable[..., Any]
    predict: Callable[..., Any]
    unstack: Callable[..., Any]
    stack: Callable[..., Any]
    keep_best: Callable[..., Any]
    schedule: Callable[..., Any]
    convert: Callable[..., Any]
    background: Background

    def prepare(self, fold_data: FoldData, step: int) -> None:
        """Begins to compile for every planned shape, in the order in which training from `step` on comes to them."""
        load, validation = fold_data.loaders['train'], fold_data.loaders['validation']
        ahead = range(step, min(step + load.plan.batches_per_epoch, len(load.plan)))
        first, *rest = dict.fromkeys(load.plan[number][1] for number in ahead)
        self._prepare(self.train, load, first)
        for bucket in rest:
            self.background.later(partial(self._prepare, self.train, load, bucket))
        for bucket in dict.fromkeys(bucket for bucket, _ in validation.plan.epoch(0)):
            self.background.later(partial(self._prepare, self.predict, validation, bucket))

    def _prepare(self, function: Any, load: LoadBatch, bucket: int) -> None:
        empty = load((0, bucket, np.zeros(0, np.int64)))  # a batch of padding rows: nothing is read
        function.prepare(shapes_of(empty, sharding.batch_sharding(self.mesh), load.process_count))


def takes_turns(config: ConfigDict, mesh: Any) -> bool:
    """Whether the seeds of a run take turns, or are one program."""
    on_cpu = jax.default_backend() == 'cpu'
    turns = config.seeds_by == 'turns' or (config.seeds_by == 'auto' and on_cpu and not sharding.splits_seeds(mesh))
    return turns and config.seeds > 1


def make_program(config: ConfigDict, model: nn.Module, fold_data: FoldData) -> Program:
    """Builds the functions; each is compiled for a batch shape when `prepare` or its first call asks for it."""
    check_module(model)
    mesh = sharding.make_mesh(config.mesh.seed, config.mesh.data)
    train_plan, eval_plan = fold_data.loaders['train'].plan, fold_data.loaders['test'].plan
    sharding.check_sizes(mesh, batch_size=train_plan.batch_size, seeds=config.seeds, accumulate=config.accumulate)
    sharding.check_sizes(mesh, batch_size=eval_plan.batch_size, seeds=config.seeds)
    total_steps = max(len(train_plan), 1)  # other data than the run's have nothing to train on
    optimizer, schedule = make_optimizer(config.optimizer.to_dict(), total_steps)
    loss, smoothing = make_loss(config.losses.to_dict()), config.label_smoothing
    train_loss = make_loss(config.losses.to_dict(), smoothing=smoothing)
    on_cpu = jax.default_backend() == 'cpu'
    average = config.optimizer.average
    freeze = tuple(config.optimizer.freeze)
    make_step = make_step_parts if on_cpu and config.accumulate > 1 else make_train_step
    how: Any = {'accumulate': config.accumulate, 'average': average, 'freeze': freeze, 'mixup': config.mixup}
    train_step = make_step(model, optimizer, train_loss, **how)
    eval_step = make_eval_step(model, loss)
    by_seed, everywhere = sharding.state_sharding(mesh), sharding.replicated(mesh)
    background, example = Background(), example_batch(fold_data.loaders['train'])
    said = {'steps': total_steps, 'batch': [f'{key} {x.shape} {x.dtype}' for key, x in example.items()]}
    kept = kept_of(config, model, said, tuple(mesh.devices.flat), background.write)
    states = States(model, optimizer, example, by_seed, config.seeds, kept, average=average > 0)
    shapes = functools.cache(states.shapes)
    if config.seeds_by not in SEEDS_BY:
        raise ValueError(f'config.seeds_by {config.seeds_by!r}: expected one of {", ".join(SEEDS_BY)}')
    plan = seeds.Plan(
        seeds=config.seeds,
        optimizer=optimizer,
        by_seed=by_seed,
        everywhere=everywhere,
        options=KEEP_REMAT if on_cpu else None,
        states=lambda: shapes(config.seeds),
        background=background,
        kept=kept,
    )
    ways = seeds.in_turns if takes_turns(config, mesh) else seeds.by_vmap
    functions: dict[str, Any] = ways(train_step, eval_step, plan)

    def keep_best(best, state, improved):
        def select(old, new):
            return jnp.where(improved.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        return jax.tree.map(select, best, variables_of(state))

    return Program(
        mesh=mesh,
        total_steps=total_steps,
        init=states.init,
        shapes=shapes,
        background=background,
        **functions,
        keep_best=jax.jit(
            keep_best, donate_argnums=0, out_shardings=by_seed, compiler_options=seeds.options_of_copies()
        ),
        schedule=schedule,
        convert=lambda saved, wanted: old_checkpoints.convert(saved, wanted, optimizer.members(wanted.params)),
    )


def fetch(outputs: Any, key: str) -> np.ndarray:
    """One of the numbers or outputs of a Program, as numpy with the leading seed axis; waits for the device."""
    if isinstance(outputs, list):  # of seeds in turns, stacked here: one more program a step would cost more
        return np.stack([np.asarray(part[key]) for part in outputs])
    return np.asarray(outputs[key])


def example_batch(load: LoadBatch) -> dict[str, np.ndarray]:
    """A batch of one row of zeros with the largest planned shape, for initialisation; every step counts as valid."""
    features, shape = load.source.schema.features, load.plan.shapes[-1]
    batch: dict[str, np.ndarray] = {}
    for m in load.modalities:
        batch[m] = np.zeros((1, shape[m], *features[m].step_shape), features[m].dtype)
        batch[f'{m}_mask'] = np.ones((1, shape[m]), bool)
    return {**batch, 'weight': np.ones(1, np.float32)}


def save_statistics(path: Path, statistics: Mapping[str, Any]) -> None:
    """Normalisation of a fold beside its checkpoint: a raw clip must be normalised as the training data were."""
    arrays: dict[str, Any] = {}
    for m, found in statistics.items():
        arrays |= speakers.arrays_of(m, found)
    save_arrays(path, **arrays)


def read_statistics(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """What `save_statistics` wrote of the fold in `folder`; ValueError in one line where it is damaged."""
    known = enrolment.of_config(config.data)
    return speakers.read_statistics(folder / 'statistics.npz', tuple(config.data.normalize), known)
