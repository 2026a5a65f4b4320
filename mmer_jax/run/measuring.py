"""Predictions of a whole split by the variables of all seeds, and their metrics."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.batches import LoadBatch, labels_of, read_batches
from mmer_jax.data.records import RecordSource
from mmer_jax.files import save_arrays
from mmer_jax.metrics import KINDS, about, expected_calibration_error, metric_kind
from mmer_jax.run import sharding
from mmer_jax.run.program import Program, fetch

Predictions = dict[str, np.ndarray]


def predict(program: Program, variables: Any, load: LoadBatch) -> Predictions:
    """Every record of a split once, in the order of record numbers, padding rows dropped.

    Returns prediction (N, R, C) float32 and loss (N, R) for N seeds, label (R,) or (R, E), id and speaker (R,).
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
        'speaker': load.source.manifest['speaker'][record],
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
    scores, labels = predictions['prediction'][seed], predictions['label']
    found = KINDS[kind].measure(scores, labels, names=source.schema.label.names)
    if kind == 'classification':
        found['ece'] = expected_calibration_error(scores, labels)
    return {'loss': float(predictions['loss'][seed].astype(np.float64).mean()), **found}


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
    """predictions/<split>.npz: id (R,), label, prediction (N, R, C), seed (N,), speaker (R,), '' unknown."""
    save_arrays(
        path,
        id=predictions['id'],
        label=predictions['label'],
        prediction=predictions['prediction'].astype(np.float32),
        seed=seeds,
        speaker=predictions['speaker'],
    )
