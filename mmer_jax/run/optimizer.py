"""Optimisers and schedules from config fields (optax), and which parameters they train how fast."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], Any]
OPTIMIZERS = ('adam', 'adamw', 'sgd')
SCHEDULES = ('constant', 'cosine', 'linear')
SHOWN = 10  # names in an error
Tree = Any


def make_schedule(fields: Mapping[str, Any], total_steps: int) -> Schedule:
    """Learning rate by step: linear warm-up over the share `warmup` of all steps, then constant, cosine or linear."""
    peak, warmup = fields['learning_rate'], round(fields['warmup'] * total_steps)
    rest = max(total_steps - warmup, 1)
    if fields['schedule'] not in SCHEDULES:
        raise ValueError(f'schedule {fields["schedule"]!r} is unknown; the known ones are {", ".join(SCHEDULES)}')
    after = {
        'constant': lambda: optax.constant_schedule(peak),
        'cosine': lambda: optax.cosine_decay_schedule(peak, rest),
        'linear': lambda: optax.linear_schedule(peak, 0.0, rest),
    }[fields['schedule']]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(fields: Mapping[str, Any], total_steps: int) -> tuple[optax.GradientTransformation, Schedule]:
    """config.optimizer -> (transformation, its schedule).

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
    alone = tuple(fields.get('clip_alone', ()))
    factor = fields.get('layer_decay', 1.0)
    decayed = (lambda params: matches(params, spared, invert=True)) if spared else None
    steps = []
    if fields['clip_value']:
        steps.append(optax.clip(fields['clip_value']))
    if fields['clip_norm']:
        steps.append(clip_by_groups(fields['clip_norm'], alone))
    elif alone:
        raise ValueError(
            'config.optimizer.clip_alone says what is clipped apart, but clip_norm is 0: set it, or neither'
        )
    name = fields['name']
    if name == 'adamw':
        steps.append(optax.adamw(schedule, b1=fields['b1'], b2=fields['b2'], weight_decay=decay, mask=decayed))
    elif name in ('adam', 'sgd'):
        if decay:
            steps.append(optax.add_decayed_weights(decay, mask=decayed))
        adam = name == 'adam'
        steps.append(
            optax.adam(schedule, b1=fields['b1'], b2=fields['b2'])
            if adam
            else optax.sgd(schedule, momentum=fields['momentum'])
        )
    else:
        raise ValueError(f'optimizer {name!r} is unknown; the known ones are {", ".join(OPTIMIZERS)}')
    optimizer = optax.chain(*steps)
    if frozen:
        optimizer = optax.multi_transform(
            {'trained': optimizer, 'frozen': optax.set_to_zero()},
            lambda params: jax.tree.map(lambda hit: 'frozen' if hit else 'trained', matches(params, frozen)),
        )
    if factor != 1:
        optimizer = optax.chain(optimizer, scale_layers(factor))
    return _checked(optimizer, frozen, spared), schedule


def clip_by_groups(norm: float, alone: Sequence[str]) -> optax.GradientTransformation:
    """Clips by the global norm, and what matches each pattern of `alone` (the first that does) by a norm of its own."""

    def group(path, _):
        return next((n for n, pattern in enumerate(alone) if re.search(pattern, name_of(path))), -1)

    def labels(params):
        return jax.tree_util.tree_map_with_path(group, params)

    if not alone:
        return optax.clip_by_global_norm(norm)
    return optax.partition({n: optax.clip_by_global_norm(norm) for n in range(-1, len(alone))}, labels)


def matches(params: Tree, patterns: Sequence[str], *, invert: bool = False) -> Tree:
    """A tree of bool: whether the name of each parameter holds one of the regular expressions."""

    def hit(path, _):
        return any(re.search(pattern, name_of(path)) for pattern in patterns) != invert

    return jax.tree_util.tree_map_with_path(hit, params)


def name_of(path: Sequence[Any]) -> str:
    return '/'.join(str(getattr(key, 'key', key)) for key in path)


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


def scale_layers(decay: float) -> optax.GradientTransformation:
    """Multiplies each update by its `layer_scale`."""

    def update(updates, state, params=None):
        del params
        named = jax.tree_util.tree_leaves_with_path(updates)
        scales = layer_scale([name_of(path) for path, _ in named], decay)
        return jax.tree_util.tree_map_with_path(lambda path, u: u * scales[name_of(path)], updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _checked(optimizer, *groups):
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

    return optax.GradientTransformation(init, optimizer.update)
