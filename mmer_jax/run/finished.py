"""One way to open a finished run, to apply it again: its folds, their data or another directory's, their variables.

`open_runs` gives every fold that is asked for, `open_run` the one; evaluation, extraction, pictures and warm starts
all begin with one of them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data import enrolment, leakage, other_data, speakers
from mmer_jax.data.batches import LoadBatch, record_lengths
from mmer_jax.data.folds import Fold
from mmer_jax.data.records import RecordSource
from mmer_jax.run import own_module, sharding, step
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.places import Place, check_trained, choose, places_of, planned, workdir_of
from mmer_jax.run.program import (
    FoldData,
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
    """One fold of a workdir, and one of its seeds, without its variables.

    folder: the fold's, which is the workdir itself in a run of one split.
    """

    workdir: Path
    folder: Path
    config: ConfigDict
    fold_data: FoldData
    model: nn.Module
    seed: int
    model_name: str
    num_folds: int = 1  # of the run
    other: bool = False  # the data are another directory's, all of them its test set

    @property
    def name(self) -> str:
        """config:variant."""
        return self.config.name + (f':{self.config.variant}' if self.config.variant else '')

    @property
    def seeds(self) -> np.ndarray:
        """(N,) all seeds of the run."""
        return self.config.seed + np.arange(self.config.seeds)

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
class Home:
    """The data that a run was trained on and its folds by name, or why they cannot be read."""

    source: RecordSource | None
    folds: Mapping[str, Fold]
    fault: Exception | None = None

    @classmethod
    def of(cls, config: ConfigDict) -> 'Home':
        try:
            source = open_source(config)
            return cls(source, {one.name: one for one in folds_of(config, source)})
        except (ValueError, OSError) as error:
            return cls(None, {}, error)


def open_runs(
    workdir: str | Path,
    *,
    fold: int | None = None,
    seed: int | None = None,
    directory: str | Path | None = None,
    model: nn.Module | None = None,
    every: bool = False,
    leave_out: bool = False,
    allow: bool = False,
    finished: bool = True,
    several: bool = True,
) -> list[Run]:
    """The folds of a run, each with its data: all of them, the one numbered `fold`, or the one whose folder is given.

    seed: one of the run's, its first by default. directory: another shard directory than the config's. Where the run's
    protocol gives it the test records that the run has, it is the run's data at another place. Else, or where `every`,
    all of its records are tested (data/other_data.py): those that were trained on, or whose speakers were, are refused,
    or with `leave_out` left out; `allow` features of other settings. model: the module of a run of an own one.
    finished: refuse an unfinished fold. several: False refuses a run of several folds of which none is chosen.

    ValueError says what is missing, damaged, out of range, or not to be tested.
    """
    workdir = Path(workdir)
    parent = workdir_of(workdir)
    own, entry = read_config(parent)
    own_module.check(entry, model, parent)
    config = elsewhere(own, directory)
    source = open_source(config)
    at_home = not every and (directory is None or Path(directory).resolve() == Path(own.data.directory).resolve())
    folds = _folds(config, source, must=at_home)
    places = planned(parent, folds) if at_home else places_of(parent)
    chosen = choose(workdir, parent, places, fold, several=several)
    check_trained(chosen, places, must_be_finished=finished)
    if seed is not None and not own.seed <= seed < own.seed + own.seeds:
        known = ', '.join(map(str, range(own.seed, own.seed + own.seeds)))
        raise ValueError(f'{chosen[0].folder} has no seed {seed}; it has {known}')
    home = Home(source, folds) if at_home else Home.of(own)
    module = make_model(config, source) if model is None else model
    runs = []
    for place in chosen:
        same = None if every else folds.get(place.name)
        if same is not None and (at_home or _is_moved(place.folder, same, source)):
            other, fold_data = False, _own(config, source, place.folder, same)
        else:
            other, fold_data = True, _other(own, home, source, place, leave_out=leave_out, allow=allow)
        runs.append(Run(
            workdir=parent, folder=place.folder, config=config, fold_data=fold_data, model=module,
            seed=own.seed if seed is None else seed,
            model_name=own.model.name if model is None else type(model).__name__,
            num_folds=len(places), other=other,
        ))  # fmt: skip
    return runs


def open_run(workdir: str | Path, *, fold: int | None = None, seed: int | None = None, **options: Any) -> Run:
    """The one fold of a run, or of several the one that is chosen, as open_runs opens it (`options` are its own)."""
    (run,) = open_runs(workdir, fold=fold, seed=seed, several=False, **options)
    return run


def _folds(config: ConfigDict, source: RecordSource, *, must: bool) -> dict[str, Fold]:
    """The folds of a directory under the run's protocol by name; none where it has none and need not."""
    try:
        return {one.name: one for one in folds_of(config, source)}
    except ValueError:
        if must:
            raise
        return {}


