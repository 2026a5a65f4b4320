"""Two rows of the tiny config, for the campaign."""

from pathlib import Path

CONFIG = str(Path(__file__).resolve().parent / 'tiny.py')


def get_table() -> dict:
    rows = [
        {'label': f'rate {rate:g}', 'config': CONFIG, 'overrides': {'optimizer.learning_rate': rate, 'epochs': 2}}
        for rate in (1e-3, 1e-2)
    ]
    return {
        'title': 'Tiny',
        'source': 'random numbers',
        'metrics': 'sentiment',
        'columns': {'mae': '', 'corr': ''},
        'bars': 'mae',
        'seeds': 1,
        'rows': rows,
    }
