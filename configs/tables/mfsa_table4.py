"""Table 4 of MFSA (Yang et al., ACM Multimedia 2022): ablations on CMU-MOSI, each a variant of configs/mfsa_mosi.py.

    python -m mmer_jax.table --table=configs/tables/mfsa_table4.py

Metrics as in configs/tables/mfsa_table1.py. WAL is the weighted attention layer, MRU a modality reinforcement unit.
"""

from configs.tables.mfsa_table1 import COLUMNS, sentiment_numbers

ABLATIONS = {  # heading: (label, variant, Acc-7, Acc-2, F1 in percent, MAE, Corr)
    '': (('MFSA (full)', '', 41.4, 83.3, 83.7, 0.856, 0.722),),
    'Analysis of Regularization': (
        ('w/o L_sep', 'without_separation', 40.9, 82.6, 83.5, 0.864, 0.718),
        ('w/o L_agn + L_spe', 'without_adversarial', 39.2, 82.4, 82.7, 0.871, 0.711),
    ),
    'Importance of Representations': (
        ('w/o Modality-Specific', 'without_specific', 38.6, 81.2, 81.5, 0.898, 0.708),
        ('w/o Modality-Agnostic', 'without_agnostic', 39.2, 81.8, 82.4, 0.881, 0.712),
    ),
    'Importance of Modules and Strategies': (
        ('w/o PSA Module', 'without_psa', 37.9, 80.7, 81.3, 0.917, 0.698),
        ('w/o Prediction Chain', 'without_prediction_chain', 40.3, 82.5, 83.0, 0.864, 0.718),
        ('w/o WAL', 'without_wal', 40.5, 82.7, 83.2, 0.858, 0.720),
        ('w/o HCA Module', 'without_hca', 38.4, 81.3, 81.8, 0.890, 0.711),
        ('w/o MRU (Mixed-grained)', 'without_mixed', 40.5, 82.8, 83.2, 0.859, 0.717),
        ('w/o MRU (Coarse-grained)', 'without_coarse', 41.0, 83.1, 83.4, 0.857, 0.720),
        ('w/o MRU (Fine-grained)', 'without_fine', 40.2, 82.7, 83.2, 0.862, 0.715),
    ),
}


def get_table() -> dict:
    return {
        'title': 'MFSA, Table 4: ablations on CMU-MOSI',
        'source': 'Yang et al., MFSA, ACM Multimedia 2022, Table 4',
        'dataset': 'mosi',
        'metrics': 'sentiment',
        'columns': COLUMNS,
        'seeds': 5,
        'rows': [
            {
                'label': label,
                'config': 'configs/mfsa_mosi.py',
                'variant': variant,
                'published': sentiment_numbers(*numbers),
                'group': group,
            }
            for group, rows in ABLATIONS.items()
            for label, variant, *numbers in rows
        ],
    }
