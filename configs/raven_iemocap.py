"""RAVEN with CTC alignment on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/raven_iemocap.py

As configs/raven_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, raven_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = raven_mosi.build('raven_iemocap', 'iemocap', variant)
    config.model.max_text_length = 20
    config.published = datasets.published_emotions(77.0, 76.8, 67.6, 65.6, 65.0, 64.1, 62.0, 59.5)
    return datasets.smoke(config, **raven_mosi.TINY)
