"""Records disturbed for a test of robustness: steps dropped, or noise added, to some of their modalities.

They are augmentations (data/augment.py) for a split that is evaluated: what is drawn is a function of the plan's seed
and the record, the same for every share and every deviation. So a step that is dropped at a share of 0.2 is dropped at
0.4 too, noise twice as large is the same noise, and a modality is disturbed alone as it is together with others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mmer_jax.data.augment import Augmentation
from mmer_jax.data.records import Feature, Frames
from mmer_jax.data.schema import MODALITIES

BLOCK = 1600  # samples of a waveform that are dropped together: 0.1 s at 16 kHz


def is_waveform(feature: Feature) -> bool:
    """Samples of sound: int16, or one float per step."""
    return feature.is_sequence and not feature.step_shape and (feature.dtype == 'int16' or feature.dtype == 'float32')


def takes_noise(feature: Feature) -> bool:
    """Whether it holds measured numbers: no pictures and no token ids."""
    return feature.dtype.startswith('float') or is_waveform(feature)


def drop_steps(features: Mapping[str, Feature], modalities: Sequence[str], share: float) -> Augmentation:
    """Each step of these modalities is lost with probability `share`, as in tests of missing features.

    A lost vector is all 0 (the mean, where the modality is normalised), a lost picture black, a lost stretch of a
    waveform (0.1 s) silent: they stay steps, so that modalities which go step by step together still do. A lost token
    is taken out, for no id of it means nothing.
    """

    def augment(record, generator):
        drawn = int(generator.integers(2**62))
        changed = {}
        for m in (m for m in modalities if len(record[m])):
            length, waveform = len(record[m]), is_waveform(features[m])
            draws = np.random.default_rng([drawn, MODALITIES.index(m)]).random(
                -(-length // BLOCK) if waveform else length
            )
            lost = np.repeat(draws < share, BLOCK)[:length] if waveform else draws < share
            changed[m] = _without_steps(record[m], lost, features[m])
        return {**record, **changed}

    return augment


def _without_steps(array, lost_T, feature):
    if isinstance(array, Frames):
        return array.edit([_black if lost else _same for lost in lost_T])
    if not feature.step_shape and not is_waveform(feature):
        return array[~lost_T]
    array = np.array(array)
    array[lost_T] = 0
    return array


def _black(picture: Image.Image) -> Image.Image:
    return Image.new(picture.mode, picture.size)


def _same(picture: Image.Image) -> Image.Image:
    return picture


def add_noise(
    features: Mapping[str, Feature], deviations: Mapping[str, np.ndarray], modalities: Sequence[str], scale: float
) -> Augmentation:
    """Adds normal noise to every value of these modalities; its standard deviation is `scale` times that of the value.

    deviations: of each value of a modality, (D,) or a number, as records are when augmented: 1 where the modality is
    normalised. Whole numbers are rounded, and stay within the range of their type.
    """

    def augment(record, generator):
        drawn = int(generator.integers(2**62))
        changed = {}
        for m in (m for m in modalities if len(record[m])):
            noise = np.random.default_rng([drawn, MODALITIES.index(m)]).standard_normal(record[m].shape, np.float32)
            array = record[m] + np.float32(scale) * np.asarray(deviations[m], np.float32) * noise
            if features[m].dtype == 'int16':
                array = np.clip(np.round(array), -(2**15), 2**15 - 1)
            changed[m] = array.astype(record[m].dtype)
        return {**record, **changed}

    return augment
