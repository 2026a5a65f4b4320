"""The 3-D ResNeXt that Hara et al. (2018) trained on Kinetics, or what CFN-SR and MSAF made of it -> `resnext3d`.

Files such as resnext-50-kinetics.pth and resnext-101-kinetics.pth ({'state_dict': {'module.conv1.weight': ...}}, often
in the format of old torch), or bare state dicts such as fold_1_resnext50_best.pth. Depth, width and cardinality are
read off the tensors; the classifier `fc` is left out.

The Kinetics networks were trained on pictures in 0..255 less the mean of ActivityNet, not divided by a deviation;
CFN-SR and MSAF feed them pictures normalised as for ImageNet, as the encoder does by default. To give them what they
were trained on, set its fields mean=(0.4501, 0.4225, 0.3901) and std=(1 / 255, 1 / 255, 1 / 255).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert_weights import names
from data_prep.convert_weights.names import Converted, Rule
from data_prep.convert_weights.torch_files import open_checkpoint

UNUSED = (r'^fc\.',)
STAGES = (1, 2, 3, 4)
EXPANSION = 2


def convert(source: Path) -> Converted:
    """Reads a .pth; ValueError names the file and what does not fit."""
    fields, arrays, unused = convert_state(open_checkpoint(source), str(source))
    return Converted('resnext3d', fields, arrays, unused, origin=names.origin_of(source))


def convert_state(
    tensors: Mapping[str, np.ndarray], source: str = 'the state dict'
) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[str, ...]]:
    """(fields of the encoder, {'params/...': array}, tensors left over) of a state dict."""
    tensors = names.Renamed(tensors)
    fields = read_fields(tensors, source)
    arrays, unused = names.apply_rules(tensors, rules(**fields), source=source, unused=UNUSED)
    return fields, arrays, unused


def read_fields(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Depth and widths by the names and shapes of the tensors; ValueError where it is no ResNeXt of four stages."""
    counts = [_count(tensors, stage) for stage in STAGES]
    needed = ['conv1.weight', 'layer1.0.conv2.weight', *(f'layer{stage}.0.conv3.weight' for stage in STAGES)]
    missing = [name for name in needed if name not in tensors]
    if missing or not all(counts):
        raise ValueError(
            f'{source} lacks {missing[0] if missing else "a stage"}: it is no 3-D ResNeXt with bottlenecks in four '
            f'stages; it begins with {", ".join(list(tensors)[:3])}'
        )
    shapes = [tensors[name].shape for name in needed]
    faults = [
        f'{name} has shape {shape}, expected five axes'
        for name, shape in zip(needed, shapes, strict=True)
        if len(shape) != 5 or 0 in shape
    ]
    if faults:
        raise ValueError(f'{source} is no 3-D ResNeXt: {faults[0]}')
    (stem, *_), (middle, width, *_), *last = shapes
    if middle % width:
        raise ValueError(f'{source} is no 3-D ResNeXt: {width} channels a group do not divide {middle}')
    return {
        'block_counts': tuple(counts),
        'cardinality': middle // width,
        'planes': tuple(shape[0] // EXPANSION for shape in last),
        'stem_features': stem,
    }


def rules(block_counts: Sequence[int], cardinality: int, planes: Sequence[int], stem_features: int) -> list[Rule]:
    """Every parameter of the network with these fields of ResNeXt3D."""
    made = names.conv('conv1', 'conv1', (stem_features, 3, 7, 7, 7)) + names.batch_norm(
        'norm1/norm', 'bn1', stem_features
    )
    channels = stem_features
    for stage, count, width in zip(STAGES, block_counts, planes, strict=True):
        for number in range(count):
            ours, original = f'blocks{stage}_{number}', f'layer{stage}.{number}'
            made += block(ours, original, channels, width, cardinality, strided=stage > 1 and number == 0)
            channels = width * EXPANSION
    return made


def block(ours: str, original: str, channels: int, planes: int, cardinality: int, *, strided: bool) -> list[Rule]:
    """Rules of one bottleneck with `channels` channels of input; one that changes the shape has a shortcut."""
    middle, out = cardinality * (planes // 32), planes * EXPANSION
    shapes = ((middle, channels, 1, 1, 1), (middle, middle // cardinality, 3, 3, 3), (out, middle, 1, 1, 1))
    made: list[Rule] = []
    for layer, shape in enumerate(shapes, start=1):
        made += names.conv(f'{ours}/conv{layer}', f'{original}.conv{layer}', shape)
        made += names.batch_norm(f'{ours}/norm{layer}/norm', f'{original}.bn{layer}', shape[0])
    if strided or channels != out:
        made += names.conv(f'{ours}/shortcut', f'{original}.downsample.0', (out, channels, 1, 1, 1))
        made += names.batch_norm(f'{ours}/shortcut_norm/norm', f'{original}.downsample.1', out)
    return made


def _count(tensors: Mapping[str, np.ndarray], stage: int) -> int:
    found = [re.match(rf'layer{stage}\.(\d+)\.', name) for name in tensors]
    return len({match[1] for match in found if match})
