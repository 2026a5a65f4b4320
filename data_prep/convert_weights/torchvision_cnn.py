"""torchvision's ResNet-18, GoogLeNet and VGG-16 -> `resnet18`, `googlenet`, `vgg16`.

Files such as resnet18-f37072fd.pth, googlenet-1378be20.pth and vgg16-397923af.pth: state dicts, bare or within
another dictionary, with or without the 'module.' of DataParallel. Depth and widths are read off the tensors, so that a
narrower network of the same kind fits too, and so is the number of channels of the pictures. The last layer (`fc`,
`classifier.6`) is left out: the head is the model's.

GoogLeNet's auxiliary heads are left out as well: in torchvision's file they were never trained. Its fields mean and
std are set to 0.5, for the network was trained on pictures in -1..1.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert_weights import names
from data_prep.convert_weights.names import Converted, Rule
from data_prep.convert_weights.torch_files import open_checkpoint

Tensors = Mapping[str, np.ndarray]
STAGES = (1, 2, 3, 4)
HEADS = {'resnet18': (r'^fc\.',), 'googlenet': (r'^fc\.', r'^aux[12]\.'), 'vgg16': (r'^classifier\.6\.',)}
# Widths of torchvision's GoogLeNet; a narrower one has all of them divided by one number.
STEM = (64, 64, 192)
INCEPTIONS = {
    '3a': (64, 96, 128, 16, 32, 32),
    '3b': (128, 128, 192, 32, 96, 64),
    '4a': (192, 96, 208, 16, 48, 64),
    '4b': (160, 112, 224, 24, 64, 64),
    '4c': (128, 128, 256, 24, 64, 64),
    '4d': (112, 144, 288, 32, 64, 64),
    '4e': (256, 160, 320, 32, 128, 128),
    '5a': (256, 160, 320, 32, 128, 128),
    '5b': (384, 192, 384, 48, 128, 128),
}
AUXILIARY = (('aux1', 'auxiliary1', '4a'), ('aux2', 'auxiliary2', '4d'))
# Positions of VGG-16's convolutions in torchvision's `features`, by block; ReLU and maxima lie between them.
VGG_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG_SIDE = 7
MEAN_OF_GOOGLENET = (0.5, 0.5, 0.5)


def convert(source: Path, family: str) -> Converted:
    """Reads a .pth of 'resnet18', 'googlenet' or 'vgg16'; ValueError names the file and what does not fit."""
    fields, arrays, unused = convert_state(open_checkpoint(source), family, str(source))
    return Converted(family, fields, arrays, unused, origin=names.origin_of(source))


resnet18 = functools.partial(convert, family='resnet18')
googlenet = functools.partial(convert, family='googlenet')
vgg16 = functools.partial(convert, family='vgg16')


def convert_state(
    tensors: Tensors, family: str, source: str = 'the state dict', *, auxiliary: bool = False
) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[str, ...]]:
    """(fields of the encoder, {'params/...': array}, tensors left over) of a state dict.

    auxiliary: GoogLeNet's auxiliary heads too, where someone has trained them.
    """
    tensors = names.Renamed(tensors)
    fields, rules = READERS[family](tensors, source)
    unused = HEADS[family]
    if auxiliary:
        outputs = _shape(tensors, 'aux1.fc2.weight', 2, source, 'GoogLeNet with auxiliary heads')[0]
        fields, unused = {**fields, 'auxiliary': outputs}, unused[:1]
        rules = rules + _auxiliary_rules(fields['divisor'], outputs)
    arrays, left = names.apply_rules(tensors, rules, source=source, unused=unused)
    return fields, arrays, left


def _shape(tensors: Tensors, name: str, axes: int, source: str, kind: str) -> tuple[int, ...]:
    if name not in tensors:
        raise ValueError(f'{source} lacks {name}: it is no {kind}; it begins with {", ".join(list(tensors)[:3])}')
    shape = tensors[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f'{source} is no {kind}: {name} has shape {shape}, expected {axes} axes')
    return shape


def _resnet18(tensors: Tensors, source: str) -> tuple[dict[str, Any], list[Rule]]:
    kind = 'ResNet of basic blocks in four stages'
    stem, channels, *_ = _shape(tensors, 'conv1.weight', 4, source, kind)
    planes = tuple(_shape(tensors, f'layer{stage}.0.conv1.weight', 4, source, kind)[0] for stage in STAGES)
    if 'layer1.0.conv3.weight' in tensors:
        raise ValueError(f'{source} has bottlenecks (layer1.0.conv3.weight): it is no {kind}, such as ResNet-18')
    counts = tuple(_count(tensors, stage) for stage in STAGES)
    rules = names.conv('conv1', 'conv1', (stem, channels, 7, 7)) + names.batch_norm('norm1/norm', 'bn1', stem)
    inputs = stem
    for stage, count, width in zip(STAGES, counts, planes, strict=True):
        for number in range(count):
            ours, original = f'blocks{stage}_{number}', f'layer{stage}.{number}'
            for layer, channels in ((1, inputs), (2, width)):
                rules += names.conv(f'{ours}/conv{layer}', f'{original}.conv{layer}', (width, channels, 3, 3))
                rules += names.batch_norm(f'{ours}/norm{layer}/norm', f'{original}.bn{layer}', width)
            if inputs != width or (stage > 1 and number == 0):
                rules += names.conv(f'{ours}/shortcut', f'{original}.downsample.0', (width, inputs, 1, 1))
                rules += names.batch_norm(f'{ours}/shortcut_norm/norm', f'{original}.downsample.1', width)
            inputs = width
    return {'block_counts': counts, 'planes': planes, 'stem_features': stem}, rules


def _count(tensors: Tensors, stage: int) -> int:
    found = [re.match(rf'layer{stage}\.(\d+)\.', name) for name in tensors]
    return len({match[1] for match in found if match})


def _googlenet(tensors: Tensors, source: str) -> tuple[dict[str, Any], list[Rule]]:
    first, channels, *_ = _shape(tensors, 'conv1.conv.weight', 4, source, 'GoogLeNet with batch norm')
    divisor = STEM[0] // first
    if STEM[0] % first or 8 % divisor:
        raise ValueError(f'{source}: the first convolution has {first} channels, expected 64, 32, 16 or 8 of GoogLeNet')
    one, two, three = (size // divisor for size in STEM)
    rules = _normed('conv1', 'conv1', (one, channels, 7, 7)) + _normed('conv2', 'conv2', (two, one, 1, 1))
    rules += _normed('conv3', 'conv3', (three, two, 3, 3))
    inputs = three
    for name, sizes in INCEPTIONS.items():
        point, reduce3, conv3, reduce5, conv5, pooled = (size // divisor for size in sizes)
        ours, original = f'inception_{name}', f'inception{name}'
        for branch, place, shape in (
            ('branch1', 'branch1', (point, inputs, 1, 1)),
            ('branch2_reduce', 'branch2.0', (reduce3, inputs, 1, 1)),
            ('branch2', 'branch2.1', (conv3, reduce3, 3, 3)),
            ('branch3_reduce', 'branch3.0', (reduce5, inputs, 1, 1)),
            ('branch3', 'branch3.1', (conv5, reduce5, 3, 3)),
            ('branch4', 'branch4.1', (pooled, inputs, 1, 1)),
        ):
            rules += _normed(f'{ours}/{branch}', f'{original}.{place}', shape)
        inputs = point + conv3 + conv5 + pooled
    return {'divisor': divisor, 'mean': MEAN_OF_GOOGLENET, 'std': MEAN_OF_GOOGLENET}, rules


def _normed(ours: str, original: str, shape: names.Shape) -> list[Rule]:
    rules = names.conv(f'{ours}/conv', f'{original}.conv', shape)
    return rules + names.batch_norm(f'{ours}/norm/norm', f'{original}.bn', shape[0])


def _auxiliary_rules(divisor: int, outputs: int) -> list[Rule]:
    rules, (features, hidden) = [], (128 // divisor, 1024 // divisor)
    for original, ours, block in AUXILIARY:
        point, _, conv3, _, conv5, pooled = INCEPTIONS[block]
        inputs = (point + conv3 + conv5 + pooled) // divisor
        rules += _normed(f'{ours}/conv', f'{original}.conv', (features, inputs, 1, 1))
        rules += names.dense(f'{ours}/dense1', f'{original}.fc1', (hidden, features * 16))
        rules += names.dense(f'{ours}/dense2', f'{original}.fc2', (outputs, hidden))
    return rules


def _vgg16(tensors: Tensors, source: str) -> tuple[dict[str, Any], list[Rule]]:
    kind = 'VGG-16 without batch norm'
    channels = _shape(tensors, 'features.0.weight', 4, source, kind)[1]
    planes = tuple(_shape(tensors, f'features.{block[0]}.weight', 4, source, kind)[0] for block in VGG_BLOCKS)
    hidden = _shape(tensors, 'classifier.0.weight', 2, source, kind)[0]
    rules: list[Rule] = []
    for stage, (block, width) in enumerate(zip(VGG_BLOCKS, planes, strict=True)):
        for number, position in enumerate(block):
            shape = (width, channels, 3, 3)
            rules += names.conv(f'blocks{stage}_{number}', f'features.{position}', shape, bias=True)
            channels = width
    rules += names.dense('dense1', 'classifier.0', (hidden, planes[-1] * VGG_SIDE**2))
    rules += names.dense('dense2', 'classifier.3', (hidden, hidden))
    return {'planes': planes, 'hidden_size': hidden}, rules


# By family: (tensors, name of their file) -> (fields of the encoder, rules of its parameters).
READERS: dict[str, Callable[[Tensors, str], tuple[dict[str, Any], list[Rule]]]] = {
    'resnet18': _resnet18,
    'googlenet': _googlenet,
    'vgg16': _vgg16,
}
