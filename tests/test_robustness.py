"""A finished run tested with every subset of its modalities, and on records that are disturbed."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mmer_jax import evaluate, robustness
from mmer_jax.data.disturb import BLOCK, add_noise, drop_steps
from mmer_jax.data.records import Feature
from mmer_jax.data.schema import encode_frames
from mmer_jax.files import read_json
from mmer_jax.files.outputs import PICTURE
from mmer_jax.files.together import write_together
from mmer_jax.results import degradation, subsets
from mmer_jax.results.summary import Summary
from mmer_jax.run import finished
from mmer_jax.train import train_and_evaluate
from tests.test_ablation import config_of

FEATURES = {
    'text': Feature((None,), 'int32'),
    'audio': Feature((None, 4)),
    'vision': Feature((None, 8, 8, 3), 'uint8', 'jpeg'),
}


@pytest.fixture(scope='module')
def workdir(tiny, tmp_path_factory):
    """Text and vision, two folds, two seeds, trained with modality_dropout."""
    folder = tmp_path_factory.mktemp('robustness') / 'both'
    config = config_of(tiny)
    config.data.augment = (('modality_dropout', {'probability': 0.3}),)
    train_and_evaluate(config, folder)
    return folder


# ---- every subset --------------------------------------------------------------------------------------------


def test_every_subset_is_what_without_gives(workdir, tmp_path, capsys):
    assert evaluate.main([str(workdir), '--every_subset', '--output', str(tmp_path / 'out')]) == 0
    printed = capsys.readouterr().out
    found = read_json(tmp_path / 'out' / 'subsets.json')
    rows = {(*row['modalities'], row['fold'], row['seed']): row for row in found['rows']}
    assert len(rows) == len(found['rows']) == 3 * 2 * 2
    runs = finished.open_runs(workdir)
    for subset, without in ((('text', 'vision'), ()), (('vision',), ('text',))):
        for row in evaluate.evaluate_runs(runs, without=without):
            one = rows[(*subset, row['fold'], row['seed'])]
            assert {key: one[key] for key in row} == row
            trained = read_json(workdir / 'results.json')['rows']
            assert one['floor'] == next(r['floor'] for r in trained if r['fold'] == row['fold'])
    assert found['modality_dropout'] == 0.3
    assert printed == (tmp_path / 'out' / 'subsets.md').read_text()
    assert 'missing with probability 0.3' in printed
    seeds = [np.mean([rows['text', f'fold_{k}', seed]['accuracy'] for k in (0, 1)]) for seed in (0, 1)]
    cell = re.search(r'\| text \| ([\d.]+) ± ([\d.]+)', printed)
    assert [float(cell[1]), float(cell[2])] == pytest.approx(
        [100 * np.mean(seeds), 100 * np.std(seeds, ddof=1)], abs=0.06
    )
    assert '| floor: best constant answer |' in printed
    assert len((tmp_path / 'out' / 'subsets.csv').read_text().splitlines()) == 13


def test_subsets_of_three_and_a_run_without_dropout():
    assert len(subsets.subsets_of(('text', 'audio', 'vision'))) == 7
    assert subsets.subsets_of(('text', 'audio')) == [('text', 'audio'), ('text',), ('audio',)]
    assert subsets.dropout_of([('time_mask', {'modality': 'audio', 'steps': 2})]) is None
    assert subsets.dropout_of([('modality_dropout', {'probability': 0.0})]) is None
    assert subsets.training_words(None).startswith('⚠ Trained without')


def test_files_that_are_not_ours_stay_and_wrong_calls_are_named(workdir, tmp_path, capsys):
    (tmp_path / 'subsets.md').write_text('my notes')
    assert evaluate.main([str(workdir), '--every_subset', '--output', str(tmp_path)]) == 1
    assert robustness.main([str(workdir), '--metric=mae', '--output', str(tmp_path)]) == 2
    assert 'subsets.md exists and was not made by' in (error := capsys.readouterr().err)
    assert '--metric mae: these data have loss, accuracy' in error
    assert [path.name for path in tmp_path.iterdir()] == ['subsets.md']
    with pytest.raises(SystemExit):
        evaluate.parse([str(workdir), '--every_subset', '--without', 'text'])


def test_files_are_written_together_or_not_at_all(tmp_path):
    def fails(path):
        path.write_text('half')
        raise ValueError('no')

    for folder in (tmp_path / 'new', tmp_path):
        with pytest.raises(ValueError, match='no'):
            write_together(folder, {'a.md': 'a', 'b.png': fails})
        assert list(tmp_path.iterdir()) == []
    (tmp_path / 'kept').write_text('kept')
    for text in ('one', 'two'):
        write_together(tmp_path, {'a.md': text})
        write_together(tmp_path / 'new', {'a.md': text, 'b.md': lambda path: path.write_text('b')})
    assert (tmp_path / 'a.md').read_text() == (tmp_path / 'new' / 'a.md').read_text() == 'two'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.md', 'kept', 'new']


# ---- curves --------------------------------------------------------------------------------------------------


def test_the_curves_of_a_run(workdir, tmp_path, monkeypatch):
    made = []
    original = evaluate.make_program
    monkeypatch.setattr(evaluate, 'make_program', lambda *a: made.append(1) or original(*a))
    argv = [str(workdir), '--fold=0', '--shares', '0', '0.5', '1', '--noise', '2', '--draws=2']
    for name in ('out', 'again'):
        assert robustness.main([*argv, '--output', str(tmp_path / name)]) == 0
    assert len(made) == 2  # one program for all points
    found = read_json(tmp_path / 'out' / 'robustness.json')
    assert found == read_json(tmp_path / 'again' / 'robustness.json')
    # undisturbed, then for text, vision and all: lost steps (two draws, and one of all steps), noise (two draws)
    assert len(found['rows']) == 2 * (1 + 3 * (2 + 1) + 3 * 2)
    tested = evaluate.evaluate_checkpoint(workdir, fold=0)
    clean = [row for row in found['rows'] if not row['disturbed']]
    assert [row['loss'] for row in clean] == [row['loss'] for row in tested]
    losses = {
        tuple(row[key] for key in ('disturbed', 'modality', 'level', 'draw', 'seed')): row['loss']
        for row in found['rows']
    }
    assert losses['dropped', 'text', 0.5, 0, 0] != losses['dropped', 'text', 0.5, 1, 0] != clean[0]['loss']
    assert losses['noise', 'text', 2.0, 0, 0] != losses['noise', 'vision', 2.0, 0, 0]
    assert PICTURE in (tmp_path / 'out' / 'robustness.png').read_bytes()
    page = (tmp_path / 'out' / 'robustness.md').read_text()
    assert page.count('| all modalities |') == 2
    assert '± is over 2 seeds' in page
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'robustness.csv', 'robustness.json', 'robustness.md', 'robustness.png',
    ]  # fmt: skip


def record(length=400):
    generator = np.random.default_rng(0)
    pictures = generator.integers(1, 256, size=(length // 50, 8, 8, 3)).astype(np.uint8)
    return {
        'text': np.arange(1, length + 1, dtype=np.int32),
        'audio': generator.standard_normal((length, 4)).astype(np.float32),
        'vision': encode_frames(pictures),
    }


def test_the_share_of_lost_steps_is_what_is_asked_for():
    before, lost = record(), {}
    for share in (0.25, 0.5, 1.0):
        change = drop_steps(FEATURES, ('text', 'audio', 'vision'), share)
        after = change(before, np.random.default_rng([3, 0, 7]))
        alone = drop_steps(FEATURES, ('audio',), share)(before, np.random.default_rng([3, 0, 7]))
        lost[share] = (after['audio'] == 0).all(1)
        np.testing.assert_array_equal(after['audio'], alone['audio'])
        np.testing.assert_array_equal(after['audio'][~lost[share]], before['audio'][~lost[share]])
        assert lost[share].mean() == pytest.approx(share, abs=0.07)
        assert len(after['text']) / 400 == pytest.approx(1 - share, abs=0.07)
        assert set(after['text']) <= set(before['text'])
        assert len(after['vision']) == 8
    assert (np.asarray(after['vision']) == 0).all()
    assert (lost[0.25] <= lost[0.5]).all()  # what is lost at a share is lost at a larger one
    assert (before['audio'] != 0).all()


def test_a_waveform_loses_tenths_of_a_second():
    features = {'audio': Feature((None,), 'int16')}
    wave = np.full(20 * BLOCK + 7, 30000, np.int16)
    after = drop_steps(features, ('audio',), 0.5)({'audio': wave}, np.random.default_rng(0))['audio']
    blocks = [after[n : n + BLOCK] for n in range(0, len(after), BLOCK)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert 4 < sum(block[0] == 0 for block in blocks) < 17
    noisy = add_noise(features, {'audio': np.float32(1000)}, ('audio',), 4.0)({'audio': wave}, np.random.default_rng(0))
    assert noisy['audio'].dtype == np.int16
    assert noisy['audio'].min() > 0  # what is beyond the largest number stays there
    assert noisy['audio'].max() == 32767


def test_noise_has_the_deviation_asked_for():
    deviations = {'audio': np.array([1, 2, 3, 4], np.float32)}
    before = record()
    for scale in (0.5, 2.0):
        after = add_noise(FEATURES, deviations, ('audio',), scale)(before, np.random.default_rng(1))
        added = after['audio'] - before['audio']
        np.testing.assert_allclose(added.std(0), scale * deviations['audio'], rtol=0.12)
        assert after['audio'].dtype == np.float32
        assert after['text'] is before['text']


def test_points_and_their_summaries():
    points = robustness.points_of(('text', 'audio'), ('audio',), (0, 0.5, 1), (0, 1), 3)
    assert points[0] == robustness.Point()
    assert len(points) == 1 + 3 * (3 + 1) + 3
    assert all(point.level > 0 for point in points[1:])
    row = {'fold': 'a', 'seed': 0}
    rows = [{**row, 'draw': draw, 'mae': value} for draw, value in enumerate((1.0, 2.0, 3.0))]
    assert robustness.summary_of(rows, 'mae') == Summary(2.0, 1.0, 'draws')
    rows += [{**r, 'seed': 1, 'mae': r['mae'] + 2} for r in rows]
    assert robustness.summary_of(rows, 'mae') == Summary(3.0, pytest.approx(np.sqrt(2)), 'seeds')


def test_the_axis_is_as_long_as_the_metric(tmp_path):
    line = degradation.Line('audio', [0, 0.5], [Summary(0.9, 0.1, 'seeds'), Summary(1.4, None, '')])
    panel = degradation.Panel('steps lost, %', [line], 100)
    assert degradation._limits([panel], 'accuracy', 0.5) == (0, 100)
    assert degradation._limits([panel], 'mae', 1.8) == (0, pytest.approx(1.06 * 1.8))
    degradation.draw([panel], tmp_path / 'a.svg', metric='mae', split='test', floor=1.8, title='A $ title')
    text = (tmp_path / 'a.svg').read_text()
    assert 'lower is better' in text
    degradation.draw([panel], tmp_path / 'a.png', metric='mae', split='test', floor=None, title='')
    with Image.open(tmp_path / 'a.png') as picture:
        assert picture.size[0] > 1500
    with pytest.raises(ValueError, match='no modality was disturbed'):
        degradation.draw(
            [degradation.Panel('noise', [])], tmp_path / 'a.png', metric='mae', split='t', floor=1, title=''
        )
    assert json.loads(json.dumps(degradation.table_of(panel, 'mae', '1.8')[1])) == [
        ['audio', '0.900 ± 0.100', '1.400', '1.8']
    ]
