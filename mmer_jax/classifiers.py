"""SVM, XGBoost and MLP on fused features: Tables 4 to 7, the PCA scatters and the confusion matrix, in one command.

    python -m mmer_jax.classifiers --features text=runs/bert_iemocap/features audio=runs/wav2vec2_iemocap/features \\
        vision=runs/videomae_iemocap/features --published iemocap

--features names directories of mmer_jax.extract (a model and a split for each fold), or plain record directories of one
vector a record, for which --protocol makes the folds. Tables 4 to 7 are those of Babaali and Shayaninasab (2023): the
unimodal models, early fusion, late fusion, and precision, recall and F1 of one combination. What finished folds gave is
kept in results.json, and the same command goes on where it was stopped.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from mmer_jax.data.enrolment import MODES, NORMALIZE_BY, Enrolment
from mmer_jax.data.schema import MODALITIES
from mmer_jax.files import replace
from mmer_jax.files.outputs import CLASSIFIER_FILES, check_folder
from mmer_jax.metrics import confusion_matrix, per_class
from mmer_jax.results import canvas, latex, plots
from mmer_jax.results.page import Block, Table, Text, csv_text, markdown
from mmer_jax.results.runs import BY_SPEAKER, caution, is_of
from mmer_jax.results.summary import format_number, format_summary, over, summarise
from mmer_jax.second_stage.as_runs import save_runs
from mmer_jax.second_stage.by_speaker import by_speaker
from mmer_jax.second_stage.classify import (
    CLASSIFIERS,
    OF_THE_PAPER,
    OPERATIONS,
    STAGES,
    choose,
    classify,
    fuse,
    fused,
    parse_options,
    unimodal_probabilities,
)
from mmer_jax.second_stage.folds import FoldFeatures, fingerprint, read_folds
from mmer_jax.second_stage.outcomes import Part, Results
from mmer_jax.settings import command, ranges

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
OUTPUT = Path('runs/classifiers')
DETAIL = 'early concat'  # with the first classifier, what Table 7 shows: the paper's final model by its text
FINAL = ('early concat svm', 'early sum svm')  # beside which the numbers of its Table 7 are shown


def run_fold(
    fold: FoldFeatures, results: Results, seeds: Sequence[int], classifiers: Sequence[str], chosen: bool
) -> None:
    """Every unimodal model and combination on one fold that results do not hold yet."""
    for seed in seeds:
        if (fold.name, seed) in results.parts:
            continue
        part = Part(fold.name, seed)
        # Fitted once for all combinations.
        held = dataclasses.replace(fold, probabilities={m: unimodal_probabilities(fold, m) for m in fold.features})
        for m in fold.features:
            own = held.probabilities[m][fold.test]
            right = own[np.arange(len(own)), fold.labels[fold.test]]
            part.add(fold, f'unimodal {m}', own.argmax(1), loss=float(-np.log(right.clip(1e-12)).mean()))
            x = fuse([fold.features[m]], fold.train, 'concat')
            for classifier in classifiers:
                part.add(fold, f'alone {m} {classifier}', classify(x, fold, classifier, seed))
        possible = []
        for stage, operation in itertools.product(STAGES, OPERATIONS):
            try:
                x = fused(held, stage, operation)
            except ValueError:  # sum and product of features of different sizes
                continue
            for classifier in classifiers:
                possible.append((stage, operation, classifier))
                part.add(fold, f'{stage} {operation} {classifier}', classify(x, fold, classifier, seed))
        if chosen:
            part.chosen = ' '.join(choose(fold, possible, seed))
        results.save(part)
        print(f'{fold.name}, seed {seed}: {len(possible)} combinations', flush=True)


# ---- tables --------------------------------------------------------------------------------------------------


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
        Text(_explanation(folds, seeds, published)),
    ]
    known = [mark for mark in marks_of(folds) if mark.startswith(BY_SPEAKER)]
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


def _explanation(folds, seeds, published):
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
            lines.append({'fold': part.fold, 'seed': part.seed, 'combination': name, **numbers, 'detail': detail, **of})
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


# ---- the command ---------------------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.classifiers', description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--features', nargs='+', required=True, metavar='MODALITY=DIR', help='text=DIR audio=DIR vision=DIR')
    add('--output', type=Path, default=OUTPUT, help='folder of tables and pictures')
    add('--protocol', default='official_split', help='of plain directories: a name of mmer_jax/data/protocols.py')
    add('--protocol_options', default='', help='its options as JSON, such as \'{"folds": 5}\'')
    add('--normalize_by', choices=NORMALIZE_BY, default='all', help='bring vectors to those of all, or of the speaker')
    add('--enrolment', choices=MODES, help='by speaker: which of his clips; strict, none, by default')
    add('--enrolment_clips', type=ranges.COUNT, default=2, help='enrolled: clips of each speaker, then in no set')
    add('--enrolment_label', default='', help='enrolled: the class that they are of; any by default, no label is read')
    add('--enrolment_seed', type=ranges.NUMPY_SEED, default=0, help='enrolled: which clips')
    add('--seeds', type=ranges.COUNT, default=1, help='seeds of the classifiers')
    add('--classifiers', nargs='+', choices=CLASSIFIERS, default=list(OF_THE_PAPER))
    add(
        '--save_runs',
        type=Path,
        metavar='DIR',
        help='also keep lda, logistic and mlp there as runs for mmer_jax.report',
    )
    add('--choose', action='store_true', help='also choose the combination within the training records of each fold')
    add(
        '--detail',
        help="the combination of Table 7 and of the confusion matrix, such as 'late concat svm'; by default "
        f'{DETAIL} with the first classifier, the final model of the paper by its text; by its Table 5 early sum',
    )
    add('--published', choices=list(PUBLISHED), help='put the published numbers of this data set beside ours')
    canvas.add_flags(parser, 'tables.tex')
    arguments = parser.parse_args(argv)
    if arguments.enrolment and arguments.normalize_by != 'speaker':
        parser.error('--enrolment says by which clips of a speaker: give --normalize_by speaker')
    return arguments


def _enrolment(arguments: argparse.Namespace) -> Enrolment | None:
    own = [getattr(arguments, f'enrolment_{name}') for name in ('clips', 'label', 'seed')]
    return Enrolment(arguments.enrolment or 'strict', *own) if arguments.normalize_by == 'speaker' else None


def _directories(texts: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        m, _, path = text.partition('=')
        if m not in MODALITIES or not path or m in found:
            raise command.WrongCall(f'--features {text}: expected text=DIR, audio=DIR or vision=DIR, each once')
        if not Path(path).is_dir():
            raise FileNotFoundError(f'--features {text}: no such folder; python -m mmer_jax.extract writes it')
        found[m] = Path(path)
    return found


def _check_published(name: str | None, datasets: Sequence[str]) -> None:
    if other := [dataset for dataset in datasets if name and not is_of(dataset, name)]:
        raise ValueError(
            f'--published {name}: these features are of {", ".join(other)}, its numbers are of {name} only'
        )


def work(arguments: argparse.Namespace) -> None:
    directories = _directories(arguments.features)
    with command.wrong_call():
        options = parse_options(arguments.protocol_options)
    seeds, classifiers = range(arguments.seeds), tuple(c for c in CLASSIFIERS if c in arguments.classifiers)
    known = [' '.join(parts) for parts in itertools.product(STAGES, OPERATIONS, classifiers)]
    if arguments.detail not in (None, *known):
        raise command.WrongCall(f'--detail {arguments.detail!r}: expected one of {known}')
    folds, notes = read_folds(directories, arguments.protocol, options)
    enrolment = _enrolment(arguments)
    folds = [by_speaker(fold, enrolment) for fold in folds]
    _check_published(arguments.published, folds[0].datasets)
    if arguments.output != OUTPUT:
        check_folder(arguments.output, CLASSIFIER_FILES)
    arguments.output.mkdir(parents=True, exist_ok=True)
    job = {'features': {m: str(path) for m, path in directories.items()}, 'protocol': arguments.protocol}
    job |= {'options': options, 'classifiers': list(classifiers), 'choose': arguments.choose}
    job |= {'data': fingerprint(folds)}
    if enrolment is not None:
        job |= {'normalize_by': 'speaker', 'enrolment': dataclasses.asdict(enrolment), 'marks': list(enrolment.marks)}
    results = Results(arguments.output / 'results.json', job)
    for fold in folds:
        run_fold(fold, results, seeds, classifiers, arguments.choose)
    detail = arguments.detail or f'{DETAIL} {classifiers[0]}'
    if results.values(folds, seeds, detail, 'accuracy') is None:
        raise ValueError(f'--detail {arguments.detail!r} does not exist here: the vectors have different sizes')
    blocks = tables(results, folds, seeds, classifiers, detail, PUBLISHED.get(arguments.published, {}))
    text = '\n'.join([markdown(blocks).rstrip(), *notes])
    replace(arguments.output / 'tables.md', f'{text}\n'.encode())
    if arguments.latex:
        replace(arguments.output / 'tables.tex', latex.latex(blocks).encode())
    write_rows(results, arguments.output / 'rows.csv', marks_of(folds))
    if arguments.save_runs is not None:
        save_runs(arguments.save_runs, folds, classifiers, seeds, arguments.protocol)
    files = draw(folds, results, seeds, detail, arguments.output, arguments.format)
    print(text)
    print('\nwritten: ' + ', '.join(map(str, [arguments.output / 'tables.md', *files])))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv), go_on='the same command goes on after the last finished fold')


if __name__ == '__main__':
    sys.exit(main())
