"""MFCC 1-D CNN of CFN-SR (34,024 parameters) on RAVDESS speech, eight emotions, unseen actors.

python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_mfcc
python -m mmer_jax.main --config=configs/mfcc_cnn_ravdess.py
"""

from ml_collections import ConfigDict

from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mfcc_cnn_ravdess', variant)
    config.modalities = ('audio',)
    config.data.directory = 'data/ravdess_mfcc'
    config.data.batch_size = 16
    config.protocol.name = 'leave_speakers_out'
    config.protocol.options = ConfigDict({'folds': 5, 'validation_speakers': 2})
    config.model = ConfigDict({'name': 'unimodal', 'encoder': {'name': 'mfcc_cnn'}})
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 1e-3
    config.selection.metric = 'accuracy'
    config.epochs = 70
    config.seeds = 5
    config.published = ConfigDict({'accuracy': 0.5653, 'source': 'CFN-SR, Table 1, selected on the test fold'})
    if variant == 'smoke':
        config.data.directory = 'data/smoke/ravdess_mfcc'
        config.epochs = 2
        config.seeds = 2
    return config
