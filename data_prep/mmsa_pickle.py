"""The feature files of MMSA (CMU-MOSI, CMU-MOSEI, CH-SIMS) -> record shards of true lengths.

    python -m data_prep.mmsa_pickle --source MOSI/Processed/unaligned_50.pkl --dataset mosi --output data/mosi_bert

Source: {aligned_50,unaligned_50}.pkl of github.com/thuiar/MMSA: BERT vectors of the words, audio and faces, split into
train, valid and test and padded on the right. The length of the text is that of its attention mask (`text_bert`), the
others are `audio_lengths` and `vision_lengths`; in an aligned file all three have the text's. Where the file gives no
length, the steps after the last that is not all zero are padding. A modality of length 0, or of zeros only, is missing
in its record: masked in batches, and named.

The label is the sentiment, in [-3, 3] (SIMS: [-1, 1]); those that SIMS gives for one modality alone are the manifest
columns label_T, label_A and label_V. The transcript is the column raw_text, cut to 200 characters. Another --dataset is
any file of this layout: one to three modalities, and the label that --label_kind, --label_column and --classes choose
(data_prep/pickled_labels.py), such as --label_column regression_labels_T.
"""

import argparse
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import pickle_command, pickled_labels, pickled_records, sequences
from data_prep.pickled_records import NO_OPTIONS, Options, Ragged
from data_prep.pool import PreparationError
from data_prep.restricted_pickle import load_records
from data_prep.sequences import MODALITIES, SPLITS, Split, Summary
from mmer_jax.data.records import Feature, Label, Schema

SIZES = {
    'mosi': {'text': 768, 'audio': 5, 'vision': 20},
    'mosei': {'text': 768, 'audio': 74, 'vision': 35},
    'sims': {'text': 768, 'audio': 33, 'vision': 709},
}
RECORDS = {'mosi': (1284, 229, 686), 'mosei': (16326, 1871, 4659), 'sims': (1368, 456, 457)}
STEPS = {  # of the unaligned files, at most
    'mosi': {'text': 50, 'audio': 375, 'vision': 500},
    'mosei': {'text': 50, 'audio': 500, 'vision': 500},
    'sims': {'text': 39, 'audio': 400, 'vision': 55},
}
CONFIGS = {name: f'configs/mfsa_{name}.py' for name in ('mosi', 'mosei')}
LENGTH_KEYS = {'audio': 'audio_lengths', 'vision': 'vision_lengths'}
MANIFEST = {'annotations': 'annotation', 'raw_text': 'raw_text'}  # key of the file -> column
UNIMODAL = {f'regression_labels_{letter}': f'label_{letter}' for letter in 'TAV'}
TEXT_LIMIT = 200  # characters: the manifest is read into memory by every process


def make_schema(dataset: str, sizes: Mapping[str, int] | None = None, info: Mapping[str, Any] | None = None) -> Schema:
    """The schema of 'mosi', 'mosei' or 'sims'; `sizes` {m: features} are the published ones unless given."""
    sizes = SIZES[dataset] if sizes is None else sizes
    descriptions = {'text': 'BERT, one vector a token', 'audio': 'audio features', 'vision': 'face features'}
    features = {m: Feature((None, sizes[m]), description=descriptions[m], optional=True) for m in MODALITIES}
    info = {'dataset': dataset, 'made_by': 'data_prep.mmsa_pickle', **(info or {})}
    return Schema(f'{dataset}_mmsa', features, Label('regression'), info)


def read_lengths(values: Any, count: int, steps: int, where: str) -> np.ndarray:
    """Lengths (count,) int64 of sequences of `steps` steps; PreparationError names the first that cannot be."""
    lengths = sequences.take_numbers(values, count, where)
    wrong = (lengths < 0) | (lengths > steps) | (lengths != np.floor(lengths))
    if wrong.any():
        first = int(wrong.argmax())
        raise PreparationError(f'{where}: record {first} has length {lengths[first]:g}, expected 0 to {steps}')
    return lengths.astype(np.int64)


def read_mask(text_bert: Any, count: int, steps: int, where: str) -> np.ndarray:
    """Lengths (count,) from the mask row of token ids, mask and segments (count, 3, steps)."""
    shape = np.shape(text_bert)
    if not isinstance(text_bert, np.ndarray) or shape != (count, 3, steps):
        raise PreparationError(f'{where} has shape {shape}, expected {(count, 3, steps)}: token ids, mask and segments')
    mask = text_bert[:, 1]
    lengths = np.count_nonzero(mask, axis=1)
    wrong = ((mask != 0) != (np.arange(steps) < lengths[:, None])).any(1)
    if wrong.any():
        raise PreparationError(f'{where}: the mask of record {int(wrong.argmax())} is not 1 ... 1 0 ... 0')
    return lengths


