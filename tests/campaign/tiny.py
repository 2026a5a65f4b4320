"""A config that compiles in a second, for the campaign: LF-LSTM of two cells over `data_prep.synthetic --like mosi`."""

from ml_collections import ConfigDict

from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('tiny', variant, ('folds',))
    config.data.directory = 'data'
    config.data.batch_size, config.data.max_shapes = 32, 1
    config.modalities = ('audio',)
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3})
    config.losses = ConfigDict({'task': 1.0})
    config.selection.metric, config.headline = 'auto', ('auto',)
    config.epochs, config.log_every, config.tensorboard = 4, 1, False
    if variant == 'folds':
        config.protocol = ConfigDict({'name': 'by_what_is_known', 'options': {'folds': 2}})
        config.epochs = 2
    return config
