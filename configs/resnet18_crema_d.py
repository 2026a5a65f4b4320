"""ResNet-18 on CREMA-D: a face, a spectrogram, or both, six emotions (the shared-encoder report).

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_2d_grey --color grey
    python -m data_prep.convert_weights resnet18 --source resnet18-f37072fd.pth --output resnet18-imagenet
    python -m mmer_jax.main --config=configs/resnet18_crema_d.py

    python -m mmer_jax.main --config=configs/resnet18_crema_d.py:vision_as_published

A grey face and a grey spectrogram are its two channels; the first layer is new, the others begin with the ImageNet
weights of torchvision.
Face and spectrogram are joined by channel, as in the report's code; its text says side by side:
--config.model.join=width.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

PUBLISHED = {  # train loss, train accuracy, test loss, test accuracy
    'audio': (1.0602, 0.9848, 1.4199, 0.6182),
    'vision': (1.0603, 0.9848, 1.3597, 0.6815),
    'both': (1.1050, 0.9379, 1.3074, 0.7326),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('resnet18_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '2d_grey', PUBLISHED)
    encoder = {'name': 'resnet18'}
    if variant.endswith('as_published'):  # a softmax before the loss, which has one of its own
        config.losses = ConfigDict({'double_softmax': 1.0})
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'channel'})
    config.data.batch_size = 32
    config.optimizer.learning_rate = 1e-3 if len(config.modalities) == 2 else 1e-4
    config.epochs = 50
    config.pretrained = ConfigDict({'encoder': 'resnet18-imagenet'})
    config.fresh = ('^conv1/',)
    return datasets.smoke(
        config, encoder={**encoder, 'block_counts': (1, 1, 1, 1), 'planes': (4, 4, 8, 8), 'stem_features': 4}
    )
