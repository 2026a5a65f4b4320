"""What stands between an encoder's states and its classifier: read, refused or named, and looked at by --check."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from data_prep.convert_weights import huggingface, huggingface_check, huggingface_names
from data_prep.convert_weights.__main__ import main
from mmer_jax.encoders.bert import Roberta
from mmer_jax.encoders.vit import VideoMae
from mmer_jax.files.sums import write_sums
from tests.golden import make_transformers as golden
from tests.test_convert_huggingface import change, configure
from tests.test_transformers_parity import forward, write_case

TORCH = importlib.util.find_spec('torch')
ATTENTION = 'videomae.encoder.layer.{}.attention.attention'


@pytest.fixture(scope='module')
def stored():
    with np.load(golden.PATH) as file:
        return dict(file)


@pytest.fixture
def folder_of(stored, tmp_path):
    return lambda case: write_case(tmp_path / case, stored, case)


def run(folder, output, *more):
    return main(['huggingface', '--source', str(folder), '--output', str(output), *more])


# --check


@pytest.mark.parametrize(
    ('case', 'wrong'),
    [
        ('videomae_first', {'pooling': 'mean'}),
        ('hubert_sum', {'layer_sum_norm': True}),
        ('wav2vec2_sum', {'layer_sum': False}),
        ('roberta', {'projector_activation': 'relu'}),
        ('vit_pooler', {'projector_activation': 'tanh'}),
        ('ast', {'pool_epsilon': 0.1}),
    ],
)
def test_the_check_sees_an_encoder_that_pools_otherwise(case, wrong, folder_of, tmp_path, capsys, monkeypatch):
    """Even where conversion and check agree upon wrong fields: the other side is computed from the original alone."""
    folder = folder_of(case)
    kind = json.loads((folder / 'config.json').read_text())['model_type']
    family = huggingface.FAMILIES[kind]

    def fields(config, preprocessor):
        return {**family.fields(config, preprocessor), **wrong}

    def rules(given):
        return [rule for rule in family.rules(given) if given.get('layer_sum', True) or rule[0] != 'layer_weights']

    assert run(folder, tmp_path / 'right') == 0
    assert run(folder, tmp_path / 'right', '--check') == 0
    printed = capsys.readouterr()
    assert "of the original's pooling" in printed.out
    monkeypatch.setitem(huggingface.FAMILIES, kind, family._replace(fields=fields, rules=rules))
    assert run(folder, tmp_path / 'wrong') == 0
    assert run(folder, tmp_path / 'wrong', '--check') == 1
    printed = capsys.readouterr().err
    assert printed.startswith('the pooled output differs by ')
    assert "from that of the original's classifier" in printed


def test_the_check_accounts_for_every_tensor_and_says_what_it_did_not_compare(folder_of, tmp_path, capsys):
    folder, output = folder_of('bert'), tmp_path / 'out'
    weights = load_file(folder / 'model.safetensors')
    kept = {name: w for name, w in weights.items() if not name.startswith('bert.pooler')}
    save_file(kept, folder / 'model.safetensors')
    assert run(folder, output) == 0
    assert run(folder, output, '--check') == 0
    printed = capsys.readouterr().out
    assert 'pooled output not compared: the original has no layer between its states and its head' in printed
    assert printed.count('left out of the original: classifier.bias, classifier.weight') == 2
    source = json.loads((output / 'source.json').read_text())
    for key, found in (('unused', []), ('fresh', []), ('not_read', ['config.json: x = 1'])):
        (output / 'source.json').write_text(json.dumps({**source, key: found}))
        write_sums(output)  # the folder is whole, and says something else than the original
        assert run(folder, output, '--check') == 1
        assert f'source.json has {key} = {found!r}, the original gives' in capsys.readouterr().err


# The sum over layers


def test_a_sum_without_its_weights_is_refused_and_the_base_model_has_none(folder_of):
    folder = folder_of('wav2vec2_sum')
    made = huggingface.plan(folder)
    assert made.fields['layer_sum'] is True
    assert made.taken['layer_weights'] == 'layer_weights'
    change(folder, layer_weights=None)
    with pytest.raises(ValueError, match='use_weighted_layer_sum, but the weights lack layer_weights'):
        huggingface.plan(folder)
    weights = load_file(folder / 'model.safetensors')
    save_file({name: w for name, w in weights.items() if name.startswith('wav2vec2.')}, folder / 'model.safetensors')
    assert 'layer_sum' not in huggingface.plan(folder).fields


def test_weights_of_a_sum_that_the_settings_do_not_ask_for_are_left_out_by_name(folder_of):
    folder = folder_of('wav2vec2_sum')
    configure(folder, use_weighted_layer_sum=False)
    assert huggingface.plan(folder).unused == ('layer_weights',)


@pytest.mark.parametrize(
    ('changes', 'behind'),
    [
        ({'transformers_version': '4.9.0.dev0'}, True),
        ({'transformers_version': '5.15.0'}, True),
        ({'transformers_version': '5.16.0'}, False),
        ({'transformers_version': '4.30.2', 'tie_last_hidden_states': False}, False),
        ({'tie_last_hidden_states': True}, True),
    ],
)
def test_the_last_state_goes_into_the_sum_as_in_the_version_that_wrote_the_folder(changes, behind, folder_of):
    folder = folder_of('hubert_sum')
    configure(folder, **changes)
    assert huggingface.plan(folder).fields.get('layer_sum_norm', False) is behind


def test_a_base_network_has_no_final_norm_that_could_matter(folder_of):
    folder = folder_of('wav2vec2_sum')
    configure(folder, transformers_version='4.9.0')
    assert 'layer_sum_norm' not in huggingface.plan(folder).fields


def test_the_projector_of_speaker_vectors_is_left_out(folder_of):
    """It leads to their time-delay layers, not to a mean."""
    folder = folder_of('wav2vec2')
    change(folder, **{'tdnn.0.kernel.weight': np.ones((3, 3), np.float32)})
    made = huggingface.plan(folder)
    assert 'projector' not in made.fields
    assert {'projector.weight', 'projector.bias', 'tdnn.0.kernel.weight'} < set(made.unused)


# Layouts


def test_videomae_of_transformers_5_17(folder_of, stored):
    """Its layout has biases of keys, too; they change nothing, so states and pooled output stay those of the other."""
    folder = folder_of('videomae')
    generator = np.random.default_rng(0)
    weights = load_file(folder / 'model.safetensors')
    for layer in range(2):
        stem = ATTENTION.format(layer)
        for name in ('query', 'value'):
            weights[f'{stem}.{name}.bias'] = weights.pop(f'{stem}.{name[0]}_bias')
        weights[f'{stem}.key.bias'] = generator.standard_normal(8).astype(np.float32)
    save_file(weights, folder / 'model.safetensors')
    config = json.loads((folder / 'config.json').read_text())
    config['qkv_bias'] = config.pop('qv_bias')
    (folder / 'config.json').write_text(json.dumps(config))
    made = huggingface.convert(folder)
    assert made.unused == ()
    encoder, (x, mask) = VideoMae(**made.fields), golden.inputs('videos')
    assert encoder.key_bias
    apply = jax.jit(lambda v: encoder.apply(v, x, mask, method=forward))
    states, _, pooled = apply(traverse_util.unflatten_dict(dict(made.arrays), sep='/'))
    np.testing.assert_allclose(states, stored['videomae/states'], atol=1e-4)
    np.testing.assert_allclose(pooled, stored['videomae/pooled'], atol=1e-5, rtol=1e-5)
    change(folder, **{f'{ATTENTION.format(1)}.key.bias': None})
    with pytest.raises(ValueError, match='biases of the keys in 1 of 2 layers, expected them in all or none'):
        huggingface.plan(folder)


@pytest.mark.parametrize('case', ['vit', 'ast'])
def test_other_pictures_have_biases_of_keys_of_their_own(case, folder_of):
    made = huggingface.plan(folder_of(case))
    assert made.taken['layer_0/attention/key/bias'].endswith('attention.attention.key.bias')
    assert 'key_bias' not in made.fields


# Settings


def test_settings_that_nothing_stands_for_are_named(folder_of, tmp_path, capsys):
    folder = folder_of('hubert_sum')
    (folder / 'preprocessor_config.json').write_text(json.dumps({'do_normalize': True, 'return_attention_mask': True}))
    assert huggingface.plan(folder).not_read == ()
    configure(folder, mask_feature_prob=0.5, rotary=True, id2label={'0': 'ang', '1': 'sad'}, num_beams=1, unheard=None)
    (folder / 'modules.json').write_text('[]')
    assert run(folder, tmp_path / 'out') == 0
    printed = capsys.readouterr().out
    assert 'not read, and may change what the original computes: config.json: mask_feature_prob = 0.5; ' in printed
    assert 'config.json: rotary = True; modules.json: the pooling of sentence-transformers' in printed
    for quiet in ('id2label', 'num_beams', 'unheard'):
        assert quiet not in printed
    assert len(json.loads((tmp_path / 'out' / 'source.json').read_text())['not_read']) == 3
    configure(folder, apply_spec_augment=False)
    assert not any('mask_feature' in item for item in huggingface.plan(folder).not_read)


@pytest.mark.parametrize('case', golden.CASES)
def test_settings_of_transformers_itself_are_all_known(case, folder_of):
    assert huggingface.plan(folder_of(case)).not_read == ()


@pytest.mark.parametrize(
    ('case', 'file', 'changes', 'message'),
    [
        ('bert', 'config.json', {'pruned_heads': {'0': [1]}}, "pruned_heads = {'0': \\[1\\]}, expected {}"),
        ('hubert', 'config.json', {'num_feat_extract_layers': 7}, 'num_feat_extract_layers = 7, expected 2'),
        ('hubert', 'preprocessor_config.json', {'padding_value': 1.0}, 'padding_value = 1.0, expected 0.0'),
        ('ast', 'preprocessor_config.json', {'max_length': 99}, 'max_length = 99, expected 20'),
        ('vit', 'preprocessor_config.json', {'do_flip_channel_order': True}, 'do_flip_channel_order = True, expected'),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(case, file, changes, message, folder_of):
    folder = folder_of(case)
    given = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**given, **changes}))
    with pytest.raises(ValueError, match=message):
        huggingface.plan(folder)


# Positions


@pytest.mark.skipif(TORCH is None, reason='torch, the oracle, is not installed')
def test_padding_inside_a_text_has_robertas_position_of_padding(tmp_path):
    import torch

    model = golden.build('roberta', seed=2)
    golden.save(model, tmp_path / 'roberta')
    made = huggingface.convert(tmp_path / 'roberta')
    ids = np.array([[0, 5, 1, 6, 1, 1, 7, 2], [0, 5, 6, 2, 1, 1, 1, 1]])
    mask = np.array([[True] * 8, [True] * 4 + [False] * 4])
    with torch.no_grad():
        wanted = model.base_model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask).long())
    variables = traverse_util.unflatten_dict(dict(made.arrays), sep='/')
    encoder = Roberta(**made.fields)
    found, _ = jax.jit(lambda v: encoder.apply(v, ids.astype(np.int32), mask, train=False))(variables)
    np.testing.assert_allclose(found, np.where(mask[..., None], wanted.last_hidden_state.numpy(), 0), atol=1e-5)


def test_every_family_has_its_pooling():
    """That --check computes from the original."""
    assert huggingface_check.POOLINGS.keys() == {family.name for family in huggingface_names.FAMILIES.values()}
