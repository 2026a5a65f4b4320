"""Multimodal emotion recognition in JAX and Flax. BUILD.md is the map of the package."""

import importlib
import time
from typing import Any

__version__ = '0.3.0.dev0'
BEGUN = time.perf_counter()  # when the package was first imported: from here a command's imports are measured


def __getattr__(name: str) -> Any:
    """`load_predictor`, whose imports (jax, the readers of media) only those who ask for it wait for."""
    if name == 'load_predictor':
        return importlib.import_module('mmer_jax.prediction').load_predictor
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
