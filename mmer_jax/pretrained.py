"""Converted weights on disk, and putting loaded variables into a model's: strict on names and shapes.

A set of weights is a folder `$MMER_PRETRAINED/<name>` (or any folder): params.safetensors with names such as
`params/stage1/block0/conv1/kernel` and `batch_stats/...`, and source.json, which says where they come from: original
file, checksum, revision, family and the fields of the encoder they fit. data_prep.convert_weights writes them. Those of
a published classifier also have head.safetensors, its last layer; what this says is in source.json. sums.json has the
sums of all files, those of the tokenizer too: what is loaded is compared with them.
"""

import functools
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from mmer_jax.files import sums
from mmer_jax.files.atomic import making, remove_known

Tree = Any
PARAMS, SOURCE, HEAD = 'params.safetensors', 'source.json', 'head.safetensors'
# The tokenizer and the preprocessing of the original, copied beside its weights.
BESIDE = (
    'config.json', 'vocab.txt', 'tokenizer.json', 'merges.txt', 'vocab.json', 'tokenizer_config.json',
    'special_tokens_map.json', 'added_tokens.json', 'preprocessor_config.json', 'processor_config.json',
    'video_preprocessor_config.json',
)  # fmt: skip
PROBLEMS = ('single_label_classification', 'multi_label_classification', 'regression')  # transformers' problem_type
CONVERT = 'python -m data_prep.convert_weights writes such folders'
AGAIN = f'convert the weights again ({CONVERT})'
SHOWN = 5  # names in an error
OPTIONAL = 'projector'  # a layer behind an encoder's pooling, which a model may leave out
LAYER_SUM = 'layer_weights'  # the weights of an encoder's sum over layers
# What to set where an encoder has a part that its weights lack.
HINTS = {
    LAYER_SUM: 'set layer_sum=False for the last layer alone',
    'norm': 'set final_norm=False if the original has none',
    'pool_norm': 'set pool_norm=False to pool without it',
    OPTIONAL: f'set {OPTIONAL}=0 to do without it',
}
SUM_HINT = 'The weights were trained on the learnt sum of all layers: set layer_sum=True. '
WITH_PROJECTOR = ('bert', 'distilbert', 'roberta')  # families of which conversion always states its width


class Head(NamedTuple):
    """A classifier's last layer: outputs = pooled (B, D) @ kernel (D, C) + bias (C,), one for each label.

    problem: softmax over the outputs, sigmoid of each, or the outputs themselves (one of PROBLEMS).
    """

    kernel: np.ndarray
    bias: np.ndarray
    problem: str
    labels: tuple[str, ...]


def listed(items: Sequence[str], shown: int = SHOWN, separator: str = '; ') -> str:
    """The first items of many for an error, and how many there are beside them."""
    more = f' and {len(items) - shown} more' if len(items) > shown else ''
    return separator.join(items[:shown]) + more


def find(name: str | os.PathLike) -> Path:
    """The folder of a name below $MMER_PRETRAINED, or of a path; FileNotFoundError says where was looked."""
    root = os.environ.get('MMER_PRETRAINED', '')
    places = [Path(root) / name, Path(name)] if root else [Path(name)]
    for place in places:
        if (place / PARAMS).is_file():
            return place
    looked = ' and '.join(map(str, places))
    hint = '' if root else 'MMER_PRETRAINED is not set: it names the folder of converted weights; '
    raise FileNotFoundError(f'no {PARAMS} in {looked}; {hint}{CONVERT}')


def find_tokenizer(name: str | os.PathLike) -> Path:
    """As find, of weights whose tokenizer is read: ValueError where one of its files was changed."""
    folder = find(name)
    if entries := sums.read_sums(folder, AGAIN):
        sums.check(folder, [one for one in BESIDE if one in entries], AGAIN)
    return folder


