"""LF-LSTM on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/lf_lstm_mosei.py

As configs/lf_lstm_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, lf_lstm_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = lf_lstm_mosi.build('lf_lstm_mosei', 'mosei', variant)
    config.epochs = 40
    config.published = datasets.published_sentiment(2, 48.8, 77.5, 78.2, 0.624, 0.656)
    return datasets.smoke(config, **lf_lstm_mosi.TINY)
