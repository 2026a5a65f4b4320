"""Prediction from files: the numbers of evaluation from shards, windows, what is missing, and what goes wrong."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict
from scipy.special import softmax

from configs import own_audio_vision
from data_prep import clips
from mmer_jax import load_predictor, predict
from mmer_jax.data.records import RecordSource
from mmer_jax.files import read_arrays, read_json
from mmer_jax.prediction import Clip, Failure, calibration
from mmer_jax.prediction import clips as to_predict
from mmer_jax.prediction.output import cell, printable
from mmer_jax.train import train_and_evaluate
from tests.any_values import quick_runs
from tests.own_clips import RATE, write_clips, write_tone

FOLDS, SEEDS = 3, 2


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """A folder with media/, mine/ (shards) and run/, a tiny run of three folds and two seeds."""
    folder = tmp_path_factory.mktemp('own')
    table = write_clips(folder)
    flags = ['--size=16', '--frames=2', '--num_mfcc=8', '--num_mels=16', '--workers=0']
    assert clips.main([f'--csv={table}', f'--media={folder / "media"}', f'--output={folder / "mine"}', *flags]) == 0
    config = own_audio_vision.get_config()
    config.data.directory = str(folder / 'mine')
    config.model.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 4})
    config.update({'epochs': 2, 'seeds': SEEDS, 'tensorboard': False})
    config.data.batch_size, config.data.max_shapes = 6, 1
    with quick_runs(train=False):
        train_and_evaluate(config, folder / 'run')
    return folder


@pytest.fixture(scope='module')
def predictor(own):
    return load_predictor(own / 'run')


def test_what_the_config_leaves_to_the_data_is_written_down(own):
    config = read_json(own / 'run' / 'config.json')
    assert config['modalities'] == ['audio', 'vision']
    assert config['losses'] == {'cross_entropy': 1.0}
    assert config['selection']['metric'] == 'uar'
    assert config['headline'] == ['accuracy', 'uar', 'macro_f1']
    assert config['data']['normalize'] == ['audio']  # pictures are normalised by their encoder


def test_numbers_from_files_are_those_of_evaluation_from_shards(own, predictor):
    source = RecordSource(own / 'mine')
    for fold in range(FOLDS):
        tested = read_arrays(own / 'run' / f'fold_{fold}' / 'predictions' / 'test.npz', ['prediction', 'id'])
        files = {name: next((own / 'media').glob(f'{name}.*')) for name in tested['id']}
        found = list(predictor.predict([Clip(name, path) for name, path in files.items()], batch_size=4))
        assert [row.clip.id for row in found] == tested['id'].tolist()
        for n in range(SEEDS):
            own_scores = [list(row.by_model[f'fold_{fold}', n].values()) for row in found]
            np.testing.assert_allclose(own_scores, softmax(tested['prediction'][n], axis=-1), atol=1e-5)
    assert {'mp4', 'wav'} == {path.suffix[1:] for path in (own / 'media').rglob('clip*')}
    assert len(source) == 18


def test_the_mean_over_folds_and_seeds_is_what_is_said(own, predictor):
    found = predictor(own / 'media' / 's1' / 'clip_01.mp4')
    assert set(found.by_model) == {(f'fold_{k}', n) for k in range(FOLDS) for n in range(SEEDS)}
    for name in predictor.class_names:
        assert found.scores[name] == pytest.approx(np.mean([scores[name] for scores in found.by_model.values()]))
    assert sum(found.scores.values()) == pytest.approx(1, abs=1e-5)
    assert found.notes == ()
    assert found.label == max(found.scores, key=found.scores.get)
    alone = load_predictor(own / 'run', fold=1, seed=1)(own / 'media' / 's1' / 'clip_01.mp4')
    np.testing.assert_allclose(
        list(alone.scores.values()), list(found.by_model['fold_1', 1].values()), rtol=1e-4, atol=1e-6
    )


def test_the_data_of_the_run_need_not_be_there(own, predictor, tmp_path):
    shutil.copytree(own / 'run', tmp_path / 'run')
    config = read_json(tmp_path / 'run' / 'config.json')
    config['data']['directory'] = str(tmp_path / 'gone')
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
    clip = own / 'media' / 's0' / 'clip_06.wav'
    assert load_predictor(tmp_path / 'run')(clip).scores == pytest.approx(predictor(clip).scores, abs=1e-6)


def test_what_a_clip_lacks_is_masked_and_said(own, predictor):
    found = predictor(own / 'media' / 's0' / 'clip_06.wav')
    assert found.notes == (
        'vision is missing (no pictures in the file): masked, and the run was trained without modality_dropout',
    )
    with pytest.raises(ValueError, match='the model sees audio, vision, and the clip has none'):
        predictor(text='words alone')


def test_windows_of_joined_clips_say_what_the_pieces_say(own, predictor):
    pieces = [own / 'media' / 's2' / 'clip_08.wav', own / 'media' / 's0' / 'clip_12.wav']
    samples = [soundfile.read(path)[0] for path in pieces]
    assert len(samples[0]) == len(samples[1])
    joined = own / 'joined.wav'
    soundfile.write(joined, np.concatenate(samples), RATE, subtype='PCM_16')
    seconds = len(samples[0]) / RATE
    windows = list(to_predict.windows(Clip('joined', joined), seconds, seconds))
    assert [(w.start, w.end) for w in windows] == [(0, pytest.approx(seconds)), (seconds, pytest.approx(2 * seconds))]
    for row, path in zip(predictor.predict(windows), pieces, strict=True):
        assert row.scores == pytest.approx(predictor(path).scores, abs=1e-5)


@pytest.mark.parametrize(
    ('total', 'window', 'hop', 'starts'),
    [(1.0, 3, 1, [0]), (3.0, 3, 1, [0]), (5.0, 3, 1, [0, 1, 2]), (4.5, 3, 1, [0, 1, 1.5]), (6.0, 3, 3, [0, 3])],
)
def test_windows_cover_the_whole_clip(tmp_path, total, window, hop, starts):
    clip = Clip('a', write_tone(tmp_path / 'a.wav', 0, total))
    found = list(to_predict.windows(clip, window, hop))
    assert [w.start for w in found] == starts
    assert found[-1].end == pytest.approx(total)


def test_a_failing_clip_is_one_line_and_the_rest_goes_on(own, tmp_path, capsys):
    shutil.copytree(own / 'media' / 's1', tmp_path / 'clips')
    (tmp_path / 'clips' / 'a_bad.wav').write_bytes(b'no sound')
    (tmp_path / 'clips' / 'notes.csv').write_text('not a clip')
    output = tmp_path / 'out'
    status = predict.main([str(own / 'run'), str(tmp_path / 'clips'), f'--output={output}', '--no_cache'])
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith('error: ')]
    assert status == 1
    assert len(errors) == 1
    assert 'a_bad.wav' in errors[0]
    rows = [json.loads(line) for line in (output / 'predictions.jsonl').read_text().splitlines()]
    assert next(row['id'] for row in rows) == 'a_bad.wav'
    assert 'error' in rows[0]
    assert len(rows) == 7
    assert all(len(row['models']) == FOLDS * SEEDS for row in rows[1:])
    with open(output / 'predictions.csv', newline='') as file:
        table = list(csv.DictReader(file))
    assert float(table[1]['calm']) == pytest.approx(rows[1]['scores']['calm'], rel=1e-5)
    assert 'clip_01.mp4: ' in shown.out
    assert '%' in shown.out


def test_a_table_with_times_and_a_timeline(own, tmp_path, capsys):
    (tmp_path / 'clips.csv').write_text('path,id,start,end\ns0/clip_12.wav,=cmd(),0,0.6\n')
    output = tmp_path / 'out'
    flags = [
        f'--csv={tmp_path / "clips.csv"}',
        f'--media={own / "media"}',
        f'--output={output}',
        '--fold=0',
        '--no_cache',
    ]
    assert predict.main([str(own / 'run'), *flags, '--window=0.3', '--hop=0.1', '--seed=0']) == 0
    assert len((output / 'predictions.jsonl').read_text().splitlines()) == 4
    assert (output / 'timeline_000_clip_12.png').stat().st_size > 10_000
    assert (output / 'predictions.csv').read_text().splitlines()[1].startswith("'=cmd()")  # no formula
    capsys.readouterr()


@pytest.mark.parametrize(
    ('words', 'status', 'message'),
    [
        ([], 2, 'nothing to predict'),
        (['a.wav', '--hop=1'], 2, '--hop needs --window'),
        (['a.wav', '--window=1', '--hop=2'], 2, 'sound between would be lost'),
        (['a.wav', '--features', 'smell=x'], 2, 'expected text=, audio= or vision='),
        (['a.wav', '--fold=7'], 1, 'has no fold 7; it has 0, 1, 2'),
        (['a.wav', '--seed=7'], 1, 'has no seed 7; it has 0, 1'),
        (['a.wav', '--calibrate'], 1, 'validation records are too few to calibrate on'),
    ],
)
def test_a_wrong_call_is_one_line(own, capsys, words, status, message):
    try:
        found = predict.main([str(own / 'run'), *words])
    except SystemExit as error:
        found = error.code
    assert found == status
    assert message in capsys.readouterr().err


def test_data_that_say_nothing_of_a_reader_are_refused(tiny, tmp_path):
    from tests.small_run import MeanModel, small_config

    train_and_evaluate(small_config(tiny), tmp_path / 'run', model=MeanModel())
    with pytest.raises(ValueError, match=r'which does not say how text, audio of a clip is read; prepare clips with'):
        load_predictor(tmp_path / 'run', model=MeanModel())


def test_calibration_finds_the_temperature_that_was_put_in():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((4000, 5)) * 2
    label = np.array([generator.choice(5, p=row) for row in softmax(logits, axis=-1)])
    assert calibration.temperature(3.0 * logits, label) == pytest.approx(3.0, rel=0.08)
    assert calibration.temperature(0.5 * logits, label) == pytest.approx(0.5, rel=0.08)
    pairs = np.stack([np.zeros(8000), 3.0 * generator.standard_normal(8000)], -1)
    truth = (generator.random(8000) < softmax(pairs / 3.0, axis=-1)[:, 1]).astype(int)
    assert calibration.fit('binary', pairs.reshape(4000, 4), truth.reshape(4000, 2)) == pytest.approx(3.0, rel=0.08)
    with pytest.raises(ValueError, match='only probabilities are calibrated'):
        calibration.fit('regression', logits, label)


def test_names_of_strangers_do_nothing_on_a_terminal_or_in_a_table():
    assert printable('a\x1b[2J\nb') == 'a\\x1b[2J\\nb'
    assert [cell(text) for text in ('=1+1', '@x', 'fine')] == ["'=1+1", "'@x", 'fine']


def test_a_folder_without_clips_is_named(tmp_path):
    with pytest.raises(ValueError, match='holds no sound, video or text file'):
        to_predict.find_clips([tmp_path])


def test_failures_keep_their_place(own, predictor):
    good = Clip('good', own / 'media' / 's0' / 'clip_06.wav')
    found = list(predictor.predict([Clip('gone', own / 'gone.wav'), good, Clip('none'), good], batch_size=2))
    assert [isinstance(row, Failure) for row in found] == [True, False, True, False]
