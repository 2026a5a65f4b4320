"""Training: train_and_evaluate(config, workdir) runs every fold of a config's protocol and returns its results.

A fold's workdir is exact: killed at any moment and started again, it ends with the metrics.jsonl, predictions and
checkpoint of an undisturbed run, because batch i is a function of i, a step's random key is a function of the
step, and the loop's own counters lie in the checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax import __version__
from mmer_jax.data import other_data
from mmer_jax.data.batches import check_main_guard, labels_of
from mmer_jax.data.folds import SPLITS, Fold
from mmer_jax.data.records import RecordSource
from mmer_jax.files import write_json
from mmer_jax.metrics import as_json, floors, names, unfit
from mmer_jax.models import check_module
from mmer_jax.run import cost, measuring, provenance, warm_start
from mmer_jax.run.first_step import LATEST as FIRST
from mmer_jax.run.inner_folds import Choice, Programs, choose_epochs, forget_states, inner_of, marks_of_row
from mmer_jax.run.loop import finished_loop
from mmer_jax.run.program import (
    FoldData,
    Program,
    example_batch,
    folds_of,
    load_fold,
    make_model,
    open_source,
    save_statistics,
)
from mmer_jax.run.selection import Selection
from mmer_jax.run.workdir import alone, check_config, read_results
from mmer_jax.settings.follow_data import follow_data
from mmer_jax.settings.keys import check_config_values


def train_and_evaluate(
    config: ConfigDict, workdir: str | Path, model: nn.Module | None = None, folds: Sequence[int] | None = None
) -> dict[str, Any]:
    """Trains and evaluates every fold (or those numbered in `folds`) and returns what results.json holds.

    Cross-validation writes workdir/fold_<k>/, a single split writes into workdir itself. Finished folds are taken
    from their results.json. model: your own module with the batch -> outputs contract instead of config.model; its
    class, its fields and what it computes belong to what a workdir was begun with (own_module.py). InUse where another
    process writes one of the folds.
    """
    FIRST.begin()
    check_config_values(config, own_model=model is not None)
    if config.data.workers:
        check_main_guard()
    workdir, config = Path(workdir), completed(config)
    source, all_folds, chosen = folds_to_run(config, folds)
    module, example = make_model(config, source) if model is None else check_module(model), None
    if model is not None:
        example = example_batch(load_fold(config, source, all_folds[chosen[0]], statistics={}).loaders['train'])
    folders = {k: workdir / all_folds[k].name if len(all_folds) > 1 else workdir for k in chosen}
    unfinished = [all_folds[k].name for k in chosen if not (folders[k] / 'results.json').is_file()]
    rows, described, programs, tell = [], None, Programs(config, module), True
    with alone(workdir, unfinished):
        check_config(config, workdir, model, example, held=unfinished)
        warm_start.check_starts(config, [fold for fold in all_folds if fold.name in unfinished], source)
        origin = provenance.Provenance(source) if unfinished and jax.process_index() == 0 else None
        origins = []
        for number in chosen:
            if (folders[number] / 'results.json').is_file():
                described = read_results(folders[number] / 'results.json')
            else:
                fold_data = load_fold(config, source, all_folds[number])
                name, choice = config.model.name if model is None else type(model).__name__, None
                if config.selection.folds:
                    choice = choose_epochs(config, folders[number], source, all_folds[number], programs, tell=tell)
                    tell = False
                program = programs.of(fold_data)
                described = train_fold(
                    config, folders[number], fold_data, program, name, tell=tell, origin=origin, choice=choice
                )
                tell = False
            rows += described['rows']
            origins.append(described.get(provenance.KEY))
        assert described is not None
        described, whole = {**described, 'rows': rows}, len(rows) == len(all_folds) * config.seeds
        if len(all_folds) > 1 and provenance.KEY in described:
            described[provenance.KEY] = provenance.combined(origins)
        if unfinished and whole and len(all_folds) > 1 and jax.process_index() == 0:
            write_json(workdir / 'results.json', described, sealed=True)
    return described


def completed(config: ConfigDict) -> ConfigDict:
    """The config with all filled in that its data and its converted weights decide."""
    return warm_start.with_sizes(follow_data(config, open_source))


def folds_to_run(config: ConfigDict, folds: Sequence[int] | None) -> tuple[RecordSource, list[Fold], Sequence[int]]:
    """A config's data, all folds of its protocol, and the numbers of those that are asked for; ValueError."""
    source = open_source(config)
    all_folds = folds_of(config, source)
    chosen = range(len(all_folds)) if folds is None else list(folds)
    unknown = [k for k in chosen if type(k) is not int or not 0 <= k < len(all_folds)]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        known = f'protocol {config.protocol.name!r} has folds 0..{len(all_folds) - 1}'
        raise ValueError(f'folds {unknown or chosen}: {known}; name one or more, each once')
    for k in chosen:
        inner_of(config, source, all_folds[k])  # too many inner folds are told before the first is trained
    check_metrics(config, source)
    return source, all_folds, chosen


