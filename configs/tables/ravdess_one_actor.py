"""CFN-SR and its two networks on the clips of one actor of RAVDESS, tested on what they were trained on.

    python -m mmer_jax.table --table=configs/tables/ravdess_one_actor.py

A trial of the way from video files to a table; configs/cfn_sr_ravdess_one_actor.py says how the data are made.
"""

from configs.tables.cfn_sr_table1 import EMOTIONS

CONFIG = 'configs/cfn_sr_ravdess_one_actor.py'


def get_table() -> dict:
    rows = [
        {'label': label, 'config': CONFIG, 'variant': variant}
        for label, variant in (('1D CNN (audio)', 'audio'), ('3D ResNeXt50 (video)', 'vision'), ('CFN-SR', ''))
    ]
    return {
        'title': 'RAVDESS, one actor: fitting the clips that are shown',
        'source': 'this toolkit; no published table has this setting',
        'metrics': 'classification',
        'classes': EMOTIONS,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'loss': 'Loss'},
        'rows': rows,
    }
