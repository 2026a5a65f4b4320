"""The table command: nothing is run twice, nothing that is finished is lost, and every number is where it came from."""

import ast
import csv
import importlib
import re
import shutil
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import table, train
from mmer_jax.files import read_json, write_json
from mmer_jax.models import MODELS
from mmer_jax.results import bar_plots
from mmer_jax.results.table_config import TableError, read_table, row_config
from mmer_jax.settings import overrides
from tests.conftest import REPOSITORY
from tests.small_run import MeanModel

SHIPPED = sorted(path.stem for path in (REPOSITORY / 'configs/tables').glob('[!_]*.py'))

CONFIG = """
from tests.small_run import small_config

def get_config(variant=''):
    rate = 0.1 if variant else 0.01
    return small_config({directory!r}, variant=variant, epochs=1, model__name='mean', optimizer__learning_rate=rate)
"""


def write_table(path, **changes):
    """A table file of three rows that run and one that is quoted; `changes` replace keys of its dictionary."""
    config = str(path.parent / 'small.py')
    text_alone = {'config': config, 'overrides': {'modalities': ('text',), 'epochs': 2}, 'group': 'Alone'}
    values = {
        'title': 'A tiny table',
        'source': 'A paper, Table 9',
        'dataset': 'tiny',
        'metrics': 'classification',
        'classes': ('calm', 'happy', 'sad'),
        'columns': {'accuracy': 'Acc', 'uar': '', 'loss': 'CE'},
        'seeds': 2,
        'rows': [
            {'label': 'Both', 'config': config, 'published': {'accuracy': 0.4375, 'uar': None}},
            {'label': 'Both faster', 'config': config, 'variant': 'fast', 'published': {'loss': 1.25}},
            {'label': 'Text', **text_alone},
            {'label': 'Coin', 'quoted': {'accuracy': 0.3333}, 'source': 'three sides', 'group': 'Alone'},
        ],
        **changes,
    }
    path.write_text(f'def get_table():\n    return {values!r}\n')
    return path


class Mean(MeanModel):
    """A model that compiles in no time, with the fields of those that a config can name."""

    dtype: Any = jnp.float32


@pytest.fixture(scope='module', autouse=True)
def small_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, 'mean', Mean)
        yield


@pytest.fixture(scope='module')
def place(tiny, tmp_path_factory):
    """A folder with the config, the table, and in `out` the table run whole by the command."""
    folder = tmp_path_factory.mktemp('table')
    (folder / 'small.py').write_text(CONFIG.format(directory=str(tiny)))
    assert run(write_table(folder / 'tiny.py'), folder / 'out') == 0
    return folder


@pytest.fixture
def finished(place, tmp_path):
    """A copy of the finished output folder, to break."""
    return shutil.copytree(place / 'out', tmp_path / 'out')


def run(file, output, *options):
    return table.main([f'--table={file}', f'--output={output}', *options])


@pytest.fixture
def trained(monkeypatch):
    """The folders that are trained from here on."""
    folders, original = [], train.train_and_evaluate

    def train_noted(config, workdir):
        folders.append(workdir.name)
        return original(config, workdir)

    monkeypatch.setattr(train, 'train_and_evaluate', train_noted)
    return folders


def cells(output):
    """{first cell: {column: cell, (column, 'published'): cell}} of table.md."""
    lines = [line for line in (output / 'table.md').read_text().splitlines() if line.startswith('|')]
    split = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines]
    header = split[0]
    keys = [(header[k - 1], 'published') if name == 'published' else name for k, name in enumerate(header)]
    assert all(len(row) == len(keys) for row in split)
    return {row[0]: dict(zip(keys, row, strict=True)) for row in split[2:]}


