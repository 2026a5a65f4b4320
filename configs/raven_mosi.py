"""RAVEN with CTC alignment on CMU-MOSI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/raven_mosi.py

Settings of RAVEN's code: nonverbal LSTMs of 150, the LSTM over shifted words 300, dropout 0.2, Adam 1e-3, batch 20, 500
epochs. It takes the epoch that is best on the test set; here validation chooses, and 20 epochs without a better one end
the training. Clipping is MulT's. Audio and vision are brought to the words by a CTC module trained with the model, as
for MulT's table of unaligned baselines. Published: Table 1, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

TINY = {'hidden_size': 4, 'nonverbal_size': 4, 'max_text_length': 6}


def build(name: str, dataset: str, variant: str) -> ConfigDict:
    config = get_base(name, variant)
    datasets.use(config, dataset)
    config.model = ConfigDict({'name': 'raven', 'hidden_size': 300, 'nonverbal_size': 150, 'dropout': 0.2})
    config.losses.ctc_alignment = 1e-3
    config.data.batch_size = 20
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.8
    config.optimizer.clip_alone = ('_ctc/',)  # as MulT's code, which clips the alignment modules by themselves
    config.epochs = 500
    config.selection.patience = 20
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('raven_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 31.7, 72.7, 73.1, 1.076, 0.544)
    return datasets.smoke(config, **TINY)
