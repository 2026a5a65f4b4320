"""Only what the toolkit wrote is replaced: --overwrite and --output on other people's folders, files and links."""

import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from data_prep import look, synthetic
from mmer_jax.data.records import RecordError, RecordSource, RecordWriter
from mmer_jax.files import atomic, locks, outputs
from mmer_jax.results import plots
from tests.conftest import write_dataset


def tree(folder):
    """{name: content} of everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture
def shards(tmp_path):
    write_dataset(tmp_path / 'data')
    return tmp_path / 'data'


def overwrite(directory, sources=()):
    schema = synthetic.SCHEMA
    with RecordWriter(directory, schema, overwrite=True, sources=sources):
        pass  # ends in 'no record was written' where the place is free


def note(folder):
    (folder / 'notes.txt').write_text('precious')


FOREIGN = {
    'notes': (lambda f: [path.unlink() for path in f.iterdir()] and note(f), 'no features.json in it.: it holds notes'),
    'notes beside': (note, 'a shard directory that also holds notes.txt'),
    'a folder beside': (lambda f: (f / 'videos').mkdir(), 'also holds videos'),
    'a hidden file': (lambda f: (f / '.notes').touch(), 'also holds .notes'),
    'a shard of another set': (
        lambda f: (f / 'data-00000-of-00009.tfrecord').touch(),
        'also holds data-00000-of-00009',
    ),
    'a linked shard': (
        lambda f: (f / 'manifest.csv').rename(f.parent / 'm') and (f / 'manifest.csv').symlink_to(f.parent / 'm'),
        'also holds manifest.csv',
    ),
    'other features': (lambda f: (f / 'features.json').write_text('{"a": 1}'), 'its features.json says something else'),
    'no JSON': (lambda f: (f / 'features.json').write_text('x'), 'its features.json says something else'),
    'paths in it': (
        lambda f: (f / 'features.json').write_text(
            (f / 'features.json').read_text().replace('data-00000-of-00003.tfrecord', '../notes.txt')
        ),
        'its features.json says something else',
    ),
}


@pytest.mark.parametrize('case', FOREIGN)
def test_what_is_no_shard_directory_alone_is_kept(shards, case):
    change, message = FOREIGN[case]
    change(shards)
    before = tree(shards.parent)
    with pytest.raises(FileExistsError, match=f'^{re.escape(str(shards))} .*{message}.*: it is not replaced; choose'):
        overwrite(shards)
    assert tree(shards.parent) == before
    assert os.listdir(shards.parent).count('data') == 1


def test_places_that_are_never_replaced(shards, tmp_path, monkeypatch):
    before = tree(shards)
    (tmp_path / 'link').symlink_to(shards)
    (tmp_path / 'file').write_text('mine')
    for name, message in {
        'link': f'is a symbolic link to {shards}',
        'file': 'is a file',
        '/dev/null': 'is neither a folder nor a file',
        '/dev': 'is the root of a mounted|holds',
    }.items():
        with pytest.raises(FileExistsError, match=message):
            overwrite(tmp_path / name)
    monkeypatch.setattr(outputs.os.path, 'ismount', lambda path: True)
    with pytest.raises(FileExistsError, match='is the root of a mounted file system'):
        overwrite(shards)
    monkeypatch.undo()
    monkeypatch.chdir(shards)
    with pytest.raises(FileExistsError, match='is or holds the current folder'):
        overwrite(shards)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(shards))
    with pytest.raises(FileExistsError, match='is or holds a home'):
        overwrite(shards)
    assert tree(shards) == before
    assert (tmp_path / 'file').read_text() == 'mine'


def test_a_source_is_never_replaced(shards, tmp_path):
    before = tree(tmp_path)
    for source, message in {
        shards: 'is or holds the source',
        shards / 'manifest.csv': 'is or holds the source',
        tmp_path: 'lies in the source',
    }.items():
        with pytest.raises(FileExistsError, match=message):
            overwrite(shards, [source])
    assert tree(tmp_path) == before
    for free in (shards, tmp_path / 'other'):
        with pytest.raises(RecordError, match='no record was written'):
            overwrite(free, [tmp_path / 'elsewhere'])
    assert tree(tmp_path) == before


def test_an_empty_folder_and_a_damaged_data_set_are_replaced(shards, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileExistsError, match='pass --overwrite'):
        RecordWriter(tmp_path / 'empty', synthetic.SCHEMA)
    (shards / 'manifest.csv').unlink()
    (shards / 'data-00001-of-00003.tfrecord').unlink()
    for folder in (tmp_path / 'empty', shards):
        assert synthetic.main(['--like', 'ravdess_mfcc', '--output', str(folder), '--overwrite']) == 0
        assert len(RecordSource(folder)) == 160
    assert sorted(os.listdir(tmp_path)) == ['data', 'empty']


def test_what_appears_while_records_are_written_is_kept(shards):
    """The folder is looked at again before it is replaced, and the old one is removed file by file."""
    schema, record = RecordSource(shards).schema, RecordSource(shards)[0]
    with pytest.raises(FileExistsError, match='also holds notes.txt'):  # noqa: SIM117
        with RecordWriter(shards, schema, overwrite=True) as writer:
            writer.write(record)
            note(shards)
    assert (shards / 'notes.txt').read_text() == 'precious'
    (shards / 'notes.txt').unlink()
    note(shards)
    outputs.remove_shards(shards)
    assert os.listdir(shards) == ['notes.txt']


def test_a_data_set_that_a_killed_run_had_set_aside_comes_back(shards, tmp_path):
    """Killed between the two renames at the end: the old records are the only ones."""
    before = tree(shards)
    for name in ('.data.replaced', '.data.incomplete-host-123-replaced'):  # the second as version 0.2 called it
        shards.rename(tmp_path / name)
        with pytest.raises(FileExistsError), RecordWriter(tmp_path / 'data', synthetic.SCHEMA):
            pass
        assert tree(shards) == before
        assert os.listdir(tmp_path) == ['data']


def test_the_lock_of_a_writer_that_was_killed_at_its_end_goes_with_the_refusal(shards):
    lock = atomic.lock_of(shards)
    with locks.hold(lock, shards):
        with pytest.raises(FileExistsError, match='pass --overwrite'):
            outputs.check_shards(shards, overwrite=False)
        assert lock.exists()
    lock.write_text('{"process": 1}')
    with pytest.raises(FileExistsError, match='pass --overwrite'):
        outputs.check_shards(shards, overwrite=False)
    assert not lock.exists()


def test_one_line_for_a_user(tmp_path, capsys):
    note(tmp_path)
    assert synthetic.main(['--output', str(tmp_path), '--overwrite']) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f'error: {tmp_path} is no shard directory (no features.json in it)')
    assert captured.err.count('\n') == 1
    assert (tmp_path / 'notes.txt').read_text() == 'precious'


@pytest.mark.parametrize('name', ['grid.png', 'grid.jpg'])
def test_pictures_are_replaced_only_where_they_are_ours(shards, tmp_path, capsys, name):
    path = tmp_path / name
    command = [str(shards), '--output', str(path), '--records', '2']
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    before = path.read_bytes()
    assert look.main(command) == 1
    assert f'error: {path} exists and was not made by this command: it is not replaced' in capsys.readouterr().err
    assert path.read_bytes() == before
    path.unlink()
    assert look.main(command) == 0
    assert look.main(command) == 0
    plots.confusion(np.eye(2), ['a', 'b'], tmp_path / 'plot.png', 'title')
    outputs.check_file(tmp_path / 'plot.png', outputs.PICTURE)


def test_folders_of_results_keep_the_files_of_others(tmp_path):
    outputs.check_folder(tmp_path / 'new', outputs.REPORT_FILES)
    with open(tmp_path / 'results.csv', 'w', newline='') as file:
        csv.writer(file).writerow(['run', 'workdir', 'protocol', 'mean'])
    outputs.check_folder(tmp_path, outputs.REPORT_FILES)
    (tmp_path / 'report.md').write_text('# Results\n\nmine\n')
    with pytest.raises(FileExistsError, match=r'report\.md exists and was not made by this command'):
        outputs.check_folder(tmp_path, outputs.REPORT_FILES)
    with pytest.raises(FileExistsError, match='is no folder'):
        outputs.check_folder(tmp_path / 'report.md', outputs.REPORT_FILES)
    (tmp_path / 'comparison_uar.png').mkdir()
    with pytest.raises(FileExistsError, match='comparison_uar.png is a folder'):
        outputs.check_folder(tmp_path, {'comparison_*.png': outputs.PICTURE})


def test_a_test_without_modalities_writes_over_no_run(tmp_path):
    outputs.check_ablation(tmp_path)
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(FileExistsError, match='an unfinished run'):
        outputs.check_ablation(tmp_path)
    (tmp_path / 'results.json').write_text(json.dumps({'variant': 'smoke'}))
    with pytest.raises(FileExistsError, match=r'results\.json exists and was not made'):
        outputs.check_ablation(tmp_path)
    (tmp_path / 'results.json').write_text(json.dumps({'variant': 'smoke_without_text'}))
    outputs.check_ablation(tmp_path)
