"""All of Tables 1 to 3 of the shared-encoder report in one: eight networks on voice, face and both.

    python -m mmer_jax.table --table=configs/tables/shared_encoders.py

shared_encoders_table1.py to shared_encoders_table3.py are its parts.
"""

CLASSES = ('anger', 'disgust', 'fear', 'happy', 'neutral', 'sad')
NETWORKS = {  # label: (config, published test accuracy on audio, vision and both)
    'ResNet18': ('resnet18', (0.6182, 0.6815, 0.7326)),
    'GoogLeNet': ('googlenet', (0.6244, 0.6742, 0.6711)),
    'VGG16': ('vgg16', (0.5962, 0.6765, 0.6608)),
    'Simple3D': ('simple3d', (0.514, 0.462, 0.573)),
    'I3D': ('i3d', (0.605, 0.831, 0.806)),
    'ViT': ('vit', (0.4401, 0.5536, 0.6909)),
    'Pretrained ViT': ('vit_pretrained', (0.6231, 0.6895, 0.8290)),
    'VideoMAE': ('videomae', (0.372, 0.188, 0.366)),
}
HUMANS = (0.400, 0.574, 0.631)  # python -m data_prep.crema_d human, on the votes of 7,442 clips
ABLATED = ('Simple3D', 'I3D')  # with both modalities, one of them hidden in the test
PARTS = {'audio': 'the voice', 'vision': 'the face', '': 'face and voice'}


def rows_of(variant: str, group: str, suffix: str = '') -> list[dict]:
    """The rows of one table: the networks and the humans."""
    place = list(PARTS).index(variant)
    rows = [
        {
            'label': label + suffix,
            'config': f'configs/{name}_crema_d.py',
            'variant': variant,
            'published': {'accuracy': accuracies[place]},
            'group': group,
        }
        for label, (name, accuracies) in NETWORKS.items()
    ]
    source = 'votes of the real raters, counted by data_prep.crema_d human'
    return [
        *rows,
        {'label': f'humans{suffix}', 'quoted': {'accuracy': HUMANS[place]}, 'source': source, 'group': group},
    ]


def make_table(number: int, variant: str, what: str) -> dict:
    return {
        'title': f'Shared encoders on CREMA-D, Table {number}: {what}',
        'source': f'shared-encoder report, Table {number}',
        'metrics': 'classification',
        'classes': CLASSES,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'macro_f1': 'Macro F1', 'loss': 'Loss'},
        'rows': rows_of(variant, what),
    }


def get_table() -> dict:
    rows = [
        row
        for variant, what in PARTS.items()
        for row in rows_of(variant, what, {'audio': ' (voice)', 'vision': ' (face)', '': ''}[variant])
    ]
    for label in ABLATED:
        rows.append(
            {'label': f'{label}, face hidden'.replace(',', ''), 'ablate': f'{label}:vision', 'group': 'Ablated'}
        )
        rows.append(
            {'label': f'{label}, voice hidden'.replace(',', ''), 'ablate': f'{label}:audio', 'group': 'Ablated'}
        )
    return {**make_table(3, '', 'voice, face and both'), 'title': 'Shared encoders on CREMA-D', 'rows': rows}
