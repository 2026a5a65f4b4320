"""CFN-SR (Fu et al. 2021, 26,301,417 parameters) on RAVDESS speech: faces and MFCC, unseen actors.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_mfcc_frames --vision frames --crop mtcnn
    python -m mmer_jax.main --config=configs/cfn_sr_ravdess.py

Variants are the rows of its Table 2: without_block, video_to_audio, without_self_attention, without_residual. The paper
trains both networks alone first, fold by fold; configs/tables/cfn_sr_table1.py and cfn_sr_table2.py run that chain.

Ours: not run: the videos of all 24 actors could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base

ABLATIONS: dict[str, tuple[dict, float]] = {  # variant: (changed fields, published accuracy)
    'without_block': ({'direction': 'none'}, 0.7350),
    'video_to_audio': ({'direction': 'video_to_audio'}, 0.7415),
    'without_self_attention': ({'self_attention': False}, 0.7386),
    'without_residual': ({'residual': False}, 0.7533),
}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('cfn_sr_ravdess', variant, ('smoke', *ABLATIONS))
    datasets.ravdess_video(config)
    fields, accuracy = ABLATIONS.get(variant, ({}, 0.7576))
    encoders = {'audio': {'name': 'mfcc_cnn'}, 'vision': {'name': 'resnext3d', 'remat': True}}
    config.model = ConfigDict({'name': 'cfn_sr', **encoders, **fields})
    published = {'accuracy': accuracy, 'dataset': 'ravdess'}
    config.published = ConfigDict({**published, 'source': 'CFN-SR, Table 2, selected on the test fold'})
    return datasets.smoke(config, vision=datasets.TINY_RESNEXT3D, width=8, num_layers=1, num_heads=2)
