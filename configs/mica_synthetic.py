"""MICA (our interpretation) on the embedded synthetic data; one of the rows of configs/tables/synthetic.py.

python -m data_prep.synthetic --output data/synthetic
python -m mmer_jax.main --config=configs/mica_synthetic.py
python -m mmer_jax.main --config=configs/mica_synthetic.py --config.modalities="('text',)"

Ours: 96.8 % accuracy; time not measured; memory not measured; device not noted.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mica_synthetic', variant)
    datasets.synthetic(config)
    config.model = ConfigDict({'name': 'mica', 'width': 32, 'num_layers': 2, 'memory_layers': 2, 'num_heads': 4})
    config.losses.update({'distribution_alignment': 0.1, 'correlation_pull': 0.1})
    return datasets.smoke(config, width=8, num_heads=2, num_layers=1, memory_layers=1)
