"""LF-LSTM on CMU-MOSI with the token features of all-MiniLM-L6-v2 and one audio vector a clip.

    python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_tokens --tokenizer all-minilm-l6-v2
    python -m mmer_jax.main --config=configs/lf_lstm_mosi_minilm.py

    python -m mmer_jax.main --config=configs/lf_lstm_mosi_minilm.py:frozen
    python -m mmer_jax.main --config=configs/lf_lstm_mosi_minilm.py:longer

configs/minilm_mosi_text.py says where the weights come from, configs/tables/mosi_minilm.py has all rows. By default the
encoder is fine-tuned with the model.

Ours: `:longer` Acc-2 84.1 ± 0.4 %, MAE 0.748 ± 0.008, Corr 0.785 ± 0.004; 26 min; 5.3 GB; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

MODEL = {'name': 'lf_lstm', 'hidden_size': 64, 'mlp_size': 64, 'dropout': 0.2}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('lf_lstm_mosi_minilm', variant, ('smoke', 'frozen', 'longer', 'reviews'))
    datasets.mosi_tokens(config)
    encoders.minilm_before(config, MODEL)
    return datasets.smoke(
        config, text={**encoders.MINILM, **encoders.TINY}, model={**MODEL, 'hidden_size': 4, 'mlp_size': 4}
    )
