"""Table 4 of MFSA (Yang et al., ACM Multimedia 2022): ablations on CMU-MOSI, each a variant of configs/mfsa_mosi.py.

    python -m mmer_jax.table --table=configs/tables/mfsa_table4.py

Metrics as in configs/tables/mfsa_table1.py. WAL is the weighted attention layer, MRU a modality reinforcement unit.
"""

from configs.tables.mfsa_table1 import COLUMNS

ABLATIONS = {  # heading: (label, variant)
    '': (('MFSA (full)', ''),),
    'Analysis of Regularization': (
        ('w/o L_sep', 'without_separation'),
        ('w/o L_agn + L_spe', 'without_adversarial'),
    ),
    'Importance of Representations': (
        ('w/o Modality-Specific', 'without_specific'),
        ('w/o Modality-Agnostic', 'without_agnostic'),
    ),
    'Importance of Modules and Strategies': (
        ('w/o PSA Module', 'without_psa'),
        ('w/o Prediction Chain', 'without_prediction_chain'),
        ('w/o WAL', 'without_wal'),
        ('w/o HCA Module', 'without_hca'),
        ('w/o MRU (Mixed-grained)', 'without_mixed'),
        ('w/o MRU (Coarse-grained)', 'without_coarse'),
        ('w/o MRU (Fine-grained)', 'without_fine'),
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
            {'label': label, 'config': 'configs/mfsa_mosi.py', 'variant': variant, 'group': group}
            for group, rows in ABLATIONS.items()
            for label, variant in rows
        ],
    }
