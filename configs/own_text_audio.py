"""Your own clips: a number, such as sentiment or valence, from words and sound, or whatever of them the data have.

    python -m data_prep.clips --csv labels.csv --media FOLDER --output data/mine --tokenizer all-minilm-l6-v2
    python -m mmer_jax.main --config=configs/own_text_audio.py --config.data.directory=data/mine --workdir=runs/mine

Modalities, sizes, loss and metrics follow the data, folds too, as in configs/own_audio_vision.py. With --glove the
words are vectors, with --tokenizer token ids whose vectors are learnt from the start; configs/own_fine_tuned.py begins
with a pretrained model.

Ours: not run: it is for data of yours.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('own_text_audio', variant, ())
    datasets.own(config)
    config.data.batch_size = 32
    config.model = ConfigDict({'name': 'any_input', 'model': {'name': 'lf_lstm', 'hidden_size': 64, 'mlp_size': 64}})
    config.optimizer.name = 'adamw'
    config.optimizer.weight_decay = 0.1
    config.optimizer.learning_rate = 1e-3
    config.epochs, config.selection.patience = 100, 40  # few clips are few steps an epoch; with many it stops early
    return config
