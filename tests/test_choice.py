"""Many runs side by side: what differs, which ones, in which order and groups; the same in pandas."""

import builtins
import json
import sys
import types

import pytest

from mmer_jax import report
from mmer_jax.results import choice, to_pandas
from mmer_jax.results.page import Group
from mmer_jax.results.run_table import main_table
from mmer_jax.results.runs import ReportError, find_runs
from tests.finished_runs import ACCURACY, classification_run, damage

CONFIGS = {
    'a': {
        'mixup': 0.0,
        'name': 'cnn',
        'epochs': 3,
        'optimizer': {'learning_rate': 1e-3, 'name': 'adam'},
        'model': {'dropout': 0.1},
    },
    'b': {'name': 'cnn', 'epochs': 3, 'optimizer': {'learning_rate': 1e-4, 'name': 'adam'}, 'model': {'dropout': 0.1}},
    'c': {'name': 'cnn', 'epochs': 5, 'optimizer': {'learning_rate': 1e-3, 'name': 'sgd'}, 'model': {}, 'seeds': 2},
}
SHIFTS = {'a': 0.0, 'b': 0.1, 'c': -0.1}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sweep')
    for name, config in CONFIGS.items():
        run = classification_run(folder / name)
        (run / 'config.json').write_text(json.dumps(config))
        rows = json.loads((run / 'results.json').read_text())['rows']
        damage(run, rows=[{**r, 'test': {**r['test'], 'accuracy': r['test']['accuracy'] + SHIFTS[name]}} for r in rows])
    return folder


@pytest.fixture(scope='module')
def runs(folder):
    return find_runs([folder])[0]


def names(found):
    return [run.folder.name for run in found]


def test_what_differs_is_a_cell(runs):
    assert choice.difference_cells(runs) == [
        'epochs 3, learning_rate 0.001, name adam, dropout 0.1',
        'epochs 3, learning_rate 0.0001, name adam, dropout 0.1',
        'epochs 5, learning_rate 0.001, name sgd',
    ]
    assert choice.difference_cells(runs[:2]) == ['learning_rate 0.001', 'learning_rate 0.0001']
    assert choice.difference_cells(runs[:1]) == ['']
    table = main_table(runs)
    assert table.header[1] == 'differs in'
    assert [row[1] for row in table.rows] == choice.difference_cells(runs)
    assert 'differs in' not in main_table(runs[:1]).header


@pytest.mark.parametrize(
    ('conditions', 'kept'),
    [
        ([], 'abc'),
        (['optimizer.learning_rate=0.001'], 'ac'),
        (['optimizer.learning_rate=1e-3', 'epochs=5'], 'c'),
        (['config.optimizer.name=adam'], 'ab'),
        (['modalities=audio,text'], 'abc'),
        (['dataset=corpus_mfcc'], 'abc'),
        (['model.dropout=0.1'], 'ab'),
    ],
)
def test_conditions(runs, conditions, kept):
    assert names(choice.chosen(runs, conditions)) == list(kept)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--where', 'epochs'], '--where epochs: expected KEY=VALUE'),
        (['--where', 'epochs=4'], '--where epochs=4: no run is left; the runs have 3, 5'),
        (['--where', 'learning_rate=1'], 'no run has such a key; did you mean optimizer.learning_rate?'),
        (
            ['--group_by', 'optimizer.nam'],
            'optimizer.nam: no run has such a key; did you mean optimizer.name',
        ),
        (['--sort', 'mae'], '--sort mae: no run has this metric; they have accuracy, uar, loss'),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(folder, tmp_path, capsys, options, message):
    status = 2 if 'expected KEY=VALUE' in message else 1
    assert report.main([str(folder), '--output', str(tmp_path / 'out'), *options]) == status
    assert not (tmp_path / 'out').exists()
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_the_best_comes_first(runs):
    assert names(choice.ordered(runs, 'accuracy')) == ['b', 'a', 'c']
    assert names(choice.ordered(runs, 'uar')) == ['a', 'b', 'c']
    assert names(choice.ordered(runs, 'loss')) == ['a', 'b', 'c']


def test_groups_are_headings_numbers_in_their_order(runs):
    table = main_table(choice.ordered(runs, 'accuracy'), group_by='optimizer.learning_rate')
    found = [row.text if isinstance(row, Group) else row[0] for row in table.rows]
    assert found == [
        'optimizer.learning_rate: 0.0001', 'cnn (b)', 'optimizer.learning_rate: 0.001', 'cnn (a)', 'cnn (c)',
    ]  # fmt: skip
    assert list(choice.grouped(runs, 'model.dropout')) == ['model.dropout: 0.1', 'model.dropout: –']


def test_pandas_gets_a_row_per_fold_and_seed(folder, runs, monkeypatch):
    """With a stand-in for pandas, which is no dependency: what it is given is what is checked."""
    frames = types.ModuleType('pandas')
    frames.DataFrame = lambda rows: types.SimpleNamespace(rows=rows, attrs={})
    monkeypatch.setitem(sys.modules, 'pandas', frames)
    for given in (folder, [folder], runs):
        rows = to_pandas(given).rows
        assert len(rows) == 3 * len(ACCURACY)
    assert {(r['fold'], r['seed']): r['accuracy'] for r in rows if r['workdir'] == 'a'} == ACCURACY
    assert [row['config.optimizer.learning_rate'] for row in rows[::6]] == [1e-3, 1e-4, 1e-3]


def test_without_pandas_it_says_what_to_do(folder, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **options):
        if name == 'pandas':
            raise ModuleNotFoundError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ImportError, match='to_pandas needs pandas, which is not installed: pip install pandas'):
        to_pandas(folder)


def test_runs_stand_in_natural_order(tmp_path):
    for name in ('lr_10', 'lr_2', 'b', '3'):
        classification_run(tmp_path / name)
    assert names(find_runs([tmp_path])[0]) == ['3', 'b', 'lr_2', 'lr_10']


def test_no_runs_are_told(tmp_path):
    with pytest.raises(ReportError, match='is no folder'):
        choice.chosen(find_runs([tmp_path / 'nowhere'])[0], [])
