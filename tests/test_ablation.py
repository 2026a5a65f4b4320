"""Testing a finished run with a modality hidden: whole runs, rows of a table, faults."""

import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmer_jax import evaluate, table
from mmer_jax.files import read_json
from mmer_jax.run import finished
from mmer_jax.train import train_and_evaluate
from tests.small_run import small_config

CONFIG = """
from ml_collections import ConfigDict
from tests.test_ablation import config_of

def get_config(variant=''):
    return config_of({directory!r})
"""


def config_of(directory):
    config = small_config(directory, modalities=('text', 'vision'), protocol__name='leave_speakers_out', epochs=1)
    config.evaluate_train = True
    config.protocol.options = ConfigDict({'folds': 2, 'validation_speakers': 1})
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3})
    return config


@pytest.fixture(scope='module')
def workdir(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('ablation') / 'both'
    train_and_evaluate(config_of(tiny), folder)
    return folder


def test_a_hidden_modality_is_masked_in_every_record(workdir):
    run = finished.open_run(workdir, fold=1, seed=1)
    variables, load = finished.chosen_variables(run), run.fold_data.loaders['test']
    correct, total = 0, 0
    for step in range(len(load.plan)):
        batch = load(load.plan[step])
        batch = {
            **batch,
            'vision': np.full_like(batch['vision'], 7),
            'vision_mask': np.zeros_like(batch['vision_mask']),
        }
        batch.pop('id')
        outputs = jax.jit(lambda batch: run.model.apply(variables, batch, train=False))(batch)
        right = np.asarray(outputs['prediction']).argmax(1) == batch['label']
        correct, total = correct + right[batch['weight'] > 0].sum(), total + int(batch['weight'].sum())
    rows = evaluate.evaluate_checkpoint(workdir / 'fold_1', without=('vision',))
    assert rows[1]['accuracy'] == pytest.approx(correct / total)


def test_the_row_of_a_whole_run(workdir, tmp_path):
    results = evaluate.ablate(workdir, tmp_path / 'out', ('vision',))
    before = read_json(workdir / 'results.json')
    assert read_json(tmp_path / 'out' / 'results.json') == results
    assert results['modalities'] == ['text']
    assert results['variant'] == 'without_vision'
    assert [(row['fold'], row['seed']) for row in results['rows']] == [(r['fold'], r['seed']) for r in before['rows']]
    assert any(a['test']['loss'] != b['test']['loss'] for a, b in zip(results['rows'], before['rows'], strict=True))
    assert all('validation' in row and 'train' in row for row in before['rows'])
    assert all('validation' not in row and 'train' not in row for row in results['rows'])  # these hid nothing
    assert all(a['floor'] == b['floor'] for a, b in zip(results['rows'], before['rows'], strict=True))


def test_a_row_of_a_table(tiny, workdir, tmp_path, capsys):
    (tmp_path / 'small.py').write_text(CONFIG.format(directory=str(tiny)))
    rows = [{'label': 'Both', 'config': str(tmp_path / 'small.py')}, {'label': 'No words', 'ablate': ('Both', 'text')}]
    values = {
        'title': 'Ablation', 'source': 'none', 'metrics': 'classification', 'classes': ('calm', 'happy', 'sad'),
        'columns': {'accuracy': ''}, 'seeds': 2, 'rows': rows,
    }  # fmt: skip
    path = tmp_path / 'tiny.py'
    path.write_text(f'def get_table():\n    return {values!r}\n')
    assert table.main([f'--table={path}', f'--output={tmp_path / "out"}']) == 0
    both, without = (read_json(tmp_path / 'out' / name / 'results.json') for name in ('both', 'no_words'))
    assert without['rows'][0]['test']['accuracy'] != both['rows'][0]['test']['accuracy'] or (
        without['rows'][0]['test']['loss'] != both['rows'][0]['test']['loss']
    )
    assert '| No words |' in (tmp_path / 'out' / 'table.md').read_text()
    shutil.rmtree(tmp_path / 'out' / 'both')
    values['rows'] = [rows[1]]
    path.write_text(f'def get_table():\n    return {values!r}\n')
    assert table.main([f'--table={path}', f'--output={tmp_path / "out"}']) == 2
    assert "starts from 'Both'" in capsys.readouterr().err


@pytest.mark.parametrize('without', [('audio',), ('text', 'vision')])
def test_faults_are_named(workdir, tmp_path, without, capsys):
    assert evaluate.main([str(workdir), '--without', *without, '--output', str(tmp_path / 'out')]) == 1
    assert 'at least one must stay' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
