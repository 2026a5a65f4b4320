"""What a config leaves open is filled in from the data, and only that; own_*.py take any kind of label."""

import pytest
from ml_collections import ConfigDict

from configs import own_audio_vision, own_fine_tuned, own_text_audio
from mmer_jax.data.batches import check_modalities
from mmer_jax.data.records import RecordSource
from mmer_jax.run.program import open_source
from mmer_jax.settings.follow_data import follow_data
from mmer_jax.settings.keys import check_config_values
from mmer_jax.train import check_metrics
from tests.small_run import small_config

FILLED = {  # kind of label -> loss, metric that selects
    'classes': ('cross_entropy', 'uar'),
    'regression': ('l1', 'mae'),
    'binary': ('binary_cross_entropy', 'macro_f1'),
}


@pytest.mark.parametrize('kind', FILLED)
@pytest.mark.parametrize('module', [own_audio_vision, own_text_audio])
def test_loss_metrics_and_modalities_follow_the_label(tiny_of_kind, module, kind):
    config = module.get_config()
    config.data.directory = str(tiny_of_kind[kind])
    check_config_values(config)
    filled = follow_data(config, open_source)
    loss, metric = FILLED[kind]
    assert filled.losses.to_dict() == {loss: 1.0}
    assert filled.selection.metric == metric
    assert tuple(filled.modalities) == tuple(filled.data.normalize) == ('text', 'audio', 'vision')
    source = RecordSource(filled.data.directory)
    check_modalities(filled.modalities, source.schema)
    check_metrics(filled, source)  # what selects and what is shown are measured on these labels
    assert config.losses.to_dict() == {'task': 1.0}, 'the config itself stays as it is'


def test_what_a_config_says_stays(tiny):
    config = small_config(tiny)
    assert follow_data(config, open_source) is config
    config = own_audio_vision.get_config()
    config.data.directory = str(tiny)
    config.modalities, config.losses = ('audio',), ConfigDict({'task': 0.5, 'separation': 0.1})
    config.data.normalize, config.selection.metric, config.headline = (), 'accuracy', ('uar',)
    filled = follow_data(config, open_source)
    assert (tuple(filled.modalities), tuple(filled.data.normalize)) == (('audio',), ())
    assert filled.losses.to_dict() == {'cross_entropy': 0.5, 'separation': 0.1}
    assert (filled.selection.metric, tuple(filled.headline)) == ('accuracy', ('uar',))


@pytest.mark.parametrize('variant', own_fine_tuned.VARIANTS)
def test_a_fine_tuned_encoder_has_its_modality_and_weights(variant):
    config = own_fine_tuned.get_config(variant)
    check_config_values(config)
    modality, encoder, weights = own_fine_tuned.VARIANTS[variant]
    assert tuple(config.modalities) == (modality,)
    assert config.model.encoder.name == encoder['name']
    assert config.pretrained.encoder == weights


def test_a_directory_that_is_missing_is_one_line():
    config = own_audio_vision.get_config()
    config.data.directory = '/nowhere/mine'
    with pytest.raises(ValueError, match='shard directory /nowhere/mine is missing'):
        follow_data(config, open_source)
