"""Sound alone on RAVDESS speech, in the setting of the OpenFace table: the MFCC CNN of CFN-SR.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m mmer_jax.main --config=configs/mfcc_cnn_ravdess_openface.py

Six folds of four actors (of actors 1 to 20 five), two other actors validate, five seeds;
configs/tables/ravdess_openface.py has all rows.

Ours: 45.0 ± 1.8 % accuracy (20 actors); time not measured; memory not measured; CPU.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mfcc_cnn_ravdess_openface', variant)
    datasets.ravdess_openface(config)
    config.modalities = ('audio',)
    config.data.normalize = ('audio',)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': {'name': 'mfcc_cnn'}})
    return datasets.smoke(config)
