"""MFSA on CMU-MOSI, unaligned text, audio and vision; and the ablations of the paper's Table 4.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --output data/mosi
    python -m mmer_jax.main --config=configs/mfsa_mosi.py
    python -m mmer_jax.main --config=configs/mfsa_mosi.py:without_prediction_chain        (and the others below)

The paper's settings (section 4.2): M = 5, N = 2, d = 40, d_h = 128, Adam; 1,787,428 parameters, of which it gives no
number. With remat and four accumulated parts a batch of 64 padded to 50, 375 and 500 steps takes 4.0 GiB on CPU, and
bucketed true lengths train 7.3 times as many samples a second (benchmarks/sequence_models.py, RESULTS.md), the second
forward pass of each part included that the separation loss of the whole batch costs.
The paper gives 74 audio and 35 visual features for all three sets; MulT's file of MOSI has 5 and 20.
Published: Table 1 and Table 4, test set.

Ours: not run: the feature files could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

# Rows of Table 4: the published numbers, and the fields that make the ablation.
ABLATIONS = {
    'without_separation': ((40.9, 82.6, 83.5, 0.864, 0.718), {}),
    'without_adversarial': ((39.2, 82.4, 82.7, 0.871, 0.711), {}),
    'without_specific': ((38.6, 81.2, 81.5, 0.898, 0.708), {'fused': ('agnostic',)}),
    'without_agnostic': ((39.2, 81.8, 82.4, 0.881, 0.712), {'fused': ('specific',)}),
    'without_psa': ((37.9, 80.7, 81.3, 0.917, 0.698), {'psa_layers': 0}),
    'without_prediction_chain': ((40.3, 82.5, 83.0, 0.864, 0.718), {'prediction_chain': False}),
    'without_wal': ((40.5, 82.7, 83.2, 0.858, 0.720), {'weighted_attention': 'none'}),
    'without_hca': ((38.4, 81.3, 81.8, 0.890, 0.711), {'hca_layers': 0}),
    'without_mixed': ((40.5, 82.8, 83.2, 0.859, 0.717), {'grains': ('coarse', 'fine')}),
    'without_coarse': ((41.0, 83.1, 83.4, 0.857, 0.720), {'grains': ('mixed', 'fine')}),
    'without_fine': ((40.2, 82.7, 83.2, 0.862, 0.715), {'grains': ('mixed', 'coarse')}),
}
TINY = {
    'width': 8, 'output_width': 8, 'num_heads': 2, 'psa_layers': 2, 'hca_layers': 1, 'fusion_feed_forward': 8,
    'discriminator_size': 4, 'remat': False,
}  # fmt: skip


def build(name: str, dataset: str, variant: str, *, alpha: float = 1e-2, beta: float = 3e-2) -> ConfigDict:
    """alpha weighs the separation loss, beta the adversarial ones (equation 16)."""
    config = get_base(name, variant, ('smoke', *ABLATIONS))
    datasets.use(config, dataset)
    config.model = ConfigDict(
        {
            'name': 'mfsa',
            'width': 40,
            'output_width': 128,
            'num_heads': 8,
            'psa_layers': 5,
            'hca_layers': 2,
            'mu': 0.25,
            'remat': True,
        }
    )
    if variant != 'without_separation':
        config.losses.separation = alpha
    if variant != 'without_adversarial':
        # The importance discriminator trains itself alone. Its gradient is four times that of all others together, so
        # that one norm for all would shrink the task's steps: it is clipped by its own. Then its weight is free.
        config.losses.update({'agnostic_adversarial': beta, 'specific_adversarial': beta, 'importance': 1.0})
        config.optimizer.clip_alone = ('double_discriminator/importance/',)
    if variant in ABLATIONS:
        config.model.update(ConfigDict(ABLATIONS[variant][1]))
    config.data.batch_size = 64
    config.accumulate = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 1.0  # not in the paper
    config.epochs = 100
    return config


def get_config(variant: str = '') -> ConfigDict:
    config = build('mfsa_mosi', 'mosi', variant)
    config.published = datasets.published_sentiment(1, 41.4, 83.3, 83.7, 0.856, 0.722)
    if variant in ABLATIONS:
        config.published = datasets.published_sentiment(4, *ABLATIONS[variant][0])
    return datasets.smoke(config, **TINY)
