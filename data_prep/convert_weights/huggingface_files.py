"""The tensors of a Hugging Face folder: model.safetensors, shards with an index, or pytorch_model.bin, read lazily."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401  numpy knows bfloat16 then, which safetensors may hold
import numpy as np
from safetensors import SafetensorError, safe_open

from data_prep.convert_weights.huggingface_settings import read_json
from mmer_jax.media.download import check_download

WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')
FLOATS = ('F64', 'F32', 'F16', 'BF16', 'float64', 'float32', 'float16', 'bfloat16')
Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """One tensor on disk: its file, shape, type of number (as the file's format calls it), and how to read it."""

    path: Path
    shape: Shape
    dtype: str
    read: Callable[[], np.ndarray]


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a folder by original name, read when asked for; old spellings of names are brought up to date."""

    def __init__(self, folder: Path):
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f'{folder} is {"a file" if folder.exists() else "missing"}, expected a folder of weights')
        present = [name for name in WEIGHTS if (folder / name).is_file()]
        if not present:
            raise ValueError(f'{folder} has no weights: expected one of {", ".join(WEIGHTS)}')
        names = [present[0]]
        if names[0].endswith('.index.json'):
            names = _shards(folder / names[0])
        self.files = tuple(folder / name for name in names)
        self.on_disk: dict[str, Tensor] = {}
        for path in self.files:
            self.on_disk |= _open(path)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.on_disk[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self.on_disk  # the inherited one would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.on_disk)

    def __len__(self) -> int:
        return len(self.on_disk)


def _shards(index: Path) -> list[str]:
    """The files that an index names, all there."""
    places = read_json(index).get('weight_map')
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f'{index} has weight_map = {str(places)[:60]}, expected the file of each tensor by name')
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name or name in ('', '.', '..')]
    if outside:
        raise ValueError(
            f'{index} names {outside[0][:100]!r}, expected files of its own folder; nothing of it was read'
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(f'{index} names {", ".join(missing)}, absent from {index.parent}; download the shards too')
    return names


def _open(path: Path) -> dict[str, Tensor]:
    if path.suffix != '.safetensors':
        from data_prep.convert_weights.torch_files import open_checkpoint

        state = open_checkpoint(path)
        reads = {key: functools.partial(state.__getitem__, key) for key in state}
        return {_modern(key): Tensor(path, state.shape(key), str(state.dtype(key)), reads[key]) for key in state}
    check_download(path, 'weights in the format of safetensors')
    try:
        file = safe_open(path, framework='np')
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path} is damaged, or no safetensors file: {error}; download it again') from error
    return {
        _modern(key): Tensor(path, tuple(s.get_shape()), s.get_dtype(), functools.partial(file.get_tensor, key))
        for key, s in slices.items()
    }


def _modern(name: str) -> str:
    """Checkpoints converted from TensorFlow call the two parameters of LayerNorm gamma and beta."""
    return re.sub(r'LayerNorm\.(gamma|beta)$', lambda m: f'LayerNorm.{"weight" if m[1] == "gamma" else "bias"}', name)
