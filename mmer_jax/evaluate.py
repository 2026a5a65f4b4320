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
from ml_collections import ConfigDict

from mmer_jax import data, experiment, sharding, writer
from mmer_jax.checkpoint import Checkpoints
from mmer_jax.experiment import Program
from mmer_jax.metrics import METRICS, metric_kind
from mmer_jax.outputs import check_ablation
from mmer_jax.records import RecordSource
from mmer_jax.step import variables_of

Predictions = dict[str, np.ndarray]
OF_CLASSES = ('recall_', 'precision_', 'f1_')


def predict(program: Program, variables: Any, load: data.LoadBatch) -> Predictions:
    """Every record of a split once, in the order of record numbers, padding rows dropped.

    Returns prediction (N, R, C) float32 and loss (N, R) for N seeds, label (R,) or (R, E), id (R,).
    """
    numbers, prediction, loss = [], [], []
    for step, batch in enumerate(data.batches(load)):
        _, _, planned = load.plan[step]
        outputs = program.predict(variables, sharding.put_batch(batch, program.mesh))
        numbers.append(planned)
        prediction.append(experiment.fetch(outputs, 'prediction')[:, : len(planned)])
        loss.append(experiment.fetch(outputs, 'loss')[:, : len(planned)])
    order = np.argsort(np.concatenate(numbers))
    record = np.concatenate(numbers)[order]
    return {
        'prediction': np.concatenate(prediction, axis=1)[:, order],
        'loss': np.concatenate(loss, axis=1)[:, order],
        'label': data.labels_of(load.source, record),
        'id': load.source.manifest['id'][record],
    }


@functools.lru_cache(maxsize=8)
def kind_of(source: RecordSource) -> str:
    """The key of METRICS that fits the labels of all records, so that every split and fold has the same metrics."""
    return metric_kind(source.schema.label.kind, data.labels_of(source, source.manifest['record']))


def measure(predictions: Predictions, source: RecordSource, seed: int) -> dict[str, float]:
    """Loss and all metrics of one seed on a whole split of `source`; NaN where one of a class is undefined."""
    metrics = METRICS[kind_of(source)]
    found = metrics(predictions['prediction'][seed], predictions['label'], names=source.schema.label.names)
    return {'loss': float(predictions['loss'][seed].astype(np.float64).mean()), **found}


def as_json(measured: Mapping[str, float]) -> dict[str, float | None]:
    """Undefined metrics of classes as None; a loss that is NaN stays one, for it is a fault."""
    return {key: None if key.startswith(OF_CLASSES) and np.isnan(value) else value for key, value in measured.items()}


def selection_value(measured: Mapping[str, float], metric: str) -> float:
    """The number by which an epoch is chosen; ValueError where the validation split cannot have it.

    A class that is never predicted has no precision, which here counts as 0, the least.
    """
    value = measured[metric]
    if metric.startswith(OF_CLASSES) and np.isnan(value):
        if metric.startswith('precision_'):
            return 0.0
        raise ValueError(f'config.selection.metric {metric!r} is undefined: no validation record is of that class')
    return value


