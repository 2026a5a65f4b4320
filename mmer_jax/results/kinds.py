"""The kinds of value in results.json: of a damaged file the first wrong one is told."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

TEXT, NUMBER, TEXTS, OBJECT = 'text', 'a whole number', 'a list of texts', 'an object'
OF_RESULTS = {
    'config': TEXT, 'variant': TEXT, 'dataset': TEXT, 'modalities': TEXTS, 'protocol': TEXT, 'parameters': NUMBER,
    'metrics': TEXT, 'selection': TEXT, 'headline': TEXTS, 'class_names': TEXTS,
}  # fmt: skip
OF_ROW = {
    'fold': TEXT, 'seed': NUMBER, 'marks': TEXTS, 'best_epoch': NUMBER, 'epochs': NUMBER, 'test': OBJECT,
    'floor': OBJECT,
}  # fmt: skip


def fault(results: Any) -> str:
    """'' or what is wrong with the kinds of the values that are there, without the file's name."""
    if not isinstance(results, Mapping):
        return f'it holds {type(results).__name__}, expected an object'
    rows = results.get('rows', [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        return f'rows is {_shown(rows)}, expected a list of objects'
    places = [('', results, OF_RESULTS), *((f'rows[{n}].', row, OF_ROW) for n, row in enumerate(rows))]
    return next((found for place, values, kinds in places for found in _wrong(place, values, kinds)), '')


def _wrong(place: str, values: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[str]:
    for key, kind in kinds.items():
        if key in values and not _is(values[key], kind):
            yield f'{place}{key} is {_shown(values[key])}, expected {kind}'
        if kind == OBJECT and isinstance(values.get(key), Mapping):
            for name, value in values[key].items():
                if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
                    yield f'{place}{key}.{name} is {_shown(value)}, expected numbers'


def _is(value: Any, kind: str) -> bool:
    if kind == TEXTS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return {TEXT: isinstance(value, str), NUMBER: type(value) is int, OBJECT: isinstance(value, Mapping)}[kind]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
