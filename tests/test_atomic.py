"""One writer for whole-or-nothing: killed between any two steps, old or new is there; the next run leaves no litter."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mmer_jax.data.records import RecordSource, RecordWriter
from mmer_jax.files import atomic, locks, read_arrays, read_json, save_arrays, write_json
from mmer_jax.files.locks import InUse, hold
from tests.conftest import REPOSITORY, write_dataset

# One process that forks a writer per step and kills it there; in each, one more step of the file system is done.
KILLS = """
import os, pathlib, shutil, signal, sys
sys.path.insert(0, sys.argv[2])
from mmer_jax.data.records import RecordSource, RecordWriter
from mmer_jax.files import atomic

def overwrite(directory):
    with RecordWriter(directory, source.schema, overwrite=True, num_shards=1) as writer:
        writer.write(record)

def killed_at(directory, place, how):
    steps = iter(range(1000))
    def count(function):
        def wrapped(*arguments, **more):
            if next(steps) == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)
        return wrapped
    os.rename, os.fsync, os.replace = count(os.rename), count(os.fsync), count(os.replace)
    pathlib.Path.unlink, pathlib.Path.rmdir = count(pathlib.Path.unlink), count(pathlib.Path.rmdir)
    atomic._exchange = count(atomic._exchange) if how == 'exchange' else lambda first, second: False
    overwrite(directory)

def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

begin = pathlib.Path(sys.argv[1])
source = RecordSource(begin)
record, old = {**source[0], 'label': int(source[0]['label'])}, tree(begin)
for how in ('exchange', 'renames'):
    kills = gaps = kept = 0
    for place in range(1000):
        parent = begin.parent / f'{how}{place}'
        shutil.copytree(begin, parent / 'data')
        child = os.fork()
        if not child:
            killed_at(parent / 'data', place, how)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        kills += 1
        gaps += not (parent / 'data').exists()
        try:
            RecordWriter(parent / 'data', source.schema)  # may not overwrite: puts in order and stops
        except FileExistsError:
            pass
        found = tree(parent / 'data')
        kept += found == old
        assert found == old or len(RecordSource(parent / 'data')) == 1, place
        overwrite(parent / 'data')
        assert os.listdir(parent) == ['data'], os.listdir(parent)
        assert len(RecordSource(parent / 'data')) == 1
    print(how, kills, gaps, kept)
"""


def test_overwriting_killed_at_any_step_loses_nothing(tmp_path):
    write_dataset(tmp_path / 'data', records=6)
    source = RecordSource(tmp_path / 'data')
    with RecordWriter(tmp_path / 'data', source.schema, overwrite=True, num_shards=1) as writer:
        for number in range(2):
            writer.write({**source[number], 'label': 0})
    command = [sys.executable, '-c', KILLS, tmp_path / 'data', REPOSITORY]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (_, *exchanged), (_, *renamed) = (line.split() for line in done.stdout.splitlines())
    kills, gaps, kept = map(int, exchanged)
    assert kills > 10
    assert gaps == 0  # a whole data set under the name at every moment
    assert 3 < kept < kills
    kills, gaps, kept = map(int, renamed)
    assert kills > 10
    assert gaps == 1
    assert 3 < kept < kills


def test_a_second_writer_of_the_same_data_is_refused(tmp_path):
    directory = write_dataset(tmp_path / 'data', records=6)
    schema, record = RecordSource(directory).schema, RecordSource(directory)[0]
    with RecordWriter(directory, schema, overwrite=True) as writer:
        writer.write({**record, 'label': 0})
        with pytest.raises(InUse, match=f'data is in use by process {os.getpid()} on '):
            RecordWriter(directory, schema, overwrite=True)
        writer.write({**record, 'id': 'second', 'label': 0})
    assert len(RecordSource(directory)) == 2
    assert os.listdir(tmp_path) == ['data']


def test_a_failed_rename_puts_the_old_data_back(tmp_path, monkeypatch):
    directory = write_dataset(tmp_path / 'data', records=6)
    source, rename = RecordSource(directory), os.rename

    def failing(old, new):
        if 'incomplete' in str(old):
            raise OSError(28, 'No space left on device')
        return rename(old, new)

    monkeypatch.setattr(atomic, '_exchange', lambda first, second: False)
    monkeypatch.setattr(atomic.os, 'rename', failing)
    with pytest.raises(OSError, match='No space left'):  # noqa: SIM117
        with RecordWriter(directory, source.schema, overwrite=True) as writer:
            writer.write({**source[0], 'label': 0})
    assert len(RecordSource(directory)) == 6
    assert os.listdir(tmp_path) == ['data']


def test_files_are_old_or_new_and_leave_nothing(tmp_path):
    path = tmp_path / 'results.json'
    write_json(path, {'a': 1})
    with pytest.raises(ZeroDivisionError), atomic.writing(path) as file:
        file.write(b'{"a": ')
        raise ZeroDivisionError
    assert read_json(path) == {'a': 1}
    save_arrays(tmp_path / 'x.npz', a=np.arange(3))
    assert read_arrays(tmp_path / 'x.npz', ['a'])['a'].tolist() == [0, 1, 2]
    assert sorted(os.listdir(tmp_path)) == ['results.json', 'x.npz']


def test_the_next_writer_clears_what_killed_ones_left_and_spares_who_is_at_work(tmp_path):
    path = tmp_path / 'results.json'
    for name in ('.results.json.1234.tmp', '.results.json.ab12.tmp', '.results.77.tmp.npz'):  # two of version 0.2
        (tmp_path / name).write_bytes(b'half')
    other = ('.results.json.mine', 'notes.tmp', '.others.json.12.tmp')
    for name in other:
        (tmp_path / name).write_bytes(b'kept')
    with atomic.writing(path) as slow:
        write_json(path, 'first')  # a second writer, while the first is at work
        slow.write(b'"last"')
    assert read_json(path) == 'last'
    assert set(os.listdir(tmp_path)) == {'results.json', *other}


def test_without_locks_nothing_of_others_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'try_lock', lambda file: False)
    (tmp_path / '.x.json.12.tmp').write_bytes(b'perhaps at work')
    write_json(tmp_path / 'x.json', 1)
    assert sorted(os.listdir(tmp_path)) == ['.x.json.12.tmp', 'x.json']


def test_a_link_by_the_name_of_a_stale_folder_is_not_followed(tmp_path):
    precious = write_dataset(tmp_path / 'precious', records=6)
    (tmp_path / 'data').mkdir()
    atomic.incomplete(tmp_path / 'data').symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_dataset(tmp_path / 'data')
    (tmp_path / 'data').rmdir()
    with pytest.raises(FileExistsError):
        write_dataset(tmp_path / 'data')
    assert len(RecordSource(precious)) == 6


def test_a_reader_is_told_where_a_killed_writer_left_the_old_data(tmp_path):
    directory = write_dataset(tmp_path / 'data', records=6)
    directory.rename(atomic.replaced(directory))
    with pytest.raises(ValueError, match=r'left the old one at .*\.data\.replaced; rename it'):
        RecordSource(directory)
    with hold(atomic.lock_of(directory), directory):
        atomic.recover(directory, lambda folder: pytest.fail('removed'))
    assert len(RecordSource(directory)) == 6
