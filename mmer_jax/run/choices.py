"""Names that a config may give, apart from what makes them, so that a command's help does not wait for jax."""

import dataclasses
from typing import Any

OPTIMIZERS = ('adam', 'adamw', 'sgd')
SCHEDULES = ('constant', 'cosine', 'linear')
COMPUTE_DTYPES = ('float32', 'bfloat16')
SEEDS_BY = ('auto', 'vmap', 'turns')
TRACKERS = ('none', 'wandb', 'mlflow')


@dataclasses.dataclass(frozen=True)
class Range:
    """What one key may be in a search: `log` or `uniform` of low and high, `choice` of values. whole: whole numbers."""

    key: str
    way: str
    values: tuple[Any, ...]
    whole: bool = False
