"""Predictions of a whole split, and its metrics. `python -m mmer_jax.evaluate WORKDIR` evaluates a checkpoint again."""

from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax import data, sharding
from mmer_jax.experiment import METRIC_KIND, Program
from mmer_jax.metrics import METRICS

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
        prediction.append(np.asarray(outputs['prediction'])[:, : len(planned)])
        loss.append(np.asarray(outputs['loss'])[:, : len(planned)])
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
