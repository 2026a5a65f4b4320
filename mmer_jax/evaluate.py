"""Predictions of a whole split, and its metrics. `python -m mmer_jax.evaluate WORKDIR` evaluates a checkpoint again."""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from mmer_jax.data.batches import LoadBatch, labels_of, read_batches
from mmer_jax.data.folds import SPLITS
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_json, save_arrays, write_json
from mmer_jax.files.outputs import check_ablation, check_folder
from mmer_jax.metrics import KINDS, about, floors, metric_kind
from mmer_jax.run import finished, sharding
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.program import Program, fetch, make_program
from mmer_jax.run.step import variables_of
from mmer_jax.run.workdir import hold, read_results

Predictions = dict[str, np.ndarray]


def predict(program: Program, variables: Any, load: LoadBatch) -> Predictions:
    """Every record of a split once, in the order of record numbers, padding rows dropped.

    Returns prediction (N, R, C) float32 and loss (N, R) for N seeds, label (R,) or (R, E), id (R,).
    """
    numbers, prediction, loss = [], [], []
    for step, batch in enumerate(read_batches(load)):
        _, _, planned = load.plan[step]
        outputs = program.predict(variables, sharding.put_batch(batch, program.mesh))
        numbers.append(planned)
        prediction.append(fetch(outputs, 'prediction')[:, : len(planned)])
        loss.append(fetch(outputs, 'loss')[:, : len(planned)])
    order = np.argsort(np.concatenate(numbers))
    record = np.concatenate(numbers)[order]
    return {
        'prediction': np.concatenate(prediction, axis=1)[:, order],
        'loss': np.concatenate(loss, axis=1)[:, order],
        'label': labels_of(load.source, record),
        'id': load.source.manifest['id'][record],
    }


@functools.lru_cache(maxsize=8)
def kind_of(source: RecordSource) -> str:
    """The key of KINDS that fits the labels of all records, so that every split and fold has the same metrics."""
    return metric_kind(source.schema.label.kind, labels_of(source, source.manifest['record']))


def measure(predictions: Predictions, source: RecordSource, seed: int, kind: str | None = None) -> dict[str, float]:
    """Loss and all metrics of one seed on a whole split of `source`; NaN where one of a class is undefined.

    kind: a key of KINDS, that of `source` by default.
    """
    kind = kind or kind_of(source)
    found = KINDS[kind].measure(predictions['prediction'][seed], predictions['label'], names=source.schema.label.names)
    return {'loss': float(predictions['loss'][seed].astype(np.float64).mean()), **found}


def as_json(measured: Mapping[str, float]) -> dict[str, float | None]:
    """Undefined metrics as None; a loss that is NaN stays one, for it is a fault."""
    return {key: None if key != 'loss' and np.isnan(value) else value for key, value in measured.items()}


def selection_value(measured: Mapping[str, float], metric: str) -> float:
    """The number by which an epoch is chosen; ValueError where the validation split cannot have it.

    A class that is never predicted has no precision, which here counts as 0, the least (Metric.undefined_as).
    """
    value = measured[metric]
    if metric != 'loss' and np.isnan(value):
        instead = about(metric).undefined_as
        if instead is not None:
            return instead
        raise ValueError(f'config.selection.metric {metric!r} is undefined: no validation record is of that class')
    return value


def save_predictions(path: Path, predictions: Predictions, seeds: np.ndarray) -> None:
    """predictions/<split>.npz: id (R,), label, prediction (N, R, C), seed (N,); written whole or not at all."""
    save_arrays(
        path,
        id=predictions['id'],
        label=predictions['label'],
        prediction=predictions['prediction'].astype(np.float32),
        seed=seeds,
    )


def evaluate_checkpoint(
    workdir: str | Path, *, split: str = 'test', without: Sequence[str] = (), **options: Any
) -> list[dict[str, Any]]:
    """Metrics of a fold's chosen variables, one row a seed, from its checkpoint.

    workdir: a run without folds, or one of its fold_<k> folders. without: modalities that are hidden, each step of
    theirs padding; at least one must be left. `options` are those of finished.open_fold: another directory, all whose
    records are then the test split, and what of it may be tested; the module of a run of an own one.
    """
    opened = _open(Path(workdir), **options)
    predictions = _predict_fold(opened, split, without)
    source, kind = opened.fold_data.source, _kind(opened)
    seeds = _seeds(opened.config)
    return [{'seed': int(s), **as_json(measure(predictions, source, n, kind))} for n, s in enumerate(seeds)]


