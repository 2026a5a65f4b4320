"""The metadata with which tfds.builder_from_directory opens a shard directory, as TensorFlow Datasets writes them.

    dataset_info.json    name, features, one split `records` with the length of each shard
    label.labels.txt     names of the classes, one per line

TFDS looks for features in dataset_info.json before it opens features.json, so that features.json stays the schema of
this toolkit. Nothing here needs TensorFlow; TFDS needs it to read TFRecord files.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmer_jax.data.schema import Feature, Schema
from mmer_jax.files.outputs import TFDS_INFO, TFDS_NAMES

SPLIT = 'records'  # TFDS keeps the name `all` for the union of all splits
VERSION = '1.0.0'
# What tf.io.decode_raw reads; a feature of another dtype is given as its bytes.
DECODED = ('bool', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'int64', 'float16', 'float32', 'float64')


def tfds_files(schema: Schema, shards: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """{name: content} of the files to write beside features.json. shards: its entries {'records', 'bytes', ...}."""
    described = _features(schema).to_json()
    split = {
        'name': SPLIT,
        'filepathTemplate': 'data-{SHARD_X_OF_Y}.tfrecord',
        'shardLengths': [str(shard['records']) for shard in shards],
        'numBytes': str(sum(shard['bytes'] for shard in shards)),
    }
    info = {
        'name': schema.name,
        'version': VERSION,
        'description': 'Written by mmer_jax. Speakers and official splits stand in manifest.csv, by id.',
        'fileFormat': 'tfrecord',
        'features': {'pythonClassName': described['type'], 'featuresDict': described['content']},
        'splits': [split],
    }
    found = {TFDS_INFO: (json.dumps(info, indent=1) + '\n').encode()}
    if schema.label.kind == 'classes' and _fit_lines(schema.label.names):
        found[TFDS_NAMES] = ('\n'.join(schema.label.names) + '\n').encode()
    return found


def _fit_lines(names: Sequence[str]) -> bool:
    """Whether TFDS reads these names from a file of lines: unique, none empty or with blanks around it."""
    return len(set(names)) == len(names) and all(name.splitlines() == [name.strip()] for name in names)


def _features(schema: Schema) -> Any:
    """The tfds.features.FeaturesDict of decoded records (Schema.example has them as they are stored)."""
    from tensorflow_datasets import features  # 1 s to import: only where records are written

    label = {
        'classes': lambda: features.ClassLabel(num_classes=len(schema.label.names)),
        'regression': lambda: features.Scalar(np.float32),
        'binary': lambda: features.Tensor(
            shape=(len(schema.label.names),), dtype=np.int64, doc=', '.join(schema.label.names)
        ),
    }[schema.label.kind]()
    arrays = {key: _feature(features, feature) for key, feature in schema.features.items()}
    return features.FeaturesDict({'id': features.Text(), 'label': label, **arrays})


def _feature(features: Any, feature: Feature) -> Any:
    """An optional feature without a time axis has an axis of steps here, 0 or 1: TFDS knows no missing vector."""
    doc = feature.description
    if feature.encoding == 'jpeg':
        picture = features.Image(shape=feature.step_shape, encoding_format='jpeg', doc=doc)
        return features.Sequence(picture, doc=doc) if feature.has_length else picture
    shape = (None, *feature.step_shape) if feature.has_length else feature.shape
    if feature.encoding == 'values':
        return features.Tensor(shape=shape, dtype=np.float32, doc=doc)
    if feature.dtype not in DECODED:
        return features.Text(doc=f'{feature.dtype} {feature.shape}, little-endian bytes. {doc}'.strip())
    return features.Tensor(shape=shape, dtype=np.dtype(feature.dtype), encoding='bytes', doc=doc)
