"""VGG-16 on CREMA-D: a face, a spectrogram, or both, six emotions (the shared-encoder report).

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_2d
    python -m data_prep.convert_weights vgg16 --source vgg16-397923af.pth --output vgg16-imagenet
    python -m mmer_jax.main --config=configs/vgg16_crema_d.py

    python -m mmer_jax.main --config=configs/vgg16_crema_d.py:vision_as_published

The report replaces the first layer by one of 7 x 7 with stride 2; the others begin with the ImageNet weights of
torchvision.
Face and spectrogram are joined by channel, as in the report's code; its text says side by side:
--config.model.join=width.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

PUBLISHED = {  # train loss, train accuracy, test loss, test accuracy
    'audio': (1.1326, 0.9113, 1.4438, 0.5962),
    'vision': (1.1049, 0.9404, 1.3641, 0.6765),
    'both': (1.1081, 0.9356, 1.3785, 0.6608),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('vgg16_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '2d', PUBLISHED)
    encoder = {'name': 'vgg16', 'large_first_layer': True}
    if variant.endswith('as_published'):  # a softmax before the loss, which has one of its own
        config.losses = ConfigDict({'double_softmax': 1.0})
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'channel'})
    config.data.batch_size = 32 if len(config.modalities) == 2 else 16
    config.optimizer.learning_rate = 1e-5
    config.epochs = 50
    config.pretrained = ConfigDict({'encoder': 'vgg16-imagenet'})
    config.fresh = ('^blocks0_0/',)
    tiny = {'block_counts': (1, 1, 1, 1, 1), 'planes': (4, 4, 4, 8, 8), 'hidden_size': 8}
    return datasets.smoke(config, encoder={**encoder, **tiny}, resize=64)
