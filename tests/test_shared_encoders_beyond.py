"""What the shared-encoder report proposes: the spectrogram in every patch of a ViT, a 3-D CNN in front of VideoMAE."""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import pretrained
from mmer_jax.encoders import ConvVideoMae, VideoMae, Vit
from mmer_jax.encoders.convolution import scale_images
from mmer_jax.encoders.vit import take_evenly
from mmer_jax.models import StackedInput, build_model
from mmer_jax.results.table_config import read_table

TINY = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'intermediate_size': 8}
SIDE, PATCH = 16, 8
VIT = Vit(**TINY, image_size=SIDE, patch_size=PATCH, patch_channels=1, context_size=3)
MODEL = StackedInput(('audio', 'vision'), 3, VIT, 'channel')
NETWORK = VideoMae(**TINY, image_size=SIDE, patch_size=PATCH, num_frames=4)
CONV = ConvVideoMae(NETWORK, frames=8, features=2)
WIDE = (8, SIDE, 2 * SIDE, 3)


def pictures(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def batch_of(seed=0, rows=4):
    batch = {m: pictures((rows, 1, SIDE, SIDE, 1), seed + k) for k, m in enumerate(('vision', 'audio'))}
    return batch | {f'{m}_mask': np.ones((rows, 1), bool) for m in ('vision', 'audio')}


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def randomised(variables):
    """Variables in which nothing is 0, so that every path is open."""
    generator = np.random.default_rng(3)
    return jax.tree.map(lambda p: (p + 0.2 * generator.standard_normal(p.shape)).astype(p.dtype), variables)


def silent(gradient):
    named = jax.tree_util.tree_leaves_with_path(gradient)
    return [jax.tree_util.keystr(path) for path, leaf in named if not np.any(leaf)]


# ---- the spectrogram in every patch --------------------------------------------------------------------------


@pytest.fixture(scope='module')
def stacked():
    return randomised(MODEL.init(jax.random.key(0), batch_of(), train=False))


@jax.jit
def predict(variables, batch):
    return MODEL.apply(variables, batch, train=False)['prediction']


@jax.jit
def tokens(variables, x):
    """(B, 1 + N, D) before the first layer."""
    mask = jnp.ones((len(x), 1), bool)
    return VIT.apply({'params': variables['params']['encoder']}, x, mask, train=False, method='embed')[0]


def test_the_embedded_spectrogram_is_concatenated_with_each_patch(stacked):
    """The dense layer over (patch, embedding), written out."""
    x = np.random.default_rng(1).standard_normal((2, SIDE, SIDE, 2)).astype(np.float32)
    own = stacked['params']['encoder']['embeddings']
    context = x[..., 1:].reshape(2, -1) @ own['context']['kernel'] + own['context']['bias'][None]
    kernel = np.concatenate([own['patches']['kernel'].reshape(PATCH * PATCH, -1), own['context_patches']['kernel']])
    expected = []
    for top in (0, PATCH):
        for left in (0, PATCH):
            patch = x[:, top : top + PATCH, left : left + PATCH, 0].reshape(2, -1)
            expected.append(np.concatenate([patch, context], 1) @ kernel + own['patches']['bias'][None])
    expected = np.stack(expected, 1) + own['positions'][:, 1:]
    np.testing.assert_allclose(tokens(stacked, x)[:, 1:], expected, rtol=1e-5, atol=1e-5)


def test_every_patch_token_depends_on_every_part_of_the_spectrogram(stacked):
    x = np.random.default_rng(1).standard_normal((1, SIDE, SIDE, 2)).astype(np.float32)
    gradient = jax.jit(jax.jacobian(lambda x: tokens(stacked, x)[0].sum(-1)))(x)[:, 0]  # (1 + N, H, W, 2)
    assert not np.any(gradient[0])  # the class token has no pixels
    assert np.all(gradient[1:, ..., 1])
    seen = np.any(gradient[1:, ..., 0].reshape(4, 2, PATCH, 2, PATCH), axis=(2, 4)).reshape(4, 4)
    np.testing.assert_array_equal(seen, np.eye(4, dtype=bool))  # of the face its own patch


def test_a_gradient_reaches_both_pictures_and_every_parameter(stacked):
    x = np.random.default_rng(1).standard_normal((2, SIDE, SIDE, 2)).astype(np.float32)

    def loss(params, x):
        batch = {m: x[:, None, ..., k : k + 1] for k, m in enumerate(('vision', 'audio'))}
        masks = {f'{m}_mask': jnp.ones((2, 1), bool) for m in batch}
        return (MODEL.apply({'params': params}, {**batch, **masks}, train=False)['prediction'] ** 2).sum()

    params, pixels = jax.jit(jax.grad(loss, (0, 1)))(stacked['params'], x)
    # A key's bias moves all logits of a query alike; the softmax does not see it.
    assert [name for name in silent(params) if "['key']['bias']" not in name] == []
    assert np.all(np.any(pixels, axis=(1, 2)))


@pytest.mark.parametrize('hidden', ['vision', 'audio'])
def test_a_hidden_picture_has_no_part(stacked, hidden):
    batch, other = batch_of(), batch_of(seed=7)
    seen = predict(stacked, batch)
    batch[f'{hidden}_mask'] = np.zeros((4, 1), bool)
    expected = predict(stacked, batch)
    assert np.isfinite(expected).all()
    assert np.abs(expected - seen).max() > 1e-3
    np.testing.assert_array_equal(predict(stacked, {**batch, hidden: other[hidden]}), expected)


def test_rows_are_apart_and_padding_rows_are_black(stacked):
    batch, other = batch_of(), batch_of(seed=7)
    mixed = {key: np.concatenate([value[:2], other[key][2:]]) for key, value in batch.items()}
    np.testing.assert_allclose(predict(stacked, mixed)[:2], predict(stacked, batch)[:2], atol=1e-6)
    for m in ('vision', 'audio'):
        batch[f'{m}_mask'][2:] = mixed[f'{m}_mask'][2:] = False
    np.testing.assert_array_equal(predict(stacked, mixed), predict(stacked, batch))


def test_one_picture_alone_makes_it_a_plain_vit():
    x, mask = pictures((2, SIDE, SIDE, 1)), np.ones((2, 1), bool)
    plain = Vit(**TINY, image_size=SIDE, patch_size=PATCH)
    outcomes = [
        jax.jit(lambda x, encoder=encoder: encoder.init_with_output(jax.random.key(0), x, mask, train=False))(x)
        for encoder in (plain, VIT)
    ]
    jax.tree.map(np.testing.assert_array_equal, *outcomes)  # features, mask and parameters
    three = Vit(**TINY, image_size=SIDE, patch_size=PATCH, patch_channels=3)
    with pytest.raises(ValueError, match='pictures have 1 channels, patch_channels = 3'):
        three.init(jax.random.key(0), x, mask, train=False)


# ---- the 3-D CNN in front of VideoMAE ------------------------------------------------------------------------


def clips(shape=WIDE, seed=0, rows=3):
    return pictures((rows, *shape), seed), np.ones((rows, shape[0]), bool)


def run(encoder, x, mask):
    """Features and what is pooled of them."""
    features, valid = encoder(x, mask, train=False)
    return features, encoder.pool(features, valid, train=False)


@pytest.fixture(scope='module')
def front():
    return jax.jit(nn.init(run, CONV))(jax.random.key(0), *clips())


encode = jax.jit(nn.apply(run, CONV))


@jax.jit
def encode_plain(variables, x, mask):
    return nn.apply(run, NETWORK)({'params': variables['params']['network']}, x, mask)


def shrunk_means(x):
    """Normalised clips (B, 8, H, 2 H, 3) -> means over two frames and two columns, and their mask."""
    scaled = np.asarray(scale_images(x, NETWORK.mean, NETWORK.std, jnp.float32))
    return scaled.reshape(len(x), 4, 2, SIDE, SIDE, 2, 3).mean((2, 5)), np.ones((len(x), 4), bool)


def test_at_the_start_it_is_videomae_on_the_means_of_blocks(front):
    x, mask = clips()
    for found, expected in zip(encode(front, x, mask), encode_plain(front, *shrunk_means(x)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_at_the_start_it_is_videomae_on_a_clip_of_its_size(front):
    encoder = ConvVideoMae(NETWORK, frames=4, features=2)
    x, mask = clips((7, SIDE, SIDE, 3))
    mask[1, 5:] = False
    found, _ = jax.jit(lambda x, mask: encoder.apply(front, x, mask, train=False))(x, mask)
    np.testing.assert_allclose(found, encode_plain(front, x, mask)[0], atol=1e-5)


def test_only_the_last_convolution_moves_first_and_then_all_do(front):
    x, mask = clips()

    def loss(params):
        return (encode({'params': params}, x, mask)[1] ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    kernel = front['params']['front']['conv3']['kernel']
    assert not np.any(kernel)
    assert np.any(gradient(front['params'])['front']['conv3']['kernel'])
    trained = randomised(front)
    assert silent(gradient(trained['params'])) == []
    assert np.abs(encode(trained, x, mask)[1] - encode_plain(trained, *shrunk_means(x))[1]).max() > 1e-3


def test_frames_are_taken_among_the_valid_ones_and_padding_has_no_part(front):
    variables, (x, mask) = randomised(front), clips((11, SIDE, 2 * SIDE, 3))
    mask[0, 9:], mask[2] = False, False
    expected, pooled = encode(variables, x, mask)
    chosen = np.asarray(take_evenly(x, mask, 8))
    np.testing.assert_array_equal(chosen[0], x[0, [0, 1, 2, 3, 5, 6, 7, 8]])
    again, _ = encode(variables, chosen[:2], np.ones((2, 8), bool))
    np.testing.assert_allclose(again, expected[:2], atol=1e-5)
    other, _ = clips((11, SIDE, 2 * SIDE, 3), seed=5)
    changed, changed_pooled = encode(variables, np.where(mask[..., None, None, None], x, other), mask)
    np.testing.assert_allclose(changed, expected, atol=1e-6)
    np.testing.assert_allclose(changed_pooled, pooled, atol=1e-6)
    assert not np.any(expected[2])


def test_rows_are_apart(front):
    variables, (x, mask), (other, _) = randomised(front), clips(), clips(seed=5)
    mixed = np.concatenate([x[:1], other[1:]])
    np.testing.assert_allclose(encode(variables, mixed, mask)[0][0], encode(variables, x, mask)[0][0], atol=1e-6)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((8, SIDE, SIDE + 4, 3), r'8 frames of \(16, 20\), expected multiples of 4 frames of \(16, 16\)'),
        ((8, SIDE // 2, SIDE, 3), r'8 frames of \(8, 16\), expected multiples'),
        ((SIDE, SIDE, 3), r'expected \(B, T, H, W, C\)'),
    ],
)
def test_clips_that_do_not_fit_are_named(shape, message):
    x, mask = clips(shape)
    with pytest.raises(ValueError, match=message):
        CONV.init(jax.random.key(0), x, mask, train=False)


def test_remat_of_the_network_and_bfloat16(front):
    x, mask = clips()
    low = ConvVideoMae(NETWORK.clone(dtype=jnp.bfloat16, remat=True), 8, 2, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(nn.init(run, low), jax.random.key(0), x, mask)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
    found, _ = jax.jit(nn.apply(run, low))(front, x, mask)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), encode(front, x, mask)[0], atol=0.1)


# ---- configs -------------------------------------------------------------------------------------------------

SHAPES = {  # config, variant: (vision, audio) of a batch at full size, and the parameters it states
    ('vit_patch_spectrogram_crema_d', ''): ((1, 224, 224, 1), 27_256_646),
    ('vit_patch_spectrogram_crema_d', 'pretrained'): ((1, 224, 224, 3), 95_486_278),
    ('videomae_conv_crema_d', ''): ((32, 224, 224, 3), None),
}


@pytest.mark.parametrize(('name', 'variant'), SHAPES)
def test_parameters_are_those_that_the_config_states(name, variant):
    module = importlib.import_module(f'configs.{name}')
    config, (shape, stated) = module.get_config(variant), SHAPES[name, variant]
    model = build_model(config.model.to_dict(), modalities=config.modalities, num_outputs=6, dtype=jnp.float32)
    batch = {m: jax.ShapeDtypeStruct((2, *shape), jnp.uint8) for m in config.modalities}
    batch |= {f'{m}_mask': jax.ShapeDtypeStruct((2, shape[0]), bool) for m in config.modalities}
    params = jax.eval_shape(lambda batch: model.init(jax.random.key(0), batch, train=False), batch)['params']
    if stated is None:
        stated = size(params['encoder']['front'])
        assert stated == 2_419
    else:
        assert size(params) == stated
    assert f'{stated:,}' in module.__doc__


def weights(folder, family, variables):
    return pretrained.save_pretrained(folder, {'params': variables}, {'family': family, 'fields': TINY})


def test_weights_of_a_vit_load_and_what_embeds_the_spectrogram_begins_anew(tmp_path, stacked):
    config = importlib.import_module('configs.vit_patch_spectrogram_crema_d').get_config('pretrained')
    plain = Vit(**TINY, image_size=SIDE, patch_size=PATCH)
    x, mask = pictures((1, SIDE, SIDE, 1)), np.ones((1, 1), bool)
    given = randomised(jax.jit(nn.init(run, plain))(jax.random.key(5), x, mask))['params']
    folder = weights(tmp_path / 'vit', 'vit', given)
    assert pretrained.fill_fields(config.model.to_dict(), {'encoder': folder})['encoder']['hidden_size'] == 8
    loaded, _ = pretrained.load_pretrained(folder)
    (path,) = config.pretrained
    after = pretrained.graft(stacked, loaded, path=path, fresh=config.fresh)['params']['encoder']
    before = stacked['params']['encoder']['embeddings']
    kernel = given['embeddings']['patches']['kernel']
    np.testing.assert_array_equal(after['embeddings']['patches']['kernel'], kernel)
    np.testing.assert_array_equal(after['layer_0']['attention']['query']['kernel'],
                                  given['layer_0']['attention']['query']['kernel'])  # fmt: skip
    np.testing.assert_array_equal(after['embeddings']['context']['kernel'], before['context']['kernel'])
    with pytest.raises(ValueError, match='context.* is in the model, but not loaded'):
        pretrained.graft(stacked, loaded, path=path)


def test_weights_of_videomae_load_behind_the_front(tmp_path, front):
    config = importlib.import_module('configs.videomae_conv_crema_d').get_config()
    model = StackedInput(('audio', 'vision'), 3, CONV, 'width')
    batch = {m: pictures((1, 8, SIDE, SIDE, 3)) for m in ('audio', 'vision')}
    batch |= {f'{m}_mask': np.ones((1, 8), bool) for m in ('audio', 'vision')}
    variables = model.init(jax.random.key(0), batch, train=False)
    given = randomised(front)['params']['network']
    joined = np.concatenate([batch['vision'], batch['audio']], 3)
    _, pooled = encode_plain({'params': {'network': given}}, *shrunk_means(joined))
    folder = weights(tmp_path / 'videomae', 'videomae', given)
    (path,) = config.pretrained
    filled = pretrained.fill_fields(config.model.to_dict(), {path: folder})
    assert filled['encoder']['network']['hidden_size'] == 8
    after = pretrained.graft(variables, pretrained.load_pretrained(folder)[0], path=path, fresh=config.fresh)
    outputs = jax.jit(lambda variables, batch: model.apply(variables, batch, train=False))(after, batch)
    np.testing.assert_allclose(outputs['features'], pooled, atol=1e-5)


def test_every_row_of_the_table_is_repeated_and_only_the_plain_ones_are_published():
    table = read_table('configs/tables/shared_encoders_beyond.py')
    assert table.seeds == 5
    published = {row.label: row.published.get('accuracy') for row in table.rows if row.published}
    assert published == {
        'ViT': 0.6909, 'Pretrained ViT': 0.829, 'VideoMAE': 0.366, 'VideoMAE (face)': 0.188, 'VideoMAE (voice)': 0.372,
    }  # fmt: skip
    assert sum('3D CNN' in row.label for row in table.rows) == 3
    assert sum('every patch' in row.label and bool(row.config) for row in table.rows) == 2
