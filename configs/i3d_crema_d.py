"""I3D on CREMA-D: clips of a face, strips of a spectrogram, or both, six emotions (the shared-encoder report).

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_3d --layout 3d
    python -m data_prep.convert_weights i3d --source rgb_imagenet.pt --output i3d-kinetics
    python -m mmer_jax.main --config=configs/i3d_crema_d.py

    python -m mmer_jax.main --config=configs/i3d_crema_d.py:vision_as_published

12,293,414 parameters, from the public Kinetics weights. As published pictures go in as 0 to 255, where the network
expects -1 to 1, and training ends after 5 epochs of the voice, 9 of the face and 16 of both, where here validation
chooses one of 16. A batch of four clips of both (135 x 224 x 448) needs 12.5 GiB for activations with remat, set here.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

PUBLISHED = {  # train loss, train accuracy, test loss, test accuracy
    'audio': (0.991, 0.623, 1.022, 0.605),
    'vision': (0.334, 0.878, 0.463, 0.831),
    'both': (0.211, 0.923, 0.629, 0.806),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('i3d_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '3d', PUBLISHED)
    encoder: dict = {'name': 'i3d', 'remat': True}
    if variant.endswith('as_published'):
        encoder |= encoders.RAW_PICTURES
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'width'})
    config.data.batch_size = 4 if len(config.modalities) == 2 else 8
    config.optimizer.learning_rate = 1e-3
    config.epochs = datasets.crema_d_epochs(config, 'i3d', 16)
    config.pretrained = ConfigDict({'encoder': 'i3d-kinetics'})
    return datasets.smoke(config, encoder={**encoder, 'divisor': 8, 'num_frames': 16, 'pool_window': (2, 2, 2)})
