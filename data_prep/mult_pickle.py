"""The feature files of the MulT release (CMU-MOSI, CMU-MOSEI, IEMOCAP) -> record shards of true lengths.

    python -m data_prep.mult_pickle --source mosi_data_noalign.pkl --dataset mosi --output data/mosi

Source: the files of github.com/yaohungt/Multimodal-Transformer, {mosi,mosei_senti,iemocap}_data[_noalign].pkl: GloVe
words, COVAREP audio and FACET faces, word-aligned or not, split into train, valid and test. Sequences are padded with
zeros on the left: the steps before the first that is not all zero are dropped, modality by modality, or together where
the file is aligned. (So a sequence that truly begins with zeros loses them; zeros inside stay.) Where a record has only
zeros the modality is missing: masked in batches, and named. The audio holds -inf (log of silence); what becomes of it,
--nonfinite says.

MOSI and MOSEI: a sentiment in [-3, 3]. IEMOCAP: four emotions, each present or not.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import pickle_command, pickled_labels, pickled_records, sequences
from data_prep.pickled_records import (
    NO_OPTIONS,
    Options,
    is_list_of_records,
    padding_spans,
    read_records,
    take_arrays,
    video_of,
)
from data_prep.pool import PreparationError
from data_prep.restricted_pickle import load_records
from data_prep.sequences import MODALITIES, SPLITS, Split, Summary
from mmer_jax.data.records import Feature, Label, Schema

EMOTIONS = ('neutral', 'happy', 'sad', 'angry')  # the order in the file
SIZES = {
    'mosi': {'text': 300, 'audio': 5, 'vision': 20},
    'mosei': {'text': 300, 'audio': 74, 'vision': 35},
    'iemocap': {'text': 300, 'audio': 74, 'vision': 35},
}
RECORDS = {'mosi': (1284, 229, 686), 'mosei': (16326, 1871, 4659), 'iemocap': (2717, 798, 938)}
STEPS = {  # of the unaligned files, at most
    'mosi': {'text': 50, 'audio': 375, 'vision': 500},
    'mosei': {'text': 50, 'audio': 500, 'vision': 500},
    'iemocap': {'text': 20, 'audio': 400, 'vision': 500},
}
CONFIGS = {name: f'configs/mfsa_{name}.py' for name in SIZES}
DESCRIPTIONS = {'text': 'GloVe word vectors', 'audio': 'COVAREP', 'vision': 'FACET'}


def make_schema(dataset: str, sizes: Mapping[str, int] | None = None, info: Mapping[str, Any] | None = None) -> Schema:
    """The schema of 'mosi', 'mosei' or 'iemocap'; `sizes` {m: features} are the published ones unless given."""
    sizes = SIZES[dataset] if sizes is None else sizes
    features = {m: Feature((None, sizes[m]), description=DESCRIPTIONS[m], optional=True) for m in MODALITIES}
    label = Label('binary', EMOTIONS) if dataset == 'iemocap' else Label('regression')
    return Schema(
        f'{dataset}_mult', features, label, {'dataset': dataset, 'made_by': 'data_prep.mult_pickle', **(info or {})}
    )


def read_labels(labels: Any, dataset: str, count: int, where: str) -> list[Any]:
    """The label of each record: a float, or int (4,) for IEMOCAP; PreparationError where it is another data set's."""
    shape = labels.shape if isinstance(labels, np.ndarray) else type(labels).__name__
    one_hot = isinstance(labels, np.ndarray) and labels.ndim == 3 and labels.shape[1:] == (len(EMOTIONS), 2)
    if one_hot != (dataset == 'iemocap'):
        expected = '(records, 4, 2)' if dataset == 'iemocap' else '(records, 1, 1)'
        raise PreparationError(f'{where}: labels of shape {shape}, {dataset} has {expected}; check --dataset')
    if not one_hot:
        return sequences.take_numbers(labels, count, f'{where}, labels').tolist()
    if len(labels) != count:
        raise PreparationError(f'{where}: {len(labels)} labels for {count} records')
    if not np.array_equal(np.sort(labels, 2), np.broadcast_to([0, 1], labels.shape)):
        raise PreparationError(f'{where}: labels are not one-hot, expected one 0 and one 1 for each emotion')
    return list(labels.argmax(2).astype(np.int64))


