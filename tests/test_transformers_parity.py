"""The pretrained transformers against Hugging Face's: states, pooled features, every gradient, through the converter.

Golden weights and results need no torch; live ones, with other weights, are compared where torch is installed.
"""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from data_prep.convert_weights import huggingface, huggingface_check
from mmer_jax.encoders.bert import Bert, DistilBert, Roberta
from mmer_jax.encoders.vit import Ast, VideoMae, Vit
from mmer_jax.encoders.wav2vec2 import Hubert, Wav2Vec2
from mmer_jax.pretrained import graft, save_pretrained
from tests.golden import make_transformers as golden

ENCODERS = {
    'bert': Bert,
    'roberta': Roberta,
    'distilbert': DistilBert,
    'wav2vec2': Wav2Vec2,
    'hubert': Hubert,
    'vit': Vit,
    'ast': Ast,
    'videomae': VideoMae,
}
# Fields that the files do not decide: the golden inputs are normalised already.
GIVEN = {
    'wav2vec2': {'normalize': False},
    'hubert': {'normalize': False},
    'ast': {'mean': 0.0, 'std': 0.5},
}
CASES = list(golden.CASES)
TORCH = importlib.util.find_spec('torch')
_compiled = {}


def encoder_of(case, folder):
    """The encoder that the folder's configuration asks for, and its variables."""
    made = huggingface.convert(folder)
    over_padding = {'norm_over_padding': True} if case == 'wav2vec2_padded' else {}
    encoder = ENCODERS[made.family](**{**made.fields, **GIVEN.get(made.family, {}), **over_padding})
    assert made.fresh == ()
    return encoder, traverse_util.unflatten_dict(made.arrays, sep='/')


def forward(module, x, mask, *, train=False):
    """Everything a model calls, so that init makes all parameters."""
    states, mask_BT = module.states(x, mask, train=train)
    features = module(x, mask, train=train)[0] if module.layer_sum else states[-1]
    return jnp.stack(states), mask_BT, module.pool(features, mask_BT, train=train)


def states_and_gradient(case, encoder, variables):
    """Compiled once a case, shared by golden and live weights."""
    if case not in _compiled:
        x, mask = golden.inputs(golden.CASES[case][2])

        def loss(params):
            states, mask_BT, pooled = encoder.apply({'params': params}, x, mask, method=forward)
            states = jnp.where(mask_BT[None, ..., None], states, 0)
            return (states[-1] * golden.cotangent(states[-1].shape)).sum(), (states, mask_BT, pooled)

        _compiled[case] = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, outputs), gradient = _compiled[case](variables['params'])
    return *map(np.asarray, outputs), traverse_util.flatten_dict(gradient, sep='/')


def check(case, folder, states, pooled, gradient_folder):
    """States to 1e-4, pooled features to 1e-5, and every parameter's gradient to 1e-3 of the largest of its tensor.

    The gradient is read from a folder of gradients under the names of the weights: the converter's map is linear.
    """
    encoder, variables = encoder_of(case, folder)
    got, mask, got_pooled, gradient = states_and_gradient(case, encoder, variables)
    np.testing.assert_array_equal(mask, golden.valid_steps(case, mask.shape[1]))
    np.testing.assert_allclose(got, states, atol=1e-4, rtol=1e-4)
    assert (pooled is None) == (case not in golden.HEADS)
    if pooled is not None:
        np.testing.assert_allclose(got_pooled, pooled, atol=1e-5, rtol=1e-5)
    _, wanted = encoder_of(case, gradient_folder)
    wanted = traverse_util.flatten_dict(wanted['params'], sep='/')
    assert gradient.keys() == wanted.keys()
    reached = 0
    for name, array in wanted.items():
        scale = max(np.abs(array).max(), 1e-3)
        np.testing.assert_allclose(gradient[name] / scale, array / scale, atol=1e-3, err_msg=name)
        reached += np.abs(array).max() > 0
    assert reached >= len(wanted) - 5  # the pooling has no part in this loss, nor has the vector of hidden frames


def write_case(folder, stored, case, kind='weights'):
    """A stored case as a folder of Hugging Face."""
    config, names, shapes, flat = (stored[f'{case}/{key}'] for key in ('config', 'names', 'shapes', kind))
    folder.mkdir()
    (folder / 'config.json').write_text(str(config))
    weights, place = {}, 0
    for name, shape in zip(names.tolist(), shapes.tolist(), strict=True):
        shape = [size for size in shape if size]
        size = int(np.prod(shape))
        weights[name] = flat[place : place + size].astype(np.float32).reshape(shape)
        place += size
    assert place == len(flat)
    save_file(weights, folder / 'model.safetensors')
    return folder


@pytest.fixture(scope='module')
def stored():
    with np.load(golden.PATH) as file:
        return dict(file)


@pytest.fixture
def folder_of(stored, tmp_path):
    def make(case, kind='weights'):
        return write_case(tmp_path / f'{case}_{kind}', stored, case, kind)

    return make


