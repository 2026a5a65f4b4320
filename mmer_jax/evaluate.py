"""Predictions of a whole split, and its metrics. `python -m mmer_jax.evaluate WORKDIR` evaluates a checkpoint again."""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mmer_jax import data, experiment, sharding, writer
from mmer_jax.checkpoint import Checkpoints
from mmer_jax.experiment import METRIC_KIND, Program
from mmer_jax.metrics import METRICS
from mmer_jax.step import variables_of

Predictions = dict[str, np.ndarray]


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


def measure(predictions: Predictions, label: Any, seed: int) -> dict[str, float]:
    """Loss and all metrics of one seed on a whole split; `label` is the schema's Label."""
    metrics = METRICS[METRIC_KIND[label.kind]](predictions['prediction'][seed], predictions['label'], names=label.names)
    return {'loss': float(predictions['loss'][seed].astype(np.float64).mean()), **metrics}


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
    workdir: str | Path, *, split: str = 'test', directory: str | None = None
) -> list[dict[str, Any]]:
    """Metrics of a fold's chosen variables, one row a seed, from its checkpoint.

    workdir: a run without folds, or one of its fold_<k> folders. directory: another shard directory with the same
    features and label (its own folds under the run's protocol), for instance data prepared anew.
    """
    workdir = Path(workdir)
    parent = workdir if (workdir / 'config.json').is_file() else workdir.parent
    config = ConfigDict(writer.read_json(parent / 'config.json'))
    if directory is not None:
        config.data.directory = str(directory)
    source = experiment.open_source(config)
    folds = experiment.folds_of(config, source)
    named = [fold for fold in folds if fold.name == workdir.name] if len(folds) > 1 else folds
    if not named or not (workdir / 'checkpoints').is_dir():
        raise ValueError(
            f'{workdir} holds no trained fold; give one of {", ".join(str(parent / f.name) for f in folds)}'
        )
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
    predictions = predict(program, best, fold_data.loaders[split])
    label = source.schema.label
    return [{'seed': int(seed), **measure(predictions, label, n)} for n, seed in enumerate(seeds)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.evaluate', description='Evaluate a checkpoint again.')
    parser.add_argument('workdir', type=Path, help='a run, or one of its fold folders')
    parser.add_argument('--split', choices=experiment.SPLITS, default='test')
    parser.add_argument('--data', help='another shard directory')
    arguments = parser.parse_args(argv)
    try:
        rows = evaluate_checkpoint(arguments.workdir, split=arguments.split, directory=arguments.data)
    except (ValueError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for row in rows:
        print(
            ', '.join(
                f'{key} {value:.4f}' if isinstance(value, float) else f'{key} {value}' for key, value in row.items()
            )
        )
    return 0


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)
    sys.exit(main())
