"""MFSA on the embedded synthetic data; one of the rows of configs/tables/synthetic.py.

python -m data_prep.synthetic --output data/synthetic
python -m mmer_jax.main --config=configs/mfsa_synthetic.py
python -m mmer_jax.main --config=configs/mfsa_synthetic.py --config.modalities="('text',)"

What the separation loss does, after six epochs (--config.epochs=6 --config.seeds=2): the correlation of specific and
agnostic vectors on the test clips that `python -m mmer_jax.figures representations RUN --method pca --seed N` prints is
0.009 and 0.009 for the seeds 0 and 1 with it, 0.449 and 0.098 without (--config.losses.separation=0). So early in the
training it costs accuracy: 58.0 and 79.7 % with it, 77.0 and 84.9 % without.

Ours: 97.9 % accuracy, 98.3 % without separation; 6 minutes beside other work; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mfsa_synthetic', variant)
    datasets.synthetic(config)
    config.model = ConfigDict(
        {
            'name': 'mfsa',
            'width': 32,
            'output_width': 32,
            'num_heads': 4,
            'psa_layers': 2,
            'hca_layers': 1,
            'fusion_feed_forward': 128,
        }
    )
    config.losses.update(
        {'separation': 1e-2, 'agnostic_adversarial': 1e-3, 'specific_adversarial': 1e-3, 'importance': 0.1}
    )
    config.optimizer.clip_alone = ('double_discriminator/importance/',)
    return datasets.smoke(config, width=8, output_width=8, num_heads=2, fusion_feed_forward=8, discriminator_size=4)
