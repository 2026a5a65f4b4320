"""What a record holds: features, label, and the serialised tf.train.Example between them and the disk."""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMAT = 1
MODALITIES = ('text', 'audio', 'vision')  # features that models read
LABEL_KINDS = ('classes', 'regression', 'binary')
JPEG_QUALITY = 95
JPEG_MODES = {1: 'L', 3: 'RGB'}  # channels -> Pillow's name


class RecordError(ValueError):
    """A shard directory or one of its records is missing, damaged or not what the schema says."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """One array of a record. `shape` may have None (a variable length) on its first axis only.

    encoding 'values' stores float32 as a FloatList, 'raw' any dtype as little-endian C-order bytes; the default
    is 'values' for float32 and 'raw' otherwise (an Int64List of pixels or samples is 50 times slower to read).
    'jpeg' stores uint8 pictures, grey or RGB, of shape (None, H, W, C) or (H, W, C) as a BytesList with one JPEG
    file a frame, so that any reader of tf.train.Example can open them and a frame that is not used is not decoded.

    An `optional` feature may be missing in a record (silence, black pictures, rows of zeros): it is given as None and
    read back as an array of no steps, (0, ...) in front of a step's shape. In a batch its mask is False throughout.
    """

    shape: tuple[int | None, ...]
    dtype: str = 'float32'
    encoding: str = ''
    description: str = ''
    optional: bool = False

    def __post_init__(self):
        object.__setattr__(self, 'shape', tuple(self.shape))
        object.__setattr__(self, 'encoding', self.encoding or ('values' if self.dtype == 'float32' else 'raw'))
        if None in self.shape[1:]:
            raise ValueError(f'only the first axis of a feature may be None, found shape {self.shape}')
        known = {'values': self.dtype == 'float32', 'raw': True, 'jpeg': self.dtype == 'uint8'}
        if not known.get(self.encoding, False):
            choices = "use 'jpeg' with uint8, 'raw', or 'values' with float32"
            raise ValueError(f'encoding {self.encoding!r} of dtype {self.dtype}: {choices}')
        if self.encoding == 'jpeg' and not self.is_image:
            raise ValueError(
                f"encoding 'jpeg' needs the shape (None, H, W, C) or (H, W, C), C 1 or 3; {self.shape} is not"
            )

    @property
    def is_sequence(self) -> bool:
        return bool(self.shape) and self.shape[0] is None

    @property
    def step_shape(self) -> tuple[int, ...]:
        """Shape of one step; a feature without a time axis is a sequence of one step in a batch."""
        return tuple(size for size in self.shape if size is not None)

    @property
    def has_length(self) -> bool:
        """Whether records differ in how many steps they have of it: the manifest then has a column of them."""
        return self.is_sequence or self.optional

    def missing(self) -> np.ndarray:
        """What a record has where the feature is missing: (0, *step_shape)."""
        return np.zeros((0, *self.step_shape), self.dtype)

    @property
    def is_image(self) -> bool:
        """Whether a step is a picture (H, W, C) of uint8, grey or RGB."""
        return self.dtype == 'uint8' and len(self.step_shape) == 3 and self.step_shape[-1] in JPEG_MODES


Edit = Callable[[Image.Image], Image.Image]


class Frames(Sequence):
    """The JPEG frames of one record, not decoded yet: len(frames), frames[2:5] (Frames), np.asarray(frames).

    `where` names the record and the feature in errors. `edit` adds changes that are made when a frame is decoded, so
    that a frame cut away afterwards costs nothing. `step_shape` (H, W, C) is for an optional feature, which may have no
    frame at all.
    """

    def __init__(
        self,
        encoded: Sequence[bytes],
        where: str = 'frames',
        edits: Sequence[tuple[Edit, ...]] | None = None,
        step_shape: tuple[int, ...] | None = None,
    ):
        self.encoded, self.where, self.step_shape = tuple(encoded), where, step_shape
        self.edits = tuple(edits) if edits is not None else ((),) * len(self.encoded)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, key):
        """A slice is Frames again, a number is one decoded picture, uint8 (H, W, C)."""
        if isinstance(key, slice):
            return Frames(self.encoded[key], self.where, self.edits[key], self.step_shape)
        return self._decode(range(len(self))[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decodes: uint8 (T, H, W, C)."""
        if not len(self) and self.step_shape is not None:
            return np.zeros((0, *self.step_shape), np.uint8 if dtype is None else dtype)
        if not len(self):
            raise RecordError(f'{self.where} is empty: a sequence needs at least one step')
        array = np.stack([self._decode(number) for number in range(len(self))])
        return array if dtype is None else array.astype(dtype)

    def edit(self, edits: Sequence[Edit]) -> 'Frames':
        """Frames with one more change of each picture; `edits` has one function for every frame."""
        added = [(*before, edit) for before, edit in zip(self.edits, edits, strict=True)]
        return Frames(self.encoded, self.where, added, self.step_shape)

    def open(self, number: int) -> Image.Image:
        """Frame `number` as stored, its header read and its pixels not. RecordError where that is no JPEG file."""
        try:
            return Image.open(io.BytesIO(self.encoded[number]), formats=('JPEG',))
        except (UnidentifiedImageError, OSError) as error:
            raise self._damaged(number, error) from error

    def _decode(self, number: int) -> np.ndarray:
        picture = self.open(number)
        try:
            picture.load()
        except (OSError, ValueError) as error:  # Pillow does not load a file that ends early
            raise self._damaged(number, error) from error
        for change in self.edits[number]:
            picture = change(picture)
        array = np.asarray(picture)
        return array[..., None] if array.ndim == 2 else array

    def _damaged(self, number: int, error: Exception) -> 'RecordError':
        found = f'frame {number} of {len(self)} ({len(self.encoded[number])} bytes) is no whole JPEG file'
        return RecordError(f'{self.where}: {found} ({error}); prepare the data set again')


