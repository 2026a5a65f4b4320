"""From real RAVDESS sound files to the table of the small wav2vec 2.0, by the commands of its docstring."""

import csv
import json
import math
import shutil

import numpy as np
import pytest

from data_prep import ravdess
from mmer_jax import table
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.files import read_json
from tests.any_values import quick_runs
from tests.conftest import SHARED_DATA

ACTORS = ('01', '02', '03', '04')
METRICS = ('accuracy', 'uar', 'macro_f1')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One clip of each of the eight emotions by four actors, and the finished table."""
    source = SHARED_DATA / 'ravdess' / 'Audio_Speech_Actors_01-24'
    if not source.is_dir():
        pytest.skip(f'the real clips are not here ({source})')
    folder = tmp_path_factory.mktemp('ravdess')
    for actor in ACTORS:
        (folder / 'raw' / f'Actor_{actor}').mkdir(parents=True)
        clips = sorted((source / f'Actor_{actor}').glob('03-01-*-01-01-01-*.*'))
        assert len(clips) == 8
        for clip in clips:
            shutil.copy(clip, folder / 'raw' / f'Actor_{actor}')
    prepared = ['--source', str(folder / 'raw'), '--output', str(folder / 'data'), '--features', 'waveform']
    assert ravdess.main([*prepared, '--workers', '0']) == 0
    settings = [f'data.directory={folder / "data"}', 'epochs=1', 'data.batch_size=8', 'data.max_shapes=1']
    settings += ['tensorboard=False', 'protocol.options.validation_speakers=1']  # four actors: one is left to train on
    options = ['--table=configs/tables/wav2vec2_reduced.py', f'--output={folder / "out"}']
    with quick_runs():
        assert table.main([*options, '--set', *settings]) == 0
    return folder


def test_the_records_are_the_real_clips(folder):
    assert verify(folder / 'data') == []
    source = RecordSource(folder / 'data')
    assert len(source) == 32
    assert sorted(set(source.manifest['speaker'].tolist())) == list(ACTORS)
    assert np.bincount(source.manifest['label'].astype(int)).tolist() == [4] * 8
    assert 40000 < source.manifest['length_audio'].min() <= source.manifest['length_audio'].max() < 90000
    assert all(source[number]['audio'].std() > 20 for number in range(0, 32, 5))  # somebody speaks


def test_both_folds_have_finished_with_finite_numbers(folder):
    with open(folder / 'out' / 'table.csv', newline='') as file:
        lines = {line['metric']: line for line in csv.DictReader(file)}
    assert tuple(lines) == METRICS
    for line in lines.values():
        assert line['state'] == 'finished', line['detail']
        assert 0 <= float(line['mean']) <= 1
        assert (line['folds'], line['test_records'], line['published']) == ('2', '32', '')
    rows = read_json(folder / 'out' / 'wav2vec_2_0_reduced' / 'results.json')['rows']
    assert [row['fold'] for row in rows] == ['fold_0', 'fold_1']
    assert all(math.isfinite(row['test']['loss']) for row in rows)
    text = (folder / 'out' / 'table.md').read_text()
    assert 'no accuracy is claimed' in text
    assert '⚠' not in text


def test_every_clip_is_tested_once_with_all_those_of_its_actor(folder):
    run, tested = folder / 'out' / 'wav2vec_2_0_reduced', []
    for fold in ('fold_0', 'fold_1'):
        with np.load(run / fold / 'predictions' / 'test.npz') as file:
            tested.append(file['id'].tolist())
            assert file['prediction'].shape[1:] == (16, 8)
            assert np.isfinite(file['prediction']).all()
            assert file['prediction'].std(1).max() > 0  # the clips are not all the same to it
    assert sorted(tested[0] + tested[1]) == sorted(RecordSource(folder / 'data').manifest['id'].tolist())
    assert [{name[-2:] for name in names} for names in tested] == [{'01', '02'}, {'03', '04'}]


def test_each_fold_has_learnt(folder):
    """The loss of the training steps is written and is not that of the other fold."""
    losses = []
    for fold in ('fold_0', 'fold_1'):
        path = folder / 'out' / 'wav2vec_2_0_reduced' / fold / 'metrics.jsonl'
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        losses.append([row['loss'] for row in rows if row['split'] == 'train_epoch'])
    assert len(losses[0]) == len(losses[1]) == 1
    assert losses[0] != losses[1]
    assert np.isfinite(losses).all()
