"""BERT fine-tuned on the words of IEMOCAP, four emotions.

    python -m data_prep.convert_weights huggingface --source <bert-base-uncased> --output bert-base-uncased
    python -m data_prep.iemocap --source <IEMOCAP> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m mmer_jax.main --config=configs/bert_iemocap.py

Settings of Babaali and Shayaninasab (2023); their accuracy: 0.68 (Table 1) and 0.6750 over five folds (Table 4).
The features are those that the classifier reads: 768 values behind the first token.

Ours: not run: neither IEMOCAP nor the checkpoint could be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('bert_iemocap', variant, ('smoke', 'split'))
    datasets.iemocap_raw(config, 'text')
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.BERT})
    config.pretrained = ConfigDict({'encoder': 'bert-base-uncased'})
    return datasets.smoke(config, encoder={**encoders.BERT, **encoders.TINY, 'projector': 8})
