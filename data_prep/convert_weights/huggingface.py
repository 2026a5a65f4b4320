"""A Hugging Face folder (config.json and weights) -> an encoder's fields and parameters; torch is not needed.

BERT, RoBERTa, DistilBERT, wav2vec 2.0, HuBERT, ViT, AST and VideoMAE; model.safetensors, shards with an index, or
pytorch_model.bin through the restricted reader. Strict both ways: a parameter that the folder lacks is an error or is
named as fresh, a tensor that no parameter takes (heads, decoders) is named as unused. Tensors are read one at a time.
The weight normalisation of the speech models' positions is kept as its two parameters, not multiplied out.
"""

import dataclasses
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows bfloat16 then, which safetensors may hold
import numpy as np
from safetensors import SafetensorError, safe_open

from data_prep.convert_weights import names
from data_prep.convert_weights.huggingface_names import FAMILIES, Family

WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')
BESIDE = (
    'config.json',
    'vocab.txt',
    'tokenizer.json',
    'merges.txt',
    'vocab.json',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'preprocessor_config.json',
)
BUFFERS = ('embeddings.position_ids', 'embeddings.token_type_ids')  # counters that old checkpoints hold
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a folder becomes, before any tensor is read.

    family: a name of ENCODERS; taken: our name -> original name; fresh: our names that stay at their initialisation;
    unused: original names that no parameter takes; model_type: that of config.json.
    """

    family: str
    fields: dict[str, Any]
    taken: dict[str, str]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    model_type: str


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a folder by original name, read when asked for; old spellings of names are brought up to date."""

    def __init__(self, folder: Path):
        present = [name for name in WEIGHTS if (folder / name).is_file()]
        if not present:
            raise ValueError(f'{folder} has no weights: expected one of {", ".join(WEIGHTS)}')
        self.weights = present[0]
        files = [self.weights]
        if self.weights.endswith('.index.json'):
            files = sorted(set(read_json(folder / self.weights).get('weight_map', {}).values()))
            missing = [name for name in files if not (folder / name).is_file()]
            if missing or not files:
                raise ValueError(
                    f'{folder / self.weights} names {", ".join(missing) or "no file"}, absent from {folder}'
                )
        self.files = tuple(folder / name for name in files)
        self._readers: dict[str, Callable[[], np.ndarray]] = {}
        for path in self.files:
            self._readers |= _readers(path)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers  # the inherited one would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _readers(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    if path.suffix == '.safetensors':
        try:
            file = safe_open(path, framework='np')
        except (SafetensorError, OSError) as error:
            raise ValueError(f'{path} is damaged, or no safetensors file: {error}; download it again') from error
        return {_modern(key): functools.partial(file.get_tensor, key) for key in file.keys()}  # noqa: SIM118
    from data_prep.convert_weights.torch_files import open_checkpoint

    state = open_checkpoint(path)
    return {_modern(key): functools.partial(state.__getitem__, key) for key in state}


def _modern(name: str) -> str:
    """Checkpoints converted from TensorFlow call the two parameters of LayerNorm gamma and beta."""
    return re.sub(r'LayerNorm\.(gamma|beta)$', lambda m: f'LayerNorm.{"weight" if m[1] == "gamma" else "bias"}', name)


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as JSON: {error}') from error


def plan(folder: Path, tensors: Mapping[str, Any] | None = None) -> Plan:
    """Matches config.json and the names of the weights; ValueError names the file and what does not fit."""
    folder = Path(folder)
    tensors = Tensors(folder) if tensors is None else tensors
    config = read_json(folder / 'config.json')
    kind = config.get('model_type')
    if kind not in FAMILIES:
        raise ValueError(f'{folder}/config.json has model_type {kind!r}; the known ones are {", ".join(FAMILIES)}')
    preprocessor = folder / 'preprocessor_config.json'
    family = FAMILIES[kind]
    try:
        fields = family.fields(config, read_json(preprocessor) if preprocessor.is_file() else {})
    except ValueError as error:
        raise ValueError(f'{folder}: {error}') from error
    prefix = _prefix(folder, family, tensors)
    taken: dict[str, str] = {}
    fresh, missing = [], []
    for ours, originals, optional in family.rules(fields):
        for layer in range(fields['num_layers']) if '{n}' in ours else (0,):
            choices = (originals,) if isinstance(originals, str) else originals
            wanted = [original.format(p=prefix, n=layer) for original in choices]
            found = [name for name in wanted if name in tensors]
            if found:
                taken[ours.format(n=layer)] = found[0]
            elif optional == 'fresh':
                fresh.append(ours.format(n=layer))
            elif not optional:
                missing.append(wanted[0])
    if missing:
        raise ValueError(
            f'{folder} lacks {len(missing)} tensors that config.json asks for, such as {missing[0]}: '
            'the weights and config.json do not belong together, or a shard is missing'
        )
    used = set(taken.values())
    unused = tuple(sorted(name for name in tensors if name not in used and not name.endswith(BUFFERS)))
    if 'projector/bias' in taken:
        fields['projector'] = len(tensors[taken['projector/bias']])
    return Plan(family.name, fields, taken, tuple(fresh), unused, kind)


