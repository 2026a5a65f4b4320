"""EF-LSTM on CMU-MOSI with text and one audio vector a clip: real files of a few megabytes.

    python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_text_audio
    python -m mmer_jax.main --config=configs/ef_lstm_mosi_text_audio.py

Standard split, five seeds, the epoch chosen on validation: mean ± standard deviation over seeds.

Ours: Acc-2 65.3 ± 1.3 %, MAE 1.273 ± 0.020, Corr 0.382 ± 0.015; time not measured; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('ef_lstm_mosi_text_audio', variant)
    datasets.mosi_text_audio(config)
    config.model = ConfigDict(
        {'name': 'ef_lstm', 'hidden_size': 96, 'mlp_size': 96, 'dropout': 0.3, 'max_text_length': 50}
    )
    return datasets.smoke(config, hidden_size=4, mlp_size=4, max_text_length=6)
