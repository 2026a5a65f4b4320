"""The public PyTorch I3D of Kinetics -> `i3d`.

Files such as rgb_imagenet.pt and rgb_charades.pt: a bare state dict (Conv3d_1a_7x7.conv3d.weight, Mixed_3b.b0.bn.bias,
...), in either format of torch, with or without the 'module.' of DataParallel. The last layer, `logits`, is left out:
the head is the model's. The network expects pictures in -1..1, which is the encoder's default.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert_weights import names
from data_prep.convert_weights.names import Converted, Rule
from data_prep.convert_weights.torch_files import open_checkpoint
from data_prep.convert_weights.torchvision_cnn import INCEPTIONS, STEM

UNUSED = (r'^logits\.',)
# GoogLeNet's blocks inflated, each under the name of the next letter.
MIXED = dict(zip(('3b', '3c', '4b', '4c', '4d', '4e', '4f', '5b', '5c'), INCEPTIONS.values(), strict=True))
DIVISORS = (1, 2, 4, 8)
FIRST = 'Conv3d_1a_7x7.conv3d.weight'


def convert(source: Path) -> Converted:
    """Reads a .pt; ValueError names the file and what does not fit."""
    fields, arrays, unused = convert_state(open_checkpoint(source), str(source))
    return Converted('i3d', fields, arrays, unused, origin=names.origin_of(source))


def convert_state(
    tensors: Mapping[str, np.ndarray], source: str = 'the state dict'
) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[str, ...]]:
    """(fields of the encoder, {'params/...': array}, tensors left over) of a state dict."""
    tensors = names.Renamed(tensors)
    if FIRST not in tensors:
        raise ValueError(f'{source} lacks {FIRST}: it is no I3D; it begins with {", ".join(list(tensors)[:3])}')
    shape = tensors[FIRST].shape
    if len(shape) != 5 or 0 in shape:
        raise ValueError(f'{source} is no I3D: {FIRST} has shape {shape}, expected five axes')
    widths = {STEM[0] // divisor: divisor for divisor in DIVISORS}
    if shape[0] not in widths:
        raise ValueError(f'{source}: {FIRST} has {shape[0]} features, expected one of {", ".join(map(str, widths))}')
    fields = {'divisor': widths[shape[0]]}
    arrays, unused = names.apply_rules(tensors, rules(shape[1], **fields), source=source, unused=UNUSED)
    return fields, arrays, unused


def rules(channels: int, divisor: int) -> list[Rule]:
    """Every parameter of the network on pictures of so many channels (3 of RGB)."""
    first, second, third = (size // divisor for size in STEM)
    made = unit('conv1a', 'Conv3d_1a_7x7', (first, channels, 7, 7, 7))
    made += unit('conv2b', 'Conv3d_2b_1x1', (second, first, 1, 1, 1))
    made += unit('conv2c', 'Conv3d_2c_3x3', (third, second, 3, 3, 3))
    inputs = third
    for name, sizes in MIXED.items():
        point, reduce1, conv1, reduce2, conv2, pooled = (size // divisor for size in sizes)
        for ours, original, shape in (
            ('branch0', 'b0', (point, inputs, 1, 1, 1)),
            ('branch1_reduce', 'b1a', (reduce1, inputs, 1, 1, 1)),
            ('branch1', 'b1b', (conv1, reduce1, 3, 3, 3)),
            ('branch2_reduce', 'b2a', (reduce2, inputs, 1, 1, 1)),
            ('branch2', 'b2b', (conv2, reduce2, 3, 3, 3)),
            ('branch3', 'b3b', (pooled, inputs, 1, 1, 1)),
        ):
            made += unit(f'mixed_{name}/{ours}', f'Mixed_{name}.{original}', shape)
        inputs = point + conv1 + conv2 + pooled
    return made


def unit(ours: str, original: str, shape: names.Shape) -> list[Rule]:
    """Rules of a convolution with its batch norm; `shape` is that of PyTorch's kernel."""
    made = names.conv(f'{ours}/conv', f'{original}.conv3d', shape)
    return made + names.batch_norm(f'{ours}/norm/norm', f'{original}.bn', shape[0])
