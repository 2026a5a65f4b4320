"""A published checkpoint on a data set: labels mapped, what is left out said, metrics those of the mapped answers."""

import importlib.util

import numpy as np
import pytest

from data_prep import clips
from data_prep.convert_weights.__main__ import main as convert
from mmer_jax import evaluate, report
from mmer_jax.data.records import RecordSource
from mmer_jax.data.schema import Label
from mmer_jax.files import read_arrays, read_json
from mmer_jax.metrics import KINDS
from mmer_jax.prediction import on_records, published_predictor
from tests import published_layouts as layouts
from tests.own_clips import EMOTIONS, write_clips

MARK = 'pretrained, not trained on this data: overlap unknown'
LABELS = ['neu', 'hap', 'ang', 'sad']
TARGET = Label('classes', ('calm', 'angry', 'glad'))


def test_a_map_is_read_strictly_and_equal_names_need_none():
    assert on_records.read_map('hap=glad, neu=calm', LABELS, TARGET) == {'neu': 'calm', 'hap': 'glad'}
    assert on_records.read_map('b=calm', ['ANGRY', 'b'], TARGET) == {'ANGRY': 'angry', 'b': 'calm'}
    assert on_records.read_map('ANGRY=calm', ['ANGRY'], TARGET) == {'ANGRY': 'calm'}
    for text, message in (
        ('joy=glad', 'joy=glad: the checkpoint has the labels neu, hap, ang, sad'),
        ('hap=joy', 'hap=joy: the data set has the classes calm, angry, glad'),
        ('hap', 'hap: the data set has'),
        ('hap=glad,hap=calm', 'hap is mapped to glad before'),
        ('', r"no label of the checkpoint .* give --map 'neu=calm,\.\.\.'"),
    ):
        with pytest.raises(ValueError, match=message):
            on_records.read_map(text, LABELS, TARGET)
    with pytest.raises(ValueError, match='arousal, valence are mapped to one score'):
        on_records.read_map('arousal=score,valence=score', layouts.VAD, Label('regression'))


def test_what_has_no_class_is_dropped_and_the_rest_sums_to_one():
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.0, 0.5]])
    mapping = {'neu': 'calm', 'hap': 'glad', 'ang': 'glad'}
    found = np.exp(on_records.mapped(scores, LABELS, mapping, TARGET))
    np.testing.assert_allclose(found, [[1 / 6, 0, 5 / 6], [1, 0, 0]], atol=1e-6)


def test_emotions_that_come_together_take_the_most_probable_of_their_labels():
    target = Label('binary', ('happy', 'sad'))
    scores = np.array([[0.9, 0.2, 0.1, 0.3]])
    found = on_records.mapped(scores, LABELS, {'neu': 'happy', 'hap': 'happy', 'sad': 'sad'}, target)
    np.testing.assert_allclose(np.exp(found), [[0.1, 0.9, 0.7, 0.3]], atol=1e-6)
    numbers = on_records.mapped(scores, LABELS, {'sad': 'score'}, Label('regression'))
    np.testing.assert_allclose(numbers, [[0.3]], atol=1e-6)


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """18 clips in media/, their table, classes in waves/ and numbers in numbers/."""
    folder = tmp_path_factory.mktemp('own')
    table = write_clips(folder, videos=0)
    common = [f'--csv={table}', f'--media={folder / "media"}', '--vision=none', '--workers=0']
    assert clips.main([*common, f'--output={folder / "waves"}', '--audio=waveform']) == 0
    return folder


@pytest.fixture(scope='module')
def weights(own):
    if importlib.util.find_spec('torch') is None:
        pytest.skip('torch, the oracle, is not installed')
    for name in ('superb_wav2vec2', 'distilbert_emotion', 'audeering'):
        layouts.write(own / name, name)
        assert convert(['huggingface', '--source', str(own / name), '--output', str(own / 'as' / name)]) == 0
    return own / 'as'


