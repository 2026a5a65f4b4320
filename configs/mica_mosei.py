"""MICA (our interpretation) on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/mica_mosei.py

As configs/mica_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mica_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mica_mosi.build('mica_mosei', 'mosei', variant)
    config.model.num_heads = 8
    config.epochs = 20
    config.published = datasets.published_sentiment(2, 52.4, 83.7, 83.3)
    return datasets.smoke(config, **mica_mosi.TINY)
