"""Pictures of the papers: attention maps and representations of finished runs, the classes of a data set.

    python -m mmer_jax.figures attention WORKDIR [--record ID] [--compare WORKDIR2]
    python -m mmer_jax.figures representations WORKDIR...
    python -m mmer_jax.figures classes DIR [--by session|speaker|split]

The first two are those of the MFSA paper (figures 3, 4 and 5). They load the variables that validation chose, and write
the numbers they draw beside the pictures. The last one is figure 1 of Babaali and Shayaninasab (2023), of any shard
directory whose labels are classes; it prints its counts.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from mmer_jax.data.batches import labels_of
from mmer_jax.data.folds import SPLITS
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_arrays, save_arrays, write_json
from mmer_jax.files.outputs import ATTENTION_FILES, PICTURES, check_beside, check_file, check_folder
from mmer_jax.metrics import KINDS, Kind, metric_kind
from mmer_jax.models import MODELS
from mmer_jax.models.mfsa import REPRESENTATIONS
from mmer_jax.results import attention_plots, bar_plots, canvas
from mmer_jax.results.attention_maps import HEADS, Side, axes_of_record, drawing, maps_of_record
from mmer_jax.results.page import Table
from mmer_jax.results.representations import METHODS, correlation, embed, separation
from mmer_jax.run import cache
from mmer_jax.run.finished import Run, apply, chosen_variables, open_run
from mmer_jax.run.program import example_batch
from mmer_jax.settings import command, ranges

GROUPINGS = ('session', 'speaker', 'split')  # columns of a manifest


def find_record(run: Run, split: str, record: str | None = None) -> int:
    """The number of a record of the split by its id.

    None: the one predicted best (smallest error, or most probable right answer) among those with at least the median
    number of steps in the first modality, since the map of a clip of two words shows nothing.
    """
    manifest = run.fold_data.source.manifest
    numbers = getattr(run.fold_data.fold, split)
    ids = manifest['id'][numbers]
    if record is not None:
        if record in ids:
            return int(numbers[list(ids).index(record)])
        elsewhere = [s for s in SPLITS if record in manifest['id'][getattr(run.fold_data.fold, s)]]
        hint = f'it is in split {elsewhere[0]}' if elsewhere else f'some of its records: {", ".join(ids[:5])}'
        raise ValueError(f'{run.folder}: split {split} has no record {record!r}; {hint}')
    path = run.folder / 'predictions' / f'{split}.npz'
    if not path.is_file():
        raise ValueError(f'{path} is missing, so the best predicted record is unknown; name one with --record')
    file = read_arrays(path, ('id', 'prediction', 'seed', 'label'))
    saved = {str(name): n for n, name in enumerate(file['id'])}
    prediction, label = file['prediction'][list(file['seed']).index(run.seed)], file['label']
    order = np.array([saved[str(name)] for name in ids])
    good = kind_of(run).goodness(prediction[order], label[order])
    length = run.lengths(numbers)[run.config.modalities[0]]
    return int(numbers[np.where(length >= np.median(length), good, -np.inf).argmax()])


def kind_of(run: Run) -> Kind:
    """The kind of metrics of a run's data set."""
    source = run.fold_data.source
    return KINDS[metric_kind(source.schema.label.kind, labels_of(source, source.manifest['record']))]


def check_attention(run: Run) -> None:
    """ValueError where the model hands out no attention maps; it names those that do."""
    if not hasattr(run.model, 'capture_attention'):
        known = [name for name, module in MODELS.items() if hasattr(module, 'capture_attention')]
        raise ValueError(
            f'{run.folder}: model {run.config.model.name!r} has no attention maps; {", ".join(known)} have'
        )


def read_maps(run: Run, number: int, glove: str | None = None) -> tuple[Side, np.ndarray, list[str]]:
    """The attention maps of one record with their axes, the prediction (C,), and notes on the axes."""
    load = run.batches(np.array([number]), alone=True)
    model = run.model.clone(capture_attention=True)
    (outputs,) = apply(model, chosen_variables(run), load, ('attention', 'prediction'))
    lengths = {m: int(n[0]) for m, n in load.plan.lengths.items()}
    padded_to = dict(zip(run.config.modalities, getattr(model, 'left_padded_to', ()), strict=False))
    attention = {key: value[0] for key, value in outputs['attention'].items()}
    maps, steps = maps_of_record(attention, tuple(run.config.modalities), lengths, padded_to)
    axes, notes = axes_of_record(run.fold_data.source, number, lengths, steps, glove)
    return Side('', run.name, maps, axes), outputs['prediction'][0], notes


