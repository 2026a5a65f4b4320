"""Augmentations of single records: functions (record, generator) -> record, drawn anew for every record and epoch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmer_jax.data.schema import MODALITIES, Edit, Frames

Record = dict[str, Any]
Augmentation = Callable[[Record, np.random.Generator], Record]
TRIES = 10  # draws of a box before the fallback, as torchvision does


def _values(record: Record, modality: str, name: str) -> np.ndarray:
    if isinstance(record[modality], Frames):
        raise ValueError(
            f'{name} is for numbers, and {modality} holds pictures; use random_resized_crop or horizontal_flip'
        )
    return record[modality]


def gaussian_noise(modality: str, scale: float) -> Augmentation:
    """Adds normal noise of standard deviation `scale` (after normalisation) to every value of a modality."""

    def augment(record, generator):
        array = _values(record, modality, 'gaussian_noise')
        noise = generator.standard_normal(array.shape, np.float32)
        return {**record, modality: array + np.float32(scale) * noise}

    return augment


def random_crop(modality: str, steps: int) -> Augmentation:
    """Keeps `steps` consecutive steps of a modality from a random place (all of it where it is shorter)."""

    def augment(record, generator):
        start = int(generator.integers(max(len(record[modality]) - steps, 0) + 1))
        return {**record, modality: record[modality][start : start + steps]}

    return augment


def time_mask(modality: str, steps: int, count: int = 1) -> Augmentation:
    """Sets `count` runs of up to `steps` steps to 0 (SpecAugment, Park et al. 2019, without warping)."""

    def augment(record, generator):
        array = _values(record, modality, 'time_mask').copy()
        for _ in range(count):
            width = int(generator.integers(min(steps, len(array)) + 1))
            start = int(generator.integers(len(array) - width + 1))
            array[start : start + width] = 0
        return {**record, modality: array}

    return augment


def frequency_mask(modality: str, bins: int, count: int = 1) -> Augmentation:
    """Sets `count` runs of up to `bins` features to 0 over the whole record (SpecAugment)."""

    def augment(record, generator):
        array = _values(record, modality, 'frequency_mask').copy()
        for _ in range(count):
            width = int(generator.integers(min(bins, array.shape[-1]) + 1))
            start = int(generator.integers(array.shape[-1] - width + 1))
            array[..., start : start + width] = 0
        return {**record, modality: array}

    return augment


def time_shift(modality: str, steps: int) -> Augmentation:
    """Moves a sequence by up to `steps` steps to either side; its first or its last step fills what is freed."""

    def augment(record, generator):
        array = _values(record, modality, 'time_shift')
        by = int(generator.integers(-steps, steps + 1))
        return {**record, modality: array[np.clip(np.arange(len(array)) + by, 0, max(len(array) - 1, 0))]}

    return augment


def speed(modality: str, ratio: tuple[float, float] = (0.9, 1.1)) -> Augmentation:
    """Plays a sequence faster or slower, by a factor drawn from `ratio` (Ko et al. 2015): resampled in time, linearly.

    What is slower is cut at the end, as a sequence may not become longer than planned. Of samples it changes the pitch
    too, of frames the tempo alone.
    """
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f'speed: expected 0 < low <= high, found ratio {ratio}')

    def augment(record, generator):
        array, factor = _values(record, modality, 'speed'), generator.uniform(*ratio)
        if not len(array):
            return record
        last = len(array) - 1
        place = np.minimum(np.arange(min(len(array), max(round(len(array) / factor), 1))) * factor, last)
        before = place.astype(np.int64)
        share = (place - before).astype(np.float32).reshape(-1, *(1,) * (array.ndim - 1))
        found = array[before] * (1 - share) + array[np.minimum(before + 1, last)] * share
        return {**record, modality: _as_before(found, array)}

    return augment


def frequency_shift(modality: str, bins: float) -> Augmentation:
    """Moves the features of all frames by up to `bins` places up or down, linearly between them: on mel bands another
    length of the vocal tract (after Jaitly and Hinton 2013). The outermost feature fills what is freed.
    """

    def augment(record, generator):
        array = _values(record, modality, 'frequency_shift')
        last = array.shape[-1] - 1
        place = np.clip(np.arange(last + 1) + generator.uniform(-bins, bins), 0, last)
        below = place.astype(np.int64)
        share = (place - below).astype(np.float32)
        found = array[..., below] * (1 - share) + array[..., np.minimum(below + 1, last)] * share
        return {**record, modality: _as_before(found, array)}

    return augment


def _as_before(found: np.ndarray, array: np.ndarray) -> np.ndarray:
    """In the type of the record: samples stay whole numbers."""
    return (np.round(found) if np.issubdtype(array.dtype, np.integer) else found).astype(array.dtype)


def random_resized_crop(
    modality: str,
    scale: tuple[float, float] = (0.8, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    size: int | None = None,
    per: str = 'clip',
) -> Augmentation:
    """Cuts a random box out of pictures (T, H, W, C) and resizes it to size x size (None: H x W), bilinear.

    The box has a share of the area drawn from `scale` and an aspect drawn from `ratio` (log-uniform), as torchvision's
    RandomResizedCrop. per='clip' cuts all frames alike, per='frame' each by itself, as CFN-SR's code does. A share
    above 1 (its scale is (0.8, 1.4)) rarely fits: after ten draws that do not, the largest box of an allowed aspect in
    the middle is taken, as torchvision does, which is the whole of a square picture.
    """
    if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f'random_resized_crop: expected 0 < low <= high, found scale {scale} and ratio {ratio}')

    def crop(picture, generator):
        width, height = picture.size
        box = random_box(width, height, scale, ratio, generator)
        # Cut first: a resize of a box lets the filter reach beyond it.
        return picture.crop(box).resize((size, size) if size else picture.size, Image.Resampling.BILINEAR)

    return _of_pictures('random_resized_crop', modality, per, crop)


def horizontal_flip(modality: str, probability: float = 0.5, per: str = 'clip') -> Augmentation:
    """Mirrors pictures (T, H, W, C) left to right: a clip as a whole, or (per='frame', CFN-SR's code) each frame."""
    if not 0 <= probability <= 1:
        raise ValueError(f'horizontal_flip: expected a probability in 0..1, found {probability}')

    def flip(picture, generator):
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < probability else picture

    return _of_pictures('horizontal_flip', modality, per, flip)


def _of_pictures(name: str, modality: str, per: str, change: Callable[..., Image.Image]) -> Augmentation:
    """change(picture, generator) of every picture, all from one draw or each from its own; Frames stay undecoded.

    A record without pictures stays as it is.
    """
    if per not in ('clip', 'frame'):
        raise ValueError(f"{name}: per={per!r}, expected 'clip' or 'frame'")

    def augment(record, generator):
        pictures = record[modality]
        if not len(pictures):
            return record
        seeds = generator.integers(2**62, size=len(pictures) if per == 'frame' else 1)
        # A change draws from its own seed when it is made: by then the size of the picture is known.
        edits: list[Edit] = [
            functools.partial(_change, change=change, seed=int(seeds[number % len(seeds)]))
            for number in range(len(pictures))
        ]
        if isinstance(pictures, Frames):
            return {**record, modality: pictures.edit(edits)}
        if pictures.ndim != 4 or pictures.dtype != np.uint8:
            found = f'{pictures.dtype} of shape {pictures.shape}'
            raise ValueError(f'{name}: {modality} holds {found}, expected pictures, uint8 (T, H, W, C)')
        grey = pictures.shape[-1] == 1
        edited = np.stack(
            [
                np.asarray(edit(Image.fromarray(x[..., 0] if grey else x)))
                for edit, x in zip(edits, pictures, strict=True)
            ]
        )
        return {**record, modality: edited[..., None] if grey else edited}

    return augment


def _change(picture: Image.Image, *, change: Callable[..., Image.Image], seed: int) -> Image.Image:
    return change(picture, np.random.default_rng(seed))


def random_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """left, top, right, bottom in whole pixels, drawn as torchvision's RandomResizedCrop draws it."""
    for _ in range(TRIES):
        area = height * width * generator.uniform(*scale)
        aspect = np.exp(generator.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def modality_dropout(probability: float) -> Augmentation:
    """Each modality that a record has is missing with this probability, at random, but never all of them.

    What is missing has no step, and a mask that is False throughout, as in a record that lacks it: so trained, a model
    can do without a modality (`evaluate --every_subset`). Of n modalities one is missing in p - p^n / n of the records.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f'modality_dropout: expected a probability in 0..1, found {probability}')

    def augment(record, generator):
        present = [m for m in MODALITIES if m in record and len(record[m])]
        dropped = generator.random(len(present)) < probability
        if dropped.all() and present:
            dropped[generator.integers(len(present))] = False
        return {**record, **{m: record[m][:0] for m, drop in zip(present, dropped, strict=True) if drop}}

    return augment


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    'gaussian_noise': gaussian_noise,
    'random_crop': random_crop,
    'time_mask': time_mask,
    'frequency_mask': frequency_mask,
    'frequency_shift': frequency_shift,
    'time_shift': time_shift,
    'speed': speed,
    'random_resized_crop': random_resized_crop,
    'horizontal_flip': horizontal_flip,
    'modality_dropout': modality_dropout,
}


def make_augmentations(entries: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Augmentation, ...]:
    """((name, options), ...) of the config -> callables; an unknown name lists the known ones."""
    for name, _ in entries:
        if name not in AUGMENTATIONS:
            raise ValueError(f'augmentation {name!r} is unknown; the known ones are {", ".join(AUGMENTATIONS)}')
    return tuple(AUGMENTATIONS[name](**options) for name, options in entries)
