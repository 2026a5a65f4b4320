"""MFCC 1-D CNN of CFN-SR (34,024 parameters) on RAVDESS speech, eight emotions, unseen actors.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_mfcc
    python -m mmer_jax.main --config=configs/mfcc_cnn_ravdess.py

Six folds of four of the 24 actors, two other actors validate, five seeds. Published (CFN-SR, Table 1): 56.53 %, with
the epoch chosen on the test fold. Measured by the commands above on the 20 actors 01 to 20 (1,200 clips at 16 kHz, five
folds), two CPU cores, 10 minutes: test accuracy 46.2 ± 0.6 %, UAR 45.0 ± 0.8 %, macro F1 44.0 ± 0.9 % (mean and
standard deviation over seeds of the mean over folds); majority floor 13.3 %.

Ours: 46.2 ± 0.6 % accuracy (20 actors); 10 minutes; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mfcc_cnn_ravdess', variant)
    config.modalities = ('audio',)
    config.data.directory = 'data/ravdess_mfcc'
    config.data.batch_size = 16
    datasets.ravdess_folds(config)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': {'name': 'mfcc_cnn'}})
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 1e-3
    config.selection.metric = 'accuracy'
    config.epochs = 70
    config.seeds = 5
    published = {'accuracy': 0.5653, 'dataset': 'ravdess'}
    config.published = ConfigDict({**published, 'source': 'CFN-SR, Table 1, selected on the test fold'})
    if variant == 'smoke':
        config.data.directory = 'data/smoke/ravdess_mfcc'
        config.epochs = 2
        config.seeds = 2
    return config
