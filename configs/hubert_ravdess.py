"""HuBERT base fine-tuned on RAVDESS speech, eight emotions, unseen actors.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_waveform --features waveform
    python -m data_prep.convert_weights huggingface --source <hubert-base-ls960> --output hubert-base
    python -m mmer_jax.main --config=configs/hubert_ravdess.py

Six folds of four actors, two other actors validate. Learning rate 3e-5, batches of 8, weight decay 0.01, 15 epochs and
the cut at 10 s are those of the paper on pretrained transformers (section 3.2), which has no result on RAVDESS: on
IEMOCAP its Table 2 gives an accuracy of 0.625. The weights are of facebook/hubert-base-ls960, the features the
mean over the valid frames.

Ours: not run: the checkpoint could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('hubert_ravdess', variant)
    datasets.ravdess_waveform(config)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.HUBERT})
    config.pretrained = ConfigDict({'encoder': encoders.HUBERT_WEIGHTS})
    return datasets.smoke(config, encoder={**encoders.HUBERT, **encoders.TINY_WAVE})