def save_predictions(path: Path, predictions: Predictions, seeds: np.ndarray) -> None:
    """predictions/<split>.npz: id (R,), label, prediction (N, R, C), seed (N,); written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp.npz')
    np.savez(
        temporary,
        id=predictions['id'],
        label=predictions['label'],
        prediction=predictions['prediction'].astype(np.float32),
        seed=seeds,
    )
    temporary.replace(path)


def evaluate_checkpoint(
    workdir: str | Path, *, split: str = 'test', directory: str | None = None, without: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Metrics of a fold's chosen variables, one row a seed, from its checkpoint.

    without: modalities that are hidden, each step of theirs padding; at least one must be left.

    workdir: a run without folds, or one of its fold_<k> folders. directory: another shard directory with the same
    features and label (its own folds under the run's protocol), for instance data prepared anew; ValueError where the
    test split then holds what the model was trained on.
    """
    workdir = Path(workdir)
    parent = workdir if (workdir / 'config.json').is_file() else workdir.parent
    own = ConfigDict(writer.read_json(parent / 'config.json'))
    config = experiment.elsewhere(own, directory)
    source = experiment.open_source(config)
    folds = experiment.folds_of(config, source)
    named = [fold for fold in folds if fold.name == workdir.name] if len(folds) > 1 else folds
    if not named or not (workdir / 'checkpoints').is_dir():
        raise ValueError(
            f'{workdir} holds no trained fold; give one of {", ".join(str(parent / f.name) for f in folds)}'
        )
    if split == 'test':
        experiment.check_data(own, source, named[0], workdir)
    statistics = experiment.read_statistics(workdir / 'statistics.npz', tuple(config.data.normalize))
    fold_data = experiment.load_fold(config, source, named[0], statistics)
    program = experiment.make_program(config, experiment.make_model(config, source), fold_data)
    seeds = np.arange(config.seed, config.seed + config.seeds, dtype=np.int32)
    by_seed = sharding.state_sharding(program.mesh)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_seed),
        variables_of(jax.eval_shape(program.init, seeds)),
    )
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        latest = checkpoints.latest()
        if latest is None:
            raise ValueError(f'{workdir / "checkpoints"} holds no complete checkpoint; train first')
        best = checkpoints.restore_best(latest, shapes)
    check_hidden(without, config.modalities)
    predictions = predict(program, best, dataclasses.replace(fold_data.whole(split), hidden=tuple(without)))
    return [{'seed': int(seed), **measure(predictions, source, n)} for n, seed in enumerate(seeds)]


def check_hidden(without: Sequence[str], modalities: Sequence[str]) -> None:
    """ValueError where a modality to hide is not the model's, or none would be left."""
    unknown = [m for m in without if m not in modalities]
    if unknown or (without and not set(modalities) - set(without)):
        raise ValueError(f'without {", ".join(without)}: the model has {", ".join(modalities)}; at least one must stay')


def ablate(workdir: str | Path, output: str | Path, without: Sequence[str]) -> dict[str, Any]:
    """A finished run tested with modalities hidden: its results.json with the new test metrics, written to `output`.

    Nothing is trained: the row says how much the trained model leans on what is hidden, not what a model without it
    could learn. Its rows hold no numbers of the other splits.
    """
    workdir, output = Path(workdir), Path(output)
    if not (workdir / 'results.json').is_file():
        raise ValueError(f'{workdir} has no results.json: train it to its end first')
    check_ablation(output)
    results = writer.read_json(workdir / 'results.json')
    rows = []
    for fold in dict.fromkeys(row['fold'] for row in results['rows']):
        folder = workdir / fold if (workdir / fold).is_dir() else workdir
        tested = {row.pop('seed'): row for row in evaluate_checkpoint(folder, without=without)}
        for row in results['rows']:
            if row['fold'] == fold:
                kept = {key: value for key, value in row.items() if key not in experiment.SPLITS}
                rows.append({**kept, 'test': as_json(tested[row['seed']])})
    left = [m for m in results['modalities'] if m not in without]
    variant = '_'.join(filter(None, [results['variant'], 'without', *without]))
    results |= {'rows': rows, 'modalities': left, 'variant': variant, 'published': None}
    output.mkdir(parents=True, exist_ok=True)
    writer.write_json(output / 'config.json', writer.read_json(workdir / 'config.json'))
    writer.write_json(output / 'results.json', results)
    return results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.evaluate', description='Evaluate a checkpoint again.')
    parser.add_argument('workdir', type=Path, help='a run, or one of its fold folders')
    parser.add_argument('--split', choices=experiment.SPLITS, default='test')
    parser.add_argument('--data', help='another shard directory')
    parser.add_argument('--without', nargs='+', default=[], metavar='MODALITY', help='modalities to hide')
    parser.add_argument('--output', type=Path, help='with --without: write results.json of the whole run there')
    arguments = parser.parse_args(argv)
    try:
        if arguments.output:
            found = ablate(arguments.workdir, arguments.output, arguments.without)['rows']
            rows = [{'fold': row['fold'], 'seed': row['seed'], **row['test']} for row in found]
        else:
            options = {'split': arguments.split, 'directory': arguments.data, 'without': arguments.without}
            rows = evaluate_checkpoint(arguments.workdir, **options)
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
