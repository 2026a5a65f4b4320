"""What the readers of published feature files share: padded arrays of three splits -> records of true lengths.

A file is read in blocks of rows, so arrays may be larger than memory. Padding is found before values that are not
finite are replaced: a step of -inf is a step. A modality of a record in which no number but 0 is left is missing there.
"""

import contextlib
import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.pool import MISTAKES, PreparationError, Remark, holds_nothing, missing
from mmer_jax.data.records import RecordWriter, Schema
from mmer_jax.data.schema import MODALITIES

SPLITS = {'train': 'train', 'valid': 'validation', 'test': 'test'}  # key of the file -> word of the manifest
VALID = ('valid', 'dev', 'validation', 'val')  # what files call the second
POLICIES = {
    'zero': 'replaced by 0, as the published code does for -inf',
    'mean': 'replaced by the mean of the finite values of the feature over the training split',
    'refuse': 'refused',
}
BLOCK = 1 << 24  # bytes of a modality in memory at a time
EXAMPLES = 3  # ids named in a note

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass
class Split:
    """One split of a file: what its N records hold.

    `arrays` is {m: (N, T_m, D_m)}; `spans(blocks, start)` gives {m: (n, 2)}, the first real step and the one after the
    last, for the blocks {m: (n, T_m, D_m)} of the rows from `start` on (equal numbers: no real step).
    """

    name: str
    arrays: Arrays
    spans: Callable[[Arrays, int], Arrays]
    labels: Sequence[Any]
    ids: list[str]
    columns: list[dict[str, str]]
    extra: Callable[[int], Arrays] | None = None  # more features of a record, made when it is written


@dataclasses.dataclass
class Summary:
    """What was written: records by split, lengths by modality, replaced values by kind, and what is missing in them."""

    records: dict[str, int] = dataclasses.field(default_factory=dict)
    lengths: dict[str, list[int]] = dataclasses.field(default_factory=lambda: {m: [] for m in MODALITIES})
    replaced: dict[str, Counter] = dataclasses.field(default_factory=lambda: {m: Counter() for m in MODALITIES})
    empty: Counter = dataclasses.field(default_factory=Counter)
    notes: list[str] = dataclasses.field(default_factory=list)
    remarks: list[tuple[str, Remark]] = dataclasses.field(default_factory=list)
    is_known: bool = True  # the data set and layout that a config of ours is for


# ---- taking a file apart -------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What Python and NumPy raise on values of a kind that no layout has is told as a fault of the file."""
    try:
        yield
    except MISTAKES:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = ' '.join(str(error).split())[:200] or type(error).__name__
        raise PreparationError(
            f'{path} holds values of another kind than this layout has ({why}); check --dataset, and compare the file '
            'with the one its publisher gives'
        ) from error


def take_splits(content: Any, path: Path, kind: type | tuple[type, ...], expected: str) -> dict[str, Any]:
    """{'train': part, 'valid': part, 'test': part}, each of a kind; PreparationError says what is missing or other."""
    if not isinstance(content, dict):
        raise PreparationError(f'{path} holds {describe(content)}, expected a dict with the keys {list(SPLITS)}')
    known = {split: (split,) for split in SPLITS} | {'valid': VALID}
    names = {split: next((key for key in keys if key in content), '') for split, keys in known.items()}
    for split, name in names.items():
        if not name:
            raise PreparationError(
                f'{path} has no split {split!r}: found {sorted(map(str, content))}, expected the keys {list(SPLITS)}'
            )
        if not isinstance(content[name], kind):
            raise PreparationError(f'{path}, split {name!r} is {describe(content[name])}, expected {expected}')
    return {split: content[name] for split, name in names.items()}