def read_columns(part: Mapping, ids: list[str], where: str) -> list[dict[str, str]]:
    """The manifest columns of each record: speaker, and what the file has of annotation, text and unimodal labels."""
    columns = [{'speaker': name.split('$_$')[0] if '$_$' in name else ''} for name in ids]
    for key, column in {**MANIFEST, **UNIMODAL}.items():
        if key in part:
            values = sequences.take_column(part[key], len(ids), f'{where}, {key}')
            for row, value in zip(columns, values, strict=True):
                row[column] = sequences.to_text(value.item() if isinstance(value, np.generic) else value)[:TEXT_LIMIT]
    return columns


def read_split(
    part: Mapping, name: str, where: str, *, keys: Mapping[str, str], options: Options, known: bool
) -> Split:
    """One split of the file, checked; its arrays stay on the disk."""
    take_arrays = sequences.take_arrays if known else functools.partial(pickled_records.take_arrays, keys=keys)
    arrays = take_arrays(part, where=where)
    count, steps = len(next(iter(arrays.values()))), {m: array.shape[1] for m, array in arrays.items()}
    lengths = {
        m: read_lengths(part[key], count, steps[m], f'{where}, {key}')
        for m, key in LENGTH_KEYS.items()
        if key in part and m in arrays
    }
    if 'text_bert' in part and 'text' in arrays:
        lengths['text'] = read_mask(part['text_bert'], count, steps['text'], f'{where}, text_bert')
    lengths |= {m: array.lengths for m, array in arrays.items() if isinstance(array, Ragged)}
    aligned = is_aligned(part, arrays)
    if aligned and 'text' in lengths:
        lengths = dict.fromkeys(arrays, lengths['text'])

    def spans(block, start):
        found = {}
        for m, array in block.items():
            if m in lengths:
                stops = lengths[m][start : start + len(array)]
                found[m] = np.stack([np.zeros_like(stops), stops], 1)
            else:
                found[m] = sequences.right_padded(array)
        return sequences.common(found) if aligned else found

    ids = [''] * count
    if 'id' in part:
        ids = [sequences.to_text(value) for value in sequences.take_column(part['id'], count, f'{where}, id')]
    values, place = pickled_labels.take(part, options.labels, 'regression_labels', where)
    labels = pickled_labels.read(values, options.labels, count, place)
    return Split(name, arrays, spans, labels, ids, read_columns(part, ids, where))


def is_aligned(part: Mapping, arrays: Mapping[str, Any]) -> bool:
    """Whether the modalities have equal numbers of steps and no lengths of their own."""
    return pickled_records.are_aligned(arrays) and not set(LENGTH_KEYS.values()) & set(part)


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
    if options.glove or options.tokenizer:
        raise PreparationError(f'{source} holds features: --glove and --tokenizer are for data_prep.mult_pickle')
    known = dataset in SIZES and not options
    with sequences.reading(source):
        parts = sequences.take_parts(content, source, (*MODALITIES, 'id', 'regression_labels') if known else ())
        keys = options.keep(pickled_records.find_modalities(parts, str(source)), str(source))
        splits = [
            read_split(part, SPLITS[key], f'{source}, split {key!r}', keys=keys, options=options, known=known)
            for key, part in parts.items()
        ]
        sizes = sequences.take_sizes(splits, source)
        info = {'source': source.name, 'aligned': is_aligned(parts['train'], splits[0].arrays)}
    if known:
        schema = make_schema(dataset, sizes, info)
        notes = sequences.differences(splits, sizes, RECORDS[dataset], SIZES[dataset])
    else:
        info = {'dataset': dataset, 'made_by': 'data_prep.mmsa_pickle', **info}
        schema = pickled_records.make_schema(f'{dataset}_mmsa', splits, options, sizes, info)
        notes = [f'note: {dataset} is none of {", ".join(SIZES)}: read as the file and the flags say']
    summary = sequences.write(
        Path(output),
        schema,
        splits,
        nonfinite=nonfinite,
        num_shards=num_shards,
        overwrite=overwrite,
        sources=[source],
    )
    summary.is_known = known
    summary.notes += notes if dataset not in SIZES or known else []
    return dataset, summary


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    name, description = 'python -m data_prep.mmsa_pickle', 'Feature files of MMSA -> record shards.'
    return pickle_command.parse_arguments(argv, name, description, list(SIZES), pickled_records.add_arguments)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return pickle_command.run(prepare, parse_arguments(argv), CONFIGS, pickled_records.of_arguments)


if __name__ == '__main__':
    sys.exit(main())
