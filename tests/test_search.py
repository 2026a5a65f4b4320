"""A search: its ranges, its trials on validation alone, going on, sharing, pruning, and what it writes."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import main as main_command
from mmer_jax import report, search
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_json, read_jsonl
from mmer_jax.models import MODELS
from mmer_jax.results import trials as trials_of
from mmer_jax.run.choices import Range
from mmer_jax.run.loop import Loop
from mmer_jax.run.selection import Selection
from mmer_jax.run.study import JOURNAL, Pruned, Study
from mmer_jax.settings import overrides
from mmer_jax.settings.keys import check_config_values
from tests.small_run import MeanModel, small_config

RATE = ('optimizer.learning_rate', 'log', 1e-3, 1e-1)
DROPOUT = ('model.dropout', 'uniform', 0, 0.5)
SPACE = [Range('optimizer.learning_rate', 'log', (1e-3, 1e-1)), Range('epochs', 'uniform', (1, 9), whole=True)]


class Mean(MeanModel):
    """MeanModel as one that a config names."""

    dtype: Any = jnp.float32


def config_of(directory, *entries, **changes):
    config = small_config(directory, **{'epochs': 1, 'search': entries, 'data__max_shapes': 1, **changes})
    with config.unlocked():
        config.model = {'name': 'mean', 'dropout': 0.2}
    return config


@pytest.fixture(scope='module', autouse=True)
def mean_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, 'mean', Mean)
        yield


# ---- ranges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('entry', 'fault'),
    [
        (('optimizer.learning_rat', 'log', 1e-5, 1), r'optimizer.learning_rat is no key \(did you mean'),
        (('optimizer.learning_rate', 'log', 0.0, 1), 'optimizer.learning_rate: found 0.0, expected a finite number ab'),
        (('optimizer.learning_rate', 'log', 1e-2, 1e-5), 'found 0.01, 1e-05, expected low and high, low below high'),
        (('optimizer.weight_decay', 'log', 0, 1), 'found low 0, expected a number above 0 for log'),
        (('model.dropout', 'uniform', 0, 1.5), 'model.dropout: found 1.5, expected a finite number of at least 0'),
        (('model.width', 'choice', 1, 2), 'Mean has no field width'),
        (('data.batch_size', 'choice', 16), r"config.search\[0\], data.batch_size: found 16, expected two or more"),
        (('data.batch_size', 'uniform', 16, 32.5), 'data.batch_size: found 32.5, expected a whole number'),
        (('data.batch_size', 'between', 16, 32), r"config.search\[0\]: found .*, expected \('key', 'log' or 'uniform'"),
        (('optimizer.name', 'uniform', 'adam', 'sgd'), "'uniform' is for numbers; use 'choice'"),
        (('losses', 'choice', 1, 2), 'it holds several values; name one of them, losses.NAME'),
        (('selection.metric', 'choice', 'uar', 'loss'), 'all trials have it in common'),
        (('protocol.options.folds', 'choice', 2, 3), 'all trials have it in common'),
        ('optimizer.learning_rate', r"config.search\[0\]: found 'optimizer.learning_rate', expected"),
    ],
)  # fmt: skip
def test_a_range_that_cannot_be_is_one_line(entry, fault):
    with pytest.raises(ValueError, match=fault) as caught:
        check_config_values(config_of('data', entry))
    assert '\n' not in str(caught.value)


def test_ranges_that_can_be_and_two_that_cannot_together():
    config = config_of('data', RATE, DROPOUT, ('data.batch_size', 'uniform', 2, 8), ('losses.mse', 'choice', 0, 0.1))
    check_config_values(config)
    assert [one.whole for one in search.ranges_of(config)] == [False, False, True, False]
    with pytest.raises(ValueError, match='trials are compared by the loss, which it weighs'):
        check_config_values(config_of('data', ('losses.mse', 'choice', 0, 1), selection__metric='loss'))
    with pytest.raises(ValueError, match='this key is named twice'):
        check_config_values(config_of('data', RATE, RATE))


# ---- a whole search --------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def finished(tiny, tmp_path_factory):
    """A search of three trials, one of which was stopped before its second epoch and gone on with; its config, folder,
    and the splits of the records that were read."""
    folder, read = tmp_path_factory.mktemp('search') / 'mine', set()
    config = config_of(tiny, RATE, DROPOUT, ('modalities', 'choice', ('text', 'audio'), ('text',)), epochs=2)
    read_bytes, save = RecordSource.read_bytes, Loop._save

    def noting(source, number):
        read.add(source.manifest['split'][number])
        return read_bytes(source, number)

    def stopped(loop):
        save(loop)
        if loop.checkpoints.directory.parent.name == 'trial_1':
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordSource, 'read_bytes', noting)
        patch.setattr(Loop, '_save', stopped)
        with pytest.raises(KeyboardInterrupt):
            search.search(config, folder, 3, call='python -m mmer_jax.search mine')
        patch.setattr(Loop, '_save', save)
        first = trials_of.read_search(folder)
        search.search(config, folder, 3)
    return config, folder, read, first


def test_a_trial_reads_validation_only(finished):
    _, folder, read, _ = finished
    assert read == {'train', 'validation'}
    assert [path.name for path in folder.rglob('*') if path.suffix == '.npz' or path.name == 'results.json'] == []
    splits = {row['split'] for path in folder.rglob('metrics.jsonl') for row in read_jsonl(path)}
    assert splits == {'train', 'train_epoch', 'validation'}


def test_a_value_is_the_mean_of_what_validation_chose(finished):
    _, folder, _, _ = finished
    for trial in trials_of.read_search(folder)['trials']:
        rows = read_jsonl(folder / 'trials' / f'trial_{trial["number"]}' / 'metrics.jsonl')
        rows = [row for row in rows if row['split'] == 'validation']
        best = [max(row['accuracy'] for row in rows if row['seed'] == seed) for seed in (0, 1)]
        assert trial['value'] == pytest.approx(np.mean(best))
        assert [row['value'] for row in trial['rows']] == pytest.approx(best)


def test_with_inner_folds_a_trial_is_judged_by_their_mean_curve_and_its_test_records_stay_unread(tiny, tmp_path):
    read, read_bytes = set(), RecordSource.read_bytes

    def noting(source, number):
        read.add(source.manifest['split'][number])
        return read_bytes(source, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordSource, 'read_bytes', noting)
        search.search(config_of(tiny, RATE, epochs=2, selection__folds=2), tmp_path / 'mine', 1)
    assert 'test' not in read
    (trial,) = trials_of.read_search(tmp_path / 'mine')['trials']
    folder = tmp_path / 'mine' / 'trials' / 'trial_0'
    kept = read_json(folder / 'inner_folds.json')
    curves = [[[seed['value'] for seed in seeds] for seeds in read_json(folder / f'inner_{n}' / 'curve.json')['curve']]
              for n in range(2)]  # fmt: skip
    mean = np.average(curves, axis=0, weights=[one['validation'] for one in kept['folds']])  # (epochs, seeds)
    assert trial['value'] == pytest.approx(mean.max(0).mean())
    assert [row['best_epoch'] for row in trial['rows']] == (mean.argmax(0) + 1).tolist()
    assert not list((tmp_path / 'mine').rglob('checkpoints'))


def test_a_search_that_was_stopped_goes_on_with_the_trial(finished):
    _, folder, _, first = finished
    found = trials_of.read_search(folder)
    assert [trial['state'] for trial in first['trials']] == ['finished']  # written after each trial
    assert [trial['state'] for trial in found['trials']] == ['finished'] * 3
    rows = read_jsonl(folder / 'trials' / 'trial_1' / 'metrics.jsonl')
    assert [row['epoch'] for row in rows if row['split'] == 'validation'] == [1, 1, 2, 2]
    steps = [row['step'] for row in read_jsonl(folder / 'trials' / 'trial_1' / 'timing.jsonl') if 'epoch' in row]
    assert len(steps) == len(set(steps)) == 2  # no epoch was trained twice
    assert not list(folder.rglob('checkpoints'))
    assert not list(folder.rglob('.*.lock'))


def test_the_first_trial_is_the_config_and_the_others_lie_within(finished):
    config, folder, _, _ = finished
    first, *others = [trial['values'] for trial in trials_of.read_search(folder)['trials']]
    assert first == {'optimizer.learning_rate': 1e-2, 'model.dropout': 0.2, 'modalities': ['text', 'audio']}
    assert config.optimizer.learning_rate == 1e-2
    assert all(1e-3 <= one['optimizer.learning_rate'] <= 1e-1 and 0 <= one['model.dropout'] <= 0.5 for one in others)
    assert len({one['optimizer.learning_rate'] for one in (first, *others)}) == 3


def test_the_best_is_a_config(finished):
    _, folder, _, _ = finished
    best = json.loads((folder / 'best.json').read_text())
    trials = trials_of.read_search(folder)['trials']
    assert best['value'] == max(trial['value'] for trial in trials)
    config = overrides.load_config(str(folder / 'best.py'))
    check_config_values(config)
    trained = read_json(folder / 'trials' / f'trial_{best["trial"]}' / 'config.json')
    assert json.loads(json.dumps(config.to_dict())) == trained == best['config']
    assert config.optimizer.learning_rate == best['values']['optimizer.learning_rate']
    words = best['command'].split()
    assert words[:3] == ['python', '-m', 'mmer_jax.main']
    assert main_command.read_config(main_command.parse(words[3:]).config, []).search == ()


def test_what_is_written_is_sorted_and_names_no_test(finished):
    _, folder, _, _ = finished
    table = trials_of.trials_table(trials_of.read_search(folder))
    assert table.header == [
        'trial', 'validation accuracy, %', 'learning_rate', 'dropout', 'modalities', 'best epoch', 'state'
    ]  # fmt: skip
    values = [float(row[1].split()[0]) for row in table.rows]
    assert values == sorted(values, reverse=True)
    lines = (folder / 'trials.csv').read_text().splitlines()
    assert lines[0] == (
        'trial,state,validation_accuracy,optimizer.learning_rate,model.dropout,modalities,seconds,fault'
    )  # fmt: skip
    assert [line.split(',')[0] for line in lines[1:]] == [row[0] for row in table.rows]
    assert 'python -m mmer_jax.main --config=' in (folder / 'trials.md').read_text()


def test_another_config_does_not_go_on(finished, tiny):
    config, folder, _, _ = finished
    for other in (config_of(tiny, RATE, epochs=2), config_of(tiny, *config.search, epochs=2, data__batch_size=4)):
        with pytest.raises(ValueError, match='was begun with another config: (search|data.batch_size): '):
            search.search(other, folder, 4)
    again = search.search(config, folder, 3)
    assert len(again['trials']) == 3


def test_a_folder_of_something_else_is_refused(tiny, tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(FileExistsError, match='holds config.json and no search: take another --workdir'):
        search.search(config_of(tiny, RATE), tmp_path, 1)


def test_a_trial_that_fails_is_told_and_the_rest_goes_on(tiny, tmp_path, monkeypatch, capsys):
    def fails(config, trial):
        if trial.number == 0:
            raise FloatingPointError('step 3: the loss\nis not finite')
        trial.finish(0.5, [], 1.0)
        return 0.5

    monkeypatch.setattr(search, 'run_trial', fails)
    found = search.search(config_of(tiny, RATE), tmp_path / 'a', 2)
    assert [trial['state'] for trial in found['trials']] == ['failed', 'finished']
    assert 'error: trial 0: step 3: the loss is not finite' in capsys.readouterr().err
    assert trials_of.trials_table(found).rows[1][-1] == 'failed: step 3: the loss is not finite'


def test_what_a_trial_reports_is_the_mean_over_folds_and_seeds():
    reported = []
    progress = search.Progress(SimpleNamespace(report=lambda *one: reported.append(one)), higher=False, seeds=(0, 1))
    first, second = Selection(2, higher_is_better=False), Selection(2, higher_is_better=False)
    for epoch, losses in ((1, [1.0, 3.0]), (2, [2.0, 1.5])):
        first.update(epoch, np.array(losses))
        progress.after_epoch(epoch, first)
    progress.end_fold('fold_0', first)
    second.update(1, np.array([5.0, 5.5]))
    progress.after_epoch(1, second)
    assert reported == [(0, 1, 2.0), (0, 2, 1.25), (1, 1, 3.25)]
    assert [(row['seed'], row['value'], row['best_epoch'], row['epochs']) for row in progress.rows] == [
        (0, 1.0, 1, 2),
        (1, 1.5, 2, 2),
    ]


# ---- the trials of a study, without training -------------------------------------------------------------------


def study_in(folder, **changes):
    folder.mkdir(exist_ok=True)
    return Study(folder, SPACE, **{'higher': True, 'seed': 0, 'prune_after': 2, **changes})


def test_what_is_worse_than_the_median_is_pruned_after_some_epochs(tmp_path):
    study, stopped = study_in(tmp_path), {}
    for value in (1, 2, 3, 4, 5, 1.5, 4.5):
        trial = study.next(99)
        try:
            for epoch in (1, 2, 3):
                trial.report(0, epoch, value)
            trial.finish(value, [], 1.0)
        except Pruned as where:
            stopped[trial.number] = str(where)
            trial.prune(str(where), 1.0)
    assert stopped == {5: 'epoch 2'}
    assert [trial['state'] for trial in study.records()] == [*['finished'] * 5, 'pruned', 'finished']
    assert [trial['value'] for trial in study.records()][4:] == [5, None, 4.5]
    assert set(study.importance()) == {one.key for one in SPACE}
    assert sum(study.importance().values()) == pytest.approx(1)


def test_lower_may_be_better_and_pruning_off(tmp_path):
    study = study_in(tmp_path, higher=False, prune_after=0)
    for value in (1, 2, 3, 4, 5, 6):
        trial = study.next(99)
        trial.report(0, 3, value)
        trial.report(1, 1, value)
        trial.finish(value, [], 1.0)
    trial = study_in(tmp_path, higher=False).next(99)
    trial.report(0, 3, 3.0)
    trial.report(0, 4, 9.0)  # no other has such an epoch
    trial.finish(3.0, [], 1.0)
    trial = study_in(tmp_path, higher=False).next(99)
    with pytest.raises(Pruned, match='fold 1, epoch 1'):
        trial.report(1, 1, 5.0)


def test_two_processes_share_the_trials(tmp_path):
    one, other = study_in(tmp_path), study_in(tmp_path)
    trials = [one.next(3), other.next(3), other.next(3)]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert one.next(3) is None
    assert len({trial.values['optimizer.learning_rate'] for trial in trials}) == 3
    for trial in trials:
        trial.finish(1.0, [], 1.0)
    assert other.next(3) is None


def test_a_trial_whose_process_ended_is_taken_over_with_its_values(tmp_path):
    study = study_in(tmp_path)
    left = study.next(1)
    left.report(0, 1, 0.5)
    assert study_in(tmp_path).next(1) is None  # its process is at work
    left.release()
    with open(tmp_path / JOURNAL, 'a') as file:
        file.write('{"op_code": 4, "wor')  # killed while it wrote
    again = study_in(tmp_path).next(1)
    assert (again.number, again.values, again.attempt) == (0, left.values, 2)
    again.report(0, 1, 0.5)  # known already
    again.release()
    study_in(tmp_path).next(1).release()
    assert study_in(tmp_path).next(1) is None
    (record,) = study_in(tmp_path).records()
    assert (record['state'], record['fault']) == ('failed', 'its process ended 3 times before it did')


def test_what_is_tried_follows_from_the_seed_and_the_trials_before(tmp_path):
    def values(folder, at_once, **changes):
        study, found = study_in(folder, **changes), []
        for number in range(12):
            study = study if at_once else study_in(folder, **changes)
            trial = study.next(12)
            found.append(trial.values)
            trial.finish(-abs(trial.values['epochs'] - 5) + 0.01 * number, [], 1.0)
        return found

    found = values(tmp_path / 'a', at_once=True)
    assert values(tmp_path / 'b', at_once=False) == found
    assert values(tmp_path / 'c', at_once=True, seed=1) != found
    assert {type(one['epochs']) for one in found} == {int}


# ---- the command and the report --------------------------------------------------------------------------------


@pytest.fixture
def config_file(tiny, tmp_path):
    """A user's file; its model is Mean."""

    def written(*entries):
        values = config_of(tiny, *entries).to_dict()
        text = 'from ml_collections import ConfigDict\nfrom configs.base import get_base\n\n\ndef get_config():\n'
        text += "    config = get_base('mine')\n    with config.unlocked(), config.ignore_type():\n"
        (tmp_path / 'mine.py').write_text(text + f'        config.update({values!r})\n    return config\n')
        return str(tmp_path / 'mine.py')

    return written


