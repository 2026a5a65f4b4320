"""LF-LSTM on CMU-MOSI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/lf_lstm_mosi.py

Neither the MFSA paper nor MulT, whose numbers its table repeats, gives this baseline's hyper-parameters: those here
are ours. Published: Table 1, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

TINY = {'hidden_size': 4, 'mlp_size': 4}


def build(name: str, dataset: str, variant: str) -> ConfigDict:
    config = get_base(name, variant)
    datasets.use(config, dataset)
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 128, 'mlp_size': 64, 'dropout': 0.2})
    config.data.batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.8
    config.epochs = 100
    config.selection.patience = 20
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('lf_lstm_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 33.7, 77.6, 77.8, 0.988, 0.624)
    return datasets.smoke(config, **TINY)
