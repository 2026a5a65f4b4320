"""MulT on IEMOCAP, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source iemocap_data_noalign.pkl --output data/iemocap
    python -m mmer_jax.main --config=configs/mult_iemocap.py

As configs/mult_mosi.py, with the paper's numbers for this data set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, mult_mosi


def get_config(variant: str = '') -> ConfigDict:
    config = mult_mosi.build('mult_iemocap', 'iemocap', variant)
    config.model = ConfigDict({**config.model.to_dict(), 'kernel_sizes': (3, 5, 3), 'text_dropout': 0.3})
    config.model.update({'attention_dropout': 0.25, 'memory_attention_dropout': 0.25})
    config.data.batch_size = 32
    config.accumulate = 2
    config.optimizer.learning_rate = 2e-3
    config.epochs = 30
    config.published = datasets.published_emotions(84.8, 81.9, 77.7, 74.1, 73.9, 70.2, 62.5, 59.7)
    return datasets.smoke(config, **mult_mosi.TINY)
