"""A Hugging Face folder (config.json and weights) -> an encoder's fields and parameters; torch is not needed.

BERT, RoBERTa, DistilBERT, wav2vec 2.0, HuBERT, ViT, AST and VideoMAE, and those that differ from them by name only
(XLM-R, CamemBERT, data2vec of text, UniSpeech, UniSpeech-SAT), with the head of a classifier; model.safetensors, shards
with an index, or pytorch_model.bin through the restricted reader. Strict both ways: a parameter that the folder lacks
is an error or is named as fresh, a tensor that no parameter takes (decoders) is named as unused. Tensors are read
one at a time.
The weight normalisation of the speech models' positions is kept as its two parameters, not multiplied out.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert_weights import names
from data_prep.convert_weights.huggingface_files import FLOATS, Tensors
from data_prep.convert_weights.huggingface_heads import HeadPlan, find_head
from data_prep.convert_weights.huggingface_names import FAMILIES, Family
from data_prep.convert_weights.huggingface_settings import (
    INPUT_WITHOUT_EFFECT,
    WITHOUT_EFFECT,
    Settings,
    read_json,
    read_settings,
)
from data_prep.convert_weights.huggingface_shapes import original_shape, parameter_shapes
from mmer_jax import pretrained
from mmer_jax.media.download import check_download
from mmer_jax.pretrained import listed

BUFFERS = ('embeddings.position_ids', 'embeddings.token_type_ids')  # counters that old checkpoints hold
QUANTISED = ('quantization_config', 'compression_config')  # keys of config.json
SHOWN = 3  # names in an error
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a folder becomes, before any tensor is read.

    family: a name of ENCODERS; taken: our name -> original name; fresh: our names that stay at their initialisation;
    unused: original names that no parameter takes; not_read: settings of the folder that may change what the original
    computes, and that nothing here stands for; prefix: of the base model's names; head: the classifier's last layer.
    """

    family: str
    fields: dict[str, Any]
    taken: dict[str, str]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    not_read: tuple[str, ...]
    prefix: str
    head: HeadPlan | None = None


def plan(folder: Path, tensors: Tensors | None = None) -> Plan:
    """Matches config.json, names, shapes and types of the weights; ValueError names the file and what does not fit."""
    folder = Path(folder)
    tensors = Tensors(folder) if tensors is None else tensors
    config, preprocessor = read_settings(folder)
    family = _family(config)
    fields = family.fields(config, preprocessor)
    prefix = _prefix(folder, family, tensors)
    taken, fresh = _match(config, family, fields, prefix, tensors)
    _settle(config, family, fields, taken, tensors)
    head = find_head(config, family.name, taken.values(), tensors.on_disk)
    used = {*taken.values(), *(head.tensors.values() if head else ())}
    unused = tuple(sorted(name for name in tensors if name not in used and not name.endswith(BUFFERS)))
    _check_layers(config, fields, prefix, tensors, unused)
    if 'projector/bias' in taken:
        fields['projector'] = int(np.prod(tensors.on_disk[taken['projector/bias']].shape))
    elif 'projector/bias' in fresh:
        fields['projector'] = fields['hidden_size']
    _check_tensors(config, family, fields, taken, tensors)
    _check_head(fields, head, tensors)
    not_read = [f'{Path(config.file).name}: {item}' for item in config.not_read(WITHOUT_EFFECT)]
    not_read += [f'preprocessor: {item}' for item in preprocessor.not_read(INPUT_WITHOUT_EFFECT)]
    if (folder / 'modules.json').is_file():
        not_read.append("modules.json: the pooling of sentence-transformers; set the encoder's pooling and projector")
    return Plan(family.name, fields, taken, fresh, unused, tuple(not_read), prefix, head)


def _check_head(fields: Mapping[str, Any], head: HeadPlan | None, tensors: Tensors) -> None:
    """ValueError where the head does not read what the encoder's pooling gives, or is not of floating point."""
    for original in head.tensors.values() if head else ():
        path, found, dtype, _ = tensors.on_disk[original]
        if dtype not in FLOATS:
            raise ValueError(f'{path}: {original} holds {dtype}, expected floating point: the weights are quantised')
        width = fields.get('projector') or fields['hidden_size']
        if len(found) == 2 and found[1] != width:
            raise ValueError(f'{path}: {original} reads {found[1]} values, the pooling of the encoder gives {width}')


def _settle(config: Settings, family: Family, fields: dict[str, Any], taken: dict[str, str], tensors: Tensors) -> None:
    """Fields that the tensors decide, beside config.json; ValueError where the two contradict each other."""
    if fields.get('layer_sum') and 'layer_weights' not in taken:
        if any(name.startswith(('projector.', 'classifier.')) for name in tensors):
            raise ValueError(
                f'{config.file} has use_weighted_layer_sum, but the weights lack layer_weights: the classifier reads a '
                'sum over layers that is not known; download the weights again'
            )
        fields.pop('layer_sum')  # the base model, saved by itself, has no part in the sum
        fields.pop('layer_sum_norm', None)
    if taken.get('projector/kernel') == 'classifier.dense.weight' and family.name in ('wav2vec2', 'hubert'):
        fields['projector_activation'] = 'tanh'
    if any(name.startswith('tdnn.') for name in tensors):  # of speaker vectors: its projector leads to these layers
        for name in ('projector/kernel', 'projector/bias'):
            taken.pop(name, None)
    biased = sum(name.endswith('attention/key/bias') for name in taken)
    if family.name == 'videomae' and biased:
        if biased < fields['num_layers']:
            raise ValueError(
                f'{tensors.files[0].parent} has biases of the keys in {biased} of {fields["num_layers"]} layers, '
                'expected them in all or none: a shard is missing, or the weights are damaged'
            )
        fields['key_bias'] = True


