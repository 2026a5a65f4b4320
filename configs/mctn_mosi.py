"""MCTN with CTC alignment on CMU-MOSI, unaligned text, audio and vision.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/mctn_mosi.py

Hidden size 32, one layer, 20 steps, translation losses of weight 0.1 each, Adam 1e-4, batch 32, 200 epochs, patience
20 and the penalty 0.01 |W|^2 on the weights of the last layer alone: the settings of MCTN's code. Its gradient 0.02 W
is added before Adam (`weight_decay` of adam; decoupled it is adamw's). Otherwise than there the regressor's last state
is read instead of an attention over its states, dropout is 0.1, gradients are clipped, and the epoch is chosen by the
metric instead of the loss. Audio and vision are brought to the words by a CTC module trained with the model, as for
MulT's table of unaligned baselines. At test time only the text is used. Published: Table 1, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

TINY = {'hidden_size': 4, 'regressor_size': 4, 'max_length': 6}


def build(name: str, dataset: str, variant: str) -> ConfigDict:
    config = get_base(name, variant)
    datasets.use(config, dataset)
    config.model = ConfigDict({'name': 'mctn', 'hidden_size': 32, 'max_length': 20, 'dropout': 0.1})
    for name in ('translation', 'cycle_translation', 'second_translation'):
        config.losses[name] = 0.1
    config.losses.ctc_alignment = 1e-3
    config.data.batch_size = 32
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.02  # the gradient of 0.01 |W|^2 is 0.02 W
    config.optimizer.no_decay = ('^(?!head/kernel$)',)  # of all parameters but these
    config.optimizer.clip_norm = 0.8
    config.optimizer.clip_alone = ('_ctc/',)  # as MulT's code, which clips the alignment modules by themselves
    config.epochs = 200
    config.selection.patience = 20
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('mctn_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 32.7, 75.9, 76.4, 0.991, 0.613)
    return datasets.smoke(config, **TINY)
