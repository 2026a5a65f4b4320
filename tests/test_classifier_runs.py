"""Classifiers kept as runs: what the report reads, who was fitted on whom, averaged with one another."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from mmer_jax.files import read_json
from mmer_jax.results.choice import difference_cells
from mmer_jax.results.ensemble import ensembles
from mmer_jax.results.runs import find_runs
from mmer_jax.second_stage.as_runs import save_runs
from mmer_jax.second_stage.classify import classify, fuse
from mmer_jax.second_stage.folds import FoldFeatures

NAMES = ('calm', 'happy', 'sad')


def make_folds(count=2):
    generator = np.random.default_rng(0)
    labels, speakers = np.arange(96) % 3, np.arange(96) // 12
    features = {m: generator.standard_normal((96, 5)) + np.eye(3, 5)[labels] for m in ('audio', 'vision')}
    folds = []
    for k in range(count):
        test, validation = speakers // 2 == k, speakers == 2 * k + 2
        folds.append(
            FoldFeatures(
                f'fold_{k}', features, {}, labels, ~test, test, speakers.astype(str),
                np.array([f'clip_{n:02d}' for n in range(96)]), NAMES, validation, ('a mark',), ('tiny',),
            )
        )  # fmt: skip
    return folds


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    folder, folds = tmp_path_factory.mktemp('kept'), make_folds()
    return folder, folds, save_runs(folder, folds, ('svm', 'lda', 'logistic'), [0, 1], 'leave_speakers_out')


def test_the_report_reads_them_and_their_predictions_are_the_classifiers(kept):
    folder, folds, made = kept
    names = [f'{c}_{m}' for c in ('lda', 'logistic') for m in ('audio', 'vision', 'early')]
    assert [path.name for path in made] == names
    runs, faults = find_runs([folder])
    assert not faults
    assert sorted(run.name for run in runs) == sorted(names)
    for run in runs:
        classifier, _, m = run.name.partition('_')
        assert run.values('accuracy').shape == (2, 2)
        assert all(row['marks'] == ['a mark'] for row in run.results['rows'])
        for fold in folds:
            found = np.load(run.folds[fold.name] / 'predictions' / 'test.npz')
            x = fuse([fold.features[name] for name in (fold.features if m == 'early' else [m])], fold.train, 'concat')
            predicted = classify(x, fold, classifier, 0)
            np.testing.assert_array_equal(found['prediction'][0].argmax(-1), predicted)
            np.testing.assert_allclose(softmax(found['prediction'], -1), np.exp(found['prediction']), atol=1e-5)
            np.testing.assert_array_equal(found['id'], fold.ids[fold.test])
            np.testing.assert_array_equal(found['speaker'], fold.groups[fold.test])
        row = run.results['rows'][0]
        assert row['test']['accuracy'] == (predicted_of(run, 'fold_0') == folds[0].labels[folds[0].test]).mean()
        assert row['floor']['accuracy'] == pytest.approx(1 / 3)


def predicted_of(run, name):
    return np.load(run.folds[name] / 'predictions' / 'test.npz')['prediction'][0].argmax(-1)


def test_validation_is_answered_by_a_classifier_that_did_not_see_it(tmp_path):
    (fold,) = make_folds(1)
    wrong = dataclasses.replace(fold, labels=np.where(fold.validation, (fold.labels + 1) % 3, fold.labels))
    answers = []
    for name, one in (('right', fold), ('wrong', wrong)):
        (folder,) = save_runs(tmp_path / name, [_of_audio(one)], ('lda',), [0], 'leave_speakers_out')
        answers.append(np.load(folder / 'fold_0' / 'predictions' / 'validation.npz')['prediction'])
    np.testing.assert_array_equal(*answers)
    assert read_json(tmp_path / 'right/lda_audio/results.json')['parameters'] == 3 * 6


def _of_audio(fold):
    return dataclasses.replace(fold, features={'audio': fold.features['audio']})


def test_they_are_averaged_as_networks_are(kept):
    folder, _, _ = kept
    runs, _ = find_runs([folder / 'lda_audio', folder / 'logistic_vision'])
    *_, (row, _) = ensembles(runs, 'validation')
    assert row.name == '2 runs averaged, weights of validation'
    assert row.values('accuracy').mean() > 0.5


def test_what_has_no_config_differs_in_nothing(kept):
    runs, _ = find_runs([kept[0] / 'lda_audio', kept[0] / 'lda_vision', kept[0] / 'lda_early'])
    assert difference_cells(runs) == ['', '', '']
    for run, rate in zip(runs[:2], (0.1, 0.1), strict=True):
        run.__dict__['config'] = {'optimizer.learning_rate': rate}
    assert difference_cells(runs) == ['', '', '']
    runs[1].__dict__['config'] = {'optimizer.learning_rate': 0.2}
    assert difference_cells(runs) == ['learning_rate 0.1', 'learning_rate 0.2', '']


def test_classifiers_without_probabilities_and_foreign_folders_are_refused(tmp_path):
    (fold,) = make_folds(1)
    with pytest.raises(
        ValueError, match=r'--save_runs: svm gives no probabilities to keep; add one or more of mlp, lda'
    ):
        save_runs(tmp_path, [fold], ('svm',), [0], 'leave_speakers_out')
    own = Path(tmp_path / 'lda_audio')
    own.mkdir()
    (own / 'results.json').write_text('{"model": "unimodal"}')
    with pytest.raises(FileExistsError, match='was not made by this command'):
        save_runs(tmp_path, [fold], ('lda',), [0], 'leave_speakers_out')
    assert (own / 'results.json').read_text() == '{"model": "unimodal"}'