def _family(config: Settings) -> Family:
    kind = config.get('model_type')
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f'{config.file} has model_type {kind!r}; the known ones are {", ".join(FAMILIES)}')
    config.demand('pruned_heads', {}, None)
    for key in QUANTISED:
        if config.get(key):
            raise ValueError(
                f'{config.file} has {key}: the weights are quantised, expected floating-point numbers; take the '
                'checkpoint that they were made from'
            )
    return FAMILIES[kind]


def _prefix(folder: Path, family: Family, tensors: Mapping[str, Any]) -> str:
    for prefix in (family.prefix, ''):
        if prefix + family.anchor in tensors:
            return prefix
    raise ValueError(
        f'{folder} has neither {family.prefix}{family.anchor} nor {family.anchor}: its weights are not those of '
        f'a {family.name} model; it begins with {", ".join(sorted(tensors)[:3])}'
    )


def _match(
    config: Settings, family: Family, fields: Mapping[str, Any], prefix: str, tensors: Tensors
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Plan.taken and Plan.fresh."""
    if fields['num_layers'] > len(tensors):  # before anything is made of each layer
        raise ValueError(
            f'{config.file} announces {fields["num_layers"]} layers, the weights hold {len(tensors)} tensors: they '
            'do not belong together, or config.json is damaged'
        )
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
            f'{tensors.files[0].parent} lacks {len(missing)} tensors that config.json asks for, such as {missing[0]}: '
            'the weights and config.json do not belong together, or a shard is missing'
        )
    return taken, tuple(fresh)


def _check_layers(
    config: Settings, fields: Mapping[str, Any], prefix: str, tensors: Tensors, unused: tuple[str, ...]
) -> None:
    """ValueError where a tensor of the encoder's layers would be dropped: the network would be another one."""
    for name in unused:
        match = re.match(rf'{re.escape(prefix)}(?:encoder|transformer)\.layers?\.(\d+)\.', name)
        if match and int(match[1]) >= fields['num_layers']:
            raise ValueError(
                f'{tensors.on_disk[name].path} holds {name}, but {config.file} has {fields["num_layers"]} layers: '
                'the weights and config.json do not belong together'
            )
        if match:
            raise ValueError(
                f'{tensors.on_disk[name].path} holds {name}, which the {config.get("model_type")} encoder does not '
                'have: the weights are quantised, or of a variant that is not known here'
            )


def _check_tensors(
    config: Settings, family: Family, fields: Mapping[str, Any], taken: Mapping[str, str], tensors: Tensors
) -> None:
    """ValueError where a tensor is not of floating point, or not of the shape that the encoder asks for."""
    shapes = parameter_shapes(family.name, fields, config.file)
    faults = []
    for ours, original in taken.items():
        path, found, dtype, _ = tensors.on_disk[original]
        if dtype not in FLOATS:
            raise ValueError(
                f'{path}: {original} holds {dtype}, expected floating point: the weights are quantised; take the '
                'checkpoint that they were made from'
            )
        wanted = original_shape(ours, shapes[ours])
        if found != wanted:
            faults.append(f'{path}: {original} has shape {found}, {config.file} asks for {wanted}')
    if faults:
        raise ValueError(
            f'{listed(faults, SHOWN)}. The weights and config.json do not belong together: download both from one place'
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
    """The encoder of a folder; ValueError says what does not fit, or which file beside the weights is no file."""
    folder = Path(folder)
    tensors = Tensors(folder)
    for path in beside(folder):
        check_download(path, 'a file of the tokenizer or preprocessor')
    made = plan(folder, tensors)
    arrays = {f'params/{ours}': _read(tensors, ours, original) for ours, original in made.taken.items()}
    fresh = tuple(f'params/{name}' for name in made.fresh)
    origin = source_of(folder, tensors.files)
    found = names.Converted(made.family, made.fields, arrays, made.unused, fresh, origin, made.not_read)
    return found if made.head is None else dataclasses.replace(found, head=read_head(made.head, tensors))


def read_head(head: HeadPlan, tensors: Tensors) -> pretrained.Head:
    """The head with its arrays, in the order of our dense layers."""
    arrays = {ours: _read(tensors, f'head/{ours}', original) for ours, original in head.tensors.items()}
    return pretrained.Head(arrays['kernel'], arrays['bias'], head.problem, head.labels)


def _read(tensors: Tensors, ours: str, original: str) -> np.ndarray:
    with np.errstate(over='ignore'):  # an overflow is named below
        array = to_ours(ours, tensors[original])
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f'{tensors.on_disk[original].path}: {original} has {array.size - int(finite.sum())} of {array.size} values '
            'that are not finite in float32; download the weights again'
        )
    return array


def source_of(folder: Path, weights: Sequence[Path]) -> dict[str, Any]:
    """What source.json says of the origin: name, revision where the folder tells it, sha256 of each file of weights."""
    config = read_json(folder / 'config.json')
    snapshot = folder.resolve().parent.name == 'snapshots'  # the cache of huggingface_hub: .../snapshots/<revision>
    return {
        'source': config.get('_name_or_path') or folder.resolve().name,
        'revision': config.get('_commit_hash') or (folder.resolve().name if snapshot else ''),
        'architecture': ', '.join(config.get('architectures') or ()),
        'sha256': {path.name: names.file_hash(path) for path in (*weights, folder / 'config.json')},
    }


def beside(folder: Path) -> list[Path]:
    """The files of tokenizer and preprocessing that lie beside the original weights."""
    return [Path(folder) / name for name in pretrained.BESIDE if (Path(folder) / name).is_file()]
