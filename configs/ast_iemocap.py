"""The Audio Spectrogram Transformer fine-tuned on the sound of IEMOCAP, four emotions.

    python -m data_prep.iemocap --source <IEMOCAP> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m data_prep.convert_weights huggingface --source <ast-audioset> --output ast-audioset
    python -m mmer_jax.main --config=configs/ast_iemocap.py

Settings of Babaali and Shayaninasab (2023); their accuracy: 0.61 (Table 2).
The filterbank is made of the sound inside the model. 30 epochs; the features are the normalised mean of its two tokens.

Ours: not run: neither IEMOCAP nor the checkpoint could be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('ast_iemocap', variant, ('smoke', 'split'))
    datasets.iemocap_raw(config, 'audio')
    config.epochs = 30
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.AST})
    config.pretrained = ConfigDict({'encoder': encoders.AST_WEIGHTS})
    return datasets.smoke(config, encoder={**encoders.AST, **encoders.TINY_AST})
