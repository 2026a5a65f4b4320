"""A finished run's model, data and chosen variables, to apply it again: to its own data, or to another directory's."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmer_jax.data import leakage, other_data
from mmer_jax.data.batches import LoadBatch, record_lengths
from mmer_jax.data.protocols import Fold
from mmer_jax.data.records import RecordSource
from mmer_jax.run import own_module, sharding, step
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.program import (
    FoldData,
    check_data,
    elsewhere,
    example_batch,
    folds_of,
    load_fold,
    make_model,
    open_source,
    read_statistics,
)
from mmer_jax.run.workdir import read_config, read_results


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one fold of a finished workdir, without its variables."""

    folder: Path
    config: Any
    fold_data: FoldData
    model: nn.Module
    seed: int
    model_name: str
    other: bool = False  # the data are another directory's, all of them its test set

    @property
    def name(self) -> str:
        """config:variant."""
        return self.config.name + (f':{self.config.variant}' if self.config.variant else '')

    def batches(self, numbers: np.ndarray, *, alone: bool = False) -> LoadBatch:
        """The given records as evaluation reads them, in the run's shapes; alone: one a batch, nothing padded."""
        if not len(numbers):
            raise ValueError(f'{self.folder}: {self.fold_data.source.directory} has no records in this split')
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
        return {m: n[numbers] for m, n in record_lengths(source, self.config.modalities, max_length).items()}


@dataclasses.dataclass(frozen=True)
class Opened:
    """A fold of a workdir, finished or not: its folder, config, model, and the data that it is to be applied to.

    other: these are another directory's, all of them its test set.
    """

    folder: Path
    config: Any
    fold_data: FoldData
    model: nn.Module
    own: bool
    other: bool = False


def open_fold(
    workdir: str | Path,
    *,
    fold: int = 0,
    directory: str | None = None,
    model: nn.Module | None = None,
    every: bool = False,
    leave_out: bool = False,
    allow: bool = False,
    finished: bool = True,
) -> Opened:
    """The fold numbered `fold` of a run, or the fold whose folder `workdir` is.

    directory: another shard directory than the config's. Where the run's protocol gives it the test records that the
    run has, it is the run's data at another place. Else, or where `every`, all of its records are tested
    (data/other_data.py): those that were trained on, or whose speakers were, are refused, or with `leave_out` left out;
    `allow` features of other settings. model: the module of a run of an own one. finished: refuse an unfinished fold.

    ValueError says what is missing, damaged, out of range, or not to be tested.
    """
    workdir = Path(workdir)
    parent = workdir if (workdir / 'config.json').is_file() else workdir.parent
    if not workdir.is_dir() or not (parent / 'config.json').is_file():
        raise ValueError(f'{workdir} is no workdir: it has no config.json; give the --workdir of a finished run')
    own, entry = read_config(parent)
    own_module.check(entry, model, parent)
    config = elsewhere(own, directory)
    source = open_source(config)
    at_home = not every and (directory is None or Path(directory).resolve() == Path(own.data.directory).resolve())
    folds = _folds(config, source, must=at_home)
    names = [one.name for one in folds] if at_home else fold_names(parent)
    number = _number(workdir, parent, names, fold, own.protocol.name)
    folder = parent / names[number] if len(names) > 1 or names[0].startswith('fold_') else parent
    if finished and not (folder / 'results.json').is_file():
        raise ValueError(f'{folder} is unfinished: it has no results.json; train it to its end with the same command')
    same = {one.name: one for one in folds}.get(names[number]) if not every else None
    if at_home or (same is not None and _is_moved(folder, same, source)):
        assert same is not None
        check_data(own, source, same, folder)
        statistics = read_statistics(folder / 'statistics.npz', tuple(config.data.normalize))
        fold_data = load_fold(config, source, same, statistics)
    else:
        fold_data = _other(own, source, folder, names[number], leave_out=leave_out, allow=allow)
    module = make_model(config, source) if model is None else model
    other = not at_home and fold_data.fold is not same
    return Opened(folder, config, fold_data, module, model is not None, other)


def is_other(workdir: str | Path, **options: Any) -> bool:
    """Whether open_fold with these options tests all of another directory, for a run or one of its folds."""
    return open_fold(workdir, **options).other


def _is_moved(folder: Path, fold: Fold, source: RecordSource) -> bool:
    """Whether `source` is the data of the finished fold in `folder`: the same data set, with its test records."""
    results = folder / 'results.json'
    dataset = read_results(results, ()).get('dataset') if results.is_file() else None
    return dataset == source.schema.name and leakage.tests_nothing_new(
        folder / 'predictions' / 'test.npz', fold, source
    )


def _folds(config: Any, source: RecordSource, *, must: bool) -> list[Fold]:
    """The folds of a directory under the run's protocol; none where it has none and need not."""
    try:
        return folds_of(config, source)
    except ValueError:
        if must:
            raise
        return []


