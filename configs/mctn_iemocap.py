"""MCTN with CTC alignment on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/mctn_iemocap.py

As configs/mctn_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mctn_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mctn_mosi.build('mctn_iemocap', 'iemocap', variant)
    config.published = datasets.published_emotions(80.5, 77.5, 72.0, 71.7, 64.9, 65.6, 49.4, 49.3)
    return datasets.smoke(config, **mctn_mosi.TINY)
