"""Optimisers and schedules from config fields (optax), and which parameters they train how fast."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmer_jax.run.flat import FlatOptimizer, name_of, over_vectors

Schedule = Callable[[Any], Any]
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {  # (peak, steps) -> learning rate by step
    'constant': lambda peak, steps: optax.constant_schedule(peak),
    'cosine': lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
    'linear': lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
}
OPTIMIZERS: dict[str, Callable[[Schedule, Mapping[str, Any], Any], optax.GradientTransformation]] = {
    'adam': lambda schedule, fields, _: optax.adam(schedule, b1=fields['b1'], b2=fields['b2']),
    'adamw': lambda schedule, fields, decayed: optax.adamw(
        schedule, b1=fields['b1'], b2=fields['b2'], weight_decay=fields['weight_decay'], mask=decayed
    ),
    'sgd': lambda schedule, fields, _: optax.sgd(schedule, momentum=fields['momentum']),
}
SHOWN = 10  # names in an error
Tree = Any


def make_schedule(fields: Mapping[str, Any], total_steps: int) -> Schedule:
    """Learning rate by step: linear warm-up over the share `warmup` of all steps, then constant, cosine or linear."""
    peak, warmup = fields['learning_rate'], round(fields['warmup'] * total_steps)
    rest = max(total_steps - warmup, 1)
    if fields['schedule'] not in SCHEDULES:
        raise ValueError(f'schedule {fields["schedule"]!r} is unknown; the known ones are {", ".join(SCHEDULES)}')
    after = SCHEDULES[fields['schedule']](peak, rest)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(fields: Mapping[str, Any], total_steps: int) -> tuple[FlatOptimizer, Schedule]:
    """config.optimizer -> (transformation over few vectors, its schedule).

    Gradients are clipped by value (MMSA), then by global norm (MulT), where the field is above 0. Parameters that match
    a pattern of `clip_alone` are clipped by a norm of their own, each pattern apart, and are no part of the global one:
    for discriminators and alignment modules that train themselves alone and whose gradients are of another size (a
    pattern may match nothing: with one modality a model has none of them). Adam's
    weight_decay is added to the gradient as PyTorch's Adam does, AdamW's is decoupled; parameters that match one of
    the patterns `no_decay` are left out of both. Those that match `freeze` keep their values: they have no optimiser
    state and no part in the global norm. `layer_decay` below 1 slows the lower layers of a transformer (`layer_scale`).
    Patterns are regular expressions searched in names such as 'encoder/layer_0/output/kernel'; one of the others that
    matches no parameter is a ValueError when the state is made.
    """
    schedule, decay = make_schedule(fields, total_steps), fields['weight_decay']
    frozen, spared = tuple(fields.get('freeze', ())), tuple(fields.get('no_decay', ()))
    alone, factor = tuple(fields.get('clip_alone', ())), fields.get('layer_decay', 1.0)
    if alone and not fields['clip_norm']:
        raise ValueError(
            'config.optimizer.clip_alone says what is clipped apart, but clip_norm is 0: set it, or neither'
        )
    if fields['name'] not in OPTIMIZERS:
        raise ValueError(f'optimizer {fields["name"]!r} is unknown; the known ones are {", ".join(OPTIMIZERS)}')

    def groups_of(names):
        scales = layer_scale(names, factor) if factor != 1 else dict.fromkeys(names, 1.0)
        return [
            None
            if hits(frozen, name)
            else Group(
                apart=next((number for number, pattern in enumerate(alone) if re.search(pattern, name)), -1),
                decayed=bool(decay) and not hits(spared, name),
                scale=scales[name],
            ).key
            for name in names
        ]

    def transformation(keys):
        groups = {key: Group.of(key) for key in keys}
        decayed = {key: group.decayed for key, group in groups.items()}
        steps = []
        if fields['clip_value']:
            steps.append(optax.clip(fields['clip_value']))
        if fields['clip_norm']:
            steps.append(clip_by_groups(fields['clip_norm'], {key: group.apart for key, group in groups.items()}))
        if decay and fields['name'] != 'adamw':  # which decays by itself, apart from the gradient
            steps.append(optax.add_decayed_weights(decay, mask=decayed))
        steps.append(OPTIMIZERS[fields['name']](schedule, fields, decayed))
        if factor != 1:
            steps.append(scale_by({key: group.scale for key, group in groups.items()}))
        return optax.chain(*steps)

    return _checked(over_vectors(groups_of, transformation), frozen, spared), schedule


class Group(NamedTuple):
    """How a parameter is treated: which norm clips it (-1: that of all, else the pattern's number), and so on."""

    apart: int
    decayed: bool
    scale: float

    @property
    def key(self) -> str:
        """Names the group's vector, in the optimiser's state on disk too."""
        return f'apart={self.apart}, decayed={int(self.decayed)}, scale={self.scale!r}'

    @classmethod
    def of(cls, key: str) -> 'Group':
        apart, decayed, scale = (part.split('=')[1] for part in key.split(', ')[:3])
        return cls(int(apart), decayed == '1', float(scale))


def clip_by_groups(norm: float, apart: Mapping[str, int]) -> optax.GradientTransformation:
    """Clips vectors by the norm of all with the same number in `apart`."""
    numbers = set(apart.values())
    if len(numbers) < 2:
        return optax.clip_by_global_norm(norm)
    return optax.partition({n: optax.clip_by_global_norm(norm) for n in numbers}, dict(apart))


def scale_by(scales: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies each update by its own factor."""

    def update(updates, state, params=None):
        del params
        return {key: value * scales[key] for key, value in updates.items()}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def hits(patterns: Sequence[str], name: str) -> bool:
    """Whether a name holds one of the regular expressions."""
    return any(re.search(pattern, name) for pattern in patterns)


def matches(params: Tree, patterns: Sequence[str], *, invert: bool = False) -> Tree:
    """A tree of bool: whether the name of each parameter holds one of the regular expressions."""
    return jax.tree_util.tree_map_with_path(lambda path, _: hits(patterns, name_of(path)) != invert, params)


def without_frozen(gradient: Tree, patterns: Sequence[str]) -> Tree:
    """The gradient with zeros for the parameters that match: what computes only theirs is then compiled away."""
    return jax.tree.map(lambda g, hit: jnp.zeros_like(g) if hit else g, gradient, matches(gradient, patterns))


def layer_scale(names: Sequence[str], decay: float) -> dict[str, float]:
    """Factor of the learning rate by parameter name: decay ** (how far it lies below the top of its module).

    Of a module with the parts `embeddings` and `layer_0` to `layer_L`, the embeddings lie L + 2 below the top, layer n
    L + 1 - n, and everything else, the head of the model too, at the top (as BEiT counts, Bao et al. 2022). Layers
    without embeddings beside them are no encoder's (those of MulT's fusion are named so too) and stay at the top.
    """
    found = {name: re.match(r'(?:(.*?)/)?(?:layer_(\d+)|(embeddings))/', name) for name in names}
    encoders = {match[1] or '' for match in found.values() if match and match[3]}
    last: dict[str, int] = {}
    for match in found.values():
        if match and match[2] and (match[1] or '') in encoders:
            last[match[1] or ''] = max(last.get(match[1] or '', 0), int(match[2]))
    scales = dict.fromkeys(names, 1.0)
    for name, match in found.items():
        module = (match[1] or '') if match else ''
        if match and module in last:
            depth = -1 if match[3] else int(match[2])
            scales[name] = decay ** (last[module] + 1 - depth)
    return scales


def _checked(optimizer: FlatOptimizer, *groups: Sequence[str]) -> FlatOptimizer:
    """The same transformation, whose init refuses a pattern that matches nothing."""

    def init(params):
        names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern in (pattern for patterns in groups for pattern in patterns):
            if not any(re.search(pattern, name) for name in names):
                more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
                raise ValueError(
                    f'config.optimizer: the pattern {pattern!r} matches no parameter; they are '
                    f'{", ".join(names[:SHOWN])}{more}'
                )
        return optimizer.init(params)

    return optimizer._replace(init=init)