def _open(workdir: Path, **options: Any) -> finished.Opened:
    if not (workdir / 'checkpoints').is_dir():
        parent = workdir if (workdir / 'config.json').is_file() else workdir.parent
        known = ', '.join(str(path.parent) for path in sorted(parent.glob('fold_*/checkpoints')))
        raise ValueError(f'{workdir} holds no trained fold; ' + (f'give one of {known}' if known else 'train first'))
    return finished.open_fold(workdir, finished=False, **options)


def _seeds(config: Any) -> np.ndarray:
    return config.seed + np.arange(config.seeds)


def _predict_fold(opened: finished.Opened, split: str, without: Sequence[str]) -> Predictions:
    """The predictions of all seeds of a fold on a split, from its checkpoint."""
    config, fold_data = opened.config, opened.fold_data
    check_hidden(without, config.modalities)
    if opened.other and split != 'test':
        raise ValueError(f'{fold_data.source.directory} is tested as a whole: it has no split {split!r}')
    program = make_program(config, opened.model, fold_data)
    by_seed = sharding.state_sharding(program.mesh)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_seed),
        variables_of(jax.eval_shape(program.init, _seeds(config).astype(np.int32))),
    )
    with Checkpoints(opened.folder / 'checkpoints', read_only=True) as checkpoints:
        best = checkpoints.restore_best(shapes)
    return predict(program, best, dataclasses.replace(fold_data.whole(split), hidden=tuple(without)))


def _kind(opened: finished.Opened) -> str:
    """The kind of metrics: on other data that of the run, where its definitions fit their labels."""
    source, results = opened.fold_data.source, opened.folder / 'results.json'
    own = kind_of(source)
    if not opened.other or not results.is_file():
        return own
    kind = read_results(results, ('metrics',))['metrics']
    if KINDS[own].labels == 'regression':
        labels = np.abs(labels_of(source, source.manifest['record'])).max()
        return kind if labels <= KINDS[kind].largest * (1 + 1e-6) else own
    return own


