"""LF-LSTM on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/lf_lstm_iemocap.py

As configs/lf_lstm_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, lf_lstm_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = lf_lstm_mosi.build('lf_lstm_iemocap', 'iemocap', variant)
    config.data.batch_size = 32
    config.epochs = 60
    config.published = datasets.published_emotions(72.5, 71.8, 72.9, 70.4, 68.6, 67.9, 59.6, 56.2)
    return datasets.smoke(config, **lf_lstm_mosi.TINY)
