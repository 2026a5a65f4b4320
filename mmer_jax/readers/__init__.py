"""Readers: one clip -> the arrays of a record, by settings that its shard directory keeps.

A reader is a frozen dataclass whose fields are its settings; `READERS` has all of them by their kind. Preparation
writes them into features.json (`info['readers']`, one for each modality), and prediction makes them again from there,
so that a clip is read the same way in both.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmer_jax.data.schema import MODALITIES, Schema
from mmer_jax.readers.clip import MEDIA, Clip, Reader, Reading, seconds
from mmer_jax.readers.given import Given
from mmer_jax.readers.pictures import Pictures
from mmer_jax.readers.sound import Sound
from mmer_jax.readers.words import Tokens, WordVectorsOf

READERS: dict[str, type] = {
    'given': Given,
    'pictures': Pictures,
    'sound': Sound,
    'tokens': Tokens,
    'word_vectors': WordVectorsOf,
}
KINDS = {reader: kind for kind, reader in READERS.items()}

__all__ = [
    'MEDIA',
    'READERS',
    'Clip',
    'Given',
    'Pictures',
    'Reader',
    'Reading',
    'Sound',
    'Tokens',
    'WordVectorsOf',
    'from_info',
    'read_record',
    'seconds',
    'to_info',
]


def to_info(readers: Sequence[Reader]) -> dict[str, Any]:
    """{modality: {'kind': ..., setting: value}} as JSON, for the `info` of a schema."""
    return {reader.modality: {'kind': KINDS[type(reader)], **_settings(reader)} for reader in readers}


def _settings(reader: Any) -> dict[str, Any]:
    return dataclasses.asdict(reader)


def from_info(info: Mapping[str, Any], modalities: Sequence[str]) -> list[Reader]:
    """The readers of `modalities` that a data set was made by, from its schema's `info`.

    ValueError where its preparation says nothing that a clip could be read by.
    """
    described = info.get('readers') or _of_older(info)
    missing = [m for m in modalities if m not in described]
    if missing:
        maker = info.get('made_by', 'unknown')
        raise ValueError(
            f'the data of the run were made by {maker}, which does not say how {", ".join(missing)} of a clip is read; '
            'prepare clips with data_prep.clips or data_prep.ravdess, or test a shard directory with evaluate --data'
        )
    return [_make(described[m], m) for m in modalities]


def _make(described: Mapping[str, Any], modality: str) -> Reader:
    fields = dict(described)
    kind = fields.pop('kind', None)
    if kind not in READERS:
        raise ValueError(f'{modality} is read by {kind!r}; this version knows {", ".join(READERS)}')
    try:
        return READERS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    except TypeError as error:
        raise ValueError(
            f'{modality}: settings of the reader {kind!r} are not those of this version: {error}'
        ) from error


def _of_older(info: Mapping[str, Any]) -> dict[str, Any]:
    """The same from what data_prep.ravdess and data_prep.iemocap wrote before there were readers."""
    found: dict[str, Any] = {}
    if info.get('made_by') == 'data_prep.ravdess':
        if info['features'] != 'none':
            names = ('features', 'sample_rate', 'num_mfcc', 'hop_length', 'offset', 'duration')
            found['audio'] = {'kind': 'sound', **{name: info[name] for name in names}}
        if 'vision' in info:
            found['vision'] = {'kind': 'pictures', **info['vision']}
    elif info.get('made_by') == 'data_prep.iemocap':
        if 'tokenizer' in info:
            found['text'] = {'kind': 'tokens', 'tokenizer': info['tokenizer']}
        if 'sample_rate' in info:
            rate, seconds = info['sample_rate'], info['max_seconds']
            found['audio'] = {'kind': 'sound', 'features': 'waveform', 'sample_rate': rate, 'duration': seconds}
    return found


def read_record(clip: Clip, readers: Sequence[Reader]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """(arrays by modality, None where missing; manifest columns; {modality: why it is missing}) of one clip.

    MediaError where a file cannot be used at all.
    """
    arrays: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for reader in sorted(readers, key=lambda reader: MODALITIES.index(reader.modality)):
        found = reader.read(clip)
        arrays[reader.modality] = found.array
        columns |= found.columns
        if found.array is None:
            missing[reader.modality] = found.missing
    return arrays, columns, missing


def schema_of(readers: Sequence[Reader], like: Schema) -> Schema:
    """`like` with the features that the readers make, and how, in its info."""
    features = {reader.modality: reader.feature() for reader in readers}
    info = {**like.info, 'readers': to_info(readers)}
    return dataclasses.replace(like, features=features, info=info)