def describe(value: Any) -> str:
    """What a value of a file is, in a few words: 'a list of 4 tuples'."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return f'an array {value.shape} of {value.dtype}'
    if isinstance(value, (list, tuple)) and len(value):
        return f'a {kind} of {len(value)}, the first of which is a {type(value[0]).__name__}'
    return f'an empty {kind}' if isinstance(value, (list, tuple, dict)) and not value else f'a {kind}'


def take_lists(content: Any, path: Path) -> dict[str, Sequence[Any]]:
    """The splits of a file of lists of records, none of them empty."""
    parts = take_splits(content, path, (list, tuple), 'a list of records as in the other splits')
    for split, part in parts.items():
        if not part:
            raise PreparationError(f'{path}, split {split!r} is empty, expected a record or more')
    return parts


def take_parts(content: Any, path: Path, keys: Iterable[str]) -> dict[str, Mapping]:
    """{'train': part, 'valid': part, 'test': part}, dicts with the keys; PreparationError says what is missing."""
    parts = take_splits(content, path, dict, f'a dict with the keys {list(keys)}')
    for split, part in parts.items():
        if missing := [key for key in keys if key not in part]:
            raise PreparationError(
                f'{path}, split {split!r} lacks {missing}: found {sorted(map(str, part))}; '
                'is it a file of another release?'
            )
    return parts


def take_arrays(part: Mapping, where: str) -> Arrays:
    """The arrays {m: (N, T_m, D_m)} of a split; PreparationError where they are not numbers of one N above 0."""
    present = [m for m in MODALITIES if m in part]
    for m in present:
        array = part[m]
        shape = getattr(array, 'shape', ())
        if len(shape) != 3 or array.dtype.kind not in 'fiu' or 0 in shape:
            found = f'{array.shape} of {array.dtype}' if isinstance(array, np.ndarray) else type(array).__name__
            raise PreparationError(
                f'{where}, {m!r}: found {found}, expected numbers of shape (records, steps, features)'
            )
    if len({len(part[m]) for m in present}) > 1:
        counts = ', '.join(f'{m} {len(part[m])}' for m in present)
        raise PreparationError(f'{where}: the modalities have different numbers of records: {counts}')
    return {m: part[m] for m in present}


def take_sizes(splits: Sequence[Split], path: Path) -> dict[str, int]:
    """{m: D_m}, the same in every split or PreparationError."""
    sizes = {m: array.shape[2] for m, array in splits[0].arrays.items()}
    for split in splits:
        for m, array in split.arrays.items():
            if array.shape[2] != sizes[m]:
                raise PreparationError(
                    f'{path}: {m!r} has {array.shape[2]} features in {split.name}, {sizes[m]} in {splits[0].name}'
                )
    return sizes


def take_column(values: Any, count: int, where: str) -> list:
    """A list of `count` values of a split, from a list or from an array of shape (count, ...)."""
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        found = len(values) if isinstance(values, (list, tuple, np.ndarray)) else type(values).__name__
        raise PreparationError(f'{where}: found {found}, expected one value for each of {count} records')
    return list(values)


def take_numbers(values: Any, count: int, where: str) -> np.ndarray:
    """One finite number a record, float64 (count,), from any shape of one value a record, such as (count, 1, 1)."""
    try:
        numbers = np.asarray(take_column(values, count, where), np.float64)
    except (TypeError, ValueError) as error:
        raise PreparationError(f'{where}: {error}') from error
    if numbers.size != count:
        raise PreparationError(
            f'{where} has the shape {numbers.shape}, expected one number for each of {count} records'
        )
    numbers = numbers.reshape(count)
    if not np.isfinite(numbers).all():
        first = int(np.argmin(np.isfinite(numbers)))
        raise PreparationError(f'{where}: record {first} has {numbers[first]}, expected a finite number')
    return numbers


def to_text(value: Any) -> str:
    """A value of an id or a transcript as one line of text that any file can hold."""
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'backslashreplace')
    if isinstance(value, float):
        value = int(value) if value.is_integer() else f'{value:.7g}'  # the digits that a float32 holds
    return ' '.join(str(value).encode('utf-8', 'backslashreplace').decode().split())


def left_padded(block: np.ndarray) -> np.ndarray:
    """Spans (n, 2) where steps before the first that is not all zero are padding; block (n, T, D)."""
    real = (block != 0).any(2)  # true for NaN and infinities too
    steps = np.full(len(block), block.shape[1])
    return np.stack([np.where(real.any(1), real.argmax(1), steps), steps], 1)


def right_padded(block: np.ndarray) -> np.ndarray:
    """Spans (n, 2) where steps after the last that is not all zero are padding; block (n, T, D)."""
    first, steps = left_padded(block[:, ::-1]).T
    return np.stack([np.zeros_like(first), steps - first], 1)


def common(spans: Arrays) -> Arrays:
    """The widest span of the modalities for all of them: word-aligned steps stay aligned."""
    starts = np.min([span[:, 0] for span in spans.values()], 0)
    stops = np.max([span[:, 1] for span in spans.values()], 0)
    return {m: np.stack([starts, stops], 1) for m in spans}


def make_unique(splits: Sequence[Split]) -> list[str]:
    """Renames repeated ids to 'id#2' in place (an empty one to 'train_00000'); returns notes about them."""
    places: dict[str, list[str]] = {}
    used: set[str] = set()
    for split in splits:
        for number, name in enumerate(split.ids):
            name = name or f'{split.name}_{number:05d}'
            places.setdefault(name, []).append(split.name)
            unique, copy = name, len(places[name])
            while unique in used:
                unique, copy = f'{name}#{copy}', copy + 1
            used.add(unique)
            split.ids[number] = unique
    notes = []
    for kind, found in (
        ('warning: in two splits', [name for name, where in places.items() if len(set(where)) > 1]),
        ('note: more than once in a split', [name for name, where in places.items() if len(set(where)) < len(where)]),
    ):
        if found:
            examples = ', '.join(f'{name} ({", ".join(places[name])})' for name in found[:EXAMPLES])
            notes.append(f'{kind}: {len(found)} ids, for example {examples}; the later ones end in #2, #3, ...')
    return notes


def differences(
    splits: Sequence[Split], sizes: Mapping[str, int], counts: Sequence[int], published: Mapping[str, int]
) -> list[str]:
    """Notes on what is not as in the published file: records by split, features by modality."""
    notes = [
        f'note: {split.name} has {len(split.ids)} records, the published file {count}'
        for split, count in zip(splits, counts, strict=True)
        if len(split.ids) != count
    ]
    return notes + [
        f'note: {m} has {sizes[m]} features, the published file {published[m]}'
        for m in sizes
        if sizes[m] != published[m]
    ]


def guess_dataset(path: Path, names: Sequence[str]) -> str:
    """The data set that the file's name, or else one of its two folders, names; PreparationError asks for it."""
    for part in reversed(path.absolute().parts[-3:]):
        found = [name for name in names if re.search(rf'(?<![a-z]){name}(?![a-z])', part.lower())]
        if len(found) == 1:
            return found[0]
    known = ', '.join(names)
    raise PreparationError(f'{path}: the name tells no data set; pass --dataset, one of {known}, or a name of your own')


