"""wav2vec 2.0 fine-tuned on the sound of IEMOCAP, four emotions.

    python -m data_prep.iemocap --source <IEMOCAP> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m data_prep.convert_weights huggingface --source <wav2vec2-base> --output wav2vec2-base
    python -m mmer_jax.main --config=configs/wav2vec2_iemocap.py

Settings of Babaali and Shayaninasab (2023); their accuracy: 0.68 (Table 2) and 0.6755 over five folds (Table 4).
The features are the mean over the valid frames, 768 values: without the 256 that the checkpoint's own classifier puts
behind them, so that they can be added to those of the other modalities.

Ours: not run: neither IEMOCAP nor the checkpoint could be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('wav2vec2_iemocap', variant, ('smoke', 'split'))
    datasets.iemocap_raw(config, 'audio')
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.WAV2VEC2})
    config.pretrained = ConfigDict({'encoder': encoders.WAV2VEC2_WEIGHTS})
    return datasets.smoke(config, encoder={**encoders.WAV2VEC2, **encoders.TINY_WAVE})
