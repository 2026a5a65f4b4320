"""A finished run tested on all records of another directory, such as new speakers: what must be the same, what unseen.

The run's own folds say nothing of that directory: each fold's model is tested on all of it. Features, their types and
their preparation, and the labels must be the run's; no record and no speaker may be one that the model was trained on
or selected on. Names of records and speakers mean something within one corpus only, whose data sets begin with the same
word (`ravdess_mfcc`, `ravdess_frames`); across corpora equal names are allowed, and marked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmer_jax.data.leakage import Seen
from mmer_jax.data.protocols import Fold
from mmer_jax.data.records import RecordSource, Schema
from mmer_jax.data.schema import MODALITIES

# What a preparation says of the clips and not of how features are made from them.
OF_CONTENT = ('made_by', 'dataset', 'song', 'sources', 'extracted', 'bayes', 'q')
NONE = np.zeros(0, np.int64)


def describe_inputs(schema: Schema, modalities: Sequence[str], steps: Mapping[str, int]) -> dict[str, Any]:
    """What a run's data were like, as JSON for its results: features and their longest record, label, preparation."""
    features = {m: {'shape': list(schema.features[m].shape), 'dtype': schema.features[m].dtype} for m in modalities}
    label = {'kind': schema.label.kind, 'names': list(schema.label.names)}
    return {'features': features, 'steps': dict(steps), 'label': label, 'prepared': dict(schema.info)}


def check_inputs(known: Mapping[str, Any], source: RecordSource, *, allow: bool = False) -> tuple[str, ...]:
    """The marks that the features of `source` earn; ValueError in one line where they or the labels are not the run's.

    allow: features prepared with other settings, of the same shape, are marked and not refused.
    """
    schema, where = source.schema, source.directory
    for m, feature in known['features'].items():
        if m not in schema.features:
            raise ValueError(f'{where} has no {m}, which the run needs; it has {", ".join(schema.features)}')
        found = {'shape': list(schema.features[m].shape), 'dtype': schema.features[m].dtype}
        if found != feature:
            raise ValueError(
                f'{where}: {m} has shape {found["shape"]} of {found["dtype"]}, the run was trained on '
                f'{feature["shape"]} of {feature["dtype"]}: prepare it as those were'
            )
    label = {'kind': schema.label.kind, 'names': list(schema.label.names)}
    if label != known['label']:
        raise ValueError(
            f'{where} has labels {_label(label)}, the run {_label(known["label"])}: prepare it with the same classes '
            'in the same order'
        )
    unused = set(MODALITIES) - set(known['features'])
    own = known['prepared']
    differing = [
        f'{key} {value!r}, the run {own[key]!r}'
        for key, value in schema.info.items()
        if key in own and key not in OF_CONTENT and key not in unused and not _same(value, own[key])
    ]
    if differing and not allow:
        raise ValueError(
            f'{where} was prepared in another way ({"; ".join(differing)}): prepare it as the run was, or go on with '
            '--other_preparation'
        )
    makers = own.get('made_by', 'unknown'), schema.info.get('made_by', 'unknown')
    if makers[0] != makers[1]:  # with settings of other names, which could not be compared
        differing.append(f'made by {makers[1]}, the run by {makers[0]}')
    return (f'prepared in another way: {"; ".join(differing)}',) if differing else ()


def _label(label: Mapping[str, Any]) -> str:
    return f'{label["kind"]} {", ".join(label["names"])}'.strip()


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON, where a tuple is a list."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def same_corpus(name: str, other: str) -> bool:
    """Whether two data sets are of one corpus, so that a name is the same record or speaker in both."""
    return name.split('_')[0] == other.split('_')[0]


def fold_of_all(name: str, source: RecordSource, seen: Seen | None, *, same: bool, leave_out: bool, where: Any) -> Fold:
    """All records of `source` as the test set of the model of fold `name`.

    seen: None where that is unknown, and cannot matter. same: it is the corpus that the run was trained on (`where`).
    leave_out: without the records that were seen, or whose speakers were. ValueError where some were and may not be
    left out, or nothing is left.
    """
    numbers, marks = np.arange(len(source)), []
    words = seen.words(source) if seen is not None else ''
    if words and same and not leave_out:
        raise ValueError(
            f'{source.directory}: fold {name} would test {words}, or selected on: the run was trained on {where}. '
            'Leave them out with --leave_out_seen, or give data of other speakers'
        )
    if words and same:
        assert seen is not None
        numbers = np.flatnonzero(~(seen.records | seen.speakers))
        if not len(numbers):
            raise ValueError(f'{source.directory}: of {words} nothing is left for fold {name} to test')
        marks.append(f'{len(source) - len(numbers)} of {len(source)} records left out: seen in training')
    elif words:
        marks.append('names of records or speakers also occur in the training data, which are of another corpus')
    unknown = int((source.manifest.get('speaker', np.full(len(source), ''))[numbers] == '').sum())
    if same and unknown:
        marks.append(f'{unknown} records of unknown speakers, who may have been trained on')
    return Fold(name, NONE, NONE, numbers, tuple(marks))
