"""MFSA on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/mfsa_mosei.py

As configs/mfsa_mosi.py, with the paper's numbers for this data set (section 4.2). Published: Table 2, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mfsa_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mfsa_mosi.build('mfsa_mosei', 'mosei', variant, alpha=3e-2, beta=5e-2)
    config.model.update({'num_heads': 10, 'mu': 0.15})
    config.optimizer.learning_rate = 3e-3
    config.published = datasets.published_sentiment(2, 53.2, 83.8, 83.6, 0.574, 0.724)
    return datasets.smoke(config, **mfsa_mosi.TINY)