def test_the_metrics_are_those_of_the_clips_own_answers(own, weights, tmp_path, capsys):
    output = tmp_path / 'out'
    flags = [f'--pretrained={weights / "superb_wav2vec2"}', f'--data={own / "waves"}', f'--output={output}']
    assert evaluate.main([*flags, '--map', 'neu=calm,ang=angry', '--no_cache']) == 0
    shown = capsys.readouterr().out
    assert 'note: map: neu=calm, ang=angry' in shown
    assert 'note: not mapped: hap, sad: left out, ' in shown
    assert 'note: never predicted, for no label is mapped to it: glad' in shown
    assert f'note: {MARK}' in shown
    assert 'floor of uar 0.3333' in shown
    source = RecordSource(own / 'waves')
    predictor = published_predictor(weights / 'superb_wav2vec2')
    files = [next((own / 'media').rglob(f'{str(name).rpartition("/")[2]}*')) for name in source.manifest['id']]
    answers = np.array([[predictor(path).scores[label] for label in ('neu', 'ang')] for path in files])
    saved = read_arrays(output / 'predictions' / 'test.npz', ['prediction', 'label', 'id'])
    names = source.schema.label.names
    places = [names.index('calm'), names.index('angry')]
    np.testing.assert_allclose(
        np.exp(saved['prediction'][0][:, places]), answers / answers.sum(1, keepdims=True), rtol=1e-4
    )
    (row,) = (results := read_json(output / 'results.json'))['rows']
    wanted = KINDS['classification'].measure(saved['prediction'][0], saved['label'], names=names)
    assert row['test']['accuracy'] == pytest.approx(wanted['accuracy'])
    assert row['marks'] == [MARK]
    assert results['protocol'] == f'pretrained: {source.schema.name}'
    assert report.main([str(output), f'--output={tmp_path / "report"}']) == 0
    assert MARK in (tmp_path / 'report' / 'report.md').read_text()
    assert evaluate.main([*flags, '--map', 'neu=calm', '--no_cache']) == 0  # its own files are replaced


def test_words_are_cut_anew_by_the_checkpoints_tokenizer(own, weights, capsys):
    predictor = published_predictor(weights / 'distilbert_emotion')
    results, remarks = on_records.evaluate_published(predictor, own / 'waves', 'joy=glad,anger=angry')
    assert results['modalities'] == ['text']
    assert 'never predicted' in ' '.join(remarks)
    assert set(EMOTIONS) == set(results['class_names'])


def test_records_of_another_kind_are_one_line(own, weights, tmp_path, capsys):
    def fails(*words):
        assert evaluate.main([*words, '--no_cache']) == 1
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        return error

    data = f'--data={own / "waves"}'
    assert 'gives numbers, and the labels of the data set are classes' in fails(
        f'--pretrained={weights / "audeering"}', data, '--map', 'valence=calm'
    )
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'results.json').write_text('{}')
    assert 'was not made by this command' in fails(
        f'--pretrained={weights / "superb_wav2vec2"}', data, '--map=neu=calm', f'--output={foreign}'
    )
    table = [f'--csv={own / "labels.csv"}', f'--media={own / "media"}', '--vision=none', '--workers=0']
    assert clips.main([*table, f'--output={tmp_path / "mfcc"}', '--audio=mfcc', '--num_mfcc=8']) == 0
    capsys.readouterr()
    assert 'the checkpoint reads int16 (None,) (16000 Hz mono' in fails(
        f'--pretrained={weights / "superb_wav2vec2"}', f'--data={tmp_path / "mfcc"}', '--map=neu=calm'
    )


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'nothing to evaluate: give a run, or --pretrained NAME'),
        (['--pretrained=x'], 'leave the run and its flags out'),
        (['runs/mine', '--pretrained=x', '--data=d'], 'leave the run and its flags out'),
        (['--pretrained=x', '--data=d', '--fold=0'], 'leave the run and its flags out'),
        (['runs/mine', '--map=a=b'], '--map says what the labels of --pretrained are called here'),
    ],
)
def test_wrong_calls(words, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        evaluate.parse(words)
    assert message in capsys.readouterr().err
