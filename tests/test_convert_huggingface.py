"""Folders that do not fit, settings that change the input, and the check of what was converted. No torch."""

import json
import pickle

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from configs import encoders
from data_prep import restricted_pickle
from data_prep.convert_weights import huggingface, huggingface_names, torch_files
from data_prep.convert_weights.__main__ import main
from data_prep.convert_weights.huggingface_settings import Settings, read_json
from mmer_jax import pretrained
from mmer_jax.encoders.convolution import scale_images
from mmer_jax.encoders.vit import Ast
from mmer_jax.media import audio, download
from mmer_jax.models import build_model
from tests.golden import make_transformers as golden
from tests.test_transformers_parity import write_case

POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 231508\n'
DENSE = 'bert.encoder.layer.0.intermediate.dense.weight'


@pytest.fixture(scope='module')
def stored():
    with np.load(golden.PATH) as file:
        return dict(file)


@pytest.fixture
def folder_of(stored, tmp_path):
    def make(case):
        return write_case(tmp_path / case, stored, case)

    return make


def configure(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change(folder, **arrays):
    """Tensors replaced, by a function of the old one or by a value; None drops one."""
    path = folder / 'model.safetensors'
    weights = load_file(path)
    for name, new in arrays.items():
        name = DENSE if name == 'dense' else name
        new = new(weights[name]) if callable(new) else new
        if new is None:
            del weights[name]
        else:
            weights[name] = new
    save_file(weights, path)


def index(text):
    def edit(folder):
        (folder / 'model.safetensors').unlink()
        (folder / 'model.safetensors.index.json').write_text(text)

    return edit


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


SCB = {'bert.encoder.layer.0.intermediate.dense.SCB': np.ones(12, np.float32)}
DISTANCE = {'bert.encoder.layer.1.attention.self.distance_embedding.weight': np.ones((3, 3), np.float32)}
FAULTS = {
    'rows': (
        lambda f: configure(f, vocab_size=99),
        r'model.safetensors: bert.embeddings.word_embeddings.weight has shape (20, 8), ',
        'config.json asks for (99, 8)',
    ),
    'width': (lambda f: configure(f, hidden_size=16), 'config.json asks for (20, 16)', ' more'),
    'cut': (lambda f: change(f, dense=lambda w: w[:, :5].copy()), f'{DENSE} has shape (12, 5)', 'asks for (12, 8)'),
    'flat': (lambda f: change(f, dense=lambda w: w.ravel()), f'{DENSE} has shape (96,)', 'asks for (12, 8)'),
    'nan': (
        lambda f: change(f, dense=lambda w: np.where(w == w[0, 0], np.nan, w)),
        f'model.safetensors: {DENSE} has 1 of 96 values that are not finite',
    ),
    'infinite in float32': (lambda f: change(f, dense=lambda w: w.astype(np.float64) * 1e60), 'are not finite'),
    'layer left over': (
        lambda f: configure(f, num_hidden_layers=1),
        'holds bert.encoder.layer.1.',
        'config.json has 1 layers',
    ),
    'unknown in a layer': (lambda f: change(f, **DISTANCE), 'distance_embedding.weight, which the bert encoder does'),
    'int8': (lambda f: change(f, dense=lambda w: w.astype(np.int8)), f'{DENSE} holds I8', 'quantised'),
    'int8 and scale': (lambda f: change(f, dense=lambda w: w.astype(np.int8), **SCB), 'dense.SCB', 'quantised'),
    'float8': (lambda f: change(f, dense=lambda w: w.astype(ml_dtypes.float8_e4m3fn)), f'{DENSE} holds F8', 'quanti'),
    'quantised': (
        lambda f: configure(f, quantization_config={'load_in_8bit': True}),
        'config.json has quantization_config',
    ),
    'heads': (lambda f: configure(f, num_attention_heads=3), 'config.json make no bert network', '3 attention heads'),
    'no object': (text('config.json', '[]'), 'config.json holds a JSON list'),
    'no JSON': (text('config.json', '{'), 'config.json cannot be read as JSON'),
    'pointer': (text('config.json', POINTER), 'config.json: git-LFS pointer'),
    'null': (lambda f: configure(f, num_hidden_layers=None), 'config.json has num_hidden_layers = None, expected'),
    'string': (lambda f: configure(f, num_hidden_layers='2'), "config.json has num_hidden_layers = '2', expected"),
    'zero': (lambda f: configure(f, hidden_size=0), 'hidden_size = 0, expected a whole number of 1 or more'),
    'true': (lambda f: configure(f, vocab_size=True), 'vocab_size = True, expected a whole number'),
    'list': (lambda f: configure(f, hidden_act=['gelu']), "config.json has hidden_act = ['gelu'], expected one of"),
    'rate': (lambda f: configure(f, hidden_dropout_prob='x'), "hidden_dropout_prob = 'x', expected a number"),
    'kind': (lambda f: configure(f, model_type=['bert']), "model_type ['bert']; the known ones are"),
    'index of no object': (index('[]'), 'model.safetensors.index.json holds a JSON list'),
    'no map': (index('{"weight_map": null}'), 'index.json has weight_map = None, expected the file'),
    'list as map': (index('{"weight_map": ["a"]}'), "index.json has weight_map = ['a'], expected the file"),
    'numbers in map': (index('{"weight_map": {"a": 3}}'), "index.json has weight_map = {'a': 3}, expected the file"),
    'weights': (text('model.safetensors', POINTER), 'model.safetensors: git-LFS pointer', "'git lfs pull'"),
    'page': (text('model.safetensors', '<!DOCTYPE html>'), 'model.safetensors: HTML page'),
    'tokenizer': (text('vocab.txt', POINTER), 'vocab.txt: git-LFS pointer'),
    'preprocessor': (text('preprocessor_config.json', '[1]'), 'preprocessor_config.json holds a JSON list'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_folder_that_does_not_fit_ends_in_one_sentence(name, folder_of, tmp_path, capsys):
    folder = folder_of('bert')
    edit, *words = FAULTS[name]
    edit(folder)
    assert main(['huggingface', '--source', str(folder), '--output', str(tmp_path / 'out')]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith('error: ')
    assert printed.count('\n') == 1
    assert str(folder) in printed
    for word in words:
        assert word in printed
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('case', golden.CASES)
def test_any_tensor_of_another_shape_is_refused(case, folder_of, monkeypatch):
    """Every parameter of every kind is compared with the encoder's."""
    folder = folder_of(case)
    made, weights = huggingface.plan(folder), load_file(folder / 'model.safetensors')
    longer = {name: np.concatenate([w, w], -1) for name, w in weights.items() if name in made.taken.values()}
    save_file({**weights, **longer}, folder / 'model.safetensors')
    monkeypatch.setattr(huggingface, 'SHOWN', len(weights))
    with pytest.raises(ValueError, match='config.json asks for') as error:
        huggingface.convert(folder)
    # A projector's width is read from its bias, so that one fits itself.
    kept = {original for ours, original in made.taken.items() if ours == 'projector/bias'}
    assert {name for name in longer if f' {name} has shape' not in str(error.value)} == kept


# Sizes of the checkpoint in the configs


@pytest.mark.parametrize(
    ('case', 'fields', 'head'),
    [
        ('bert', encoders.BERT, 'bert.pooler.'),
        ('roberta', encoders.ROBERTA, 'classifier.dense.'),
        ('distilbert', encoders.DISTILBERT, 'pre_classifier.'),
    ],
)
def test_the_projector_of_the_configs_is_as_wide_as_the_checkpoint(case, fields, head, folder_of, tmp_path):
    """8 values here, not the 768 of the base models; a checkpoint without the layer begins it anew."""
    folder = folder_of(case)
    for output, fresh in (('whole', ()), ('headless', ('projector/',))):
        if fresh:
            weights = load_file(folder / 'model.safetensors')
            kept = {name: w for name, w in weights.items() if not name.startswith(head)}
            assert len(kept) == len(weights) - 2
            save_file(kept, folder / 'model.safetensors')
        assert main(['huggingface', '--source', str(folder), '--output', str(tmp_path / output)]) == 0
        model = {'name': 'unimodal', 'encoder': dict(fields)}
        filled = pretrained.fill_fields(model, {'encoder': str(tmp_path / output)})
        assert filled['encoder']['projector'] == 8
        built = build_model(filled, modalities=('text',), num_outputs=4, dtype=np.float32)
        batch = {'text': np.ones((1, 4), np.int32), 'text_mask': np.ones((1, 4), bool)}
        shapes = jax.eval_shape(lambda: built.init(jax.random.key(0), batch, train=False))  # noqa: B023
        variables = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), shapes)
        loaded, source = pretrained.load_pretrained(tmp_path / output)
        assert source['fresh'] == [f'params/projector/{name}' for name in ('kernel', 'bias') if fresh]
        after = pretrained.graft(variables, loaded, path='encoder', fresh=fresh)['params']
        assert bool(after['encoder']['projector']['kernel'].any()) == (not fresh)
        if fresh:
            with pytest.raises(ValueError, match='projector/kernel is in the model, but not loaded'):
                pretrained.graft(variables, loaded, path='encoder')


# Settings of the input


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('rescale', [{}, {'do_rescale': False}, {'rescale_factor': 0.1}])
def test_pictures_are_scaled_as_the_preprocessor_says(normalize, rescale):
    values = {'do_normalize': normalize, 'image_mean': [0.1, 0.2, 0.3], 'image_std': [0.5, 0.6, 0.7], **rescale}
    x = np.random.default_rng(0).integers(256, size=(2, 4, 4, 3)).astype(np.uint8)
    wanted = x.astype(np.float32)
    if rescale.get('do_rescale', True):
        wanted = wanted * rescale.get('rescale_factor', 1 / 255)
    if normalize:
        wanted = (wanted - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    for kind, fields in (('vit', huggingface_names.vit_fields), ('videomae', huggingface_names.videomae_fields)):
        made = fields(Settings('config.json', {'model_type': kind}), Settings('preprocessor_config.json', values))
        np.testing.assert_allclose(scale_images(x, made['mean'], made['std'], np.float32), wanted, rtol=1e-5, atol=1e-5)


def test_preprocessors_that_say_nothing_or_nonsense(folder_of):
    folder = folder_of('vit')
    assert 'mean' not in huggingface.plan(folder).fields
    for values, message in (
        ({'image_mean': [0.5]}, r'image_mean = \[0.5\], expected three numbers'),
        ({'image_std': [0.5, 0.5, 0]}, 'expected numbers above 0'),
        ({'do_normalize': 'no'}, "do_normalize = 'no', expected true or false"),
    ):
        (folder / 'preprocessor_config.json').write_text(json.dumps(values))
        with pytest.raises(ValueError, match=f'preprocessor_config.json has .*{message}'):
            huggingface.plan(folder)


def test_the_filterbank_is_left_as_it_is_without_normalisation(folder_of):
    folder = folder_of('ast')
    path = folder / 'preprocessor_config.json'
    path.write_text(json.dumps({'do_normalize': False, 'mean': -4.2, 'std': 4.5, 'num_mel_bins': 14}))
    encoder = Ast(**huggingface.plan(folder).fields)
    x = np.random.default_rng(0).standard_normal((1, 20, 14)).astype(np.float32)
    found, _ = encoder.apply({}, x, np.ones((1, 20), bool), method='spectrogram')
    np.testing.assert_allclose(found, x, atol=1e-6)
    path.write_text(json.dumps({'mean': -4.2, 'std': 4.5}))
    found, _ = Ast(**huggingface.plan(folder).fields).apply({}, x, np.ones((1, 20), bool), method='spectrogram')
    np.testing.assert_allclose(found, (x + 4.2) / 9, atol=1e-6)
    for values, message in (({'sampling_rate': 8000}, 'sampling_rate = 8000'), ({'num_mel_bins': 64}, 'bins = 64')):
        path.write_text(json.dumps(values))
        with pytest.raises(ValueError, match=f'preprocessor_config.json has .*{message}, expected'):
            huggingface.plan(folder)


def test_the_epsilon_of_the_configuration_is_that_of_the_pooling_too(folder_of):
    folder = folder_of('ast')
    configure(folder, layer_norm_eps=0.1)
    made = huggingface.convert(folder)
    params = traverse_util.unflatten_dict(made.arrays, sep='/')
    h = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    found = Ast(**made.fields).apply(params, h, np.ones((2, 5), bool), train=False, method='pool')
    mean = (h[:, 0] + h[:, 1]) / 2
    norm = (mean - mean.mean(1, keepdims=True)) / np.sqrt(mean.var(1, keepdims=True) + 0.1)
    weights = load_file(folder / 'model.safetensors')
    wanted = norm * weights['classifier.layernorm.weight'] + weights['classifier.layernorm.bias']
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_settings_inside_a_processor(folder_of, tmp_path):
    """transformers 5 writes the feature extractor into processor_config.json; it is kept beside the weights."""
    folder = folder_of('wav2vec2_large')
    path = folder / 'processor_config.json'
    assert huggingface.plan(folder).fields['normalize'] is True
    extractor = {'do_normalize': False, 'sampling_rate': 16000}
    path.write_text(json.dumps({'feature_extractor': extractor, 'processor_class': 'Wav2Vec2Processor'}))
    assert main(['huggingface', '--source', str(folder), '--output', str(tmp_path / 'out')]) == 0
    assert pretrained.read_source(tmp_path / 'out')['fields']['normalize'] is False
    assert (tmp_path / 'out' / 'processor_config.json').read_bytes() == path.read_bytes()
    path.write_text(json.dumps({'feature_extractor': {'sampling_rate': 8000}}))
    with pytest.raises(ValueError, match=r'processor_config.json \(feature_extractor\) has sampling_rate = 8000'):
        huggingface.plan(folder)
    path.write_text(json.dumps({'feature_extractor': 3}))
    with pytest.raises(ValueError, match='processor_config.json has feature_extractor = 3'):
        huggingface.plan(folder)


@pytest.mark.parametrize('key', ['qkv_bias', 'qv_bias'])
def test_both_names_of_videomaes_biases(key, folder_of):
    folder = folder_of('videomae')
    config = json.loads((folder / 'config.json').read_text())
    config.pop('qv_bias', None)
    (folder / 'config.json').write_text(json.dumps({**config, key: False}))
    weights = load_file(folder / 'model.safetensors')
    kept = {name: w for name, w in weights.items() if not name.endswith(('q_bias', 'v_bias'))}
    assert len(kept) == len(weights) - 4
    with pytest.raises(ValueError, match='_bias, which the videomae encoder does not have'):
        huggingface.plan(folder)
    save_file(kept, folder / 'model.safetensors')
    assert huggingface.plan(folder).fields['qkv_bias'] is False


# The check command, and what a failed download looks like


def test_the_check_compares_family_and_fields_and_names_a_damaged_file(folder_of, tmp_path, capsys):
    folder, output = folder_of('bert'), tmp_path / 'out'
    command = ['huggingface', '--source', str(folder), '--output', str(output)]
    assert main(command) == 0
    assert main([*command, '--check']) == 0
    (output / 'sums.json').unlink()  # they would tell before the comparison does
    source = json.loads((output / 'source.json').read_text())
    for changes, message in (
        ({'family': 'roberta'}, "source.json has family 'roberta', the original gives 'bert'"),
        ({'fields': {**source['fields'], 'epsilon': 0.5}}, 'source.json has epsilon = 0.5, the original gives 1e-12'),
        ({'fields': {**source['fields'], 'num_heads': 4}}, 'source.json has num_heads = 4, the original gives 2'),
        ({'fields': {**source['fields'], 'remat': True}}, 'source.json has remat = True, the original gives nothing'),
    ):
        (output / 'source.json').write_text(json.dumps({**source, **changes}))
        assert main([*command, '--check']) == 1
        printed = capsys.readouterr()
        assert message in printed.err
        assert '1 differences' in printed.out
    for damaged in ('[]', '{"fields": 3}', '{'):
        (output / 'source.json').write_text(damaged)
        assert main([*command, '--check']) == 1
        assert 'source.json is damaged' in capsys.readouterr().err
    (output / 'source.json').write_text(json.dumps(source))
    whole = (output / 'params.safetensors').read_bytes()
    (output / 'params.safetensors').write_bytes(whole[:-5])
    assert main([*command, '--check']) == 1
    assert 'params.safetensors is damaged' in capsys.readouterr().err


READERS = {
    'text': lambda path: download.check_download(path, 'words'),
    'sound': audio.check_file,
    'pickle': restricted_pickle.load,
    'torch': torch_files.open_checkpoint,
    'json': read_json,
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (POINTER.encode(), 'git-LFS pointer'),
        (b'\xef\xbb\xbf\r\n <HTML>', 'HTML page'),
        (b'<!doctype html>', 'HTML page'),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', 'XML page'),
        (b'\x1f\x8b\x08', 'gzip file'),
        (b'PK\x03\x04', 'zip archive'),
    ],
)
def test_every_reader_knows_what_a_failed_download_leaves(reader, content, reason, tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(content)
    if (reader, reason) == ('torch', 'zip archive'):
        reason = 'no file of torch.save, or damaged'  # such files are zip archives
    with pytest.raises(ValueError, match=f'{path}.* {reason}'):
        READERS[reader](path)
    path.write_bytes(pickle.dumps({'a': 1}, 2))
    assert download.find_failure(path.read_bytes()) is None
