"""The log-mel filterbank of AST against Hugging Face's feature extractor, and what padding may and may not do."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.filterbank import kaldi_fbank, mel_bands, num_frames
from mmer_jax.encoders.vit import AUDIOSET_MEAN, AUDIOSET_STD, Ast
from tests.golden import make_ast_fbank as golden

SAMPLES = 5200
TINY = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'intermediate_size': 8}
fbank = jax.jit(kaldi_fbank)


def batch_of(waves, samples=SAMPLES):
    """Sounds of unequal lengths, padded on the right -> (B, S) of their dtype, mask."""
    mask = np.arange(samples)[None] < np.array([len(wave) for wave in waves])[:, None]
    return np.stack([np.pad(wave, (0, samples - len(wave))) for wave in waves]), mask


def model_input(x, mask, **fields):
    return jax.jit(lambda x, mask: Ast(**TINY, **fields).apply({}, x, mask, method='spectrogram'))(x, mask)


@pytest.fixture(scope='module')
def stored():
    with np.load(golden.PATH) as file:
        return dict(file)


@pytest.fixture(scope='module')
def batch():
    generator = np.random.default_rng(1)
    return batch_of([(0.1 * generator.standard_normal(n)).astype(np.float32) for n in (5200, 3001, 400, 399)])


def test_golden(stored):
    """int16 samples to the transformer's input, padding included; the file names the version that made it."""
    assert str(stored['origin']).startswith('ASTFeatureExtractor of transformers')
    waves = np.split(stored['waves'], np.cumsum(golden.LENGTHS)[:-1])
    wanted = np.full((3, 64, 128), -AUDIOSET_MEAN / (2 * AUDIOSET_STD), np.float32)
    for row, frames in zip(wanted, np.split(stored['input'], np.cumsum(golden.NUM_FRAMES)[:-1]), strict=True):
        row[: len(frames)] = frames
    got, mask = model_input(*batch_of(waves), max_length=64)
    assert mask.sum(1).tolist() == list(golden.NUM_FRAMES)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_live():
    pytest.importorskip('torch', reason='torch, which the extractor needs, is not installed')
    generator, time = np.random.default_rng(2), np.arange(SAMPLES) / 16000
    waves = [0.5 * np.sin(2 * np.pi * 440 * time), generator.uniform(-1, 1, 4321), 0.2 + 0 * time[:1600]]
    waves += [0.01 * np.sin(2 * np.pi * 3000 * time[:560]), generator.standard_normal(2000) * 1e-4, 0 * time[:800]]
    waves = [wave.astype(np.float32) for wave in waves]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of transformers itself
        wanted = golden.extract(waves)
    x, mask = batch_of(waves)
    got, _ = model_input(x[..., None], mask)
    assert got.shape == wanted.shape == (6, 1024, 128)
    np.testing.assert_allclose(got * 2 * AUDIOSET_STD, wanted * 2 * AUDIOSET_STD, atol=1e-3)


def test_a_tone_is_in_its_band():
    """One band takes most of a tone's energy: the one whose centre in mel is nearest."""
    mel = 1127 * np.log1p(np.array([20.0, 1000.0, 8000.0]) / 700)
    nearest = round((mel[1] - mel[0]) / (mel[2] - mel[0]) * 129) - 1
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLES) / 16000)[None].astype(np.float32)
    frames, mask = fbank(tone, np.ones(tone.shape, bool))
    assert abs(int(np.asarray(frames[0].mean(0)).argmax()) - nearest) <= 1
    louder, _ = fbank(2 * tone, np.ones(tone.shape, bool))
    assert float((louder - frames)[0, :, nearest].mean()) == pytest.approx(np.log(4), abs=1e-3)
    assert bool(mask.all())


@pytest.mark.parametrize(('bands', 'empty'), [(14, []), (128, [3])])
def test_bands_are_triangles(bands, empty):
    """Neighbours add up to 1 between the first and the last centre; one of AST's narrowest bands holds no frequency."""
    weights = mel_bands(bands)
    assert weights.shape == (257, bands)
    assert np.flatnonzero(weights.max(0) == 0).tolist() == empty
    top, bottom = 1127 * np.log1p(8000 / 700), 1127 * np.log1p(20 / 700)
    centres = bottom + (top - bottom) * np.array([1, bands]) / (bands + 1)
    first, last = 700 * np.expm1(centres / 1127) * 512 / 16000
    np.testing.assert_allclose(weights[int(first) + 1 : int(last) + 1].sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(weights[[0, -1]], 0)


def test_valid_frames_lie_wholly_within_the_sound(batch):
    frames, mask = fbank(*batch)
    assert frames.shape == (4, num_frames(SAMPLES), 128) == (4, 31, 128)
    assert mask.sum(1).tolist() == [31, 17, 1, 0]
    np.testing.assert_array_equal(frames[~np.asarray(mask)], 0)


def test_padding_changes_nothing(batch):
    x, mask = batch
    frames, _ = fbank(x, mask)
    other, _ = fbank(np.where(mask, x, np.nan).astype(np.float32), mask)
    np.testing.assert_array_equal(frames, other)
    for row in (1, 2):
        n = int(mask[row].sum())
        alone, valid = fbank(x[row : row + 1, :n], mask[row : row + 1, :n])
        assert bool(valid.all())
        np.testing.assert_allclose(alone[0], frames[row, : num_frames(n)], atol=1e-4)


def test_a_sound_shorter_than_a_frame_is_padding():
    x, mask = np.ones((2, 399), np.int16), np.ones((2, 399), bool)
    frames, valid = fbank(x.astype(np.float32), mask)
    assert frames.shape == (2, 1, 128)
    assert not valid.any()
    np.testing.assert_array_equal(frames, 0)
    encoder = Ast(**TINY, max_length=32)
    init = jax.jit(lambda x, mask: encoder.init_with_output(jax.random.key(0), x, mask, train=False))
    (features, steps), _ = init(x, mask)
    assert not steps.any()
    np.testing.assert_array_equal(features, 0)


def test_gradient_is_finite(batch):
    """In silence, where the logarithm is cut, and in rows without a frame too; it is 0 in the padding."""
    x, mask = (np.concatenate([array, array[:1]]) for array in batch)
    x[-1] = 0
    gradient = jax.jit(jax.grad(lambda x: jnp.square(kaldi_fbank(x, mask)[0]).sum()))(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~mask], 0)
    assert (np.abs(gradient[:3]).max(1) > 0).all()
    np.testing.assert_array_equal(gradient[3], 0)


def test_ast_takes_frames_waveforms_and_integers_alike(batch):
    x, mask = batch[0][:3], batch[1][:3]
    whole = np.round(x * 32768).astype(np.int16)
    samples = whole.astype(np.float32) / 32768
    wanted, valid = model_input(*fbank(samples, mask), max_length=40)
    for wave in (whole, whole[..., None], samples, samples[..., None]):
        got, steps = model_input(wave, mask, max_length=40)
        np.testing.assert_array_equal(steps, valid)
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    cut, _ = model_input(whole, mask, max_length=20)
    np.testing.assert_allclose(cut, wanted[:, :20], atol=1e-4)
    with pytest.raises(ValueError, match='40 mel bands, this encoder takes 128'):
        model_input(np.zeros((2, 9, 40), np.float32), np.ones((2, 9), bool))
    with pytest.raises(ValueError, match='int16 or floating point, found int32'):
        model_input(whole.astype(np.int32), mask)
