"""What a config leaves to the data: `auto`, the loss `task` and empty modalities become what the records ask for.

An experiment on data of one's own names no class and no metric; config.json of a run has what was filled in.
"""

import copy
from collections.abc import Callable

from ml_collections import ConfigDict

from mmer_jax.data.batches import labels_of
from mmer_jax.data.records import RecordSource
from mmer_jax.data.schema import MODALITIES
from mmer_jax.metrics import metric_kind
from mmer_jax.settings.keys import AUTO, TASK

LOSS = {'classes': 'cross_entropy', 'regression': 'l1', 'binary': 'binary_cross_entropy'}
SELECTION = {'classes': 'uar', 'regression': 'mae', 'binary': 'macro_f1'}
HEADLINES: dict[str, tuple[str, ...]] = {  # by kind of metrics
    'classification': ('accuracy', 'uar', 'macro_f1'),
    'sentiment': ('acc7_round', 'acc2_non0', 'f1_non0', 'mae', 'corr'),
    'polarity': ('acc2_non0', 'f1_non0', 'mae', 'corr'),
    'regression': ('mae', 'rmse', 'corr', 'ccc'),
    'binary_emotions': ('uar', 'macro_f1'),
}


def follow_data(config: ConfigDict, open_source: Callable[[ConfigDict], RecordSource]) -> ConfigDict:
    """The config with all that it leaves open filled in from its shard directory; itself where it leaves nothing."""
    normalize = tuple(config.data.normalize)
    opened = (not config.modalities, AUTO in normalize, TASK in config.losses, config.selection.metric == AUTO)
    if not any(opened) and AUTO not in config.headline:
        return config
    source = RecordSource(config.data.directory) if config.data.directory else open_source(config)
    schema, kind = source.schema, source.schema.label.kind
    filled = copy.deepcopy(config)
    with filled.unlocked():
        if not filled.modalities:
            filled.modalities = tuple(m for m in MODALITIES if m in schema.features)
        if AUTO in normalize:
            vectors = [m for m in filled.modalities if m in schema.features and schema.features[m].dtype == 'float32']
            filled.data.normalize = tuple(dict.fromkeys([*(m for m in normalize if m != AUTO), *vectors]))
        if TASK in filled.losses:
            weights = {LOSS[kind] if name == TASK else name: weight for name, weight in filled.losses.items()}
            filled.losses = ConfigDict(weights)
        if filled.selection.metric == AUTO:
            filled.selection.metric = SELECTION[kind]
        if AUTO in filled.headline:
            measured = metric_kind(kind, labels_of(source, source.manifest['record']))
            filled.headline = HEADLINES[measured]
    return filled
