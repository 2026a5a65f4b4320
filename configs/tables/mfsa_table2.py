"""Table 2 of MFSA (Yang et al., ACM Multimedia 2022): eight models on CMU-MOSEI sentiment, unaligned sequences.

    python -m mmer_jax.table --table=configs/tables/mfsa_table2.py

Metrics as in configs/tables/mfsa_table1.py.
"""

from configs.tables.mfsa_table1 import COLUMNS, MODELS, config_of, sentiment_numbers

PUBLISHED = {  # Acc-7, Acc-2, F1 in percent, MAE, Corr
    'EF-LSTM': (46.3, 76.1, 75.9, 0.680, 0.585),
    'LF-LSTM': (48.8, 77.5, 78.2, 0.624, 0.656),
    'RAVEN': (45.5, 75.4, 75.7, 0.664, 0.599),
    'MCTN': (48.2, 79.3, 79.7, 0.631, 0.645),
    'MulT': (50.7, 81.6, 81.6, 0.591, 0.694),
    'PMR': (51.8, 83.1, 82.8, None, None),
    'MICA': (52.4, 83.7, 83.3, None, None),
    'MFSA': (53.2, 83.8, 83.6, 0.574, 0.724),
}


def get_table() -> dict:
    return {
        'title': 'MFSA, Table 2: CMU-MOSEI',
        'source': 'Yang et al., MFSA, ACM Multimedia 2022, Table 2',
        'dataset': 'mosei',
        'metrics': 'sentiment',
        'columns': COLUMNS,
        'seeds': 5,
        'rows': [
            {'label': m, 'config': config_of(m, 'mosei'), 'published': sentiment_numbers(*PUBLISHED[m])} for m in MODELS
        ],
    }
