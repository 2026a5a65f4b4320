"""Sound by a time-delay network and action units on RAVDESS speech, three ways to fuse them, each one a variant.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --audio log_mel \\
        --sample_rate 16000 --n_fft 1024 --hop_length 256 --num_mels 64 --offset 0.5 --duration 3.2 \\
        --output data/ravdess_openface_log_mel
    python -m mmer_jax.main --config=configs/tdnn_ravdess_openface.py:concat_fc

The sound, its augmentation and the optimiser are those of configs/tdnn_ravdess.py, the encoder of action units that of
configs/audio_visual_ravdess_openface.py. Six folds of four actors (of actors 1 to 20 five), two other actors validate.

Ours: concat_fc 64.8 ± 1.3 % accuracy (20 actors), the others not run; 18 minutes; memory not measured; CPU, 2 threads.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

FUSIONS = ('averaging', 'concat_fc', 'msaf')


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('tdnn_ravdess_openface', variant, ('smoke', *FUSIONS))
    datasets.ravdess_openface_log_mel(config)
    config.model = ConfigDict(
        {
            'name': 'audio_visual',
            'audio': {'name': 'tdnn', 'dropout': 0.15},
            'vision': {'name': 'vector_encoder', 'sizes': (64, 64), 'dropout': 0.3},
            'fusion': variant if variant in FUSIONS else 'averaging',
        }
    )
    return datasets.smoke(config, audio={'name': 'tdnn', 'width': 8})
