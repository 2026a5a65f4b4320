"""Fusion and classifiers: nothing of a test record is fitted, modalities are joined by id, faults are named."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from data_prep import ravdess_openface
from mmer_jax import classifiers, second_stage
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema
from mmer_jax.files import read_json
from mmer_jax.second_stage import classify as classify_module
from mmer_jax.second_stage import outcomes, tables
from mmer_jax.second_stage.as_runs import save_runs
from mmer_jax.second_stage.classify import (
    CLASSIFIERS,
    GRIDS,
    choose,
    classify,
    fitted,
    fuse,
    fused,
    measure,
    settings_of,
    unimodal_probabilities,
)
from mmer_jax.second_stage.folds import fingerprint, read_folds
from tests.conftest import SHARED_DATA

pytest.importorskip('xgboost')
NAMES = ('calm', 'happy', 'sad')
SPLIT = ('train', 'validation', 'test')
INFO = {'extracted': {'folds': 1, 'marks': [], 'trained_on': 'tiny'}}


def write(
    directory,
    m,
    *,
    size=4,
    names=NAMES,
    records=48,
    seed=0,
    skip=(),
    lacks=(),
    prediction=False,
    shift=0,
    info=None,
    split=SPLIT,
):
    """Vectors whose first values tell the label, 8 speakers; records `skip` are left out, `lacks` have no vector."""
    generator = np.random.default_rng(seed)
    features = {m: Feature((size,), optional=bool(lacks))} | (
        {'prediction': Feature((len(names),))} if prediction else {}
    )
    schema = Schema('tiny_features', features, Label('classes', names), info or {})
    with RecordWriter(directory, schema) as writer:
        for number in generator.permutation(records):
            label = (int(number) + shift) % len(names)
            vector = generator.standard_normal(size).astype(np.float32)
            vector[label] += 3
            record = {'id': f'clip_{number:02d}', 'label': label, m: None if number in lacks else vector}
            if prediction:
                record['prediction'] = generator.standard_normal(len(names)).astype(np.float32)
            if number not in skip:
                writer.write(record, speaker=f'{number % 8:02d}', split=split[number // 16])
    return directory


@pytest.fixture(scope='module')
def directories(tmp_path_factory):
    folder = tmp_path_factory.mktemp('vectors')
    return {'audio': write(folder / 'audio', 'audio'), 'vision': write(folder / 'vision', 'vision', seed=1)}


@pytest.fixture(scope='module')
def fold(directories):
    folds, notes = read_folds(directories, 'leave_speakers_out', {'folds': 2, 'validation_speakers': 1})
    assert len(folds) == 2
    assert not notes
    return folds[0]


def test_a_record_that_lacks_a_vector_is_left_out_and_counted(directories, tmp_path):
    lacking = {'audio': directories['audio'], 'vision': write(tmp_path / 'vision', 'vision', seed=1, lacks=(3, 7))}
    (fold, _), notes = read_folds(lacking, 'leave_speakers_out', {'folds': 2, 'validation_speakers': 1})
    assert fold.ids.tolist() == [f'clip_{n:02d}' for n in range(48) if n not in (3, 7)]
    assert notes == ["2 records are left out: not every modality has them ({'audio': 0, 'vision': 2} lack)"]


def test_records_are_joined_by_id(directories, fold):
    assert fold.ids.tolist() == sorted(f'clip_{n:02d}' for n in range(48))
    for x in fold.features.values():
        assert (x[:, :3].argmax(1) == fold.labels).mean() > 0.9
    assert not (fold.train & fold.test).any()
    assert not set(fold.groups[fold.train]) & set(fold.groups[fold.test])


@pytest.mark.parametrize('stage', ['early', 'late'])
@pytest.mark.parametrize('operation', ['concat', 'sum', 'product'])
def test_what_is_fitted_sees_training_records_only(fold, stage, operation):
    x = fused(fold, stage, operation)
    np.testing.assert_allclose(x[fold.train].mean(0), 0, atol=1e-9)
    changed = {m: np.where(fold.test[:, None], 1e3 * v, v) for m, v in fold.features.items()}
    other = fused(dataclasses.replace(fold, features=changed), stage, operation)
    np.testing.assert_array_equal(x[fold.train], other[fold.train])
    # a test label is never read
    labels = np.where(fold.test, (fold.labels + 1) % 3, fold.labels)
    np.testing.assert_array_equal(x, fused(dataclasses.replace(fold, labels=labels), stage, operation))


def test_training_probabilities_come_from_models_that_did_not_see_them(fold):
    """Random labels cannot be told: out-of-fold probabilities stay near chance, fitted ones would not."""
    generator = np.random.default_rng(0)
    x = {'audio': generator.standard_normal((48, 40))}
    random = dataclasses.replace(fold, features=x, labels=generator.integers(3, size=48))
    found = unimodal_probabilities(random, 'audio')
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found.argmax(1) == random.labels)[random.train].mean() < 0.65


def test_a_networks_own_probabilities_are_taken(tmp_path):
    directory = write(tmp_path / 'a', 'audio', prediction=True)
    folds, _ = read_folds({'audio': directory}, 'official_split', {})
    found = dict(zip(folds[0].ids, unimodal_probabilities(folds[0], 'audio'), strict=True))
    source = RecordSource(directory)
    for record in (source[number] for number in range(len(source))):
        np.testing.assert_allclose(found[record['id']], softmax(record['prediction'].astype(float)), rtol=1e-6)


def test_choice_among_features_of_a_trained_network_is_made_on_validation_records(tmp_path):
    """A network knows the records it was fitted on: late fusion of that would always be chosen, and is worthless."""
    directories = {m: write(tmp_path / m, m, prediction=True) for m in ('audio', 'vision')}
    (fold,), _ = read_folds(directories, 'official_split', {})
    fitted = fold.train & ~fold.validation
    known = np.where(fitted[:, None], np.eye(3)[fold.labels], 1 / 3)
    fold = dataclasses.replace(fold, probabilities=dict.fromkeys(directories, known))
    possible = [('late', 'concat', 'svm'), ('early', 'concat', 'svm')]
    assert choose(fold, possible, 0) == ('early', 'concat', 'svm')
    wrong = np.where(fold.validation, (fold.labels + 1) % 3, fold.labels)
    assert choose(dataclasses.replace(fold, labels=wrong), possible, 0) == ('late', 'concat', 'svm')


def test_operations():
    a, b = np.arange(6.0).reshape(3, 2), np.array([[1.0, 0], [0, 1], [1, 1]])
    train = np.ones(3, bool)
    scaled = [(v - v.mean(0)) / v.std(0) for v in (a, b)]
    for operation, expected in (('sum', scaled[0] + scaled[1]), ('product', scaled[0] * scaled[1])):
        expected = (expected - expected.mean(0)) / expected.std(0)
        np.testing.assert_allclose(fuse([a, b], train, operation), expected)
    assert fuse([a, b[:, :1]], train, 'concat').shape == (3, 3)
    with pytest.raises(ValueError, match='sum needs vectors of one size, found 2, 1'):
        fuse([a, b[:, :1]], train, 'sum')
    with pytest.raises(ValueError, match='mean'):
        fuse([a, b], train, 'mean')


@pytest.mark.parametrize('classifier', CLASSIFIERS)
def test_classifiers_learn_and_repeat(fold, classifier):
    x = fused(fold, 'early', 'concat')
    predicted = classify(x, fold, classifier, 0)
    assert measure(predicted, fold)['accuracy'] > 0.8
    np.testing.assert_array_equal(predicted, classify(x, fold, classifier, 0))


def test_a_class_absent_from_training_is_never_predicted(fold):
    train = fold.train & (fold.labels != 1)
    x = fused(fold, 'early', 'concat')
    for classifier in CLASSIFIERS:
        assert set(classify(x, dataclasses.replace(fold, train=train), classifier, 0)) <= {0, 2}


def test_choice_reads_no_test_record(fold):
    possible = [('early', 'concat', 'svm'), ('early', 'product', 'svm')]
    labels = np.where(fold.test, (fold.labels + 1) % 3, fold.labels)
    chosen = choose(fold, possible, 0)
    assert chosen == ('early', 'concat', 'svm')
    assert choose(dataclasses.replace(fold, labels=labels), possible, 0) == chosen


@pytest.mark.parametrize('classifier', CLASSIFIERS)
def test_settings_are_chosen_within_the_training_records(fold, classifier, monkeypatch):
    """What stands first stays where nothing is better; no label of a test record has a part in it."""
    x = fused(fold, 'early', 'concat')
    name, values = next(iter(GRIDS[classifier].items()))
    model, _ = fitted(x, fold, classifier, 0)
    assert settings_of(model, classifier) == {name: values[0]}, 'the grid begins with the settings without tune'
    monkeypatch.setitem(GRIDS, classifier, {name: [values[0], values[0]]})
    np.testing.assert_array_equal(*(classify(x, fold, classifier, 0, tune=tune) for tune in (False, True)))
    if isinstance(values[0], float):  # so near to each other that they answer alike
        for pair in ([values[0], values[0] * (1 + 1e-9)], [values[0] * (1 + 1e-9), values[0]]):
            monkeypatch.setitem(GRIDS, classifier, {name: pair})
            assert settings_of(fitted(x, fold, classifier, 0, tune=True)[0], classifier) == {name: pair[0]}
    labels = np.where(fold.test, (fold.labels + 1) % 3, fold.labels)
    monkeypatch.setitem(GRIDS, classifier, {name: values[:2]})
    found = [classify(x, one, classifier, 0, tune=True) for one in (fold, dataclasses.replace(fold, labels=labels))]
    np.testing.assert_array_equal(*found)


def test_the_better_setting_is_taken_by_inner_folds_of_other_speakers(fold, monkeypatch):
    monkeypatch.setitem(GRIDS, 'svm', {'gamma': [1e6, 'scale']})  # so large a gamma knows the records it was fitted on
    x = fused(fold, 'early', 'concat')
    model, classes = fitted(x, fold, 'svm', 0, tune=True)
    assert settings_of(model, 'svm') == {'gamma': 'scale'}
    np.testing.assert_array_equal(classes[model.predict(x[fold.test])], classify(x, fold, 'svm', 0))
    seen = []

    class Recorded(GridSearchCV):
        def fit(self, x, y):
            seen.extend(self.cv)
            return super().fit(x, y)

    monkeypatch.setattr(classify_module, 'GridSearchCV', Recorded)
    fitted(x, fold, 'svm', 0, tune=True)
    groups = fold.groups[fold.train]
    assert sorted(np.concatenate([held for _, held in seen])) == list(range(len(groups)))
    assert all(not set(groups[train]) & set(groups[held]) for train, held in seen)


@pytest.mark.parametrize('with_networks', [False, True])
def test_choosing_and_keeping_tuned_classifiers_compares_on_records_that_are_held_out(fold, with_networks, tmp_path):
    """Of trained networks the validation records; where these are held out already, inner folds of the rest."""
    validation = fold.train & (np.arange(len(fold.labels)) % 5 == 0)
    probabilities = {m: np.eye(3)[fold.labels] * 0.4 + 0.2 for m in fold.features} if with_networks else {}
    one = dataclasses.replace(fold, probabilities=probabilities, validation=validation)
    inside = [held for _, held in classify_module._inner_sets(one)]
    assert all((held <= one.train).all() and held.any() for held in inside)
    assert (len(inside) == 1) == with_networks
    without = dataclasses.replace(one, train=one.train & ~validation, test=validation)
    assert all(not (held & validation).any() and held.any() for _, held in classify_module._inner_sets(without))
    possible = [('early', 'concat', 'lda'), ('late', 'concat', 'lda')]
    assert choose(one, possible, 0, tune=True) in possible
    made = save_runs(tmp_path, [one], ('lda',), [0], 'official_split', tune=True)
    assert read_json(made[0] / 'results.json')['model'] == 'mmer_jax.classifiers: lda, tuned'


def test_a_class_that_an_inner_fold_lacks_is_named(fold):
    one = np.flatnonzero(fold.train & (fold.labels == 2))[1:]
    lonely = dataclasses.replace(fold, train=fold.train & ~np.isin(np.arange(len(fold.labels)), one))
    with pytest.raises(ValueError, match='xgboost cannot be tuned where an inner fold has no record of'):
        classify(fused(lonely, 'early', 'concat'), lonely, 'xgboost', 0, tune=True)


def test_faults_are_named(tmp_path, directories, capsys):
    other = write(tmp_path / 'other', 'vision', names=('a', 'b', 'c'))
    with pytest.raises(ValueError, match='same classes'):
        read_folds({'audio': directories['audio'], 'vision': other}, 'official_split', {})
    fewer = write(tmp_path / 'fewer', 'vision', skip=(3, 4))
    folds, notes = read_folds({'audio': directories['audio'], 'vision': fewer}, 'official_split', {})
    assert len(folds[0].ids) == 46
    assert '2 records are left out' in notes[0]
    with pytest.raises(ValueError, match="no vector 'text'"):
        read_folds({'text': directories['audio']}, 'official_split', {})
    assert classifiers.main(['--features', f'audio={tmp_path / "nowhere"}', '--output', str(tmp_path / 'out')]) == 1
    assert 'no such folder' in capsys.readouterr().err
    assert classifiers.main(['--features', 'sound=x', '--output', str(tmp_path / 'out')]) == 2
    assert 'expected text=DIR' in capsys.readouterr().err


@pytest.mark.usefixtures('drawn')
def test_the_command_goes_on_and_refuses_another_job(directories, tmp_path, capsys, monkeypatch):
    features = [f'{m}={path}' for m, path in directories.items()]
    command = ['--features', *features, '--output', str(tmp_path), '--protocol', 'leave_speakers_out']
    command += ['--protocol_options', '{"folds": 2, "validation_speakers": 1}', '--classifiers', 'svm', '--seeds', '2']
    assert classifiers.main([*command, '--choose']) == 0
    assert 'Chosen within the training records' in capsys.readouterr().out
    monkeypatch.setattr(classifiers, 'fitted', None)  # a finished fold is not computed again
    assert classifiers.main([*command, '--choose']) == 0
    assert classifiers.main([*command, '--choose', '--tune']) == 1
    assert 'is of another job' in capsys.readouterr().err
    assert classifiers.main(command) == 1
    assert 'is of another job' in capsys.readouterr().err


@pytest.mark.usefixtures('drawn')
def test_tuned_rows_say_their_settings(directories, tmp_path):
    features = [f'{m}={path}' for m, path in directories.items()]
    command = ['--features', *features, '--output', str(tmp_path / 'out'), '--protocol', 'leave_speakers_out']
    command += ['--protocol_options', '{"folds": 2, "validation_speakers": 1}', '--classifiers', 'lda', '--tune']
    assert classifiers.main([*command, '--save_runs', str(tmp_path / 'runs')]) == 0
    with open(tmp_path / 'out' / 'rows.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if not row['combination'].startswith('unimodal')]
    values = {f'shrinkage {value:g}' for value in GRIDS['lda']['shrinkage']}
    assert {row['settings'] for row in rows} <= values
    assert len(rows) > 4
    assert 'chosen in inner folds of the training records' in (tmp_path / 'out' / 'tables.md').read_text()
    (row,) = [row for row in rows if (row['fold'], row['combination']) == ('fold_0', 'early concat lda')]
    found = np.load(tmp_path / 'runs' / 'lda_early' / 'fold_0' / 'predictions' / 'test.npz')
    accuracy = (found['prediction'][0].argmax(-1) == found['label']).mean()
    assert float(row['accuracy']) == pytest.approx(accuracy)


def extracted(folder, m, folds=2, **changes):
    """Feature folders as mmer_jax.extract writes them."""
    info = {'extracted': {**INFO['extracted'], 'folds': folds, **changes}}
    return [write(folder / f'fold_{k}', m, prediction=True, info=info) for k in range(folds)]


def test_unfinished_folds_are_refused(tmp_path):
    folders = extracted(tmp_path / 'audio', 'audio')
    assert len(read_folds({'audio': tmp_path / 'audio'}, 'official_split', {})[0]) == 2
    folders[1].rename(tmp_path / 'elsewhere')
    with pytest.raises(ValueError, match='audio has 1 of 2 folds: run the command of mmer_jax.extract again'):
        read_folds({'audio': tmp_path / 'audio'}, 'official_split', {})
    (tmp_path / 'audio' / 'fold_1.parts').mkdir()
    with pytest.raises(ValueError, match=r'1 of 2 folds \(fold_1.parts is unfinished\)'):
        read_folds({'audio': tmp_path / 'audio'}, 'official_split', {})
    assert len(read_folds({'audio': folders[0]}, 'official_split', {})[0]) == 1


def test_features_of_a_network_are_not_split_anew(tmp_path):
    folder = extracted(tmp_path, 'audio', 1)[0]
    with pytest.raises(ValueError, match='leave_speakers_out would test some of them'):
        read_folds({'audio': folder}, 'leave_speakers_out', {'folds': 2})
    other = write(tmp_path / 'vision', 'vision', prediction=True, split=('test', 'train', 'validation'), info=INFO)
    for pair in ({'audio': folder, 'vision': other}, {'vision': other, 'audio': folder}):
        with pytest.raises(ValueError, match='the split: record clip_.* the models were trained under different'):
            read_folds(pair, 'official_split', {})


def test_marks_of_the_protocol_and_of_the_run_are_printed(directories, tmp_path, capsys):
    features = [f'{m}={path}' for m, path in directories.items()]
    command = ['--features', *features, '--output', str(tmp_path / 'random'), '--classifiers', 'svm']
    assert classifiers.main([*command, '--protocol', 'official_split']) == 0
    text = capsys.readouterr().out
    assert 'not an honest estimate' in text
    assert re.search('speakers shared .8 of 8 test speakers are in train', text)
    assert '±' not in text  # one fold, one seed
    extracted(tmp_path / 'a', 'audio', 1, marks=['selected on test'])
    assert read_folds({'audio': tmp_path / 'a'}, 'official_split', {})[0][0].marks == ('selected on test',)
    honest = read_folds(directories, 'leave_speakers_out', {'folds': 2, 'validation_speakers': 1})[0]
    assert not any(fold.marks for fold in honest)


def test_modalities_that_disagree_or_share_nothing_are_named(tmp_path, directories):
    shifted = write(tmp_path / 'shifted', 'vision', shift=1)
    with pytest.raises(
        ValueError, match='48 of 48 records have another label in vision than in audio .first: clip_00, 1'
    ):
        read_folds({'audio': directories['audio'], 'vision': shifted}, 'official_split', {})
    other = tmp_path / 'other'
    with RecordWriter(other, RecordSource(directories['vision']).schema) as writer:
        writer.write({'id': 'else', 'label': 0, 'vision': np.zeros(4, np.float32)}, split='train')
    with pytest.raises(ValueError, match="no record is in every modality.*'audio': 'clip_00', 'vision': 'else'"):
        read_folds({'audio': directories['audio'], 'vision': other}, 'official_split', {})


def test_results_of_other_features_are_not_taken_for_these(tmp_path, capsys):
    directory, common = tmp_path / 'audio', ['--protocol', 'official_split', '--classifiers', 'svm']
    command = ['--features', f'audio={write(directory, "audio")}', '--output', str(tmp_path / 'out'), *common]
    assert classifiers.main(command) == 0
    before = fingerprint(read_folds({'audio': directory}, 'official_split', {})[0])
    directory.rename(tmp_path / 'old')
    write(directory, 'audio', seed=5)
    assert fingerprint(read_folds({'audio': directory}, 'official_split', {})[0]) != before
    assert classifiers.main(command) == 1
    assert 'is of another job' in capsys.readouterr().err


@pytest.mark.usefixtures('drawn')
def test_results_of_an_older_version_are_read(directories, tmp_path, capsys, monkeypatch):
    """Its keys were 'fold/seed/combination'; nothing is fitted again, and the tables are the same."""
    monkeypatch.setattr(second_stage.classify, 'make_classifier', lambda name, _: SVC(C=1.0 if name == 'svm' else 0.1))
    finished(directories, tmp_path, '--choose', '--seeds', '2')
    path, written = tmp_path / 'results.json', {}
    texts = [(tmp_path / name).read_bytes() for name in ('tables.md', 'rows.csv', 'results.json')]
    found = read_json(path)
    for part in found['parts']:
        place = f'{part["fold"]}/{part["seed"]}'
        written |= {f'{place}/{name}': {**row, 'detail': ''} for name, row in part['rows'].items()}
        written[f'{place}/chosen'] = {**part['rows'][part['chosen']], 'detail': part['chosen']}
        written[f'{place}/done'] = {}
    path.write_text(json.dumps({'job': found['job'], 'rows': written}))
    capsys.readouterr()
    results = outcomes.Results(path, found['job'])
    results.save(results.parts['fold_1', 1])
    assert path.read_bytes() == texts[2]
    path.write_text(json.dumps({'job': found['job'], 'rows': written}))
    command = ['--features', *(f'{m}={folder}' for m, folder in directories.items()), '--output', str(tmp_path)]
    command += ['--protocol', 'leave_speakers_out', '--protocol_options', '{"folds": 2, "validation_speakers": 1}']
    assert classifiers.main([*command, '--classifiers', 'svm', 'mlp', '--choose', '--seeds', '2']) == 0
    assert 'combinations' not in capsys.readouterr().out
    assert [(tmp_path / name).read_bytes() for name in ('tables.md', 'rows.csv')] == texts[:2]


@pytest.fixture
def drawn(monkeypatch):
    """What the pictures are given: {'confusion': matrix, 'pca_<name>': points}."""
    found = {}
    monkeypatch.setattr(tables.plots, 'confusion', lambda matrix, *_: found.update(confusion=matrix))
    monkeypatch.setattr(tables.plots, 'scatter', lambda points, _, __, path, *___: found.update({path.stem: points}))
    return found


def finished(directories, output, *more):
    features = [f'{m}={path}' for m, path in directories.items()]
    command = ['--features', *features, '--output', str(output), '--protocol', 'leave_speakers_out', *more]
    command += ['--protocol_options', '{"folds": 2, "validation_speakers": 1}', '--classifiers', 'svm', 'mlp']
    assert classifiers.main(command) == 0
    parts = read_json(output / 'results.json')['parts']
    return {(part['fold'], part['seed'], name): row for part in parts for name, row in part['rows'].items()}


def test_pictures_show_the_predictions_and_axes_of_the_training_records(directories, tmp_path, drawn, fold):
    rows = finished(directories, tmp_path, '--detail', 'late concat mlp')
    matrix = drawn['confusion']
    folds = read_folds(directories, 'leave_speakers_out', {'folds': 2, 'validation_speakers': 1})[0]
    tested = np.concatenate([one.labels[one.test] for one in folds])
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(tested))
    right = sum(
        rows[f'fold_{k}', 0, 'late concat mlp']['metrics']['accuracy'] * one.test.sum() for k, one in enumerate(folds)
    )
    assert np.trace(matrix) == pytest.approx(right)
    assert set(drawn) == {'confusion', 'pca_audio', 'pca_vision', 'pca_fusion'}
    x = fold.features['audio']
    scaled = (x - x[fold.train].mean(0)) / x[fold.train].std(0)
    _, _, axes = np.linalg.svd(scaled[fold.train], full_matrices=False)
    points = scaled[fold.test] @ axes[:2].T
    np.testing.assert_allclose(np.abs(drawn['pca_audio']), np.abs(points), atol=1e-6)


def test_cells_and_averages_are_those_of_the_rows(directories, tmp_path, drawn):
    rows = finished(directories, tmp_path)
    text = (tmp_path / 'tables.md').read_text()
    mean = {
        name: 100 * np.mean([rows[f'fold_{k}', 0, f'early sum {name}']['metrics']['accuracy'] for k in range(2)])
        for name in ('svm', 'mlp')
    }
    line = next(line for line in text.split('Table 5')[1].splitlines() if line.startswith('| sum'))
    cells = [cell.strip().split(' ')[0] for cell in line.strip('|').split('|')]
    assert cells == ['sum', f'{mean["svm"]:.1f}', f'{mean["mlp"]:.1f}', f'{np.mean(list(mean.values())):.1f}']
    folds = read_folds(directories, 'leave_speakers_out', {'folds': 2, 'validation_speakers': 1})[0]
    labels = np.concatenate([one.labels[one.test] for one in folds])
    predicted = np.concatenate([rows[one.name, 0, 'early concat svm']['predicted'] for one in folds])
    each = precision_recall_fscore_support(labels, predicted, labels=range(len(NAMES)), zero_division=np.nan)
    both = precision_recall_fscore_support(labels, predicted, average='weighted', zero_division=0)
    detail = text.split('Table 7. early concat svm')[1].splitlines()
    for number, name in enumerate(NAMES):
        numbers = ' | '.join(f'{100 * values[number]:.1f}' for values in each[:3])
        assert f'| {name} | {each[3][number]} | {numbers} |' in detail
    assert f'| all, weighted by class | {len(labels)} | {" | ".join(f"{100 * x:.1f}" for x in both[:3])} |' in detail


def test_published_numbers_of_another_data_set_are_refused(directories, tmp_path, capsys):
    features = [f'{m}={path}' for m, path in directories.items()]
    command = ['--features', *features, '--output', str(tmp_path / 'out'), '--published', 'iemocap']
    assert classifiers.main([*command, '--protocol', 'leave_speakers_out', '--protocol_options', '{"folds": 2}']) == 1
    error = capsys.readouterr().err
    assert '--published iemocap: these features are of tiny_features, tiny_features, its numbers are of' in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_one_value_a_record_has_no_scatter(tmp_path, drawn):
    directories = {'audio': write(tmp_path / 'audio', 'audio'), 'vision': write(tmp_path / 'vision', 'vision')}
    with RecordWriter(tmp_path / 'one', Schema('tiny', {'text': Feature((1,))}, Label('classes', NAMES))) as writer:
        source = RecordSource(directories['audio'])
        for number in range(len(source)):
            record, speaker = source[number], source.manifest['speaker'][number]
            writer.write({'id': record['id'], 'label': record['label'], 'text': record['audio'][:1]}, speaker=speaker)
    finished({**directories, 'text': tmp_path / 'one'}, tmp_path / 'out')
    assert set(drawn) == {'confusion', 'pca_audio', 'pca_vision', 'pca_fusion'}


def test_the_readme_table_on_real_features(tmp_path):
    """Audio values and action units of RAVDESS: README's means of SVM over five folds of four actors."""
    table = SHARED_DATA / 'ravdess' / 'openface_au.npz'
    if not table.is_file():
        pytest.skip(f'the action units are not here ({table})')
    arguments = ['--table', str(table), '--audio', 'values', '--output', str(tmp_path / 'values')]
    assert ravdess_openface.main(arguments) == 0
    directories = dict.fromkeys(('audio', 'vision'), tmp_path / 'values')
    folds, _ = read_folds(directories, 'leave_speakers_out', {'folds': 5, 'validation_speakers': 2})
    for stage, expected in (('early', 0.586), ('late', 0.611)):
        found = [measure(classify(fused(fold, stage, 'concat'), fold, 'svm', 0), fold)['accuracy'] for fold in folds]
        assert np.mean(found) == pytest.approx(expected, abs=0.004)
