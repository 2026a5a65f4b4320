"""Functionals of a clip's sound: what they say of tones whose pitch, loudness and length are known."""

import numpy as np
import pytest

from mmer_jax.media import functionals as module
from mmer_jax.media.functionals import SAMPLE_RATE, SIZE, functionals
from mmer_jax.readers import Sound

MELODY = SIZE - 15  # ten of the pitch, then five of the whole


def tone(hertz=220.0, seconds=1.0, loudness=0.3, silence=0.0):
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = sum(np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 6))
    return np.concatenate([np.zeros(int(silence * SAMPLE_RATE)), loudness * harmonics / 2]).astype(np.float32)


@pytest.fixture(scope='module')
def plain():
    return functionals(tone())


def test_size_type_and_pitch(plain):
    assert (plain.shape, plain.dtype) == ((645,), np.float32)
    assert np.isfinite(plain).all()
    assert plain[MELODY] == pytest.approx(np.log2(220), abs=0.03)  # mean of the pitch in octaves
    assert functionals(tone(440))[MELODY] == pytest.approx(plain[MELODY] + 1, abs=0.03)


def test_half_the_loudness_is_six_decibels_and_the_same_pitch(plain):
    half = functionals(tone(loudness=0.15))
    loudest = SIZE - 2
    assert half[loudest] - plain[loudest] == pytest.approx(-6.02, abs=0.01)
    np.testing.assert_allclose(half[MELODY : MELODY + 10], plain[MELODY : MELODY + 10], atol=1e-3)
    means = slice(0, module.NUM_MELS)  # of the mel bands: all louder by as much, where they are above the floor
    shift = (half - plain)[means][plain[means] > -40]
    assert len(shift) > 5
    np.testing.assert_allclose(shift, -6.02, atol=0.05)


def test_silence_around_the_active_part_says_nothing(plain):
    later = functionals(tone(silence=0.512))
    length = SIZE - 5
    assert later[length] == pytest.approx(plain[length], abs=0.05)  # logarithm of the active frames
    assert later[MELODY] == pytest.approx(plain[MELODY], abs=0.03)


@pytest.mark.parametrize('samples', [np.zeros(5000), np.full(5000, np.nan), np.zeros((2, 50)), np.zeros(0)])
def test_what_has_no_functionals_is_refused(samples):
    with pytest.raises(ValueError, match='expected finite samples'):
        functionals(samples)


def test_a_very_short_clip_has_them():
    assert np.isfinite(functionals(tone(seconds=0.005))).all()


def test_a_reader_at_another_rate_is_refused():
    assert Sound('functionals', 16000).feature().shape == (SIZE,)
    with pytest.raises(ValueError, match='functionals are of 16000 Hz, found sample_rate 44100'):
        Sound('functionals')
