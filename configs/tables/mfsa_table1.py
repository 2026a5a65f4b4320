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
        'rows': [{'label': m, 'config': config_of(m, 'mosi')} for m in MODELS],
    }
