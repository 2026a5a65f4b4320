"""What a run remembers, what a dry run says, and what a pruned run can still do."""

import shutil
import subprocess

import jax
import numpy as np
import pytest

from mmer_jax import dry_run, evaluate, extract, figures, main, table
from mmer_jax.data.checksum import data_checksum
from mmer_jax.data.records import RecordSource, seal
from mmer_jax.files import read_json
from mmer_jax.run import checkpoint, finished, provenance, prune, warm_start
from mmer_jax.train import train_and_evaluate
from tests.conftest import write_dataset
from tests.small_run import small_config


def config_of(directory, **changes):
    config = small_config(directory, epochs=2, protocol__name='leave_speakers_out', data__max_shapes=1, **changes)
    with config.unlocked():
        config.protocol.options = {'folds': 2, 'validation_speakers': 1}
        config.model = {'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3}
    return config


@pytest.fixture(scope='module')
def run(tiny, tmp_path_factory):
    """Two folds and two seeds, finished."""
    folder = tmp_path_factory.mktemp('provenance') / 'run'
    train_and_evaluate(config_of(tiny), folder)
    return folder


# ---- data ------------------------------------------------------------------------------------------------------


def test_a_checksum_knows_the_data_and_not_their_place(tiny, tmp_path):
    copied = tmp_path / 'copy'
    shutil.copytree(tiny, copied)
    known = data_checksum(RecordSource(tiny))
    assert len(known) == 64
    assert data_checksum(RecordSource(copied)) == known
    assert data_checksum(RecordSource(write_dataset(tmp_path / 'same'))) == known
    assert data_checksum(RecordSource(write_dataset(tmp_path / 'other', seed=1))) != known


@pytest.mark.parametrize('name', ['features.json', 'manifest.csv', 'data-00002-of-00003.tfrecord'])
def test_a_checksum_sees_a_change_in_each_file(tiny, tmp_path, name):
    copied = tmp_path / 'copy'
    shutil.copytree(tiny, copied)
    content = (copied / name).read_bytes()
    if name == 'features.json':
        content = content.replace(b'tiny_classes', b'tiny_classed')
    elif name == 'manifest.csv':
        content = content.replace(b',03,', b',04,', 1)
    else:  # the stored CRC of the last record
        content = content[:-1] + bytes([content[-1] ^ 1])
    (copied / name).write_bytes(content)
    if not name.endswith('tfrecord'):
        assert seal(copied) == []  # who changes these himself says so, and else is told at opening
    assert data_checksum(RecordSource(copied)) != data_checksum(RecordSource(tiny))


# ---- provenance ------------------------------------------------------------------------------------------------


def test_a_run_remembers_where_its_numbers_come_from(tiny, run):
    found = read_json(run / 'results.json')['provenance']
    folds = [read_json(run / f'fold_{k}' / 'results.json')['provenance'] for k in range(2)]
    assert found['data'] == data_checksum(RecordSource(tiny))
    assert set(provenance.PACKAGES) < set(found['packages'])
    assert found['device']['count'] == 2
    assert found['processes'] == 1
    assert found['command'].startswith('python ')
    assert found['started'] == min(fold['started'] for fold in folds)
    assert found['seconds'] == pytest.approx(sum(fold['seconds'] for fold in folds), abs=0.11)
    assert [fold['resumed_at_step'] for fold in folds] == [0, 0]
    assert found['differing'] == []


def test_folds_of_other_origins_are_told():
    first = {'git': 1, 'device': 'a', 'started': '2026-01-01', 'seconds': 2.0, 'resumed_at_step': 0}
    second = {**first, 'git': 2, 'started': '2026-01-02', 'seconds': 0.5}
    assert provenance.combined([first, second]) == {
        'git': 2, 'device': 'a', 'started': '2026-01-01', 'seconds': 2.5, 'differing': ['git'],
    }  # fmt: skip
    assert provenance.combined([first, None]) is None  # a fold of an older version


def test_git_says_the_commit_and_whether_it_was_changed(tmp_path):
    assert provenance.git_state(tmp_path) is None

    def git(*words):
        call = ['git', '-c', 'user.name=x', '-c', 'user.email=x@example.org', '-C', str(tmp_path), *words]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git('init', '-q')
    assert provenance.git_state(tmp_path) is None, 'no commit yet'
    (tmp_path / 'a.py').write_text('1')
    git('add', 'a.py')
    git('commit', '-q', '-m', 'one')
    clean = {'commit': git('rev-parse', 'HEAD'), 'clean': True}
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'new').write_text('1')
    assert provenance.git_state(tmp_path) == clean, 'results are no change of the code'
    assert provenance.git_state(tmp_path, only=['a.py']) == clean
    assert provenance.git_state(tmp_path, only=['a.py', 'runs']) == {**clean, 'clean': False}
    (tmp_path / 'a.py').write_text('2')
    assert provenance.git_state(tmp_path / 'runs') == {**clean, 'clean': False}


