"""Features of a finished run: equal to the model's, per fold, resumable, shared by processes, fit for training."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmer_jax import evaluate, extract
from mmer_jax.data import leakage
from mmer_jax.data.records import RecordSource, RecordWriter, verify
from mmer_jax.run import finished
from mmer_jax.train import train_and_evaluate
from tests.conftest import write_dataset
from tests.small_run import small_config

ENCODER = {'name': 'vector_encoder', 'sizes': (5,), 'dropout': 0.0}


def config_of(directory, modality='audio', **changes):
    changes = {'protocol__name': 'leave_speakers_out', 'seeds': 2, 'epochs': 1, **changes}
    config = small_config(directory, modalities=(modality,), **changes)
    config.protocol.options = ConfigDict({'folds': 2, 'validation_speakers': 1})
    config.model = ConfigDict({'name': 'unimodal', 'encoder': ENCODER})
    return config


@pytest.fixture(scope='module')
def workdir(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('extract') / 'audio'
    train_and_evaluate(config_of(tiny), folder)
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(extract, 'PART', 2)


def by_id(directory):
    source = RecordSource(directory)
    return {record['id']: record for record in (source[number] for number in range(len(source)))}


def alone(workdir, level, fold=0, seed=0):
    """{id: (features, prediction)} of every record of a fold by itself, nothing padded."""
    run = finished.open_run(workdir, fold=fold, seed=seed)
    variables, found = finished.chosen_variables(run), {}
    apply = jax.jit(lambda batch: run.model.apply(variables, batch, train=False))
    source = run.fold_data.source
    for number in range(len(source)):
        load = run.batches(np.array([number]), alone=True)
        batch = load(load.plan[0])
        outputs = apply({k: v for k, v in batch.items() if k != 'id'})
        features = outputs['features'] if level == 'pooled' else outputs['steps']
        found[str(batch['id'][0])] = np.asarray(features[0]), np.asarray(outputs['prediction'][0])
    return found


@pytest.mark.parametrize('level', ['pooled', 'steps'])
def test_features_are_those_of_the_model(workdir, tmp_path, level, small_parts, capsys):
    assert extract.main([str(workdir), '--output', str(tmp_path / 'out'), '--level', level, '--seed', '1']) == 0
    assert 'features:' in capsys.readouterr().out
    for fold in range(2):
        directory = tmp_path / 'out' / f'fold_{fold}'
        records, expected = by_id(directory), alone(workdir, level, fold, 1)
        assert records.keys() == expected.keys()
        for name, record in records.items():
            np.testing.assert_allclose(record['audio'], expected[name][0], atol=1e-5)
            np.testing.assert_allclose(record['prediction'], expected[name][1], atol=1e-5)
        run = finished.open_run(workdir, fold=fold)
        manifest = RecordSource(directory).manifest
        tested = set(run.fold_data.source.manifest['id'][run.fold_data.fold.test])
        assert set(manifest['id'][manifest['split'] == 'test']) == tested
        assert set(manifest['speaker']) == {f'{number:02d}' for number in range(8)}
    assert not list((tmp_path / 'out').glob('*.parts'))


def test_it_goes_on_where_it_was_stopped_and_two_processes_share_it(workdir, tmp_path, small_parts, monkeypatch):
    (task,) = extract.tasks_of(workdir, tmp_path / 'whole', level='pooled', fold=0)
    assert extract.extract_fold(task)
    (task,) = extract.tasks_of(workdir, tmp_path / 'shared', level='pooled', fold=0)
    assert not extract.extract_fold(task, process_id=0, num_processes=2)
    assert not task.output.exists()
    done = {path: path.stat().st_mtime_ns for path in task.parts.glob('part_*')}
    assert done
    stop = iter([None])

    def stopped(*arguments):
        next(stop)
        return arrays(*arguments)

    arrays = extract._arrays
    monkeypatch.setattr(extract, '_arrays', stopped)
    with pytest.raises(StopIteration):
        extract.extract_fold(task, process_id=1, num_processes=2)
    monkeypatch.undo()
    monkeypatch.setattr(extract, 'PART', 2)
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert extract.extract_fold(task, process_id=1, num_processes=2)
    whole, shared = by_id(tmp_path / 'whole' / 'fold_0'), by_id(tmp_path / 'shared' / 'fold_0')
    assert whole.keys() == shared.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name]['audio'], shared[name]['audio'])


def test_parts_of_another_job_are_refused(workdir, tmp_path, small_parts):
    (task,) = extract.tasks_of(workdir, tmp_path / 'out', level='pooled', fold=0)
    assert not extract.extract_fold(task, num_processes=2)
    (other,) = extract.tasks_of(workdir, tmp_path / 'out', level='pooled', fold=0, seed=1)
    with pytest.raises(ValueError, match='parts of another job .seed 0, now 1'):
        extract.extract_fold(other)


def test_features_train_again(workdir, tmp_path, small_parts):
    (task,) = extract.tasks_of(workdir, tmp_path / 'out', level='steps', fold=1)
    assert extract.extract_fold(task)
    config = small_config(task.output, modalities=('audio',), epochs=1, seeds=1)
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3})
    results = train_and_evaluate(config, tmp_path / 'again')
    assert results['dataset'] == 'tiny_classes_features'


def test_records_that_lack_the_modality_are_trained_on_tested_and_extracted(tiny, tmp_path):
    """One in five has no audio: it keeps its place in the predictions, and has no steps."""
    source = RecordSource(tiny)
    features = {'audio': dataclasses.replace(source.schema.features['audio'], optional=True)}
    schema, manifest = dataclasses.replace(source.schema, features=features), source.manifest
    with RecordWriter(tmp_path / 'data', schema, num_shards=2) as writer:
        for number in range(len(source)):
            record = {key: source[number][key] for key in ('id', 'label', 'audio')}
            columns = {name: manifest[name][number] for name in ('speaker', 'session', 'split')}
            writer.write(record | ({'audio': None} if number % 5 == 1 else {}), **columns)
    train_and_evaluate(config_of(tmp_path / 'data', seeds=1), tmp_path / 'run')
    (task,) = extract.tasks_of(tmp_path / 'run', tmp_path / 'out', level='steps', fold=0)
    assert extract.extract_fold(task)
    assert verify(task.output) == []
    found = by_id(task.output)
    assert len(found) == len(source)
    for number, name in enumerate(manifest['id']):
        assert np.isfinite(found[name]['prediction']).all()
        assert (len(found[name]['audio']) == 0) == (number % 5 == 1)


def test_a_model_without_such_features_and_a_missing_run_are_named(tiny, tmp_path, capsys):
    config = small_config(tiny, epochs=1, seeds=1)
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3})
    train_and_evaluate(config, tmp_path / 'run')
    assert extract.main([str(tmp_path / 'run'), '--level', 'steps']) == 1
    assert "'lf_lstm' has no output 'steps' for --level steps" in capsys.readouterr().err
    assert extract.main([str(tmp_path / 'nowhere')]) == 1
    assert 'is no workdir' in capsys.readouterr().err


def test_what_is_there_is_kept_for_the_same_request_and_refused_for_another(workdir, tmp_path, small_parts, capsys):
    command = [str(workdir), '--output', str(tmp_path / 'out'), '--fold', '0']
    assert extract.main(command) == 0
    written = (tmp_path / 'out' / 'fold_0' / 'features.json').stat().st_mtime_ns
    (tmp_path / 'out' / 'fold_0.parts').mkdir()  # as a kill after the last rename leaves it
    assert extract.main(command) == 0
    assert (tmp_path / 'out' / 'fold_0' / 'features.json').stat().st_mtime_ns == written
    assert not (tmp_path / 'out' / 'fold_0.parts').exists()
    for other, said in ((['--seed', '1'], 'seed 0, now 1'), (['--level', 'steps'], "level 'pooled', now 'steps'")):
        assert extract.main([*command, *other]) == 1
        assert f'holds features of another job ({said}): remove it' in capsys.readouterr().err


def test_a_process_that_comes_second_finds_the_records_written(workdir, tmp_path, small_parts, monkeypatch):
    """Both saw all parts; the other one has written the records and removed the parts while this one read them."""
    (task,) = extract.tasks_of(workdir, tmp_path / 'out', level='pooled', fold=0)
    assemble = extract._assemble

    def twice(task, parts):
        assemble(task, parts)
        assemble(task, parts)

    monkeypatch.setattr(extract, '_assemble', twice)
    assert extract.extract_fold(task)
    assert by_id(task.output)


def test_other_data_whose_folds_test_what_was_trained_on_are_refused(workdir, tmp_path, capsys):
    """With two more speakers, the same protocol tests in fold 0 some whom fold 0's model was trained on."""
    more = write_dataset(tmp_path / 'more', speakers=10)
    assert extract.main([str(workdir), '--output', str(tmp_path / 'out'), '--data', str(more)]) == 1
    message = capsys.readouterr().err
    assert re.search(
        r'fold fold_\d would test \d+ records and \d speakers that its model was trained on \(first: \w+\)', message
    )
    with pytest.raises(ValueError, match='that its model was trained on'):
        evaluate.evaluate_checkpoint(workdir / 'fold_0', directory=str(more))
    assert not (tmp_path / 'out').exists()


