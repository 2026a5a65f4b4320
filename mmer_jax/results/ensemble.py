"""Ensembles of finished runs as rows of their own: `report --ensemble`. Stored predictions are averaged, no model runs.

One row per run of several seeds (the mean over its seeds), and one over all runs, where there are several: first each
run's mean over its seeds, then the mean over the runs, with equal weights or with weights that were fitted on the
validation predictions of each fold. Of classes (and yes-or-no emotions) probabilities are averaged, of real numbers the
numbers. Nothing of the test labels is used.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp

from mmer_jax.metrics import KINDS, expected_calibration_error
from mmer_jax.results.page import Block, Details, Table
from mmer_jax.results.runs import ReportError, Run, known_of_speakers, unique
from mmer_jax.results.statistics import Predicted, digest, read_fold
from mmer_jax.results.units import Fold

WEIGHTS = ('equal', 'validation')
LEAST = 1e-12  # probability of a right answer, in a logarithm


@dataclasses.dataclass(frozen=True)
class Ensemble(Run):
    """A row of averaged predictions; `text` says of what, `shares` has (fold, member, weight)."""

    members: tuple[Run, ...] = ()
    text: str = ''
    shares: tuple[tuple[str, str, float], ...] = ()

    @cached_property
    def config(self) -> dict[str, Any]:
        """What all members' configs agree on."""
        first, *others = (run.config for run in self.members)
        return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def ensembles(runs: Sequence[Run], weights: str = 'equal') -> list[tuple[Ensemble, Predicted]]:
    """The rows of `report --ensemble`, each with its test predictions: of each run of several seeds, then of all runs.

    Raises:
        ReportError: a run keeps no predictions, two runs test other records, other labels or know other things of the
            test speakers, weights cannot be fitted, or no run has several seeds and there is but one.
    """
    read = [_folds_of(run) for run in runs]
    _check_together(runs, read)
    found = [_of_seeds(run, folds) for run, folds in zip(runs, read, strict=True) if _seeds(folds) > 1]
    if len(runs) > 1:
        found.append(_of_runs(runs, read, weights))
    if not found:
        raise ReportError(
            f'--ensemble: {runs[0].name} has one seed and no other run is given; nothing to average: give several '
            'runs, or train with --config.seeds=5'
        )
    return found


Folds = Mapping[bytes, tuple[str, Path, Fold]]  # by its records the name, the folder and the test predictions


def _folds_of(run: Run) -> Folds:
    found = {}
    for name, folder in run.folds.items():
        path = folder / 'predictions' / 'test.npz'
        if not path.is_file():
            raise ReportError(f'--ensemble: {run.name} keeps no test predictions ({path}); leave it out with --where')
        fold = read_fold(path, run)
        found[digest(fold)] = name, folder, fold
    return found


def _seeds(folds: Folds) -> int:
    return min(len(fold['prediction']) for _, _, fold in folds.values())


def _check_together(runs: Sequence[Run], read: Sequence[Folds]) -> None:
    """ReportError in one line where the runs' predictions are not of the same records and labels."""
    first, own = runs[0], {_ids(fold): fold for _, _, fold in read[0].values()}
    for run, folds in zip(runs[1:], read[1:], strict=True):
        pair, others = f'--ensemble: {first.name} and {run.name}', {_ids(fold): fold for _, _, fold in folds.values()}
        if run.results['metrics'] != first.results['metrics']:
            raise ReportError(f'{pair} are measured as {first.results["metrics"]} and as {run.results["metrics"]}')
        if run.results['class_names'] != first.results['class_names']:
            raise ReportError(f'{pair} test other classes: {_listed(first)} and {_listed(run)}')
        if set(own) != set(others):
            sizes = ' and '.join(f'{sum(map(len, one))} in {len(one)} folds' for one in (own, others))
            raise ReportError(
                f'{pair} test other records ({sizes}): choose runs of one data set and protocol, by --where'
            )
        wrong = [key for key in own if not np.array_equal(own[key]['label'], others[key]['label'])]
        if wrong:
            differ = own[wrong[0]]['label'] != others[wrong[0]]['label']
            name = own[wrong[0]]['id'][differ.reshape(len(differ), -1).any(1)][0]
            raise ReportError(f'{pair} test other labels of the same records, first of {name}: prepare the data alike')
        if known_of_speakers(run) != known_of_speakers(first):
            raise ReportError(f'{pair} know other things of the tested speakers (their marks differ): leave one out')