def read_ids(ids: Any, count: int, where: str) -> tuple[list[str], list[str]]:
    """(ids 'video[start-end]', videos) from rows (video, start, end) of bytes, text or numbers; '' without any."""
    if ids is None:
        return [''] * count, [''] * count
    rows = [
        [sequences.to_text(part) for part in np.ravel(row).tolist()] for row in sequences.take_column(ids, count, where)
    ]
    names = [f'{row[0]}[{"-".join(row[1:])}]' if row[1:] else ''.join(row) for row in rows]
    return names, [''.join(row[:1]) for row in rows]


def read_split(
    part: Mapping, name: str, dataset: str, where: str, *, keys: Mapping[str, str], options: Options
) -> Split:
    """One split of the file, checked; its arrays stay on the disk."""
    known = is_known(dataset, options)
    arrays = sequences.take_arrays(part, where) if known else take_arrays(part, keys, where)
    count = len(next(iter(arrays.values())))
    ids, videos = read_ids(part.get('id'), count, f'{where}, id')
    if known:
        labels = read_labels(part['labels'], dataset, count, where)
    else:
        values, place = pickled_labels.take(part, options.labels, 'labels', where)
        labels = pickled_labels.read(values, options.labels, count, place)
        videos = [video if '[' in name else video_of(name) for name, video in zip(ids, videos, strict=True)]
    spans = padding_spans(arrays, sequences.left_padded)
    return Split(name, arrays, spans, labels, ids, [{'speaker': video} for video in videos])


def is_known(dataset: str, options: Options) -> bool:
    """Whether the file must be the published one, in the shape of its labels and with all three modalities."""
    return dataset in SIZES and not options


def prepare(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    dataset: str | None = None,
    nonfinite: str = 'zero',
    num_shards: int = 4,
    overwrite: bool = False,
    options: Options = NO_OPTIONS,
) -> tuple[str, Summary]:
    """Writes the shard directory; returns (data set, what was written).

    PreparationError where the file is not one of these or asks for more than plain data, FileExistsError where
    `output` exists without `overwrite`.
    """
    source = Path(source)
    content = load_records(source)
    dataset = dataset or sequences.guess_dataset(source, list(SIZES))
    text, info = None, {'source': source.name, 'aligned': True}
    notes: list[str] = []
    with sequences.reading(source):
        if is_list_of_records(content):
            splits, text, notes = read_records(content, source, options)
        else:
            splits, info['aligned'] = _read_arrays(content, source, dataset, options)
        sizes = sequences.take_sizes(splits, source)
    if is_known(dataset, options) and text is None:
        schema = make_schema(dataset, sizes, info)
        notes += sequences.differences(splits, sizes, RECORDS[dataset], SIZES[dataset])
    else:
        info = {'dataset': dataset, 'made_by': 'data_prep.mult_pickle', **info}
        schema = pickled_records.make_schema(f'{dataset}_mult', splits, options, sizes, info, text)
    if dataset not in SIZES:
        notes.append(f'note: {dataset} is none of {", ".join(SIZES)}: read as the file and the flags say')
    summary = sequences.write(
        Path(output),
        schema,
        splits,
        nonfinite=nonfinite,
        num_shards=num_shards,
        overwrite=overwrite,
        sources=[source],
    )
    summary.is_known = is_known(dataset, options) and text is None
    summary.notes += notes + ([] if text is None else text.notes())
    return dataset, summary


def _read_arrays(content: Any, source: Path, dataset: str, options: Options) -> tuple[list[Split], bool]:
    """(splits, whether their modalities are aligned) of a file of arrays."""
    if options.glove or options.tokenizer:
        raise PreparationError(f'{source} holds features and no words: leave --glove and --tokenizer out')
    if is_known(dataset, options):
        parts, keys = (
            sequences.take_parts(content, source, (*MODALITIES, 'labels')),
            dict(zip(MODALITIES, MODALITIES, strict=True)),
        )
    else:
        parts = sequences.take_parts(content, source, ())
        keys = options.keep(pickled_records.find_modalities(parts, str(source)), str(source))
    splits = [
        read_split(part, SPLITS[key], dataset, f'{source}, split {key!r}', keys=keys, options=options)
        for key, part in parts.items()
    ]
    return splits, pickled_records.are_aligned(splits[0].arrays)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    name, description = 'python -m data_prep.mult_pickle', 'Feature files of the MulT release -> record shards.'
    return pickle_command.parse_arguments(argv, name, description, list(SIZES), pickled_records.add_arguments)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return pickle_command.run(prepare, parse_arguments(argv), CONFIGS, pickled_records.of_arguments)


if __name__ == '__main__':
    sys.exit(main())
