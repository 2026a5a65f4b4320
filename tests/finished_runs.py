"""Folders of finished runs with numbers made up, for tests of reports: no training, four test records per fold."""

import json

import numpy as np

# accuracy by (fold, seed): per seed the mean over folds is .5, .6, .7
ACCURACY = {
    ('fold_0', 0): 0.4,
    ('fold_1', 0): 0.6,
    ('fold_0', 1): 0.5,
    ('fold_1', 1): 0.7,
    ('fold_0', 2): 0.6,
    ('fold_1', 2): 0.8,
}
CLASSES = ['calm', 'happy', 'sad']


def curve_rows(seeds, epochs=3):
    for epoch in range(1, epochs + 1):
        for seed in seeds:
            row = {'step': 10 * epoch, 'epoch': epoch, 'split': 'train_epoch', 'seed': seed, 'loss': 2 / epoch}
            yield row
            yield {**row, 'split': 'validation', 'loss': 2.5 / epoch, 'accuracy': 0.2 * epoch, 'mae': 1 / epoch}


def write_fold(folder, results, rows):
    folder.mkdir(parents=True)
    seeds = [row['seed'] for row in rows]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in curve_rows(seeds)))
    (folder / 'results.json').write_text(json.dumps({**results, 'rows': rows}))
    (folder / 'predictions').mkdir()
    labels = np.array([0, 0, 1, 2])
    scores = np.eye(3)[[0, 1, 1, 2]]  # one calm clip is called happy
    np.savez(
        folder / 'predictions' / 'test.npz',
        id=np.array(list('abcd')), label=labels, prediction=np.stack([scores] * len(seeds)), seed=np.array(seeds),
    )  # fmt: skip


def classification_run(folder, marks=(), config='cnn', variant=''):
    results = {
        'format': 1, 'config': config, 'variant': variant, 'model': 'cnn',
        'dataset': 'corpus_mfcc', 'modalities': ['audio', 'text'],
        'protocol': 'leave_speakers_out', 'parameters': 34024, 'metrics': 'classification', 'selection': 'accuracy',
        'headline': ['accuracy', 'uar'], 'class_names': CLASSES,
        'published': {'accuracy': 0.5653, 'dataset': 'corpus', 'source': 'A paper, Table 1'},
    }  # fmt: skip
    rows = []
    for (fold, seed), accuracy in ACCURACY.items():
        test = {'accuracy': accuracy, 'uar': accuracy - 0.1, 'loss': 1.0}
        test |= {f'{key}_{name}': accuracy for key in ('recall', 'precision', 'f1') for name in CLASSES}
        floor = {'accuracy': 0.2 if fold == 'fold_0' else 0.3, 'uar': 1 / 3}
        rows.append(
            {
                'fold': fold,
                'seed': seed,
                'marks': list(marks),
                'best_epoch': 2,
                'epochs': 3,
                'test': test,
                'floor': floor,
            }
        )
    for fold in ('fold_0', 'fold_1'):
        write_fold(folder / fold, results, [row for row in rows if row['fold'] == fold])
    (folder / 'config.json').write_text('{}')
    (folder / 'results.json').write_text(json.dumps({**results, 'rows': rows}))
    return folder


def sentiment_run(folder):
    results = {
        'format': 1, 'config': 'mult_mosi', 'variant': '', 'model': 'mult', 'dataset': 'mosi', 'modalities': ['text'],
        'protocol': 'official_split', 'parameters': 7, 'metrics': 'sentiment', 'selection': 'mae',
        'headline': ['mae', 'corr'], 'class_names': [], 'published': None,
    }  # fmt: skip
    row = {'fold': 'all', 'seed': 0, 'marks': [], 'best_epoch': 1, 'epochs': 3, 'test': {'mae': 1.1394, 'corr': 0.52}}
    write_fold(folder, results, [{**row, 'floor': {'mae': 1.456, 'corr': 0.0}}])
    return folder


def damage(folder, **changes):
    path = folder / 'results.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
