"""MulT on sound (MFCC) and action units, RAVDESS speech; the units are a sequence of one step.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m mmer_jax.main --config=configs/mult_ravdess_openface.py

Six folds of four actors (of actors 1 to 20 five), two other actors validate;
configs/tables/ravdess_openface.py has all rows.

Ours: 64.8 ± 3.0 % accuracy, one seed (20 actors); time not measured; memory not measured; CPU.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mult_ravdess_openface', variant)
    datasets.ravdess_openface(config)
    config.epochs = 10
    config.model = ConfigDict({'name': 'mult', 'width': 32, 'num_layers': 2, 'memory_layers': 1, 'num_heads': 4})
    return datasets.smoke(config, width=8, num_heads=2, num_layers=1, memory_layers=1)
