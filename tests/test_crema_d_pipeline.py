"""From real clips in CREMA-D's layout to the shared-encoder report's tables and bars: every network, by its own config.

All networks but I3D and GoogLeNet, whose steps take a minute to compile, on face and voice, two of them on one alone;
configs/tables/shared_encoders_smoke.py is the command for all of them.
"""

import csv
import math

import av
import numpy as np
import pytest
from PIL import Image

from configs.tables import shared_encoders, shared_encoders_smoke
from data_prep import crema_d, crema_d_layout, look
from mmer_jax import table
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.files import read_json
from mmer_jax.media import audio, video
from mmer_jax.results import canvas, table_config
from tests.any_values import quick_runs
from tests.conftest import SHARED_DATA
from tests.crema_d_release import write_release

CLIPS, ACTORS = 24, 4
FEW = {'crema_d_3d': 8}  # two clips an actor of Simple3D, which halves six times and so looks at 64 frames
BOTH = tuple(label for label in shared_encoders.NETWORKS if label not in ('I3D', 'GoogLeNet'))
ALONE = {'ViT': ('voice', 'audio'), 'VideoMAE': ('face', 'vision')}  # trained on one alone too: a picture, a clip
TABLE = table_config.read_table('configs/tables/shared_encoders_smoke.py')
PREPARED = {  # as the docstring of shared_encoders_smoke.py says
    'crema_d_2d': ('--size', '32'),
    'crema_d_2d_grey': ('--size', '32', '--color', 'grey'),
    'crema_d_3d': ('--size', '64', '--layout', '3d', '--frames', '4'),
    'crema_d_3d_32': ('--size', '32', '--layout', '3d', '--frames', '4'),
    'crema_d_videomae': (
        *('--size', '32', '--layout', '3d', '--frames', '4', '--fill', 'repeat'),
        *('--vision_width', '28', '--audio_width', '4'),
    ),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The release, its clips prepared in every layout, and the table run by its command."""
    source = SHARED_DATA / 'ravdess' / 'Face_Clips_Actor_01' / 'Actor_01'
    if not source.is_dir():
        pytest.skip(f'the real face clips are not here ({source})')
    folder = tmp_path_factory.mktemp('crema_d')
    clips = write_release(folder / 'CREMA-D', source, clips=CLIPS, actors=ACTORS, size=64)
    (folder / 'clips.txt').write_text('\n'.join(f'{clip.id} {clip.source}' for clip in clips))
    write_part(folder / 'CREMA-D', folder / 'few', FEW['crema_d_3d'])
    for name, options in PREPARED.items():
        common = ['--source', str(folder / ('few' if name in FEW else 'CREMA-D')), '--tables', str(folder / 'CREMA-D')]
        common += ['--crop', 'none', '--workers', '0', '--num_shards', '2']
        assert crema_d.main([*common, '--output', str(folder / 'data' / 'smoke' / name), *options]) == 0
    return folder


def write_part(release, output, clips):
    """The sound and pictures of so many clips of a release, of each actor the same number."""
    names = sorted(path.stem for path in (release / 'AudioWAV').iterdir())
    of_actor = [[name for name in names if name.startswith(actor)] for actor in sorted({name[:4] for name in names})]
    for file in ('AudioWAV/{}.wav', 'VideoFlash/{}.flv'):
        (output / file).parent.mkdir(parents=True)
        for name in [name for group in of_actor for name in group[: clips // ACTORS]]:
            (output / file.format(name)).hardlink_to(release / file.format(name))


def run_table(folder, output, labels):
    """The smoke table with the rows of these labels, and those that need no training of their own, on the clips."""
    values, rows = shared_encoders_smoke.get_table(), []
    for row in values['rows']:
        if 'config' in row and row['label'] in labels:
            directory = folder / table_config.row_config(TABLE, table_config.Row(**row), None, ()).data.directory
            size = FEW.get(directory.name, CLIPS) // ACTORS
            overrides = {'data.directory': str(directory), 'data.batch_size': size, 'tensorboard': False}
            rows.append({**row, 'overrides': {**row['overrides'], **overrides}})
        elif row.get('ablate', ('', ''))[0] in labels or 'quoted' in row:
            rows.append(row)
    file, options = folder / f'{output}.py', [f'--table={folder / output}.py', f'--output={folder / output}']
    with quick_runs():
        for bars, more in (('', []), (values['bars'], ['--no-run'])):  # else they are drawn anew behind each row
            file.write_text(f'def get_table():\n    return { ({**values, "rows": rows, "bars": bars})!r}\n')
            assert table.main([*options, *more]) == 0
    return folder / output


@pytest.fixture(scope='module')
def finished(folder):
    """The folder of the table of these networks, trained on those clips."""
    return run_table(folder, 'out', [*BOTH, *(f'{name} ({part})' for name, (part, _) in ALONE.items())])


def lines_of(finished):
    with open(finished / 'table.csv', newline='') as file:
        lines = list(csv.DictReader(file))
    return {(line['label'], line['metric']): line for line in lines}


def test_the_release_has_the_clips_sound_and_pictures_under_their_new_names(folder):
    clips = [line.split(' ', 1) for line in (folder / 'clips.txt').read_text().splitlines()]
    found, skipped = crema_d_layout.list_clips(folder / 'CREMA-D')
    assert skipped == []
    assert sorted(name for name, _ in clips) == [clip.id for clip in found]
    assert {clip.actor for clip in found} == {'1001', '1002', '1003', '1004'}
    assert all({c.intended for c in found if c.actor == actor} == set(range(6)) for actor in ('1001', '1004'))
    tables = crema_d_layout.read_tables(folder / 'CREMA-D')
    assert tables.names == {name for name, _ in clips} == set(tables.votes)
    assert tables.actors['1004']['sex'] == 'Male'
    for name, source in clips[::9]:
        made = folder / 'CREMA-D' / 'VideoFlash' / f'{name}.flv'
        with av.open(str(made)) as container:
            assert container.streams.video[0].codec_context.name == 'flv'  # the codec whose number is flv1
            assert container.streams.audio
        before, after = video.read_info(source), video.read_info(made)
        np.testing.assert_allclose(after.timestamps, before.timestamps, atol=0.002)
        original = np.stack([np.asarray(Image.fromarray(f).resize((64, 64))) for f in video.read_frames(source, 4)[0]])
        assert np.abs(original.astype(int) - video.read_frames(made, 4)[0]).mean() < 8
        wav, _ = audio.load_audio(folder / 'CREMA-D' / 'AudioWAV' / f'{name}.wav', 16000)
        np.testing.assert_allclose(wav, audio.load_audio(source, 16000)[0], atol=1e-4)


@pytest.mark.parametrize('name', list(PREPARED))
def test_every_layout_is_whole_and_can_be_looked_at(folder, tmp_path, name):
    directory = folder / 'data' / 'smoke' / name
    assert verify(directory) == []
    source = RecordSource(directory)
    assert len(source) == FEW.get(name, CLIPS)
    first, second = source[0], source[len(source) // 2]
    for m in ('audio', 'vision'):
        assert first[m].std() > 10  # something is on them
        assert not np.array_equal(first[m], second[m])
    assert look.main([str(directory), '--output', str(tmp_path / 'grid.png'), '--records', '6']) == 0
    picture = np.asarray(Image.open(tmp_path / 'grid.png'))
    assert picture.shape[0] == look.HEAD + 6 * (look.TILE + 2 * look.GAP)
    assert picture.shape[1] > 200
    assert 20 < picture.std() < 130
    assert len(np.unique(picture)) > 100


def test_every_network_has_a_row_of_finite_numbers(finished):
    lines = lines_of(finished)
    for label in BOTH:
        for metric in shared_encoders.COLUMNS:
            line = lines[label, metric]
            assert line['state'] == 'finished', line['detail']
            assert math.isfinite(float(line['mean']))
            records = FEW['crema_d_3d'] if label == 'Simple3D' else CLIPS
            assert (line['modalities'], line['test_records']) == ('audio, vision', str(records))
            assert not line['published']  # nothing that was published is compared with tiny networks
    for label, (part, modality) in ALONE.items():
        line = lines[f'{label} ({part})', 'loss']
        assert line['state'] == 'finished', line['detail']
        assert line['modalities'] == modality
        assert math.isfinite(float(line['mean']))
        assert line['mean'] != lines[label, 'loss']['mean']
    assert lines['humans (voice)', 'accuracy']['mean'] == '0.4'
    assert '⚠' not in (finished / 'table.md').read_text()  # other actors are tested


def test_the_training_split_is_beside_the_test_split(finished):
    for label, clips in (('resnet18', CLIPS), ('simple3d', FEW['crema_d_3d']), ('videomae', CLIPS)):
        rows = read_json(finished / label / 'results.json')['rows']
        assert [row['fold'] for row in rows] == ['fold_0', 'fold_1']
        for row in rows:
            assert set(row['train']) == set(row['test'])
            assert row['train']['loss'] != row['test']['loss']
            with np.load(finished / label / row['fold'] / 'predictions' / 'train.npz') as file:
                assert len(set(file['id'].tolist())) == row['counts']['train'] == clips // ACTORS


def check_ablated(lines, label):
    losses = [float(lines[row, 'loss']['mean']) for row in (label, f'{label} face hidden', f'{label} voice hidden')]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 3
    assert lines[f'{label} face hidden', 'train/loss']['mean'] == 'nan'
    assert lines[f'{label} face hidden', 'accuracy']['modalities'] == 'audio'


def test_ablated_rows_differ_from_the_network_they_come_from(finished):
    check_ablated(lines_of(finished), 'Simple3D')


def test_the_bars_are_drawn(finished):
    pixels = np.asarray(Image.open(finished / 'bars.png').convert('RGB'))
    assert pixels.shape[0] == 4.6 * canvas.DPI
    assert pixels.shape[1] > 10 * canvas.DPI
    assert 0.02 < np.mean(pixels.min(-1) < 230) < 0.6
    assert '](bars.png)' in (finished / 'table.md').read_text()
