"""LF-LSTM on the embedded synthetic data; one of the rows of configs/tables/synthetic.py.

python -m data_prep.synthetic --output data/synthetic
python -m mmer_jax.main --config=configs/lf_lstm_synthetic.py
python -m mmer_jax.main --config=configs/lf_lstm_synthetic.py --config.modalities="('text',)"

Ours: 98.2 % accuracy; time not measured; memory not measured; device not noted.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('lf_lstm_synthetic', variant)
    datasets.synthetic(config)
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 32, 'mlp_size': 64, 'dropout': 0.1})
    return datasets.smoke(config, hidden_size=4, mlp_size=4)
