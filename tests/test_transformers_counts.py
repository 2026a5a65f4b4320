"""The pretrained transformers: parameter counts at full size, heads included; padding, bfloat16, remat, errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.bert import Bert, DistilBert, Roberta
from mmer_jax.encoders.transformer import SelfAttention
from mmer_jax.encoders.vit import Ast, VideoMae, Vit, alternating_positions
from mmer_jax.encoders.wav2vec2 import (
    Hubert,
    Wav2Vec2,
    conv_lengths,
    grouped_convolution,
    grouped_convolution_fft,
    prepare_waveform,
    span_mask,
)

# x without its batch axis, at full size
FULL = {
    'tokens': ((6,), jnp.int32),
    'wave': ((800,), jnp.float32),
    'frames': ((50, 128), jnp.float32),
    'picture': ((1, 224, 224, 3), jnp.uint8),
    'clip': ((16, 224, 224, 3), jnp.uint8),
}


class Classifier(nn.Module):
    encoder: nn.Module
    classes: int

    @nn.compact
    def __call__(self, x, mask, *, train):
        features, mask = self.encoder(x, mask, train=train)
        return nn.Dense(self.classes)(self.encoder.pool(features, mask, train=train).astype(jnp.float32))


@pytest.mark.parametrize(
    ('encoder', 'kind', 'classes', 'count'),
    [
        (Bert(projector=768), 'tokens', 4, 109_485_316),
        (Roberta(projector=768), 'tokens', 4, 124_648_708),
        (DistilBert(projector=768), 'tokens', 4, 66_956_548),
        (Wav2Vec2(projector=256), 'wave', 4, 94_569_604),
        (Hubert(projector=256), 'wave', 4, 94_569_604),
        (Ast(), 'frames', 4, 86_191_876),
        (VideoMae(), 'clip', 4, 86_230_276),
        (Vit(), 'picture', 6, 85_803_270),
    ],
    ids=['bert', 'roberta', 'distilbert', 'wav2vec2', 'hubert', 'ast', 'videomae', 'vit'],
)
def test_parameter_counts(encoder, kind, classes, count):
    """As Hugging Face's classifiers of the same size, their heads included."""
    shape, dtype = FULL[kind]
    x, mask = jax.ShapeDtypeStruct((1, *shape), dtype), jax.ShapeDtypeStruct((1, shape[0]), bool)
    init = Classifier(encoder, classes).init
    variables = jax.eval_shape(lambda x, mask: init(jax.random.key(0), x, mask, train=False), x, mask)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count


SMALL = {'hidden_size': 8, 'num_layers': 2, 'num_heads': 2, 'intermediate_size': 12}
WAVE = {'conv_sizes': (6, 4), 'conv_kernels': (5, 3), 'conv_strides': (3, 2), 'position_kernel': 4}
WAVE |= {'position_groups': 2, 'mask_span': 3}
TEXT = {'vocab_size': 20, 'max_positions': 16}
PICTURE = {'image_size': 8, 'patch_size': 4}
LARGE = {'conv_norm': 'layer', 'pre_norm': True, 'final_norm': True}
SPECTROGRAM = {'num_bands': 14, 'max_length': 20, 'patch_size': 8, 'frequency_stride': 5, 'time_stride': 5}
# name: encoder, shape of a step, longest row
CASES = {
    'bert': (Bert, TEXT, (), 9),
    'roberta': (Roberta, TEXT, (), 9),
    'wav2vec2': (Wav2Vec2, WAVE, (), 50),
    'wav2vec2_large': (Wav2Vec2, {**WAVE, **LARGE}, (), 50),
    'vit': (Vit, PICTURE, (8, 8, 3), 5),
    'ast': (Ast, SPECTROGRAM, (14,), 16),
    'videomae': (VideoMae, {**PICTURE, 'num_frames': 4}, (8, 8, 3), 7),
}
LENGTHS = np.array([1.0, 0.6, 0.0, 0.8])  # of the longest row; the third is a padding row


def build(name, **changes):
    encoder, fields, _, _ = CASES[name]
    return Classifier(encoder(**{**SMALL, **fields, 'projector': 5, **changes}), 3)


def batch_of(name, padding=0):
    """x and mask; what stands at padded steps differs with `padding`, the number of steps added on the right."""
    encoder, _, step, steps = CASES[name]
    generator = np.random.default_rng(0)
    lengths = np.round(LENGTHS * steps).astype(int)
    mask = np.arange(steps + padding)[None] < lengths[:, None]
    draw = {
        Bert: lambda shape: generator.integers(4, 20, shape).astype(np.int32),
        Vit: lambda shape: generator.integers(256, size=shape).astype(np.uint8),
    }
    draw |= {Roberta: draw[Bert], VideoMae: draw[Vit]}
    values = draw.get(encoder, lambda shape: generator.standard_normal(shape).astype(np.float32))
    x = values((len(lengths), steps, *step))
    if padding:
        x = np.concatenate([x, values((len(lengths), padding, *step))], 1)
        x[~mask] = values(x[~mask].shape)
    return x, mask


