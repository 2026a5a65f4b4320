"""The loop: exact resume, SIGKILL, several processes, folds, stopping, and mistakes named."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmer_jax import main, train
from mmer_jax.files import read_json, read_jsonl
from mmer_jax.run import measuring
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.loop import Loop
from mmer_jax.run.program import folds_of, load_fold, open_source
from mmer_jax.train import train_and_evaluate
from tests.conftest import REPOSITORY, write_dataset
from tests.small_run import MeanModel, small_config, stopped_at

ENVIRONMENT = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONWARNINGS': 'default'}


def run(directory, workdir, **changes):
    return train_and_evaluate(small_config(directory, **changes), workdir, model=MeanModel())


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Clips enough for two padded shapes, so that batches are not in record order; their last batch is not full."""
    return write_dataset(tmp_path_factory.mktemp('data') / 'tiny', records=106)


@pytest.fixture(scope='module')
def fold_data(tiny):
    """What every run here reads."""
    config = small_config(tiny)
    source = open_source(config)
    return load_fold(config, source, folds_of(config, source)[0])


@pytest.fixture(scope='module')
def whole(tiny, tmp_path_factory):
    """An undisturbed run of twelve epochs."""
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    run(tiny, workdir, epochs=12)
    return workdir


def checkpoint_of(workdir):
    """All arrays of the checkpoint, as stored."""
    import orbax.checkpoint as ocp

    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        step = checkpoints.latest()
    found = {}
    for item in ('state', 'best'):
        tree = ocp.StandardCheckpointer().restore(workdir / 'checkpoints' / str(step) / item)
        found[item] = {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}
    return step, found


def numbers_of(workdir):
    """results.json without where it comes from, which two equal runs do not share."""
    results = read_json(workdir / 'results.json')
    assert results.pop('provenance')['command']
    return results


