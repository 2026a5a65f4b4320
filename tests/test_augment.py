"""Augmentations: drawn anew, never in place; those of pictures by clip or by frame, decoded or not."""

import numpy as np
import pytest
from PIL import Image

from mmer_jax.data import augment
from mmer_jax.data.schema import Frames, encode_frames


def pictures(count=6, height=24, width=24, channels=3):
    """Pictures of one smooth pattern, (count, H, W, C) uint8, every one the same, no two pixels of a row alike."""
    y, x = np.mgrid[:height, :width]
    one = np.stack([4 + 10 * x, 8 * y + x, 250 - 5 * x - 4 * y], -1)[..., :channels]
    return np.tile(one.astype(np.uint8), (count, 1, 1, 1))


@pytest.mark.parametrize(
    ('name', 'options', 'check'),
    [
        ('gaussian_noise', {'scale': 0.5}, lambda a, b: a.shape == b.shape and 0.2 < np.std(a - b) < 1),
        ('random_crop', {'steps': 4}, lambda a, b: len(a) == 4 and any((a == b[i : i + 4]).all() for i in range(6))),
        ('time_mask', {'steps': 3}, lambda a, b: 0 < (a == 0).all(1).sum() <= 3 and ((a == b) | (a == 0)).all()),
        ('frequency_mask', {'bins': 2}, lambda a, b: 0 < (a == 0).all(0).sum() <= 2),
        (
            'time_shift',
            {'steps': 2},
            lambda a, b: a.shape == b.shape and (a[:-2] == b[2:]).all() and (a[-2:] == b[-1]).all(),
        ),
        ('speed', {'ratio': (0.5, 2.0)}, lambda a, b: len(a) <= 9 and (a[0] == b[0]).all()),
        ('frequency_shift', {'bins': 1.5}, lambda a, b: a.shape == b.shape and (a[:, 0] == b[:, 0]).all()),
    ],
)
def test_augmentations(name, options, check):
    array = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    (change,) = augment.make_augmentations([(name, {'modality': 'audio', **options})])
    original = array.copy()
    results = [change({'audio': array}, np.random.default_rng(seed))['audio'] for seed in (5, 5, 6, 7, 8)]
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:])
    assert any(check(result, original) for result in results)
    np.testing.assert_array_equal(array, original)
    assert results[0].dtype == np.float32


def augmented(name, array, seed=0, **options):
    (change,) = augment.make_augmentations([(name, {'modality': 'audio', **options})])
    return change({'audio': array}, np.random.default_rng(seed))['audio']


def test_speed_resamples_a_line_to_a_line_and_never_lengthens():
    ramp = np.stack([np.arange(20.0), -np.arange(20.0)], 1).astype(np.float32)
    for factor, steps in ((0.8, 20), (1.0, 20), (1.25, 16), (30, 1)):
        found = augmented('speed', ramp, ratio=(factor, factor))
        expected = np.minimum(np.arange(steps) * factor, 19)
        np.testing.assert_allclose(found, np.stack([expected, -expected], 1), rtol=1e-5)
        assert found.dtype == np.float32
    tone = (1000 * np.sin(np.arange(400) / 10)).astype(np.int16)
    found = augmented('speed', tone, ratio=(2.0, 2.0))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, tone[::2])
    assert augmented('speed', ramp[:0]).shape == (0, 2)
    with pytest.raises(ValueError, match='speed: expected 0 < low <= high, found ratio'):
        augment.make_augmentations([('speed', {'modality': 'audio', 'ratio': (1.1, 0.9)})])


def test_shifts_move_what_is_there():
    ramp = np.tile(np.arange(8, dtype=np.float32), (5, 1))
    moves = [augmented('frequency_shift', ramp, seed, bins=1.5)[0] for seed in range(20)]
    by = np.array([move[3] - 3 for move in moves])
    assert -1.5 <= by.min() < -0.7
    assert 0.7 < by.max() <= 1.5
    for move, one in zip(moves, by, strict=True):
        np.testing.assert_allclose(move, np.clip(np.arange(8) + one, 0, 7), atol=1e-5)
    moved = {tuple(augmented('time_shift', ramp.T, seed, steps=2)[:, 0]) for seed in range(30)}
    assert moved == {tuple(np.clip(np.arange(8.0) + by, 0, 7)) for by in range(-2, 3)}
    assert augmented('time_shift', ramp[:0], steps=2).shape == (0, 8)


def test_unknown_augmentation_lists_the_known_ones():
    with pytest.raises(ValueError, match="'blur' is unknown; the known ones are gaussian_noise"):
        augment.make_augmentations([('blur', {})])


def apply(name, array, seed=0, **options):
    (change,) = augment.make_augmentations([(name, {'modality': 'vision', **options})])
    return change({'vision': array}, np.random.default_rng(seed))['vision']


