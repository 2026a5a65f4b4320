"""Audio Spectrogram Transformer (AST) of AudioSet fine-tuned on RAVDESS speech, eight emotions, unseen actors.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_waveform --features waveform
    python -m data_prep.convert_weights huggingface --source <ast-finetuned-audioset> --output ast-audioset
    python -m mmer_jax.main --config=configs/ast_ravdess.py

Six folds of four actors, two other actors validate. Learning rate 3e-5, batches of 8, weight decay 0.01, 30 epochs and
the cut at 10 s are those of the paper on pretrained transformers (section 3.2), which has no result on RAVDESS: on
IEMOCAP its Table 2 gives an accuracy of 0.61. The weights are of MIT/ast-finetuned-audioset-10-10-0.4593; the model
makes its filterbank of the waveform itself (mmer_jax/encoders/filterbank.py).

Ours: not run: the checkpoint could not be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('ast_ravdess', variant)
    datasets.ravdess_waveform(config)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.AST})
    config.pretrained = ConfigDict({'encoder': encoders.AST_WEIGHTS})
    config.data.max_shapes = 1  # every clip is padded to AST's own length
    config.epochs = 30
    return datasets.smoke(config, encoder={**encoders.AST, **encoders.TINY_AST})
