"""A finished run measured again, on its own splits or on other data: `python -m mmer_jax.evaluate WORKDIR`."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mmer_jax.data.batches import LoadBatch, labels_of
from mmer_jax.data.folds import SPLITS
from mmer_jax.files import read_json, write_json
from mmer_jax.files.outputs import check_ablation, check_folder
from mmer_jax.files.together import write_together
from mmer_jax.metrics import KINDS, as_json, floors
from mmer_jax.results import subsets
from mmer_jax.results.page import markdown
from mmer_jax.run import cache, finished
from mmer_jax.run.finished import Run
from mmer_jax.run.measuring import Predictions, kind_of, measure, predict, save_predictions
from mmer_jax.run.program import make_program
from mmer_jax.run.workdir import hold, read_results
from mmer_jax.settings import command, ranges

Change = Callable[[Run, LoadBatch], LoadBatch]  # what is tested instead of a split as it is


def evaluate_checkpoint(
    workdir: str | Path, *, fold: int | None = None, split: str = 'test', without: Sequence[str] = (), **options: Any
) -> list[dict[str, Any]]:
    """Metrics of a run's chosen variables, from its checkpoints: one row per fold and seed.

    workdir: a run, all whose folds are evaluated, or the one numbered `fold`; or one of its fold folders. without:
    modalities that are hidden, each step of theirs padding; at least one must be left. `options` are those of
    finished.open_runs: another directory, all whose records are then the test split, and what of it may be tested; the
    module of a run of an own one.
    """
    return evaluate_runs(finished.open_runs(workdir, fold=fold, finished=False, **options), split, without)


def evaluate_runs(runs: Sequence[Run], split: str = 'test', without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The same of the folds of a run that are open."""
    rows = []
    for run, predictions in zip(runs, predict_runs(runs, split, without), strict=True):
        source, kind, name = run.fold_data.source, _kind(run), run.fold_data.fold.name
        for n, seed in enumerate(run.seeds):
            rows.append({'fold': name, 'seed': int(seed), **as_json(measure(predictions, source, n, kind))})
    return rows


def predict_runs(runs: Sequence[Run], split: str, without: Sequence[str] = ()) -> Iterator[Predictions]:
    """The predictions of all seeds of each fold on a split, from its checkpoint; compiled once for all folds."""
    check_hidden(without, runs[0].config.modalities)
    for _, _, predictions in predict_changed(runs, split, [hide(without)]):
        yield predictions


def hide(without: Sequence[str]) -> Change:
    return lambda run, load: dataclasses.replace(load, hidden=tuple(without))


def predict_changed(
    runs: Sequence[Run], split: str, changes: Sequence[Change]
) -> Iterator[tuple[Run, int, Predictions]]:
    """(fold, number of the change, predictions of all seeds) of a split that is changed in several ways, one after the
    other; compiled once for all folds and changes, which leave the shapes as they are."""
    other = [run for run in runs if run.other]
    if other and split != 'test':
        raise ValueError(f'{other[0].fold_data.source.directory} is tested as a whole: it has no split {split!r}')
    program = make_program(runs[0].config, runs[0].model, runs[0].fold_data)
    for run in runs:
        load, variables = run.fold_data.whole(split), finished.all_variables(run, program.mesh)
        for number, change in enumerate(changes):
            yield run, number, predict(program, variables, change(run, load))


def measure_run(run: Run, predictions: Predictions) -> list[dict[str, Any]]:
    """One row per seed of a fold: its name, the metrics, and below `floor` those of the best constant answer."""
    source, kind, name = run.fold_data.source, _kind(run), run.fold_data.fold.name
    floor = as_json(floors(kind, predictions['label'], names=source.schema.label.names))
    return [
        {'fold': name, 'seed': int(seed), **as_json(measure(predictions, source, n, kind)), 'floor': floor}
        for n, seed in enumerate(run.seeds)
    ]


