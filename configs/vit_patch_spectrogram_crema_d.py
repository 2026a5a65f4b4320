r"""ViT whose every face patch carries the spectrogram, on CREMA-D: proposed in the shared-encoder report, section 6.

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_2d_grey --color grey
    python -m mmer_jax.main --config=configs/vit_patch_spectrogram_crema_d.py

With the pretrained ViT, on colour pictures:

    python -m data_prep.crema_d --source <CREMA-D> --output data/crema_d_2d
    python -m data_prep.convert_weights huggingface --source <vit-base-patch16-224-in21k> --output \
      vit-base-patch16-224-in21k
    python -m mmer_jax.main --config=configs/vit_patch_spectrogram_crema_d.py:pretrained

All settings are those of vit_crema_d.py and vit_pretrained_crema_d.py, only the spectrogram comes in otherwise: it is
embedded whole to 64 numbers, which are concatenated with the pixels of each patch of the face (encoders/vit.py, field
patch_channels). One modality alone has nothing to repeat: those are the variants of the plain ViT. `as_published` is
the report's division. 27,256,646 parameters; pretrained 95,486,278, before the pooler that its checkpoint has.
The report proposes this and has no number.

Ours: not run: the videos of CREMA-D could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base
from configs.vit_crema_d import VIT

VARIANTS = ('smoke', 'pretrained', 'as_published', 'pretrained_as_published')


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('vit_patch_spectrogram_crema_d', variant, VARIANTS)
    pretrained = variant.startswith('pretrained')
    datasets.crema_d(config, '2d' if pretrained else '2d_grey', None)
    encoder = {**(encoders.VIT if pretrained else VIT), 'patch_channels': 3 if pretrained else 1, 'context_size': 64}
    config.model = ConfigDict({'name': 'stacked_input', 'encoder': encoder, 'join': 'channel'})
    config.data.batch_size = 32 if pretrained else 16
    config.optimizer.learning_rate = 1e-4
    config.epochs = 30 if pretrained else 50
    if pretrained:
        config.pretrained = ConfigDict({'encoder': encoders.VIT_WEIGHTS})
        config.fresh = ('^embeddings/context',)
    return datasets.smoke(config, encoder={**encoder, **encoders.TINY, 'image_size': 32, 'context_size': 4})
