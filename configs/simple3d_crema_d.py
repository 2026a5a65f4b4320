"""Simple3D on CREMA-D: clips of a face, strips of a spectrogram, or both, six emotions (the shared-encoder report).

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_3d --layout 3d
    python -m mmer_jax.main --config=configs/simple3d_crema_d.py

    python -m mmer_jax.main --config=configs/simple3d_crema_d.py:vision_as_published

10,206 parameters on one modality and 11,358 on both; as published all but the first convolution share their weights
(3,262 and 4,414), pictures go in as 0 to 255, the same actors are tested, and training ends where the report's ended
(27 epochs on the face, 36 on the voice) instead of going on for 30 of which validation chooses one.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

PUBLISHED = {  # train loss, train accuracy, test loss, test accuracy
    'audio': (1.213, 0.519, 1.294, 0.514),
    'vision': (1.160, 0.546, 1.417, 0.462),
    'both': (0.918, 0.647, 1.169, 0.573),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('simple3d_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '3d', PUBLISHED)
    encoder: dict = {'name': 'simple3d'}
    if variant.endswith('as_published'):
        encoder |= {'shared_convolution': True, **encoders.RAW_PICTURES}
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'width'})
    config.data.batch_size = 8
    config.optimizer.learning_rate = 1e-3
    config.epochs = datasets.crema_d_epochs(config, 'simple3d', 30)
    return datasets.smoke(config, encoder={**encoder, 'features': 2, 'num_frames': 64})
