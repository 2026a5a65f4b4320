"""Optimisers and schedules from config fields (optax)."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

Schedule = Callable[[Any], Any]
OPTIMIZERS = ('adam', 'adamw', 'sgd')
SCHEDULES = ('constant', 'cosine', 'linear')


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

    Gradients are clipped by value (MMSA), then by global norm (MulT), where the field is above 0. Adam's
    weight_decay is added to the gradient as PyTorch's Adam does, AdamW's is decoupled.
    """
    schedule, decay = make_schedule(fields, total_steps), fields['weight_decay']
    steps = []
    if fields['clip_value']:
        steps.append(optax.clip(fields['clip_value']))
    if fields['clip_norm']:
        steps.append(optax.clip_by_global_norm(fields['clip_norm']))
    name = fields['name']
    if name == 'adamw':
        steps.append(optax.adamw(schedule, b1=fields['b1'], b2=fields['b2'], weight_decay=decay))
    elif name in ('adam', 'sgd'):
        if decay:
            steps.append(optax.add_decayed_weights(decay))
        adam = name == 'adam'
        steps.append(
            optax.adam(schedule, b1=fields['b1'], b2=fields['b2'])
            if adam
            else optax.sgd(schedule, momentum=fields['momentum'])
        )
    else:
        raise ValueError(f'optimizer {name!r} is unknown; the known ones are {", ".join(OPTIMIZERS)}')
    return optax.chain(*steps), schedule
