"""LF-LSTM on CMU-MOSI with text and one audio vector a clip: real files of a few megabytes.

    python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_text_audio
    python -m mmer_jax.main --config=configs/lf_lstm_mosi_text_audio.py

Standard split, five seeds, the epoch chosen on validation: mean ± standard deviation over seeds.

Ours: Acc-2 71.0 ± 0.9 %, MAE 1.172 ± 0.014, Corr 0.491 ± 0.006; 4 minutes; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('lf_lstm_mosi_text_audio', variant)
    datasets.mosi_text_audio(config)
    config.model = ConfigDict({'name': 'lf_lstm', 'hidden_size': 96, 'mlp_size': 96, 'dropout': 0.3})
    return datasets.smoke(config, hidden_size=4, mlp_size=4)
