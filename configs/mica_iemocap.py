"""MICA (our interpretation) on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/mica_iemocap.py

As configs/mica_mosi.py.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mica_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mica_mosi.build('mica_iemocap', 'iemocap', variant)
    config.model = ConfigDict({**config.model.to_dict(), 'kernel_sizes': (3, 5, 3)})
    config.data.batch_size = 32
    config.accumulate = 2
    config.epochs = 60
    config.published = datasets.published_emotions(86.8, 83.9, 79.3, 75.2, 75.7, 72.4, 63.7, 61.6)
    return datasets.smoke(config, **mica_mosi.TINY)
