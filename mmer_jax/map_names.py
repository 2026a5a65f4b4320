"""Names of attention maps: tuples in code, strings in outputs, in the files of figures and on its command line."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

COMMON, OTHERS = 'common', 'others'  # all modalities end to end, and all but the target
ANY_KEY = '{unit}/{layer}/{target}/{source}'
KEYS = {  # unit: its keys, and the source where the key does not say it
    'psa': ('psa/{layer}/{target}', '{target}'),  # predictive self-attention (MFSA)
    'mixed': ('hca/{layer}/{target}/mixed', COMMON),  # the three grains of HCA (MFSA)
    'coarse': ('hca/{layer}/{target}/coarse', OTHERS),
    'fine': ('hca/{layer}/{target}/fine_{source}', ''),
    'cross': ('{target}_from_{source}/{layer}', ''),  # a pair of modalities (MulT, MICA)
    'memory': ('{target}_memory/{layer}', '{target}'),
    'message': ('{layer}/{target}_from_{source}', ''),  # to and from the common message (PMR)
}


class MapName(NamedTuple):
    """What an attention map (B, K, T, S) is of: in which layer, from 0, `target` attends to `source`, by which unit.

    target and source are a modality, COMMON or OTHERS. A unit that is not in KEYS has the key
    '<unit>/<layer>/<target>/<source>', so a new one needs no line there. Keys are what `outputs['attention']`, the
    files of figures.py and its --maps have.
    """

    layer: int
    target: str
    source: str
    unit: str

    def key(self) -> str:
        """The name as a string; `from_key` reads it."""
        form, _ = KEYS.get(self.unit, (ANY_KEY, ''))
        return form.format(**self._asdict())

    @classmethod
    def from_key(cls, key: str) -> 'MapName':
        """The name that has this key; ValueError where none has."""
        for unit, (form, source) in KEYS.items():
            if found := re.fullmatch(_pattern(form), key):
                said = found.groupdict()
                return cls(int(said['layer']), said['target'], said.get('source', source.format(**said)), unit=unit)
        if found := re.fullmatch(_pattern(ANY_KEY), key):
            return cls(int(found['layer']), found['target'], found['source'], unit=found['unit'])
        raise ValueError(
            f'{key!r} is no name of an attention map, such as {", ".join(form for form, _ in KEYS.values())}'
        )

    def sides(self, modalities: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The modalities of the map's rows and of its columns; several stand end to end."""
        words = {COMMON: tuple(modalities), OTHERS: tuple(m for m in modalities if m != self.target)}
        return words.get(self.target, (self.target,)), words.get(self.source, (self.source,))


def _pattern(form: str) -> str:
    named = re.sub(r'\{(\w+)\}', r'(?P<\1>\\w+)', form)
    return named.replace(r'(?P<layer>\w+)', '(?P<layer>[0-9]+)')


def at_layer(maps: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """The maps of a block, which counts its own layer as 0, by their keys in a model where it is layer `layer`."""
    return {MapName.from_key(key)._replace(layer=layer).key(): value for key, value in maps.items()}
