"""Features of a trained model over its data set -> a record directory, ready for training and for classifiers.

    python -m mmer_jax.extract WORKDIR [--output DIR] [--level pooled|steps] [--data DIR] [--fold K] [--seed S]

Writes DIR/fold_<k> for every fold of WORKDIR (DIR itself where there is one split), each with the variables that
validation chose in that fold: the model of fold k never saw the records that fold k tests on. A record holds
`prediction` (C,), and its features under the name of the run's modality (`features` where it has several): one vector
(D,), the input of the head, or with --level steps those of every step, (T, D). The manifest's columns are kept; `split`
says what the record is in this fold, and the marks of the run's protocol go with it. With --data, all records of
another directory are extracted by each fold's model; what it was trained on is refused, or left out (--leave_out_seen).

Work is done in parts, kept below DIR/fold_<k>.parts until all are there: the same command goes on where it was stopped.
Several processes share it with --num_processes N --process_id K, each on its own devices; the one that finds all parts
complete writes the records. What is there already is kept where it is what is asked for, and refused where it is not.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mmer_jax.data.batches import LoadBatch, labels_of
from mmer_jax.data.folds import SPLITS
from mmer_jax.data.leakage import EXTRACTED, SUFFIX
from mmer_jax.data.records import Feature, RecordSource, RecordWriter, Schema
from mmer_jax.files import read_arrays, read_json, save_arrays, write_json
from mmer_jax.files.outputs import check_shards
from mmer_jax.run import cache, finished
from mmer_jax.run.finished import Run
from mmer_jax.run.workdir import hold, read_results
from mmer_jax.settings import command, ranges

LEVELS = ('pooled', 'steps')
PART = 16  # batches in a part
OWN = ('record', 'id', 'label', 'split')  # manifest columns that are made anew


@dataclasses.dataclass(frozen=True)
class Task:
    """One fold of a run to extract: the run, the level, and where to."""

    run: Run
    level: str
    output: Path

    @property
    def parts(self) -> Path:
        return self.output.with_name(f'{self.output.name}.parts')

    @property
    def key(self) -> str:
        """The name of the features in a record."""
        modalities = tuple(self.run.config.modalities)
        return modalities[0] if len(modalities) == 1 else 'features'

    def describe(self) -> dict[str, Any]:
        """What parts and records depend on; those of another description are refused. No paths: folders may move."""
        run = self.run
        results, ids = run.folder / 'results.json', run.fold_data.source.manifest['id'].tolist()
        return {
            'results': hashlib.sha256(results.read_bytes()).hexdigest()[:16],
            'trained_on': read_results(results)['dataset'],
            'records': hashlib.sha256('\n'.join(ids).encode()).hexdigest()[:16],
            'seed': run.seed,
            'level': self.level,
            'batch_size': run.fold_data.loaders['test'].plan.batch_size,
            'folds': run.num_folds,
            'marks': list(run.fold_data.fold.marks),
            **({'unseen': True} if run.other else {}),  # no record or speaker of it was trained on
        }


def split_of(run: Run) -> dict[int, str]:
    """{record number: its split in the run's fold}; records that the fold leaves out are absent."""
    return {int(n): split for split in SPLITS for n in getattr(run.fold_data.fold, split)}


def extract_fold(task: Task, *, process_id: int = 0, num_processes: int = 1) -> bool:
    """Makes this process's parts, then the records if all parts are there; whether they are.

    ValueError where DIR holds features or parts of another job, or the model gives no such features.
    """
    if task.output.is_dir():
        _check_same(task, RecordSource(task.output).schema.info.get(EXTRACTED, {}), task.output, 'features')
        _remove_parts(task)  # left where a process was killed after the last rename
        return True
    check_shards(task.output, overwrite=False)  # a file or a link there would be found at the end only
    numbers = np.array(sorted(split_of(task.run)))
    load = task.run.batches(numbers)
    starts = range(0, len(load.plan), PART)
    _begin(task)
    mine = [start for start in starts[process_id::num_processes] if not _part(task, start).is_file()]
    if mine:
        variables = finished.chosen_variables(task.run)
        keys = ('prediction', 'features') if task.level == 'pooled' else ('prediction', 'steps', 'steps_mask')
        for start in mine:
            arrays = _arrays(load, range(start, min(start + PART, len(load.plan))), task.run, variables, keys)
            save_arrays(_part(task, start), **arrays)
            print(f'{task.output}: part {start // PART + 1} of {len(starts)}', flush=True)
    if not all(_part(task, start).is_file() for start in starts):
        return False
    try:
        _assemble(task, [_part(task, start) for start in starts])
    except OSError:
        if not task.output.is_dir():  # else another process saw all parts too, and wrote the records before this one
            raise
    return True


def _begin(task):
    path = task.parts / 'job.json'
    if path.is_file():
        _check_same(task, read_json(path), task.parts, 'parts')
    else:
        task.parts.mkdir(parents=True, exist_ok=True)
        write_json(path, task.describe())


def _check_same(task, found, path, what):
    own = task.describe()
    if 'results' not in found:
        raise ValueError(f'{path} holds {what} of an older version or of something else: remove it, or give --output')
    if different := [f'{key} {found.get(key)!r}, now {own[key]!r}' for key in own if found.get(key) != own[key]]:
        raise ValueError(
            f'{path} holds {what} of another job ({"; ".join(different)}): remove it, or give another --output'
        )


def _remove_parts(task: Task) -> None:
    """Removes the parts of this job and their folder; what else lies there stays."""
    job = task.parts / 'job.json'
    if job.is_file():
        left = (path for name in ('part_*.tmp', '.part_*.tmp', '.job.json.*.tmp') for path in task.parts.glob(name))
        for path in (*task.parts.glob('part_*.npz'), *left, job):
            path.unlink(missing_ok=True)  # another process may do the same
    with contextlib.suppress(OSError):  # not there, or not empty
        task.parts.rmdir()


def _part(task: Task, start: int) -> Path:
    return task.parts / f'part_{start // PART:06d}.npz'


def _arrays(
    load: LoadBatch, steps: Iterable[int], run: Run, variables: Any, keys: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The outputs of some batches without padding rows: prediction (R, C), features (R, D) or the valid steps one
    after another (sum of T, D) with `lengths` (R,), and the record `number` (R,)."""
    rows: dict[str, list] = {'number': [], 'prediction': [], 'features': [], 'lengths': []}
    for step in steps:
        _, _, numbers = load.plan[step]
        try:
            (outputs,) = finished.apply_batches(run.model, variables, load, (step,), keys)
        except KeyError as error:
            raise ValueError(
                f'{run.folder}: the model {run.model_name!r} has no output {error} for --level '
                f'{"steps" if "steps" in keys else "pooled"}; unimodal has both'
            ) from error
        count = len(numbers)
        rows['number'].append(numbers)
        rows['prediction'].append(np.asarray(outputs['prediction'][:count], np.float32))
        if 'features' in keys:
            rows['features'].append(np.asarray(outputs['features'][:count], np.float32))
        else:
            mask = np.asarray(outputs['steps_mask'][:count])
            rows['features'].append(np.asarray(outputs['steps'][:count], np.float32)[mask])
            rows['lengths'].append(mask.sum(1))
    return {key: np.concatenate(found) for key, found in rows.items() if found}


def _assemble(task: Task, parts: list[Path]) -> None:
    """The parts as a record directory; then they are removed."""
    source = task.run.fold_data.source
    splits, manifest = split_of(task.run), source.manifest
    kept = [name for name in manifest if name not in OWN and not name.startswith('length_')]
    first = _read_part(parts[0], task.level)
    width, outputs = first['features'].shape[1], first['prediction'].shape[1]
    shape = (width,) if task.level == 'pooled' else (None, width)
    described = f'{task.level} features of {task.run.name}, {task.run.folder.name}'
    features = {
        task.key: Feature(shape, description=described, optional=_may_be_missing(task)),
        'prediction': Feature((outputs,), description='output of the head'),
    }
    info = {**source.schema.info, 'made_by': 'mmer_jax.extract', EXTRACTED: task.describe()}
    schema = Schema(f'{source.schema.name}{SUFFIX}', features, source.schema.label, info)
    labels = labels_of(source, np.arange(len(source)))
    with RecordWriter(task.output, schema) as records:
        for number, arrays in _rows(parts, task.level):
            columns = {name: manifest[name][number] for name in kept}
            record = {'id': str(manifest['id'][number]), 'label': labels[number].tolist()}
            record |= {task.key: arrays['features'], 'prediction': arrays['prediction']}
            records.write(record, **columns, split=splits[number])
    _remove_parts(task)


def _may_be_missing(task: Task) -> bool:
    """Whether a record may lack the steps: where its modality may be missing. Its pooled vector is always there."""
    known = task.run.fold_data.source.schema.features
    return task.level == 'steps' and any(known[m].optional for m in task.run.config.modalities)


def _read_part(path: Path, level: str) -> dict[str, np.ndarray]:
    names = ('number', 'prediction', 'features', *(['lengths'] if level == 'steps' else []))
    return read_arrays(path, names, 'remove it, and the same command makes it again')


def _rows(parts: list[Path], level: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for path in parts:
        found = _read_part(path, level)
        ends = np.cumsum(found['lengths']) if level == 'steps' else None
        for row, number in enumerate(found['number']):
            if ends is None:
                features = found['features'][row]
            else:
                features = found['features'][ends[row] - found['lengths'][row] : ends[row]]
            yield int(number), {'features': features, 'prediction': found['prediction'][row]}


def tasks_of(
    workdir: Path, output: Path, *, level: str, fold: int | None = None, seed: int | None = None, **options: Any
) -> list[Task]:
    """One task for each fold (or for the one numbered or given); `options` are those of finished.open_runs."""
    runs = finished.open_runs(workdir, fold=fold, seed=seed, **options)
    return [Task(run, level, output / run.folder.relative_to(run.workdir)) for run in runs]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.extract', description=__doc__.split('\n')[0])
    parser.add_argument('workdir', type=Path, help='a finished run, or one of its fold folders')
    parser.add_argument('--output', type=Path, help='folder of the features; WORKDIR/features by default')
    parser.add_argument('--level', choices=LEVELS, default='pooled', help='one vector a record, or one a step')
    parser.add_argument('--data', help="another shard directory, all of it; or the run's own data at another place")
    parser.add_argument('--leave_out_seen', action='store_true', help='of other data, leave out what was trained on')
    parser.add_argument('--other_preparation', action='store_true', help='take other data of other settings too')
    parser.add_argument('--fold', type=ranges.COUNT_OR_0, help='number of one fold; all by default')
    parser.add_argument('--seed', type=ranges.SEED, help='one of the seeds of the run; its first by default')
    parser.add_argument('--num_processes', type=ranges.COUNT, default=1, help='processes that share the work')
    parser.add_argument('--process_id', type=ranges.COUNT_OR_0, default=0, help='number of this one, from 0')
    cache.add_flag(parser)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.process_id < arguments.num_processes:
        parser.error(f'--process_id {arguments.process_id}: expected 0 to {arguments.num_processes - 1}')
    return arguments


def work(arguments: argparse.Namespace) -> None:
    cache.keep_programs(keep=not arguments.no_cache)
    output = arguments.output or arguments.workdir / 'features'
    options = {'level': arguments.level, 'fold': arguments.fold, 'seed': arguments.seed, 'directory': arguments.data}
    options |= {'leave_out': arguments.leave_out_seen, 'allow': arguments.other_preparation}
    for task in tasks_of(arguments.workdir, output, **options):
        lock = task.output.with_name(f'.{task.output.name}.{arguments.process_id}.lock')
        with hold(lock, task.output):
            done = extract_fold(task, process_id=arguments.process_id, num_processes=arguments.num_processes)
        if done:
            print(f'features: {task.output}')
        else:
            print(f'{task.output}: the parts of other processes are missing; the last of them writes the records')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv), go_on='the same command goes on with the parts that are missing')


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)
    sys.exit(main())
