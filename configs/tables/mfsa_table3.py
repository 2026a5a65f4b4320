"""Table 3 of MFSA (Yang et al., ACM Multimedia 2022): eight models on IEMOCAP, four yes-or-no emotions, unaligned.

    python -m mmer_jax.table --table=configs/tables/mfsa_table3.py

F1 is weighted by class, as in the code of MulT, whose protocol the paper follows. With four separate yes-or-no
tasks, most of them skewed, always answering "no" scores high: compare every accuracy with the majority floor, which
the table prints, and look at UAR, which it does not flatter.
"""

from configs.tables.mfsa_table1 import MODELS, config_of

EMOTIONS = ('happy', 'sad', 'angry', 'neutral')
COLUMNS = {
    f'{metric}_{emotion}': f'{emotion.capitalize()} {title}'
    for emotion in EMOTIONS
    for metric, title in (('accuracy', 'Acc'), ('weighted_f1', 'F1'))
}
PUBLISHED = {  # accuracy and F1 in percent: happy, sad, angry, neutral
    'EF-LSTM': (76.2, 75.7, 70.2, 70.5, 72.7, 67.1, 58.1, 57.4),
    'LF-LSTM': (72.5, 71.8, 72.9, 70.4, 68.6, 67.9, 59.6, 56.2),
    'RAVEN': (77.0, 76.8, 67.6, 65.6, 65.0, 64.1, 62.0, 59.5),
    'MCTN': (80.5, 77.5, 72.0, 71.7, 64.9, 65.6, 49.4, 49.3),
    'MulT': (84.8, 81.9, 77.7, 74.1, 73.9, 70.2, 62.5, 59.7),
    'PMR': (86.4, 83.3, 78.5, 75.3, 75.0, 71.3, 63.7, 60.9),
    'MICA': (86.8, 83.9, 79.3, 75.2, 75.7, 72.4, 63.7, 61.6),
    'MFSA': (87.2, 84.3, 80.7, 76.8, 76.5, 73.2, 64.4, 62.5),
}


def published(model: str) -> dict[str, float]:
    return {metric: number / 100 for metric, number in zip(COLUMNS, PUBLISHED[model], strict=True)}


def get_table() -> dict:
    return {
        'title': 'MFSA, Table 3: IEMOCAP',
        'source': 'Yang et al., MFSA, ACM Multimedia 2022, Table 3',
        'dataset': 'iemocap',
        'metrics': 'binary_emotions',
        'classes': EMOTIONS,
        'columns': {**COLUMNS, 'uar': 'mean UAR', 'macro_f1': 'mean macro F1'},  # the last two are not in the paper
        'seeds': 5,
        'rows': [{'label': m, 'config': config_of(m, 'iemocap'), 'published': published(m)} for m in MODELS],
        'notes': [
            'Means of UAR and macro F1 are over the four emotions. The majority floor answers "no" to an emotion that '
            'less than half of the clips have.'
        ],
    }