def _is_moved(folder: Path, fold: Fold, source: RecordSource) -> bool:
    """Whether `source` is the data of the finished fold in `folder`: the same data set, with its test records."""
    results = folder / 'results.json'
    dataset = read_results(results, ()).get('dataset') if results.is_file() else None
    return dataset == source.schema.name and leakage.tests_nothing_new(
        folder / 'predictions' / 'test.npz', fold, source
    )


def check_unchanged(source: RecordSource, fold: Fold, folder: Path) -> None:
    """ValueError where a run's own data have changed so that its `fold` tests what the model may have been trained on.

    Fewer test records than the finished run in `folder` had are fine; one without results has nothing to compare with.
    """
    results = folder / 'results.json'
    if not results.is_file() or read_results(results, ()).get('dataset') != source.schema.name:
        return
    if not leakage.tests_nothing_new(folder / 'predictions' / 'test.npz', fold, source):
        raise ValueError(
            f'{source.directory} has changed since the run in {folder}: it tests records that the run did not test and '
            'may have been trained on. Train again, or give the data of then with --data'
        )


def _own(config: ConfigDict, source: RecordSource, folder: Path, fold: Fold) -> FoldData:
    """The data of a fold of the run itself, at the place that the config names."""
    check_unchanged(source, fold, folder)
    return load_fold(config, source, fold, read_statistics(config, folder))


def _other(
    own: ConfigDict, home: Home, source: RecordSource, place: Place, *, leave_out: bool, allow: bool
) -> FoldData:
    """All records of `source` as the test set of the model of a fold, checked against what it was trained on."""
    folder = place.folder
    results = read_results(folder / 'results.json', ()) if (folder / 'results.json').is_file() else {}
    seen, known = None, results.get('inputs')
    if home.source is None:
        dataset = results.get('dataset', source.schema.name)
    else:
        dataset, trained = home.source.schema.name, home.folds.get(place.name) or next(iter(home.folds.values()))
        check_unchanged(home.source, trained, folder)
        seen = leakage.Seen.of(source, trained, home.source)
        shape = load_fold(own, home.source, trained, statistics={}).loaders['train'].plan.shapes[-1]
        known = known or other_data.describe_inputs(home.source.schema, own.modalities, shape)
    same = other_data.same_corpus(dataset, source.schema.name)
    if home.fault is not None and (same or known is None):
        raise ValueError(
            f'{source.directory} tests other records than the run in {folder} did, and the data that the run was '
            f'trained on cannot be read, so whether they were trained on is unknown: {home.fault}'
        ) from home.fault
    assert known is not None  # else there was a fault, and the data are the same or unknown
    marks = other_data.check_inputs(known, source, allow=allow)
    where = own.data.directory
    fold = other_data.fold_of_all(place.name, source, seen, same=same, leave_out=leave_out, where=where)
    fold = dataclasses.replace(fold, marks=(*fold.marks, *marks))
    (fold,), statistics = _normalised(own, source, fold, folder)
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


def _normalised(own: ConfigDict, source: RecordSource, fold: Fold, folder: Path) -> tuple[list[Fold], dict[str, Any]]:
    """A fold of other data as the run's enrolment leaves it, and its statistics: of the new speakers their own."""
    known, modalities = enrolment.of_config(own.data), tuple(own.data.normalize)
    statistics, folds = read_statistics(own, folder), enrolment.enrol([fold], source, known, modalities)
    if known is not None and known.is_known:
        statistics = speakers.of_speakers(source, folds[0], modalities, known, statistics)
    return folds, statistics


def with_seed(run: Run, seed: int) -> Run:
    """The same run, another of its seeds."""
    return dataclasses.replace(run, seed=seed)


def all_variables(run: Run, mesh: Any) -> Any:
    """The variables of all seeds of a run, each at its best epoch, from the checkpoint, with a leading seed axis."""
    example = example_batch(run.fold_data.loaders['train'])
    one = jax.eval_shape(lambda: run.model.init(jax.random.key(0), example, train=False))
    by_seed = sharding.state_sharding(mesh)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((run.config.seeds, *x.shape), x.dtype, sharding=by_seed), step.to_evaluate(one)
    )
    with Checkpoints(run.folder / 'checkpoints', read_only=True) as checkpoints:
        return checkpoints.restore_best(shapes)


def chosen_variables(run: Run) -> Any:
    """The variables of the run's seed at its best epoch, from the checkpoint, as host arrays."""
    found = all_variables(run, sharding.make_mesh())
    number = run.seed - run.config.seed  # taken on the host: on a device each shape would be a program to compile
    return jax.tree.map(lambda x: x[number], jax.device_get(found))


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