def assert_same_run(found, expected, *, exact=True):
    assert (found / 'results.json').is_file()
    if exact:
        assert (found / 'metrics.jsonl').read_bytes() == (expected / 'metrics.jsonl').read_bytes()
        assert numbers_of(found) == numbers_of(expected)
    for split in ('validation', 'test'):
        with (
            np.load(found / 'predictions' / f'{split}.npz') as a,
            np.load(expected / 'predictions' / f'{split}.npz') as b,
        ):
            assert a['id'].tolist() == b['id'].tolist()
            np.testing.assert_allclose(a['prediction'], b['prediction'], atol=0 if exact else 1e-5)
    if exact:
        (step, a), (other_step, b) = checkpoint_of(found), checkpoint_of(expected)
        assert step == other_step
        for item in a:
            assert a[item].keys() == b[item].keys()
            for key in a[item]:
                np.testing.assert_array_equal(a[item][key], b[item][key], err_msg=key)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ('--num_processes=2', '--num_processes=2 without --coordinator and --process_id: processes are joined by all'),
        ('--process_id=0', '--process_id=0 without --coordinator and --num_processes'),
        ('--coordinator=a:1', '--coordinator=a:1 without --num_processes and --process_id'),
        ('--coordinator=a:1 --num_processes=2', '--coordinator=a:1, --num_processes=2 without --process_id'),
        ('--coordinator=a:1 --num_processes=2 --process_id=2', '--process_id=2: expected 0 to 1'),
        ('--coordinator=a --num_processes=2 --process_id=1', '--coordinator=a: expected HOST:PORT'),
        ('--coordinator=a:1 --num_processes=2 --process_id=1 --distributed', 'give one of them'),
    ],
)
def test_processes_are_joined_or_the_flags_are_refused(tmp_path, capsys, flags, message):
    config = f'--config={REPOSITORY / "configs" / "quickstart.py"}:smoke'
    assert main.main([config, f'--workdir={tmp_path / "run"}', *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_what_a_run_leaves(whole):
    assert {p.name for p in whole.iterdir()} == {
        'config.json', 'metrics.jsonl', 'timing.jsonl', 'statistics.npz', 'checkpoints', 'predictions', 'results.json',
    }  # fmt: skip
    results = read_json(whole / 'results.json')
    assert [row['seed'] for row in results['rows']] == [0, 1]
    assert results['parameters'] == (3 + 4) * 3 + 3
    row = results['rows'][0]
    assert row['counts'] == {'train': 58, 'validation': 24, 'test': 24}
    assert row['floor']['accuracy'] >= 1 / 3
    rows = read_jsonl(whole / 'metrics.jsonl')
    assert {r['split'] for r in rows} == {'train', 'train_epoch', 'validation'}
    assert sum(r['split'] == 'validation' for r in rows) == 12 * 2
    with np.load(whole / 'predictions' / 'test.npz') as file:
        assert file['prediction'].shape == (2, 24, 3)
        assert file['label'].shape == file['id'].shape == (24,)


def test_predictions_stand_beside_their_own_record(fold_data, whole):
    """Of batches that are planned by length: each record alone, through the chosen variables, gives its row."""
    source = fold_data.source
    for split in ('validation', 'test'):
        load, numbers = fold_data.loaders[split], getattr(fold_data.fold, split)
        planned = np.concatenate([records for _, records in load.plan.epoch(0)])
        assert len(load.plan.shapes) == 2
        assert planned.tolist() != numbers.tolist()
        best = checkpoint_of(whole)[1]['best']
        kernel, bias = best["['params']['Dense_0']['kernel']"], best["['params']['Dense_0']['bias']"]
        with np.load(whole / 'predictions' / f'{split}.npz') as file:
            assert file['id'].tolist() == source.manifest['id'][numbers].tolist()
            for row, number in enumerate(numbers):
                record = source.read(int(number))
                x = np.concatenate([record['text'].mean(0), record['audio'].mean(0)])
                np.testing.assert_allclose(file['prediction'][:, row], x @ kernel + bias, atol=1e-5)
                assert file['label'][row] == record['label']


def test_the_loss_of_an_epoch_is_the_mean_over_its_records(fold_data, whole):
    """A batch that is not full counts by what it holds."""
    plan = fold_data.loaders['train'].plan
    sizes = np.array([len(records) for epoch in range(12) for _, records in plan.epoch(epoch)]).reshape(12, -1)
    assert (sizes.sum(1) == 58).all()
    assert (sizes.min(1) == 4).all()
    rows = read_jsonl(whole / 'metrics.jsonl')
    for seed in (0, 1):
        mine = [row for row in rows if row['seed'] == seed]
        steps = np.array([row['loss'] for row in mine if row['split'] == 'train']).reshape(sizes.shape)
        epochs = [row['loss'] for row in mine if row['split'] == 'train_epoch']
        np.testing.assert_allclose(epochs, (steps * sizes).sum(1) / 58, rtol=1e-6)


def test_results_are_the_metrics_of_the_saved_predictions(whole):
    from mmer_jax.metrics import classification

    with np.load(whole / 'predictions' / 'test.npz') as file:
        for seed, row in enumerate(read_json(whole / 'results.json')['rows']):
            expected = classification(file['prediction'][seed], file['label'], names=('calm', 'happy', 'sad'))
            assert {key: row['test'][key] for key in expected} == pytest.approx(expected)


def test_evaluating_the_checkpoint_gives_the_results_again(tiny, tmp_path, capsys):
    from mmer_jax import evaluate

    config = small_config(tiny, epochs=2, data__normalize=('audio',), protocol__name='leave_sessions_out')
    config.model = ConfigDict({'name': 'unimodal', 'encoder': {'name': 'vector_encoder', 'sizes': (3,)}})
    config.modalities = ('audio',)
    config.evaluate_train = True
    config.data.augment = (('time_mask', {'modality': 'audio', 'steps': 4}),)  # of training, never of measuring
    results = train_and_evaluate(config, tmp_path, folds=[2])
    with np.load(tmp_path / 'fold_2' / 'predictions' / 'train.npz') as file:  # each record once, not once an epoch
        assert len(set(file['id'].tolist())) == len(file['id']) == results['rows'][0]['counts']['train']
    for split in ('train', 'validation', 'test'):
        found = evaluate.evaluate_checkpoint(tmp_path / 'fold_2', split=split, directory=tiny)
        for row, expected in zip(found, results['rows'], strict=True):
            assert (row.pop('fold'), row.pop('seed')) == ('fold_2', expected['seed'])
            assert row == pytest.approx(expected[split], abs=1e-6)
    assert evaluate.main([str(tmp_path), '--fold', '0']) == 1
    assert 'holds no trained fold' in capsys.readouterr().err


def test_the_best_epoch_is_the_best_on_validation(whole):
    rows = [r for r in read_jsonl(whole / 'metrics.jsonl') if r['split'] == 'validation']
    for result in read_json(whole / 'results.json')['rows']:
        values = [r['accuracy'] for r in rows if r['seed'] == result['seed']]
        assert result['best_epoch'] == int(np.argmax(values)) + 1
        assert result['validation']['accuracy'] == max(values)


def test_the_training_split_is_measured_as_it_is_with_the_chosen_variables(tiny, tmp_path):
    """Also where a run was begun without asking for it; what was measured before does not change."""
    plain = run(tiny, tmp_path / 'plain', epochs=2)
    masked = (('time_mask', {'modality': 'audio', 'steps': 4}),)
    config = {'epochs': 2, 'evaluate_train': True}
    first = run(tiny, tmp_path / 'train', **config)
    assert all('train' not in row for row in plain['rows'])
    for row, expected in zip(first['rows'], plain['rows'], strict=True):
        assert {key: row[key] for key in expected} == expected
        assert set(row['train']) == set(row['test'])
    (tmp_path / 'plain' / 'results.json').unlink()
    assert run(tiny, tmp_path / 'plain', **config)['rows'] == first['rows']
    augmented = run(tiny, tmp_path / 'augmented', **config, data__augment=masked, optimizer__learning_rate=1e-50)
    still = run(tiny, tmp_path / 'still', **config, optimizer__learning_rate=1e-50)
    assert augmented['rows'] == still['rows']  # variables that do not move: only augmented pictures could differ


@pytest.mark.parametrize(('stop_at', 'every'), [(23, 0), (34, 7), (3, 0)])
def test_an_interrupted_run_resumes_bit_for_bit(tiny, tmp_path, whole, stop_at, every):
    """Also in the middle of an epoch, and before the first checkpoint."""
    with stopped_at(stop_at):
        run(tiny, tmp_path / 'run', epochs=12, checkpoint_every=every)
    run(tiny, tmp_path / 'run', epochs=12, checkpoint_every=every, data__threads=1)
    assert_same_run(tmp_path / 'run', whole)


def start(directory, workdir, *changes):
    command = [sys.executable, '-m', 'tests.small_run', str(directory), str(workdir), *changes]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def lines(path):
    return path.read_bytes().count(b'\n') if path.is_file() else 0


def test_a_run_killed_twice_ends_as_if_undisturbed(tiny, tmp_path):
    """SIGKILL at random moments; metrics.jsonl, predictions, results and checkpoint equal those of a whole run."""
    reference, killed, epochs = tmp_path / 'whole', tmp_path / 'killed', 16
    run(tiny, reference, epochs=epochs)
    total, generator = lines(reference / 'metrics.jsonl'), random.Random(7)
    targets = sorted(generator.uniform(0.05, 0.8) for _ in range(2))
    for target in targets:
        process = start(tiny, killed, f'epochs={epochs}')
        while lines(killed / 'metrics.jsonl') < target * total and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.05))
        assert process.poll() is None, process.communicate()[0]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (killed / 'results.json').exists()
    wait(start(tiny, killed, f'epochs={epochs}'))
    assert_same_run(killed, reference)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_two_processes_equal_one_and_take_over_its_run(tiny, tmp_path):
    """Two processes with one device each, against one process with two; then they resume what one began."""
    whole, epochs = tmp_path / 'whole', 4

    def two(workdir):
        port = free_port()
        options = [f'epochs={epochs}', 'devices=1', f'coordinator=127.0.0.1:{port}']
        processes = [start(tiny, workdir, *options, f'process={p}') for p in (0, 1)]
        for process in processes:
            wait(process)

    run(tiny, whole, epochs=epochs)
    two(tmp_path / 'two')
    assert_same_run(tmp_path / 'two', whole, exact=False)
    losses = [[r['loss'] for r in read_jsonl(w / 'metrics.jsonl')] for w in (whole, tmp_path / 'two')]
    np.testing.assert_allclose(*losses, atol=1e-5)
    with stopped_at(25):
        run(tiny, tmp_path / 'begun', epochs=epochs)
    two(tmp_path / 'begun')
    assert_same_run(tmp_path / 'begun', whole, exact=False)


