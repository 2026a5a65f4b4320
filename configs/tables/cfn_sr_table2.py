"""Table 2 of CFN-SR (Fu et al. 2021): ablations on RAVDESS, each a variant of configs/cfn_sr_ravdess.py.

    python -m mmer_jax.table --table=configs/tables/cfn_sr_table2.py

As in configs/tables/cfn_sr_table1.py, the networks alone are trained first and the other rows start from them.
"""

from configs.tables.cfn_sr_table1 import START, unimodal_rows
from configs.tables.cfn_sr_table1 import get_table as get_table1

ABLATIONS = {  # label: variant; A->V is CFN-SR itself
    'CFN-SR': '',
    'w/o Cross-modal Blocks': 'without_block',
    'V to A Cross-modal': 'video_to_audio',
    'w/o self-attention': 'without_self_attention',
    'w/o residual': 'without_residual',
}


def get_table() -> dict:
    rows = unimodal_rows()
    for label, variant in ABLATIONS.items():
        config = {'config': 'configs/cfn_sr_ravdess.py', 'variant': variant, 'start': START}
        rows.append({'label': label, **config, 'group': 'Fused'})
    title = 'CFN-SR, Table 2: ablations on RAVDESS'
    return {**get_table1(), 'title': title, 'source': 'Fu et al. 2021, Table 2', 'rows': rows}
