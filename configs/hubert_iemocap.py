"""HuBERT fine-tuned on the sound of IEMOCAP, four emotions.

    python -m data_prep.iemocap --source <IEMOCAP> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m data_prep.convert_weights huggingface --source <hubert-base> --output hubert-base
    python -m mmer_jax.main --config=configs/hubert_iemocap.py

Settings of Babaali and Shayaninasab (2023); their accuracy: 0.625 (Table 2).
The features are the mean over the valid frames, 768 values: without the 256 that the checkpoint's own classifier puts
behind them, so that they can be added to those of the other modalities.

Ours: not run: neither IEMOCAP nor the checkpoint could be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('hubert_iemocap', variant, ('smoke', 'split'))
    datasets.iemocap_raw(config, 'audio')
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.HUBERT})
    config.pretrained = ConfigDict({'encoder': encoders.HUBERT_WEIGHTS})
    return datasets.smoke(config, encoder={**encoders.HUBERT, **encoders.TINY_WAVE})