@pytest.fixture(scope='module')
def alone(tiny, tmp_path_factory):
    """The rows of seeds 0 and 4, each run by itself."""
    folder = tmp_path_factory.mktemp('alone')
    rows = (run(tiny, folder / str(seed), seeds=1, seed=seed, optimizer__name='sgd')['rows'] for seed in (0, 4))
    return {row['seed']: row for (row,) in rows}


@pytest.mark.parametrize('seeds_by', ['vmap', 'turns'])
def test_five_seeds_in_one_run_equal_five_runs(tiny, tmp_path, alone, seeds_by):
    together = run(tiny, tmp_path / 'together', seeds=5, seeds_by=seeds_by, optimizer__name='sgd')['rows']
    assert list(alone) == [0, 4]
    for seed, row in alone.items():
        assert together[seed]['best_epoch'] == row['best_epoch']
        assert together[seed]['test'] == pytest.approx(row['test'], abs=1e-5)


def test_cross_validation_writes_folds_and_skips_finished_ones(tiny, tmp_path):
    changes = {'protocol__name': 'leave_sessions_out', 'epochs': 2, 'data__normalize': ('audio',)}
    part = train_and_evaluate(small_config(tiny, **changes), tmp_path, MeanModel(), folds=[1])
    assert [row['fold'] for row in part['rows']] == ['fold_1', 'fold_1']
    assert not (tmp_path / 'results.json').exists()
    before = (tmp_path / 'fold_1' / 'results.json').stat().st_mtime_ns
    results = run(tiny, tmp_path, **changes)
    assert (tmp_path / 'fold_1' / 'results.json').stat().st_mtime_ns == before
    assert [(row['fold'], row['seed']) for row in results['rows']] == [
        (f'fold_{k}', s) for k in range(4) for s in (0, 1)
    ]
    assert read_json(tmp_path / 'results.json') == results
    assert sum(row['counts']['test'] for row in results['rows'][::2]) == 106
    with np.load(tmp_path / 'fold_0' / 'statistics.npz') as file:
        assert sorted(file) == ['audio_deviation', 'audio_mean']