@pytest.mark.parametrize('case', CASES)
def test_golden(case, stored, folder_of):
    wanted = stored[f'{case}/states'], stored.get(f'{case}/pooled')
    check(case, folder_of(case), *wanted, folder_of(case, 'gradient'))


@pytest.mark.skipif(TORCH is None, reason='torch, the oracle, is not installed')
@pytest.mark.parametrize('case', CASES)
def test_live(case, tmp_path):
    model = golden.build(case, seed=1)
    golden.save(model, tmp_path / 'weights')
    pooled = golden.pooled(case, model)
    states = golden.reference(case, model)
    golden.save(model, tmp_path / 'gradient')
    check(case, tmp_path / 'weights', states, pooled, tmp_path / 'gradient')


@pytest.mark.parametrize('case', CASES)
def test_converted_parameters_are_those_of_the_encoder(case, folder_of):
    encoder, variables = encoder_of(case, folder_of(case))
    x, mask = golden.inputs(golden.CASES[case][2])
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), x, mask, method=forward))
    grafted = graft({'params': {'encoder': shapes['params']}}, variables, path='encoder')
    assert jax.tree.structure(grafted['params']['encoder']) == jax.tree.structure(dict(shapes['params']))


def test_heads(folder_of):
    """The last layer is the head; what a classifier reads in front of it is the encoder's; the rest is named."""
    plans = {case: huggingface.plan(folder_of(case)) for case in CASES}
    heads = {case: made.head.name for case, made in plans.items() if made.head}
    assert heads == {case: name for case, name in golden.HEADS.items() if name}
    assert {plans[case].unused for case in heads} == {()}
    assert plans['bert'].head.labels == ('LABEL_0', 'LABEL_1')
    assert plans['hubert'].unused == plans['wav2vec2_padded'].unused == ()
    assert 'quantizer.codevectors' in plans['wav2vec2_large'].unused


def test_pooling_of_the_classifiers(folder_of):
    """The heads of the originals, by hand: BERT's pooler, DistilBERT's first layer, wav2vec 2.0's projector."""
    cases = (
        ('bert', 'tanh', 'bert.pooler.dense'),
        ('roberta', 'tanh', 'classifier.dense'),
        ('distilbert', 'relu', 'pre_classifier'),
        ('wav2vec2', 'linear', 'projector'),
    )
    functions = {'tanh': np.tanh, 'relu': lambda x: np.maximum(x, 0), 'linear': lambda x: x}
    for case, function, name in cases:
        folder = folder_of(case)
        encoder, variables = encoder_of(case, folder)
        weights = load_file(folder / 'model.safetensors')
        features = np.random.default_rng(2).standard_normal((3, 10, 8)).astype(np.float32)
        mask = np.arange(10)[None] < np.array([[7], [4], [10]])
        pooled = encoder.apply(variables, features, mask, train=False, method='pool')
        read = features[:, 0]
        if function == 'linear':
            read = np.stack([row[valid].mean(0) for row, valid in zip(features, mask, strict=True)])
        wanted = functions[function](read @ weights[f'{name}.weight'].T + weights[f'{name}.bias'])
        np.testing.assert_allclose(pooled, wanted, atol=1e-5, err_msg=case)


# The converter


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_without_prefix_with_old_names_and_in_shards(folder_of, tmp_path):
    folder = folder_of('bert')
    wanted = huggingface.convert(folder)
    weights = load_file(folder / 'model.safetensors')
    old = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
    plain = {}
    for name, array in weights.items():
        for new, previous in old.items():
            name = name.replace(new, previous)
        plain[name.removeprefix('bert.')] = array
    plain['embeddings.position_ids'] = np.arange(12)[None]
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'config.json').write_bytes((folder / 'config.json').read_bytes())
    names = sorted(plain)
    parts = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
    for file, part in parts.items():
        save_file({name: plain[name] for name in part}, other / file)
    index = {'weight_map': {name: file for file, part in parts.items() for name in part}}
    (other / 'model.safetensors.index.json').write_text(json.dumps(index))
    got = huggingface.convert(other)
    assert got.fields == wanted.fields
    assert got.unused == ()
    assert_same(got.arrays, wanted.arrays)
    assert set(got.origin['sha256']) == {'a.safetensors', 'b.safetensors', 'config.json'}
    (other / 'b.safetensors').unlink()
    with pytest.raises(ValueError, match='b.safetensors'):
        huggingface.convert(other)


def test_old_names_of_weight_normalisation(folder_of):
    folder = folder_of('hubert')
    wanted = huggingface.convert(folder).arrays
    weights = load_file(folder / 'model.safetensors')
    stem = 'encoder.pos_conv_embed.conv.'
    for new, old in (
        ('parametrizations.weight.original0', 'weight_g'),
        ('parametrizations.weight.original1', 'weight_v'),
    ):
        weights[stem + old] = weights.pop(stem + new)
    save_file(weights, folder / 'model.safetensors')
    got = huggingface.convert(folder)
    assert got.unused == ()
    assert_same(got.arrays, wanted)


