"""Keys that configs saved by older versions lack, with what was done before the key was there.

A key is added here when it is added to configs/base.py, so that older runs go on, are evaluated and are compared.
"""

from collections.abc import Mapping
from typing import Any

ADDED: Mapping[str, Any] = {
    'label_smoothing': 0.0,
    'mixup': 0.0,
    'data.normalize_by': 'all',
    'data.enrolment': {'mode': 'strict', 'clips': 2, 'label': '', 'seed': 0},
    'selection.folds': 0,
}


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config (nested) with ADDED where it lacks them; one of no training (without epochs) as it is."""
    config = dict(saved)
    if 'epochs' not in config:
        return config
    for dotted, before in ADDED.items():
        parent, _, key = dotted.rpartition('.')
        if not parent:
            config.setdefault(key, before)
        elif isinstance(config.get(parent), Mapping):
            config[parent] = {key: before, **config[parent]}
    return config
