"""Inner folds choose the epoch: who is in which, what is chosen, and that the final training is a plain one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmer_jax import load_predictor
from mmer_jax.data.folds import Fold
from mmer_jax.data.inner_folds import inner_folds, merged
from mmer_jax.evaluate import evaluate_checkpoint
from mmer_jax.files import read_arrays, read_json
from mmer_jax.run import inner_folds as of_run
from mmer_jax.run import program
from mmer_jax.run.finished import open_runs
from mmer_jax.run.loop import Loop
from mmer_jax.run.selection import Chosen
from mmer_jax.settings.keys import config_faults
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config

OPTIONS = {'protocol__name': 'leave_speakers_out', 'protocol__options': {'folds': 2, 'validation_speakers': 1}}


def people(count=24, clips=3):
    """A manifest of `count` speakers, a third of them women, all in train but the last four."""
    speaker = np.repeat([f'{n:02d}' for n in range(count)], clips)
    gender = np.where(speaker.astype(int) % 3, 'man', 'woman')
    record = np.arange(len(speaker))
    tested = speaker.astype(int) >= count - 4
    validated = speaker.astype(int) == 0
    fold = Fold('all', record[~tested & ~validated], record[validated], record[tested])
    return {'record': record, 'speaker': speaker, 'gender': gender, 'session': speaker}, fold


@pytest.mark.parametrize('count', [2, 3, 5, 20])
def test_each_speaker_validates_once_trains_in_no_fold_of_his_and_nobody_tested_is_read(count):
    manifest, fold = people()
    found = inner_folds(
        merged(fold), manifest, count, protocol='leave_speakers_out', options={'balance': 'gender'}, seed=3
    )
    used = np.union1d(fold.train, fold.validation)
    assert np.array_equal(np.sort(np.concatenate([one.validation for one in found])), used)
    women = []
    for one in found:
        assert not set(manifest['speaker'][one.train]) & set(manifest['speaker'][one.validation])
        assert np.array_equal(np.union1d(one.train, one.validation), used)
        assert not len(one.test)
        women.append(len(set(manifest['speaker'][one.validation][manifest['gender'][one.validation] == 'woman'])))
    assert max(women) - min(women) <= 1
    sizes = [len(one.validation) for one in found]
    assert max(sizes) - min(sizes) <= 3


def test_inner_folds_depend_on_the_seed_and_not_on_the_order_of_rows_or_the_tested():
    manifest, fold = people()
    order = np.random.default_rng(0).permutation(len(manifest['record']))
    how = {'protocol': 'leave_speakers_out', 'options': {}}
    first = [one.validation.tolist() for one in inner_folds(merged(fold), manifest, 4, **how, seed=0)]
    shuffled = {name: column[order] for name, column in manifest.items()}
    assert first == [one.validation.tolist() for one in inner_folds(merged(fold), shuffled, 4, **how, seed=0)]
    assert first != [one.validation.tolist() for one in inner_folds(merged(fold), manifest, 4, **how, seed=1)]
    fewer = dataclasses.replace(fold, test=fold.test[:1])
    assert first == [one.validation.tolist() for one in inner_folds(merged(fewer), manifest, 4, **how, seed=0)]


def test_groups_are_sessions_where_these_are_left_out_and_records_where_nobody_is_known():
    manifest, fold = people()
    manifest['session'] = np.array([f'{int(name) // 2}' for name in manifest['speaker']])
    for one in inner_folds(merged(fold), manifest, 3, protocol='leave_sessions_out', options={}, seed=0):
        assert not set(manifest['session'][one.train]) & set(manifest['session'][one.validation])
    nobody = {**manifest, 'speaker': np.full(len(manifest['record']), '')}
    found = inner_folds(merged(fold), nobody, 7, protocol='official_split', options={}, seed=0)
    assert sorted(len(one.validation) for one in found) == [8, 8, 8, 9, 9, 9, 9]


def test_what_cannot_be_is_refused_in_one_line(tiny):
    manifest, fold = people()
    with pytest.raises(ValueError, match='found 21, but fold .all. has 20 speakers that are not tested'):
        inner_folds(merged(fold), manifest, 21, protocol='leave_speakers_out', options={}, seed=0)
    with pytest.raises(ValueError, match='tests 12 records that it trains or validates on'):
        merged(dataclasses.replace(fold, validation=fold.test))
    for key, value in (('patience', 2), ('plateau_patience', 1)):
        config = small_config(tiny, selection__folds=2, **{f'selection__{key}': value})
        assert any(f'config.selection.{key}: found {value}' in fault for fault in config_faults(config.to_dict()))
    config = small_config(tiny, selection__folds=1)
    assert any('config.selection.folds: found 1' in fault for fault in config_faults(config.to_dict()))


def test_the_mean_weighs_records_and_the_first_best_epoch_is_chosen():
    def curve(*values):
        return [[{'value': value, 'measured': {'loss': value, 'uar': None}}] for value in values]

    for metric, epoch in (('accuracy', 2), ('loss', 1)):
        found = of_run.choose([curve(0.0, 0.9, 0.9), curve(0.5, 0.5, 0.5)], [1, 3], metric)
        assert found.epochs == [epoch]
        np.testing.assert_allclose([seeds[0]['value'] for seeds in found.mean], [0.375, 0.6, 0.6])
        assert np.isnan(found.measured(1)[0]['uar'])


@pytest.mark.parametrize('nothing', [None, float('nan')])  # as read from a file, and as measured
@pytest.mark.parametrize('metric', ['accuracy', 'loss'])
def test_an_epoch_at_which_an_inner_fold_had_no_value_is_not_chosen(metric, nothing):
    def curve(*values):
        return [[{'value': value, 'measured': {}}] for value in values]

    found = of_run.choose([curve(nothing, 0.4, 0.4), curve(0.9, 0.4, nothing)], [1, 1], metric)
    assert found.epochs == [2]
    assert [seeds[0]['value'] for seeds in found.mean] == [None, pytest.approx(0.4), None]


def test_each_seed_stops_at_its_own_epoch():
    found = Chosen([1, 3], True)
    improved = [found.update(epoch, np.array([0.1, 0.2])).tolist() for epoch in (1, 2, 3)]
    assert improved == [[True, False], [False, False], [False, True]]
    assert found.best_epoch.tolist() == found.epochs.tolist() == [1, 3]
    assert not found.running.any()


# ---- whole runs: two speakers' groups, two inner folds, two seeds ----------------------------------------------


def config_of(data, **changes):
    return small_config(data, **OPTIONS, selection__folds=2, epochs=3, optimizer__average=0.5, **changes)


@pytest.fixture(scope='module')
def run(tiny, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('inner') / 'run'
    results = train_and_evaluate(config_of(tiny), workdir, model=MeanModel(), folds=[0])
    return workdir, results


def files_of(workdir: Path) -> dict[str, object]:
    """What must be equal of two runs: rows, curves, choices, predictions and chosen variables."""
    found: dict[str, object] = {}
    for path in sorted(workdir.rglob('*')):
        name = str(path.relative_to(workdir))
        if path.suffix == '.jsonl' and path.name == 'metrics.jsonl':
            found[name] = [json.loads(line) for line in path.read_text().splitlines()]
        elif path.name in ('curve.json', 'inner_folds.json'):
            found[name] = read_json(path)
        elif path.name == 'results.json':
            found[name] = read_json(path)['rows']
        elif path.suffix == '.npz':
            found[name] = {key: array.tolist() for key, array in np.load(path).items()}
    return found


def test_the_chosen_epoch_is_the_best_of_the_mean_of_the_recorded_curves(run):
    workdir, results = run
    kept = read_json(workdir / 'fold_0' / 'inner_folds.json')
    weights, curves, losses = [one['validation'] for one in kept['folds']], [], []
    for number in range(2):
        lines = (workdir / 'fold_0' / f'inner_{number}' / 'metrics.jsonl').read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row['split'] == 'validation']
        curves.append([[row['accuracy'] for row in rows if row['seed'] == seed] for seed in (0, 1)])
        losses.append([[row['loss'] for row in rows if row['seed'] == seed] for seed in (0, 1)])
    mean, mean_loss = (np.average(found, axis=0, weights=weights) for found in (curves, losses))
    for n, row in enumerate(results['rows']):
        assert row['best_epoch'] == mean[n].argmax() + 1 == kept['epochs'][n]
        assert row['selected_by'] == '2 inner folds'
        assert row['counts']['validation'] == 0
        assert row['validation']['accuracy'] == pytest.approx(mean[n].max())
        assert row['validation']['loss'] == pytest.approx(mean_loss[n][mean[n].argmax()])
    assert results['selection_folds'] == 2
    assert not list((workdir / 'fold_0').glob('inner_*/checkpoints'))


def test_the_final_training_is_a_plain_one_on_all_records_for_the_chosen_epochs(run, tiny, tmp_path, monkeypatch):
    workdir, results = run
    (chosen,) = {row['best_epoch'] for row in results['rows'] if row['seed'] == 0}
    config = config_of(tiny)
    with config.unlocked():
        config.epochs, config.selection.folds, config.seeds = chosen, 0, 1
    fold = program.folds_of(config_of(tiny), program.open_source(config))[0]
    plain = dataclasses.replace(fold, validation=fold.train[:6])  # read, and not what chooses the last epoch
    monkeypatch.setattr('mmer_jax.train.folds_of', lambda *_: [plain])
    monkeypatch.setattr('mmer_jax.run.loop.Selection', lambda *_: Chosen([chosen], True))
    train_and_evaluate(config, tmp_path / 'plain', model=MeanModel())
    names = ['id', 'prediction']
    ours = read_arrays(workdir / 'fold_0' / 'predictions' / 'test.npz', names)
    theirs = read_arrays(tmp_path / 'plain' / 'predictions' / 'test.npz', names)
    assert np.array_equal(ours['id'], theirs['id'])
    assert np.array_equal(ours['prediction'][0], theirs['prediction'][0])


@pytest.mark.parametrize('stop', [8, 14])  # in the second inner fold, in the final training
def test_a_run_that_is_killed_goes_on_to_the_same_end(run, tiny, tmp_path, monkeypatch, stop):
    account, steps = Loop._account, iter(range(stop))

    def killed(self, *numbers):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        account(self, *numbers)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, '_account', killed)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config_of(tiny), tmp_path / 'run', model=MeanModel(), folds=[0])
    train_and_evaluate(config_of(tiny), tmp_path / 'run', model=MeanModel(), folds=[0])
    assert files_of(tmp_path / 'run') == files_of(run[0])


def test_what_was_trained_is_evaluated_and_what_was_trained_on_is_not_validated(run):
    workdir, results = run
    rows = evaluate_checkpoint(workdir, fold=0, model=MeanModel())
    assert [row['accuracy'] for row in rows] == [row['test']['accuracy'] for row in results['rows']]
    (opened,) = open_runs(workdir, fold=0, model=MeanModel(), finished=False)
    assert not len(opened.fold_data.fold.validation)
    assert len(opened.fold_data.fold.train) == 20
    with pytest.raises(ValueError, match='was selected by inner folds .*: leave --calibrate out'):
        load_predictor(workdir, calibrate=True, model=MeanModel())
    with pytest.raises(ValueError, match="fold 'fold_0' has no validation records: config.selection.folds"):
        evaluate_checkpoint(workdir, fold=0, split='validation', model=MeanModel())
