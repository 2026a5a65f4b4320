"""Table 2 of MFSA (Yang et al., ACM Multimedia 2022): eight models on CMU-MOSEI sentiment, unaligned sequences.

    python -m mmer_jax.table --table=configs/tables/mfsa_table2.py

Metrics as in configs/tables/mfsa_table1.py.
"""

from configs.tables.mfsa_table1 import COLUMNS, MODELS, config_of


def get_table() -> dict:
    return {
        'title': 'MFSA, Table 2: CMU-MOSEI',
        'source': 'Yang et al., MFSA, ACM Multimedia 2022, Table 2',
        'dataset': 'mosei',
        'metrics': 'sentiment',
        'columns': COLUMNS,
        'seeds': 5,
        'rows': [{'label': m, 'config': config_of(m, 'mosei')} for m in MODELS],
    }