@pytest.mark.skipif(TORCH is None, reason='torch, the oracle, is not installed')
def test_files_of_torch(folder_of):
    import torch

    folder = folder_of('roberta')
    wanted = huggingface.convert(folder)
    weights = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / 'pytorch_model.bin')
    got = huggingface.convert(folder)
    assert got.unused == wanted.unused
    assert_same(got.arrays, wanted.arrays)


def test_bfloat16_files_become_float32(folder_of):
    import ml_dtypes

    folder = folder_of('vit')
    wanted = huggingface.convert(folder).arrays
    weights = load_file(folder / 'model.safetensors')
    save_file({name: array.astype(ml_dtypes.bfloat16) for name, array in weights.items()}, folder / 'model.safetensors')
    got = huggingface.convert(folder).arrays
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-2, err_msg=name)


def test_a_missing_head_layer_is_fresh(folder_of):
    for case, dropped in (('videomae', 'fc_norm'), ('ast', 'classifier.layernorm')):
        folder = folder_of(case)
        weights = load_file(folder / 'model.safetensors')
        kept = {name: array for name, array in weights.items() if not name.startswith(dropped)}
        save_file(kept, folder / 'model.safetensors')
        assert huggingface.convert(folder).fresh == ('params/pool_norm/scale', 'params/pool_norm/bias')


def test_errors_name_what_does_not_fit(folder_of):
    folder = folder_of('bert')
    config = json.loads((folder / 'config.json').read_text())

    def with_config(**changes):
        (folder / 'config.json').write_text(json.dumps({**config, **changes}))
        return folder

    with pytest.raises(ValueError, match=r'lacks 16 tensors.*encoder\.layer\.2\.'):
        huggingface.convert(with_config(num_hidden_layers=3))
    with pytest.raises(ValueError, match="model_type 'gpt2'; the known ones are bert"):
        huggingface.convert(with_config(model_type='gpt2'))
    with pytest.raises(ValueError, match='are not those of a vit model'):
        huggingface.convert(with_config(model_type='vit', image_size=16))
    with pytest.raises(ValueError, match="position_embedding_type = 'relative_key'"):
        huggingface.convert(with_config(position_embedding_type='relative_key'))
    with pytest.raises(ValueError, match="hidden_act = 'mish'"):
        huggingface.convert(with_config(hidden_act='mish'))
    (folder / 'model.safetensors').write_bytes(b'version https://git-lfs')
    with pytest.raises(ValueError, match=r"model\.safetensors: git-LFS pointer; .*'git lfs pull'"):
        huggingface.convert(folder)
    (folder / 'model.safetensors').write_bytes(b'\x08' + bytes(7) + b'{}      ' + bytes(3))
    with pytest.raises(ValueError, match=r'model\.safetensors is damaged'):
        huggingface.convert(folder)
    (folder / 'model.safetensors').unlink()
    with pytest.raises(ValueError, match='has no weights'):
        huggingface.convert(folder)


def test_verify_and_files_beside(folder_of, tmp_path):
    folder = folder_of('hubert_large')
    (folder / 'preprocessor_config.json').write_text('{"do_normalize": false}')
    (folder / 'vocab.json').write_text('{}')
    made = huggingface.convert(folder)
    assert made.fields['normalize'] is False
    flat = dict(made.arrays)
    source = {'family': made.family, 'fields': made.fields}
    converted = save_pretrained(tmp_path / 'converted', traverse_util.unflatten_dict(flat, sep='/'), source, made.head)
    assert huggingface_check.verify(converted, folder)[0] == []
    beside = ['config.json', 'vocab.json', 'preprocessor_config.json']
    assert [path.name for path in huggingface.beside(folder)] == beside
    (converted / 'sums.json').unlink()  # so that the comparison finds what the sums would have told
    (converted / 'head.safetensors').unlink()
    assert 'has no head.safetensors' in '; '.join(huggingface_check.verify(converted, folder)[0])
    save_file({'kernel': made.head.kernel, 'bias': made.head.bias + 1}, converted / 'head.safetensors')
    flat['params/layer_1/output/kernel'][0, 1] += 1
    flat['params/norm/scale'] = flat['params/norm/scale'][:5]
    del flat['params/projector/bias']
    flat['params/extra'] = np.zeros(1, np.float32)
    save_file(flat, converted / 'params.safetensors')
    faults = '; '.join(huggingface_check.verify(converted, folder)[0])
    assert 'head: bias differs from that of the original' in faults
    assert 'layer_1/output/kernel differs from hubert.encoder.layers.1.feed_forward.output_dense.weight in 1' in faults
    assert 'norm/scale has shape (5,)' in faults
    assert 'projector/bias is missing' in faults
    assert 'extra is converted' in faults
