"""config.json and the preprocessor's settings of a Hugging Face folder, value by value; errors name file and key."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmer_jax.media.download import check_download

# Where transformers writes the settings of the input, by version and kind: a file, and the key of the part in it.
PREPROCESSORS = (
    ('preprocessor_config.json', ''),
    ('video_preprocessor_config.json', ''),
    ('processor_config.json', 'feature_extractor'),
    ('processor_config.json', 'image_processor'),
    ('processor_config.json', 'video_processor'),
)
ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_fast': 'gelu_new',
    'gelu_new': 'gelu_new',
    'gelu_pytorch_tanh': 'gelu_new',
    'linear': 'linear',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
    'tanh': 'tanh',
}


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. ValueError names the file: missing, a failed download, no JSON, no object."""
    check_download(path, 'a JSON file')
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} cannot be read as JSON: {error}') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path} holds a JSON {type(values).__name__}, expected an object of settings by name')
    return values


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one file; each reader gives the default where the key is absent, ValueError where it is wrong."""

    file: str
    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def wrong(self, key: str, expected: str) -> ValueError:
        return ValueError(f'{self.file} has {key} = {self.values.get(key)!r}, expected {expected}')

    def whole(self, key: str, default: int, least: int = 1) -> int:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f'a whole number of {least} or more')
        return value

    def real(self, key: str, default: float, least: float = 0.0) -> float:
        value = self.values.get(key, default)
        if not _is_real(value) or value < least:
            raise self.wrong(key, 'a number' if least == -math.inf else f'a number of {least:g} or more')
        return value

    def flag(self, key: str, default: bool) -> bool:
        """null is no answer, as some preprocessors write it."""
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, 'true or false')
        return value

    def wholes(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.values.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(type(item) is int and item > 0 for item in value):
            raise self.wrong(key, 'a list of whole numbers')
        return tuple(value)

    def channels(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """One number for each of the three colours."""
        value = self.values.get(key, default)
        if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(map(_is_real, value)):
            raise self.wrong(key, 'three numbers')
        return tuple(value)

    def square(self, key: str, default: int) -> int:
        """The side of a size that may be given as a number or as a pair."""
        value = self.values.get(key, default)
        if isinstance(value, (list, tuple)) and len(value) == 2:
            first, second = self.wholes(key, ())
            if first != second:
                raise self.wrong(key, 'a square: the encoders here take no other')
            return first
        return self.whole(key, default)

    def activation(self, key: str, default: str = 'gelu') -> str:
        """The encoders' name of an activation."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.wrong(key, f'one of the known activations {", ".join(ACTIVATIONS)}')
        return ACTIVATIONS[value]

    def demand(self, key: str, *allowed: Any) -> Any:
        """The value, the first of the allowed ones where the key is absent; they are what the encoders here know."""
        value = self.values.get(key, allowed[0])
        if not any(value == known and type(value) is type(known) for known in allowed):
            raise self.wrong(key, f'{" or ".join(map(repr, allowed))}, which the encoders here know')
        return value


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_settings(folder: Path) -> tuple[Settings, Settings]:
    """config.json, and what the folder says of the preprocessing; nothing where it does not say."""
    config = Settings(f'{folder / "config.json"}', read_json(folder / 'config.json'))
    for name, part in PREPROCESSORS:
        path = folder / name
        if not path.is_file():
            continue
        values = read_json(path)
        if not part:
            return config, Settings(f'{path}', values)
        if part in values:
            if not isinstance(values[part], dict):
                raise ValueError(f'{path} has {part} = {values[part]!r}, expected an object of settings by name')
            return config, Settings(f'{path} ({part})', values[part])
    return config, Settings(f'{folder / PREPROCESSORS[0][0]}', {})
