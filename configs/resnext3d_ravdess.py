"""3-D ResNeXt-50 (25,882,056 parameters) on the faces of RAVDESS speech: CFN-SR's video network alone.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_mfcc_frames --vision frames --crop mtcnn
    python -m mmer_jax.main --config=configs/resnext3d_ravdess.py

CFN-SR's sizes, optimiser and epochs, from random weights: the paper names no others. Weights of this network trained on
Kinetics are public (data_prep.convert_weights resnext3d), config.pretrained = {'encoder': NAME} takes them.

Ours: not run: the videos of all 24 actors could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('resnext3d_ravdess', variant)
    datasets.ravdess_video(config)
    config.modalities = ('vision',)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': {'name': 'resnext3d', 'remat': True}})
    published = {'accuracy': 0.6299, 'dataset': 'ravdess'}
    config.published = ConfigDict({**published, 'source': 'CFN-SR, Table 1, selected on the test fold'})
    return datasets.smoke(config, encoder=datasets.TINY_RESNEXT3D)