def evaluate_subsets(
    runs: Sequence[Run], split: str = 'test', output: str | Path | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The folds of a run that are open tested with every non-empty subset of their modalities, the others hidden.

    Returns what the run is, with the probability of its modality_dropout (None: trained without), and one row per
    subset, fold and seed; writes subsets.md, .csv and .json into `output` where it is given.
    """
    if output is not None:
        check_folder(output, subsets.FILES)
    modalities = tuple(runs[0].config.modalities)
    chosen = subsets.subsets_of(modalities)
    changes = [hide([m for m in modalities if m not in subset]) for subset in chosen]
    found: list[list[dict[str, Any]]] = [[] for _ in chosen]
    for run, number, predictions in predict_changed(runs, split, changes):
        found[number] += [{'modalities': list(chosen[number]), **row} for row in measure_run(run, predictions)]
    rows = [row for of_subset in found for row in of_subset]
    about = describe(runs, split)
    if output is not None:
        write_together(output, subsets.subset_files(about, rows))
    return about, rows


def describe(runs: Sequence[Run], split: str) -> dict[str, Any]:
    """What a test of a run that it was not trained for says of the run."""
    run = runs[0]
    protocol = f'other data: {run.fold_data.source.schema.name}' if run.other else run.config.protocol.name
    return {
        'name': run.name,
        'dataset': run.fold_data.source.schema.name,
        'protocol': protocol,
        'split': split,
        'metrics': _kind(run),
        'modality_dropout': subsets.dropout_of(run.config.data.augment),
        'marks': list(dict.fromkeys(mark for run in runs for mark in run.fold_data.fold.marks)),
    }


def _kind(run: Run) -> str:
    """The kind of metrics: on other data that of the run, where its definitions fit their labels."""
    source, results = run.fold_data.source, run.folder / 'results.json'
    own = kind_of(source)
    if not run.other or not results.is_file():
        return own
    kind = read_results(results, ('metrics',))['metrics']
    if KINDS[own].labels == 'regression':
        labels = np.abs(labels_of(source, source.manifest['record'])).max()
        return kind if labels <= KINDS[kind].largest * (1 + 1e-6) else own
    return own


def evaluate_other(
    workdir: str | Path, output: str | Path | None = None, *, fold: int | None = None, **options: Any
) -> dict[str, Any]:
    """A finished run tested on all records of options['directory'] (finished.open_runs): each of its folds and seeds.

    Returns what results.json holds, with the protocol 'other data: <data set>', and writes it into `output`, with the
    predictions of each fold, where that is given. `workdir`, `fold`: as in evaluate_checkpoint.
    """
    return evaluate_runs_on_other(finished.open_runs(workdir, fold=fold, **options), output)


def evaluate_runs_on_other(runs: Sequence[Run], output: str | Path | None = None) -> dict[str, Any]:
    """The same of the folds of a run that are open."""
    if output is not None:
        check_folder(output, {'results.json': b'other data: '})
    if own := [run for run in runs if not run.other]:
        raise ValueError(
            f'{own[0].fold_data.source.directory} holds the data of the run itself: evaluate its folds, or all with '
            '--all'
        )
    results, rows, found = {}, [], {}
    for run, predictions in zip(runs, predict_runs(runs, 'test'), strict=True):
        fold, source, kind = run.fold_data.fold, run.fold_data.source, _kind(run)
        floor = as_json(floors(kind, predictions['label'], names=source.schema.label.names))
        own_rows = [
            {'fold': fold.name, 'seed': int(seed), 'marks': list(fold.marks), 'counts': {'test': len(fold.test)},
             'test': as_json(measure(predictions, source, n, kind)), 'floor': floor}
            for n, seed in enumerate(run.seeds)
        ]  # fmt: skip
        results = read_results(run.folder / 'results.json', ('metrics', 'variant'))
        results |= {'dataset': source.schema.name, 'metrics': kind, 'published': None, 'protocol_options': {}}
        results |= {'protocol': f'other data: {source.schema.name}'}
        found[run.folder.name if len(runs) > 1 else ''] = (predictions, run.seeds, {**results, 'rows': own_rows})
        rows += own_rows
    results = {**results, 'rows': rows}
    if output is not None:
        _write_other(Path(output), runs[0].workdir, found, results)
    return results


def _write_other(output: Path, parent: Path, found: Mapping[str, Any], results: dict[str, Any]) -> None:
    with hold(output / '.evaluate.lock', output):
        for name, (predictions, seeds, fold_results) in found.items():
            save_predictions(output / name / 'predictions' / 'test.npz', predictions, seeds)
            write_json(output / name / 'results.json', fold_results, sealed=True)
        write_json(output / 'config.json', read_json(parent / 'config.json'), sealed=True)
        write_json(output / 'results.json', results, sealed=True)


def check_hidden(without: Sequence[str], modalities: Sequence[str]) -> None:
    """ValueError where a modality to hide is not the model's, or none would be left."""
    unknown = [m for m in without if m not in modalities]
    if unknown or (without and not set(modalities) - set(without)):
        raise ValueError(f'without {", ".join(without)}: the model has {", ".join(modalities)}; at least one must stay')


def ablate(
    workdir: str | Path, output: str | Path, without: Sequence[str], *, fold: int | None = None, **options: Any
) -> dict[str, Any]:
    """A finished run tested with modalities hidden: its results.json with the new test metrics, written to `output`.

    workdir, fold: as in evaluate_checkpoint. options: the module of a run of an own one, model=...
    Nothing is trained: the row says how much the trained model leans on what is hidden, not what a model without it
    could learn. Its rows hold no numbers of the other splits.
    """
    output = Path(output)
    check_ablation(output)
    runs = finished.open_runs(workdir, fold=fold, **options)
    tested = {(row.pop('fold'), row.pop('seed')): row for row in evaluate_runs(runs, without=without)}
    results: dict[str, Any] = {}
    rows = []
    for run in runs:
        results = read_results(run.folder / 'results.json')
        for row in results['rows']:
            kept = {key: value for key, value in row.items() if key not in SPLITS}
            rows.append({**kept, 'test': tested[row['fold'], row['seed']]})
    left = [m for m in results['modalities'] if m not in without]
    variant = '_'.join(filter(None, [results['variant'], 'without', *without]))
    results |= {'rows': rows, 'modalities': left, 'variant': variant, 'published': None}
    with hold(output / '.evaluate.lock', output):
        write_json(output / 'config.json', read_json(runs[0].workdir / 'config.json'), sealed=True)
        write_json(output / 'results.json', results, sealed=True)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.evaluate', description='Evaluate a checkpoint again.')
    add = parser.add_argument
    add('workdir', type=Path, nargs='?', help='a run, or one of its fold folders')
    add('--pretrained', metavar='NAME', help='converted weights of a published classifier, in place of a run')
    add('--map', default='', metavar="'joy=happy,...'", help='with --pretrained: its labels = classes of the data set')
    add('--fold', type=ranges.COUNT_OR_0, help='number of one fold; all by default, and their mean')
    add('--split', choices=SPLITS, default='test', help="of the run's own data")
    add('--data', help="another shard directory, tested whole by each fold's model; or the run's own data elsewhere")
    add('--all', action='store_true', help='test all records of --data also where they are those of the run')
    add('--leave_out_seen', action='store_true', help='of other data, leave out records and speakers of the training')
    add('--other_preparation', action='store_true', help='test other data also where they were prepared in another way')
    add('--without', nargs='+', default=[], metavar='MODALITY', help='modalities to hide')
    add('--every_subset', action='store_true', help='test with every subset of the modalities')
    add('--output', type=Path, help='write results.json of --without or other data there, or tables of --every_subset')
    cache.add_flag(parser)
    arguments = parser.parse_args(argv)
    if arguments.pretrained:
        allowed = ('pretrained', 'map', 'data', 'output', 'no_cache')
        changed = [name for name, value in vars(arguments).items() if value != parser.get_default(name)]
        if arguments.data is None or set(changed) - set(allowed):
            parser.error('--pretrained NAME tests all records of --data DIR: leave the run and its flags out')
    elif arguments.workdir is None:
        parser.error('nothing to evaluate: give a run, or --pretrained NAME')
    elif arguments.map:
        parser.error('--map says what the labels of --pretrained are called here: a run has the labels of its data')
    if (arguments.all or arguments.leave_out_seen or arguments.other_preparation) and not arguments.data:
        parser.error('--all, --leave_out_seen and --other_preparation say what of --data is tested: give --data')
    if arguments.every_subset and arguments.without:
        parser.error('--every_subset hides every subset in turn: leave --without out')
    if arguments.without and arguments.output and arguments.data:
        parser.error('--output is of --without or of --data, not of both')
    if arguments.output and not arguments.without and not arguments.data and not arguments.every_subset:
        parser.error('--output needs --without, --data or --every_subset')
    return arguments


def _open(arguments: argparse.Namespace) -> list[Run]:
    return finished.open_runs(
        arguments.workdir, fold=arguments.fold, directory=arguments.data, finished=arguments.data is not None,
        every=arguments.all, leave_out=arguments.leave_out_seen, allow=arguments.other_preparation,
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows to print of a command line."""
    if arguments.pretrained:
        from mmer_jax.prediction import on_records  # it opens media, which a run's evaluation does without

        return on_records.rows_of(arguments.pretrained, arguments.data, arguments.map, arguments.output)
    workdir, fold, without = arguments.workdir, arguments.fold, arguments.without
    if without and arguments.output:
        results = ablate(workdir, arguments.output, without, fold=fold)
        return [{'fold': row['fold'], 'seed': row['seed'], **row['test']} for row in results['rows']]
    runs = _open(arguments)
    if not runs[0].other or without or arguments.split != 'test':
        if arguments.output:
            raise ValueError(f'{arguments.data} holds the data of the run itself, whose results are there: no --output')
        return evaluate_runs(runs, arguments.split, without)
    results = evaluate_runs_on_other(runs, arguments.output)
    print(f'protocol {results["protocol"]}, {results["rows"][0]["counts"]["test"]} records')
    for mark in dict.fromkeys(mark for row in results['rows'] for mark in row['marks']):
        print(f'note: {mark}')
    return [{'fold': row['fold'], 'seed': row['seed'], **row['test']} for row in results['rows']]


def _with_mean(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and where there are several their mean over what is defined."""
    if len(rows) < 2:
        return rows
    columns = {key: [row[key] for row in rows if row.get(key) is not None] for key in rows[0]}
    means = {k: float(np.mean(v)) for k, v in columns.items() if k not in ('fold', 'seed') and v}
    return [*rows, {'fold': f'mean of {len(rows)}', **means}]


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return 'undefined'
    return f'{value:.4f}' if isinstance(value, float) else str(value)


def work(arguments: argparse.Namespace) -> None:
    cache.keep_programs(keep=not arguments.no_cache)
    if arguments.every_subset:
        about, rows = evaluate_subsets(_open(arguments), arguments.split, arguments.output)
        print(markdown(subsets.subset_blocks(about, rows)), end='')
        return
    for row in _with_mean(run(arguments)):
        print(', '.join(f'{key} {_shown(value)}' for key, value in row.items()))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)
    sys.exit(main())