def test_numbers_are_those_of_results_json(place):
    found = cells(place / 'out')
    for label, folder in (('Both', 'both'), ('Both faster', 'both_faster'), ('Text', 'text')):
        results = read_json(place / 'out' / folder / 'results.json')
        for metric, column, scale, decimals in (('accuracy', 'Acc, %', 100, 1), ('loss', 'CE ↓', 1, 3)):
            values = [row['test'][metric] * scale for row in results['rows']]
            expected = f'{np.mean(values):.{decimals}f} ± {np.std(values, ddof=1):.{decimals}f}'
            assert found[label][column] == expected
        assert found[label]['parameters'] == f'{results["parameters"]:,}'
        assert found[label]['folds x seeds'] == '1 x 2'
        assert found[label]['protocol'] == 'official_split ⚠ speakers shared (8 of 8 test speakers are in train)'
    floor = read_json(place / 'out' / 'both' / 'results.json')['rows'][0]['floor']
    assert found['majority floor']['Acc, %'] == f'{100 * floor["accuracy"]:.1f}'
    assert found['majority floor']['UAR, %'] == '33.3'
    assert list(found) == ['Both', 'Both faster', '**Alone**', 'Text', 'Coin †', 'majority floor']


def test_overrides_and_seeds_reach_the_run(place):
    config = read_json(place / 'out' / 'text' / 'config.json')
    assert (config['modalities'], config['epochs'], config['seeds']) == (['text'], 2, 2)
    assert read_json(place / 'out' / 'both_faster' / 'config.json')['optimizer']['learning_rate'] == 0.1
    assert 'loss' in read_json(place / 'out' / 'both' / 'results.json')['headline']


def test_published_numbers_stand_only_beside_the_data_they_are_of(place, finished, capsys):
    """They are there before a row is run; beside a run on other data a note stands instead."""
    other = write_table(place / 'other.py', dataset='mosi')
    assert run(other, finished, '--no-run') == 0
    found = cells(finished)
    assert found['Both']['Acc, %', 'published'] == found['Both faster']['CE ↓', 'published'] == '–'
    assert (
        'Published numbers are of mosi and stand beside no other data: Both, Both faster.'
        in (finished / 'table.md').read_text()
    )
    with open(finished / 'table.csv') as file:
        assert all(line['published'] == '' for line in csv.DictReader(file))
    assert run(other, finished.parent / 'new', '--no-run') == 0
    assert cells(finished.parent / 'new')['Both']['Acc, %', 'published'] == '43.8'
    assert run(write_table(place / 'other.py', dataset=''), finished, '--list') == 2
    assert 'rows have published numbers; give `dataset`' in capsys.readouterr().err


def test_published_and_quoted_numbers_and_where_all_come_from(place):
    found, text = cells(place / 'out'), (place / 'out' / 'table.md').read_text()
    assert found['Both']['Acc, %', 'published'] == '43.8'
    assert found['Both']['CE ↓', 'published'] == '–'
    assert found['Both faster']['CE ↓', 'published'] == '1.250'
    assert ('UAR, %', 'published') not in found['Both']  # nobody published one
    assert (found['Coin †']['Acc, %'], found['Coin †']['UAR, %']) == ('33.3', '–')
    assert '† Coin: quoted, not measured by this command: three sides.' in text
    assert 'A paper, Table 9' in text
    assert re.search(r'Measured on tiny_classes \(text, audio\) in \S+, 8 test records: Both, Both faster\.', text)
    assert f'python -m mmer_jax.table --table={place / "tiny.py"} --output={place / "out"}\n' in text


def test_the_csv_file_holds_the_same_numbers(place):
    with open(place / 'out' / 'table.csv', newline='') as file:
        lines = {(line['label'], line['metric']): line for line in csv.DictReader(file)}
    assert len(lines) == 4 * 3
    results = read_json(place / 'out' / 'text' / 'results.json')
    line = lines['Text', 'uar']
    assert float(line['mean']) == pytest.approx(np.mean([row['test']['uar'] for row in results['rows']]))
    assert float(line['floor']) == pytest.approx(1 / 3)
    assert (line['modalities'], line['test_records'], line['seeds'], line['published']) == ('text', '8', '2', '')
    assert float(lines['Both', 'accuracy']['published']) == 0.4375
    assert (lines['Coin', 'accuracy']['mean'], lines['Coin', 'accuracy']['state']) == ('0.3333', 'quoted')


def test_a_second_call_runs_nothing(place, finished, trained):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob('*') if path.name[:5] != 'table'}
    assert run(place / 'tiny.py', finished) == 0
    assert trained == []
    after = {path: path.stat().st_mtime_ns for path in finished.rglob('*') if path.name[:5] != 'table'}
    assert {path for path in after if before.get(path) != after[path]} <= {finished}
    assert cells(finished) == cells(place / 'out')


