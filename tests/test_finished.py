"""Opening a finished run: `--fold` means the same for every command, and a run is opened once."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmer_jax import evaluate, extract, figures
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_json
from mmer_jax.run import finished
from mmer_jax.train import train_and_evaluate
from tests.conftest import write_dataset
from tests.small_run import small_config


def config_of(directory, **changes):
    config = small_config(directory, modalities=('audio',), protocol__name='leave_speakers_out', epochs=1, **changes)
    config.protocol.options = ConfigDict({'folds': 2, 'validation_speakers': 1})
    encoder = {'name': 'vector_encoder', 'sizes': (3,), 'dropout': 0.0}
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoder})
    return config


@pytest.fixture(scope='module')
def workdir(tiny, tmp_path_factory):
    """Two folds of two seeds."""
    folder = tmp_path_factory.mktemp('finished') / 'run'
    train_and_evaluate(config_of(tiny), folder)
    return folder


def test_a_run_is_evaluated_on_all_folds_and_their_mean(workdir, capsys):
    rows = read_json(workdir / 'results.json')['rows']
    expected = [{'fold': row['fold'], 'seed': row['seed'], **row['test']} for row in rows]
    for found, one in zip(evaluate.evaluate_checkpoint(workdir), expected, strict=True):
        assert found == pytest.approx(one, abs=1e-6, nan_ok=True)
    assert evaluate.main([str(workdir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(', loss')[0] for line in lines] == [
        'fold fold_0, seed 0', 'fold fold_0, seed 1', 'fold fold_1, seed 0', 'fold fold_1, seed 1', 'fold mean of 4',
    ]  # fmt: skip
    assert f'accuracy {np.mean([row["accuracy"] for row in expected]):.4f}' in lines[-1]


def test_a_number_and_a_folder_name_the_same_fold(workdir, capsys):
    for arguments in ([str(workdir), '--fold', '1'], [str(workdir / 'fold_1')]):
        assert evaluate.main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(', loss')[0] for line in lines[:-1]] == ['fold fold_1, seed 0', 'fold fold_1, seed 1']
    assert evaluate.main([str(workdir / 'fold_1'), '--fold', '0']) == 1
    assert f'{workdir / "fold_1"} is fold 1: leave --fold 0 out' in capsys.readouterr().err
    assert evaluate.main([str(workdir), '--fold', '2']) == 1
    assert f'{workdir} has no fold 2; it has 0, 1' in capsys.readouterr().err


def test_what_needs_one_fold_says_how_to_choose_it(workdir, capsys):
    said = f'{workdir} has the folds 0, 1: choose one with --fold, or give its folder, such as {workdir / "fold_0"}'
    with pytest.raises(ValueError, match='choose one with --fold'):
        finished.open_run(workdir)
    assert figures.main(['representations', str(workdir)]) == 1
    assert capsys.readouterr().err == f'error: {said}\n'
    assert figures.main(['representations', str(workdir), '--fold', '1']) == 1
    assert f'{workdir / "fold_1"}: model' in capsys.readouterr().err  # opened; it has no such vectors


def test_a_fold_that_is_not_trained_is_named_with_those_that_are(tiny, tmp_path, capsys):
    train_and_evaluate(config_of(tiny, seeds=1), tmp_path, folds=[1])
    assert evaluate.main([str(tmp_path)]) == 1
    said = f'{tmp_path / "fold_0"} holds no trained fold; choose another with --fold (1), or train it'
    assert capsys.readouterr().err.splitlines()[-1] == f'error: {said}'
    assert evaluate.main([str(tmp_path), '--fold', '1']) == 0


def test_a_fold_folder_is_extracted_alone(workdir, tmp_path):
    assert extract.main([str(workdir / 'fold_1'), '--output', str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ['fold_1']
    (run,) = finished.open_runs(workdir, fold=1)
    splits = RecordSource(tmp_path / 'fold_1').manifest['split']
    assert (splits == 'test').sum() == len(run.fold_data.fold.test)


def test_one_fold_is_tested_with_a_modality_hidden(tiny, tmp_path):
    config = config_of(tiny, seeds=1)
    config.modalities, config.model = ('text', 'audio'), ConfigDict({'name': 'lf_lstm', 'hidden_size': 2})
    train_and_evaluate(config, tmp_path / 'run', folds=[1])
    results = evaluate.ablate(tmp_path / 'run', tmp_path / 'out', ['text'], fold=1)
    assert [row['fold'] for row in results['rows']] == ['fold_1']
    again = evaluate.ablate(tmp_path / 'run' / 'fold_1', tmp_path / 'again', ['text'])
    assert again == results


def test_other_data_are_opened_once(workdir, tmp_path, monkeypatch, capsys):
    other = write_dataset(tmp_path / 'other', name='another')
    opened, program = [], evaluate.make_program
    source = finished.open_source
    monkeypatch.setattr(finished, 'open_source', lambda config: opened.append(config.data.directory) or source(config))
    compiled = []
    monkeypatch.setattr(evaluate, 'make_program', lambda *parts: compiled.append(parts) or program(*parts))
    assert evaluate.main([str(workdir), '--data', str(other)]) == 0
    assert 'protocol other data: another' in capsys.readouterr().out
    assert sorted(opened) == sorted([str(other), read_json(workdir / 'config.json')['data']['directory']])
    assert len(compiled) == 1  # for both folds