@pytest.fixture(scope='module')
def made():
    """name -> variables and compiled function (variables, x, mask), made once."""
    cache = {}

    def get(name):
        if name not in cache:
            model, generator = build(name), np.random.default_rng(1)
            init = jax.eval_shape(lambda: model.init(jax.random.key(1), *batch_of(name), train=False))
            variables = jax.tree_util.tree_map_with_path(
                lambda path, p: (0.3 * generator.standard_normal(p.shape) + (path[-1].key == 'scale')).astype(p.dtype),
                init,
            )
            cache[name] = variables, jax.jit(lambda v, x, mask: model.apply(v, x, mask, train=False))
        return cache[name]

    return get


@pytest.mark.parametrize('name', CASES)
def test_padding_changes_nothing(made, name):
    variables, run = made(name)
    x, mask = batch_of(name)
    alone = np.asarray(run(variables, x, mask))
    assert np.isfinite(alone).all()
    assert np.abs(alone[0] - alone[1]).max() > 1e-4  # rows differ, so the input is seen
    padded = run(variables, *batch_of(name, padding=3))
    np.testing.assert_allclose(padded, alone, atol=2e-5)
    order = [3, 1, 2, 0]
    np.testing.assert_allclose(run(variables, x[order], mask[order]), alone[order], atol=2e-5)


@pytest.mark.parametrize('name', ['bert', 'wav2vec2', 'videomae'])
def test_bfloat16(made, name):
    variables, run = made(name)
    x, mask = batch_of(name)
    model = build(name, dtype=jnp.bfloat16)
    both = jax.jit(lambda v: model.apply(v, x, mask, train=False, capture_intermediates=True))
    logits, captured = both(variables)
    (features, _), *_ = captured['intermediates']['encoder']['__call__']
    assert features.dtype == jnp.bfloat16
    wanted = np.asarray(run(variables, x, mask))
    np.testing.assert_allclose(logits, wanted, atol=0.05 * np.abs(wanted).max())


def test_remat_gives_the_same_gradient(made):
    """And really recomputes: its backward pass has more products of matrices."""
    variables, _ = made('bert')
    x, mask = batch_of('bert')

    def gradient(remat):
        model = build('bert', remat=remat, num_layers=1)
        rngs = {'dropout': jax.random.key(2)}

        def loss(variables):
            return jnp.square(model.apply(variables, x, mask, train=True, rngs=rngs)).sum()

        lowered = jax.jit(jax.grad(loss)).lower(variables)
        return lowered.compile()(variables), lowered.as_text().count('dot_general')

    (plain, products), (recomputed, more) = gradient(False), gradient(True)
    assert more > products
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, recomputed)


def test_training_drops_and_hides(made):
    """Dropout, layer drop and hidden frames act in training, and every parameter has a gradient."""
    model = build('wav2vec2', layer_drop=0.5, mask_share=0.5)
    variables, _ = made('wav2vec2')
    x, mask = batch_of('wav2vec2')

    @jax.jit
    def run(variables, key):
        def loss(variables):
            output = model.apply(variables, x, mask, train=True, rngs={'dropout': key})
            return jnp.square(output[:2]).sum(), output

        return jax.grad(loss, has_aux=True)(variables)

    results = [run(variables, jax.random.key(seed)) for seed in range(6)]
    assert np.abs(results[0][1] - results[1][1]).max() > 1e-3
    total = jax.tree.map(lambda *g: np.sum(np.abs(np.stack(g))), *(gradient for gradient, _ in results))
    still = [path for path, g in jax.tree_util.tree_leaves_with_path(total) if not g > 1e-7]
    # A constant added to every key changes no softmax.
    assert {path[-2].key for path in still} <= {'key'}
    skipped = [np.abs(g['params']['encoder']['layer_0']['output']['kernel']).max() == 0 for g, _ in results]
    assert 0 < sum(skipped) < 6


