"""Fusion and classifiers: nothing of a test record is fitted, modalities are joined by id, faults are named."""

import dataclasses

import numpy as np
import pytest

from mmer_jax import classifiers, feature_fusion
from mmer_jax.feature_fusion import CLASSIFIERS, choose, classify, fuse, fused, measure, read_folds
from mmer_jax.records import Feature, Label, RecordWriter, Schema

pytest.importorskip('xgboost')
NAMES = ('calm', 'happy', 'sad')


def write(directory, m, *, size=4, names=NAMES, records=48, seed=0, skip=(), prediction=False):
    """Vectors whose first values tell the label, 8 speakers."""
    generator = np.random.default_rng(seed)
    features = {m: Feature((size,))} | ({'prediction': Feature((len(names),))} if prediction else {})
    with RecordWriter(directory, Schema('tiny', features, Label('classes', names))) as writer:
        for number in generator.permutation(records):
            label = int(number) % len(names)
            vector = generator.standard_normal(size).astype(np.float32)
            vector[label] += 3
            record = {'id': f'clip_{number:02d}', 'label': label, m: vector}
            if prediction:
                record['prediction'] = generator.standard_normal(len(names)).astype(np.float32)
            if number not in skip:
                writer.write(record, speaker=f'{number % 8:02d}', split=('train', 'validation', 'test')[number // 16])
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
    found = feature_fusion.unimodal_probabilities(random, 'audio')
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found.argmax(1) == random.labels)[random.train].mean() < 0.65


def test_a_networks_own_probabilities_are_taken(tmp_path):
    folds, _ = read_folds({'audio': write(tmp_path / 'a', 'audio', prediction=True)}, 'official_split', {})
    np.testing.assert_allclose(feature_fusion.unimodal_probabilities(folds[0], 'audio').sum(1), 1)
    assert 'audio' in folds[0].probabilities


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
    assert classifiers.main(['--features', 'sound=x', '--output', str(tmp_path / 'out')]) == 1
    assert 'expected text=DIR' in capsys.readouterr().err


def test_the_command_goes_on_and_refuses_another_job(directories, tmp_path, capsys, monkeypatch):
    features = [f'{m}={path}' for m, path in directories.items()]
    command = ['--features', *features, '--output', str(tmp_path), '--protocol', 'leave_speakers_out']
    command += ['--protocol_options', '{"folds": 2, "validation_speakers": 1}', '--classifiers', 'svm', '--seeds', '2']
    assert classifiers.main([*command, '--choose']) == 0
    assert 'Chosen within the training records' in capsys.readouterr().out
    monkeypatch.setattr(classifiers, 'classify', None)  # a finished fold is not computed again
    assert classifiers.main([*command, '--choose']) == 0
    assert classifiers.main(command) == 1
    assert 'is of another job' in capsys.readouterr().err
