"""A folder of converted weights against its original: family, fields, every tensor, and what a classifier reads.

The last is computed twice from a random batch. Once by the encoder with the converted parameters; and once in numpy
from the same states, by what the original's classifier does, with the original's own tensors and settings: an encoder
that pools otherwise, or lacks a layer between the states and the classifier, does not pass. No torch is needed; that
the states are the original's is what tests/test_transformers_parity.py holds.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError

from data_prep.convert_weights import names
from data_prep.convert_weights.huggingface import Plan, plan, read_head, to_original
from data_prep.convert_weights.huggingface_files import Tensors
from data_prep.convert_weights.huggingface_names import layer_sum_fields
from data_prep.convert_weights.huggingface_settings import Settings, read_settings
from mmer_jax.encoders import ENCODERS
from mmer_jax.encoders.transformer import activate
from mmer_jax.pretrained import listed, load_head, open_params, read_source

TOLERANCE = 1e-4  # of pooled values, relative to the largest
FC_NORM_EPSILON = 1e-5  # PyTorch's, whatever layer_norm_eps says
SHOWN = 8  # names in a line


class States(NamedTuple):
    """Of a batch: all states before any final norm, the last one behind it, (B, T, D), and their mask (B, T)."""

    every: np.ndarray
    last: np.ndarray
    mask: np.ndarray

    def mean(self, h_BTD: np.ndarray) -> np.ndarray:
        mask = self.mask[..., None]
        return (h_BTD * mask).sum(1) / mask.sum(1)


def verify(converted: Path, folder: Path) -> tuple[list[str], list[str]]:
    """What differs between converted weights and their original, none where they are equal; and what was compared."""
    folder, tensors = Path(folder), Tensors(Path(folder))
    made, source = plan(folder, tensors), read_source(converted)
    faults = names.differences(source, made.family, made.fields)
    for key, wanted in (
        ('unused', made.unused),
        ('fresh', [f'params/{name}' for name in made.fresh]),
        ('not_read', made.not_read),
    ):
        if key in source and list(source[key]) != list(wanted):
            faults.append(f'source.json has {key} = {source[key]!r}, the original gives {list(wanted)!r}')
    faults += _tensor_faults(converted, made, tensors)
    faults += _head_faults(converted, made, tensors)
    if faults:
        return sorted(faults), []
    report = [f'{len(made.fields)} fields and {len(made.taken)} tensors, value by value']
    if made.head:
        report.append(f'head: {made.head.problem} of {listed(made.head.labels, SHOWN, ", ")}, value by value')
    fault, line = _compare_pooled(converted, folder, made, tensors)
    report.append(line)
    report.append(f'left out of the original: {listed(made.unused, SHOWN, ", ") or "none"}')
    report.append(f'not read: {listed(made.not_read, SHOWN, ", ") or "none"}')
    return ([fault] if fault else []), report


def _tensor_faults(converted: Path, made: Plan, tensors: Tensors) -> list[str]:
    with open_params(converted) as file:
        stored = {name.removeprefix('params/'): name for name in file.keys()}  # noqa: SIM118
        faults = [f'{name} is converted, but the original has no such tensor' for name in stored.keys() - made.taken]
        for ours, original in made.taken.items():
            if ours not in stored:
                faults.append(f'{ours} is missing; it should hold {original}')
                continue
            wanted = tensors[original]
            try:
                found = to_original(ours, file.get_tensor(stored[ours]), wanted.shape)
            except (SafetensorError, ValueError) as error:
                faults.append(f'{error} ({original})')
                continue
            different = int((found != wanted.astype(np.float32)).sum())
            if different:
                faults.append(f'{ours} differs from {original} in {different} of {wanted.size} values')
    return faults


def _head_faults(converted: Path, made: Plan, tensors: Tensors) -> list[str]:
    if made.head is None:
        return []
    try:
        found, wanted = load_head(converted), read_head(made.head, tensors)
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    same: list[tuple[str, Any, Any]] = [(name, getattr(found, name), getattr(wanted, name)) for name in wanted._fields]
    return [f'head: {name} differs from that of the original' for name, a, b in same if not np.array_equal(a, b)]


def _compare_pooled(converted: Path, folder: Path, made: Plan, tensors: Tensors) -> tuple[str, str]:
    """The fault, '' where there is none, and what was compared."""
    config, _ = read_settings(folder)
    pooling = POOLINGS[made.family](config, tensors, made.prefix)
    if isinstance(pooling, str):
        return '', f'pooled output not compared: {pooling}'
    states, found = _run(converted, made)
    wanted = pooling(states)
    if found.shape != wanted.shape:
        return f'the pooled output has shape {found.shape}, that of the original {wanted.shape}', ''
    difference, largest = float(np.abs(found - wanted).max()), float(np.abs(wanted).max())
    if not difference <= TOLERANCE * max(largest, 1.0):
        return (
            f"the pooled output differs by {difference:.3g} from that of the original's classifier, whose largest "
            f'value is {largest:.3g}',
            '',
        )
    return '', f"pooled output {found.shape} of a random batch, within {difference:.1g} of the original's pooling"


def _run(converted: Path, made: Plan) -> tuple[States, np.ndarray]:
    """States and pooled output of a random batch with the converted parameters, those that begin anew 0 or 1."""
    encoder: Any = ENCODERS[made.family](**made.fields)
    with open_params(converted) as file:
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in made.fresh:
        width = made.fields['hidden_size']
        shape = (width, width) if name.endswith('kernel') else (width,)
        flat[f'params/{name}'] = np.full(shape, name.endswith('scale'), np.float32)
    x, mask = random_batch(made.family, encoder)

    def whole(module, x, mask):
        every, mask_BT = module._run_layers(x, mask, train=False)
        last = module.norm(every[-1]) if module.final_norm else every[-1]
        features, _ = module(x, mask, train=False)
        return jnp.stack(every), last, mask_BT, module.pool(features, mask_BT, train=False)

    apply = jax.jit(functools.partial(encoder.apply, method=whole))
    *states, pooled = map(np.asarray, apply(traverse_util.unflatten_dict(flat, sep='/'), x, mask))
    return States(*states), pooled


def random_batch(family: str, encoder: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of unequal length and their mask, as the encoder takes them."""
    generator = np.random.default_rng(0)
    steps = {'vit': 1, 'ast': 100, 'videomae': getattr(encoder, 'num_frames', 0)}.get(family, 8)
    if family in ('wav2vec2', 'hubert'):
        stride, steps = int(np.prod(encoder.conv_strides)), 0
        steps = 12 * stride + sum(encoder.conv_kernels) * stride
    mask = np.arange(steps)[None] < np.array([[steps], [(steps + 1) * 5 // 8]])
    if family in ('vit', 'videomae'):
        x = generator.integers(256, size=(2, steps, encoder.image_size, encoder.image_size, 3)).astype(np.uint8)
    elif family == 'ast':
        x = generator.standard_normal((2, steps, encoder.num_bands)).astype(np.float32)
    elif family in ('wav2vec2', 'hubert'):
        x = generator.standard_normal((2, steps)).astype(np.float32)
    else:
        steps = min(steps, encoder.max_positions - encoder.position_offset)
        x, mask = generator.integers(encoder.vocab_size, size=(2, steps)).astype(np.int32), mask[:, :steps]
    return x, mask


# What the classifiers of transformers do between the states and their last layer: a function of the states, or why not.
Pooling = Callable[[States], np.ndarray] | str


def _dense(tensors: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    weight, bias = (tensors[f'{name}.{part}'].astype(np.float64) for part in ('weight', 'bias'))
    return x @ weight.T + bias


def _norm(tensors: Mapping[str, np.ndarray], name: str, x: np.ndarray, epsilon: float) -> np.ndarray:
    weight, bias = (tensors[f'{name}.{part}'].astype(np.float64) for part in ('weight', 'bias'))
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon) * weight + bias


def pool_text(config: Settings, tensors: Tensors, prefix: str) -> Pooling:
    """BERT's and RoBERTa's pooler, RoBERTa's classifier, DistilBERT's first layer: dense behind the first token."""
    if config.get('model_type') == 'distilbert':
        places: tuple[str, ...] = ('pre_classifier',)
        function: Callable[[np.ndarray], np.ndarray] = functools.partial(np.maximum, 0)
    else:
        places, function = ('classifier.dense', f'{prefix}pooler.dense'), np.tanh
    for name in places:
        if f'{name}.weight' in tensors:
            return lambda states: function(_dense(tensors, name, states.last[:, 0]))
    return 'the original has no layer between its states and its head'


def pool_speech(config: Settings, tensors: Tensors, prefix: str) -> Pooling:
    """The mean over valid frames of the projected states, or of their learnt sum."""
    del prefix
    if 'classifier.dense.weight' in tensors:  # tanh(dense) of the mean
        return lambda states: np.tanh(_dense(tensors, 'classifier.dense', states.mean(states.last)))
    if 'projector.weight' not in tensors or any(name.startswith('tdnn.') for name in tensors):
        return 'the original has no projector in front of a mean'
    weighted = config.flag('use_weighted_layer_sum', False)

    def pool(states: States) -> np.ndarray:
        h_BTD = states.last
        if weighted:
            every = [*states.every[:-1], states.last if behind else states.every[-1]]
            weights = np.exp(tensors['layer_weights'].astype(np.float64))
            h_BTD = np.einsum('l,lbtd->btd', weights / weights.sum(), np.stack(every))
        return states.mean(_dense(tensors, 'projector', h_BTD))

    behind = bool(layer_sum_fields(config, config.flag('do_stable_layer_norm', False)).get('layer_sum_norm'))
    return pool


def pool_vit(config: Settings, tensors: Tensors, prefix: str) -> Pooling:
    """The class token, behind the pooler where there is one."""
    name, activation = f'{prefix}pooler.dense', config.activation('pooler_act', 'tanh')
    if f'{name}.weight' not in tensors:
        return lambda states: states.last[:, 0]
    return lambda states: np.asarray(activate(activation, jnp.asarray(_dense(tensors, name, states.last[:, 0]))))


def pool_ast(config: Settings, tensors: Tensors, prefix: str) -> Pooling:
    """The mean of class and distillation token, normalised."""
    del prefix
    if 'classifier.layernorm.weight' not in tensors:
        return 'the original has no norm of its classifier; ours begins anew'
    epsilon = config.real('layer_norm_eps', 1e-12)
    return lambda states: _norm(tensors, 'classifier.layernorm', states.last[:, :2].mean(1), epsilon)


def pool_videomae(config: Settings, tensors: Tensors, prefix: str) -> Pooling:
    """The normalised mean, or the first token."""
    del prefix
    if not config.flag('use_mean_pooling', True):
        return lambda states: states.last[:, 0]
    if 'fc_norm.weight' not in tensors:
        return 'the original has no norm of its classifier (fc_norm); ours begins anew'
    return lambda states: _norm(tensors, 'fc_norm', states.last.mean(1), FC_NORM_EPSILON)


POOLINGS = {
    'bert': pool_text,
    'roberta': pool_text,
    'distilbert': pool_text,
    'wav2vec2': pool_speech,
    'hubert': pool_speech,
    'vit': pool_vit,
    'ast': pool_ast,
    'videomae': pool_videomae,
}
