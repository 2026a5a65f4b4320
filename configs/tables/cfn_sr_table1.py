"""Table 1 of CFN-SR (Fu et al. 2021): fusion of faces and speech on RAVDESS, unimodal networks first.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_mfcc_frames --vision frames --crop mtcnn
    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_log_mel --features log_mel
    python -m mmer_jax.table --table=configs/tables/cfn_sr_table1.py

The first two rows train each network alone, fold by fold; the fused ones start from them, the same fold and seed. The
published numbers were chosen on the test fold (configs/cfn_sr_ravdess_as_published.py). ERANN is an audio network of
another publication, which the paper lists as audio-visual; it stands here among those that hear or see alone, and its
published number is the one that the paper quotes.
"""

FUSIONS = {
    'averaging': 'Averaging',
    'multiplicative': 'Multiplicative',
    'multiplication': 'Multiplication',
    'concat_fc': 'Concat and FC',
    'compact_bilinear': 'MCBP',
    'mmtm': 'MMTM',
    'msaf': 'MSAF',
}
VIDEO, SOUND = '3D ResNeXt50 (video)', '1D CNN (audio)'
START = {'vision': (VIDEO, 'encoder'), 'audio': (SOUND, 'encoder')}
EMOTIONS = ('neutral', 'calm', 'happy', 'sad', 'angry', 'fearful', 'disgust', 'surprised')
DATA = {'data.directory': 'data/ravdess_mfcc_frames'}


def unimodal_rows() -> list[dict]:
    """The two networks alone."""
    video = {'label': VIDEO, 'config': 'configs/resnext3d_ravdess.py'}
    sound = {'label': SOUND, 'config': 'configs/mfcc_cnn_ravdess.py'}
    return [{**video, 'group': 'Alone'}, {**sound, 'group': 'Alone', 'overrides': DATA}]


def get_table() -> dict:
    rows = unimodal_rows()
    erann = {'label': 'ERANNs (audio)', 'config': 'configs/erann_ravdess.py'}
    rows.append({**erann, 'group': 'Alone'})
    for variant, label in FUSIONS.items():
        config = {'config': 'configs/audio_visual_ravdess.py', 'variant': variant, 'start': START}
        rows.append({'label': label, **config, 'group': 'Fused'})
    config = {'config': 'configs/cfn_sr_ravdess.py', 'start': START}
    rows.append({'label': 'CFN-SR', **config, 'group': 'Fused'})
    return {
        'title': 'CFN-SR, Table 1: RAVDESS',
        'source': 'Fu et al. 2021, Table 1',
        'dataset': 'ravdess',
        'metrics': 'classification',
        'classes': EMOTIONS,
        'columns': {'accuracy': 'Accuracy', 'uar': 'UAR', 'macro_f1': 'Macro F1'},
        'rows': rows,
    }
