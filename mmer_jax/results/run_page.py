"""The part of a report that shows one run: curves, confusion matrix, worst clips, pictures, config, origin."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import read_arrays, read_json, read_jsonl
from mmer_jax.metrics import KINDS, about, confusion_matrix, floors, is_better_high, per_class
from mmer_jax.results import canvas, curves, plots
from mmer_jax.results.page import Block, Code, Details, Heading, Picture, Table, Text
from mmer_jax.results.runs import ReportError, Run, flat
from mmer_jax.results.statistics import Predicted
from mmer_jax.results.summary import finite_mean, format_summary, is_plain, over, scale_of, unit_of

CLASSES_EXPLANATION = """\
Classes: for each seed the test records of all folds are counted together, then come mean ± standard deviation over the
seeds. Recall is the share of a class's records that are found, and is the diagonal of the picture; precision the share
of what is called so that is so; F1 their harmonic mean. – : undefined, as no test record is of the class (recall) or
none was called so (precision); seeds where a number is undefined are left out of its mean."""
LOSSES = {  # titles, with units, of those that are told by more than their name
    'cross_entropy': 'cross-entropy, nats', 'binary_cross_entropy': 'binary cross-entropy, nats',
    'l1': 'absolute error', 'mse': 'squared error',
}  # fmt: skip
TITLE = 80  # letters of a picture's title
WORST = 10  # clips in the table
MOST_PICTURES = 12  # of figures/, on a page
LARGEST = 4 << 20  # bytes of one of them
ABOUT_RUN = ('version', 'jax', 'device', 'dataset', 'model', 'protocol', 'inputs')


def draw(run: Run, stem: str, output: Path, kind: str = 'png', *, explain: bool = True) -> list[Block]:
    """Writes the run's pictures, of a format; returns the blocks that show them.

    explain: say what the classes' table holds.
    """
    metric, blocks = run.results['selection'], list[Block]()
    if all((folder / 'metrics.jsonl').is_file() for folder in run.folds.values()):  # a test of a trained model has none
        draw_curves(run, output / f'{stem}_curves.{kind}')
        titles = dict.fromkeys(['loss', about(metric).title])
        blocks.append(Picture(f'{" and ".join(titles)} of {run.name} by epoch', f'{stem}_curves.{kind}'))
    if run.results['metrics'] == 'classification':
        counts, names = confusions(run), run.results['class_names']
        folds = f', {len(run.folds)} folds together' if len(run.folds) > 1 else ''
        title = f'{canvas.short(run.name, TITLE // 2)}: test{folds}' + (
            f', mean of {len(counts)} seeds' if len(counts) > 1 else ''
        )
        plots.confusion(counts.mean(0), names, output / f'{stem}_confusion.{kind}', title)
        blocks.append(Picture(f'confusion matrix of {run.name}', f'{stem}_confusion.{kind}'))
        blocks += [class_table(counts, names), *([Text(CLASSES_EXPLANATION)] if explain else [])]
    return blocks


def draw_curves(run: Run, path: Path) -> None:
    """Loss and selection metric of all folds, the floor on validation, the epochs that validation chose."""
    metric, scale = run.results['selection'], scale_of(run.results['selection'])
    rows = [
        {**row, 'fold': fold} for fold, folder in run.folds.items() for row in _rows(folder / 'metrics.jsonl', metric)
    ]
    values = [scale * row[metric] for row in rows if row.get(metric) is not None and row.get('split') == 'validation']
    chosen = {(row['seed'], row['fold']): row['best_epoch'] for row in run.results['rows']}
    label = f'validation {about(metric).title}{unit_of(metric)}'
    curves.curves(
        rows, path, canvas.short(run.name, TITLE), metric=metric, scale=scale, label=label, loss=loss_title(run),
        limits=_limits(metric, values), floor=validation_floor(run, metric), chosen=chosen,
    )  # fmt: skip


def _rows(path: Path, metric: str) -> list[dict[str, Any]]:
    """metrics.jsonl; ReportError where what the curves show is no number."""
    rows = read_jsonl(path)
    for line, row in enumerate(rows, start=1):
        for key, kinds in (('epoch', (int,)), ('seed', (int,)), ('loss', (int, float)), (metric, (int, float))):
            if row.get(key) is not None and type(row[key]) not in kinds:
                found = f'{key} is {str(row[key])[:40]!r}, expected a number'
                raise ReportError(f'{path}, line {line}: {found}; bring the file back, or train again')
    return rows


def _limits(metric: str, values: Sequence[float]) -> tuple[float, float] | None:
    """The whole range of a metric: 0 to 100 %, or up to the 1 of a correlation; None where it has no upper end."""
    if not is_plain(metric):
        return 0.0, 100.0
    return (min([0.0, *(1.06 * value for value in values)]), 1.0) if is_better_high(metric) else None


def loss_title(run: Run) -> str:
    """What the loss is made of, the heaviest part first: 'loss: absolute error + 0.1 separation'."""
    weights = {key.removeprefix('losses.'): v for key, v in run.config.items() if key.startswith('losses.') and v}
    if not weights:
        return 'loss'
    only = len(weights) == 1
    parts = []
    for name, weight in sorted(weights.items(), key=lambda pair: -pair[1]):
        title = LOSSES.get(name, name.replace('_', ' '))
        parts.append(f'{"" if weight == 1 else f"{weight:g} "}{title if only else title.partition(",")[0]}')
    more = [f'{len(parts) - 3} more'] if len(parts) > 3 else []
    return f'loss: {" + ".join([*parts[:3], *more])}'


def validation_floor(run: Run, metric: str) -> float | None:
    """What the best constant answer scores on the validation labels, averaged over the folds; that on the test labels
    where a fold keeps no validation predictions."""
    found = []
    for folder in run.folds.values():
        path = folder / 'predictions' / 'validation.npz'
        if not path.is_file():
            return finite_mean(run.values(metric, 'floor'))
        labels = _read(path, ('label',))['label']
        value = floors(run.results['metrics'], labels, run.results['class_names'] or None).get(metric)
        found.append(np.nan if value is None else value)
    return finite_mean(np.array(found, float))


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        return read_arrays(path, names)
    except (ValueError, OSError) as error:
        raise ReportError(str(error)) from error


def confusions(run: Run) -> np.ndarray:
    """(N, C, C) counts of the test records of all folds, for each seed; rows are true classes."""
    classes = len(run.results['class_names'])
    total: Any = 0
    for folder in run.folds.values():
        found = _read(folder / 'predictions' / 'test.npz', ('prediction', 'label'))
        predicted, labels = found['prediction'].argmax(-1), found['label']
        total = total + np.stack([confusion_matrix(one, labels, classes) for one in predicted])
    return np.asarray(total)


def class_table(confusions: np.ndarray, class_names: Sequence[str]) -> Table:
    """Records, recall, precision and F1 of every class, from counts (N, C, C) of N seeds."""
    rows = []
    scores = per_class(confusions)
    records = confusions.sum(-1)[0]  # of the true classes, the same for every seed
    for number, name in enumerate(class_names):
        cells = [format_summary('', over('seeds', values[:, number])) for values in scores]
        rows.append([name, f'{records[number]:,}', *cells])
    return Table(['class', 'test records', 'recall, %', 'precision, %', 'F1, %'], rows)


# ---- what only a page shows ------------------------------------------------------------------------------------


def more_of(run: Run, tested: Predicted | None) -> list[Block]:
    """Worst clips, pictures in the run's folder, config, and where the numbers come from."""
    blocks: list[Block] = []
    if tested:
        blocks += [Details('The test clips it got most wrong', [worst_clips(tested)])]
    blocks += pictures_of(run)
    if run.config:
        lines = '\n'.join(f'{key} = {json.dumps(value, ensure_ascii=False)}' for key, value in run.config.items())
        blocks.append(Details('Config', [Code(lines)]))
    blocks.append(Details('Where the numbers come from', origin_of(run)))
    return blocks


