"""MulT on CMU-MOSI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/mult_mosi.py

The paper's settings (MulT, Table 5 of its appendix), and the plateau decay of its code: after more than 20 epochs
without a better validation value the rate falls to a tenth. The code watches the validation loss, here it is the metric
that selects: on MOSI and MOSEI the same L1 (mae), on IEMOCAP macro F1, where --config.selection.metric=loss is the
code's way, for the choice of the epoch too.

remat and eight accumulated parts change no number but the order of sums; with them a batch of 128 padded to 50, 375 and
500 steps takes 7.6 GiB on CPU, and bucketed true lengths train 3.1 times as many samples a second
(benchmarks/sequence_models.py, RESULTS.md). Masks instead of attended padding and no causal mask: the published code's
ways are the fields `causal` and `left_padded_to`. Published: Table 1, test set.

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
            'name': 'mult',
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
    config.data.batch_size = 128
    config.accumulate = 8
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.8
    config.selection.plateau_patience = 20
    config.selection.plateau_factor = 0.1
    config.epochs = 100
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('mult_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 39.1, 81.1, 81.0, 0.889, 0.686)
    return datasets.smoke(config, **TINY)