def test_augmentation_and_cutting_come_from_the_config(tiny, tmp_path):
    def start(name, *, steps, augment=()):
        config = small_config(tiny, epochs=2)
        config.data.max_length = ConfigDict({'audio': steps})
        config.data.augment = augment
        return train_and_evaluate(config, tmp_path / name, MeanModel(dropout=0.0))

    noise = (('gaussian_noise', {'modality': 'audio', 'scale': 2.0}), ('time_mask', {'modality': 'text', 'steps': 2}))
    plain, cut, noisy = start('plain', steps=9), start('cut', steps=2), start('noisy', steps=9, augment=noise)
    losses = [run['rows'][0]['validation']['loss'] for run in (plain, cut, noisy)]
    assert len(set(losses)) == 3
    assert start('noisy', steps=9, augment=noise) == noisy  # the saved config is the same config
    with pytest.raises(ValueError, match='begun with another config: data.augment'):
        start('noisy', steps=9)


def test_early_stopping_ends_each_seed_and_then_the_run(tiny, tmp_path):
    results = run(tiny, tmp_path, epochs=50, selection__patience=4, selection__plateau_patience=1)
    rows = read_jsonl(tmp_path / 'metrics.jsonl')
    for row in results['rows']:
        mine = [r for r in rows if r['split'] == 'validation' and r['seed'] == row['seed']]
        assert row['epochs'] == row['best_epoch'] + 4 == len(mine) < 50
    rates = {r['learning_rate'] for r in rows if r['split'] == 'train'}
    assert any(rate == pytest.approx(1e-3) for rate in rates)  # decayed once from 1e-2


def test_a_seed_that_has_stopped_may_diverge(tiny, tmp_path, monkeypatch):
    """It is neither measured nor checked any more, and its chosen variables are those of its best epoch."""
    measure, update = measuring.measure, train.Selection.update

    def stop_first(self, epoch, values):
        improved = update(self, epoch, values)
        self.running[0] = False
        return improved

    def measured_only_while_running(predictions, label, n):
        calls.append(int(n))
        return measure(predictions, label, n)

    calls: list[int] = []
    account = Loop._account

    def diverge(self, step, numbers):
        if not self.selection.running[0]:
            numbers = [{**numbers[0], 'loss': np.float32(np.nan)}, *numbers[1:]]
        account(self, step, numbers)

    monkeypatch.setattr(train.Selection, 'update', stop_first)
    monkeypatch.setattr(measuring, 'measure', measured_only_while_running)
    monkeypatch.setattr(Loop, '_account', diverge)
    results = run(tiny, tmp_path, seeds_by='turns')
    assert [(row['seed'], row['epochs']) for row in results['rows']] == [(0, 1), (1, 4)]
    assert calls[:5] == [0, 1, 1, 1, 1]


