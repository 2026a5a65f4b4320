"""wav2vec 2.0 base fine-tuned on RAVDESS speech, eight emotions, unseen actors.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_waveform --features waveform
    python -m data_prep.convert_weights huggingface --source <wav2vec2-base> --output wav2vec2-base
    python -m mmer_jax.main --config=configs/wav2vec2_ravdess.py

Six folds of four actors, two other actors validate. Learning rate 3e-5, batches of 8, weight decay 0.01, 15 epochs and
the cut at 10 s are those of the paper on pretrained transformers (section 3.2), which has no result on RAVDESS: on
IEMOCAP its Table 2 gives an accuracy of 0.68. The weights are of facebook/wav2vec2-base, the features the mean
over the valid frames. The variant `reduced` is a small network from random weights, three epochs and two folds: a run
of the whole path on a CPU, whose accuracy says nothing (configs/tables/wav2vec2_reduced.py).

Ours: not run: the checkpoint could not be obtained; `reduced`, which shows the path only, gives 21.9 ± 1.8 %.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

REDUCED = {
    **encoders.WAV2VEC2, 'hidden_size': 64, 'num_layers': 2, 'num_heads': 4, 'intermediate_size': 128,
    'conv_sizes': (32,) * 7, 'position_kernel': 16, 'position_groups': 4,
}  # fmt: skip


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('wav2vec2_ravdess', variant, ('smoke', 'reduced'))
    datasets.ravdess_waveform(config)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.WAV2VEC2})
    config.pretrained = ConfigDict({'encoder': encoders.WAV2VEC2_WEIGHTS})
    if variant == 'reduced':
        config.model.encoder = ConfigDict(REDUCED)
        config.pretrained = ConfigDict()
        config.protocol.options = ConfigDict({'folds': 2, 'validation_speakers': 2})
        config.optimizer.learning_rate = 1e-3
        config.epochs = 3
    return datasets.smoke(config, encoder={**encoders.WAV2VEC2, **encoders.TINY_WAVE})
