"""Published emotion checkpoints as they are: with their head, they say of a clip what PyTorch's original says."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from data_prep.convert_weights import huggingface
from data_prep.convert_weights.__main__ import main as convert
from mmer_jax import predict
from mmer_jax.media.audio import load_audio
from mmer_jax.prediction import exported, published_predictor
from tests import published_layouts as layouts
from tests.own_clips import write_tone

pytestmark = pytest.mark.skipif(importlib.util.find_spec('torch') is None, reason='torch, the oracle, is not installed')
SENTENCES = ('I am so glad today, what a film.', 'angry', 'a film of 2')


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp('clips')
    sound = [write_tone(folder / f'{n}.wav', n, seconds, n) for n, seconds in enumerate((0.9, 0.4, 0.7))]
    return {'sound': sound, 'pictures': [write_picture(folder / f'face_{n}.png', n) for n in range(2)]}


def write_picture(path, seed):
    Image.fromarray(np.random.default_rng(seed).integers(256, size=(32, 24, 3)).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """name -> (the original, the folder it was in, the converted folder); each is made once."""
    folder, made = tmp_path_factory.mktemp('published'), {}

    def make(name):
        if name not in made:
            model = layouts.write(folder / name, name)
            assert convert(['huggingface', '--source', str(folder / name), '--output', str(folder / 'as' / name)]) == 0
            made[name] = model, folder / name, folder / 'as' / name
        return made[name]

    return make


def answers(name, model, predictor, clips):
    """(ours, the original's) of the clips that the layout reads."""
    reads = layouts.LAYOUTS[name][3]
    if reads in ('bpe', 'words'):
        tokenizer, found = transformers_tokenizer(predictor), [predictor(text=text) for text in SENTENCES]
        inputs = [tokenizer(text)['input_ids'] for text in SENTENCES]
    else:
        files = clips[reads]
        found = [predictor(path) for path in files]
        if reads == 'sound':
            inputs = [load_audio(path, 16000)[0] for path in files]
        else:
            reader = predictor.readers[0]
            inputs = [np.asarray(reader.read(row.clip).array)[0] for row in found]
    return found, [layouts.scores(name, model, one) for one in inputs]


def transformers_tokenizer(predictor):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(predictor.readers[0].tokenizer, local_files_only=True)


@pytest.mark.parametrize('name', layouts.LAYOUTS)
def test_a_clip_is_answered_as_by_the_original(name, converted, clips, capsys):
    model, source, folder = converted(name)
    said = json.loads((folder / 'source.json').read_text())
    assert said['unused'] == said['not_read'] == said['fresh'] == []
    found, wanted = answers(name, model, published_predictor(folder), clips)
    for row, scores in zip(found, wanted, strict=True):
        assert list(row.scores) == list(scores)
        np.testing.assert_allclose(list(row.scores.values()), list(scores.values()), atol=2e-6, rtol=1e-5)
    assert np.ptp([list(scores.values()) for scores in wanted], axis=0).max() > 1e-3  # the clips are told apart
    capsys.readouterr()
    assert convert(['huggingface', '--source', str(source), '--output', str(folder), '--check']) == 0
    assert f'of {", ".join(layouts.LAYOUTS[name][2][:8])}, value by value' in capsys.readouterr().out


def test_labels_that_contradict_the_layer_and_settings_of_other_heads_are_refused(converted, tmp_path):
    model, source, _ = converted('audeering')

    def plan(weights=None, **changes):
        folder = tmp_path / f'{len(list(tmp_path.iterdir()))}'
        folder.mkdir()
        config = {**json.loads((source / 'config.json').read_text()), **changes}
        (folder / 'config.json').write_text(json.dumps(config))
        save_file(weights or load_file(source / 'model.safetensors'), folder / 'model.safetensors')
        return huggingface.plan(folder)

    assert plan().head.problem == 'regression'
    with pytest.raises(ValueError, match='has 2 labels in id2label .* gives 3 outputs: expected one label for each'):
        plan(id2label={'0': 'arousal', '1': 'valence'})
    with pytest.raises(ValueError, match='id2label = .*, expected each label once'):
        plan(id2label={'0': 'a', '1': 'a', '2': 'b'})
    with pytest.raises(ValueError, match='id2label = .*, expected labels of printable characters'):
        plan(id2label={'0': 'a', '1': 'b\x1b[2J', '2': 'c'})
    with pytest.raises(ValueError, match="pooling_mode = 'max', expected 'mean'"):
        plan(pooling_mode='max')
    with pytest.raises(ValueError, match="problem_type = 'ranking', expected one of single_label_classification"):
        plan(problem_type='ranking')
    weights = load_file(source / 'model.safetensors')
    named = {name.replace('out_proj.', 'output.') if 'classifier' in name else name: w for name, w in weights.items()}
    assert plan(named).head.name == 'classifier.output'
    assert plan(architectures=['Wav2Vec2ForCTC']).head is None
    del model


def test_weights_without_a_head_or_with_a_damaged_one_are_one_line(converted, tmp_path, capsys):
    _, _, folder = converted('superb_wav2vec2')
    for name in ('params.safetensors', 'source.json'):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(
        FileNotFoundError, match=r'has no head\.safetensors: the checkpoint is no classifier, or was con'
    ):
        published_predictor(tmp_path)
    save_file({'kernel': np.zeros((5, 3), np.float32), 'bias': np.zeros(3, np.float32)}, tmp_path / 'head.safetensors')
    with pytest.raises(ValueError, match=r'head\.safetensors is damaged: 4 labels .* outputs of shape \(3,\)'):
        published_predictor(tmp_path)
    save_file({'kernel': np.zeros((6, 4), np.float32), 'bias': np.zeros(4, np.float32)}, tmp_path / 'head.safetensors')
    assert predict.main([f'--pretrained={tmp_path}', 'a.wav', '--no_cache']) == 1
    shown = capsys.readouterr().err
    assert 'the head reads 6 values' in shown
    assert [line for line in shown.splitlines() if 'has no sums.json' not in line] == shown.splitlines()[-1:]


def test_the_command_takes_a_checkpoint_in_place_of_a_run(converted, clips, tmp_path, capsys):
    _, _, folder = converted('audeering')
    output = tmp_path / 'out'
    sound = [str(path) for path in clips['sound']]
    assert predict.main([f'--pretrained={folder}', *sound, str(tmp_path / 'gone.wav'), f'--output={output}']) == 1
    shown = capsys.readouterr()
    assert 'gone.wav: the clip is missing' in shown.err
    assert '0.wav: arousal ' in shown.out
    rows = [json.loads(line) for line in (output / 'predictions.jsonl').read_text().splitlines()]
    assert list(rows[0]['scores']) == layouts.VAD
    assert rows[0]['prediction'] is None
    assert (output / 'predictions.csv').read_text().startswith('id,path,start,end,prediction,arousal,dominance,valence')
    for words, message in (
        (['clip.wav'], 'nothing to predict: give clips'),
        ([f'--pretrained={folder}'], 'nothing to predict: give clips'),
        ([], 'nothing to predict with: give RUN, or --pretrained NAME'),
        ([f'--pretrained={folder}', 'a.wav', '--seed=0'], 'a pretrained checkpoint has none'),
        (['runs/mine', 'a.wav', '--crop=mtcnn'], '--crop is of --pretrained'),
    ):
        with pytest.raises(SystemExit, match='2'):
            predict.parse(words)
        assert message in capsys.readouterr().err


def test_an_exported_transformer_takes_texts_of_any_length_that_it_has_positions_for(converted):
    predictor = published_predictor(converted('distilbert_emotion')[2])
    program = exported.make_program(predictor)
    described = exported.describe(predictor, program)['inputs']['text']
    assert (described['steps'], described['longest'], described['least']) == (None, 32, 1)
    assert described['reader']['tokenizer'] == 'distilbert_emotion'  # its name, not its place on this machine
    assert program.difference < 1e-6
