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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data.enrolment import MODES, NORMALIZE_BY, Enrolment
from mmer_jax.data.schema import MODALITIES
from mmer_jax.files import replace
from mmer_jax.files.outputs import CLASSIFIER_FILES, check_folder
from mmer_jax.results import canvas, latex
from mmer_jax.results.page import markdown
from mmer_jax.results.runs import is_of
from mmer_jax.second_stage.as_runs import save_runs
from mmer_jax.second_stage.by_speaker import by_speaker
from mmer_jax.second_stage.classify import (
    CLASSIFIERS,
    GRIDS,
    OF_THE_PAPER,
    OPERATIONS,
    STAGES,
    choose,
    fitted,
    fuse,
    fused,
    parse_options,
    settings_of,
    unimodal_probabilities,
)
from mmer_jax.second_stage.folds import FoldFeatures, fingerprint, read_folds
from mmer_jax.second_stage.outcomes import Part, Results
from mmer_jax.second_stage.tables import PUBLISHED, draw, marks_of, tables, write_rows
from mmer_jax.settings import command, ranges

OUTPUT = Path('runs/classifiers')
DETAIL = 'early concat'  # with the first classifier, what Table 7 shows: the paper's final model by its text


def run_fold(
    fold: FoldFeatures,
    results: Results,
    seeds: Sequence[int],
    classifiers: Sequence[str],
    *,
    chosen: bool = False,
    tune: bool = False,
) -> None:
    """Every unimodal model and combination on one fold that results do not hold yet."""
    for seed in seeds:
        if (fold.name, seed) in results.parts:
            continue
        part = Part(fold.name, seed)

        def add(name: str, x: np.ndarray, classifier: str, part: Part = part, seed: int = seed) -> None:
            model, classes = fitted(x, fold, classifier, seed, tune=tune)
            settings = settings_of(model, classifier) if tune else None
            part.add(fold, name, classes[model.predict(x[fold.test])], settings=settings)

        # Fitted once for all combinations.
        held = dataclasses.replace(fold, probabilities={m: unimodal_probabilities(fold, m) for m in fold.features})
        for m in fold.features:
            own = held.probabilities[m][fold.test]
            right = own[np.arange(len(own)), fold.labels[fold.test]]
            part.add(fold, f'unimodal {m}', own.argmax(1), loss=float(-np.log(right.clip(1e-12)).mean()))
            x = fuse([fold.features[m]], fold.train, 'concat')
            for classifier in classifiers:
                add(f'alone {m} {classifier}', x, classifier)
        possible = []
        for stage, operation in itertools.product(STAGES, OPERATIONS):
            try:
                x = fused(held, stage, operation)
            except ValueError:  # sum and product of features of different sizes
                continue
            for classifier in classifiers:
                possible.append((stage, operation, classifier))
                add(f'{stage} {operation} {classifier}', x, classifier)
        if chosen:
            part.chosen = ' '.join(choose(fold, possible, seed, tune=tune))
        results.save(part)
        print(f'{fold.name}, seed {seed}: {len(possible)} combinations', flush=True)


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
    add('--tune', action='store_true', help='choose the settings of each classifier there too, by inner folds')
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
    if arguments.tune:
        job['tune'] = GRIDS
    results = Results(arguments.output / 'results.json', job)
    for fold in folds:
        run_fold(fold, results, seeds, classifiers, chosen=arguments.choose, tune=arguments.tune)
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
        save_runs(arguments.save_runs, folds, classifiers, seeds, arguments.protocol, tune=arguments.tune)
    files = draw(folds, results, seeds, detail, arguments.output, arguments.format)
    print(text)
    print('\nwritten: ' + ', '.join(map(str, [arguments.output / 'tables.md', *files])))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv), go_on='the same command goes on after the last finished fold')


if __name__ == '__main__':
    sys.exit(main())
