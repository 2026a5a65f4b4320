"""MulT on CMU-MOSI with the token features of all-MiniLM-L6-v2 and one audio vector a clip.

    python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_tokens --tokenizer all-minilm-l6-v2
    python -m mmer_jax.main --config=configs/mult_mosi_minilm.py

    python -m mmer_jax.main --config=configs/mult_mosi_minilm.py:frozen
    python -m mmer_jax.main --config=configs/mult_mosi_minilm.py:longer

configs/minilm_mosi_text.py says where the weights come from, configs/tables/mosi_minilm.py has all rows. By default the
encoder is fine-tuned with the model.

Ours: Acc-2 83.4 ± 1.8 %, MAE 0.892 ± 0.071, Corr 0.767 ± 0.016; time not measured; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

MODEL = {'name': 'mult', 'width': 64, 'num_heads': 8, 'num_layers': 2, 'memory_layers': 1, 'output_dropout': 0.2}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('mult_mosi_minilm', variant, ('smoke', 'frozen', 'longer', 'reviews'))
    datasets.mosi_tokens(config)
    encoders.minilm_before(config, MODEL)
    return datasets.smoke(
        config,
        text={**encoders.MINILM, **encoders.TINY},
        model={**MODEL, 'width': 8, 'num_heads': 2, 'num_layers': 1, 'memory_layers': 1},
    )
