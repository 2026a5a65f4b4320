"""Seven ways to fuse sound (MFCC) and action units on RAVDESS speech, each one a variant.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m mmer_jax.main --config=configs/audio_visual_ravdess_openface.py:averaging

    python -m mmer_jax.main --config=configs/audio_visual_ravdess_openface.py:concat_fc

Six folds of four actors (of actors 1 to 20 five), two other actors validate, five seeds;
configs/tables/ravdess_openface.py has all rows.

Ours: averaging 65.8 ± 1.1 %, the others 62.4 to 65.3 % (20 actors); time not measured; memory not measured; CPU.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

FUSIONS = ('averaging', 'multiplication', 'multiplicative', 'concat_fc', 'compact_bilinear', 'mmtm', 'msaf')


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('audio_visual_ravdess_openface', variant, ('smoke', *FUSIONS))
    datasets.ravdess_openface(config)
    config.model = ConfigDict(
        {
            'name': 'audio_visual',
            'audio': {'name': 'mfcc_cnn'},
            'vision': {'name': 'vector_encoder', 'sizes': (64, 64), 'dropout': 0.3},
            'fusion': variant if variant in FUSIONS else 'averaging',
        }
    )
    return datasets.smoke(config)
