"""stacked_input: the same encoder sees one picture or both joined; hidden and padded steps are black and masked."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmer_jax.encoders.convolution import scale_images
from mmer_jax.layers import mask_steps, masked_mean
from mmer_jax.models.stacked_input import StackedInput

BOTH = ('audio', 'vision')


class Pixels(nn.Module):
    """Every pixel of every step as a feature: what the model was shown can be read from its features."""

    @nn.compact
    def __call__(self, x, mask_BT, *, train):
        return mask_steps(x.reshape(*x.shape[:2], -1).astype(np.float32), mask_BT), mask_BT

    def pool(self, features_BTD, mask_BT, *, train):
        return masked_mean(features_BTD, mask_BT)


def make_batch(steps=2, height=3, widths=(4, 4), channels=(1, 1), rows=2):
    generator = np.random.default_rng(0)
    batch = {}
    for m, width, size in zip(('vision', 'audio'), widths, channels, strict=True):
        batch[m] = generator.integers(1, 256, (rows, steps, height, width, size)).astype(np.uint8)
        batch[f'{m}_mask'] = np.ones((rows, steps), bool)
    return batch


def outputs(batch, modalities=BOTH, join='channel'):
    model = StackedInput(modalities, 3, Pixels(), join)
    return model.init_with_output(jax.random.key(0), batch, train=False)[0]


@pytest.mark.parametrize(('join', 'axis'), [('height', 2), ('width', 3), ('channel', 4)])
def test_the_face_comes_first(join, axis):
    batch = make_batch()
    expected = np.concatenate([batch['vision'], batch['audio']], axis).reshape(2, 2, -1).mean(1)
    found = outputs(batch, join=join)
    np.testing.assert_allclose(found['features'], expected, rtol=1e-6)
    assert found['prediction'].shape == (2, 3)


@pytest.mark.parametrize('m', BOTH)
def test_one_modality_goes_in_as_it_is(m):
    batch = make_batch()
    expected = batch[m].reshape(2, 2, -1).mean(1)
    np.testing.assert_allclose(outputs(batch, (m,))['features'], expected, rtol=1e-6)


def test_a_hidden_modality_is_black_and_padded_steps_do_not_count():
    batch = make_batch()
    batch['audio_mask'][:] = False
    expected = np.concatenate([batch['vision'], np.zeros_like(batch['audio'])], 4).reshape(2, 2, -1).mean(1)
    np.testing.assert_allclose(outputs(batch)['features'], expected, rtol=1e-6)
    batch['vision_mask'][1, 1] = False
    found = outputs(batch)['features']
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    first = np.concatenate([batch['vision'], np.zeros_like(batch['audio'])], 4).reshape(2, 2, -1)[1, 0]
    np.testing.assert_allclose(found[1], first, rtol=1e-6)


def test_widths_may_differ_where_they_are_joined():
    batch = make_batch(widths=(6, 2))
    assert outputs(batch, join='width')['features'].shape == (2, 3 * 8)
    with pytest.raises(ValueError, match="join 'channel' needs pictures that agree"):
        outputs(batch)


def test_what_is_joined_is_resized():
    batch = make_batch(height=4)
    model = StackedInput(BOTH, 3, Pixels(), 'height', resize=4)
    found = model.init_with_output(jax.random.key(0), batch, train=False)[0]['features']
    assert found.shape == (2, 4 * 4)
    top = batch['vision'].astype(float).mean((1, 2, 3, 4))
    np.testing.assert_allclose(found[:, :8].mean(1), top, atol=12)


@pytest.mark.parametrize(
    ('modalities', 'join', 'message'),
    [(('text', 'vision'), 'width', 'pictures of vision, audio'), (BOTH, 'depth', "join 'depth' is unknown")],
)
def test_faults_are_named(modalities, join, message):
    with pytest.raises(ValueError, match=message):
        outputs(make_batch(), modalities, join)


def test_joined_channels_are_scaled_one_picture_after_the_other():
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, (2, 2, 2, 6)).astype(np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    parts = [scale_images(part, mean, std, np.float32) for part in (x[..., :3], x[..., 3:])]
    np.testing.assert_allclose(scale_images(x, mean, std, np.float32), np.concatenate(parts, -1), atol=1e-6)
