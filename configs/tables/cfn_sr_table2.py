"""Table 2 of CFN-SR (Fu et al. 2021): ablations on RAVDESS, each a variant of configs/cfn_sr_ravdess.py.

    python -m mmer_jax.table --table=configs/tables/cfn_sr_table2.py

As in configs/tables/cfn_sr_table1.py, the networks alone are trained first and the other rows start from them.
"""

from configs.tables.cfn_sr_table1 import START, unimodal_rows
from configs.tables.cfn_sr_table1 import get_table as get_table1

ABLATIONS = {  # label: (variant, published accuracy); A->V is CFN-SR itself
    'CFN-SR': ('', 0.7576),
    'w/o Cross-modal Blocks': ('without_block', 0.7350),
    'V to A Cross-modal': ('video_to_audio', 0.7415),
    'w/o self-attention': ('without_self_attention', 0.7386),
    'w/o residual': ('without_residual', 0.7533),
}


def get_table() -> dict:
    rows = unimodal_rows()
    for label, (variant, accuracy) in ABLATIONS.items():
        config = {'config': 'configs/cfn_sr_ravdess.py', 'variant': variant, 'start': START}
        rows.append({'label': label, **config, 'published': {'accuracy': accuracy}, 'group': 'Fused'})
    title = 'CFN-SR, Table 2: ablations on RAVDESS'
    return {**get_table1(), 'title': title, 'source': 'Fu et al. 2021, Table 2', 'rows': rows}
