r"""RoBERTa fine-tuned on the words of IEMOCAP, four emotions.

    python -m data_prep.convert_weights huggingface --source <roberta-base> --output roberta-base
    python -m data_prep.iemocap --source <IEMOCAP> --output data/iemocap_roberta \
      --tokenizer roberta-base --modalities text
    python -m mmer_jax.main --config=configs/roberta_iemocap.py

Settings of Babaali and Shayaninasab (2023); their accuracy: 0.65 (Table 1).
The features are those that the classifier reads: 768 values behind the first token.
The layer that makes them is fresh: the checkpoint has none.

Ours: not run: neither IEMOCAP nor the checkpoint could be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('roberta_iemocap', variant, ('smoke', 'split'))
    datasets.iemocap_raw(config, 'text')
    config.data.directory = 'data/iemocap_roberta'
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.ROBERTA})
    config.pretrained = ConfigDict({'encoder': 'roberta-base'})
    config.fresh = ('projector/',)
    return datasets.smoke(config, encoder={**encoders.ROBERTA, **encoders.TINY, 'projector': 8})
