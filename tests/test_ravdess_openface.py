"""data_prep.ravdess_openface: rows meet their clips by what was performed; only 35 columns are vision; bad tables."""

import shutil

import numpy as np
import pytest

from data_prep import ravdess as prepare_sound
from data_prep import ravdess_openface
from mmer_jax.data.records import RecordSource, verify
from tests.conftest import SHARED_DATA

IDS = ['01-01-05-01-01-01-01', '01-01-03-02-02-01-02', '03-01-08-01-02-02-02']


def write_table(path, ids=IDS, size=294, **changes):
    features = np.arange(len(ids) * size, dtype=np.float32).reshape(len(ids), size)
    np.savez(path, **{'ids': np.array(ids), 'feats': features, **changes})
    return path


def run(table, output, *options):
    return ravdess_openface.main(['--table', str(table), '--output', str(output), '--num_shards', '1', *options])


def test_values_of_the_table_become_two_modalities(tmp_path, capsys):
    assert run(write_table(tmp_path / 'table.npz'), tmp_path / 'out', '--audio', 'values') == 0
    assert '3 clips' in capsys.readouterr().out
    assert verify(tmp_path / 'out') == []
    records = RecordSource(tmp_path / 'out')
    found = {record['id']: record for record in (records[number] for number in range(3))}
    assert sorted(found) == ['01-01-03-02-02-01-02', '01-01-05-01-01-01-01', '01-01-08-01-02-02-02']
    record = found['01-01-03-02-02-01-02']
    assert record['label'] == 2
    np.testing.assert_array_equal(record['vision'], 294 + np.arange(35))
    np.testing.assert_array_equal(record['audio'], 294 + 35 + np.arange(259))
    assert records.manifest['speaker'].tolist() == ['01', '02', '02']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'ids': ['happy']}, "id 'happy' is not MM-CC-EE-II-SS-RR-AA"),
        ({'ids': IDS[:1] * 2}, 'occurs twice'),
        ({'size': 35}, r'feats float32 (3, 35), expected (N,) and float32 (N, 294)'),
        ({'feats': np.full((3, 294), np.nan, np.float32)}, 'has 294 values that are not finite'),
    ],
)
def test_a_wrong_table_is_named(changes, message, tmp_path, capsys):
    table = write_table(tmp_path / 'table.npz', **changes)
    assert run(table, tmp_path / 'out', '--audio', 'values') == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('content', [None, b'', b'version https://git-lfs.github.com/spec/v1\n', b'PK\x03\x04 no zip'])
def test_a_file_that_is_no_table_is_named(content, tmp_path, capsys):
    path = tmp_path / 'table.npz'
    if content is not None:
        path.write_bytes(content)
    assert run(path, tmp_path / 'out', '--audio', 'values') == 1
    assert str(path) in capsys.readouterr().err


def test_an_object_array_is_not_unpickled(tmp_path, capsys):
    np.savez(tmp_path / 'table.npz', ids=np.array([{}], dtype=object), feats=np.zeros((1, 294), np.float32))
    assert run(tmp_path / 'table.npz', tmp_path / 'out', '--audio', 'values') == 1
    assert 'allow_pickle' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--audio', 'mfcc'), '--audio mfcc needs --source'),
        (('--audio', 'log_mel'), '--audio log_mel needs --source'),
        (('--audio', 'values', '--source', 'clips'), '--audio values takes no --source'),
        (('--audio', 'values', '--num_mels', '64'), '--num_mels is of the sound of clips'),
        (('--audio', 'functionals', '--source', 'clips', '--sample_rate', '8000'), 'functionals are of 16000 Hz'),
        (('--audio', 'none', '--source', 'clips'), "invalid choice: 'none'"),
    ],
)
def test_flags_that_do_not_fit_the_kind_of_sound_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        run(tmp_path / 'table.npz', tmp_path / 'out', *options)
    assert message in capsys.readouterr().err


def test_settings_of_sound_without_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match='whose folder is `source`'):
        ravdess_openface.prepare(tmp_path / 'table.npz', tmp_path / 'out', settings=prepare_sound.Settings())


def first_clips(ravdess, folder, count):
    """A folder with the first clips of actor 1."""
    source = folder / 'clips' / 'Actor_01'
    source.mkdir(parents=True)
    for path in sorted(next(ravdess.rglob('Audio_Speech*/Actor_01')).iterdir())[:count]:
        shutil.copy(path, source)
    return source.parent


def test_real_clips_meet_their_action_units(ravdess, tmp_path, capsys):
    table = SHARED_DATA / 'ravdess' / 'openface_au.npz'
    source = first_clips(ravdess, tmp_path, 3)
    assert run(table, tmp_path / 'out', '--source', str(source), '--workers', '0') == 0
    printed = capsys.readouterr().out
    assert '3 clips' in printed
    assert '1197  in the table, but no clip' in printed
    with np.load(table) as file:
        rows = dict(zip(file['ids'].tolist(), file['feats'], strict=True))
    records = RecordSource(tmp_path / 'out')
    for number in range(3):
        record = records[number]
        assert record['audio'].shape == (212, 13)
        np.testing.assert_array_equal(record['vision'], rows['01' + record['id'][2:]][:35])


@pytest.mark.parametrize(
    ('features', 'flags'),
    [
        ('log_mel', '--sample_rate 16000 --n_fft 1024 --hop_length 256 --num_mels 64 --offset 0.5 --duration 3.2'),
        ('waveform', '--duration 1'),
    ],
)
def test_sound_is_that_of_data_prep_ravdess_with_the_same_flags(ravdess, tmp_path, features, flags):
    flags = [*flags.split(), '--source', str(first_clips(ravdess, tmp_path, 2)), '--workers', '0']
    table = SHARED_DATA / 'ravdess' / 'openface_au.npz'
    assert run(table, tmp_path / 'both', '--audio', features, *flags) == 0
    alone = ['--features', features, '--output', str(tmp_path / 'alone'), '--num_shards', '1', *flags]
    assert prepare_sound.main(alone) == 0
    both, alone = RecordSource(tmp_path / 'both'), RecordSource(tmp_path / 'alone')
    assert both.schema.name == f'ravdess_openface_{features}'
    assert both.schema.features['audio'] == alone.schema.features['audio']
    assert both.schema.info['duration'] == alone.schema.info['duration'] != prepare_sound.Settings.duration
    for number in range(2):
        assert both[number]['id'] == alone[number]['id']
        np.testing.assert_array_equal(both[number]['audio'], alone[number]['audio'])
        assert both[number]['vision'].shape == (35,)
