"""The attention maps of one record: what a map is of, the words and seconds along its sides, which ones to draw.

A key is a `MapName` (layers.py) as a string. figures.py fetches the maps, attention_plots.py draws them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.map_names import MapName
from mmer_jax.media.download import check_download
from mmer_jax.media.text import read_glove
from mmer_jax.media.textfile import decode_word, stream_lines
from mmer_jax.results.attention_plots import Axis, Picture

HEADS = ('mean', 'max', 'all')
UNITS = {  # in a title; '' where sides and layer say all
    'psa': 'self-attention (PSA)',
    'mixed': 'mixed MRU',
    'coarse': 'coarse MRU',
    'fine': 'fine MRU',
    'cross': '',
    'message': '',
}
TEXT_COLUMNS = ('tokens', 'text', 'raw_text')  # of the manifest; tokens: what stands at each step, where it is no word
UNIFORM = 0.5  # the share of the largest weight that the smallest one of a nearly uniform map has
Modalities = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AttentionMap:
    """values (K, T, S) without padding; rows are the steps of `targets` end to end, columns those of `sources`."""

    name: MapName
    targets: Modalities
    sources: Modalities
    values: np.ndarray

    @property
    def key(self) -> str:
        return self.name.key()

    @property
    def family(self) -> MapName:
        """What all layers of it share."""
        return self.name._replace(layer=0)

    @property
    def title(self) -> str:
        target, source = (' + '.join(side) for side in (self.targets, self.sources))
        sides = target if self.name.target == self.name.source else f'{target} from {source}'
        plain = 'plain softmax' if self.name.unit == 'psa' and self.name.layer == 0 else ''
        unit = UNITS.get(self.name.unit, self.name.unit)
        return f'{sides}: {", ".join(filter(None, (unit, f"layer {self.name.layer + 1}", plain)))}'

    def reduced(self, heads: str) -> np.ndarray:
        """(T, S), the mean or the maximum over heads, or all of them (K, T, S)."""
        return {'mean': lambda x: x.mean(0), 'max': lambda x: x.max(0), 'all': lambda x: x}[heads](self.values)


@dataclasses.dataclass(frozen=True)
class Side:
    """One run's maps of a record by key, and the axes of its modalities; `prefix` stands before its keys in files."""

    prefix: str
    name: str
    maps: Mapping[str, AttentionMap]
    axes: Mapping[str, Axis]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What is drawn: pictures by the key of the first side, the numbers and their description by each side's key."""

    pictures: dict[str, list[Picture]]
    arrays: dict[str, np.ndarray]
    described: dict[str, dict[str, Any]]
    notes: list[str]


def maps_of_record(
    attention: Mapping[str, np.ndarray],
    modalities: Modalities,
    lengths: Mapping[str, int],
    padded_to: Mapping[str, int] | None = None,
) -> tuple[dict[str, AttentionMap], dict[str, int]]:
    """Maps (K, T, S) by key of one record, its padding cut off, and the steps of each modality that are left.

    lengths: valid steps of each modality. padded_to: steps of modalities that the model itself pads on the left; the
    rest has no padding, or it stands behind the last modality's steps, or, in a map of one modality, on the right.
    """
    padded = {m: (padded_to or {}).get(m) or lengths[m] for m in modalities}
    steps = {m: min(lengths[m], padded[m]) for m in modalities}
    maps = {}
    for name in sorted(map(MapName.from_key, attention), key=lambda name: _order(name, modalities)):
        targets, sources = name.sides(modalities)
        rows, columns = (_places(side, steps, padded) for side in (targets, sources))
        values = np.asarray(attention[name.key()], np.float32)[:, rows][:, :, columns]
        maps[name.key()] = AttentionMap(name, targets, sources, values)
    return maps, steps


def _order(name: MapName, modalities: Modalities) -> tuple[Any, ...]:
    """Self-attention first, then by target, from many sources to one; jit hands maps out in the order of letters."""
    targets, sources = name.sides(modalities)
    return targets != sources, [modalities.index(m) for m in targets], -len(sources), name.key()


def _places(side: Modalities, steps: Mapping[str, int], padded: Mapping[str, int]) -> np.ndarray:
    ends = np.cumsum([padded[m] for m in side])
    return np.concatenate([np.arange(end - steps[m], end) for m, end in zip(side, ends, strict=True)])