def fold_names(parent: Path) -> list[str]:
    """Names of the folds that a workdir holds, by number; of one split its name, '' where that is not known yet."""
    found = [path.name for path in parent.glob('fold_*') if path.is_dir() and path.name[5:].isdecimal()]
    if found:
        return sorted(found, key=lambda name: int(name[5:]))
    results = parent / 'results.json'
    return [read_results(results)['rows'][0]['fold']] if results.is_file() else ['']


def _number(workdir: Path, parent: Path, names: list[str], fold: int, protocol: str) -> int:
    if parent != workdir:
        if not workdir.name.startswith('fold_') or workdir.name not in names:
            raise ValueError(f'{workdir} is no fold of the run {parent}; give {parent}, and --fold if it has several')
        return names.index(workdir.name)
    if not 0 <= fold < len(names):
        raise ValueError(f'{workdir} has no fold {fold}; protocol {protocol!r} has 0..{len(names) - 1}')
    return fold


def _other(own: Any, source: RecordSource, folder: Path, name: str, *, leave_out: bool, allow: bool) -> FoldData:
    """All records of `source` as the test set of the model in `folder`, checked against what it was trained on."""
    results = read_results(folder / 'results.json', ()) if (folder / 'results.json').is_file() else {}
    seen, known, home, fault = None, results.get('inputs'), own.data.directory, None
    try:
        own_source = open_source(own)
        folds = {one.name: one for one in folds_of(own, own_source)}
    except (ValueError, OSError) as error:
        fault, dataset = error, results.get('dataset', source.schema.name)
    else:
        dataset, trained_fold = own_source.schema.name, folds.get(name) or next(iter(folds.values()))
        check_data(own, own_source, trained_fold, folder)  # it has not changed since
        seen = other_data.Seen.of(source, trained_fold, own_source)
        shape = load_fold(own, own_source, trained_fold, statistics={}).loaders['train'].plan.shapes[-1]
        known = known or other_data.describe_inputs(own_source.schema, own.modalities, shape)
    same = other_data.same_corpus(dataset, source.schema.name)
    if fault is not None and (same or known is None):
        raise ValueError(
            f'{source.directory} tests other records than the run in {folder} did, and the data that the run was '
            f'trained on cannot be read, so whether they were trained on is unknown: {fault}'
        ) from fault
    assert known is not None  # else there was a fault, and the data are the same or unknown
    marks = other_data.check_inputs(known, source, allow=allow)
    fold = other_data.fold_of_all(name, source, seen, same=same, leave_out=leave_out, where=home)
    fold = dataclasses.replace(fold, marks=(*fold.marks, *marks))
    statistics = read_statistics(folder / 'statistics.npz', tuple(own.data.normalize))
    fold_data = load_fold(own, source, fold, statistics)
    # Parameters may depend on the length that the run's batches are padded to: the largest shape is at least that.
    planned = fold_data.loaders['test'].plan.shapes
    largest = {m: max(planned[-1][m], known['steps'].get(m, 1)) for m in planned[-1]}
    shapes = [largest] if own.data.max_shapes == 1 else [*planned, largest]
    loaders = {
        split: dataclasses.replace(load, plan=dataclasses.replace(load.plan, shapes=shapes))
        for split, load in fold_data.loaders.items()
    }
    return dataclasses.replace(fold_data, loaders=loaders)


def open_run(workdir: str | Path, *, fold: int = 0, seed: int | None = None, **options: Any) -> Run:
    """A finished run, as open_fold opens it (`options` are its own); seed None: the first.

    ValueError also where it has no such seed.
    """
    opened = open_fold(workdir, fold=fold, **options)
    folder, config = opened.folder, opened.config
    seeds = range(config.seed, config.seed + config.seeds)
    if seed is not None and seed not in seeds:
        raise ValueError(f'{folder} has no seed {seed}; it has {", ".join(map(str, seeds))}')
    name = type(opened.model).__name__ if opened.own else config.model.name
    chosen = config.seed if seed is None else seed
    return Run(folder, config, opened.fold_data, opened.model, chosen, name, opened.other)


def with_seed(run: Run, seed: int) -> Run:
    """The same run, another of its seeds."""
    return dataclasses.replace(run, seed=seed)


def chosen_variables(run: Run) -> Any:
    """The variables of the run's seed at its best epoch, from the checkpoint, as host arrays."""
    example = example_batch(run.fold_data.loaders['train'])
    one = jax.eval_shape(lambda: run.model.init(jax.random.key(0), example, train=False))
    by_seed = sharding.state_sharding(sharding.make_mesh())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((run.config.seeds, *x.shape), x.dtype, sharding=by_seed), dict(one)
    )
    with Checkpoints(run.folder / 'checkpoints', read_only=True) as checkpoints:
        best = checkpoints.restore_best(shapes)
    return jax.device_get(step.take_seed(best, run.seed - run.config.seed))


def apply(model: nn.Module, variables: Any, load: LoadBatch, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The outputs named, on every batch of the plan, as host arrays, padding rows included."""
    return apply_batches(model, variables, load, range(len(load.plan)), keys)


def apply_batches(
    model: nn.Module, variables: Any, load: LoadBatch, steps: Sequence[int], keys: tuple[str, ...]
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
