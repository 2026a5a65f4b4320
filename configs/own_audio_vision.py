"""Your own clips: classes from sound and pictures, or whatever of sound, pictures and words the data have.

    python -m data_prep.clips --csv labels.csv --media FOLDER --output data/mine
    python -m mmer_jax.main --config=configs/own_audio_vision.py --config.data.directory=data/mine --workdir=runs/mine

Modalities, sizes, classes, loss and metrics follow the data. Folds too: the column split where it is whole, else five
groups of speakers, else of clips, which is marked. One LSTM per modality, their states joined (LF-LSTM), behind a small
CNN for pictures and mel bands for samples. Small and without pretrained weights: a first number, not the last one. At
most 100 epochs: of 52 clips of one RAVDESS actor, seven classes, UAR on validation was 17 % after 20 epochs of two
steps, the best constant answer's, and 64 % after 61 (`--folds=0 --config.epochs=120`).

Ours: not run: it is for data of yours.
"""

from ml_collections import ConfigDict

from configs import datasets
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('own_audio_vision', variant, ())
    datasets.own(config)
    config.data.batch_size = 16
    config.model = ConfigDict({'name': 'any_input', 'model': {'name': 'lf_lstm', 'hidden_size': 48, 'mlp_size': 64}})
    config.optimizer.learning_rate = 1e-3
    config.epochs, config.selection.patience = 100, 40  # few clips are few steps an epoch; with many it stops early
    config.search = (  # what mmer_jax.search varies
        ('optimizer.learning_rate', 'log', 1e-4, 1e-2),
        ('model.model.dropout', 'uniform', 0.0, 0.5),
        ('data.batch_size', 'choice', 8, 16, 32),
    )
    return config
