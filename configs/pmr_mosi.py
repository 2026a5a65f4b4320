"""PMR on CMU-MOSI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/pmr_mosi.py

There is no official code, and the paper leaves most settings open: width 40 is its own, the rest follows MulT.
Published: Table 1, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

TINY = {'width': 8, 'num_heads': 2, 'num_layers': 1, 'final_layers': 1}


def build(name: str, dataset: str, variant: str) -> ConfigDict:
    config = get_base(name, variant)
    datasets.use(config, dataset)
    config.model = ConfigDict(
        {'name': 'pmr', 'width': 40, 'num_layers': 4, 'num_heads': 8, 'kernel_size': 3, 'dropout': 0.1, 'remat': True}
    )
    config.data.batch_size = 64
    config.accumulate = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.8
    config.epochs = 100
    config.selection.patience = 20
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('pmr_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 40.6, 82.4, 82.1)
    return datasets.smoke(config, **TINY)