def encode_frames(frames: np.ndarray, quality: int = JPEG_QUALITY) -> Frames:
    """uint8 (T, H, W, C) -> Frames of JPEG files, C 1 (grey) or 3 (RGB); colour is halved in resolution (4:2:0)."""
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[-1] not in JPEG_MODES:
        raise ValueError(f'expected uint8 (T, H, W, 1 or 3), found {frames.dtype} {frames.shape}')
    encoded = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(buffer, 'JPEG', quality=quality)
        encoded.append(buffer.getvalue())
    return Frames(encoded)


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
            if feature.encoding == 'jpeg':
                return tfds_features.Sequence(tfds_features.Text())
            shape = feature.shape if feature.is_sequence or not feature.optional else (None, *feature.shape)
            return tfds_features.Tensor(shape=shape, dtype=np.float32)

        label = {
            'classes': lambda: tfds_features.Scalar(np.int64),
            'regression': lambda: tfds_features.Scalar(np.float32),
            'binary': lambda: tfds_features.Tensor(shape=(len(self.label.names),), dtype=np.int64),
        }[self.label.kind]()
        spec = {key: tfds_feature(feature) for key, feature in self.features.items()}
        return tfds_features.FeaturesDict({'id': tfds_features.Text(), 'label': label, **spec})

    def check(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with its label and arrays as stored; RecordError where it does not fit the schema.

        A 'jpeg' feature may be given as an array or as Frames (encode_frames), whose headers are read; an optional one
        that is missing as None.
        """
        where = f'record {record.get("id", "without id")!r}'
        expected = {'id', 'label', *self.features}
        if set(record) != expected:
            raise RecordError(f'{where} has the keys {sorted(record)}, expected {sorted(expected)}')
        values: dict[str, Any] = {'id': str(record['id']), 'label': self._check_label(record['label'], where)}
        for key, feature in self.features.items():
            name, value = f'{where}, feature {key!r}', record[key]
            if value is None and not feature.optional:
                raise RecordError(f'{name} is None, but the feature is not optional; expected an array {feature.shape}')
            if isinstance(value, Frames):
                values[key] = Frames(value.encoded, name, value.edits, feature.step_shape)
                check_frames(values[key], feature, name)
            else:
                values[key] = feature.missing() if value is None else np.asarray(value)
                check_array(values[key], feature, name)
        return values

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Checks one record against the schema and serialises it."""
        values = self.check(record)
        for key, feature in self.features.items():
            value = values[key]
            if feature.encoding == 'values' and feature.optional:
                values[key] = value.reshape(-1, *feature.step_shape)  # a vector is stored as none or one
            elif feature.encoding == 'raw':
                values[key] = value.astype('<' + np.dtype(feature.dtype).str[1:]).tobytes()
            elif feature.encoding == 'jpeg':
                frames = value if isinstance(value, Frames) else encode_frames(value.reshape(-1, *feature.step_shape))
                values[key] = list(frames.encoded)
        return self.example.serialize_example(values)

    def _check_label(self, label, where):
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
        """One serialised record -> arrays by feature key, `label`, and `id` (str); 'jpeg' features are Frames.

        RecordError where one of them is not there; protobuf and NumPy raise as they do where the bytes are others.
        """
        values = self.example.deserialize_example_np(data)
        if lacking := sorted(key for key in ('id', 'label', *self.features) if values.get(key) is None):
            raise RecordError(f'no {", ".join(lacking)} in it')
        record = {'id': values['id'].decode(), 'label': np.asarray(values['label'])}
        for key, feature in self.features.items():
            array = values[key]
            if feature.encoding == 'raw':
                kind = np.dtype(feature.dtype).newbyteorder('<')
                shape = [-1 if n is None else n for n in feature.shape]
                missing = not array and feature.optional
                array = feature.missing() if missing else np.frombuffer(array, kind).reshape(shape)
            elif feature.encoding == 'jpeg':
                array = Frames(array, f'record {record["id"]!r}, feature {key!r}', step_shape=feature.step_shape)
            elif feature.optional and not feature.is_sequence and len(array) == 1:
                array = array[0]
            record[key] = array
        return record

    def to_json(self) -> dict[str, Any]:
        content = {'format': FORMAT, **dataclasses.asdict(self)}
        for spec in content['features'].values():
            if not spec['optional']:  # as it was before features could be
                del spec['optional']
        return content

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> 'Schema':
        features = {key: Feature(**{**spec, 'shape': tuple(spec['shape'])}) for key, spec in value['features'].items()}
        for key, feature in features.items():
            sizes = [size for size in feature.shape if size is not None]
            if not all(type(size) is int and size >= 0 for size in sizes) or type(feature.optional) is not bool:
                raise ValueError(f'feature {key!r} has shape {list(feature.shape)} and optional {feature.optional!r}')
        if not all(isinstance(text, str) for text in (value['name'], *value['label'].get('names', ()))):
            raise ValueError(f'name {value["name"]!r} and classes {value["label"].get("names")!r}, expected text')
        return cls(name=value['name'], features=features, label=Label(**value['label']), info=value['info'])


def count_steps(value: Any, feature: Feature) -> int:
    """The steps that a record has of a feature: 0 where it is missing, 1 of a vector or a single picture."""
    if value is None:
        return 0
    return len(value) if feature.is_sequence or isinstance(value, Frames) or np.shape(value)[:1] == (0,) else 1


def check_array(array: np.ndarray, feature: Feature, where: str) -> None:
    """RecordError where an array's dtype, shape or finiteness is not what its feature says."""
    if array.dtype != np.dtype(feature.dtype):
        raise RecordError(f'{where} has dtype {array.dtype}, expected {feature.dtype}')
    missing = feature.optional and array.shape == (0, *feature.step_shape)
    fits = array.ndim == len(feature.shape) and all(
        expected in (None, found) for expected, found in zip(feature.shape, array.shape, strict=True)
    )
    if not fits and not missing:
        raise RecordError(f'{where} has shape {array.shape}, expected {feature.shape}')
    if feature.is_sequence and len(array) == 0 and not missing:
        raise RecordError(f'{where} is empty: a sequence needs at least one step')
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
        nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise RecordError(
            f'{where} has {nan} NaN and {infinite} infinite of {array.size} values, expected finite numbers; '
            'clean it during preparation (for instance replace by 0 and count)'
        )


def check_frames(frames: Frames, feature: Feature, where: str) -> None:
    """RecordError where JPEG frames are not the pictures that their feature says, by their headers."""
    if feature.encoding != 'jpeg':
        raise RecordError(f'{where} is given as JPEG frames, but its encoding is {feature.encoding!r}')
    if feature.optional and not len(frames):
        return
    if not len(frames) or (not feature.is_sequence and len(frames) != 1):
        expected = 'at least one' if feature.is_sequence else 'one'
        raise RecordError(f'{where} has {len(frames)} frames, expected {expected}')
    height, width, channels = feature.step_shape
    for number in range(len(frames)):
        picture = frames.open(number)
        if picture.size != (width, height) or picture.mode != JPEG_MODES[channels]:
            found = f'{picture.mode} of {picture.height} x {picture.width}'
            raise RecordError(
                f'{where}: frame {number} is {found}, expected {JPEG_MODES[channels]} of {height} x {width} (H x W)'
            )
