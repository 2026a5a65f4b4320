"""MFSA on sound (MFCC) and action units, RAVDESS speech; the units are a sequence of one step.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m mmer_jax.main --config=configs/mfsa_ravdess_openface.py

Six folds of four actors (of actors 1 to 20 five), two other actors validate;
configs/tables/ravdess_openface.py has all rows.

Ours: 65.0 ± 3.9 % accuracy over five folds; 16 minutes beside other work; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mfsa_ravdess_openface', variant)
    datasets.ravdess_openface(config)
    config.epochs = 10
    config.model = ConfigDict(
        {
            'name': 'mfsa',
            'width': 32,
            'output_width': 32,
            'num_heads': 4,
            'psa_layers': 1,
            'hca_layers': 1,
            'kernel_sizes': 3,
            'fusion_feed_forward': 64,
        }
    )
    config.losses.update(
        {'separation': 1e-2, 'agnostic_adversarial': 1e-3, 'specific_adversarial': 1e-3, 'importance': 0.1}
    )
    return datasets.smoke(config, width=8, output_width=8, num_heads=2, fusion_feed_forward=8, discriminator_size=4)