def read_sides(runs: Sequence[Run], record: str, glove: str | None) -> tuple[list[Side], dict[str, Any], list[str]]:
    """read_maps of each run for the record of that id: sides, what attention.json says of the runs, notes."""
    sides, about, notes = [], {}, []
    for number, (run, name) in enumerate(zip(runs, names_of(runs), strict=True)):
        ids = list(run.fold_data.source.manifest['id'])
        if record not in ids:
            raise ValueError(f'{run.folder}: its data set has no record {record!r} of {runs[0].folder}')
        side, prediction, found = read_maps(run, ids.index(record), glove)
        prefix = 'compare/' if number else ''
        sides.append(dataclasses.replace(side, prefix=prefix, name=name))
        notes += [note for note in found if note not in notes]
        about[f'{prefix}run'] = {
            'workdir': str(run.folder),
            'name': name,
            'seed': run.seed,
            'answer': tell(run, ids.index(record), prediction),
            'prediction': prediction,
            'axes': {m: dataclasses.asdict(axis) for m, axis in side.axes.items()},
        }
    return sides, about, notes


def draw_attention(
    run: Run,
    output: Path | None = None,
    *,
    record: str | None = None,
    split: str = 'test',
    keys: Sequence[str] = (),
    heads: str = 'mean',
    compare: Run | None = None,
    contrast: bool = False,
    glove: str | None = None,
    picture: str = 'png',
) -> list[Path]:
    """Draws the maps of one record (`keys`, by default those of choose_maps) and returns the files written into
    `output` (by default figures/attention_<record> in the run's folder).

    One picture a map and an overview with all of them, in the format `picture`; attention.npz with the numbers by key
    (those of `compare` by 'compare/<key>') and attention.json with what they mean. compare: another run, whose map of
    the same key, or the last between the same modalities, stands beside each. contrast: see drawing.
    """
    if heads not in HEADS:
        raise ValueError(f'heads {heads!r}: expected one of {", ".join(HEADS)}')
    runs = [run] if compare is None else [run, compare]
    for one in runs:
        check_attention(one)
    record = str(run.fold_data.source.manifest['id'][find_record(run, split, record)])
    sides, about, notes = read_sides(runs, record, glove)
    drawn = drawing(sides, keys, heads, contrast=contrast)
    notes += drawn.notes
    answers = [f'{row["name"]}, seed {row["seed"]}: {row["answer"]}' for row in about.values()]
    heading = f'{record}   {" | ".join(answers)}'
    stem = re.sub(r'[^\w.-]+', '_', f'attention_{record}')
    pages = {key.replace('/', '_'): pictures for key, pictures in drawn.pictures.items()}
    pages['overview'] = [picture for pictures in drawn.pictures.values() for picture in pictures]
    if output:
        check_folder(output, ATTENTION_FILES | {f'{name}.{picture}': PICTURES[picture] for name in pages})
        check_beside(output / 'attention.npz', output / 'attention.json')
    output = output or run.folder / 'figures' / stem
    output.mkdir(parents=True, exist_ok=True)
    for name, pictures in pages.items():
        attention_plots.attention_page(pictures, output / f'{name}.{picture}', heading, notes)
    save_arrays(output / 'attention.npz', **drawn.arrays)
    content = {**about, 'record': record, 'split': split, 'heads': heads, 'maps': drawn.described, 'notes': notes}
    write_json(output / 'attention.json', content)
    return [output / name for name in (*(f'{page}.{picture}' for page in pages), 'attention.npz', 'attention.json')]


def names_of(runs: Sequence[Run]) -> list[str]:
    """config:variant of each run, with the workdir's name, and its fold's, where several share it."""
    names = [run.name for run in runs]
    folders = ['/'.join(run.folder.parts[-2 if run.folder.name.startswith('fold_') else -1 :]) for run in runs]
    return [f'{n} ({folder})' if names.count(n) > 1 else n for n, folder in zip(names, folders, strict=True)]


def tell(run: Run, number: int, prediction: np.ndarray) -> str:
    """Label and prediction of a record in words."""
    source = run.fold_data.source
    return kind_of(run).tell(prediction, labels_of(source, np.array([number]))[0], source.schema.label.names)


