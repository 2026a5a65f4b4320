"""What is made of results: runs as read, summaries, tables, pictures, pages; `to_pandas` for notebooks."""

import importlib
from typing import Any

__all__ = ['to_pandas']


def __getattr__(name: str) -> Any:
    """`to_pandas`, whose imports a command that draws one picture need not wait for."""
    if name == 'to_pandas':
        return importlib.import_module('mmer_jax.results.export').to_pandas
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
