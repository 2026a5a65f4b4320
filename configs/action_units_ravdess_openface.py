"""OpenFace action units alone on RAVDESS speech: a perceptron over one vector a clip.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m mmer_jax.main --config=configs/action_units_ravdess_openface.py

Six folds of four actors (of actors 1 to 20 five), two other actors validate, five seeds;
configs/tables/ravdess_openface.py has all rows.

Ours: 54.6 ± 0.7 % accuracy (20 actors); time not measured; memory not measured; CPU.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('action_units_ravdess_openface', variant)
    datasets.ravdess_openface(config)
    config.modalities = ('vision',)
    config.data.normalize = ('vision',)
    encoder = {'name': 'vector_encoder', 'sizes': (64, 64), 'dropout': 0.3}
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoder})
    return datasets.smoke(config)