def worst_clips(tested: Predicted) -> Table:
    """The test clips whose right answer the seeds gave least, by their mean; the answer is that of the mean.

    Of classes only those that a seed got wrong.
    """
    kind, names = KINDS[tested.run.results['metrics']], tested.run.results['class_names']
    of_classes, found = kind.labels == 'classes', []
    for fold in tested.folds:
        predictions, labels = fold['prediction'], fold['label']
        goodness = np.mean([kind.goodness(one, labels) for one in predictions], 0)
        wrong = (predictions.argmax(-1) != labels).sum(0) if of_classes else np.full(len(labels), len(predictions))
        order = [n for n in np.argsort(goodness, kind='stable') if wrong[n]][:WORST]
        for n in order:
            answer = kind.tell(predictions.mean(0)[n], labels[n], names)
            found.append((float(goodness[n]), str(fold['id'][n]), answer, f'{wrong[n]} of {len(predictions)}'))
    worst = sorted(found)[:WORST]
    if of_classes:
        rows = [[name, answer, seeds, f'{value:.2f}'] for value, name, answer, seeds in worst]
        return Table(['clip', 'answer', 'seeds that got it wrong', 'log-probability of the right class'], rows)
    return Table(
        ['clip', 'answer', 'goodness, 0 is best'], [[name, answer, f'{v:.2f}'] for v, name, answer, _ in worst]
    )


def pictures_of(run: Run) -> list[Block]:
    """Pictures of attention and representations that `mmer_jax.figures` left in the run's folder or its folds'."""
    folders = dict.fromkeys([run.folder, *run.folds.values()])
    files = [file for folder in folders for file in sorted((folder / 'figures').rglob('*.*'))]
    shown = [
        file
        for file in files
        if file.suffix in ('.png', '.svg')
        and file.stat().st_size <= LARGEST
        and canvas.mark_of(file.suffix[1:]) in file.read_bytes()
        and (file.stem == 'overview' or not (file.parent / f'overview{file.suffix}').is_file())
    ]
    blocks: list[Block] = []
    for file in shown[:MOST_PICTURES]:
        fold = '' if file.is_relative_to(run.folder / 'figures') else f' ({file.relative_to(run.folder).parts[0]})'
        blocks.append(Picture(f'{_title_of(file)}{fold}', str(file.resolve())))
    if len(shown) > MOST_PICTURES:
        blocks.append(Text(f'{len(shown) - MOST_PICTURES} more pictures lie in its folder figures/.'))
    return [Heading('Pictures of this run', 3), *blocks] if blocks else []


def _title_of(file: Path) -> str:
    about_file = file.parent / 'attention.json'
    if about_file.is_file():
        content = read_json(about_file)
        answers = '; '.join(
            str(part['answer']) for part in content.values() if isinstance(part, dict) and 'answer' in part
        )
        return f'attention, record {content.get("record", "")}: {answers}'
    return file.stem.replace('_', ' ')


def origin_of(run: Run) -> list[Block]:
    """Command, versions, device, data: what results.json says, whatever that is."""
    known = {key: run.results[key] for key in ABOUT_RUN if key in run.results}
    provenance = run.results.get('provenance')
    rows = [
        [key, _words(value)] for key, value in flat({**known, **(provenance if isinstance(provenance, dict) else {})})
    ]
    blocks: list[Block] = [Table(['what', 'value'], [['folder', run.folder.name], *rows])]
    if not provenance:
        blocks.append(
            Text('Command, git state and checksum of the data are not recorded: an older version made the run.')
        )
    return blocks


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
