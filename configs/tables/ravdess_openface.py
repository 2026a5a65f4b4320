"""RAVDESS speech, sound and facial action units: every way to fuse that takes a sequence and a vector.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m mmer_jax.table --table=configs/tables/ravdess_openface.py

Five seeds; MulT and MFSA, whose attention over 212 frames takes a CPU ten times as long, have one seed and ten epochs
instead of thirty. No published table has this setting. The linear reference is ridge regression on the action units and
259 audio values of the same table, on unseen actors.
"""

from configs.tables.cfn_sr_table1 import EMOTIONS

FUSIONS = {
    'averaging': 'Averaging',
    'multiplication': 'Multiplication',
    'multiplicative': 'Multiplicative',
    'concat_fc': 'Concat and FC',
    'compact_bilinear': 'Compact bilinear pooling',
    'mmtm': 'MMTM',
    'msaf': 'MSAF',
}


def get_table() -> dict:
    one, both = 'One modality', 'Sound and action units'
    rows: list[dict] = [
        {'label': 'MFCC CNN (sound)', 'config': 'configs/mfcc_cnn_ravdess_openface.py', 'group': one},
        {'label': 'MLP (action units)', 'config': 'configs/action_units_ravdess_openface.py', 'group': one},
    ]
    config = 'configs/audio_visual_ravdess_openface.py'
    rows += [{'label': name, 'config': config, 'variant': v, 'group': both} for v, name in FUSIONS.items()]
    rows += [
        {
            'label': label,
            'config': f'configs/{label.lower()}_ravdess_openface.py',
            'overrides': {'seeds': 1},
            'group': both,
        }
        for label in ('MulT', 'MFSA')
    ]
    source = 'ridge regression, unseen actors, measured elsewhere'
    for label, accuracy in (('action units', 0.552), ('audio values', 0.296), ('both', 0.590)):
        rows.append(
            {'label': f'ridge ({label})', 'quoted': {'accuracy': accuracy}, 'source': source, 'group': 'Linear'}
        )
    return {
        'title': 'RAVDESS: MFCC and OpenFace action units',
        'source': 'this toolkit; no published table has this setting',
        'metrics': 'classification',
        'classes': EMOTIONS,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'macro_f1': 'Macro F1'},
        'seeds': 5,
        'rows': rows,
    }
