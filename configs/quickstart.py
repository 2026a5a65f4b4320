"""LF-LSTM on the embedded synthetic data: three modalities, of which each alone says next to nothing.

    python -m data_prep.synthetic --output data/synthetic
    python -m mmer_jax.main --config=configs/quickstart.py
    python -m mmer_jax.main --config=configs/quickstart.py:text        (likewise :audio, :vision)

`make quickstart` does all of it and writes the table: test accuracy 99.2 % with three modalities, 51.3, 58.0 and
58.0 % with text, audio and vision alone (seed 0, two CPU cores, half a minute a run). The data set's docstring has
the Bayes rates: 58 % for one modality, 100 % for three.

Ours: 99.2 % accuracy; half a minute; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs.base import get_base
from configs.datasets import MODALITIES


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('quickstart', variant, ('smoke', *MODALITIES))
    config.modalities = (variant,) if variant in MODALITIES else MODALITIES
    config.data.directory = 'data/synthetic'
    config.data.batch_size = 64
    config.data.max_shapes = 2
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 32, 'mlp_size': 64, 'dropout': 0.1})
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 3e-3
    config.optimizer.clip_norm = 1.0
    config.selection.metric = 'accuracy'
    config.epochs = 10
    if variant == 'smoke':
        config.data.directory = 'data/smoke/synthetic'
        config.epochs = 2
        config.data.batch_size = 16
    return config
