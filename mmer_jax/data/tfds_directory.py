"""A directory that TensorFlow Datasets prepared, read without TensorFlow: metadata, shards, examples.

    dataset_info.json        name, version, format of the shards, splits with the lengths of their shards
    features.json            the features of an example, by the names of TFDS's classes
    <feature>.labels.txt     names of the classes, one per line
    <name>-<split>.tfrecord-00000-of-00004     tf.train.Example; or .array_record-...

The features are read as JSON and made anew here: tfds.features.Audio, which CREMA-D and SAVEE have, needs TensorFlow.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.schema import RecordError
from mmer_jax.data.tfrecord import Shard, build_index, unframe
from mmer_jax.files.outputs import FEATURES, TFDS_INFO

AGAIN = 'prepare it with TensorFlow Datasets again'
EXPECTED = f'expected the folder of one version, such as crema_d/1.0.0, with {TFDS_INFO} and {FEATURES}'
TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'  # of TFDS before it wrote one
FORMATS = ('tfrecord', 'array_record')
MOST_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Described:
    """One entry of features.json: the name of its class, such as Audio, and the settings of that class."""

    kind: str
    settings: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """A setting by its name in Python; TFDS writes sample_rate, and sampleRate since version 4.5."""
        first, *rest = name.split('_')
        return self.settings.get(name, self.settings.get(first + ''.join(part.title() for part in rest)))

    @property
    def shape(self) -> tuple[int | None, ...]:
        found = self.get('shape') or ()
        sizes = found.get('dimensions', ()) if isinstance(found, Mapping) else found
        return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)

    @property
    def dtype(self) -> str:
        return {'Text': 'string', 'ClassLabel': 'int64'}.get(self.kind, str(self.get('dtype') or ''))

    @property
    def is_text(self) -> bool:
        return self.dtype in ('string', 'object', 'str') and self.shape == ()


@dataclasses.dataclass(frozen=True)
class Example:
    """Where one example lies: `number` counts those of its shard, start and stop are bytes of a TFRecord file."""

    shard: Path
    split: str
    number: int
    start: int = 0
    stop: int = 0

    @property
    def id(self) -> str:
        """As TFDS names it with ReadConfig(add_tfds_id=True)."""
        return f'{self.shard.name}__{self.number}'

    @property
    def where(self) -> str:
        return f'{self.shard}, example {self.number}'


@dataclasses.dataclass(frozen=True)
class TfdsDirectory:
    """What the metadata say. splits: {name: [(shard, number of its examples)]}."""

    path: Path
    name: str
    version: str
    file_format: str
    splits: Mapping[str, Sequence[tuple[Path, int]]]
    features: Mapping[str, Described]

    def class_names(self, key: str) -> tuple[str, ...]:
        """The names of a ClassLabel, or its numbers. RecordError where it has another number of classes."""
        count, path = int(self.features[key].get('num_classes') or 0), self.path / f'{key}.labels.txt'
        if count > MOST_CLASSES:
            raise RecordError(
                f'{self.path}: {FEATURES} says {count} classes of {key!r}, expected {MOST_CLASSES} at most'
            )
        if not path.is_file():
            names = tuple(map(str, self.features[key].get('names') or range(count)))
        else:
            try:
                names = tuple(filter(None, map(str.strip, path.read_text(encoding='utf-8').split('\n'))))
            except UnicodeDecodeError as error:
                raise RecordError(f'{path} is damaged ({error}); {AGAIN}') from error
        if not names or count not in (0, len(names)):
            raise RecordError(f'{path} has {len(names)} names, {FEATURES} says {count} classes; {AGAIN}')
        return names

    def examples(self) -> list[Example]:
        """All examples in the order of splits and shards; RecordError where a shard is not what the metadata say."""
        found = []
        for split, shards in self.splits.items():
            for path, count in shards:
                if not path.is_file():
                    raise RecordError(f'{path} is missing; {TFDS_INFO} says {count} examples of {split}; {AGAIN}')
                found += _examples_of(path, split, count, self.file_format)
        return found

    def read(self, example: Example, keys: Sequence[str]) -> dict[str, Any]:
        """These features of one example: arrays, numbers, or bytes. RecordError where they are not what TFDS says."""
        data = _bytes_of(example, self.file_format)
        try:
            found = _parser(*((key, _as_stored(self.features[key])) for key in keys)).deserialize_example_np(data)
        except Exception as error:  # protobuf, tfds and numpy have many kinds for bytes of something else
            why = ' '.join(str(error).split())[:200] or type(error).__name__
            raise RecordError(f'{example.where} is not what {FEATURES} says ({why}); {AGAIN}') from error
        if lacking := [key for key in keys if key not in found]:
            raise RecordError(f'{example.where} lacks {", ".join(lacking)}; {AGAIN}')
        return dict(found)


def read_directory(path: str | Path) -> TfdsDirectory:
    """RecordError names what is missing or damaged."""
    path = Path(path)
    if not (path / TFDS_INFO).is_file():
        below = sorted(found.parent for depth in ('*', '*/*') for found in path.glob(f'{depth}/{TFDS_INFO}'))
        hint = f'give {below[-1]}' if below else EXPECTED
        raise RecordError(f'{path} {"has no " + TFDS_INFO if path.is_dir() else "is no folder"}; {hint}')
    info = _json(path / TFDS_INFO)
    try:
        name, version = str(info['name']), str(info.get('version', ''))
        file_format = str(info.get('fileFormat') or 'tfrecord')
        splits = {
            str(split['name']): _shards(path, name, str(split['name']), file_format, split) for split in info['splits']
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f'{path / TFDS_INFO} is damaged ({error!r}); {AGAIN}') from error
    if file_format not in FORMATS:
        raise RecordError(f'{path}: shards of the format {file_format}; this reads {" and ".join(FORMATS)}')
    where = path / (TFDS_INFO if 'features' in info else FEATURES)
    features = info.get('features') or _json(path / FEATURES)
    try:
        described, is_nested = _describe(features)
        if not is_nested:
            raise ValueError(f'it describes a {described.kind}, not a FeaturesDict')
        parts = {str(key): _describe(value)[0] for key, value in described.settings.items()}
        for part in parts.values():
            int(part.get('sample_rate') or 0), int(part.get('num_classes') or 0), part.shape  # are numbers
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f'{where} is damaged ({error}); {AGAIN}') from error
    return TfdsDirectory(path, name, version, file_format, splits, parts)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecordError(f'{path} is missing; {EXPECTED}')
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RecordError(f'{path} is damaged ({error}); {AGAIN}') from error
    if not isinstance(found, dict):
        raise RecordError(f'{path} is damaged: it holds {type(found).__name__}, expected an object; {AGAIN}')
    return found


def _describe(value: Mapping[str, Any]) -> tuple[Described, bool]:
    """(an entry, whether it holds entries by name); both ways to write it: of protocol buffers, and before them."""
    if 'pythonClassName' in value:
        kind, is_message = value['pythonClassName'], True
        rest = [v for k, v in value.items() if k not in ('pythonClassName', 'description', 'valueRange')]
        settings = rest[0] if rest else {}
        if 'jsonFeature' in value:
            settings = json.loads(settings['json'])
    else:
        kind, settings, is_message = value['type'], value['content'], bool(value.get('proto_cls'))
        settings = json.loads(settings) if isinstance(settings, str) else settings
    if not isinstance(settings, dict):
        raise ValueError(f'{kind} is described by {type(settings).__name__}')
    kind = kind.rpartition('.')[2]
    is_nested = kind == 'FeaturesDict'
    return Described(kind, settings['features'] if is_nested and is_message else settings), is_nested


def _shards(path: Path, name: str, split: str, file_format: str, entry: Mapping[str, Any]) -> list[tuple[Path, int]]:
    lengths = [int(length) for length in entry.get('shardLengths', ())]
    template, found = entry.get('filepathTemplate') or TEMPLATE, []
    for number, length in enumerate(lengths):
        index, total = f'{number:05d}', f'{len(lengths):05d}'
        parts = {'DATASET': name, 'SPLIT': split, 'FILEFORMAT': file_format, 'SHARD_INDEX': index, 'NUM_SHARDS': total}
        parts['SHARD_X_OF_Y'] = f'{index}-of-{total}'
        file = re.sub(r'\{(\w+)\}', lambda match, parts=parts: parts[match[1]], template)
        if Path(file).is_absolute() or '..' in Path(file).parts:
            raise ValueError(f'shard {file} lies outside')
        found.append((path / file, length))
    return found


def _examples_of(path: Path, split: str, count: int, file_format: str) -> list[Example]:
    if file_format == 'tfrecord':
        offsets = build_index(path).tolist()
        found = [Example(path, split, n, *offsets[n : n + 2]) for n in range(len(offsets) - 1)]
    else:
        found = [Example(path, split, n) for n in range(_array_record(path).num_records())]
    if len(found) != count:
        raise RecordError(f'{path} has {len(found)} examples, {TFDS_INFO} says {count}; {AGAIN}')
    return found


def _bytes_of(example: Example, file_format: str) -> bytes:
    if file_format == 'tfrecord':
        size = example.stop - example.start
        return unframe(Shard(example.shard).read(example.start, example.stop), size, example.where, AGAIN)
    try:
        return _array_record(example.shard).read([example.number])[0]
    except (ValueError, RuntimeError, IndexError) as error:
        raise RecordError(f'{example.where}: {error}; {AGAIN}') from error


@functools.lru_cache(maxsize=8)
def _array_record(path: Path) -> Any:
    from array_record.python import array_record_module  # comes with grain

    try:
        return array_record_module.ArrayRecordReader(str(path))
    except (ValueError, RuntimeError) as error:
        raise RecordError(f'{path} is no whole ArrayRecord file ({error}); {AGAIN}') from error


def _as_stored(feature: Described) -> tuple[str, tuple[int | None, ...], str]:
    """(dtype, shape, encoding) of the values of a feature in tf.train.Example, hashable."""
    if feature.is_text or feature.get('lazy_decode'):  # a sound file as it was, by lazy_decode
        return 'string', (), 'none'
    return feature.dtype, feature.shape, str(feature.get('encoding') or 'none').lower()


@functools.lru_cache(maxsize=8)
def _parser(*stored: tuple[str, tuple[str, tuple[int | None, ...], str]]) -> Any:
    from tensorflow_datasets import features

    def made(dtype: str, shape: tuple[int | None, ...], encoding: str) -> Any:
        return (
            features.Text()
            if dtype == 'string'
            else features.Tensor(shape=shape, dtype=np.dtype(dtype), encoding=encoding)
        )

    return features.FeaturesDict({key: made(*kind) for key, kind in stored})