def test_data_and_runs_may_move(workdir, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / 'moved')
    shutil.copytree(workdir, tmp_path / 'run')
    arguments = ['--output', str(tmp_path / 'out'), '--fold', '0']
    assert extract.main([str(workdir), *arguments, '--data', str(tmp_path / 'moved')]) == 0
    assert extract.main([str(tmp_path / 'run'), *arguments]) == 0  # finds what is there


@pytest.fixture
def other_run(tiny, tmp_path):
    """A run of one seed on data of its own that a test may change."""
    data = shutil.copytree(tiny, tmp_path / 'own')
    train_and_evaluate(config_of(data, seeds=1), tmp_path / 'run')
    return tmp_path / 'run', data


def test_data_that_changed_in_place_are_refused(other_run, tmp_path, capsys):
    run, data = other_run
    shutil.rmtree(data)
    write_dataset(data, speakers=10)
    with pytest.raises(ValueError, match='has changed since the run'):
        evaluate.evaluate_checkpoint(run / 'fold_0')
    assert extract.main([str(run)]) == 1
    assert 'may have been trained on. Train again' in capsys.readouterr().err


def test_without_the_own_data_only_what_cannot_leak_is_tested(other_run, tiny_of_kind, tmp_path):
    """Fewer of the same test records, or another data set; anything else might have been trained on."""
    run, data = other_run
    shutil.rmtree(data)
    evaluate.evaluate_checkpoint(run / 'fold_0', directory=write_dataset(tmp_path / 'fewer', records=32))
    with pytest.raises(ValueError, match='whether they were trained on is unknown: .*own is missing'):
        evaluate.evaluate_checkpoint(run / 'fold_0', directory=write_dataset(tmp_path / 'more', speakers=10))
    corpus = write_dataset(tmp_path / 'corpus', speakers=10, name='another')
    assert extract.main([str(run), '--output', str(tmp_path / 'out'), '--data', str(corpus)]) == 0
    source = RecordSource(tmp_path / 'out' / 'fold_0')
    assert leakage.trained_split(source) is None  # its network saw none of them: any protocol may split them
    assert len(leakage.folds_of_source(source, 'leave_speakers_out', {'folds': 2, 'validation_speakers': 1})) == 2


def test_marks_of_the_run_go_with_its_features(tiny, tmp_path, small_parts):
    config = config_of(tiny, protocol__name='random_clips_shared_speakers', seeds=1)
    config.protocol.options = ConfigDict({'validation_fraction': 0.2})
    results = train_and_evaluate(config, tmp_path / 'run')
    assert extract.main([str(tmp_path / 'run')]) == 0
    marks = results['rows'][0]['marks']
    assert any('speakers shared' in mark for mark in marks)
    assert RecordSource(tmp_path / 'run' / 'features').schema.info['extracted']['marks'] == marks
