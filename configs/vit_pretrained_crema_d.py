r"""Pretrained ViT on CREMA-D: a face, a spectrogram, or both, six emotions (the shared-encoder report).

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_2d
    python -m data_prep.convert_weights huggingface --source <vit-base-patch16-224-in21k> --output \
      vit-base-patch16-224-in21k
    python -m mmer_jax.main --config=configs/vit_pretrained_crema_d.py

    python -m mmer_jax.main --config=configs/vit_pretrained_crema_d.py:vision_as_published

The face above the spectrogram, brought to 224 x 224 again, as in the report's code; its text says side by side
(--config.model.join=width). 30 epochs as there; of its best ones it prints 16 (voice) and 21 (both).

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

PUBLISHED = {  # train loss, train accuracy, test loss, test accuracy
    'audio': (0.0545, 0.9846, 1.7709, 0.6231),
    'vision': (0.0453, 0.9857, 1.3825, 0.6895),
    'both': (0.0397, 0.9867, 0.7543, 0.8290),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('vit_pretrained_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '2d', PUBLISHED)
    encoder = encoders.VIT
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'height', 'resize': 224})
    config.data.batch_size = 32
    config.optimizer.learning_rate = 1e-4
    config.epochs = 30
    config.pretrained = ConfigDict({'encoder': encoders.VIT_WEIGHTS})
    return datasets.smoke(config, encoder={**encoder, **encoders.TINY, 'image_size': 32}, resize=32)
