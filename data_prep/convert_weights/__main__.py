"""Weights of other libraries -> a folder that `config.pretrained` names.

    python -m data_prep.convert_weights resnext3d --source resnext-50-kinetics.pth --output resnext3d-kinetics
    python -m data_prep.convert_weights huggingface --source bert-base-uncased --output bert-base
    python -m data_prep.convert_weights huggingface --source bert-base-uncased --output bert-base --check

The last compares what was converted with the original: family, fields of the encoder, tensor by tensor, and, of the
transformers, the pooled output of a random batch with what the original's classifier makes of the same states.

--output is a name below $MMER_PRETRAINED, or a folder ('./weights/mine'). It will hold params.safetensors and
source.json: original file, SHA-256, revision, the fields of the encoder that the weights fit, what was left out, and
which settings of the original nothing here stands for; and sums.json, with which a folder that was changed is refused.
A classifier's last layer becomes head.safetensors, its labels stand in source.json; `mmer_jax.predict --pretrained` and
`mmer_jax.evaluate --pretrained` take it as it is.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from flax import traverse_util

from data_prep.convert_weights import huggingface, huggingface_check, i3d, resnext3d, torchvision_cnn
from data_prep.convert_weights.names import Converted, differences
from mmer_jax.pretrained import find, listed, load_pretrained, save_pretrained
from mmer_jax.settings import command

# By name: reads a file or a folder of weights.
FAMILIES: dict[str, Callable[[Path], Converted]] = {
    'googlenet': torchvision_cnn.googlenet,
    'huggingface': huggingface.convert,
    'i3d': i3d.convert,
    'resnet18': torchvision_cnn.resnet18,
    'resnext3d': resnext3d.convert,
    'vgg16': torchvision_cnn.vgg16,
}
SHOWN = 8  # names in a line


def folder_of(output: str) -> Path:
    """A bare name lies below $MMER_PRETRAINED, anything with a slash is a folder; ValueError where neither can be."""
    if Path(output).name != output:
        return Path(output)
    root = os.environ.get('MMER_PRETRAINED')
    if not root:
        raise ValueError(
            f'MMER_PRETRAINED is not set, so the name {output!r} has no place: set it to the folder of converted '
            f'weights, or give a folder such as ./{output}'
        )
    return Path(root) / output


def write(converted: Converted, folder: Path, revision: str = '', beside: Sequence[Path] = ()) -> Path:
    """Writes the folder whole or not at all, with the files beside. FileExistsError where it exists."""
    source = {
        'family': converted.family,
        'fields': dict(converted.fields),
        'tool': 'data_prep.convert_weights',
        'dtype': 'float32',
        'revision': '',
        **converted.origin,
        'unused': list(converted.unused),
        'fresh': list(converted.fresh),
        'not_read': list(converted.not_read),
    }
    if revision:
        source['revision'] = revision
    return save_pretrained(folder, converted.arrays, source, converted.head, beside)


def check(family: str, source: Path, folder: Path) -> int:
    """Compares converted weights with their original; the exit status, the differences on stderr."""
    if family == 'huggingface':
        faults, report = huggingface_check.verify(folder, source)
    else:
        original = FAMILIES[family](source)
        wanted, (loaded, written) = original.arrays, load_pretrained(folder)
        found = traverse_util.flatten_dict(loaded, sep='/')
        faults = differences(written, original.family, original.fields)
        faults += [f'{name} is in one of them only' for name in sorted(wanted.keys() ^ found.keys())]
        same = sorted(wanted.keys() & found.keys())
        faults += [f'{name} differs' for name in same if not np.array_equal(wanted[name], found[name])]
        report = [f'{len(original.fields)} fields and {len(same)} arrays, value by value']
        report.append(f'left out of the original: {listed(original.unused, SHOWN, ", ") or "none"}')
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f'{folder}: ' + (f'{len(faults)} differences from {source}' if faults else f'equal to {source}'))
    for line in () if faults else report:
        print(f'  {line}')
    return 1 if faults else 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.convert_weights', description='Converts weights of other libraries.'
    )
    parser.add_argument('family', choices=FAMILIES)
    parser.add_argument('--source', type=Path, required=True, help='file or folder of the original weights')
    parser.add_argument('--output', required=True, help='name below $MMER_PRETRAINED, or a folder')
    parser.add_argument('--revision', default='', help='where the file comes from (a commit, a version), if known')
    parser.add_argument('--check', action='store_true', help='compare --output, converted before, with the original')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments.output)
    if arguments.check:
        return check(arguments.family, arguments.source, find(arguments.output))
    if folder.exists():
        raise FileExistsError(f'{folder} exists; remove it, or give another name')
    converted = FAMILIES[arguments.family](arguments.source)
    beside = huggingface.beside(arguments.source) if arguments.family == 'huggingface' else ()
    write(converted, folder, arguments.revision, beside)
    parameters = sum(array.size for name, array in converted.arrays.items() if name.startswith('params/'))
    print(f'{folder}: {len(converted.arrays)} arrays, {parameters:,} parameters of {converted.family}')
    print('  fields: ' + ', '.join(f'{name}={value}' for name, value in converted.fields.items()))
    if converted.head:
        print(f'  head: {converted.head.problem} of {listed(converted.head.labels, SHOWN, ", ")}')
    print(f'  left out of the original: {listed(converted.unused, SHOWN, ", ") or "none"}')
    print(f'  stays at its initialisation: {listed(converted.fresh, SHOWN, ", ") or "none"}')
    if converted.not_read:
        print(f'  not read, and may change what the original computes: {listed(converted.not_read, SHOWN)}')
    return command.OK


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where --check finds differences."""
    return command.run(work, parse_arguments(argv), mistakes=(ValueError, OSError))


if __name__ == '__main__':
    sys.exit(main())
