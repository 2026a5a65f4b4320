"""config.search: which keys a search varies, and between which values (mmer_jax/search.py).

    config.search = (
        ('optimizer.learning_rate', 'log', 1e-5, 1e-2),  # from low to high, evenly in the logarithm
        ('model.dropout', 'uniform', 0.0, 0.5),  # from low to high
        ('data.batch_size', 'choice', 16, 32, 64),  # one of these
    )

Of a key that holds whole numbers, `log` and `uniform` give whole numbers, low and high among them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmer_jax.run.choices import Range
from mmer_jax.settings import ranges

WORDS = "('key', 'log' or 'uniform', low, high) or ('key', 'choice', value, value, ...)"
WAYS = ('log', 'uniform', 'choice')
# What all trials have in common, with all below it: by it, or on it, they are compared.
SHARED = (
    'name', 'variant', 'search', 'data.directory', 'data.normalize_by', 'data.enrolment', 'protocol', 'seed', 'seeds',
    'data_seed', 'selection.metric',
)  # fmt: skip
KindOf = Callable[[str], ranges.Kind | None]


def read(entries: Sequence[Any], kind_of: KindOf) -> list[Range]:
    """The ranges of entries in which `faults` finds none."""
    found = []
    for key, way, *values in entries:
        kind = kind_of(key)
        found.append(Range(key, way, tuple(values), kind is not None and _is_whole(kind)))
    return found


def faults(entries: Sequence[Any], kind_of: KindOf, metric: str) -> Iterator[str]:
    """What is wrong in config.search, one line each: its form, unknown keys, values outside of a key's range.

    kind_of: what a key may be, None for a dictionary; ValueError where there is no such key. metric: by which trials
    are compared.
    """
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        where = f'config.search[{number}]'
        if not isinstance(entry, tuple | list) or len(entry) < 3 or entry[1] not in WAYS or type(entry[0]) is not str:
            yield f'{where}: found {entry!r}, expected {WORDS}'
            continue
        key, way, *values = entry
        where = f'{where}, {key}'
        if key in seen:
            yield f'{where}: this key is named twice; name it once'
        seen.add(key)
        if any(key == name or key.startswith(f'{name}.') for name in SHARED):
            yield f'{where}: all trials have it in common, else their numbers could not be compared; leave it out'
            continue
        if metric == 'loss' and (key == 'losses' or key.startswith('losses.')):
            yield f'{where}: trials are compared by the loss, which it weighs; set config.selection.metric to another'
            continue
        try:
            kind = kind_of(key)
        except ValueError as error:
            yield f'{where}: {error}'
            continue
        if kind is None:
            yield f'{where}: it holds several values; name one of them, {key}.NAME'
        elif fault := _fault(kind, way, values):
            yield f'{where}: {fault}'


def _fault(kind: ranges.Kind, way: str, values: Sequence[Any]) -> str:
    if fault := next((fault for value in values if (fault := kind.fault(value))), ''):
        return fault
    if way == 'choice':
        texts = [repr(value) for value in values]
        return '' if 1 < len(set(texts)) == len(texts) else f'found {", ".join(texts)}, expected two or more, each once'
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return f"{way!r} is for numbers; use 'choice'"
    if len(values) != 2 or not values[0] < values[1]:
        return f'found {", ".join(map(repr, values))}, expected low and high, low below high'
    return f'found low {values[0]}, expected a number above 0 for log' if way == 'log' and values[0] <= 0 else ''


def _is_whole(kind: ranges.Kind) -> bool:
    """Whether the numbers that a kind takes are whole ones only."""
    numbers = [one.kind for one in getattr(kind, 'kinds', (kind,)) if isinstance(one, ranges.Number)]
    return bool(numbers) and float not in numbers
