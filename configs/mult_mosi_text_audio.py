"""MulT on CMU-MOSI with text and one audio vector a clip: real files of a few megabytes.

    python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_text_audio
    python -m mmer_jax.main --config=configs/mult_mosi_text_audio.py

Standard split, five seeds, the epoch chosen on validation: mean ± standard deviation over seeds.

Ours: Acc-2 68.8 ± 1.4 %, MAE 1.227 ± 0.026, Corr 0.452 ± 0.029; 7 minutes; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mult_mosi_text_audio', variant)
    datasets.mosi_text_audio(config)
    config.model = ConfigDict(
        {'name': 'mult', 'width': 96, 'num_layers': 2, 'memory_layers': 2, 'num_heads': 8, 'kernel_sizes': 1}
    )
    return datasets.smoke(config, width=8, num_heads=2, num_layers=1, memory_layers=1)
