"""What a record holds: features, label, and the serialised tf.train.Example between them and the disk."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = 1
LABEL_KINDS = ('classes', 'regression', 'binary')


class RecordError(ValueError):
    """A shard directory or one of its records is missing, damaged or not what the schema says."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """One array of a record. `shape` may have None (a variable length) on its first axis only.

    encoding 'values' stores float32 as a FloatList, 'raw' any dtype as little-endian C-order bytes; the default
    is 'values' for float32 and 'raw' otherwise (an Int64List of pixels or samples is 50 times slower to read).
    """

    shape: tuple[int | None, ...]
    dtype: str = 'float32'
    encoding: str = ''
    description: str = ''

    def __post_init__(self):
        object.__setattr__(self, 'shape', tuple(self.shape))
        object.__setattr__(self, 'encoding', self.encoding or ('values' if self.dtype == 'float32' else 'raw'))
        if None in self.shape[1:]:
            raise ValueError(f'only the first axis of a feature may be None, found shape {self.shape}')
        if self.encoding not in ('values', 'raw') or (self.encoding == 'values' and self.dtype != 'float32'):
            raise ValueError(f"encoding {self.encoding!r} of dtype {self.dtype}: use 'raw', or 'values' with float32")

    @property
    def is_sequence(self) -> bool:
        return bool(self.shape) and self.shape[0] is None

    @property
    def step_shape(self) -> tuple[int, ...]:
        """Shape of one step; a feature without a time axis is a sequence of one step in a batch."""
        return tuple(size for size in self.shape if size is not None)


@dataclasses.dataclass(frozen=True)
class Label:
    """What a record's label is: 'classes' (int, one of names), 'regression' (float), 'binary' (int (len(names),))."""

    kind: str
    names: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, 'names', tuple(self.names))
        if self.kind not in LABEL_KINDS:
            raise ValueError(f'label kind {self.kind!r} is unknown; the known ones are {", ".join(LABEL_KINDS)}')
        if self.kind != 'regression' and not self.names:
            raise ValueError(f'a label of kind {self.kind!r} needs the names of its classes')

    @property
    def num_outputs(self) -> int:
        """Size of a prediction: C classes, 1 value, or 2 logits for each binary emotion."""
        return {'classes': len(self.names), 'regression': 1, 'binary': 2 * len(self.names)}[self.kind]


@dataclasses.dataclass(frozen=True)
class Schema:
    """Name, features by key, label, and `info`: any JSON that says how the data was made."""

    name: str
    features: dict[str, Feature]
    label: Label
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def example(self):
        """The tfds.features.FeaturesDict that serialises and parses one record, without TensorFlow."""
        from tensorflow_datasets import (
            features as tfds_features,
        )  # 1 s to import: only where records are touched

        def tfds_feature(feature):
            if feature.encoding == 'raw':
                return tfds_features.Text()
            return tfds_features.Tensor(shape=feature.shape, dtype=np.float32)

        label = {
            'classes': lambda: tfds_features.Scalar(np.int64),
            'regression': lambda: tfds_features.Scalar(np.float32),
            'binary': lambda: tfds_features.Tensor(shape=(len(self.label.names),), dtype=np.int64),
        }[self.label.kind]()
        spec = {key: tfds_feature(feature) for key, feature in self.features.items()}
        return tfds_features.FeaturesDict({'id': tfds_features.Text(), 'label': label, **spec})

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Checks one record against the schema and serialises it."""
        where = f'record {record.get("id", "without id")!r}'
        expected = {'id', 'label', *self.features}
        if set(record) != expected:
            raise RecordError(f'{where} has the keys {sorted(record)}, expected {sorted(expected)}')
        values: dict[str, Any] = {
            'id': str(record['id']),
            'label': self._encode_label(record['label'], where),
        }
        for key, feature in self.features.items():
            array = np.asarray(record[key])
            check_array(array, feature, f'{where}, feature {key!r}')
            values[key] = (
                array.astype('<' + np.dtype(feature.dtype).str[1:]).tobytes() if feature.encoding == 'raw' else array
            )
        return self.example.serialize_example(values)

    def _encode_label(self, label, where):
        label = np.asarray(label)
        if self.label.kind == 'regression':
            if label.shape != () or not np.isfinite(label):
                raise RecordError(f'{where}: the label must be one finite number, found {label!r}')
            return np.float32(label)
        shape, limit = ((), len(self.label.names)) if self.label.kind == 'classes' else ((len(self.label.names),), 2)
        if label.shape != shape or label.dtype.kind not in 'iub' or np.any(label < 0) or np.any(label >= limit):
            raise RecordError(f'{where}: the label must be int of shape {shape} in 0..{limit - 1}, found {label!r}')
        return label.astype(np.int64)

    def decode(self, data: bytes) -> dict[str, Any]:
        """One serialised record -> arrays by feature key, `label`, and `id` (str)."""
        values = self.example.deserialize_example_np(data)
        record = {'id': values['id'].decode(), 'label': np.asarray(values['label'])}
        for key, feature in self.features.items():
            array = values[key]
            if feature.encoding == 'raw':
                shape = [-1 if n is None else n for n in feature.shape]
                array = np.frombuffer(array, np.dtype(feature.dtype).newbyteorder('<')).reshape(shape)
            record[key] = array
        return record

    def to_json(self) -> dict[str, Any]:
        return {'format': FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> 'Schema':
        features = {key: Feature(**{**spec, 'shape': tuple(spec['shape'])}) for key, spec in value['features'].items()}
        return cls(name=value['name'], features=features, label=Label(**value['label']), info=value['info'])


def check_array(array: np.ndarray, feature: Feature, where: str) -> None:
    """RecordError where an array's dtype, shape or finiteness is not what its feature says."""
    if array.dtype != np.dtype(feature.dtype):
        raise RecordError(f'{where} has dtype {array.dtype}, expected {feature.dtype}')
    fits = array.ndim == len(feature.shape) and all(
        expected in (None, found) for expected, found in zip(feature.shape, array.shape, strict=True)
    )
    if not fits:
        raise RecordError(f'{where} has shape {array.shape}, expected {feature.shape}')
    if feature.is_sequence and len(array) == 0:
        raise RecordError(f'{where} is empty: a sequence needs at least one step')
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
        nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise RecordError(
            f'{where} has {nan} NaN and {infinite} infinite of {array.size} values, expected finite numbers; '
            'clean it during preparation (for instance replace by 0 and count)'
        )