def test_only_the_row_without_results_is_run_again(place, finished, trained):
    shutil.rmtree(finished / 'both_faster')
    assert run(place / 'tiny.py', finished, '--no-run') == 0
    assert cells(finished)['Both faster']['Acc, %'] == 'not run'
    assert cells(finished)['Both faster']['CE ↓', 'published'] == '1.250'
    assert trained == []
    assert run(place / 'tiny.py', finished) == 0
    assert trained == ['both_faster']
    assert '±' in cells(finished)['Both faster']['Acc, %']


def test_an_interrupted_table_keeps_what_is_finished_and_goes_on(place, tmp_path, trained, monkeypatch, capsys):
    train_noted = train.train_and_evaluate

    def interrupted(config, workdir):
        if workdir.name == 'both_faster':
            train.check_config(config, workdir)  # as a run that has begun
            raise KeyboardInterrupt
        return train_noted(config, workdir)

    with monkeypatch.context() as patch:
        patch.setattr(train, 'train_and_evaluate', interrupted)
        assert run(place / 'tiny.py', tmp_path / 'out') == 130
    assert 'the same command goes on' in capsys.readouterr().err
    assert trained == ['both']
    first = cells(tmp_path / 'out')
    assert '±' in first['Both']['Acc, %']
    assert first['Text']['Acc, %'] == 'not run'
    assert run(place / 'tiny.py', tmp_path / 'out', '--list') == 0
    assert 'Both faster: unfinished' in capsys.readouterr().out
    assert run(place / 'tiny.py', tmp_path / 'out') == 0
    assert trained == ['both', 'both_faster', 'text']
    assert cells(tmp_path / 'out')['Both'] == first['Both']


def test_a_failing_row_does_not_stop_the_others(place, tmp_path, trained, capsys):
    text = (place / 'small.py').read_text()
    broken = tmp_path / 'broken.py'
    broken.write_text(re.sub(r"small_config\('[^']*'", "small_config('/nowhere'", text))
    rows = [{'label': 'Broken', 'config': str(broken)}, {'label': 'Good', 'config': str(place / 'small.py')}]
    file = write_table(tmp_path / 'tiny.py', rows=rows)
    assert run(file, tmp_path / 'out') == 1
    found = cells(tmp_path / 'out')
    assert found['Broken']['Acc, %'] == 'failed'
    assert found['Broken']['protocol'].startswith('failed: shard directory /nowhere is missing')
    assert '±' in found['Good']['Acc, %']
    assert capsys.readouterr().err.startswith('error: Broken: shard directory /nowhere is missing')
    assert run(file, tmp_path / 'out', '--rows=Good') == 0


def test_an_unexpected_error_is_told_with_its_traceback(place, tmp_path, monkeypatch, capsys):
    def out_of_memory(config, workdir):
        raise RuntimeError('RESOURCE_EXHAUSTED:\nout of | memory')

    monkeypatch.setattr(train, 'train_and_evaluate', out_of_memory)
    assert run(place / 'tiny.py', tmp_path / 'out', '--rows=both,Text') == 1
    assert 'Traceback' in capsys.readouterr().err
    found = cells(tmp_path / 'out')
    assert found['Both']['protocol'] == r'failed: RESOURCE_EXHAUSTED: out of \| memory'
    assert found['Both faster']['protocol'] == 'not run'


def test_a_row_of_which_nothing_was_kept_is_trained_with_what_was_changed(place, tmp_path, trained, capsys):
    """As after a first try that had no memory."""
    job = table.Job(read_table(str(place / 'tiny.py')), tmp_path / 'out')
    train.check_config(job.configs['Both'], tmp_path / 'out' / 'both')
    assert run(place / 'tiny.py', tmp_path / 'out', '--set', 'epochs=2', '--rows=Both') == 0
    assert trained == ['both']
    assert read_json(tmp_path / 'out' / 'both' / 'config.json')['epochs'] == 2
    assert 'both is begun anew' in capsys.readouterr().err


def test_results_of_another_config_are_named_and_not_shown(place, finished, trained, capsys):
    assert run(place / 'tiny.py', finished, '--set', 'epochs=3', '--rows=Both') == 1
    error = capsys.readouterr().err
    assert 'error: Both: ' in error
    assert 'was begun with another config: epochs: 1 -> 3' in error
    assert cells(finished)['Both']['Acc, %'] == 'failed'
    assert run(place / 'tiny.py', finished, '--seeds=3') == 1
    assert 'seeds: 2 -> 3' in capsys.readouterr().err
    assert trained == []


