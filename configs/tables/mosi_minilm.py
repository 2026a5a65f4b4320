"""Contextual token features on CMU-MOSI: all-MiniLM-L6-v2 alone, and before four models that hear the audio too.

    python -m mmer_jax.table --table=configs/tables/mosi_minilm.py

configs/minilm_mosi_text.py says how the weights and the data are made. The last row is the MFSA paper's own, with
GloVe, COVAREP and Facet features of three modalities, chosen as its authors did.
"""

from configs import mfsa_mosi
from configs.tables.mfsa_table1 import COLUMNS, config_of

MODELS = ('LF-LSTM', 'MulT', 'MFSA')


def get_table() -> dict:
    published = mfsa_mosi.get_config().published
    text, group = 'Text alone', 'Text and audio vector, encoder {}'
    rows: list[dict] = [{'label': 'MiniLM', 'config': 'configs/minilm_mosi_text.py', 'group': text}]
    rows.append(
        {'label': 'MiniLM (longer)', 'config': 'configs/minilm_mosi_text.py', 'variant': 'longer', 'group': text}
    )
    for label, variant in (('fine-tuned', ''), ('fine-tuned longer', 'longer'), ('frozen', 'frozen')):
        rows += [
            {
                'label': f'{m} ({label})',
                'config': config_of(m, 'mosi_minilm'),
                'variant': variant,
                'group': group.format(label),
            }
            for m in MODELS
        ]
    rows.append({
        'label': 'Self-MM (fine-tuned longer)',
        'config': config_of('Self-MM', 'mosi_minilm'),
        'variant': 'longer',
        'group': group.format('fine-tuned longer'),
    })  # fmt: skip
    rows.append({
        'label': 'MFSA (after MiniLM)',
        'config': config_of('MFSA', 'mosi_minilm'),
        'variant': 'frozen',
        'start': {'text': ('MiniLM', 'encoder')},
        'group': 'Text and audio vector, encoder of the first row, frozen',
    })  # fmt: skip
    rows.append({
        'label': 'MFSA (three modalities)',
        'quoted': {metric: published[metric] for metric in COLUMNS if metric in published},
        'source': 'MFSA (Yang et al. 2022), Table 1',
        'group': 'Published',
    })  # fmt: skip
    return {
        'title': 'CMU-MOSI with token features of all-MiniLM-L6-v2',
        'source': 'this toolkit; no published table has this setting',
        'metrics': 'sentiment',
        'columns': COLUMNS,
        'seeds': 5,
        'rows': rows,
    }
