"""What the shared-encoder report proposes in its section 6, beside the networks that it starts from, with error bars.

    python -m mmer_jax.table --table=configs/tables/shared_encoders_beyond.py

Three proposals: the spectrogram repeated into every patch of a ViT, a small 3-D CNN in front of VideoMAE, and repeated
runs: five seeds a row, so that each number is a mean and its standard deviation over seeds (each seed's number is its
mean over the five folds). Each config says how its data are prepared and where its weights come from. The published
numbers are single runs, chosen on test clips of the same actors; the proposals have none. Rows with a part hidden are
those trained on both, tested on one.
"""

from configs.tables.shared_encoders import CLASSES, COLUMNS, PARTS, rows_of

PATCHES, PRETRAINED = 'ViT with spectrogram in every patch', 'Pretrained ViT with spectrogram in every patch'
CONV = '3D CNN and VideoMAE'
# Its config, and its variant on both.
PROPOSED = {
    PATCHES: ('configs/vit_patch_spectrogram_crema_d.py', ''),
    PRETRAINED: ('configs/vit_patch_spectrogram_crema_d.py', 'pretrained'),
    CONV: ('configs/videomae_conv_crema_d.py', ''),
}
GROUPS = {'': 'Face and voice', 'vision': 'The face', 'audio': 'The voice'}
SUFFIXES = {'': '', 'vision': ' (face)', 'audio': ' (voice)'}
HIDDEN = {'vision': 'face', 'audio': 'voice'}


def plain(label: str, variant: str) -> dict:
    """A network of the report."""
    rows = {row['label']: row for row in rows_of(variant, GROUPS[variant], SUFFIXES[variant])}
    return rows[label + SUFFIXES[variant]]


def proposed(label: str, variant: str) -> dict:
    config, both = PROPOSED[label]
    row = {'label': label + SUFFIXES[variant], 'config': config, 'variant': variant or both, 'group': GROUPS[variant]}
    return {**row, 'bar': label, 'series': PARTS[variant]}


def get_table() -> dict:
    rows = []
    for before, after in (('ViT', PATCHES), ('Pretrained ViT', PRETRAINED), ('VideoMAE', CONV)):
        rows += [plain(before, ''), proposed(after, '')]
    for variant in ('vision', 'audio'):
        rows += [plain('VideoMAE', variant), proposed(CONV, variant)]
    for label in ('ViT', PATCHES, 'Pretrained ViT', PRETRAINED):
        for hidden, left in (('vision', 'audio'), ('audio', 'vision')):
            row = {'label': f'{label} ({HIDDEN[hidden]} hidden)', 'ablate': (label, hidden)}
            rows.append({**row, 'group': 'A part hidden', 'bar': f'ablated {label}', 'series': PARTS[left]})
    return {
        'title': 'Beyond the shared-encoder report: what it proposes, five seeds each',
        'source': 'shared-encoder report, Tables 1 to 3 (the plain networks) and section 6 (the proposals)',
        'dataset': 'crema_d',
        'metrics': 'classification',
        'classes': CLASSES,
        'columns': COLUMNS,
        'seeds': 5,
        'rows': rows,
        'bars': 'accuracy',
    }
