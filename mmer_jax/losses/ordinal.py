"""The loss of ordered levels: what mmer_jax/models/ordinal.py puts beside its prediction."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.losses.inputs import check_mapping, of_batch


def ordinal(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """Cross-entropy of `level_logits` (B, L), for labels (B,) between the rising `levels` (B, L).

    A label between two levels is shared between them, so that their mean is the label: 1.4 is 0.6 of 1 and 0.4 of 2. A
    label outside of them is the first or the last.
    """
    check_mapping('ordinal', outputs)
    missing = [key for key in ('level_logits', 'levels') if key not in outputs]
    if missing:
        raise ValueError(
            f'ordinal reads outputs[{missing[0]!r}], which is not among {", ".join(outputs) or "no outputs"}; '
            "a model inside config.model = {'name': 'ordinal', 'model': {...}} gives it"
        )
    logits_BL, levels_BL, label_B = outputs['level_logits'], outputs['levels'], of_batch('ordinal', batch, 'label')
    if logits_BL.ndim != 2 or label_B.shape != logits_BL.shape[:1] or levels_BL.shape != logits_BL.shape:
        raise ValueError(
            f'ordinal: level_logits {logits_BL.shape}, levels {levels_BL.shape} and label {label_B.shape}, expected '
            '(B, L), (B, L) and (B,)'
        )
    lowest_B, highest_B = levels_BL[:, 0], levels_BL[:, -1]
    label_B1 = jnp.clip(label_B.astype(levels_BL.dtype), lowest_B, highest_B)[:, None]
    # How much of each step between two levels lies below the label: 1, ..., 1, the share of its own step, 0, ..., 0.
    passed = jnp.clip((label_B1 - levels_BL[:, :-1]) / jnp.diff(levels_BL, axis=-1), 0, 1)
    share_BL = -jnp.diff(passed, axis=-1, prepend=1, append=0)
    return -(share_BL * jax.nn.log_softmax(logits_BL)).sum(-1)