def test_settings_reach_every_row_and_the_command(place, tmp_path, trained):
    options = ('--rows=Text', '--seeds=1', '--set', 'epochs=3', 'optimizer.name=sgd', 'selection.patience=2')
    assert run(place / 'tiny.py', tmp_path / 'out', *options) == 0
    assert trained == ['text']
    config = read_json(tmp_path / 'out' / 'text' / 'config.json')
    assert (config['seeds'], config['epochs'], config['optimizer']['name']) == (1, 3, 'sgd')
    found = cells(tmp_path / 'out')
    assert found['Text']['folds x seeds'] == '1 x 1'
    assert re.fullmatch(r'\d+\.\d', found['Text']['Acc, %'])
    assert (
        '--seeds=1 --set epochs=3 optimizer.name=sgd selection.patience=2\n' in (tmp_path / 'out/table.md').read_text()
    )


def test_the_command_lists_what_is_there(place, tmp_path, capsys):
    folder = place / 'out'
    assert run(place / 'tiny.py', folder, '--list') == 0
    printed = capsys.readouterr()
    assert printed.err == ''
    assert printed.out.splitlines() == [
        f'Both: finished, {folder}/both',
        f'Both faster: finished, {folder}/both_faster',
        f'Text: finished, {folder}/text',
        'Coin: quoted',
    ]
    options = ['--table=configs/tables/synthetic.py', f'--output={tmp_path}', '--list', '--rows=LF-LSTM']
    command = [sys.executable, '-m', 'mmer_jax.table', *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr, done.stdout) == (0, '', f'LF-LSTM: not run, {tmp_path}/lf_lstm\n')


def test_marks_and_different_floors_are_told(place, finished):
    path = finished / 'text' / 'results.json'
    results = read_json(path)
    for row in results['rows']:
        row['marks'], row['floor']['accuracy'] = [*row['marks'], 'selected on test'], 0.9
    write_json(path, results)
    assert run(place / 'tiny.py', finished, '--no-run') == 0
    found = cells(finished)
    assert found['Text']['protocol'].endswith('; selected on test')
    assert 'selected on test' not in found['Both']['protocol']
    assert found['majority floor of Text']['Acc, %'] == '90.0'
    assert 'majority floor of Both, Both faster' in found
    assert re.search('Text: ⚠ not an honest estimate.*; selected on test', (finished / 'table.md').read_text())


def test_folds_count_as_finished_only_together(place, tmp_path, trained, capsys):
    row = {'label': 'Sessions', 'config': str(place / 'small.py'), 'overrides': {'protocol.name': 'leave_sessions_out'}}
    file = write_table(tmp_path / 'tiny.py', rows=[row])
    assert run(file, tmp_path / 'out') == 0
    assert cells(tmp_path / 'out')['Sessions']['folds x seeds'] == '4 x 2'
    assert ', 40 test records: Sessions.' in (tmp_path / 'out/table.md').read_text()
    for lost in ('results.json', 'fold_2/results.json'):
        (tmp_path / 'out/sessions' / lost).unlink()
    assert run(file, tmp_path / 'out', '--no-run') == 0
    assert cells(tmp_path / 'out')['Sessions']['protocol'] == 'unfinished: finished: fold_0, fold_1, fold_3'
    assert run(file, tmp_path / 'out') == 0
    assert cells(tmp_path / 'out')['Sessions']['folds x seeds'] == '4 x 2'


SPLITS = {'columns': {'train/loss': 'Train CE', 'loss': 'CE', 'train/accuracy': '', 'accuracy': 'Acc'}}


