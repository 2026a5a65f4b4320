"""MICA (our interpretation) on CMU-MOSI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/mica_mosi.py

An interpretation: of MICA only the abstract says what it does and no code is public (mmer_jax/models/mica.py). Sizes
and training as MulT's. The distributions are those of the whole batch, however it is accumulated. Published: Table 1,
test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

TINY = {'width': 8, 'num_heads': 2, 'num_layers': 1, 'memory_layers': 1}


def build(name: str, dataset: str, variant: str) -> ConfigDict:
    config = get_base(name, variant)
    datasets.use(config, dataset)
    config.model = ConfigDict(
        {
            'name': 'mica',
            'width': 40,
            'num_layers': 4,
            'num_heads': 10,
            'kernel_sizes': 3,
            'text_dropout': 0.2,
            'attention_dropout': 0.2,
            'memory_attention_dropout': 0.2,
            'output_dropout': 0.1,
            'remat': True,
        }
    )
    config.losses.update({'distribution_alignment': 0.1, 'correlation_pull': 0.1})
    config.data.batch_size = 64
    config.accumulate = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.8
    config.epochs = 100
    config.selection.patience = 20
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('mica_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 40.8, 82.6, 82.7)
    return datasets.smoke(config, **TINY)
