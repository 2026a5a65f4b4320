"""MCTN with CTC alignment on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/mctn_mosei.py

As configs/mctn_mosi.py, with batches of 64 for 32 and 60 epochs for 200: ours, for a set twelve times as large.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mctn_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mctn_mosi.build('mctn_mosei', 'mosei', variant)
    config.data.batch_size = 64
    config.epochs = 60
    config.published = datasets.published_sentiment(2, 48.2, 79.3, 79.7, 0.631, 0.645)
    return datasets.smoke(config, **mctn_mosi.TINY)
