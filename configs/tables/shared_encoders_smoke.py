"""shared_encoders.py in small: tiny networks, one epoch, pictures of 32 or 64 pixels, two folds; minutes on a CPU.

    for name in crema_d_2d crema_d_2d_grey crema_d_3d crema_d_3d_32 crema_d_videomae; do
      python -m data_prep.synthetic --like $name --output data/smoke/$name; done
    python -m mmer_jax.table --table=configs/tables/shared_encoders_smoke.py

With real clips instead of random pictures (any folder in CREMA-D's layout, of six actors or more):

    python -m data_prep.crema_d --source <CREMA-D> --output data/smoke/crema_d_2d --size 32
    python -m data_prep.crema_d --source <CREMA-D> --output data/smoke/crema_d_2d_grey --size 32 --color grey
    python -m data_prep.crema_d --source <CREMA-D> --output data/smoke/crema_d_3d --layout 3d --size 64 --frames 4
    python -m data_prep.crema_d --source <CREMA-D> --output data/smoke/crema_d_3d_32 --layout 3d --size 32 --frames 4
    python -m data_prep.crema_d --source <CREMA-D> --output data/smoke/crema_d_videomae --layout 3d --size 32 \\
      --frames 4 --fill repeat --vision_width 28 --audio_width 4

It shows that everything from the pictures to the table and the bars works; its numbers say nothing of the networks.
"""

from configs.tables import shared_encoders

FOLDS: dict = {'protocol.options.folds': 2, 'protocol.options.validation_speakers': 1}


def small(row: dict) -> dict:
    """A row in the config's smoke sizes; quoted and ablated rows as they are, without what was published."""
    if 'config' not in row:
        return {key: value for key, value in row.items() if key != 'published'}
    one, overrides = row['variant'], dict(FOLDS)
    if one:
        overrides['modalities'] = (one,)
    if one and 'videomae' in row['config']:  # the pictures of both are narrow, to be joined; one alone fills a square
        overrides['data.directory'] = 'data/smoke/crema_d_3d_32'
    if 'vgg16' in row['config']:  # a first layer that halves leaves nothing of 32 pixels
        overrides['model.encoder.large_first_layer'] = False
    return {**row, 'variant': 'smoke', 'overrides': overrides}


def get_table() -> dict:
    table = shared_encoders.get_table()
    title = f'{table["title"]}, in small: the numbers mean nothing'
    return {**table, 'title': title, 'dataset': '', 'rows': [small(row) for row in table['rows']]}
