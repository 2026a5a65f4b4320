"""Symbolic links in a folder of recordings: within it they are followed, out of it only where the user asks."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep import clips_table, crema_d_layout, mosi, ravdess
from data_prep.pool import PreparationError
from mmer_jax.files import links
from mmer_jax.prediction.clips import find_clips

NAME = '03-01-05-01-01-01-03.wav'


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(800, np.float32), 8000)
    return path


def test_out_of_the_folder_is_what_resolves_out_of_it(tmp_path, monkeypatch):
    inside, outside = sound(tmp_path / 'source' / 'a.wav'), sound(tmp_path / 'other' / 'a.wav')
    for name, target in {'in.wav': inside, 'out.wav': outside, 'up': tmp_path}.items():
        (tmp_path / 'source' / name).symlink_to(target)
    (tmp_path / 'alias').symlink_to(tmp_path / 'source')
    found = {path.name for path in (tmp_path / 'alias').iterdir() if links.leads_out(path, tmp_path / 'alias')}
    assert found == {'out.wav', 'up'}
    assert links.leads_out(tmp_path / 'source' / 'up' / 'other' / 'a.wav', tmp_path / 'source')
    for value, expected in (('1', False), ('0', True), ('', True)):
        monkeypatch.setenv(links.FOLLOW, value)
        assert links.leads_out(tmp_path / 'source' / 'out.wav', tmp_path / 'source') == expected


def test_ravdess_leaves_out_what_a_link_brings_in(tmp_path, monkeypatch):
    sound(tmp_path / 'raw' / 'Actor_01' / '03-01-05-01-01-01-01.wav')
    sound(tmp_path / 'other' / 'Actor_03' / NAME)
    (tmp_path / 'raw' / 'Actor_03').symlink_to(tmp_path / 'other' / 'Actor_03')
    (tmp_path / 'raw' / 'Actor_01' / '03-01-05-01-01-02-01.wav').symlink_to(tmp_path / 'other' / 'Actor_03' / NAME)
    clips, skipped = ravdess.list_clips(tmp_path / 'raw')
    assert [clip.id for clip in clips] == ['03-01-05-01-01-01-01']
    assert sorted((name, found.reason) for name, found in skipped) == [
        ('03-01-05-01-01-02-01.wav', links.OUT),
        ('Actor_03', links.OUT),
    ]
    monkeypatch.setenv(links.FOLLOW, '1')
    assert len(ravdess.list_clips(tmp_path / 'raw')[0]) == 3
    monkeypatch.delenv(links.FOLLOW)
    (tmp_path / 'links').mkdir()
    (tmp_path / 'links' / 'Actor_03').symlink_to(tmp_path / 'other' / 'Actor_03')
    with pytest.raises(PreparationError, match=rf'Actor_03 is a symbolic link out .*{links.FOLLOW}=1'):
        ravdess.list_clips(tmp_path / 'links')


def test_crema_d_and_prediction_too(tmp_path):
    outside = sound(tmp_path / 'other' / '1001_DFA_ANG_XX.wav')
    for folder in ('AudioWAV', 'VideoFlash'):
        (tmp_path / 'source' / folder).mkdir(parents=True)
        (tmp_path / 'source' / folder / f'1001_DFA_ANG_XX.{"wav" if folder[0] == "A" else "flv"}').symlink_to(outside)
    clips, skipped = crema_d_layout.list_clips(Path(tmp_path / 'source'))
    assert clips == []
    assert [found.reason for _, found in skipped] == [links.OUT] * 2
    with pytest.raises(ValueError, match=r'1001_DFA_ANG_XX.wav is a symbolic link out of the source folder'):
        find_clips([tmp_path / 'source'])


def test_own_clips_and_mosi_too(tmp_path, monkeypatch):
    outside = sound(tmp_path / 'other' / 'a.wav')
    (tmp_path / 'media' / 'Raw' / 'v').mkdir(parents=True)
    for name in ('a.wav', 'Raw/v/1.wav'):
        (tmp_path / 'media' / name).symlink_to(outside)
    (tmp_path / 'clips.csv').write_text('path,label\na.wav,1\n')
    (tmp_path / 'fet.csv').write_text('video_id,clip_id,text,label\nv,1,hm,1\n')
    for table in ('clips.csv', 'fet.csv'):
        found = clips_table.read_clips(tmp_path / table, tmp_path / 'media', label_kind='regression')
        assert [skipped.reason for _, skipped in found.skipped] == [links.OUT]
        monkeypatch.setenv(links.FOLLOW, '1')
        assert len(clips_table.read_clips(tmp_path / table, tmp_path / 'media', label_kind='regression').rows) == 1
        monkeypatch.delenv(links.FOLLOW)
    (tmp_path / 'mosi').mkdir()
    (tmp_path / 'mosi' / mosi.TRANSCRIPTS).symlink_to(outside)
    with pytest.raises(PreparationError, match=f'{mosi.TRANSCRIPTS} is a symbolic link out of the source folder'):
        mosi.prepare(tmp_path / 'mosi', tmp_path / 'out')