def load_pretrained(name: str | os.PathLike) -> tuple[dict[str, Tree], dict[str, Any]]:
    """({'params': nested arrays, ...}, what source.json says). FileNotFoundError or ValueError names the file.

    Both are compared with sums.json; of a folder without one, as version 0.2 wrote it, a line says so.
    """
    folder = find(name)
    sums.check(folder, (PARAMS,), AGAIN)
    try:
        flat = load_file(folder / PARAMS)
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(folder / PARAMS, error) from error
    return traverse_util.unflatten_dict(flat, sep='/'), read_source(folder)


def load_head(name: str | os.PathLike) -> Head:
    """The head of a converted classifier. FileNotFoundError where the weights have none, ValueError where damaged."""
    folder, said = find(name), read_source(name).get('head')
    if said is None or not (folder / HEAD).is_file():
        raise FileNotFoundError(
            f'{folder} has no {HEAD}: the checkpoint is no classifier, or was converted by a version before 0.3; '
            f'take the weights of a classifier and convert them again ({CONVERT})'
        )
    sums.check(folder, (HEAD,), AGAIN)
    try:
        arrays = load_file(folder / HEAD)
        head = Head(arrays['kernel'], arrays['bias'], said['problem'], tuple(said['labels']))
    except (SafetensorError, ValueError, OSError, KeyError, TypeError) as error:
        raise _damaged(folder / HEAD, error) from error
    if head.kernel.shape[1:] != head.bias.shape or len(head.labels) != len(head.bias) or head.problem not in PROBLEMS:
        raise _damaged(
            folder / HEAD, f'{len(head.labels)} labels of {head.problem!r} for outputs of shape {head.bias.shape}'
        )
    return head


def open_params(name: str | os.PathLike) -> Any:
    """The file of the arrays, each read when it is asked for: safetensors' handle. ValueError where it is damaged."""
    folder = find(name)
    sums.check(folder, (PARAMS,), AGAIN)
    try:
        return safe_open(folder / PARAMS, framework='np')
    except (SafetensorError, OSError) as error:
        raise _damaged(folder / PARAMS, error) from error


def _damaged(path: Path, error: Exception | str) -> ValueError:
    return ValueError(f'{path} is damaged: {error}; {AGAIN}')


