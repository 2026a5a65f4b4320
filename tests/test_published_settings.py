"""Settings that configs take from papers and their code: folds, decay of rates and weights, epochs, joined pictures."""

import importlib

import jax
import numpy as np
import optax
import pytest

from configs import datasets
from mmer_jax.run.optimizer import make_optimizer, matches, name_of
from tests.test_configs import NAMES, OWN, parts

TWO = ('resnet18', 'googlenet', 'vgg16', 'vit', 'vit_pretrained')


def get_config(name, variant=''):
    return importlib.import_module(f'configs.{name}').get_config(variant)


def shapes(model, batch):
    return jax.eval_shape(lambda batch: model.init(jax.random.key(0), batch, train=False), batch)['params']


def named(tree):
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


# Folds of RAVDESS


def test_ravdess_is_tested_in_groups_of_four_and_as_published_in_five_alone():
    by_four = {'speakers_per_fold': 4, 'validation_speakers': 2, 'balance': 'gender'}
    configs = {name: get_config(name).protocol for name in NAMES if 'ravdess' in name}
    assert {name for name, protocol in configs.items() if protocol.options.to_dict() != by_four} == {
        'cfn_sr_ravdess_as_published', 'mfcc_cnn_ravdess_as_published', 'cfn_sr_ravdess_one_actor',
    }  # fmt: skip
    for name in ('cfn_sr_ravdess_as_published', 'mfcc_cnn_ravdess_as_published'):
        assert configs[name].options.to_dict() == {'speakers_per_fold': 4, 'max_folds': 5, 'selection': 'test'}


# Decay of weights

DECAYED = [name for name in NAMES if name not in OWN and get_config(name).optimizer.weight_decay]
SPARED = [name for name in DECAYED if get_config(name).optimizer.no_decay == datasets.NO_DECAY]


def test_all_weight_decay_is_accounted_for():
    """That of the transformers spares biases and norms; three recipes of our own, and MCTN's penalty, do otherwise."""
    ours = {name for name in DECAYED if 'text_audio' in name or 'minilm' in name or 'tdnn' in name}
    assert set(DECAYED) == {*SPARED, *ours, 'mctn_mosi', 'mctn_mosei', 'mctn_iemocap'}
    families = ('bert', 'roberta', 'distilbert', 'wav2vec2', 'hubert', 'ast', 'videomae')
    assert set(SPARED) == {f'{name}_iemocap' for name in families} | {
        f'{name}_ravdess' for name in ('wav2vec2', 'hubert', 'ast')
    }


@pytest.mark.parametrize('name', SPARED)
def test_biases_and_norms_are_spared_and_nothing_else(name):
    """All biases, and both vectors of each norm; kernels, embeddings, tokens, the two parts of a weight norm decay."""
    config, model, batch = parts(name)
    params = shapes(model, batch)
    spared = named(matches(params, config.optimizer.no_decay))
    for path, leaf in named(params).items():
        parent, last = path.split('/')[-2:]
        assert spared[path] == (last == 'bias' or 'norm' in parent)
        if spared[path]:
            assert leaf.ndim == 1
    kept = {path.split('/')[-1] for path, hit in spared.items() if not hit}
    others = {'embedding', 'hidden', 'direction', 'magnitude', 'positions', 'class_token', 'distillation_token'}
    assert 'kernel' in kept
    assert kept <= {'kernel', *others}


def test_mctn_penalises_the_weights_of_its_last_layer_before_adam():
    """Its code adds 0.01 |W|^2 to the loss: Adam sees the gradient and 0.02 W more, of `head/kernel` alone."""
    config, model, batch = parts('mctn_mosi', 'smoke')
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes(model, batch))
    gradient = jax.tree.map(np.zeros_like, params)
    gradient['head']['kernel'] += np.float32(0.003)
    optimizer, _ = make_optimizer(config.optimizer.to_dict(), 10)
    _, state = jax.jit(lambda params: optimizer.update(gradient, optimizer.init(params), params))(params)
    moments = optax.tree.get(state, 'mu')  # one vector per group of parameters that are treated alike
    decayed = [group for group in moments if 'decayed=1' in group]
    assert [moments[group].size for group in decayed] == [params['head']['kernel'].size]
    np.testing.assert_allclose(moments[decayed[0]], 0.1 * (0.003 + 0.02 * 0.5), rtol=1e-5)  # mu is a tenth of it
    assert all(not np.any(moments[group]) for group in moments if group not in decayed)


# Decay of rates, epochs


@pytest.mark.parametrize(('name', 'metric'), [('mosi', 'mae'), ('mosei', 'mae'), ('iemocap', 'macro_f1')])
def test_mult_has_the_plateau_decay_of_its_code(name, metric):
    selection = get_config(f'mult_{name}').selection
    assert (selection.plateau_patience, selection.plateau_factor, selection.metric) == (20, 0.1, metric)


def test_models_compared_by_one_optimiser_have_no_decay_of_their_own():
    for model in ('mfsa', 'mult', 'pmr', 'lf_lstm'):
        for setting in ('synthetic', 'mosi_text_audio'):
            assert get_config(f'{model}_{setting}').selection.plateau_patience == 0


def test_epochs_of_the_3d_networks_are_the_reports_where_asked():
    """Table 4: audio, vision, both."""
    epochs = {'simple3d': (36, 27, 36), 'i3d': (5, 9, 16), 'videomae': (3, 4, 4)}
    longest = {'simple3d': 30, 'i3d': 16, 'videomae': 10}
    for name, expected in epochs.items():
        published = [get_config(f'{name}_crema_d', f'{one}as_published').epochs for one in ('audio_', 'vision_', '')]
        assert tuple(published) == expected
        assert {get_config(f'{name}_crema_d', one).epochs for one in ('audio', 'vision', '')} == {longest[name]}
    assert get_config('videomae_crema_d', 'as_published').model.encoder.pool_dropout == 0.5
    assert 'pool_dropout' not in get_config('videomae_crema_d').model.encoder


@pytest.mark.parametrize('name', TWO)
def test_pictures_join_side_by_side_where_asked(name):
    """As the report's text has it; the ViTs, which need a square, bring what is joined to one."""
    config, model, batch = parts(f'{name}_crema_d')
    assert config.model.join == ('height' if name == 'vit_pretrained' else 'channel')
    wide = model.clone(join='width', resize=224 if 'vit' in name else 0)
    if name == 'vit':
        assert 'width --config.model.resize=224' in importlib.import_module('configs.vit_crema_d').__doc__
    outputs = jax.eval_shape(lambda batch: wide.init_with_output(jax.random.key(0), batch, train=False)[0], batch)
    assert outputs['prediction'].shape == (*batch['weight'].shape, 6)