def test_a_non_finite_loss_stops_with_step_value_and_ids(tiny, tmp_path):
    with pytest.raises(
        FloatingPointError, match=r'step \d+: the loss is not finite .*(nan|inf).*clip_\d+.*learning rate'
    ):
        run(tiny, tmp_path, optimizer__name='sgd', optimizer__learning_rate=1e38)
    assert not (tmp_path / 'results.json').exists()


def test_one_bad_clip_is_named_alone(tiny, tmp_path, monkeypatch):
    from mmer_jax.data import augment

    def poison(record, generator):
        return {**record, 'audio': record['audio'] * np.float32(np.inf)} if record['id'] == 'clip_003' else record

    monkeypatch.setattr(augment, 'make_augmentations', lambda entries: (poison,))
    with pytest.raises(FloatingPointError, match=r"from records \['clip_003'\]"):
        run(tiny, tmp_path)


def test_ten_seeds_of_a_recurrent_model_start():
    """Batched QR decompositions (orthogonal initialisers under vmap) never return with jaxlib 0.10.2 on two cores."""
    code = (
        'import numpy as np; from tests.test_models import ALL, make_batch; from mmer_jax.models import LfLstm; '
        'from mmer_jax.run.initialise import fresh, trace; import jax; model = LfLstm(ALL, 3, hidden_size=32); '
        'init = lambda seed: model.init(jax.random.key(seed), make_batch(ALL), train=False); '
        'print(*{len(x) for x in jax.tree.leaves(fresh(trace(init, np.int32(0)), np.arange(10)))})'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ['10'], done.stderr


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'seeds_by': 'loop'}, "config.seeds_by: found 'loop', expected one of auto, vmap, turns"),
        ({'data__batch_size': 5}, 'batch size 5 does not divide by 2 devices'),
        ({'modalities': ('text', 'speech')}, r"modalities: found \('text', 'speech'\), expected one to three of text"),
        ({'selection__metric': 'acuracy'}, "selection.metric 'acuracy' is not measured; choose from loss, accuracy"),
        ({'headline': ('accuracy', 'mae')}, "headline 'mae' is not measured"),
        ({'protocol__name': 'random'}, "'random'"),
        ({'losses': {}}, 'name one or more of cross_entropy'),
        ({'compute_dtype': 'float16'}, "found 'float16', expected one of float32, bfloat16"),
        ({'data__directory': ''}, 'config.data.directory is empty'),
        ({'data__directory': '/nowhere/at/all'}, r'/nowhere/at/all is missing; write it with one of the data_prep'),
        ({'mesh__data': 3}, 'needs 3 devices, this run has 2'),
    ],
)
def test_mistakes_are_named(tiny, tmp_path, changes, message):
    config = small_config(tiny)
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace('__', '.'): value}) if value != {} else setattr(
            config, key, ConfigDict()
        )
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(config, tmp_path / 'run', model=None if 'compute_dtype' in changes else MeanModel())


def test_another_config_in_the_same_workdir_is_refused_by_key(tiny, tmp_path):
    run(tiny, tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r'begun with another config: optimizer.learning_rate: 0.01 -> 0.1'):
        run(tiny, tmp_path, epochs=1, optimizer__learning_rate=0.1)
    run(tiny, tmp_path, epochs=1, data__threads=2)  # changes no number


def test_a_changed_model_is_refused(tiny, tmp_path):
    run(tiny, tmp_path, epochs=1)
    (tmp_path / 'results.json').unlink()
    with pytest.raises(ValueError, match=r"field modalities: \['text', 'audio'\], now \['text'\]"):
        train_and_evaluate(small_config(tiny, epochs=1), tmp_path, model=MeanModel(modalities=('text',)))
    entry = read_json(tmp_path / 'config.json')
    assert entry.pop('own_module')['class'] == 'MeanModel'
    (tmp_path / 'config.json').write_text(json.dumps(entry))  # as an older version left it, of a model of its config
    with pytest.raises(ValueError, match=r'begun with the model of its config .* now it is MeanModel'):
        run(tiny, tmp_path, epochs=1)


def test_a_fold_that_does_not_exist(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"folds \[3\]: protocol 'official_split' has folds 0..0"):
        train_and_evaluate(small_config(tiny), tmp_path, MeanModel(), folds=[3])


def test_results_say_what_ran(whole):
    results = read_json(whole / 'results.json')
    assert results['protocol'] == 'official_split'
    assert results['modalities'] == ['text', 'audio']
    assert json.loads((whole / 'config.json').read_text())['epochs'] == 12
