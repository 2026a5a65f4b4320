"""GoogLeNet on CREMA-D: a face, a spectrogram, or both, six emotions (the shared-encoder report).

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_2d
    python -m mmer_jax.main --config=configs/googlenet_crema_d.py

    python -m mmer_jax.main --config=configs/googlenet_crema_d.py:vision_as_published

From random weights, as the report's code has it, although its section 5.3.1 speaks of pretrained weights of all these
networks. As published its first layer has neither BatchNorm nor ReLU. Its auxiliary heads were built and not used. Face
and spectrogram are joined by channel, as in the code; the report says side by side: --config.model.join=width.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

PUBLISHED = {  # train loss, train accuracy, test loss, test accuracy
    'audio': (1.1124, 0.9344, 1.4152, 0.6244),
    'vision': (1.1169, 0.9275, 1.3649, 0.6742),
    'both': (1.1069, 0.9390, 1.3678, 0.6711),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('googlenet_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '2d', PUBLISHED)
    encoder: dict = {'name': 'googlenet'}
    if variant.endswith('as_published'):  # a softmax before the loss, which has one of its own
        encoder['bare_first_layer'] = True
        config.losses = ConfigDict({'double_softmax': 1.0})
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'channel'})
    config.data.batch_size = 64
    config.optimizer.learning_rate = 1e-4
    config.epochs = 50
    return datasets.smoke(config, encoder={**encoder, 'divisor': 8})
