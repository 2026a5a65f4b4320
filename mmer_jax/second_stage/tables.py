"""What the classifiers gave, shown: Tables 4 to 7 of the transformer paper, rows.csv, the pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from mmer_jax.files import replace
from mmer_jax.marks import of_known_speakers
from mmer_jax.metrics import confusion_matrix, per_class
from mmer_jax.results import plots
from mmer_jax.results.page import Block, Table, Text, csv_text
from mmer_jax.results.runs import caution
from mmer_jax.results.summary import format_number, format_summary, over, summarise
from mmer_jax.second_stage.classify import CLASSIFIERS, OPERATIONS, fuse
from mmer_jax.second_stage.folds import FoldFeatures
from mmer_jax.second_stage.outcomes import Results

LABELS = {
    'svm': 'SVM', 'mlp': 'MLP', 'xgboost': 'XGBoost', 'lda': 'LDA', 'logistic': 'logistic regression',
    'concat': 'concatenation', 'sum': 'sum', 'product': 'product',
}  # fmt: skip
SOURCE = 'Babaali and Shayaninasab (2023), Tables 4 to 7'
# The paper's numbers: accuracy by combination, with its classifiers in the order SVM, neural network, XGBoost; of a
# modality alone (loss, accuracy); Table 7 as (precision, recall, F1). Its final model of 75.42 % is in its abstract and
# section 3.3 the concatenation, in Table 5 that number is the sum's (and 75.451 % the concatenation's).
PUBLISHED = {
    'iemocap': {
        'unimodal': {'text': (1.27, 0.6750), 'audio': (1.41, 0.6755), 'vision': (1.35, 0.3322)},
        'classes': {
            'angry': (0.7952, 0.8566, 0.8233),
            'happy': (0.7775, 0.7572, 0.7646),
            'neutral': (0.7019, 0.6941, 0.6927),
            'sad': (0.7841, 0.7435, 0.7569),
        },
        'total': (0.7610, 0.7542, 0.7535),
        'notes': 'Its Table 7 is of its final model, accuracy 75.42 %: by its abstract and section 3.3 concatenation '
        'with SVM, by its Table 5 the sum with SVM (concatenation there: 75.451 %). It does not say of which epoch the '
        'losses of its Table 4 are; the runtimes there, unit not stated, are 3.75 (text), 81.46 (audio) and 562.62 '
        '(vision).',
        'early concat': (0.75451, 0.7531, 0.7328),
        'early sum': (0.7542, 0.7516, 0.7395),
        'late concat': (0.7397, 0.7436, 0.7445),
        'late sum': (0.7210, 0.7256, 0.7275),
    }
}
METRICS = ('accuracy', 'uar', 'macro_f1')
FINAL = ('early concat svm', 'early sum svm')  # beside which the numbers of its Table 7 are shown


def tables(
    results: Results,
    folds: Sequence[FoldFeatures],
    seeds: Sequence[int],
    classifiers: Sequence[str],
    detail: str,
    published: Mapping[str, Any],
) -> list[Block]:
    """Tables 4 to 7 and what they mean; `detail` is the combination of Table 7."""

    def cell(name, metric='accuracy', quoted=None):
        values = results.values(folds, seeds, name, metric)
        text = '–' if values is None else format_summary(metric, summarise(values)).removesuffix(' (over folds)')
        return f'{text} ({format_number(metric, quoted)})' if quoted is not None else text

    blocks = [
        *_alone(cell, list(folds[0].features), classifiers, published.get('unimodal', {})),
        *_fusion(results, folds, seeds, cell, classifiers, published),
        *_chosen(results, folds, seeds, cell),
        *_detail(cell, confusions(results, folds, seeds, detail), folds[0].class_names, detail, published),
        Text(_explanation(folds, seeds, published, tuned='tune' in results.job)),
    ]
    known = of_known_speakers(marks_of(folds))
    return [_marked(block, known) for block in blocks]


def _marked(block: Block, known: Sequence[str]) -> Block:
    """The title of a table with what its rows know of the tested speakers."""
    if known and isinstance(block, Text) and block.text.startswith('**Table'):
        return Text(f'{block.text} ⚠ {"; ".join(known)}')
    return block


def confusions(results: Results, folds: Sequence[FoldFeatures], seeds: Sequence[int], name: str) -> np.ndarray:
    """(N, C, C) counts of the test records of all folds of a combination, for each seed; rows are true classes."""
    count = len(folds[0].class_names)

    def matrix(fold, part):
        return confusion_matrix(np.array(part.rows[name]['predicted']), fold.labels[fold.test], count)

    by_seed = zip(*results.of(folds, seeds), strict=True)
    return np.array([sum(map(matrix, folds, parts)) for parts in by_seed])


def _alone(cell, modalities, classifiers, quoted):
    rows = []
    for m in modalities:
        loss, accuracy = quoted.get(m, (None, None))
        cells = [cell(f'unimodal {m}', 'loss', loss), cell(f'unimodal {m}', quoted=accuracy)]
        rows.append([m, *cells, *(cell(f'alone {m} {c}') for c in classifiers)])
    header = ['', 'loss of its own model', 'own model', *(LABELS[c] for c in classifiers)]
    return [Text('**Table 4. One modality** (accuracy, %)'), Table(header, rows)]


def _fusion(results, folds, seeds, cell, classifiers, published):
    def average(names, quoted):
        found = [results.values(folds, seeds, name, 'accuracy') for name in names]
        if any(values is None for values in found):
            return '–'
        known = len(quoted) == len(names) and None not in quoted
        text = format_number('accuracy', float(np.mean([values.mean() for values in found])))
        return f'{text} ({format_number("accuracy", float(np.mean(quoted)))})' if known else text

    blocks: list[Block] = []
    for number, stage in ((5, 'early'), (6, 'late')):
        rows = []
        for operation in OPERATIONS:
            names = [f'{stage} {operation} {c}' for c in classifiers]
            numbers = dict(zip(CLASSIFIERS, published.get(f'{stage} {operation}', ()), strict=False))
            quoted = [numbers.get(c) for c in classifiers]
            cells = [cell(name, quoted=number) for name, number in zip(names, quoted, strict=True)]
            rows.append([LABELS[operation], *cells, average(names, quoted)])
        blocks.append(Text(f'**Table {number}. {stage.capitalize()} fusion** (accuracy, %)'))
        blocks.append(Table(['', *(LABELS[c] for c in classifiers), 'average'], rows))
    return blocks


def _chosen(results, folds, seeds, cell):
    if results.values(folds, seeds, None, 'accuracy') is None:
        return []
    picked = [part.chosen for parts in results.of(folds, seeds) for part in parts]
    often = max(set(picked), key=picked.count)
    text = f'Chosen within the training records of each fold (most often {often}): {cell(None)}, '
    return [Text(text + f'UAR {cell(None, "uar")}, macro F1 {cell(None, "macro_f1")}.')]


def _detail(cell, counts, class_names, detail, published):
    published = published if detail in FINAL else {}

    def line(name, records, scores, quoted):
        cells = []
        for values, number in zip(scores, quoted, strict=True):
            text = format_summary('', over('seeds', values))
            cells.append(text if number is None else f'{text} ({format_number("", number)})')
        return [name, f'{records:,}', *cells]

    rows = []
    recall, precision, f1 = per_class(counts)
    records = counts.sum(-1)[0]
    for number, name in enumerate(class_names):
        scores = [values[:, number] for values in (precision, recall, f1)]
        rows.append(line(name, records[number], scores, published.get('classes', {}).get(name, (None,) * 3)))
    # Weighted by the true counts; a class that is never predicted has precision 0 there, as in scikit-learn.
    weighted = [np.nan_to_num(values) @ records / records.sum() for values in (precision, recall, f1)]
    rows.append(line('all, weighted by class', records.sum(), weighted, published.get('total', (None,) * 3)))
    accuracy, uar, f1 = (cell(detail, metric) for metric in METRICS)
    note = 'Table 7 and the picture count the test records of all folds together, seed by seed; the other numbers are '
    note += 'means of folds. – : no test record is of the class, or none was called so.'
    table = Table(['', 'test records', 'precision', 'recall', 'F1'], rows)
    shown = Text(f'accuracy {accuracy}, UAR {uar}, macro F1 {f1}')
    return [Text(f'**Table 7. {detail}** (%)'), table, shown, Text(note)]


def _explanation(folds, seeds, published, *, tuned):
    train, test = (
        sum(int(part.sum()) for part in parts) for parts in zip(*((f.train, f.test) for f in folds), strict=True)
    )
    own = 'unimodal network' if folds[0].probabilities else 'logistic regression'
    counts = f'{len(folds)} fold{"s" * (len(folds) > 1)}, {len(seeds)} seed{"s" * (len(seeds) > 1)}'
    note = f'{counts}, {test} test predictions ({train} training records in all)'
    if len(seeds) > 1 or len(folds) > 1:
        over = 'seeds, each the mean of its folds' if len(seeds) > 1 else 'folds'
        note += f'; mean ± standard deviation over {over}'
    note += (
        f'. Own model: the {own}. Scaling, unimodal probabilities and classifiers are fitted on training records '
        'alone. – : vectors of different sizes, or not run.'
    )
    if tuned:
        note += (
            ' Settings of each classifier: chosen in inner folds of the training records; which ones, rows.csv says in '
            'its column settings.'
        )
    if published:
        note += f' In brackets: published, {SOURCE}. {published.get("notes", "")}'
    if marks := marks_of(folds):
        note += f'\n\n{caution(marks)}.'
    return note.rstrip(' ')


def marks_of(folds: Sequence[FoldFeatures]) -> list[str]:
    """The marks of all folds, each once."""
    return list(dict.fromkeys(mark for fold in folds for mark in fold.marks))


def write_rows(results: Results, path: Path, marks: Sequence[str] = ()) -> None:
    """rows.csv: one line for each fold, seed and combination, each with the marks of its protocol."""
    lines, of = [], {'marks': '; '.join(marks)}
    for part in results.parts.values():
        rows = [(name, row, '') for name, row in part.rows.items()]
        if part.chosen:
            rows.append(('chosen', part.rows[part.chosen], part.chosen))
        for name, row, detail in rows:
            numbers = {metric: row['metrics'][metric] for metric in METRICS}
            found = ', '.join(f'{key} {value:g}' for key, value in row.get('settings', {}).items())
            line = {'fold': part.fold, 'seed': part.seed, 'combination': name, **numbers, 'detail': detail}
            lines.append({**line, 'settings': found, **of})
    replace(path, csv_text(lines).encode())


def draw(
    folds: Sequence[FoldFeatures], results: Results, seeds: Sequence[int], detail: str, output: Path, kind: str = 'png'
) -> list[Path]:
    """The confusion matrix, and PCA scatters of the first fold's test records (fitted on its training records)."""
    files = [output / f'confusion.{kind}']
    matrix = confusions(results, folds, seeds, detail).mean(0)
    plots.confusion(matrix, folds[0].class_names, files[0], detail)
    fold = folds[0]
    views = {**{m: [x] for m, x in fold.features.items()}, 'fusion': list(fold.features.values())}
    for name, vectors in views.items():
        x = fuse(vectors, fold.train, 'concat')
        if x.shape[1] < 2:
            continue  # one value a record has no plane to be shown in
        pca = PCA(2, random_state=0).fit(x[fold.train])
        points = pca.transform(x[fold.test])
        files.append(output / f'pca_{name}.{kind}')
        title = f'{"all modalities" if name == "fusion" else name}: test records of {fold.name}'
        plots.scatter(
            points, fold.labels[fold.test], fold.class_names, files[-1], title, pca.explained_variance_ratio_.tolist()
        )
    return files
