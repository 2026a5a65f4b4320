"""data_prep.ravdess and data_prep.pool: real folder layouts, every reason to skip, the same records by any workers."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep import pool, ravdess
from mmer_jax.data import batches
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.media import MediaError, audio

DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'ravdess'
SPEECH = 'Audio_Speech_Actors_01-24'


def clip(folder, name, seconds=1.2, rate=16000):
    """A tiny clip: a tone whose pitch depends on the name, so that no two are equal."""
    folder.mkdir(parents=True, exist_ok=True)
    pitch = 100 + sum(int(code) * 17 * (k + 1) for k, code in enumerate(Path(name).stem.split('-')))
    samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    soundfile.write(folder / name, samples, rate, format=Path(name).suffix[1:].upper())


@pytest.fixture
def source(tmp_path):
    """Two actors, 11 usable takes (one of them found three times), one song and every kind of fault."""
    speech = tmp_path / 'raw' / SPEECH
    for actor in ('01', '02'):
        for emotion in ('01', '03', '05', '08'):
            clip(speech / f'Actor_{actor}', f'03-01-{emotion}-01-01-01-{actor}.wav')
    clip(speech / 'Actor_02', '03-01-05-02-02-02-02.flac')
    clip(speech / 'Actor_02', '03-01-04-01-01-01-02.wav', seconds=0.75)  # ends before offset + duration
    first = speech / 'Actor_01'
    first.joinpath('01-01-06-01-01-01-01.wav').write_bytes((first / '03-01-05-01-01-01-01.wav').read_bytes())
    first.joinpath('01-01-05-01-01-01-01.wav').write_bytes((first / '03-01-03-01-01-01-01.wav').read_bytes())
    clip(tmp_path / 'raw' / 'copy' / 'Actor_01', '03-01-05-01-01-01-01.wav')
    clip(first, '03-02-03-01-01-01-01.wav')  # a song
    clip(first, '03-01-03-01-01-02-02.wav')  # of the other actor
    clip(first, '03-01-09-01-01-01-01.wav')  # no such emotion
    clip(first, '03-01-02-01-02-02-01.wav', seconds=0.3)  # nothing left after the offset
    clip(first, '02-01-05-01-01-01-01.wav')
    first.joinpath('03-01-07-01-01-01-01.wav').write_text('version https://git-lfs.github.com/spec/v1\nsize 9\n')
    clip(first, '03-01-07-01-01-02-01.flac')
    damaged = (first / '03-01-07-01-01-02-01.flac').read_bytes()
    (first / '03-01-07-01-01-02-01.flac').write_bytes(damaged[: len(damaged) // 2])
    (first / 'notes.txt').write_text('x')
    (first / '.DS_Store').write_text('x')
    (first / '._03-01-05-01-01-01-01.wav').write_text('x')
    return tmp_path / 'raw'


def run(source, output, *options):
    settings = ['--offset', '0.5', '--duration', '0.5', '--workers', '0', '--num_shards', '2']
    return ravdess.main(['--source', str(source), '--output', str(output), *settings, *map(str, options)])


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_records_and_manifest(source, tmp_path, capsys):
    assert run(source, tmp_path / 'out') == 0
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    manifest = records.manifest
    assert manifest['id'].tolist() == [
        '03-01-01-01-01-01-01',
        '03-01-03-01-01-01-01',
        '03-01-05-01-01-01-01',  # the audio-only file, not 01-01-05-...
        '01-01-06-01-01-01-01',  # there is no other
        '03-01-08-01-01-01-01',
        '03-01-01-01-01-01-02',
        '03-01-03-01-01-01-02',
        '03-01-04-01-01-01-02',
        '03-01-05-01-01-01-02',
        '03-01-05-02-02-02-02',
        '03-01-08-01-01-01-02',
    ]
    assert manifest['label'].astype(int).tolist() == [0, 2, 4, 5, 7, 0, 2, 3, 4, 4, 7]
    assert manifest['speaker'].tolist() == ['01'] * 5 + ['02'] * 6
    assert manifest['gender'].tolist() == ['male'] * 5 + ['female'] * 6
    row = {name: str(manifest[name][9]) for name in manifest}
    expected = {'emotion': 'angry', 'intensity': 'strong', 'statement': '2', 'repetition': '2', 'channel': 'speech'}
    assert {name: row[name] for name in expected} == expected
    assert (row['session'], row['split'], float(row['duration'])) == ('', '', 0.5)
    assert float(manifest['duration'][7]) == pytest.approx(0.25, abs=1e-3)
    for number in range(len(records)):
        record = records[number]
        folder = source / SPEECH / f'Actor_{manifest["speaker"][number]}'
        (path,) = folder.glob(f'{record["id"]}.*')
        samples, rate = audio.load_audio(path, 44100, offset=0.5, duration=0.5)
        np.testing.assert_array_equal(record['audio'], audio.mfcc(samples, rate))
        assert len(record['audio']) == manifest['length_audio'][number]
    assert records.schema.label.names == ravdess.EMOTIONS
    assert records.schema.info['sample_rate'] == 44100
    out = capsys.readouterr().out
    assert '11 clips of 2 actors' in out
    assert 'by emotion: neutral 2, happy 2, sad 1, angry 3, fearful 1, surprised 2' in out
    assert 'by actor: 01: 5, 02: 6' in out
    assert 'shorter than the 0.5 s asked for: 1' in out
    assert f'next: python -m mmer_jax.records verify {tmp_path / "out"}' in out
    assert f'--config=configs/mfcc_cnn_ravdess.py --config.data.directory={tmp_path / "out"}' in out


def test_the_next_command_is_of_the_features():
    settings = {'mfcc_cnn': ravdess.Settings(), 'erann': ravdess.Settings('log_mel'), 'wav2vec2': ravdess.WAVEFORM}
    for name, one in settings.items():
        assert ravdess._config_for(one) == f'configs/{name}_ravdess.py'
    assert ravdess._config_for(ravdess.Settings(num_mfcc=20)) == ''  # for which there is none


def test_every_skipped_file_has_its_reason(source, tmp_path, capsys):
    assert run(source, tmp_path / 'out') == 0
    out = capsys.readouterr().out
    for line in (
        'skipped: 10',
        'found again with its video; the audio-only file was taken: 01-01-05-01-01-01-01.wav',
        'a second copy of the same clip: 03-01-05-01-01-01-01.wav',
        'song, not speech (--song takes both): 03-02-03-01-01-01-01.wav',
        "the folder's actor is not the file name's: 03-01-03-01-01-02-02.wav",
        'the name is not MM-CC-EE-II-SS-RR-AA with known codes: 03-01-09-01-01-01-01.wav',
        'offset beyond the end: 03-01-02-01-02-02-01.wav',
        'video only, no sound: 02-01-05-01-01-01-01.wav',
        'git-LFS pointer: 03-01-07-01-01-01-01.wav',
        'cannot be decoded: 03-01-07-01-01-02-01.flac',
        'not a .wav, .flac, .mp4 file: notes.txt',
    ):
        assert line in out
    assert 'DS_Store' not in out


def test_worker_processes_write_the_same_bytes(source, tmp_path):
    assert run(source, tmp_path / 'a') == 0
    assert run(source, tmp_path / 'b', '--workers', 2) == 0
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_songs_on_request(source, tmp_path):
    assert run(source, tmp_path / 'out', '--song') == 0
    manifest = RecordSource(tmp_path / 'out').manifest
    assert manifest['channel'].tolist().count('song') == 1
    assert len(manifest['id']) == 12


@pytest.mark.parametrize(
    ('options', 'shape', 'dtype'),
    [
        (['--features', 'mfcc', '--num_mfcc', 20, '--hop_length', 160, '--sample_rate', 16000], (51, 20), 'float32'),
        (['--features', 'log_mel', '--sample_rate', 16000], (16, 128), 'float32'),
        (['--features', 'waveform', '--sample_rate', 16000], (8000,), 'int16'),
        (['--features', 'waveform', '--sample_rate', 16000, '--offset', 0, '--duration', 0], (19200,), 'int16'),
    ],
)
def test_features(source, tmp_path, options, shape, dtype):
    assert run(source, tmp_path / 'out', *options) == 0
    record = RecordSource(tmp_path / 'out')[0]
    assert (record['audio'].shape, record['audio'].dtype) == (shape, np.dtype(dtype))
    if dtype == 'int16':  # 16-bit files come back sample for sample
        samples, _ = soundfile.read(source / SPEECH / 'Actor_01' / f'{record["id"]}.wav', dtype='int16')
        start = 0 if '--offset' in options else 8000
        np.testing.assert_array_equal(record['audio'], samples[start : start + len(record['audio'])])


def test_the_papers_settings_give_212_frames(tmp_path):
    clip(tmp_path / 'raw' / 'Actor_01', '03-01-05-01-01-01-01.wav', seconds=3.3, rate=48000)
    arguments = ['--source', str(tmp_path / 'raw'), '--output', str(tmp_path / 'out'), '--workers', '1']
    assert ravdess.main(arguments) == 0
    assert RecordSource(tmp_path / 'out')[0]['audio'].shape == (212, 13)


def test_waveforms_for_pretrained_models_by_default(tmp_path, capsys):
    """16 kHz int16 of the whole clip, resampled as load_audio does and cut at 10 s; the rest by request."""
    folder = tmp_path / 'raw' / 'Actor_01'
    clip(folder, '03-01-03-01-01-01-01.wav', seconds=1.3, rate=48000)
    clip(folder, '03-01-05-01-01-01-01.wav', seconds=10.4, rate=16000)
    arguments = ['--source', str(tmp_path / 'raw'), '--workers', '0', '--features', 'waveform']
    assert ravdess.main([*arguments, '--output', str(tmp_path / 'out')]) == 0
    records = RecordSource(tmp_path / 'out')
    feature = records.schema.features['audio']
    assert (records.schema.name, feature.shape, feature.dtype) == ('ravdess_waveform', (None,), 'int16')
    assert records.manifest['length_audio'].tolist() == [20800, 160000]
    for record in (records[0], records[1]):
        samples, _ = audio.load_audio(folder / f'{record["id"]}.wav', 16000, duration=10.0)
        np.testing.assert_allclose(record['audio'] / 32768, samples, atol=0.5 / 32768)
    info = records.schema.info
    assert (info['sample_rate'], info['offset'], info['duration']) == (16000, 0.0, 10.0)
    out = capsys.readouterr().out
    assert '--config=configs/wav2vec2_ravdess.py' in out
    assert 'shorter than' not in out
    assert ravdess.main([*arguments, '--output', str(tmp_path / 'cut'), '--offset=1', '--duration=0.2']) == 0
    assert RecordSource(tmp_path / 'cut').manifest['length_audio'].tolist() == [3200, 3200]


def test_the_other_features_keep_their_defaults():
    given = ['--source', 'a', '--output', 'b']
    names = ('features', 'sample_rate', 'offset', 'duration', 'num_mfcc', 'hop_length')
    for options, settings in (
        ([], ravdess.Settings()),
        (['--features=log_mel'], ravdess.Settings('log_mel')),
        (['--feat', 'waveform'], ravdess.WAVEFORM),
        (['--features', 'functionals'], ravdess.FUNCTIONALS),
        (['--features', 'mfcc', '--features', 'waveform'], ravdess.WAVEFORM),
    ):
        parsed = ravdess.parse_arguments([*given, *options])
        assert [getattr(parsed, name) for name in names] == [getattr(settings, name) for name in names]


@pytest.mark.parametrize('name', ['Actor_01', 'Video_Speech_Actor_01/Actor_01', 'deep/er/Actor_01'])
def test_actor_folders_at_any_depth(tmp_path, name, monkeypatch):
    clip(tmp_path / 'raw' / name, '03-01-05-01-01-01-01.wav')
    assert [c.id for c in ravdess.list_clips(tmp_path / 'raw')[0]] == ['03-01-05-01-01-01-01']
    assert len(ravdess.list_clips(tmp_path / 'raw' / name)[0]) == 1  # one actor's folder itself
    monkeypatch.chdir(tmp_path / 'raw' / name)
    assert len(ravdess.list_clips('.')[0]) == 1


def test_links_are_followed_once(tmp_path, monkeypatch):
    clip(tmp_path / 'disk' / 'Actor_03', '03-01-05-01-01-01-03.wav')
    monkeypatch.setenv('MMER_FOLLOW_LINKS', '1')
    (tmp_path / 'raw').mkdir()
    for name, target in {'Actor_03': tmp_path / 'disk' / 'Actor_03', 'loop': tmp_path / 'raw'}.items():
        (tmp_path / 'raw' / name).symlink_to(target)
    clips, skipped = ravdess.list_clips(tmp_path / 'raw')
    assert ([c.id for c in clips], skipped) == (['03-01-05-01-01-01-03'], [])


def refused(source, output, capsys, *words):
    assert run(source, output) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ')
    for word in words:
        assert str(word) in error
    assert not output.exists()
    assert not output.parent.exists() or not [p for p in output.parent.iterdir() if 'incomplete' in p.name]


def test_missing_and_empty_folders(tmp_path, capsys):
    refused(tmp_path / 'absent', tmp_path / 'new' / 'out', capsys, tmp_path / 'absent', 'is missing', 'Actor_01 ..')
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'empty').mkdir()
    refused(tmp_path / 'empty', tmp_path / 'out', capsys, tmp_path / 'empty', 'holds no Actor_XX folder')
    (tmp_path / 'file').touch()
    refused(tmp_path / 'file', tmp_path / 'out', capsys, 'is a file')
    (tmp_path / 'hollow' / 'Actor_01').mkdir(parents=True)
    refused(tmp_path / 'hollow', tmp_path / 'out', capsys, 'no usable clip', 'folders are empty')


def test_nothing_usable_writes_nothing(tmp_path, capsys):
    clip(tmp_path / 'raw' / 'Actor_01', '02-01-05-01-01-01-01.wav')
    (tmp_path / 'raw' / 'Actor_01' / '03-01-07-01-01-01-01.wav').write_text('version https://git-lfs.github.com/\n')
    refused(tmp_path / 'raw', tmp_path / 'out', capsys, 'no usable clip', 'git-LFS pointer', 'video only, no sound')


def test_existing_output(source, tmp_path, capsys):
    assert run(source, tmp_path / 'out') == 0
    before = contents(tmp_path / 'out')
    assert run(source, tmp_path / 'out', '--num_mfcc', 5) == 1
    assert '--overwrite' in capsys.readouterr().err
    assert contents(tmp_path / 'out') == before
    assert run(source, tmp_path / 'out', '--num_mfcc', 5, '--overwrite') == 0
    assert RecordSource(tmp_path / 'out')[0]['audio'].shape[1] == 5


@pytest.mark.parametrize(
    'option', ['--sample_rate=0', '--num_mfcc=129', '--offset=-1', '--duration=nan', '--workers=-1']
)
def test_senseless_options(option, capsys):
    with pytest.raises(SystemExit) as caught:
        ravdess.main(['--source', 'a', '--output', 'b', option])
    assert caught.value.code == 2
    assert f'error: argument {option.split("=")[0]}: found ' in capsys.readouterr().err


def test_a_fault_midway_leaves_nothing(source, tmp_path, monkeypatch):
    read, seen = ravdess.read_clip, []

    def fails_on_the_fourth(job):
        seen.append(job)
        if len(seen) == 4:
            raise RuntimeError('disk on fire')
        return read(job)

    monkeypatch.setattr(ravdess, 'read_clip', fails_on_the_fourth)
    with pytest.raises(RuntimeError, match='disk on fire') as caught:
        run(source, tmp_path / 'out')
    assert seen[3].clip.id in caught.value.__notes__[0]  # names the job
    assert sorted(path.name for path in tmp_path.iterdir()) == ['raw']


def test_real_speech(tmp_path, monkeypatch):
    monkeypatch.setenv('MMER_FOLLOW_LINKS', '1')
    actor = DATA / SPEECH / 'Actor_01'
    if not actor.is_dir():
        pytest.skip('RAVDESS is not here')
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw' / 'Actor_01').symlink_to(actor)
    assert ravdess.main(['--source', str(tmp_path / 'raw'), '--output', str(tmp_path / 'out'), '--workers', '0']) == 0
    manifest = RecordSource(tmp_path / 'out').manifest
    assert manifest['length_audio'].tolist() == [212] * 60
    assert np.bincount(manifest['label'].astype(int)).tolist() == [4] + [8] * 7


def test_real_folder_with_video_and_sound():
    if not DATA.is_dir():
        pytest.skip('RAVDESS is not here')
    clips, skipped = ravdess.list_clips(DATA)
    assert len(clips) == len({c.take for c in clips}) == 1200
    assert {c.modality for c in clips} == {'03'}
    reasons = [result.reason for _, result in skipped]
    assert reasons.count('video only, no sound') == 11
    assert reasons.count('found again with its video; the audio-only file was taken') == 7 + 52


# ---- the pool


def square(number):
    if number == 3:
        raise MediaError('three.wav', 'empty file', '0 bytes')
    if number < 0:
        raise ZeroDivisionError('negative')
    return number**2, os.getpid()


@pytest.mark.parametrize('workers', [0, 2])
def test_pool_keeps_the_order_and_skips_media_faults(workers):
    results = list(pool.process(square, range(30), workers=workers, description='squares'))
    assert [job for job, _ in results] == list(range(30))
    assert results[3][1] == pool.Skipped('empty file', 'three.wav: empty file; 0 bytes', is_fault=True)
    assert [result[0] for job, result in results if job != 3] == [n**2 for n in range(30) if n != 3]
    assert (os.getpid() in {result[1] for job, result in results if job != 3}) == (workers == 0)


@pytest.mark.parametrize('workers', [1, 2])
def test_pool_names_the_job_of_a_real_fault(workers):
    jobs = [1, 2, -7, *range(10**5)]
    results = pool.process(square, jobs, workers=workers, description='squares')
    assert [next(results)[0], next(results)[0]] == [1, 2]
    with pytest.raises(ZeroDivisionError, match='negative') as caught:
        next(results)  # at once: the other jobs were never handed out
    assert caught.value.__notes__ == [f'squares: job 3 of {len(jobs)}: -7']


def test_pool_is_lazy():
    started = []
    with contextlib.closing(pool.process(started.append, range(100), workers=0, description='x')) as results:
        next(results)
    assert started == [0]


def test_summary_groups_by_reason(capsys):
    skipped = [(f'{n}.wav', pool.Skipped('empty file')) for n in range(7)] + [('x.wav', pool.Skipped('damaged'))]
    pool.summary(skipped)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == 'skipped: 8'
    assert second.split(maxsplit=1) == ['7', 'empty file: 0.wav, 1.wav, 2.wav, 3.wav, 4.wav and 2 more']
    assert third.split(maxsplit=1) == ['1', 'damaged: x.wav']


def test_remarks_are_named_one_by_one(capsys):
    missing = pool.missing({'audio': 'silence'}, ('audio', 'vision'))
    spans = pool.compare_spans((0.0, 2.0), (0.5, 1.9))
    assert pool.compare_spans((0.0, 2.0), (0.2, 1.8)) == []
    nothing = pool.missing({'audio': 'silence', 'vision': 'black pictures'}, ('audio', 'vision'))
    named = [('a', missing[0]), ('b', spans[0]), *(('c', remark) for remark in nothing), ('d', spans[0])]
    pool.summary([], [*named, *((f'e{n}', missing[0]) for n in range(150))])
    assert capsys.readouterr().out.splitlines() == [
        '  audio is missing (silence; masked in batches): 152',
        f'      a, c, {", ".join(f"e{n}" for n in range(98))}',
        '      and 52 more (manifest.csv has their lengths and times)',
        '  sound and pictures more than 0.2 s apart: 2',
        '      b: sound 0.000 to 2.000 s, pictures 0.500 to 1.900 s',
        '      d: sound 0.000 to 2.000 s, pictures 0.500 to 1.900 s',
        '  vision is missing (black pictures; masked in batches): 1',
        '      c',
        '  every modality is missing: 1',
        '      c',
        'skipped: 0',
    ]


def test_the_first_cause_is_what_was_tried_and_failed():
    """Not the first file that was passed by, which is another one and no cause."""
    passed_by = ('02.mp4', pool.Skipped('video only, no sound', 'raw/02.mp4'))
    faults = [
        (n, pool.Skipped('empty file', f'raw/{n}: empty file; 0 bytes', is_fault=True)) for n in ('01.mp4', '03.mp4')
    ]
    message = str(pool.nothing_usable('no usable clip below raw', [passed_by, *faults], 'expected Actor_01'))
    assert message == (
        'no usable clip below raw; the first cause: raw/01.mp4: empty file; 0 bytes; all reasons: empty file (2), '
        'video only, no sound (1); nothing was written'
    )
    message = str(pool.nothing_usable('no usable clip below raw', [passed_by], 'expected Actor_01'))
    assert 'the first cause: raw/02.mp4; all reasons: video only, no sound (1); expected Actor_01;' in message
    assert str(pool.nothing_usable('no clip', [], 'an empty folder')) == 'no clip: an empty folder; nothing was written'


@pytest.mark.parametrize('features', ['mfcc', 'log_mel', 'waveform'])
def test_silence_is_missing_sound(tmp_path, capsys, features):
    """Digital zeros and a constant alike; masked in batches, named in the summary, kept as a record."""
    folder = tmp_path / 'raw' / 'Actor_01'
    clip(folder, '03-01-03-01-01-01-01.wav')
    soundfile.write(folder / '03-01-05-01-01-01-01.wav', np.zeros(19200), 16000)
    soundfile.write(folder / '03-01-06-01-01-01-01.flac', np.full(19200, 0.25), 16000)
    samples = np.zeros(19200)
    samples[:6000] = 0.5 * np.sin(np.arange(6000) / 5)  # before the offset: nothing of it is stored
    soundfile.write(folder / '03-01-08-01-01-01-01.wav', samples, 16000)
    assert run(tmp_path / 'raw', tmp_path / 'out', '--features', features, '--sample_rate', 16000) == 0
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    lengths = records.manifest['length_audio']
    assert lengths[0] > 0
    assert lengths[1:].tolist() == [0, 0, 0]
    assert records[1]['audio'].shape[0] == 0
    printed = capsys.readouterr().out
    names = '03-01-05-01-01-01-01, 03-01-06-01-01-01-01, 03-01-08-01-01-01-01'
    assert f'  audio is missing (silence; masked in batches): 3\n      {names}\n' in printed
    assert f'  every modality is missing: 3\n      {names}\n' in printed
    plan = batches.BatchPlan(np.arange(4), {'audio': lengths}, batches.plan_shapes({'audio': lengths}, 1), batch_size=4)
    batch = next(iter(batches.read_batches(batches.LoadBatch(records, ('audio',), plan, {}, {}))))
    assert batch['audio_mask'].any(1).tolist() == [True, False, False, False]
    assert batch['weight'].tolist() == [1, 1, 1, 1]


def test_same_id_twice_is_refused_by_the_writer(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ravdess.Clip, 'id', 'same')
    assert run(source, tmp_path / 'out') == 1
    assert "error: record id 'same' was written before; ids must be unique" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