def fill_fields(model: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """config.model with the sizes of converted weights, {module path: name of the weights}, where it gives none.

    So any checkpoint of a family fits the config of one of them. ValueError where the encoder is of another family.
    """
    filled = dict(model)
    for path, name in names.items():
        first, _, rest = path.partition('/')
        if rest and isinstance(filled.get(first), Mapping):
            filled[first] = fill_fields(filled[first], {rest: name})
        elif not rest and isinstance(filled.get(first), Mapping):
            source, own = read_source(name), filled[first].get('name')
            if source.get('family', own) != own:
                raise ValueError(f'{name} holds weights of {source["family"]!r}, config.model.{path} is {own!r}')
            filled[first] = {**source.get('fields', {}), **filled[first]}
            if source.get('family') in WITH_PROJECTOR and OPTIONAL not in filled[first]:
                raise ValueError(f'{find(name) / SOURCE} does not say how wide the {OPTIONAL} is: convert it again')
    return filled


def read_source(name: str | os.PathLike) -> dict[str, Any]:
    """What source.json says of converted weights; {} where there is none."""
    path = find(name) / SOURCE
    if not sums.check(path.parent, (SOURCE,), AGAIN) and not path.is_file():
        return {}
    try:
        source = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error
    if not isinstance(source, dict) or not isinstance(source.get('fields', {}), dict):
        raise _damaged(path, 'expected an object with the object fields in it')
    return source


def save_pretrained(
    folder: str | os.PathLike,
    variables: Mapping[str, Tree],
    source: Mapping[str, Any],
    head: Head | None = None,
    beside: Sequence[Path] = (),
) -> Path:
    """Writes a folder of weights whole or not at all, with sums of its files; FileExistsError where it exists.

    beside: files that are copied into it, those of a tokenizer (BESIDE).
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f'{folder} exists; remove it, or give another name')
    with making(folder, functools.partial(remove_known, names=(PARAMS, HEAD, SOURCE, sums.SUMS, *BESIDE))) as temporary:
        if folder.exists():  # made meanwhile
            raise FileExistsError(f'{folder} exists; remove it, or give another name')
        flat = traverse_util.flatten_dict(dict(variables), sep='/')
        save_file({key: np.ascontiguousarray(array) for key, array in flat.items()}, temporary / PARAMS)
        if head is not None:
            save_file({'kernel': np.ascontiguousarray(head.kernel), 'bias': head.bias}, temporary / HEAD)
            source = {**source, 'head': {'problem': head.problem, 'labels': list(head.labels)}}
        (temporary / SOURCE).write_text(json.dumps(source, indent=1) + '\n')
        for path in beside:
            shutil.copyfile(path, temporary / path.name)
        sums.write_sums(temporary)
    return folder


def graft(
    variables: Mapping[str, Tree], loaded: Mapping[str, Tree], *, path: str, fresh: Sequence[str] = ()
) -> dict[str, Tree]:
    """`variables` with the module at `path` ('encoder', 'vision/network') replaced by `loaded`, in each collection.

    Strict both ways: a parameter of the module that is not loaded must match one of the regular expressions `fresh`
    (searched in its name below `path`; what matches begins anew even if it is loaded), and everything loaded must have
    its place and its shape; but a projector, the dense layer that some checkpoints have behind their pooling, is left
    out where the model has none, and so is the final norm of an encoder whose sum over layers does without it. Arrays
    of `variables` may have one leading axis more (seeds), and each gets the same.
    ValueError lists what does not fit.
    """
    prefix = tuple(filter(None, path.split('/')))
    own = traverse_util.flatten_dict(dict(variables))
    given = {(key[0], *prefix, *key[1:]): np.asarray(a) for key, a in traverse_util.flatten_dict(dict(loaded)).items()}
    inside = [key for key in own if key[1 : 1 + len(prefix)] == prefix]
    parts = {key[1 + len(prefix)] for key in inside}
    left_out = {OPTIONAL, 'norm'} - parts if LAYER_SUM in parts else {OPTIONAL} - parts
    given = {key: array for key, array in given.items() if key[1 + len(prefix)] not in left_out}
    given = {key: array for key, array in given.items() if not _fresh('/'.join(key[1 + len(prefix) :]), fresh)}
    if not inside:
        modules = ', '.join(sorted({key[1] for key in own}))
        raise ValueError(f'{path!r} is no module of the model; it has {modules}')
    names = {key: '/'.join(key[1 + len(prefix) :]) for key in {*inside, *given}}
    faults = [f'{_name(key)} is loaded, but not in the model' for key in given if key not in own]
    faults += [
        f'{_name(key)} is in the model, but not loaded'
        for key in inside
        if key not in given and not _fresh(names[key], fresh)
    ]
    for key in inside:
        if key in given and given[key].shape not in (own[key].shape, own[key].shape[1:]):
            faults.append(f'{_name(key)} has shape {given[key].shape}, the model wants {own[key].shape}')
    if faults:
        lacking = sorted({key[1 + len(prefix)] for key in inside if key not in given and not _fresh(names[key], fresh)})
        extra = LAYER_SUM in {key[1 + len(prefix)] for key in given if key not in own}
        hints = [_hint(part) for part in lacking if part in HINTS] + [SUM_HINT] * extra
        raise ValueError(
            f'what is loaded does not fit {path!r}: {listed(faults)}. {"".join(hints)}Choose the weights or the sizes '
            'of the model anew, or name what may stay at its initialisation in config.fresh'
        )
    changed = {k: np.broadcast_to(given[k], own[k].shape).astype(own[k].dtype) for k in inside if k in given}
    return traverse_util.unflatten_dict({**own, **changed})


def _fresh(name: str, patterns: Sequence[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _hint(part: str) -> str:
    return f"The weights have no {part}: {HINTS[part]}, or let it begin anew with config.fresh=('^{part}',). "


def _name(key: tuple[str, ...]) -> str:
    return '/'.join(key)
