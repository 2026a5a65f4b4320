r"""A small 3-D CNN in front of VideoMAE on CREMA-D, as the shared-encoder report proposes in sections 5.7.4 and 6.

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_3d_32 --layout 3d --frames 32 --fill repeat
    python -m data_prep.convert_weights huggingface --source <videomae-base-finetuned-kinetics> \
      --output videomae-base-finetuned-kinetics
    python -m mmer_jax.main --config=configs/videomae_conv_crema_d.py

    python -m mmer_jax.main --config=configs/videomae_conv_crema_d.py:vision

32 frames of a face beside its strip of the spectrogram, 224 x 448; the CNN (2,419 parameters) brings them to the 16
frames of 224 x 224 on which VideoMAE was pretrained. One modality alone is shrunk in time only. Half the sides, and a
quarter of the tokens again: --config.model.encoder.network.image_size=112. Rate, batch and epochs are those of
videomae_crema_d.py; `as_published` variants take the report's division, not its raw pictures.
The report proposes this and has no number.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('videomae_conv_crema_d', variant, datasets.CREMA_D_VARIANTS)
    datasets.crema_d(config, '3d_32', None)
    network = {**encoders.VIDEOMAE, 'num_frames': 16, 'image_size': 224}
    encoder = {'name': 'conv_videomae', 'network': network, 'frames': 32, 'features': 8}
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'width'})
    config.data.batch_size = 8
    config.optimizer.learning_rate = 5e-5
    config.epochs = 10
    config.pretrained = ConfigDict({'encoder/network': encoders.VIDEOMAE_WEIGHTS})
    return datasets.smoke(config, encoder={**encoder, 'network': {**network, **encoders.TINY_VIDEO}, 'frames': 8})
