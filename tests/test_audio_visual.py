"""The models audio_visual and cfn_sr: counts of the paper's tables, coupled stages, masks, errors."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.encoders.erann import Erann
from mmer_jax.encoders.mfcc_cnn import MfccCnn
from mmer_jax.encoders.mlp import VectorEncoder
from mmer_jax.encoders.protocol import STAGES
from mmer_jax.layers import fix_length, mask_steps
from mmer_jax.losses import make_loss
from mmer_jax.models.audio_visual import COUPLED, FUSIONS, AudioVisual
from mmer_jax.models.cfn_sr import CfnSr
from mmer_jax.run.step import init_state, make_train_step
from tests.gradients import check_faint

BOTH = ('audio', 'vision')
ROWS, CLASSES, FRAMES = 4, 3, 24


class TinyVideo(nn.Module):
    """A video encoder with the stages of resnext3d, of few channels, and a fixed window of 4 frames."""

    channels: tuple[int, ...] = (2, 3, 4, 8, 16)
    num_frames: int = 4
    dtype: Any = jnp.float32

    stages = STAGES
    masks_steps = False

    def setup(self):
        strides = ((1, 2, 2), (1, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1))
        self.convs = [nn.Conv(c, (3, 3, 3), s, dtype=self.dtype) for c, s in zip(self.channels, strides, strict=True)]

    def prepare(self, x, mask_BT):
        x = fix_length(mask_steps(x, mask_BT), self.num_frames)
        return x, jnp.broadcast_to(mask_BT.any(1)[:, None], x.shape[:2])

    def _stage(self, number, x, rows_B):
        return mask_steps(nn.relu(self.convs[number](x)), rows_B[:, None])

    def stem(self, x, rows_B, *, train):
        return self._stage(0, x, rows_B)

    def stage1(self, x, rows_B, *, train):
        return self._stage(1, x, rows_B)

    def stage2(self, x, rows_B, *, train):
        return self._stage(2, x, rows_B)

    def stage3(self, x, rows_B, *, train):
        return self._stage(3, x, rows_B)

    def stage4(self, x, rows_B, *, train):
        return self._stage(4, x, rows_B)

    def pool(self, features, mask_BT, *, train):
        return features.mean((1, 2, 3))

    def __call__(self, x, mask_BT, *, train):
        x, mask_BT = self.prepare(x, mask_BT)
        rows_B = mask_BT.any(1)
        for stage in (self.stem, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x, rows_B, train=train)
        return x, jnp.broadcast_to(rows_B[:, None], x.shape[:2])


AUDIO = MfccCnn(num_frames=FRAMES, dropout=0.0, head_dropout=0.0)
UNITS = VectorEncoder((6,), dropout=0.0)
SMALL = {'hidden_size': 6, 'sketch_size': 64, 'block_channels': (4, 8), 'block_dropout': 0.0}
BLOCK = {'width': 8, 'num_layers': 1, 'num_heads': 2}
QUIET = {'attention_dropout': 0.0, 'relu_dropout': 0.0, 'residual_dropout': 0.0, 'embedding_dropout': 0.0}


def audio_visual(fusion, vision=None, **fields):
    return AudioVisual(BOTH, CLASSES, AUDIO, vision or TinyVideo(), fusion, **{**SMALL, **fields})


def cfn_sr(vision=None, modalities=BOTH, **fields):
    return CfnSr(modalities, CLASSES, AUDIO, vision or TinyVideo(), **{**BLOCK, **QUIET, **fields})


def make_batch(rows=ROWS, *, units=False, extra=0, garbage=0.0, seed=0):
    """MFCC frames and clips (or vectors) of unequal lengths; `extra` more padded steps, garbage at padded ones."""
    generator = np.random.default_rng(seed)
    batch = {'label': generator.integers(CLASSES, size=rows), 'weight': np.ones(rows, np.float32)}
    for m, steps, shape in (('audio', FRAMES, (13,)), ('vision', 1 if units else 4, (5,) if units else (8, 8, 3))):
        mask = np.arange(steps + extra) < generator.integers(1, steps + 1, rows)[:, None]
        values = np.zeros((rows, steps + extra, *shape), np.float32)
        values[:, :steps] = generator.standard_normal((rows, steps, *shape))
        batch[m] = np.where(mask.reshape(*mask.shape, *(1,) * len(shape)), values, garbage).astype(np.float32)
        batch[f'{m}_mask'] = mask
    return batch


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(model, variables, batch):
    return model.apply(variables, batch, train=False)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


CASES = {
    **{fusion: audio_visual(fusion) for fusion in FUSIONS},
    'vectors_mmtm': audio_visual('mmtm', UNITS),
    'vectors_msaf': audio_visual('msaf', UNITS),
    'erann_mmtm': audio_visual('mmtm').clone(audio=Erann(width=1, blocks=1)),
    'cfn_sr': cfn_sr(),
    'without_block': cfn_sr(direction='none'),
    'video_to_audio': cfn_sr(direction='video_to_audio'),
    'vectors_to_audio': cfn_sr(UNITS, direction='video_to_audio', self_attention=False, residual=False),
}
# Parameters whose gradient is 0 up to rounding, patterns of names by case: biases that every logit of a softmax, or
# every row of a batch, shares.
JOINT, SCORE, KEY = r'^msaf\d/joint/bias$', r'^cross_modal/score/bias$', r'/key/bias$'
FAINT = {
    'msaf': (JOINT,), 'vectors_msaf': (JOINT,), 'cfn_sr': (SCORE, KEY), 'video_to_audio': (SCORE, KEY),
    'vectors_to_audio': (SCORE,),
}  # fmt: skip
SGD = optax.sgd(1.0, momentum=0.5)  # after one step its trace is the gradient
WITH_STATISTICS = ('msaf', 'cfn_sr')  # those whose blocks could mix rows


@pytest.fixture(scope='module', params=CASES, ids=CASES)
def case(request):
    model, units = CASES[request.param], 'vectors' in request.param
    state = init_state(model, SGD, make_batch(units=units), 0)
    variables = {'params': state.params, **state.model_state}
    predict = jax.jit(lambda batch: model.apply(variables, batch, train=False)['prediction'])
    return request.param, model, units, state, predict


def test_padding_order_and_other_rows_change_nothing(case):
    _, _, units, _, predict = case
    batch = make_batch(units=units)
    expected = np.asarray(predict(batch))
    assert expected.shape == (ROWS, CLASSES)
    assert expected.dtype == np.float32
    longer = make_batch(units=units, extra=2, garbage=np.nan)
    np.testing.assert_allclose(predict(longer), expected, atol=1e-5)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(predict({key: value[order] for key, value in batch.items()}), expected[order], atol=1e-5)
    other = make_batch(units=units, seed=1)
    mixed = predict({key: np.concatenate([value[:1], other[key][1:]]) for key, value in batch.items()})
    np.testing.assert_allclose(mixed[0], expected[0], atol=1e-5)
    assert np.abs(np.asarray(mixed)[1:] - expected[1:]).max() > 1e-4


def test_every_parameter_learns_and_padding_rows_change_no_training_step(case):
    name, model, units, state, _ = case
    batch = make_batch(units=units)
    step = jax.jit(make_train_step(model, SGD, make_loss({'cross_entropy': 1.0})))
    padded = {key: np.concatenate([value, np.zeros_like(value[:2])]) for key, value in batch.items()}
    new, numbers = step(state, padded)
    # The whole path through an attention map has little gradient in networks as small as these.
    check_faint(new.opt_state[0].trace, FAINT.get(name, ()), share=1e-5)
    if name in WITH_STATISTICS:
        expected, expected_numbers = step(state, batch)
        np.testing.assert_allclose(numbers['loss'], expected_numbers['loss'], rtol=1e-5)
        assert_same(new, expected)


def assert_same(new, expected):
    pairs = zip(*(jax.tree.leaves((state.params, state.model_state)) for state in (new, expected)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_both_modalities_matter(case):
    _, _, units, _, predict = case
    batch, other = make_batch(units=units), make_batch(units=units, seed=1)
    for m in BOTH:
        changed = predict({**batch, m: other[m], f'{m}_mask': other[f'{m}_mask']})
        assert np.abs(np.asarray(changed - predict(batch))).max() > 1e-4, m


# Counts of the paper's tables


MSAF = {'fusion': 'msaf'}
RESNEXT = 25_882_056 - (2048 * 8 + 8)  # published, less its head


class Shapes(TinyVideo):
    """The shapes of resnext3d's maps, without its parameters and without a convolution to trace."""

    channels: tuple[int, ...] = (64, 256, 512, 1024, 2048)

    def setup(self):
        pass

    def _stage(self, number, x, rows_B):
        return jnp.zeros((len(x), 2, 7, 7, self.channels[number]))


