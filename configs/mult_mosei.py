"""MulT on CMU-MOSEI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosei_senti_data_noalign.pkl --output data/mosei
    python -m mmer_jax.main --config=configs/mult_mosei.py

As configs/mult_mosi.py, with the paper's numbers for this data set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mult_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mult_mosi.build('mult_mosei', 'mosei', variant)
    config.model.update(
        {'num_heads': 8, 'text_dropout': 0.3, 'attention_dropout': 0.1, 'memory_attention_dropout': 0.1}
    )
    config.data.batch_size = 16
    config.accumulate = 1
    config.optimizer.clip_norm = 1.0
    config.epochs = 20
    config.published = datasets.published_sentiment(2, 50.7, 81.6, 81.6, 0.591, 0.694)
    return datasets.smoke(config, **mult_mosi.TINY)