# ---- writing -------------------------------------------------------------------------------------------------


def blocks(split: Split) -> Iterator[tuple[int, Arrays, Arrays]]:
    """(number of the first row, {m: (n, T_m, D_m) in memory}, {m: spans (n, 2)})."""
    row = max(array[:1].nbytes for array in split.arrays.values())
    rows = max(1, BLOCK // row)
    for start in range(0, len(split.ids), rows):
        block = {m: np.array(array[start : start + rows]) for m, array in split.arrays.items()}
        yield start, block, split.spans(block, start)


def training_means(split: Split) -> Arrays:
    """{m: (D_m,) float32}: means of the finite values over the real steps of a split; 0 where there is none."""
    totals = {m: np.zeros((2, array.shape[2])) for m, array in split.arrays.items()}
    for _, block, spans in blocks(split):
        for m in block:
            for row, (first, stop) in zip(block[m], spans[m], strict=True):
                steps = to_float32(row[first:stop])
                if holds_nothing(steps):
                    continue
                finite = np.isfinite(steps)
                totals[m] += np.where(finite, steps, 0).sum(0, dtype=np.float64), finite.sum(0)
    return {m: (total / np.maximum(number, 1)).astype(np.float32) for m, (total, number) in totals.items()}


def to_float32(steps: np.ndarray) -> np.ndarray:
    """A float32 copy; a float64 beyond the range of float32 becomes infinite, to be counted."""
    with np.errstate(over='ignore'):
        return np.array(steps, np.float32)


def clean(steps: np.ndarray, where: str, fill: np.ndarray | None, counts: Counter) -> np.ndarray:
    """Steps (T, D) as float32, values that are not finite replaced by `fill` (D,) and counted; None refuses them."""
    steps = to_float32(steps)
    bad = ~np.isfinite(steps)
    if bad.any():
        found = Counter(
            {'NaN': np.isnan(steps).sum(), '-inf': (steps == -np.inf).sum(), '+inf': (steps == np.inf).sum()}
        )
        if fill is None:
            kinds = ', '.join(f'{number} {kind}' for kind, number in found.items() if number)
            raise PreparationError(
                f'{where} has {kinds} of {steps.size} values, expected finite numbers; --nonfinite zero or mean '
                'replaces and counts them'
            )
        counts.update({kind: int(number) for kind, number in found.items() if number})
        steps = np.where(bad, fill, steps)
    return steps


def write(
    output: Path,
    schema: Schema,
    splits: Sequence[Split],
    *,
    nonfinite: str,
    num_shards: int,
    overwrite: bool,
    sources: Iterable[Path] = (),
) -> Summary:
    """Writes the shard directory, whole or not at all; the counts of replaced values go into the schema's info."""
    summary = Summary(notes=make_unique(splits))
    schema.info.update(nonfinite=nonfinite)
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': sources}
    with RecordWriter(output, schema, **options) as writer:
        arrays = splits[0].arrays
        fills: dict[str, Any] = {m: np.zeros(schema.features[m].step_shape, np.float32) for m in arrays}
        if nonfinite != 'zero':
            fills = training_means(splits[0]) if nonfinite == 'mean' else dict.fromkeys(arrays)
        total = sum(len(split.ids) for split in splits)
        with tqdm(desc=schema.name, total=total, file=sys.stderr, mininterval=0.5) as bar:
            for split in splits:
                summary.records[split.name] = len(split.ids)
                for start, block, spans in blocks(split):
                    for row in range(len(next(iter(block.values())))):
                        _write_row(
                            writer,
                            split,
                            start + row,
                            {m: (block[m][row], *spans[m][row]) for m in block},
                            fills,
                            summary,
                        )
                        bar.update()
        schema.info.update(
            replaced={m: dict(counts) for m, counts in summary.replaced.items()}, all_zero=dict(summary.empty)
        )
    return summary


def _write_row(writer: RecordWriter, split: Split, number: int, rows: dict, fills: dict, summary: Summary) -> None:
    arrays: dict[str, np.ndarray | None] = {}
    for m, (row, first, stop) in rows.items():
        steps = row[int(first) : int(stop)]
        arrays[m] = clean(steps, f'record {split.ids[number]!r} of {split.name}, {m}', fills[m], summary.replaced[m])
        if holds_nothing(steps):
            arrays[m] = None
        summary.empty[m] += arrays[m] is None
        summary.lengths[m].append(0 if arrays[m] is None else len(steps))
    lacks = {m: 'zeros throughout' for m in arrays if arrays[m] is None}
    for m, array in (split.extra(number) if split.extra is not None else {}).items():
        arrays[m] = array if len(array) else None
        lacks |= {} if len(array) else {m: 'no words'}
        summary.lengths[m].append(len(array))
    summary.remarks += [(split.ids[number], remark) for remark in missing(lacks, arrays)]
    record = {'id': split.ids[number], 'label': split.labels[number], **arrays}
    writer.write(record, split=split.name, **split.columns[number])