def parameters(model, vision, fields):
    batch = {
        'audio': jnp.zeros((1, 212, 13)), 'audio_mask': jnp.ones((1, 212), bool),
        'vision': jnp.zeros((1, 30, 224, 224, 3), jnp.uint8), 'vision_mask': jnp.ones((1, 30), bool),
    }  # fmt: skip
    module = model(BOTH, 8, MfccCnn(), vision, **fields)
    return count(jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))['params'])


@pytest.mark.parametrize(
    ('model', 'fields', 'expected'),
    [
        (AudioVisual, {'fusion': 'averaging'}, 25_916_080),
        (AudioVisual, {'fusion': 'concat_fc', 'modality_heads': True}, 26_868_664),
        (AudioVisual, {'fusion': 'concat_fc'}, 26_838_952),
        (AudioVisual, {'fusion': 'compact_bilinear'}, 26_014_376),
        (AudioVisual, {'fusion': 'mmtm'}, 31_496_512),
        (AudioVisual, MSAF, 25_940_724),
        (CfnSr, {}, 26_301_417),
        (CfnSr, {'direction': 'none'}, 25_916_072),
        (CfnSr, {'direction': 'video_to_audio'}, 26_301_417),
        (CfnSr, {'self_attention': False}, 26_051_369),
        (CfnSr, {'residual': False}, 26_301_417),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_parameter_counts(model, fields, expected):
    assert RESNEXT + parameters(model, Shapes(), fields) == expected


@pytest.mark.parametrize(('model', 'fields', 'expected'), [(CfnSr, {}, 26_301_417), (AudioVisual, MSAF, 25_940_724)])
def test_parameter_counts_with_the_video_network(model, fields, expected):
    resnext3d = pytest.importorskip('mmer_jax.encoders.resnext3d')
    assert parameters(model, resnext3d.ResNeXt3D(), fields) == expected


# Coupled stages


@pytest.mark.parametrize('fusion', COUPLED)
def test_coupling_goes_between_the_last_stages(fusion):
    """Blocks have the channels of the stages before them: 8 and 16 of the video, 32 and 64 of the audio."""
    params = jax.eval_shape(lambda: audio_visual(fusion).init(jax.random.key(0), make_batch(), train=False))['params']
    for number, channels in enumerate(((8, 32), (16, 64))):
        block = params[f'{fusion}{number}']
        sizes = {m: block[f'{m}_{"gate" if fusion == "mmtm" else "blocks"}']['bias'].shape for m in ('vision', 'audio')}
        assert sizes == {'vision': channels[:1], 'audio': channels[1:]}


@pytest.mark.parametrize('fusion', COUPLED)
def test_without_its_blocks_a_coupled_network_is_the_plain_one(fusion):
    """Gates of 1/2 times 2 change nothing, so MMTM of zeros is averaging; MSAF of zeros is not, but of even weights."""
    batch = make_batch()
    coupled, plain = audio_visual(fusion), audio_visual('averaging')
    variables = coupled.init(jax.random.key(0), batch, train=False)
    zeros = {name: jax.tree.map(jnp.zeros_like, p) for name, p in variables['params'].items() if fusion in name}
    params = {name: p for name, p in variables['params'].items() if fusion not in name}
    statistics = {name: s for name, s in variables['batch_stats'].items() if fusion not in name}
    out = outputs_of(coupled, {**variables, 'params': {**params, **zeros}}, batch)
    expected = outputs_of(plain, {'params': params, 'batch_stats': statistics}, batch)
    if fusion == 'mmtm':
        np.testing.assert_allclose(out['prediction'], expected['prediction'], rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(out['prediction'], out['modality_logits'].sum(1), rtol=1e-5, atol=1e-6)


def test_vectors_are_coupled_once():
    params = CASES['vectors_msaf'].init(jax.random.key(0), make_batch(units=True), train=False)['params']
    assert [name for name in params if 'msaf' in name] == ['msaf0']
    assert params['msaf0']['joint']['kernel'].shape == (8, 2)  # the last of block_channels
    assert params['msaf0']['audio_blocks']['bias'].shape == (64,)


def test_published_quirk_lets_rows_change_each_other():
    batch, other = make_batch(), make_batch(seed=1)
    mixed = {key: np.concatenate([value[:1], other[key][1:]]) for key, value in batch.items()}
    quirk = cfn_sr(attention_summed_over_batch=True)
    variables = quirk.init(jax.random.key(0), batch, train=False)
    variables['params']['cross_modal']['score']['kernel'] *= (
        100  # sharp maps, for those of random weights are all alike
    )
    one, two = (outputs_of(quirk, variables, b)['prediction'][0] for b in (batch, mixed))
    assert np.abs(np.asarray(one - two)).max() > 1e-4


def test_captured_attention_sums_to_one_in_every_step():
    batch, model = make_batch(), cfn_sr(capture_attention=True)
    variables = model.init(jax.random.key(0), batch, train=False)
    (attention,) = outputs_of(model, variables, batch)['attention'].values()
    assert attention.shape == (ROWS, 2, 4, 4)
    np.testing.assert_allclose(np.asarray(attention).sum((2, 3)), 1, rtol=1e-5)
    assert 'attention' not in jax.eval_shape(functools.partial(cfn_sr().apply, train=False), variables, batch)


# Errors


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'modalities': ('audio',)}, r"needs the modalities audio and vision, found \('audio',\)"),
        ({'fusion': 'sum'}, r"fusion 'sum' is unknown; the known ones are averaging, "),
        ({'fusion': 'mmtm', 'couplings': 3}, r'couplings = 3: .* the encoder of audio has 2 stages'),
        ({'fusion': 'mmtm', 'couplings': 0}, r'couplings = 0: mmtm needs at least 1'),
        ({'fusion': 'msaf', 'block_channels': (4,)}, r'block_channels \(4,\): give one number for each of 2'),
        ({'fusion': 'multiplication', 'num_outputs': 1}, r'two or more classes, found num_outputs = 1'),
    ],
)
def test_audio_visual_errors(change, message):
    model = audio_visual('averaging').clone(**change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(), train=False))


def test_stages_without_their_preparation_are_refused():
    class Silent(nn.Module):
        def __call__(self, x, mask, *, train):
            return x, mask

        def pool(self, x, mask, *, train):
            return x[:, 0]

    class Bare(Silent):
        stages = ('stem',)

        def stem(self, x, rows_B, *, train):
            return x

    with pytest.raises(ValueError, match=r'that of vision, Silent, is no mmer_jax.encoders.Encoder: give it pool'):
        audio_visual('mmtm', Silent(), couplings=1).init(jax.random.key(0), make_batch(), train=False)
    with pytest.raises(ValueError, match=r'Bare has stages but is no StagedEncoder.*: give it prepare\(x, mask\)'):
        audio_visual('mmtm', Bare(), couplings=1).init(jax.random.key(0), make_batch(), train=False)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'modalities': ('text', 'audio')}, r'cfn_sr needs the modalities audio and vision'),
        (
            {'direction': 'both'},
            r"direction 'both' is unknown; the known ones are audio_to_video, video_to_audio, none",
        ),
    ],
)
def test_cfn_sr_errors(change, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: cfn_sr(**change).init(jax.random.key(0), make_batch(), train=False))
