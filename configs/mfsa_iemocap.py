"""MFSA on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/mfsa_iemocap.py

As configs/mfsa_mosi.py, with the paper's numbers for this data set (section 4.2). Published: Table 3, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mfsa_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mfsa_mosi.build('mfsa_iemocap', 'iemocap', variant, alpha=1e-2, beta=2e-2)
    config.model.mu = 0.2
    config.data.batch_size = 32
    config.accumulate = 2
    config.epochs = 60
    config.published = datasets.published_emotions(87.2, 84.3, 80.7, 76.8, 76.5, 73.2, 64.4, 62.5)
    return datasets.smoke(config, **mfsa_mosi.TINY)