def test_columns_of_the_training_split(place, finished, tmp_path, trained):
    published = {'train/loss': 1.75, 'train/accuracy': 0.5, 'loss': 2.5}
    row = {'label': 'Both', 'config': str(place / 'small.py'), 'published': published}
    file = write_table(tmp_path / 'tiny.py', rows=[row], **SPLITS)
    assert run(file, finished) == 0
    old = cells(finished)  # results of before: shown, without what was not measured
    assert trained == []
    assert (old['Both']['Train CE ↓'], old['Both']['train accuracy, %']) == ('–', '–')
    assert old['Both']['Acc, %'] == cells(place / 'out')['Both']['Acc, %']
    assert run(file, tmp_path / 'new') == 0
    found = cells(tmp_path / 'new')
    rows = read_json(tmp_path / 'new' / 'both' / 'results.json')['rows']
    values = [row['train']['loss'] for row in rows]
    assert found['Both']['Train CE ↓'] == f'{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}'
    assert found['Both']['Train CE ↓'] != found['Both']['CE ↓']
    assert found['Both']['Train CE ↓', 'published'] == '1.750'
    assert found['Both']['train accuracy, %', 'published'] == '50.0'
    assert found['Both']['Acc, %'] == old['Both']['Acc, %']
    assert found['majority floor']['Train CE ↓'] == '–'
    assert 'nothing augmented' in (tmp_path / 'new' / 'table.md').read_text()
    with open(tmp_path / 'new' / 'table.csv', newline='') as lines:
        by_metric = {line['metric']: line for line in csv.DictReader(lines)}
    assert float(by_metric['train/loss']['mean']) == pytest.approx(np.mean(values))


def test_the_bar_plot_shows_all_rows_and_grows_with_the_table(place, finished, tmp_path, trained, monkeypatch):
    drawn = []
    original = bar_plots.grouped
    monkeypatch.setattr(bar_plots, 'grouped', lambda bars, *a, **k: drawn.append(bars) or original(bars, *a, **k))
    file = write_table(place / 'bars.py', bars='accuracy')
    shutil.rmtree(finished / 'text')
    assert run(file, finished, '--no-run') == 0
    assert 'accuracy of all rows](bars.png)' in (finished / 'table.md').read_text()
    assert (finished / 'bars.png').read_bytes().startswith(b'\x89PNG')
    bars = {bar.group: bar for bar in drawn[-1]}
    rows = read_json(finished / 'both' / 'results.json')['rows']
    values = [100 * row['test']['accuracy'] for row in rows]
    assert bars['Both'].mean == pytest.approx(np.mean(values))
    assert bars['Both'].deviation == pytest.approx(np.std(values, ddof=1))
    assert bars['Both'].floor == pytest.approx(100 * rows[0]['floor']['accuracy'])
    assert bars['Both'].published == pytest.approx(43.75)
    assert bars['Text'].mean is None
    assert (bars['Coin'].mean, bars['Coin'].quoted) == (pytest.approx(33.33), True)
    assert run(file, finished, '--no-run', '--latex', '--format=svg') == 0
    assert 'all rows](bars.svg)' in (finished / 'table.md').read_text()
    assert b'<dc:title>mmer_jax' in (finished / 'bars.svg').read_bytes()
    assert 'Both & ' in (finished / 'table.tex').read_text()
    assert run(file, tmp_path / 'new', '--no-run') == 0
    assert not (tmp_path / 'new' / 'bars.png').exists()  # nothing measured
    assert 'bars.png' not in (tmp_path / 'new' / 'table.md').read_text()
    assert [path.name for path in finished.glob('.*')] == []