def _prefix(folder: Path, family: Family, tensors: Mapping[str, Any]) -> str:
    for prefix in (family.prefix, ''):
        if prefix + family.anchor in tensors:
            return prefix
    raise ValueError(
        f'{folder} has neither {family.prefix}{family.anchor} nor {family.anchor}: its weights are not those of '
        f'a {family.name} model; it begins with {", ".join(sorted(tensors)[:3])}'
    )


def to_ours(name: str, array: np.ndarray) -> np.ndarray:
    """A tensor in the order of our parameter, float32; the normalised convolution's two parameters too."""
    if name.endswith('/direction'):
        return names.to_ours(f'{name}/kernel', array)
    return names.to_ours(name, array.reshape(-1) if name.endswith('/magnitude') else array)


def to_original(name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    """The inverse of `to_ours`; `shape` is the original's. ValueError where it cannot have that shape."""
    if name.endswith(('/kernel', '/direction')):
        array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    elif name.endswith('/magnitude'):
        array = array.reshape(1, 1, -1)
    if array.shape != shape:
        raise ValueError(f'{name} has shape {array.shape} in the order of the original, expected {shape}')
    return array


def convert(folder: Path) -> names.Converted:
    """The encoder of a folder; ValueError says what does not fit."""
    folder = Path(folder)
    tensors = Tensors(folder)
    made = plan(folder, tensors)
    arrays = {f'params/{ours}': to_ours(ours, tensors[original]) for ours, original in made.taken.items()}
    fresh = tuple(f'params/{name}' for name in made.fresh)
    return names.Converted(made.family, made.fields, arrays, made.unused, fresh, source_of(folder))


def verify(converted: Path, folder: Path) -> list[str]:
    """What differs between a folder of converted weights and the original, tensor by tensor; empty: nothing."""
    tensors = Tensors(Path(folder))
    made = plan(Path(folder), tensors)
    faults = []
    with safe_open(Path(converted) / 'params.safetensors', framework='np') as file:
        stored = {name.removeprefix('params/'): name for name in file.keys()}  # noqa: SIM118
        faults += [f'{name} is converted, but the original has no such tensor' for name in stored.keys() - made.taken]
        for ours, original in made.taken.items():
            if ours not in stored:
                faults.append(f'{ours} is missing; it should hold {original}')
                continue
            wanted = tensors[original]
            try:
                found = to_original(ours, file.get_tensor(stored[ours]), wanted.shape)
            except ValueError as error:
                faults.append(f'{error} ({original})')
                continue
            different = int((found != wanted.astype(np.float32)).sum())
            if different:
                faults.append(f'{ours} differs from {original} in {different} of {wanted.size} values')
    return sorted(faults)


def source_of(folder: Path) -> dict[str, Any]:
    """What source.json says of the origin: name, revision where the folder tells it, sha256 of each file of weights."""
    folder = Path(folder)
    config, tensors = read_json(folder / 'config.json'), Tensors(folder)
    snapshot = folder.resolve().parent.name == 'snapshots'  # the cache of huggingface_hub: .../snapshots/<revision>
    return {
        'source': config.get('_name_or_path') or folder.resolve().name,
        'revision': config.get('_commit_hash') or (folder.resolve().name if snapshot else ''),
        'architecture': ', '.join(config.get('architectures') or ()),
        'sha256': {path.name: file_hash(path) for path in (*tensors.files, folder / 'config.json')},
    }


def file_hash(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def copy_beside(folder: Path, converted: Path) -> list[str]:
    """Copies the files of tokenizer and preprocessing to the converted weights; their names."""
    present = [name for name in BESIDE if (Path(folder) / name).is_file()]
    for name in present:
        shutil.copyfile(Path(folder) / name, Path(converted) / name)
    return present