def evaluate_other(workdir: str | Path, output: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """A finished run tested on all records of options['directory'] (finished.open_fold): each of its folds and seeds.

    Returns what results.json holds, with the protocol 'other data: <data set>', and writes it into `output`, with the
    predictions of each fold, where that is given. `workdir`: a run, or one of its folds.
    """
    workdir = Path(workdir)
    if output is not None:
        check_folder(output, {'results.json': b'other data: '})
    parent = workdir if (workdir / 'config.json').is_file() else workdir.parent
    names = finished.fold_names(parent)
    folders = [parent / name for name in names] if parent == workdir and names[0].startswith('fold_') else [workdir]
    results, rows, found = {}, [], {}
    for folder in folders:
        opened = finished.open_fold(folder, **options)
        if not opened.other:
            raise ValueError(
                f'{options.get("directory")} holds the data of the run itself: evaluate its folds, or all with --all'
            )
        results = read_results(opened.folder / 'results.json', ('metrics', 'variant'))
        predictions, fold, source = _predict_fold(opened, 'test', ()), opened.fold_data.fold, opened.fold_data.source
        kind, seeds = _kind(opened), _seeds(opened.config)
        floor = as_json(floors(kind, predictions['label'], names=source.schema.label.names))
        own = [
            {'fold': fold.name, 'seed': int(seed), 'marks': list(fold.marks), 'counts': {'test': len(fold.test)},
             'test': as_json(measure(predictions, source, n, kind)), 'floor': floor}
            for n, seed in enumerate(seeds)
        ]  # fmt: skip
        results |= {'dataset': source.schema.name, 'metrics': kind, 'published': None, 'protocol_options': {}}
        results |= {'protocol': f'other data: {source.schema.name}'}
        found[opened.folder.name if len(folders) > 1 else ''] = (predictions, seeds, {**results, 'rows': own})
        rows += own
    results = {**results, 'rows': rows}
    if output is not None:
        _write_other(Path(output), parent, found, results)
    return results


def _write_other(output: Path, parent: Path, found: Mapping[str, Any], results: dict[str, Any]) -> None:
    with hold(output / '.evaluate.lock', output):
        for name, (predictions, seeds, fold_results) in found.items():
            save_predictions(output / name / 'predictions' / 'test.npz', predictions, seeds)
            write_json(output / name / 'results.json', fold_results)
        write_json(output / 'config.json', read_json(parent / 'config.json'))
        write_json(output / 'results.json', results)


def check_hidden(without: Sequence[str], modalities: Sequence[str]) -> None:
    """ValueError where a modality to hide is not the model's, or none would be left."""
    unknown = [m for m in without if m not in modalities]
    if unknown or (without and not set(modalities) - set(without)):
        raise ValueError(f'without {", ".join(without)}: the model has {", ".join(modalities)}; at least one must stay')


def ablate(workdir: str | Path, output: str | Path, without: Sequence[str], **options: Any) -> dict[str, Any]:
    """A finished run tested with modalities hidden: its results.json with the new test metrics, written to `output`.

    options: the module of a run of an own one, model=...
    Nothing is trained: the row says how much the trained model leans on what is hidden, not what a model without it
    could learn. Its rows hold no numbers of the other splits.
    """
    workdir, output = Path(workdir), Path(output)
    if not (workdir / 'results.json').is_file():
        raise ValueError(f'{workdir} has no results.json: train it to its end first')
    check_ablation(output)
    results = read_results(workdir / 'results.json')
    rows = []
    for fold in dict.fromkeys(row['fold'] for row in results['rows']):
        folder = workdir / fold if (workdir / fold).is_dir() else workdir
        tested = {row.pop('seed'): row for row in evaluate_checkpoint(folder, without=without, **options)}
        for row in results['rows']:
            if row['fold'] == fold:
                kept = {key: value for key, value in row.items() if key not in SPLITS}
                rows.append({**kept, 'test': tested[row['seed']]})
    left = [m for m in results['modalities'] if m not in without]
    variant = '_'.join(filter(None, [results['variant'], 'without', *without]))
    results |= {'rows': rows, 'modalities': left, 'variant': variant, 'published': None}
    with hold(output / '.evaluate.lock', output):
        write_json(output / 'config.json', read_json(workdir / 'config.json'))
        write_json(output / 'results.json', results)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.evaluate', description='Evaluate a checkpoint again.')
    add = parser.add_argument
    add('workdir', type=Path, help='a run, or one of its fold folders')
    add('--split', choices=SPLITS, default='test', help="of the run's own data")
    add('--data', help="another shard directory, tested whole by each fold's model; or the run's own data elsewhere")
    add('--all', action='store_true', help='test all records of --data also where they are those of the run')
    add('--leave_out_seen', action='store_true', help='of other data, leave out records and speakers of the training')
    add('--other_preparation', action='store_true', help='test other data also where they were prepared in another way')
    add('--without', nargs='+', default=[], metavar='MODALITY', help='modalities to hide')
    add('--output', type=Path, help='with --without or other data: write results.json of the whole run there')
    arguments = parser.parse_args(argv)
    if (arguments.all or arguments.leave_out_seen or arguments.other_preparation) and not arguments.data:
        parser.error('--all, --leave_out_seen and --other_preparation say what of --data is tested: give --data')
    if arguments.without and arguments.output and arguments.data:
        parser.error('--output is of --without or of --data, not of both')
    if arguments.output and not arguments.without and not arguments.data:
        parser.error('--output needs --without or --data')
    return arguments


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows to print of a command line."""
    workdir, options = arguments.workdir, {'directory': arguments.data}
    options |= {'every': arguments.all, 'leave_out': arguments.leave_out_seen, 'allow': arguments.other_preparation}
    if arguments.without and arguments.output:
        found = ablate(workdir, arguments.output, arguments.without)['rows']
        return [{'fold': row['fold'], 'seed': row['seed'], **row['test']} for row in found]
    if arguments.data and not arguments.without and arguments.split == 'test':
        if finished.is_other(workdir, **options):
            results = evaluate_other(workdir, arguments.output, **options)
            print(f'protocol {results["protocol"]}, {results["rows"][0]["counts"]["test"]} records')
            for mark in dict.fromkeys(mark for row in results['rows'] for mark in row['marks']):
                print(f'note: {mark}')
            return _with_mean([{'fold': row['fold'], 'seed': row['seed'], **row['test']} for row in results['rows']])
        if arguments.output:
            raise ValueError(f'{arguments.data} holds the data of the run itself, whose results are there: no --output')
    return evaluate_checkpoint(workdir, split=arguments.split, without=arguments.without, **options)


def _with_mean(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and where there are several their mean over what is defined."""
    if len(rows) < 2:
        return rows
    columns = {key: [row[key] for row in rows if row.get(key) is not None] for key in rows[0]}
    means = {k: float(np.mean(v)) for k, v in columns.items() if k not in ('fold', 'seed') and v}
    return [*rows, {'fold': f'mean of {len(rows)}', **means}]


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        rows = run(arguments)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for row in rows:
        print(', '.join(f'{key} {_shown(value)}' for key, value in row.items()))
    return 0


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return 'undefined'
    return f'{value:.4f}' if isinstance(value, float) else str(value)


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)
    sys.exit(main())