def choose_maps(maps: Mapping[str, AttentionMap], keys: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The keys to draw, and the default ones left out: a single source step always gets 1.

    By default the last layer of every kind of map, and of self-attention (PSA) also the first, which is a plain
    softmax. ValueError for a key that no map has, or whose map has no steps; it lists those there are.
    """
    known = [key for key, one in maps.items() if one.values.size]
    wrong = [key for key in keys if key not in known]
    if wrong or not known:
        raise ValueError(f'no attention map {", ".join(wrong)}; this model has, for this record, {", ".join(known)}')
    if keys:
        return list(dict.fromkeys(keys)), []
    families: dict[MapName, list[AttentionMap]] = {}
    for key in known:
        families.setdefault(maps[key].family, []).append(maps[key])
    wanted = []
    for family, layers in families.items():
        layers.sort(key=lambda one: one.name.layer)
        wanted += layers[:1] if family.unit == 'psa' and len(layers) > 1 else []
        wanted.append(layers[-1])
    drawn = [one.key for one in wanted if one.values.shape[2] > 1]
    return (drawn, [one.key for one in wanted if one.key not in drawn]) if drawn else ([one.key for one in wanted], [])


def counterpart(one: AttentionMap, maps: Mapping[str, AttentionMap]) -> AttentionMap | None:
    """The map of another run to put beside one: of the same key, else the last one between the same modalities."""
    if one.key in maps:
        return maps[one.key]
    same = [other for other in maps.values() if (other.targets, other.sources) == (one.targets, one.sources)]
    return max(same, key=lambda other: (other.name.layer, other.name.unit == 'fine'), default=None)


def drawing(sides: Sequence[Side], keys: Sequence[str], heads: str, *, contrast: bool = False) -> Drawing:
    """The chosen maps of the first side with their counterparts of the others; those of one key share a scale.

    The scale goes from 0 to the largest weight drawn; with `contrast`, and where the map is nearly uniform, from the
    smallest one.
    """
    chosen, left_out = choose_maps(sides[0].maps, keys)
    result = Drawing({}, {}, {}, [])
    if left_out:
        result.notes.append(f'Not drawn, because a single source step always gets 1: {", ".join(left_out)}.')
    for key in chosen:
        found = [(side, counterpart(sides[0].maps[key], side.maps)) for side in sides]
        group: list[Picture] = []
        for side, one in found:
            if one is None:
                result.notes.append(f'{side.name} has no map like {key}.')
                continue
            values = one.reduced(heads)
            result.arrays[side.prefix + one.key] = values
            result.described[side.prefix + one.key] = {
                'title': one.title, 'targets': one.targets, 'sources': one.sources, 'heads': len(one.values),
            }  # fmt: skip
            group += _pictures(side, one, values, heads, name_run=len(sides) > 1)
        low, high = (float(end([end(picture.values) for picture in group])) for end in (np.min, np.max))
        uniform = low > UNIFORM * high
        span = (low if (contrast or uniform) and low < high else 0.0, high)
        if uniform and low < high and not contrast:
            result.notes.append(f'{key} is nearly uniform: its colours go from {low:.3g}, not from 0, to {high:.3g}.')
        result.pictures[key] = [dataclasses.replace(picture, span=span) for picture in group]
    return result


def _pictures(side: Side, one: AttentionMap, values: np.ndarray, heads: str, *, name_run: bool) -> list[Picture]:
    targets, sources = (
        tuple(side.axes[m] for m in names if side.axes[m].steps) for names in (one.targets, one.sources)
    )
    about = f'{side.name}: {one.key}' if name_run else one.key
    if heads == 'all':
        titles = [f'{about}, head {k + 1} of {len(values)}' for k in range(len(values))]
        return [Picture(one.title, title, head, targets, sources) for title, head in zip(titles, values, strict=True)]
    return [Picture(one.title, f'{about}, {heads} of {len(one.values)} heads', values, targets, sources)]


def axes_of_record(
    source: Any, number: int, lengths: Mapping[str, int], steps: Mapping[str, int], glove: str | Path | None = None
) -> tuple[dict[str, Axis], list[str]]:
    """The axis of each modality of a record of a RecordSource, and notes on what stands along it.

    Words where they are known: the manifest's column tokens, text or raw_text if it has as many as the record has
    steps, or those of the vectors in the GloVe file `glove`; other modalities have them too where the whole data set is
    aligned to words. Else seconds, from the columns start and end, or duration; else numbers of steps, from 1.

    lengths: steps that the model was given, the record's first ones; steps: those in the maps, the last of these.
    """
    notes: list[str] = []
    words = _words(source, number, glove, notes) if 'text' in source.schema.features else []
    seconds, axes = _seconds(source.manifest, number), {}
    for m, count in steps.items():
        whole, skipped = int(source.manifest.get(f'length_{m}', {number: 1})[number]), lengths[m] - count
        aligned = m == 'text' or _go_together(source.manifest, m)
        if not source.schema.features[m].is_sequence:
            axes[m] = Axis(m, count, ('whole clip',))
        elif words and aligned:
            axes[m] = Axis(m, count, tuple(words[skipped : lengths[m]]))
        elif seconds and whole and not aligned:
            axes[m] = Axis(m, count, (), skipped * seconds / whole, lengths[m] * seconds / whole, 's')
            notes.append(f'Seconds of {m}: {whole} evenly spaced steps in {seconds:.2f} s.')
        else:
            axes[m] = Axis(m, count, (), skipped + 0.5, lengths[m] + 0.5)
    return axes, notes


def _go_together(manifest: Mapping[str, np.ndarray], m: str) -> bool:
    """Whether a modality has a step for each word in all records that have both."""
    steps, words = manifest.get(f'length_{m}'), manifest.get('length_text')
    if steps is None or words is None:
        return False
    both = (steps > 0) & (words > 0)
    return bool(both.any()) and np.array_equal(steps[both], words[both])


def _words(source: Any, number: int, glove: str | Path | None, notes: list[str]) -> list[str]:
    count = int(source.manifest.get('length_text', {number: 1})[number])
    if glove is not None:
        found = words_of_vectors(glove, source[number]['text'])
        notes.append(f'Words are found in {Path(glove).name} by their exact vectors; [n] is a step that has none.')
        return [f'[{n}]' if word is None else word for n, word in enumerate(found, start=1)]
    column = next((name for name in TEXT_COLUMNS if name in source.manifest), None)
    if column is None:
        notes.append(f'Text has numbers of steps: the manifest has no column {" or ".join(TEXT_COLUMNS)}.')
        return []
    words = str(source.manifest[column][number]).split()
    if len(words) != count:
        notes.append(
            f'Text has numbers of steps: the column {column} has {len(words)} words, the record {count} steps.'
        )
        return []
    return words


def _seconds(manifest: Mapping[str, np.ndarray], number: int) -> float:
    """Seconds of a record, 0 where the manifest does not say."""
    cells = [str(manifest[name][number]) if name in manifest else '' for name in ('start', 'end', 'duration')]
    try:
        start, end, duration = (float(cell) if cell.strip() else np.nan for cell in cells)
    except ValueError:
        return 0.0
    found = end - start if np.isfinite(end - start) else duration
    return float(found) if np.isfinite(found) and found > 0 else 0.0


def words_of_vectors(path: str | Path, vectors: np.ndarray) -> list[str | None]:
    """The words whose vectors in a GloVe file equal rows of (T, D) exactly; None for a row of zeros or of no word.

    D may be larger than the file's vectors: what a data set appends to them is not compared. Only words whose first
    number occurs in `vectors` are parsed, so a file of gigabytes takes little memory; words with spaces are not found.
    """
    check_download(path, 'lines of a word and its vector, as in glove.840B.300d.txt')
    vectors = np.asarray(vectors, np.float32)
    firsts, candidates = set(vectors[:, 0].tolist()), []
    for line in stream_lines(path):
        fields = line.split(b' ', 2)
        if len(fields) > 1 and _may_be(fields[1], firsts):
            candidates.append(decode_word(fields[0]))
    known = read_glove(path, candidates)
    if known.size > vectors.shape[1]:
        raise ValueError(
            f'{path}: vectors of {known.size} numbers, the text of this data set has {vectors.shape[1]}; '
            'give the file that the data set was made with'
        )
    words = {known.array[row].tobytes(): word for word, row in reversed(known.rows.items())}
    return [words.get(row.tobytes()) if row.any() else None for row in vectors[:, : known.size]]


def _may_be(field: bytes, firsts: set[float]) -> bool:
    try:
        return float(np.float32(field)) in firsts
    except ValueError:
        return True  # read_glove names the line
