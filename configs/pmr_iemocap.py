"""PMR on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/pmr_iemocap.py

As configs/pmr_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, pmr_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = pmr_mosi.build('pmr_iemocap', 'iemocap', variant)
    config.data.batch_size = 32
    config.accumulate = 2
    config.epochs = 60
    config.published = datasets.published_emotions(86.4, 83.3, 78.5, 75.3, 75.0, 71.3, 63.7, 60.9)
    return datasets.smoke(config, **pmr_mosi.TINY)
