"""Mel spectrograms as pictures: one of the whole clip, or a sequence of strips beside its frames.

The shared-encoder report feeds sound to image encoders. A spectrogram in decibels (mmer_jax.media.audio.log_mel)
becomes levels of grey relative to the clip's loudest value, low frequencies at the bottom, and is resized; for 3-D
encoders it is cut along time into as many strips as the clip has frames, each resized to a picture of its own.
The report's pictures are coloured by a plotting library; here the three channels of an RGB picture are equal, which
holds the same information.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

TOP_DB = 80.0


def to_levels(decibels: np.ndarray, top_db: float = TOP_DB) -> np.ndarray:
    """Decibels (T, F), first band lowest -> uint8 (F, T), first row highest.

    255 is the loudest value, 0 what lies `top_db` or more below it; a spectrogram of one value (silence) is black.
    ValueError where it is not a finite, non-empty matrix.
    """
    decibels = np.asarray(decibels)
    if decibels.ndim != 2 or not decibels.size or not np.isfinite(decibels).all():
        raise ValueError(f'expected finite decibels (T, F), found {decibels.dtype} {decibels.shape}')
    if top_db <= 0:
        raise ValueError(f'top_db must be positive, found {top_db}')
    peak = decibels.max()
    if peak == decibels.min():
        return np.zeros(decibels.shape[::-1], np.uint8)
    scaled = np.clip(1 + (decibels - peak) / top_db, 0, 1)
    return np.round(255 * scaled).astype(np.uint8).T[::-1]


def draw(decibels: np.ndarray, height: int = 224, width: int = 224, *, channels: int = 3) -> np.ndarray:
    """The picture of a whole spectrogram (T, F): uint8 (height, width, channels), 1 grey or 3 equal channels."""
    return draw_strips(decibels, 1, height, width, channels=channels)[0]


def draw_strips(
    decibels: np.ndarray,
    count: int,
    height: int = 224,
    width: int = 224,
    *,
    channels: int = 3,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """A spectrogram (T, F) in `count` strips of equal duration, in order: uint8 (count, height, width, channels).

    Strip k shows the time from k / count to (k + 1) / count of the clip, so the strips cover all of it; edges fall
    between columns where T is no multiple of `count` (bilinear, antialiased). `numbers` draws only these strips.
    """
    if channels not in (1, 3):
        raise ValueError(f'channels must be 1 (grey) or 3 (RGB), found {channels}')
    if count < 1 or min(height, width) < 1:
        raise ValueError(f'count, height and width must be 1 or more, found {count}, {height} and {width}')
    levels = to_levels(decibels)
    bands, steps = levels.shape
    picture = Image.fromarray(np.ascontiguousarray(levels))
    strips = []
    for number in range(count) if numbers is None else numbers:
        box = (number * steps / count, 0, min((number + 1) * steps / count, steps), bands)
        strips.append(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box)))
    return np.repeat(np.stack(strips)[..., None], channels, axis=-1)


def spread(total: int, count: int) -> np.ndarray:
    """`count` of the numbers 0 .. total - 1, int64 (count,): the middle of each of `count` equal parts.

    Increasing; where `count` exceeds `total` some come more than once.
    """
    if total < 1 or count < 1:
        raise ValueError(f'total and count must be 1 or more, found {total} and {count}')
    return ((2 * np.arange(count) + 1) * total) // (2 * count)