@pytest.mark.parametrize(('per', 'alike'), [('clip', True), ('frame', False)])
@pytest.mark.parametrize('name', ['random_resized_crop', 'horizontal_flip'])
def test_a_clip_alike_or_every_frame_by_itself(name, per, alike):
    original = pictures()
    results = [apply(name, original, seed, per=per) for seed in range(6)]
    assert all(r.shape == original.shape and r.dtype == np.uint8 for r in results)
    same = [all((r[0] == frame).all() for frame in r) for r in results]
    assert all(same) if alike else sum(same) <= 1  # six coins may fall alike
    assert any((r != original).any() for r in results)
    np.testing.assert_array_equal(results[0], apply(name, original, 0, per=per))
    np.testing.assert_array_equal(original, pictures())


def test_a_flip_mirrors_left_to_right():
    np.testing.assert_array_equal(apply('horizontal_flip', pictures(), probability=1.0), pictures()[:, :, ::-1])
    np.testing.assert_array_equal(apply('horizontal_flip', pictures(), probability=0.0), pictures())
    flipped = [apply('horizontal_flip', pictures(1), seed, probability=0.25)[0, 0, 0, 0] != 4 for seed in range(400)]
    assert 0.18 < np.mean(flipped) < 0.32


def test_boxes_have_the_share_and_the_aspect_asked_for():
    generator = np.random.default_rng(0)
    boxes = np.array([augment.random_box(160, 120, (0.3, 0.6), (0.8, 1.25), generator) for _ in range(300)])
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    share = width * height / (160 * 120)
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 160
    assert boxes[:, 3].max() <= 120
    assert 0.28 < share.min() < 0.35
    assert 0.55 < share.max() < 0.62
    assert 0.77 < (width / height).min() < 0.85
    assert 1.18 < (width / height).max() < 1.29


def test_a_share_above_one_falls_back_to_the_largest_box():
    """The published (0.8, 1.4): what does not fit in ten draws becomes the whole of a square picture."""
    generator = np.random.default_rng(0)
    assert {augment.random_box(24, 24, (1.2, 1.4), (3 / 4, 4 / 3), generator) for _ in range(20)} == {(0, 0, 24, 24)}
    assert augment.random_box(100, 40, (1.2, 1.4), (0.5, 2.0), generator) == (10, 0, 90, 40)
    assert augment.random_box(40, 100, (1.2, 1.4), (0.5, 2.0), generator) == (0, 10, 40, 90)
    np.testing.assert_array_equal(apply('random_resized_crop', pictures(), scale=(1.2, 1.4)), pictures())
    published = [apply('random_resized_crop', pictures(), seed, scale=(0.8, 1.4), per='frame') for seed in range(3)]
    assert all(result.shape == pictures().shape for result in published)


def test_a_crop_is_resized_to_the_size_asked_for():
    assert apply('random_resized_crop', pictures(), size=16).shape == (6, 16, 16, 3)
    assert apply('random_resized_crop', pictures(channels=1), size=16).shape == (6, 16, 16, 1)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('per', ['clip', 'frame'])
def test_encoded_frames_give_the_same_pictures(per, channels):
    frames = encode_frames(pictures(channels=channels))
    lazy = apply('horizontal_flip', apply('random_resized_crop', frames, 3, per=per), 4, per=per)
    assert isinstance(lazy, Frames)
    eager = apply('horizontal_flip', apply('random_resized_crop', np.asarray(frames), 3, per=per), 4, per=per)
    np.testing.assert_array_equal(np.asarray(lazy), eager)
    np.testing.assert_array_equal(np.asarray(lazy[2:4]), eager[2:4])


def test_frames_that_are_cut_away_are_not_decoded(monkeypatch):
    opened, original = [], Image.open
    monkeypatch.setattr(Image, 'open', lambda *a, **k: opened.append(1) or original(*a, **k))
    frames = apply('random_resized_crop', encode_frames(pictures(20)))
    assert len(np.asarray(apply('random_crop', frames, steps=3))) == 3
    assert len(opened) == 3


@pytest.mark.parametrize(
    'name', ['gaussian_noise', 'time_mask', 'frequency_mask', 'time_shift', 'frequency_shift', 'speed']
)
def test_augmentations_of_numbers_refuse_pictures(name):
    options = {'gaussian_noise': {'scale': 1}, 'speed': {}}.get(name, {'steps' if 'time' in name else 'bins': 2})
    with pytest.raises(ValueError, match=f'{name} is for numbers, and vision holds pictures'):
        apply(name, encode_frames(pictures()), **options)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('random_resized_crop', {'scale': (0, 1)}, 'expected 0 < low <= high'),
        ('random_resized_crop', {'ratio': (2, 1)}, 'expected 0 < low <= high'),
        ('horizontal_flip', {'probability': 1.5}, r'expected a probability in 0..1, found 1.5'),
        ('horizontal_flip', {'per': 'video'}, "per='video', expected 'clip' or 'frame'"),
    ],
)
def test_senseless_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        augment.make_augmentations([(name, {'modality': 'vision', **options})])


def test_pictures_augmentations_refuse_numbers():
    with pytest.raises(ValueError, match=r'vision holds float32 of shape \(4, 8\), expected pictures'):
        apply('horizontal_flip', np.zeros((4, 8), np.float32))
