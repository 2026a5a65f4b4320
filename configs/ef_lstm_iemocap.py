"""EF-LSTM with CTC alignment on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/ef_lstm_iemocap.py

As configs/ef_lstm_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, ef_lstm_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = ef_lstm_mosi.build('ef_lstm_iemocap', 'iemocap', variant)
    config.model.max_text_length = 20
    config.data.batch_size = 32
    config.epochs = 60
    config.published = datasets.published_emotions(76.2, 75.7, 70.2, 70.5, 72.7, 67.1, 58.1, 57.4)
    return datasets.smoke(config, **ef_lstm_mosi.TINY)