# ---- dry run ---------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_run_and_writes_nothing(tiny, run, tmp_path):
    config = config_of(tiny, accumulate=2, data__batch_size=8)
    lines = list(dry_run.lines(config, tmp_path / 'new', [1]))
    text = '\n'.join(lines)
    results = read_json(run / 'results.json')
    counts = next(row['counts'] for row in results['rows'] if row['fold'] == 'fold_1')
    assert f'train {counts["train"]}, validation {counts["validation"]}, test {counts["test"]}' in text
    assert 'folds to run: 1 of 2' in text
    assert f'lf_lstm: {results["parameters"]:,} parameters, 2 seeds' in text
    assert f'text 8 x {results["inputs"]["steps"]["text"]} x 3' in text
    assert '  data.batch_size = 8' in text
    assert not (tmp_path / 'new').exists()
    sizes = [float(line.split()[0]) * {'B': 1, 'kB': 1e3, 'MB': 1e6}[line.split()[1]] for line in lines[-5:]]
    assert sizes[-1] == pytest.approx(sum(sizes[:-1]), rel=0.02)
    assert sizes[0] >= 2 * 3 * 4 * results['parameters'], 'of two seeds: parameters and two moments'
    assert '(new)' in lines[0]
    assert '(finished)' in next(dry_run.lines(config_of(tiny), run))
    with pytest.raises(ValueError, match='folds .2.: protocol'):
        list(dry_run.lines(config_of(tiny), tmp_path / 'new', [2]))


# ---- prune -----------------------------------------------------------------------------------------------------


def test_a_pruned_run_gives_the_same_numbers(tiny, run, tmp_path, capsys):
    pruned = tmp_path / 'pruned'
    shutil.copytree(run, pruned)
    before = evaluate.evaluate_checkpoint(pruned, fold=1)
    variables = finished.chosen_variables(finished.open_run(pruned, fold=1, seed=1))
    assert main.main(['--prune', str(pruned)]) == 0
    assert f'{pruned}: ' in capsys.readouterr().out
    assert prune.size_of(pruned) < prune.size_of(run)
    assert not list(pruned.rglob('state')), 'no optimiser state'
    assert len(list((pruned / 'fold_0' / 'checkpoints').iterdir())) == 1
    assert evaluate.evaluate_checkpoint(pruned, fold=1) == before
    after = finished.chosen_variables(finished.open_run(pruned, fold=1, seed=1))
    jax.tree.map(np.testing.assert_array_equal, after, variables)
    (folder,) = (pruned / 'fold_0' / 'checkpoints').iterdir()
    assert checkpoint.fault_of(folder) == '', 'its sums are those of what is left'
    size = prune.size_of(pruned)
    assert prune.prune(pruned) == (size, size)
    assert train_and_evaluate(config_of(tiny), pruned) == read_json(pruned / 'results.json')
    fold_data = finished.open_run(run, fold=0).fold_data
    parts = [warm_start.chosen_part(f'{folder}:text_lstm', fold_data, np.arange(2)) for folder in (run, pruned)]
    jax.tree.map(np.testing.assert_array_equal, *parts)
    (pruned / 'fold_1' / 'results.json').unlink()
    with pytest.raises(ValueError, match='was pruned: its optimiser state is gone'):
        train_and_evaluate(config_of(tiny), pruned)


def test_what_is_not_finished_is_not_pruned(run, tmp_path, capsys):
    copied = tmp_path / 'copy'
    shutil.copytree(run, copied)
    size = prune.size_of(copied)
    for given, fault in ((copied / 'fold_0', 'is one fold of'), (tmp_path, 'is no workdir')):
        assert main.main(['--prune', str(given)]) == 1
        assert fault in capsys.readouterr().err
    for lost in ('fold_1/results.json', 'results.json'):
        (copied / lost).rename(copied / 'aside')
        assert main.main(['--prune', str(copied)]) == 1
        error = capsys.readouterr().err
        assert 'is unfinished: it has no results.json' in error
        assert error.count('\n') == 1
        (copied / 'aside').rename(copied / lost)
    assert prune.size_of(copied) == size


# ---- the command -----------------------------------------------------------------------------------------------


def test_help_shows_the_values_and_comments_of_a_config(capsys):
    assert main.main(['--config=quickstart:text', '--config.epochs=3', '--help']) == 0
    shown = capsys.readouterr().out
    for line in (
        'data.batch_size = 64                        # over all devices and processes',
        'modalities = text ',
        'epochs = 3 ',
        'model.hidden_size = 32',
        'model.num_layers = 1                        # default',
        'losses.cross_entropy = 1.0                  # name: weight',
        'Model selection, on validation only.',
    ):
        assert f'\n  {line}' in shown, line


def test_what_help_shows_can_be_given():
    """Every value that is shown is read back as itself, of a config with tuples, texts and dictionaries."""
    from mmer_jax.settings import overrides, shown

    config = overrides.load_config('minilm_mosi_text')
    for line in shown.lines(config):
        if ' = ' in line and not line.endswith('default, if the weights do not say it'):
            key, _, value = line.partition('  # ')[0].strip().partition(' = ')
            before = config.to_dict()
            overrides.set_value(config, key, value.replace("''", '') if value == "''" else value)
            assert config.to_dict() == before, line


@pytest.mark.parametrize(
    ('words', 'fault'),
    [
        ([], 'required: --config'),
        (['--prune'], 'required: --config'),
        (['--config=quickstart', '--prune', 'runs/x'], '--prune: give the runs, or --config'),
    ],
)
def test_a_call_without_what_it_needs_is_exit_2(words, fault, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(words)
    assert caught.value.code == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    ('module', 'words'),
    [
        (evaluate, ['{}']),
        (extract, ['{}']),
        (figures, ['attention', '{}']),
        (table, ['--table=synthetic', '--no-run', '--output={}/table']),
    ],
    ids=lambda value: value.__name__ if hasattr(value, '__name__') else '',
)
def test_every_command_that_compiles_keeps_its_programs(module, words, tmp_path, monkeypatch, capsys):
    """Beside main; the runs are not there, so that nothing is compiled."""
    kept = []
    monkeypatch.setattr('mmer_jax.run.cache.keep_programs', lambda *, keep: kept.append(keep))
    given = [word.format(tmp_path) for word in words]
    module.main(given)
    module.main([*given, '--no_cache'])
    assert kept == [True, False]
