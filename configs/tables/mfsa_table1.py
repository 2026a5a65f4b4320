"""Table 1 of MFSA (Yang et al., ACM Multimedia 2022): eight models on CMU-MOSI, unaligned sequences.

    python -m mmer_jax.table --table=configs/tables/mfsa_table1.py

The paper does not say which Acc-2, F1 and Acc-7 it means. Taken are those of MulT, whose protocol it follows: clips
of sentiment 0 left out, F1 weighted by class, sentiment rounded.
"""

MODELS = ('EF-LSTM', 'LF-LSTM', 'RAVEN', 'MCTN', 'MulT', 'PMR', 'MICA', 'MFSA')
COLUMNS = {
    'acc7_round': 'Acc-7',
    'acc2_non0': 'Acc-2',
    'f1_non0': 'F1',
    'mae': 'MAE',
    'corr': 'Corr',
    'uar_non0': 'UAR',  # from here on not in the paper
    'macro_f1_non0': 'macro F1',
}
PUBLISHED = {  # Acc-7, Acc-2, F1 in percent, MAE, Corr
    'EF-LSTM': (31.0, 73.6, 74.5, 1.078, 0.542),
    'LF-LSTM': (33.7, 77.6, 77.8, 0.988, 0.624),
    'RAVEN': (31.7, 72.7, 73.1, 1.076, 0.544),
    'MCTN': (32.7, 75.9, 76.4, 0.991, 0.613),
    'MulT': (39.1, 81.1, 81.0, 0.889, 0.686),
    'PMR': (40.6, 82.4, 82.1, None, None),
    'MICA': (40.8, 82.6, 82.7, None, None),
    'MFSA': (41.4, 83.3, 83.7, 0.856, 0.722),
}


def sentiment_numbers(acc7, acc2, f1, mae, corr) -> dict[str, float | None]:
    """Numbers as printed -> by metric, percent as fractions."""
    return {'acc7_round': acc7 / 100, 'acc2_non0': acc2 / 100, 'f1_non0': f1 / 100, 'mae': mae, 'corr': corr}


def config_of(model: str, dataset: str) -> str:
    return f'configs/{model.lower().replace("-", "_")}_{dataset}.py'


def get_table() -> dict:
    return {
        'title': 'MFSA, Table 1: CMU-MOSI',
        'source': 'Yang et al., MFSA, ACM Multimedia 2022, Table 1',
        'dataset': 'mosi',
        'metrics': 'sentiment',
        'columns': COLUMNS,
        'seeds': 5,
        'rows': [
            {'label': m, 'config': config_of(m, 'mosi'), 'published': sentiment_numbers(*PUBLISHED[m])} for m in MODELS
        ],
    }
