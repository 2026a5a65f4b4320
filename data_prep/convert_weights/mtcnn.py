"""The weights of MTCNN that facenet-pytorch carries -> params.safetensors, without torch.

    pip download --no-deps facenet-pytorch
    python -m data_prep.convert_weights.mtcnn --source facenet_pytorch-2.6.0-py3-none-any.whl

--source is the wheel, or a folder with pnet.pt, rnet.pt and onet.pt (its facenet_pytorch/data). The result goes to
$MMER_PRETRAINED/mtcnn, or --output. facenet-pytorch is under the MIT licence.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmer_jax.media import mtcnn
from mmer_jax.pretrained import save_pretrained
from mmer_jax.settings import command

FILES = ('pnet', 'rnet', 'onet')


def convert_network(state: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """A network's state dict of torch -> {'pnet/conv1/kernel': ...}, checked against the parameters of ours.

    ValueError names what is missing, left over or of another shape.
    """
    converted = {}
    for key, array in state.items():
        layer, _, kind = key.rpartition('.')
        array = np.asarray(array, np.float32)
        if kind == 'weight' and layer.startswith('prelu'):
            kind = 'alpha'
        elif kind == 'weight':
            kind, array = 'kernel', array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        converted[f'{name}/{layer}/{kind}'] = np.ascontiguousarray(array)
    expected = {key: shape for key, shape in mtcnn.flat_shapes().items() if key.startswith(f'{name}/')}
    faults = [f'{key} is missing' for key in expected if key not in converted]
    faults += [f'{key} is not known' for key in converted if key not in expected]
    faults += [
        f'{key} has shape {converted[key].shape}, expected {shape}'
        for key, shape in expected.items()
        if key in converted and converted[key].shape != shape
    ]
    if faults:
        raise ValueError(f'{name}.pt does not hold the {name} of MTCNN: ' + '; '.join(faults))
    return converted


def convert(source: Path, output: Path) -> dict[str, np.ndarray]:
    """Reads the three files, writes output/params.safetensors and output/source.json; returns the parameters."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = _unpack(source, Path(temporary)) if source.is_file() else source
        missing = [f'{name}.pt' for name in FILES if not (folder / f'{name}.pt').is_file()]
        if missing:
            raise ValueError(
                f'{source} lacks {", ".join(missing)}; expected facenet-pytorch or the folder of its weights'
            )
        from data_prep.convert_weights.torch_files import load

        params: dict[str, np.ndarray] = {}
        hashes = {}
        for name in FILES:
            path = folder / f'{name}.pt'
            params |= convert_network(load(path), name)
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {'made_by': 'data_prep.convert_weights.mtcnn', 'source': source.name, 'sha256': hashes, 'license': 'MIT'}
    save_pretrained(output, params, facts)
    return params


def _unpack(wheel: Path, folder: Path) -> Path:
    """The three files of a wheel, in a folder."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.namelist():
                if Path(entry).name in {f'{name}.pt' for name in FILES}:
                    (folder / Path(entry).name).write_bytes(archive.read(entry))
    except zipfile.BadZipFile as error:
        raise ValueError(f'{wheel} is neither a wheel nor a folder') from error
    return folder


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.convert_weights.mtcnn', description='Converts the weights of MTCNN.'
    )
    parser.add_argument('--source', type=Path, required=True, help="facenet-pytorch's wheel, or its folder of weights")
    parser.add_argument('--output', type=Path, help='folder to write; by default $MMER_PRETRAINED/mtcnn')
    arguments = parser.parse_args(argv)
    root = os.environ.get('MMER_PRETRAINED')
    if arguments.output is None and not root:
        parser.error('give --output, or set MMER_PRETRAINED to the folder of converted weights')
    arguments.output = arguments.output or Path(str(root)) / 'mtcnn'
    return arguments


def work(arguments: argparse.Namespace) -> None:
    params = convert(arguments.source, arguments.output)
    print(f'{arguments.output}: {len(params)} arrays, {sum(array.size for array in params.values()):,} parameters')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv), mistakes=(ValueError, OSError))


if __name__ == '__main__':
    sys.exit(main())
