"""Five models on the text and audio of CMU-MOSI that can be had without its videos, beside a linear reference.

    python -m mmer_jax.table --table=configs/tables/mosi_text_audio.py

No published table has this setting: without vision, and with other features than the papers', these numbers are not
to be compared with configs/tables/mfsa_table1.py.
"""

from configs.tables.mfsa_table1 import COLUMNS, config_of

MODELS = ('EF-LSTM', 'LF-LSTM', 'MulT', 'PMR', 'MFSA')


def get_table() -> dict:
    rows: list[dict] = [
        {'label': m, 'config': config_of(m, 'mosi_text_audio'), 'group': 'Text and audio'} for m in MODELS
    ]
    without = {'config': config_of('MFSA', 'mosi_text_audio'), 'overrides': {'losses.separation': 0.0}}
    rows.append({'label': 'MFSA without separation', **without, 'group': 'Text and audio'})
    text = {'config': config_of('MFSA', 'mosi_text_audio'), 'overrides': {'modalities': ('text',)}}
    rows.append({'label': 'MFSA (text)', **text, 'group': 'Text alone'})
    rows.append({
        'label': 'TF-IDF and ridge',
        'quoted': {'mae': 1.139, 'corr': 0.521, 'acc2_non0': 0.716},
        'source': 'ridge regression on TF-IDF of the transcripts, standard split, measured elsewhere',
        'group': 'Text alone',
    })  # fmt: skip
    return {
        'title': 'CMU-MOSI: text and audio',
        'source': 'this toolkit; no published table has this setting',
        'metrics': 'sentiment',
        'columns': COLUMNS,
        'seeds': 5,
        'rows': rows,
    }
