"""RAVEN with CTC alignment on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/raven_mosei.py

As configs/raven_mosi.py, with batches of 64 for 20 and 40 epochs for 500: ours, for a set twelve times as large.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, raven_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = raven_mosi.build('raven_mosei', 'mosei', variant)
    config.data.batch_size = 64
    config.epochs = 40
    config.published = datasets.published_sentiment(2, 45.5, 75.4, 75.7, 0.664, 0.599)
    return datasets.smoke(config, **raven_mosi.TINY)