def _ids(fold: Fold) -> tuple[str, ...]:
    return tuple(fold['id'].tolist())


def _listed(run: Run) -> str:
    return ', '.join(run.results['class_names'])


# ---- averages ------------------------------------------------------------------------------------------------


def mean(kind: str, predictions: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(K, R, C) predictions of K members -> (R, C) of their weighted mean.

    Of classes and emotions the logarithms of the mean probabilities, whose softmax gives these back; else numbers.
    weights: (K,), equal by default.
    """
    weights = np.full(len(predictions), 1 / len(predictions)) if weights is None else weights
    if KINDS[kind].labels == 'regression':
        return np.tensordot(weights, predictions, 1)
    shape = predictions.shape[1:]
    logs = log_softmax(_by_choice(kind, predictions.astype(np.float64)), axis=-1)
    return logsumexp(logs, axis=0, b=weights.reshape(-1, *(1,) * (logs.ndim - 1))).reshape(shape)


def _by_choice(kind: str, predictions: np.ndarray) -> np.ndarray:
    """(..., 2E) of emotions as (..., E, 2): a softmax is over the last axis."""
    if KINDS[kind].labels == 'binary' and predictions.ndim == 3:
        return predictions.reshape(*predictions.shape[:-1], -1, 2)
    return predictions


def fit_weights(kind: str, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) weights, none negative, of sum 1, that fit validation labels best; predictions (K, R, C) of K members.

    They minimise the mean negative logarithm of the averaged probability of the right answer, or of numbers the mean
    squared error of their average. Both are convex in the weights; scipy's SLSQP begins with equal ones.
    """
    members = len(predictions)
    if KINDS[kind].labels == 'regression':
        parts, target = predictions.reshape(members, -1).astype(np.float64), labels.reshape(-1).astype(np.float64)

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            error = w @ parts - target
            return float(np.mean(error**2)), 2 * parts @ error / len(error)

    else:
        logs = log_softmax(_by_choice(kind, predictions.astype(np.float64)), axis=-1)
        places = np.broadcast_to(labels.astype(np.int64)[None, ..., None], (*logs.shape[:-1], 1))
        parts = np.exp(np.take_along_axis(logs, places, -1)).reshape(members, -1)

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            right = np.maximum(w @ parts, LEAST)
            return float(-np.mean(np.log(right))), -np.mean(parts / right, axis=1)

    from scipy.optimize import minimize  # a table without an ensemble need not wait for it

    equal = np.full(members, 1 / members)
    whole = {'type': 'eq', 'fun': lambda w: w.sum() - 1, 'jac': np.ones_like}
    found = minimize(
        loss, equal, jac=True, method='SLSQP', bounds=[(0.0, 1.0)] * members, constraints=[whole],
        options={'ftol': 1e-10, 'maxiter': 500},
    )  # fmt: skip
    weights = np.clip(found.x, 0.0, None)
    weights = weights / weights.sum()
    return weights if loss(weights)[0] <= loss(equal)[0] else equal


# ---- rows ----------------------------------------------------------------------------------------------------


def _of_seeds(run: Run, folds: Folds) -> tuple[Ensemble, Predicted]:
    count, kind = _seeds(folds), run.results['metrics']
    averaged = {key: mean(kind, fold['prediction']) for key, (_, _, fold) in folds.items()}
    text = f'ensemble: mean of {_what(kind)} of {count} seeds of {run.name}'
    return _row([run], [folds], averaged, name=f'{run.name}: {count} seeds averaged', text=text)


def _of_runs(runs: Sequence[Run], read: Sequence[Folds], weights: str) -> tuple[Ensemble, Predicted]:
    kind, averaged, shares = runs[0].results['metrics'], {}, []
    for key, (name, _, _) in read[0].items():
        members = np.stack([mean(kind, folds[key][2]['prediction']) for folds in read])
        found = np.full(len(runs), 1 / len(runs))
        if weights == 'validation':
            found = fit_weights(kind, *_validation(runs, [folds[key][1] for folds in read]))
        averaged[key] = mean(kind, members, found)
        shares += [(name, run.name, float(share)) for run, share in zip(runs, found, strict=True)]
    means = [np.mean([share for _, member, share in shares if member == run.name]) for run in runs]
    listed = [
        f'{run.name} ({f"{_seeds(folds)} seeds, " if _seeds(folds) > 1 else ""}weight {share:.2f})'
        for run, folds, share in zip(runs, read, means, strict=True)
    ]
    fitted = 'equal weights' if weights == 'equal' else 'weights fitted on validation'
    text = f'ensemble: mean of {_what(kind)}, {fitted}, of {", ".join(listed)}'
    name = f'{len(runs)} runs averaged' + (', weights of validation' if weights == 'validation' else '')
    return _row(runs, read, averaged, name=name, text=text, shares=tuple(shares))


def _what(kind: str) -> str:
    return 'predicted numbers' if KINDS[kind].labels == 'regression' else 'probabilities'


def _validation(runs: Sequence[Run], folders: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(K, R, C) the seeds' means of K runs on the validation split of a fold, and its labels."""
    first: Fold = {}
    found = []
    for run, folder in zip(runs, folders, strict=True):
        path = folder / 'predictions' / 'validation.npz'
        if not path.is_file():
            raise ReportError(
                f'--weights validation: {run.name} keeps no validation predictions ({path}); leave it out'
            )
        fold = read_fold(path, run)
        first = first or fold
        if digest(fold) != digest(first):
            raise ReportError(
                f'--weights validation: {runs[0].name} and {run.name} were validated on other records in '
                f'{folder.name}; train with one protocol, or take equal weights'
            )
        found.append(mean(run.results['metrics'], fold['prediction']))
    return np.stack(found), first['label']


def _row(
    runs: Sequence[Run], read: Sequence[Folds], averaged: Mapping[bytes, np.ndarray], *, name: str, text: str,
    shares: tuple[tuple[str, str, float], ...] = (),
) -> tuple[Ensemble, Predicted]:  # fmt: skip
    first, rows, folds = runs[0].results, [], []
    for key, (fold_name, _, fold) in read[0].items():
        own = [row for run, found in zip(runs, read, strict=True) for row in _rows_of(run, found[key][0])]
        scores, labels = averaged[key], fold['label']
        test = KINDS[first['metrics']].measure(scores, labels, first['class_names'] or None)
        if first['metrics'] == 'classification':
            test['ece'] = expected_calibration_error(scores, labels)
        marks = unique(mark for row in own for mark in row['marks'])
        row = {'fold': fold_name, 'seed': 'averaged', 'marks': marks, 'best_epoch': None, 'epochs': None}
        rows.append({**row, 'test': test, 'floor': own[0]['floor']})
        speakers = [found[key][2]['speaker'] for found in read if 'speaker' in found[key][2]]
        known = {'speaker': speakers[0]} if speakers else {}
        folds.append({'id': fold['id'], 'label': labels, 'prediction': scores[None], **known})
    results = {
        **first, 'config': name, 'variant': '', 'published': None, 'rows': rows,
        'modalities': unique(m for run in runs for m in run.results['modalities']),
        'protocol': ', '.join(unique(run.results['protocol'] for run in runs)),
        'headline': [m for m in unique(m for run in runs for m in run.results['headline']) if m in rows[0]['test']],
        'parameters': sum(run.results['parameters'] * _seeds(folds) for run, folds in zip(runs, read, strict=True)),
    }  # fmt: skip
    row_of = Ensemble(runs[0].folder, results, {}, members=tuple(runs), text=text, shares=shares)
    return row_of, Predicted(row_of, tuple(sorted(folds, key=digest)))


def _rows_of(run: Run, fold: str) -> list[dict[str, Any]]:
    return [row for row in run.results['rows'] if row['fold'] == fold]


def with_ensembles(
    tested: Mapping[str, Predicted], found: Sequence[tuple[Ensemble, Predicted]]
) -> dict[str, Predicted]:
    """The test predictions of runs by name, and those of ensembles, by the speakers of the runs on the same records."""
    known = {one.records: one for one in tested.values() if one.units.what == 'speaker'}
    more = {}
    for row, one in found:
        like = known.get(one.records)
        folds = one.folds
        if like is not None:
            folds = tuple({**a, 'speaker': b['speaker']} for a, b in zip(one.folds, like.folds, strict=True))
        more[row.name] = Predicted(row, folds)
    return {**tested, **more}


def ensemble_blocks(rows: Sequence[Ensemble]) -> list[Block]:
    """The weights of each ensemble of runs, a row per fold and member."""
    return [
        Details(f'Weights of {row.name}', [
            Table(['fold', 'member', 'weight'], [[fold, name, f'{share:.3f}'] for fold, name, share in row.shares])
        ])
        for row in rows
        if row.shares
    ]  # fmt: skip
