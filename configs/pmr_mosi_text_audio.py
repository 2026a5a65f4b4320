"""PMR on CMU-MOSI with text and one audio vector a clip: real files of a few megabytes.

    python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_text_audio
    python -m mmer_jax.main --config=configs/pmr_mosi_text_audio.py

Standard split, five seeds, the epoch chosen on validation: mean ± standard deviation over seeds; Acc-7 29.7 ± 0.9
(configs/tables/mosi_text_audio.py, 2026-11-29).

Ours: Acc-2 70.5 ± 0.8 %, MAE 1.139 ± 0.022, Corr 0.493 ± 0.026; at most 30 minutes; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('pmr_mosi_text_audio', variant)
    datasets.mosi_text_audio(config)
    config.model = ConfigDict(
        {'name': 'pmr', 'width': 96, 'num_layers': 2, 'final_layers': 1, 'num_heads': 8, 'dropout': 0.2}
    )
    return datasets.smoke(config, width=8, num_heads=2, num_layers=1, final_layers=1)