def test_any_layer(made):
    variables, _ = made('bert')
    x, mask = batch_of('bert')
    whole = build('bert').encoder.bind({'params': variables['params']['encoder']})
    states, _ = whole.states(x, mask, train=False)
    assert len(states) == 3
    for layer in (0, 1, 2, -2):
        encoder = build('bert', return_layer=layer).encoder
        features, _ = encoder.apply({'params': variables['params']['encoder']}, x, mask, train=False)
        np.testing.assert_allclose(features, np.where(mask[..., None], states[layer], 0), atol=1e-6)
    with pytest.raises(ValueError, match='return_layer = 3: the states are 0 to 2'):
        build('bert', return_layer=3).init(jax.random.key(0), x, mask, train=False)


def test_attention_by_hand():
    """With and without dropout's path the weights are the softmax over the valid steps."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 4, 6)).astype(np.float32)
    mask = np.array([[True, True, True, False]])
    layer = SelfAttention(2, dropout=1e-9)
    variables = layer.init(jax.random.key(0), x, mask, False)
    p = jax.tree.map(np.asarray, variables['params'])
    q, k, v = (x[0] @ p[n]['kernel'] + p[n]['bias'] for n in ('query', 'key', 'value'))
    mixed = np.zeros((4, 6))
    for head in (slice(0, 3), slice(3, 6)):
        weights = np.exp(q[:, head] @ k[:3, head].T / np.sqrt(3))
        mixed[:, head] = weights / weights.sum(1, keepdims=True) @ v[:3, head]
    wanted = mixed @ p['out']['kernel'] + p['out']['bias']
    for train in (False, True):
        got = layer.apply(variables, x, mask, train, rngs={'dropout': jax.random.key(0)})
        np.testing.assert_allclose(got[0], wanted, atol=1e-6)


# Input


def test_token_types_and_ids(made):
    variables, run = made('bert')
    x, mask = batch_of('bert')
    plain = run(variables, x, mask)
    zeros = run(variables, np.stack([x, np.zeros_like(x)], -1), mask)
    ones = run(variables, np.stack([x, np.ones_like(x)], -1), mask)
    np.testing.assert_allclose(zeros, plain, atol=1e-6)
    assert np.abs(np.asarray(ones) - plain).max() > 1e-4
    with pytest.raises(ValueError, match='integers, found bfloat16'):
        run(variables, jnp.asarray(x, jnp.bfloat16), mask)
    long = np.ones((4, 17), np.int32)
    with pytest.raises(ValueError, match='17 tokens are more than the 16 positions'):
        run(variables, long, long > 0)
    variables, run = made('roberta')
    with pytest.raises(ValueError, match='15 tokens are more than the 14 positions'):
        run(variables, long[:, :15], long[:, :15] > 0)


def test_waveforms():
    """16-bit integers are scaled; mean and deviation are those of the valid samples."""
    x = np.array([[1000, -2000, 4000, 77], [5, 5, 5, 5]], np.int16)
    mask = np.array([[True, True, True, False], [False] * 4])
    scaled = prepare_waveform(jnp.asarray(x), mask, normalize=False)
    np.testing.assert_allclose(scaled[0], [1000 / 32768, -2000 / 32768, 4000 / 32768, 0])
    np.testing.assert_array_equal(prepare_waveform(jnp.asarray(x)[..., None], mask, normalize=False), scaled)
    row = x[0, :3] / 32768
    wanted = (row - row.mean()) / np.sqrt(row.var() + 1e-7)
    got = prepare_waveform(jnp.asarray(x), mask, normalize=True)
    np.testing.assert_allclose(got[0], [*wanted, 0], atol=1e-5)
    np.testing.assert_array_equal(got[1], 0)
    with pytest.raises(ValueError, match='int16 or floating point, found int32'):
        prepare_waveform(jnp.asarray(x, jnp.int32), mask, normalize=True)
    with pytest.raises(ValueError, match=r'found shape \(2, 4, 3\)'):
        prepare_waveform(jnp.zeros((2, 4, 3)), mask, normalize=True)


def test_frames_of_a_waveform(made):
    """wav2vec 2.0 base: 400 samples are one frame, then one every 320; ten seconds are 499."""
    kernels, strides = Wav2Vec2.conv_kernels, Wav2Vec2.conv_strides
    lengths = conv_lengths(jnp.array([0, 399, 400, 719, 720, 160000]), kernels, strides)
    assert lengths.tolist() == [0, 0, 1, 1, 2, 499]
    variables, run = made('wav2vec2')
    short = run(variables, np.ones((4, 2), np.float32), np.ones((4, 2), bool))  # less than one frame
    nothing = run(variables, np.zeros((4, 50), np.float32), np.zeros((4, 50), bool))
    np.testing.assert_allclose(short, nothing, atol=1e-6)


@pytest.mark.parametrize('taps', [5, 8])
def test_convolutions_agree(taps):
    """The one by Fourier transforms that training on CPU takes, and the native one; one tap by hand."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 7, 6)).astype(np.float32)
    kernel = generator.standard_normal((taps, 3, 6)).astype(np.float32)

    def both(x, kernel):
        ways = (grouped_convolution, grouped_convolution_fft)
        return [(way(x, kernel, 2), jax.grad(lambda k: jnp.sin(way(x, k, 2)).sum())(kernel)) for way in ways]  # noqa: B023

    (native, gradient), (fft, gradient_fft) = jax.jit(both)(x, kernel)
    np.testing.assert_allclose(native, fft, atol=1e-5)
    np.testing.assert_allclose(gradient, gradient_fft, atol=1e-5)
    single = np.zeros_like(kernel)
    single[taps // 2] = kernel[0]  # the tap of the step itself
    wanted = np.concatenate([x[..., :3] @ kernel[0, :, :3], x[..., 3:] @ kernel[0, :, 3:]], -1)
    np.testing.assert_allclose(grouped_convolution(x, single, 2), wanted, atol=1e-5)


def test_norm_over_padding_is_the_original_flaw(made):
    variables, run = made('wav2vec2')
    flawed = build('wav2vec2', norm_over_padding=True)
    x, mask = batch_of('wav2vec2')
    difference = jax.jit(lambda v: flawed.apply(v, x, mask, train=False))(variables) - run(variables, x, mask)
    assert np.abs(difference[0]).max() < 2e-5  # the longest row has no padding
    assert np.abs(difference[1]).max() > 1e-4


def test_spans_of_hidden_frames():
    lengths = jnp.array([40, 12, 3, 0])
    draw = jax.jit(lambda key: span_mask(key, lengths, 40, 0.25, 5, 2))
    masks = np.stack([draw(jax.random.key(seed)) for seed in range(50)])
    assert not masks[:, 1, 12:].any()
    assert not masks[:, 2:].any()  # no span fits
    counts = masks.sum(2)
    assert counts[:, 0].max() <= 15
    assert counts[:, 0].min() >= 6  # two spans of five, overlapping but not equal
    assert (counts[:, 1] >= 6).all()
    assert len({row.tobytes() for row in masks[:, 0]}) > 40
    begun = np.diff(masks[:, 0].astype(int), prepend=0) == 1
    for mask, starts in zip(masks[:, 0], begun, strict=True):
        for start in np.flatnonzero(starts):
            assert mask[start : start + 5].all()


def test_clips_and_pictures(made):
    """ViT takes the middle valid frame, VideoMAE frames at equal distances; a clip of num_frames keeps its own."""
    variables, run = made('vit')
    x, mask = batch_of('vit')
    counts = mask.sum(1)
    middle = np.take_along_axis(x, (counts // 2)[:, None, None, None, None], 1)
    np.testing.assert_allclose(run(variables, x, mask), run(variables, middle, mask.any(1)[:, None]), atol=1e-6)
    np.testing.assert_allclose(run(variables, middle[:, 0], mask.any(1)), run(variables, x, mask), atol=1e-6)
    variables, run = made('videomae')
    x, mask = batch_of('videomae')
    chosen = {7: [0, 2, 4, 6], 4: [0, 1, 2, 3], 0: [0, 0, 0, 0], 6: [0, 2, 3, 5]}
    frames = np.stack([row[chosen[count]] for row, count in zip(x, mask.sum(1).tolist(), strict=True)])
    np.testing.assert_allclose(
        run(variables, x, mask), run(variables, frames, np.repeat(mask.any(1)[:, None], 4, 1)), atol=1e-6
    )
    with pytest.raises(ValueError, match=r'pictures are \(6, 8, 3\), this encoder takes \(8, 8, C\)'):
        run(variables, x[:, :, :6], mask)


def test_spectrograms(made):
    """Cut to max_length; what is missing is a frame of zeros."""
    variables, run = made('ast')
    x, mask = batch_of('ast')
    whole = np.pad(np.where(mask[..., None], x, 0), ((0, 0), (0, 4), (0, 0)))
    seen = np.ones((4, 20), bool)
    np.testing.assert_allclose(run(variables, x, mask)[:2], run(variables, whole, seen)[:2], atol=1e-5)
    longer = np.concatenate([whole, np.ones((4, 9, 14), np.float32)], 1)
    np.testing.assert_allclose(run(variables, longer, np.ones((4, 29), bool)), run(variables, whole, seen), atol=1e-5)
    with pytest.raises(ValueError, match='13 mel bands, this encoder takes 14'):
        run(variables, x[..., :13], mask)


def test_alternating_positions():
    table = alternating_positions(3, 4)
    np.testing.assert_allclose(table[0], [0, 1, 0, 1])
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)], rtol=1e-6)