def test_the_command_searches_goes_on_and_is_reported(config_file, tmp_path, capsys):
    words = [f'--config={config_file(RATE)}', f'--workdir={tmp_path / "runs" / "found"}', '--config.seeds=1']
    assert search.main([*words, '--trials=1']) == 0
    assert 'best: trial 0, validation accuracy ' in capsys.readouterr().out
    assert report.main([str(tmp_path / 'runs'), '--output', str(tmp_path / 'report'), '--html']) == 0
    for name in ('report.md', 'report.html'):
        page = (tmp_path / 'report' / name).read_text()
        assert 'Trials of found' in page
        assert 'validation accuracy' in page
        assert 'learning_rate' in page
        assert 'test accuracy' not in page
    assert report.main([str(tmp_path / 'runs'), '--output', str(tmp_path / 'report')]) == 0  # may be made again
    (tmp_path / 'report' / 'report.md').write_text('my own')
    assert report.main([str(tmp_path / 'runs'), '--output', str(tmp_path / 'report')]) == 1


def test_a_wrong_call_is_one_line(config_file, tmp_path, capsys, monkeypatch):
    assert search.main([f'--config={config_file()}', f'--workdir={tmp_path / "a"}']) == 2
    assert 'config.search is empty: name what to vary' in capsys.readouterr().err
    assert search.main([f'--config={config_file(("epochs", "log", 1, 0))}']) == 2
    assert capsys.readouterr().err.count('\n') == 1
    monkeypatch.setitem(sys.modules, 'optuna', None)
    assert search.main([f'--config={config_file(RATE)}', f'--workdir={tmp_path / "a"}']) == 1
    assert capsys.readouterr().err == (
        "error: mmer_jax.search needs optuna, not installed: pip install 'mmer_jax[search]'\n"
    )  # fmt: skip
    assert not (tmp_path / 'a').exists()