def read_representations(run: Run, split: str) -> dict[str, np.ndarray]:
    """id (R,), specific and agnostic (R, M, D), prediction (R, C) of a split, in the order of record numbers."""
    model = run.model
    load = run.batches(getattr(run.fold_data.fold, split))
    example = example_batch(load)
    outputs = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), example, train=False)[0])
    missing = [key for key in REPRESENTATIONS if key not in outputs]
    if missing:
        raise ValueError(
            f'{run.folder}: model {run.config.model.name!r} has no {" and no ".join(missing)} vectors; mfsa has'
        )
    planned = [load.plan[n][2] for n in range(len(load.plan))]
    keys = (*REPRESENTATIONS, 'prediction')
    found = apply(model, chosen_variables(run), load, keys)
    order = np.argsort(np.concatenate(planned))
    rows = {
        key: np.concatenate([np.asarray(f[key], np.float32)[: len(p)] for f, p in zip(found, planned, strict=True)])
        for key in keys
    }
    records = np.concatenate(planned)[order]
    return {'id': run.fold_data.source.manifest['id'][records], **{key: value[order] for key, value in rows.items()}}


def draw_representations(runs: Sequence[Run], path: Path, *, split: str = 'test', method: str = 'tsne') -> list[str]:
    """Draws figure 5 into `path`, its vectors and places into an npz beside it; returns a line of numbers for each run.

    In the npz, run k has 'k/id', 'k/specific', 'k/agnostic' (R, M, D), 'k/prediction' and 'k/points' (2, R, M, 2).
    """
    clouds, lines, arrays = [], [], dict[str, np.ndarray]()
    for number, (run, title) in enumerate(zip(runs, names_of(runs), strict=True)):
        found = read_representations(run, split)
        points, shares = embed(np.stack([found[key] for key in REPRESENTATIONS]), method)
        values = {key: separation(found[key]) for key in REPRESENTATIONS}
        shown = ', '.join(f'{key} {"undefined" if v is None else f"{v:.3f}"}' for key, v in values.items())
        alike = f'correlation of specific and agnostic {correlation(found["specific"], found["agnostic"]):.3f}'
        lines.append(f'{title}, seed {run.seed}, {split}: silhouette of the modalities {shown}; {alike}')
        specific, agnostic = points.swapaxes(1, 2)
        modalities = tuple(run.config.modalities)
        clouds.append(attention_plots.Cloud(title, f'silhouette: {shown}', modalities, specific, agnostic, shares))
        arrays |= {f'{number}/{key}': value for key, value in found.items()} | {f'{number}/points': points}
    path.parent.mkdir(parents=True, exist_ok=True)
    heading = f'Representations of the {split} records ({"t-SNE" if method == "tsne" else "PCA"})'
    attention_plots.representations(clouds, path, heading)
    save_arrays(path.with_suffix('.npz'), **arrays)
    return lines


def count_classes(source: RecordSource, by: str) -> dict[str, dict[str, int]]:
    """Value of the column `by` -> class -> records; splits in their order, others naturally, '' as 'none' at the end.

    Raises:
        ValueError: the labels are not classes, or the column is absent or empty; it names those that are filled.
    """
    label, manifest = source.schema.label, source.manifest
    if label.kind != 'classes':
        raise ValueError(f'{source.directory}: labels of kind {label.kind!r} cannot be counted, expected classes')
    if by not in manifest or not np.any(manifest[by] != ''):
        filled = [name for name in GROUPINGS if name in manifest and np.any(manifest[name] != '')]
        raise ValueError(
            f'{source.directory}: no record has a {by}, so there is nothing to count by; columns that are filled: '
            f'{", ".join(filled) or "none of " + ", ".join(GROUPINGS)}'
        )

    def order(value: str) -> tuple:
        place = SPLITS.index(value) if by == 'split' and value in SPLITS else 99
        parts = re.split('([0-9]+)', value)
        return value == '', place, [int(part) if k % 2 else part for k, part in enumerate(parts)]

    labels, found = labels_of(source, np.arange(len(source))), {}
    for value in sorted({str(value) for value in manifest[by]}, key=order):
        numbers = np.bincount(labels[manifest[by] == value], minlength=len(label.names))
        found[value or 'none'] = dict(zip(label.names, numbers.tolist(), strict=True))
    return found


