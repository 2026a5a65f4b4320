"""All of Tables 1 to 3 of the shared-encoder report in one, and its Figure 2: eight networks on voice, face and both.

    python -m mmer_jax.table --table=configs/tables/shared_encoders.py

writes table.md, table.csv and the bars of Figure 2, bars.png. shared_encoders_table1.py to shared_encoders_table3.py
are its parts, shared_encoders_smoke.py is all of it in small. The ablated rows are the report's: the network trained
on both, tested without one of them.
"""

CLASSES = ('anger', 'disgust', 'fear', 'happy', 'neutral', 'sad')
NETWORKS = {  # label: config
    'ResNet18': 'resnet18',
    'GoogLeNet': 'googlenet',
    'VGG16': 'vgg16',
    'Simple3D': 'simple3d',
    'I3D': 'i3d',
    'ViT': 'vit',
    'Pretrained ViT': 'vit_pretrained',
    'VideoMAE': 'videomae',
}
ABLATED = {  # with both modalities, one of them hidden in the test: test loss and accuracy on what is left
    'Simple3D': {'audio': (1.792, 0.354), 'vision': (2.074, 0.298)},
    'I3D': {'audio': (2.707, 0.448), 'vision': (1.928, 0.540)},
}
HUMANS = {'audio': 0.400, 'vision': 0.574, '': 0.631}  # of 7,442 clips: data_prep.crema_d human --tables
COLUMNS = {
    'train/loss': 'Train loss',
    'train/accuracy': 'Train accuracy',
    'loss': 'Test loss',
    'accuracy': 'Test accuracy',
    'uar': 'Test UAR',
    'macro_f1': 'Test macro F1',
}
PARTS = {'audio': 'voice', 'vision': 'face', '': 'face and voice'}  # variant of the configs: what it takes
HIDDEN = {'audio': ('face', 'vision'), 'vision': ('voice', 'audio')}  # what is left: what is hidden


def rows_of(variant: str, group: str, suffix: str = '') -> list[dict]:
    """The rows of one table: the networks and the humans; `suffix` keeps the labels of several tables apart."""
    rows = []
    for label, name in NETWORKS.items():
        row = {'label': label + suffix, 'config': f'configs/{name}_crema_d.py', 'variant': variant}
        rows.append({**row, 'group': group, 'bar': label, 'series': PARTS[variant]})
    humans: dict = {'label': f'humans{suffix}', 'quoted': {'accuracy': HUMANS[variant]}, 'bar': 'humans'}
    source = 'votes of the real raters, counted by data_prep.crema_d human'
    return [*rows, {**humans, 'source': source, 'group': group, 'series': PARTS[variant]}]


def ablated_rows(group: str) -> list[dict]:
    """The 3-D networks trained on both and tested on one, below the rows of both."""
    rows = []
    for label, published in ABLATED.items():
        for left, (loss, accuracy) in published.items():
            name, modality = HIDDEN[left]
            row: dict = {'label': f'{label} {name} hidden', 'ablate': (label, modality), 'group': group}
            row |= {'published': {'loss': loss, 'accuracy': accuracy}, 'bar': f'ablated {label}', 'series': PARTS[left]}
            rows.append(row)
    return rows


def make_table(number: int, variant: str, what: str) -> dict:
    return {
        'title': f'Shared encoders on CREMA-D, Table {number}: {what}',
        'source': f'shared-encoder report, Table {number}',
        'dataset': 'crema_d',
        'metrics': 'classification',
        'classes': CLASSES,
        'columns': COLUMNS,
        'rows': rows_of(variant, what),
        'bars': 'accuracy',
    }


def get_table() -> dict:
    rows = [
        *rows_of('audio', 'the voice', ' (voice)'),
        *rows_of('vision', 'the face', ' (face)'),
        *rows_of('', 'face and voice'),
        *ablated_rows('trained on both, tested on one'),
    ]
    table = make_table(3, '', 'voice, face and both')
    return {
        **table,
        'title': 'Shared encoders on CREMA-D',
        'source': 'shared-encoder report, Tables 1 to 3',
        'rows': rows,
    }