def test_damaged_results_are_a_failure(place, finished, trained, capsys):
    (finished / 'both' / 'results.json').write_text('{"rows": ')
    (finished / 'text' / 'config.json').unlink()
    assert run(place / 'tiny.py', finished) == 1
    found = cells(finished)
    assert 'not valid JSON' in found['Both']['protocol']
    assert 'no config.json' in found['Text']['protocol']
    assert trained == []


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'colums': {}}, r"unknown key 'colums'; the known keys are title, source, metrics, columns, rows"),
        ({'columns': {'acc': 'Acc'}}, r"no column 'acc' is measured; choose from loss, accuracy, uar, .*f1_sad"),
        ({'columns': {'f1_angry': ''}}, "no column 'f1_angry'"),
        (
            {'columns': {'training/loss': ''}},
            "no column 'training/loss' is measured; .* of another split as train/loss",
        ),
        ({'columns': {'train/acc': ''}}, "no column 'train/acc'"),
        ({'bars': 'macro_f1'}, "bars 'macro_f1' is no column; they are accuracy, uar, loss"),
        ({'metrics': 'ratings'}, "'ratings', expected one of classification, sentiment, polarity, regression"),
        ({'classes': ()}, 'need `classes`'),
        ({'seeds': 'many'}, "seeds is 'many', expected int"),
        ({'rows': []}, '0 rows'),
        ({'rows': [{'lable': 'x'}]}, "row 1: unknown key 'lable'; the known keys are label, config, variant"),
        ({'rows': [{'config': 'x.py'}]}, 'row 1: lacks label'),
        ({'rows': ['x']}, 'row 1: found str, expected a dictionary'),
        (
            {'rows': [{'label': 'x', 'config': 'x.py', 'start': {'text': 'a:lstm'}}]},
            "start of text is 'a:lstm', expected ..label of a row above', 'path in its model'.",
        ),
        ({'rows': [{'label': 'x', 'ablate': ('a', 'text', 'b')}]}, "row 'x': ablate is .*expected ..label of a row"),
        ({'rows': [{'label': 'x'}]}, "row 'x': give one of a config, a row to ablate, and quoted"),
        ({'rows': [{'label': 'x', 'quoted': {'uar': 0.1}}]}, 'with their source'),
        ({'rows': [{'label': 'a, b', 'config': 'x.py'}]}, 'no comma'),
        ({'rows': [{'label': 'x', 'config': 'x.py', 'published': {'uar': 41.4}}]}, r'uar is 41.4, expected a fraction'),
        ({'rows': [{'label': 'x', 'config': 'x.py', 'published': {'mae': 1.0}}]}, 'a number for mae, which is no col'),
        ({'rows': [{'label': x, 'config': 'x.py'} for x in ('a b', 'A-B')]}, 'a b, A-B would share a folder'),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, changes, message):
    file = write_table(tmp_path / 'tiny.py', **changes)
    with pytest.raises(TableError, match=message):
        read_table(str(file))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--rows=Bath',), "no row 'Bath'; its rows are Both, Both faster, Text, Coin"),
        (('--set', 'epochs'), "row 'Both': --set epochs: expected KEY=VALUE"),
        (('--set', 'epoch=3'), 'config.epoch is no key (did you mean epochs?); config has name, '),
        (('--set', 'data.dir=x'), 'config.data.dir is no key; config.data has directory, batch_size, '),
        (
            ('--set', 'epochs.x=3'),
            'config.epochs.x is no key: config.epochs is one value, a whole number of at least 1',
        ),
        (('--set', 'data=3'), 'config.data holds several values; set one of data.directory, '),
        (('--set', 'epochs=many'), "config.epochs: found 'many', expected a whole number of at least 1"),
        (('--set', 'epochs=2.5'), "row 'Both': config.epochs: found '2.5', expected a whole number of at least 1"),
        (('--set', 'model.dropuot=0.1'), 'Mean has no field dropuot (did you mean dropout?); its fields are dropout'),
        (('--set', 'losses.mae=1'), 'config.losses.mae: config.losses has no mae; known: cross_entropy, '),
    ],
)
def test_mistakes_in_the_command_end_in_one_line_before_anything_runs(place, tmp_path, capsys, options, message):
    assert run(place / 'tiny.py', tmp_path / 'out', *options) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert message in error
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ({'config': 'configs/nowhere.py'}, r"row 'x': configs/nowhere.py: no such file in"),
        ({'config': 'configs/quickstart.py', 'variant': 'deep'}, "row 'x': .*has no variant 'deep'"),
        ({'config': 'configs/quickstart.py', 'overrides': {'epochz': 1}}, "row 'x': config.epochz is no key"),
        ({'config': 'configs/tables/synthetic.py'}, r"row 'x': .* defines no get_config\(\)"),
    ],
)
def test_mistakes_in_a_row_name_it(tmp_path, row, message):
    path = write_table(tmp_path / 'tiny.py', rows=[{'label': 'x', **row}])
    with pytest.raises(TableError, match=message):
        tiny_table = read_table(str(path))
        row_config(tiny_table, tiny_table.rows[0], None, ())


def test_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert overrides.find_file('configs/quickstart.py') == REPOSITORY / 'configs/quickstart.py'
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/quickstart.py').touch()
    assert overrides.find_file('configs/quickstart.py').resolve() == tmp_path / 'configs/quickstart.py'


# ---- the tables in configs/tables ----------------------------------------------------------------------------


