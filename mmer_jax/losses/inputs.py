"""What losses read, looked up so that what is missing is said in one line."""

from collections.abc import Mapping
from typing import Any

from jax import Array


def check_mapping(loss: str, outputs: Any) -> None:
    """ValueError where a loss is not given a dictionary of a model's outputs."""
    if not isinstance(outputs, Mapping):
        shape = f' of shape {tuple(outputs.shape)}' if hasattr(outputs, 'shape') else ''
        raise ValueError(
            f"{loss}: the outputs are {type(outputs).__name__}{shape}, expected a dictionary {{'prediction': ..., ...}}"
        )


def prediction_and_label(loss: str, outputs: Any, batch: Any) -> tuple[Array, Array]:
    """What every loss of a task reads; ValueError where it is not there."""
    check_mapping(loss, outputs)
    if 'prediction' not in outputs:
        raise ValueError(f"{loss} reads outputs['prediction'], which is not among {', '.join(outputs) or 'no outputs'}")
    return outputs['prediction'], of_batch(loss, batch, 'label')


def of_batch(loss: str, batch: Any, key: str) -> Array:
    """batch[key]; ValueError where the batch has none."""
    if not isinstance(batch, Mapping) or key not in batch:
        found = ', '.join(batch) or 'nothing' if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(f'{loss} reads batch[{key!r}], and the batch is {found}')
    return batch[key]
