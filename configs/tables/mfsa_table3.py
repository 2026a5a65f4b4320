"""Table 3 of MFSA (Yang et al., ACM Multimedia 2022): eight models on IEMOCAP, four yes-or-no emotions, unaligned.

    python -m mmer_jax.table --table=configs/tables/mfsa_table3.py

F1 is weighted by class, as in the code of MulT, whose protocol the paper follows. With four separate yes-or-no
tasks, most of them skewed, always answering "no" scores high: compare every accuracy with the majority floor, which
the table prints, and look at UAR, which it does not flatter.
"""

from configs.datasets import EMOTIONS
from configs.tables.mfsa_table1 import MODELS, config_of

COLUMNS = {
    f'{metric}_{emotion}': f'{emotion.capitalize()} {title}'
    for emotion in EMOTIONS
    for metric, title in (('accuracy', 'Acc'), ('weighted_f1', 'F1'))
}


def get_table() -> dict:
    return {
        'title': 'MFSA, Table 3: IEMOCAP',
        'source': 'Yang et al., MFSA, ACM Multimedia 2022, Table 3',
        'dataset': 'iemocap',
        'metrics': 'binary_emotions',
        'classes': EMOTIONS,
        'columns': {**COLUMNS, 'uar': 'mean UAR', 'macro_f1': 'mean macro F1'},  # the last two are not in the paper
        'seeds': 5,
        'rows': [{'label': m, 'config': config_of(m, 'iemocap')} for m in MODELS],
        'notes': [
            'Means of UAR and macro F1 are over the four emotions. The majority floor answers "no" to an emotion that '
            'less than half of the clips have.'
        ],
    }
