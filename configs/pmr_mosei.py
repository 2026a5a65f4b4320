"""PMR on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/pmr_mosei.py

As configs/pmr_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, pmr_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = pmr_mosi.build('pmr_mosei', 'mosei', variant)
    config.epochs = 20
    config.published = datasets.published_sentiment(2, 51.8, 83.1, 82.8)
    return datasets.smoke(config, **pmr_mosi.TINY)
