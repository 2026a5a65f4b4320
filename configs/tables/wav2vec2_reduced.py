"""From sound files to a table: a small wav2vec 2.0 from random weights on RAVDESS speech, two folds of actors.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_waveform --features waveform
    python -m mmer_jax.table --table=configs/tables/wav2vec2_reduced.py

A run of the whole path that needs no download. From random weights and in three epochs no accuracy is claimed.
"""

from configs.tables.cfn_sr_table1 import EMOTIONS


def get_table() -> dict:
    return {
        'title': 'wav2vec 2.0 of reduced size, random weights, on RAVDESS speech',
        'source': 'this toolkit; no published table has this setting',
        'metrics': 'classification',
        'classes': EMOTIONS,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'macro_f1': 'Macro F1'},
        'rows': [
            {'label': 'wav2vec 2.0 (reduced)', 'config': 'configs/wav2vec2_ravdess.py', 'variant': 'reduced'},
        ],
        'notes': ('The weights were random and trained for three epochs: no accuracy is claimed, the path is shown.',),
    }
