"""A workdir has one writer and one model: locks, own modules, and what they say."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys

import flax.linen as nn
import pytest

from configs.base import get_base
from mmer_jax import evaluate, extract
from mmer_jax.files import locks, read_json
from mmer_jax.files.older_configs import ADDED, with_defaults
from mmer_jax.run import own_module, workdir
from mmer_jax.run.finished import open_run
from mmer_jax.run.workdir import InUse, hold
from mmer_jax.train import train_and_evaluate
from tests import small_run
from tests.small_run import MeanModel, small_config


def run(directory, folder, model=None, **changes):
    config = small_config(directory, **{'epochs': 1, 'seeds': 1, 'data__max_shapes': 1, **changes})
    return train_and_evaluate(config, folder, model=MeanModel() if model is None else model)


@pytest.fixture(scope='module')
def finished(tiny, tmp_path_factory):
    """A run of an own module, for tests that only read it."""
    folder = tmp_path_factory.mktemp('own') / 'run'
    run(tiny, folder)
    return folder


def named(body, name='MeanModel', **fields):
    """A module with the name and the fields of MeanModel, and another body."""
    module = type(name, (nn.Module,), {**fields, '__call__': nn.compact(body), '__qualname__': name})
    return module()


FIELDS = {
    '__annotations__': {'modalities': tuple[str, ...], 'num_outputs': int, 'dropout': float},
    'modalities': ('text', 'audio'),
    'num_outputs': 3,
    'dropout': 0.2,
}


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob('*'))}


def test_a_run_of_which_nothing_was_kept_is_begun_anew_with_what_was_changed(tiny, finished, tmp_path, capsys):
    """Such as one that had no memory for its first batch, or a start that is not there."""
    folder, other = tmp_path / 'run', MeanModel(dropout=0.5)
    with small_run.stopped_at(1):
        run(tiny, folder, other, protocol__name='leave_speakers_out', protocol__options={'folds': 2})
    assert (folder / 'fold_0' / 'metrics.jsonl').is_file()
    (folder / 'fold_0' / 'tracker.json').write_text('{}')
    (folder / 'notes.txt').touch()
    (folder / '.fold_1.lock').touch()  # of a killed process
    with pytest.raises(ValueError, match='another module'), hold(folder / '.fold_7.lock', tmp_path):
        run(tiny, folder)  # somebody may be about to train there
    capsys.readouterr()
    run(tiny, folder)
    assert re.search(r'begun anew: nothing was kept .*\(another module; protocol.name: ', capsys.readouterr().err)
    names = ('config.json', 'metrics.jsonl', 'predictions/test.npz')
    assert all((folder / name).read_bytes() == (finished / name).read_bytes() for name in names)
    assert {path.name for path in folder.iterdir()} == {*(path.name for path in finished.iterdir()), 'notes.txt'}


@pytest.mark.parametrize('kept', ['checkpoints/3', 'fold_0/results.json', 'fold_1/inner_0/curve.json', 'fold_2 ->'])
def test_what_was_kept_of_a_run_holds_it_to_its_config(tiny, tmp_path, kept, capsys):
    config, changed = small_config(tiny), small_config(tiny, optimizer__learning_rate=0.3)
    workdir.check_config(config, tmp_path / 'run', held=[])
    workdir.check_config(changed, tmp_path / 'run', held=[])
    assert 'was begun there (optimizer.learning_rate: 0.01 -> 0.3)' in capsys.readouterr().err
    assert read_json(tmp_path / 'run' / 'config.json')['optimizer']['learning_rate'] == 0.3
    path = tmp_path / 'run' / kept.removesuffix(' ->')
    if path != tmp_path / 'run' / kept:
        path.symlink_to(tmp_path)
    else:
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(ValueError, match='begun with another config: optimizer.learning_rate: 0.3 -> 0.01'):
        workdir.check_config(config, tmp_path / 'run', held=[])


def test_a_config_that_another_process_may_have_read_meanwhile_stays(tiny, tmp_path, monkeypatch):
    config, changed = small_config(tiny), small_config(tiny, optimizer__learning_rate=0.3)
    workdir.check_config(config, tmp_path, held=['fold_0'])
    before, write = (tmp_path / 'config.json').read_bytes(), workdir._write_config
    with contextlib.ExitStack() as stack:

        def beside(*arguments):
            write(*arguments)
            stack.enter_context(hold(tmp_path / '.fold_1.lock', tmp_path))

        monkeypatch.setattr(workdir, '_write_config', beside)
        with pytest.raises(ValueError, match='begun with another config'):
            workdir.check_config(changed, tmp_path, held=['fold_0'])
    assert (tmp_path / 'config.json').read_bytes() == before


# ---- own modules ---------------------------------------------------------------------------------------------


def test_what_ran_is_recorded(finished):
    assert read_json(finished / 'results.json')['model'] == 'MeanModel'
    entry = read_json(finished / 'config.json')['own_module']
    assert entry['class'] == 'MeanModel'
    assert entry['fields'] == {'modalities': ['text', 'audio'], 'num_outputs': 3, 'dropout': 0.2}
    assert entry['batch']['audio'] == [[1, 9, 4], 'float32']


def test_another_module_never_gets_the_results_of_the_first(tiny, finished):
    """Neither of another class, nor with other fields, nor with the same name and fields and another body."""

    class Raising(nn.Module):
        @nn.compact
        def __call__(self, batch, *, train):
            raise AssertionError('called')

    def doubled(self, batch, *, train):
        outputs = MeanModel(name='Dense_0')(batch, train=train)
        return {'prediction': 2 * outputs['prediction']}

    def broken(self, batch, *, train):
        raise ZeroDivisionError('in the edited body')

    before = files(finished)
    with pytest.raises(ValueError, match=r'begun with another module: class: MeanModel, now .*Raising'):
        run(tiny, finished, Raising())
    with pytest.raises(ValueError, match=r'field dropout: 0.2, now 0.5'):
        run(tiny, finished, MeanModel(dropout=0.5))
    with pytest.raises(ValueError, match=r'MeanModel computes something else than then, its code was edited'):
        run(tiny, finished, named(doubled, **FIELDS))
    with pytest.raises(ZeroDivisionError, match='edited body'):
        run(tiny, finished, named(broken, **FIELDS))
    with pytest.raises(ValueError, match=r'begun with an own module, MeanModel, which no config can build'):
        train_and_evaluate(small_config(tiny, epochs=1, seeds=1, data__max_shapes=1, model__name='lf_lstm'), finished)
    assert files(finished) == before
    assert run(tiny, finished) == read_json(finished / 'results.json')


def test_an_edit_in_what_a_module_calls_is_noticed(tiny, finished, monkeypatch):
    mean = small_run.masked_mean
    monkeypatch.setattr(small_run, 'masked_mean', lambda x, mask: -mean(x, mask))
    with pytest.raises(ValueError, match='its code was edited'):
        run(tiny, finished)


def test_the_fingerprint_is_of_what_is_computed(finished):
    """Names, comments and another jax say nothing; constants, initialisers and the training pass do."""
    import jax.numpy as jnp

    entry = read_json(finished / 'config.json')['own_module']
    own_module.check({**entry, 'jax': '0.0.1', 'program': '-'}, MeanModel(), 'run')  # cannot be compared
    with pytest.raises(ValueError, match='was edited'):
        own_module.check({**entry, 'program': '-'}, MeanModel(), 'run')

    def module(table=(1.0, 2.0), init=nn.initializers.zeros, only_train=0.0):
        constants = jnp.array([table])

        def body(self, batch, *, train):
            scale = self.param('scale', init, (1, 2))
            return {'prediction': batch['x'] * constants * scale + (only_train if train else 0.0)}

        return named(body)

    batch = {'x': jnp.zeros((1, 2))}
    same = own_module.fingerprint(module(), batch)
    assert own_module.fingerprint(module(), batch) == same
    for changed in (module(table=(1.0, 3.0)), module(init=nn.initializers.ones), module(only_train=1.0)):
        assert own_module.fingerprint(changed, batch) != same


def test_nested_modules_are_compared_by_their_fields():
    class Outer(nn.Module):
        inner: nn.Module
        scale: float = 1.0

    old = own_module.outline(Outer(MeanModel()))
    new = own_module.outline(Outer(MeanModel(dropout=0.1)))
    assert list(own_module._differences(old, new)) == ['field inner.dropout: 0.2, now 0.1']
    new = own_module.outline(Outer(nn.Dense(3)))
    assert list(own_module._differences(old, new)) == ['inner.: MeanModel, now Dense']
    json.dumps(own_module.outline(nn.Dense(3)))  # functions and types among its fields


def test_a_run_of_an_own_module_is_applied_with_that_module(finished, capsys):
    expected = read_json(finished / 'results.json')['rows'][0]['test']
    (row,) = evaluate.evaluate_checkpoint(finished, model=MeanModel())
    assert row['accuracy'] == expected['accuracy']
    assert open_run(finished, model=MeanModel()).model_name == 'MeanModel'
    for command in (evaluate.main, extract.main):
        assert command([str(finished)]) == 1
        assert 'begun with an own module, MeanModel' in capsys.readouterr().err
    (task,) = extract.tasks_of(finished, finished / 'features', level='pooled', model=MeanModel())
    with pytest.raises(ValueError, match="the model 'MeanModel' has no output 'features'"):
        extract.extract_fold(task)


def test_a_run_of_the_model_of_its_config_is_of_no_own_module(tiny, tmp_path):
    changes = {'epochs': 1, 'seeds': 1, 'data__max_shapes': 1}
    config = small_config(tiny, **changes, model={'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3})
    results = train_and_evaluate(config, tmp_path / 'run')
    assert results['model'] == 'lf_lstm'
    assert train_and_evaluate(config, tmp_path / 'run') == results
    with pytest.raises(ValueError, match=r'with the model of its config .* now it is MeanModel'):
        train_and_evaluate(config, tmp_path / 'run', model=MeanModel())
    (tmp_path / 'run' / 'config.json').unlink()
    with pytest.raises(ValueError, match='has results but no config.json to compare'):
        train_and_evaluate(config, tmp_path / 'run')


# ---- one writer ----------------------------------------------------------------------------------------------

HOLD = (
    'import fcntl, sys, time; file = open(sys.argv[1], "a+"); fcntl.flock(file, fcntl.LOCK_EX); '
    'file.write(sys.argv[2]); file.flush(); print("held", flush=True); time.sleep(600)'
)


@contextlib.contextmanager
def held(path, host=None):
    """Another process that holds a lock file; it is killed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = {'process': 1234, 'host': host or os.uname().nodename, 'since': 'noon', 'command': 'main --workdir=x'}
    process = subprocess.Popen([sys.executable, '-c', HOLD, path, json.dumps(holder)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b'held\n'
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_the_second_run_is_refused_and_told_who_holds_the_folder(tiny, tmp_path):
    run(tiny, tmp_path / 'run', epochs=2)
    (tmp_path / 'run' / 'results.json').unlink()
    with held(tmp_path / 'run' / '.all.lock'):
        before = files(tmp_path / 'run')
        with pytest.raises(InUse, match=r'run is in use by process 1234 on \S+ since noon \(main --workdir=x\): wait'):
            run(tiny, tmp_path / 'run', epochs=2)
        assert files(tmp_path / 'run') == before
        assert evaluate.evaluate_checkpoint(tmp_path / 'run', model=MeanModel())  # reading is no writing
        assert files(tmp_path / 'run') == before


def test_a_killed_run_holds_nothing(tiny, tmp_path, capsys):
    with held(tmp_path / 'run' / '.all.lock'):
        pass
    assert (tmp_path / 'run' / '.all.lock').is_file()
    run(tiny, tmp_path / 'run')
    assert 'run was left by process 1234 on ' in (said := capsys.readouterr().err)
    assert 'it has ended, and the run goes on' in said
    assert not (tmp_path / 'run' / '.all.lock').exists()
    with held(tmp_path / 'lock', host='elsewhere'):
        pass
    with hold(tmp_path / 'lock', tmp_path):
        assert 'on elsewhere since noon (main --workdir=x); its lock is free' in capsys.readouterr().err


def test_folds_may_be_run_side_by_side_and_none_twice(tiny, tmp_path):
    config = small_config(tiny, epochs=1, seeds=1, data__max_shapes=1, protocol__name='leave_sessions_out')
    with held(tmp_path / '.fold_1.lock'):
        train_and_evaluate(config, tmp_path, MeanModel(), folds=[0])
        with pytest.raises(InUse):
            train_and_evaluate(config, tmp_path, MeanModel(), folds=[2, 1])
        assert not (tmp_path / 'fold_2').exists()
        assert train_and_evaluate(config, tmp_path, MeanModel(), folds=[0])['rows']  # finished: read, not written
    assert not list(tmp_path.glob('.fold_0*')) + list(tmp_path.glob('.fold_2*'))


def test_a_lock_is_taken_once_and_given_back(tmp_path):
    path = tmp_path / 'lock'
    with hold(path, tmp_path):
        assert read_json(path)['process'] == os.getpid()
        with pytest.raises(InUse, match=f'in use by process {os.getpid()} on '), hold(path, tmp_path):
            pass
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), hold(path, tmp_path):
        raise ZeroDivisionError
    with hold(path, tmp_path):
        pass


@pytest.mark.parametrize('below', ['', 'runs/mine'])
def test_a_file_where_a_folder_is_to_be_is_one_line(tmp_path, below):
    (tmp_path / 'file').write_text('mine')
    folder = tmp_path / 'file' / below
    message = f'{tmp_path / "file"} is no folder; choose another place than {folder}'
    with pytest.raises(FileExistsError, match=f'^{re.escape(message)}$'), locks.hold(folder / '.lock', folder):
        pass
    assert (tmp_path / 'file').read_text() == 'mine'


def test_a_lock_that_was_removed_before_it_was_locked_is_none(tmp_path, monkeypatch):
    """Between opening the file and locking it, the one before may give it back: then it is no file of this folder."""
    lock, path = locks.try_lock, tmp_path / 'lock'
    removed = []

    def late(file):
        if not removed:
            removed.append(path.unlink())
        return lock(file)

    monkeypatch.setattr(locks, 'try_lock', late)
    with hold(path, tmp_path):
        assert path.is_file()
        with pytest.raises(InUse), hold(path, tmp_path):
            pass


@pytest.mark.parametrize('here', [True, False])
def test_where_the_file_system_knows_no_locks_the_file_decides(tmp_path, monkeypatch, here):
    def unknown(file, how):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(locks.fcntl, 'flock', unknown)
    path = tmp_path / 'lock'
    holder = {'process': os.getpid(), 'host': os.uname().nodename if here else 'elsewhere', 'since': 'noon'}
    path.write_text(json.dumps(holder))
    with pytest.raises(InUse, match=r'knows no locks: if that process has ended, remove .*lock'), hold(path, tmp_path):
        pass
    ended = subprocess.Popen(['true'])
    ended.wait()
    path.write_text(json.dumps({**holder, 'process': ended.pid}))
    with contextlib.nullcontext() if here else pytest.raises(InUse), hold(path, tmp_path):
        pass
    path.unlink(missing_ok=True)
    with hold(path, tmp_path), pytest.raises(InUse), hold(path, tmp_path):
        pass


def test_what_writes_into_a_folder_takes_its_lock(tiny, finished, tmp_path, capsys):
    with held(tmp_path / 'out' / '.evaluate.lock'), pytest.raises(InUse):
        evaluate.ablate(finished, tmp_path / 'out', ('text',), model=MeanModel())
    assert not (tmp_path / 'out' / 'results.json').exists()


def test_what_differs_between_two_configs_and_what_of_it_may():
    old = {'data': {'workers': 2, 'batch_size': 8}, 'published': {'mae': 0.9}, 'debug': False, 'modalities': ['text']}
    new = {
        'data': {'workers': 0, 'batch_size': 4},
        'published': {},
        'debug': True,
        'modalities': ('text',),
        'debugger': 1,
    }
    found = workdir.config_differences(old, new)
    assert [one.key for one in found] == ['data.batch_size', 'data.workers', 'debug', 'debugger', 'published.mae']
    assert [str(one) for one in found if not workdir.may_change(one.key)] == [
        'data.batch_size: 8 -> 4',
        'debugger: None -> 1',
    ]


def test_an_older_config_is_filled_with_what_was_done_then():
    """So it goes on, is evaluated, and differs from a new one in no key that it lacks."""
    new = get_base('any').to_dict()
    old = {key: value for key, value in new.items() if key not in ADDED}
    for dotted in ADDED:
        parent, _, key = dotted.rpartition('.')
        if parent:
            old[parent] = {name: value for name, value in old[parent].items() if name != key}
    assert old != new
    assert with_defaults(old) == new
    assert with_defaults({**new, 'mixup': 0.3})['mixup'] == 0.3
    assert with_defaults({**new, 'selection': {**new['selection'], 'folds': 4}})['selection']['folds'] == 4
    assert with_defaults({'pretrained': 'a', 'map': {}}) == {'pretrained': 'a', 'map': {}}  # trains nothing