def published(name):
    return {row.label: list(row.published.values()) for row in read_table(f'configs/tables/{name}.py').rows}


def test_published_numbers_are_the_papers():
    assert published('mfsa_table1')['MFSA'] == pytest.approx([0.414, 0.833, 0.837, 0.856, 0.722])
    assert published('mfsa_table1')['MulT'] == pytest.approx([0.391, 0.811, 0.810, 0.889, 0.686])
    assert published('mfsa_table1')['PMR'] == pytest.approx([0.406, 0.824, 0.821])  # neither MAE nor Corr
    assert published('mfsa_table2')['MFSA'] == pytest.approx([0.532, 0.838, 0.836, 0.574, 0.724])
    expected = [0.872, 0.843, 0.807, 0.768, 0.765, 0.732, 0.644, 0.625]
    assert published('mfsa_table3')['MFSA'] == pytest.approx(expected)
    assert published('mfsa_table4')['MFSA (full)'] == published('mfsa_table1')['MFSA']
    assert published('mfsa_table4')['w/o PSA Module'] == pytest.approx([0.379, 0.807, 0.813, 0.917, 0.698])
    assert published('shared_encoders')['ResNet18 (face)'] == [1.0603, 0.9848, 1.3597, 0.6815]
    assert published('cfn_sr_table2')['w/o residual'] == [0.7533]


@pytest.mark.parametrize('name', SHIPPED)
def test_a_published_number_stands_in_the_table_or_in_the_config(name):
    """No number in a table's file is one that a config of its rows has as published, as a fraction or in percent."""
    shipped = read_table(f'configs/tables/{name}.py')
    tree = ast.parse((REPOSITORY / f'configs/tables/{name}.py').read_text())
    typed = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float}
    for row in shipped.rows:
        if row.config:
            published = overrides.load_config(row.config, row.variant).published
            numbers = {value for value in published.values() if isinstance(value, float)}
            assert not typed & (numbers | {round(100 * value, 4) for value in numbers}), row.label


def test_a_number_that_stands_twice_is_refused(tmp_path):
    row = {'label': 'MFSA', 'config': 'configs/mfsa_mosi.py', 'published': {'mae': 0.856}}
    values = {'dataset': 'mosi', 'metrics': 'sentiment', 'columns': {'mae': ''}, 'classes': (), 'rows': [row]}
    with pytest.raises(TableError, match='published mae stands in configs/mfsa_mosi.py too'):
        read_table(str(write_table(tmp_path / 'twice.py', **values)))
    (found,) = read_table(str(write_table(tmp_path / 'once.py', **values | {'rows': [row | {'published': {}}]}))).rows
    assert found.published == {'mae': 0.856}
    other = read_table(str(write_table(tmp_path / 'other.py', **values | {'rows': [row], 'dataset': 'mosei'})))
    assert other.rows[0].published == {'mae': 0.856}  # of another data set: what stands here is no second time


def test_the_shipped_tables_are_these():
    assert set(SHIPPED) >= {
        'mfsa_table1', 'mfsa_table2', 'mfsa_table3', 'mfsa_table4', 'synthetic', 'mosi_text_audio',
    }  # fmt: skip


@pytest.mark.parametrize('name', SHIPPED)
def test_a_shipped_table_loads_and_gives_its_command(name):
    shipped = read_table(f'configs/tables/{name}.py')
    assert len(shipped.rows) >= {'wav2vec2_reduced': 1, 'ravdess_one_actor': 3}.get(name, 5)
    assert f'--table=configs/tables/{name}.py' in importlib.import_module(f'configs.tables.{name}').__doc__
    best = {row.label: row.published for row in shipped.rows}
    assert {metric for row in best.values() for metric in row} <= set(shipped.columns)


@pytest.mark.parametrize('name', SHIPPED)
def test_every_row_of_a_shipped_table_has_its_config(name):
    shipped = read_table(f'configs/tables/{name}.py')
    missing = {row.config for row in shipped.rows if row.config and not (REPOSITORY / row.config).is_file()}
    assert missing == set()
    for row in shipped.rows:
        config = row_config(shipped, row, None, ())
        assert config is None or (
            config.seeds == row.overrides.get('seeds', shipped.seeds) and config.variant == row.variant
        )
