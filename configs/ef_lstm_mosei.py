"""EF-LSTM with CTC alignment on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/ef_lstm_mosei.py

As configs/ef_lstm_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, ef_lstm_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = ef_lstm_mosi.build('ef_lstm_mosei', 'mosei', variant)
    config.epochs = 40
    config.published = datasets.published_sentiment(2, 46.3, 76.1, 75.9, 0.68, 0.585)
    return datasets.smoke(config, **ef_lstm_mosi.TINY)