def check_metrics(config: ConfigDict, source: RecordSource) -> None:
    """ValueError where the config selects by, or shows, a metric that this kind of label does not have."""
    kind, labels = measuring.kind_of(source), labels_of(source, source.manifest['record'])
    known = ['loss', *names(kind, source.schema.label.names)]
    for key, wanted in (('selection.metric', [config.selection.metric]), ('headline', config.headline)):
        unknown = [name for name in wanted if name not in known]
        if unknown:
            why = unfit(kind, labels)
            raise ValueError(
                f'config.{key} {", ".join(unknown)!r} is not measured; choose from {", ".join(known)}{why}'
            )


def train_fold(
    config: ConfigDict,
    workdir: Path,
    fold_data: FoldData,
    program: Program,
    name: str,
    *,
    tell: bool = False,
    origin: provenance.Provenance | None = None,
    choice: Choice | None = None,
) -> dict[str, Any]:
    """Trains one fold, resuming where workdir stands; writes its predictions and results.json, and returns these.

    name: of the model, for results.json, as is `origin`. tell: print what the variables begin with. choice: of the
    inner folds, instead of validation.
    """
    first = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)
    if first:
        save_statistics(workdir / 'statistics.npz', fold_data.statistics)
    seeds = config.seed + np.arange(config.seeds)
    by = {} if choice is None else {'selection': choice.selection(), 'validated': choice.measured}
    with finished_loop(config, workdir, fold_data, program, tell=tell, **by) as loop:
        predictions, results = measure(config, fold_data, program, name, loop.best, loop.selection, seeds)
        for n, row in enumerate(results['rows']):
            row |= marks_of_row(config, choice, n)
        loop.divergence.mark(results['rows'])
        if first:
            forget_states(workdir)
            for split, values in predictions.items():
                measuring.save_predictions(workdir / 'predictions' / f'{split}.npz', values, seeds)
            if origin is not None:
                results[provenance.KEY] = origin.of_fold(loop.resumed_at)
            write_json(workdir / 'results.json', results, sealed=True)
        loop.tracker.end(results)
        return results


def measure(
    config: ConfigDict, fold_data: FoldData, program: Program, name: str, best: Any, selection: Selection, seeds: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the test split once, with the variables that validation chose -> predictions by split, results.json."""
    source, fold = fold_data.source, fold_data.fold
    left_out = () if config.evaluate_train else ('train',)
    splits = [split for split in SPLITS if split not in left_out and len(getattr(fold, split))]
    predictions = {split: measuring.predict(program, best, fold_data.whole(split)) for split in splits}
    floor = floors(measuring.kind_of(source), predictions['test']['label'], names=source.schema.label.names)
    costs = cost.of_answers(program, fold_data.whole('test'), best['params'], len(seeds))
    rows = [result_row(fold, predictions, source, selection, n, int(seed), floor) for n, seed in enumerate(seeds)]
    return predictions, {**describe(config, fold_data, name, costs), 'rows': rows}


def describe(config: ConfigDict, fold_data: FoldData, name: str, costs: dict[str, Any]) -> dict[str, Any]:
    """What a results table says of a run, apart from its rows; and what other data must be like (other_data.py)."""
    schema, label = fold_data.source.schema, fold_data.source.schema.label
    return {
        'format': 1,
        'version': __version__,
        'config': config.name,
        'variant': config.variant,
        'model': name,
        'dataset': schema.name,
        'modalities': list(config.modalities),
        'protocol': config.protocol.name,
        'protocol_options': config.protocol.options.to_dict(),
        **costs,
        'metrics': measuring.kind_of(fold_data.source),
        'headline': list(config.headline),
        'class_names': list(label.names),
        'inputs': other_data.describe_inputs(schema, config.modalities, fold_data.loaders['train'].plan.shapes[-1]),
        'published': config.published.to_dict() or None,
        'selection': config.selection.metric,
        'selection_folds': config.selection.folds,
        'jax': jax.__version__,
        'device': jax.devices()[0].device_kind,
    }


def result_row(
    fold: Fold, predictions: Any, source: RecordSource, selection: Selection, n: int, seed: int, floor: Any
) -> dict[str, Any]:
    """One seed of one fold; metric values are fractions except mae and loss."""
    row = {'fold': fold.name, 'seed': seed, 'marks': list(fold.marks)}
    row |= {'best_epoch': int(selection.best_epoch[n]), 'epochs': int(selection.epochs[n])}
    row['counts'] = {split: len(getattr(fold, split)) for split in SPLITS}
    row |= {split: as_json(measuring.measure(values, source, n)) for split, values in predictions.items()}
    return {**row, 'floor': as_json(floor)}