def draw_classes(directory: str, by: str, path: Path) -> list[str]:
    """Draws how many records of each class each value of `by` has; returns the counts as a Markdown table."""
    source = RecordSource(directory)
    table = count_classes(source, by)
    path.parent.mkdir(parents=True, exist_ok=True)
    bar_plots.counts(table, path, label='records', title=f'{source.schema.name}: {len(source):,} records by {by}')
    names = source.schema.label.names
    total = {name: sum(row[name] for row in table.values()) for name in names}
    rows = [[value, *row.values(), sum(row.values())] for value, row in [*table.items(), ('all', total)]]
    return Table([by, *names, 'all'], rows, numbers=True).lines()


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(lambda arguments: print('\n'.join(draw(arguments))), parse(argv))


def draw(arguments: argparse.Namespace) -> list[str]:
    """What the command asks for; returns the lines to print."""
    if arguments.command == 'classes':
        stem = f'classes_{Path(arguments.directory).resolve().name}_by_{arguments.by}'
        path = check_picture(arguments.output or Path(f'{stem}.{arguments.format}'))
        return [*draw_classes(arguments.directory, arguments.by, path), '', f'written: {path}']
    cache.keep_programs(keep=not arguments.no_cache)
    options = {'fold': arguments.fold, 'seed': arguments.seed, 'directory': arguments.data}
    if arguments.command == 'attention':
        run = open_run(arguments.workdir, **options)
        compare = open_run(arguments.compare, **options) if arguments.compare else None
        files = draw_attention(
            run, arguments.output, record=arguments.record,
            split=arguments.split, keys=[key for key in arguments.maps.split(',') if key], heads=arguments.heads,
            compare=compare, contrast=arguments.contrast, glove=arguments.glove, picture=arguments.format,
        )  # fmt: skip
        return [f'written: {file}' for file in files]
    runs = [open_run(workdir, **options) for workdir in arguments.workdirs]
    name = f'representations_{arguments.method}.{arguments.format}'
    path = check_picture(arguments.output or runs[0].folder / 'figures' / name)
    if arguments.output:
        check_beside(path.with_suffix('.npz'), path)
    lines = draw_representations(runs, path, split=arguments.split, method=arguments.method)
    return [*lines, f'written: {path}', f'written: {path.with_suffix(".npz")}']


def check_picture(path: Path) -> Path:
    """The path of a picture; WrongCall for another ending, FileExistsError where it would replace a file of others."""
    kind = path.suffix[1:]
    if kind not in PICTURES:
        raise command.WrongCall(f'--output {path}: expected a file that ends in .{", .".join(PICTURES)}')
    check_file(path, PICTURES[kind])
    return path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.figures', description=__doc__.split('\n')[0])
    subparsers = parser.add_subparsers(dest='command', required=True)
    attention = subparsers.add_parser('attention', help='heat maps of one record')
    attention.add_argument('workdir', help='a run, or one of its fold folders')
    attention.add_argument('--record', help='its id; by default one that is predicted well')
    attention.add_argument('--maps', default='', help='keys, by commas; by default the last layers')
    attention.add_argument('--heads', choices=HEADS, default='mean')
    attention.add_argument('--compare', help='another workdir, drawn beside it')
    attention.add_argument(
        '--contrast',
        action='store_true',
        help='scale from the smallest weight instead of 0, also of maps with contrast',
    )
    attention.add_argument('--glove', help='word vectors as text, to find the words of the vectors')
    attention.add_argument('--output', type=Path, help='folder; WORKDIR/figures/attention_<record> by default')
    vectors = subparsers.add_parser('representations', help='specific and agnostic vectors of a split')
    vectors.add_argument('workdirs', nargs='+', help='runs, drawn side by side')
    vectors.add_argument('--method', choices=METHODS, default='tsne')
    vectors.add_argument('--output', type=Path, help='picture; WORKDIR/figures/representations_<method>.png by default')
    classes = subparsers.add_parser('classes', help='records of each class of a data set')
    classes.add_argument('directory', help='a shard directory')
    classes.add_argument('--by', choices=GROUPINGS, default='session')
    classes.add_argument('--output', type=Path, help='picture; classes_<directory>_by_<column>.png here by default')
    for one in (attention, vectors, classes):
        canvas.add_flags(one)
    for one in (attention, vectors):
        one.add_argument('--split', choices=SPLITS, default='test')
        one.add_argument('--seed', type=ranges.SEED, help='one of the seeds of the run; its first by default')
        one.add_argument('--fold', type=ranges.COUNT_OR_0, help='number of the fold of a run that has several')
        one.add_argument('--data', help='another shard directory')
        cache.add_flag(one)
    return parser.parse_args(argv)


if __name__ == '__main__':
    logging.set_verbosity(logging.WARNING)
    sys.exit(main())
