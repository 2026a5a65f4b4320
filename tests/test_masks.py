"""Masks of another meaning are refused: by every public block, encoder and model, in one line that says what is wrong.

`BLOCKS` and `ENCODER_INPUTS` hold a small example of each; a new public block fails until it stands there, or in
`WITHOUT_MASK`. Nothing is compiled: shapes and types are known when a module is traced.
"""

import inspect
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax import encoders, fusion, layers
from mmer_jax.losses import make_loss
from mmer_jax.models import StackedInput, check_module
from mmer_jax.recurrent import LSTM
from mmer_jax.run.step import init_state, make_eval_step, make_train_step
from tests.test_models import CASES, make, make_batch

ROWS, STEPS, SIZE = 2, 5, 8
MASK = np.arange(STEPS)[None] < np.array([[5], [3]])


def pair(x, mask):
    return {'text': x, 'audio': x}, {'text': mask, 'audio': mask}


def batch_of(x, mask):
    return {'text': x, 'text_mask': mask, 'audio': x, 'audio_mask': mask}


# name -> (the block, its arguments made of one sequence (B, T, D) and one mask (B, T))
BLOCKS = {
    'AlignToAnchor': (fusion.AlignToAnchor('text', 3), lambda x, mask: (batch_of(x, mask), ('text', 'audio'))),
    'Attention': (layers.Attention(2), lambda x, mask: (x, x, mask)),
    'CrossModalResidual': (fusion.CrossModalResidual(8, 1, 2), lambda x, mask: (x, x, mask, mask)),
    'CrossModalTransformer': (fusion.CrossModalTransformer(1, 2), lambda x, mask: (x, x, mask, mask)),
    'CtcAlignment': (fusion.CtcAlignment(3), lambda x, mask: (x, mask)),
    'CyclicTranslation': (fusion.CyclicTranslation(4), lambda x, mask: (x, mask, 3)),
    'HierarchicalCrossModalAttention': (fusion.HierarchicalCrossModalAttention(2), pair),
    'LSTM': (LSTM(4), lambda x, mask: (x, mask)),
    'MessageHub': (fusion.MessageHub(2), lambda x, mask: (pair(x, mask)[0], x, pair(x, mask)[1], mask)),
    'Mmtm': (fusion.Mmtm(), pair),
    'ModalityReinforcementUnit': (fusion.ModalityReinforcementUnit(2), lambda x, mask: (x, x, mask, mask)),
    'Msaf': (fusion.Msaf(4), pair),
    'PairwiseCrossModal': (fusion.PairwiseCrossModal(1, 1, 2, (0.0, 0.0)), pair),
    'PredictiveSelfAttention': (fusion.PredictiveSelfAttention(2), lambda x, mask: (x, mask, None)),
    'ReinforcementUnit': (fusion.ReinforcementUnit(2), lambda x, mask: (x, x, mask, mask)),
    'TemporalConv': (layers.TemporalConv(4), lambda x, mask: (x, mask)),
    'WeightedAttention': (fusion.WeightedAttention(), pair),
}
# Public names of fusion that take no mask: vectors, logits, or words that were masked before.
WITHOUT_MASK = {
    'CompactBilinear', 'ConcatFc', 'DoubleDiscriminator', 'GatedShift', 'averaging', 'multiplication', 'multiplicative',
    'reverse_gradient',
}  # fmt: skip

TINY = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'intermediate_size': 8}
WAVE = {**TINY, 'conv_sizes': (4,), 'conv_kernels': (4,), 'conv_strides': (2,), 'position_kernel': 2}
WAVE |= {'position_groups': 2, 'mask_share': 0.0}
PATCHES = {**TINY, 'image_size': 8, 'patch_size': 4}
PICTURES, CLIPS = ((8, 8, 3), np.float32), ((64, 64, 3), np.float32)
# name in ENCODERS -> (fields of a small one, axes behind (B, T), type of the input)
ENCODER_INPUTS = {
    'ast': ({**TINY, 'max_length': 32, 'num_bands': 16}, (16,), np.float32),
    'bert': ({**TINY, 'vocab_size': 9}, (), np.int32),
    'conv_videomae': ({'network': encoders.VideoMae(**PATCHES, num_frames=2), 'frames': 2}, *PICTURES),
    'distilbert': ({**TINY, 'vocab_size': 9}, (), np.int32),
    'erann': ({'width': 1, 'blocks': 1}, (16,), np.float32),
    'frame_cnn': ({'widths': (4,)}, *PICTURES),
    'googlenet': ({}, *CLIPS),
    'hubert': (WAVE, (), np.float32),
    'i3d': ({'num_frames': 8, 'divisor': 8}, *CLIPS),
    'mfcc_cnn': ({'num_frames': 24}, (13,), np.float32),
    'resnet18': ({'block_counts': (1, 1, 1, 1), 'planes': (4, 4, 4, 4), 'stem_features': 4}, *CLIPS),
    'resnext3d': ({'num_frames': 4, 'block_counts': (1, 1, 1, 1), 'cardinality': 2, 'planes': (32,) * 4}, *CLIPS),
    'roberta': ({**TINY, 'vocab_size': 9}, (), np.int32),
    'simple3d': ({'num_frames': 64, 'features': 2}, *CLIPS),
    'tdnn': ({'width': 4}, (16,), np.float32),
    'vector_encoder': ({}, (8,), np.float32),
    'vgg16': ({'planes': (4,) * 5, 'block_counts': (1,) * 5, 'hidden_size': 4}, *CLIPS),
    'videomae': ({**PATCHES, 'num_frames': 2}, *PICTURES),
    'vit': (PATCHES, *PICTURES),
    'wav2vec2': (WAVE, (), np.float32),
}
NAMES = [*BLOCKS, *ENCODER_INPUTS]


def example(name):
    """(module, the function that makes its arguments, its input)"""
    if name in BLOCKS:
        return *BLOCKS[name], np.zeros((ROWS, STEPS, SIZE), np.float32)
    fields, axes, dtype = ENCODER_INPUTS[name]
    return encoders.ENCODERS[name](**fields), lambda x, mask: (x, mask), np.zeros((ROWS, STEPS, *axes), dtype)


def trace(name, change_mask=lambda mask: mask, change_x=lambda x: x):
    """Shapes of what the block makes of its example, traced only."""
    module, arguments, x = example(name)
    options = {'train': False} if 'train' in inspect.signature(type(module).__call__).parameters else {}
    given = arguments(change_x(x), change_mask(MASK))
    output = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *given, **options)[0])
    return [leaf.shape for leaf in jax.tree.leaves(output)]


def test_every_public_block_and_encoder_is_here():
    assert {*BLOCKS, *WITHOUT_MASK} == {*fusion.__all__, 'Attention', 'LSTM', 'TemporalConv'}
    assert set(ENCODER_INPUTS) == set(encoders.ENCODERS)
    for name in WITHOUT_MASK:
        block = getattr(fusion, name)
        call = type.__getattribute__(block, '__call__') if isinstance(block, type) else block
        assert not any('mask' in parameter for parameter in inspect.signature(call).parameters), name


@pytest.mark.parametrize('name', NAMES)
def test_bool_and_integer_masks_are_taken(name):
    assert trace(name) == trace(name, lambda mask: mask.astype(np.uint8))


WRONG = {
    'additive': (lambda mask: np.where(mask, 0.0, -1e9).astype(np.float32), r'is float32: expected bool .* mask == 0'),
    'zeros and ones': (lambda mask: mask.astype(np.float16), r'is float16: expected bool .* mask > 0.5'),
    'integers that are added': (lambda mask: np.where(mask, 0, -10000), r'holds -10000: expected bool \(or integers 0'),
    'lengths': (lambda mask: mask.sum(1), r'holds 5|shape \(2,\), expected \(2, 5\)'),
    'a last axis of 1': (lambda mask: mask[..., None], r'shape \(2, 5, 1\), expected \(2, 5\)'),
    'pairs': (lambda mask: mask[:, :, None] & mask[:, None], r'shape \(2, 5, 5\), expected \(2, 5\)'),
    'time first': (lambda mask: mask.T, r'shape \(5, 2\), expected \(2, 5\)'),
    'one for all rows': (lambda mask: mask[:1], r'shape \(1, 5\), expected \(2, 5\)'),
    'one step more': (lambda mask: np.pad(mask, ((0, 0), (0, 1))), r'shape \(2, 6\), expected \(2, 5\)'),
    'none': (lambda mask: None, r'missing \(None\)'),
    'a list': (lambda mask: [[True]], r'is list: expected'),
}


@pytest.mark.parametrize('wrong', WRONG)
@pytest.mark.parametrize('name', NAMES)
def test_masks_of_another_meaning_are_refused(name, wrong):
    change, message = WRONG[wrong]
    if name == 'Attention' and wrong == 'pairs':  # what it says it takes
        return
    with pytest.raises(ValueError, match=message) as caught:
        trace(name, change)
    assert '\n' not in str(caught.value)
    assert re.match(r'\w+: |the mask', str(caught.value)), 'the message begins with the block'


@pytest.mark.parametrize('name', [name for name in NAMES if name not in ('vit', 'Mmtm', 'Msaf')])
def test_one_clip_without_a_batch_axis_is_refused(name):
    """Mmtm and Msaf take vectors (B, C) too, Vit and the networks for pictures one picture a row."""
    module, _, x = example(name)
    if x.ndim == 5 and isinstance(module, encoders.resnet.PictureEncoder):
        return
    with pytest.raises(ValueError, match=r'has shape .*expected \(B, T|shape \(2, 5\), expected') as caught:
        trace(name, change_x=lambda x: x[0])
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', [name for name, (_, make) in BLOCKS.items() if make is pair])
def test_a_modality_without_a_mask_is_named(name):
    module, _, x = example(name)
    options = {'train': False} if 'train' in inspect.signature(type(module).__call__).parameters else {}
    with pytest.raises(ValueError, match=f'{name}: no mask of audio; found sequences of text, audio and masks of text'):
        module.init(jax.random.key(0), {'text': x, 'audio': x}, {'text': MASK}, **options)


def test_a_sequence_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r'CrossModalTransformer: the mask of source is missing \(None\)'):
        x = np.zeros((2, 5, 8), np.float32)
        fusion.CrossModalTransformer(1, 2).init(jax.random.key(0), x, x, MASK, None, train=False)
    with pytest.raises(ValueError, match=r'CtcAlignment: x is missing \(None\), expected \(B, T, D\)'):
        fusion.CtcAlignment(3).init(jax.random.key(0), None, MASK, train=False)
    with pytest.raises(ValueError, match=r'GatedShift: words of shape \(2, 5, 8\) and states \[\(2, 4, 8\)\]'):
        fusion.GatedShift().init(jax.random.key(0), x, [x[:, :4]])


def test_integers_give_the_numbers_of_bool_and_additive_ones_none():
    """Float 0 and -1e9 gave the numbers of the opposite mask, (B, T, 1) those of no mask."""
    x = np.random.default_rng(0).standard_normal((ROWS, STEPS, SIZE)).astype(np.float32)
    block = fusion.PredictiveSelfAttention(2)
    variables = block.init(jax.random.key(0), x, MASK, None, train=False)

    @jax.jit
    def run(mask):
        return block.apply(variables, x, mask, None, train=False)[0]

    expected = run(MASK)
    assert np.abs(expected - run(~MASK)).max() > 0.1
    np.testing.assert_array_equal(run(MASK.astype(np.int32)), expected)
    for wrong in (np.where(MASK, 0, -1e9).astype(np.float32), MASK[..., None]):
        with pytest.raises(ValueError, match='expected'):
            run(wrong)


@pytest.mark.parametrize('function', [layers.masked_mean, layers.last_valid, layers.mask_steps])
def test_the_functions_of_layers_refuse_them_too(function):
    x = np.ones((2, 5, 3), np.float32)
    np.testing.assert_array_equal(function(x, MASK.astype(np.int64)), function(x, MASK))
    with pytest.raises(ValueError, match='is float32'):
        function(x, MASK.astype(np.float32))


@pytest.mark.parametrize('function', [layers.masked_mean, layers.last_valid])
def test_a_mean_over_steps_refuses_a_mask_of_another_shape(function):
    with pytest.raises(ValueError, match=r'shape \(2, 5, 1\), expected \(2, 5\)'):
        function(np.ones((2, 5, 3), np.float32), MASK[..., None])


def test_the_attention_of_layers_takes_sources_and_pairs():
    x, y = np.zeros((2, 4, 8), np.float32), np.zeros((2, 5, 8), np.float32)
    attention = layers.Attention(2)

    def traced(mask):
        return jax.eval_shape(lambda: attention.init_with_output(jax.random.key(0), x, y, mask, train=False)[0])

    assert traced(MASK)[1].shape == traced(np.ones((2, 4, 5), bool))[1].shape == (2, 2, 4, 5)
    with pytest.raises(ValueError, match=r'shape \(2, 4, 1\), expected \(2, 5\), .*or \(2, 4, 5\), one a pair'):
        traced(np.ones((2, 4, 1), bool))


# ---- the batch of a model ------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', CASES)
def test_what_is_wrong_with_a_batch_is_one_line(name):
    modalities = CASES[name][1][0]
    m = modalities[0]
    model, good = make(name, modalities), make_batch(modalities)

    def refused(message, **changes):
        batch = {key: value for key, value in {**good, **changes}.items() if value is not None}
        with pytest.raises(ValueError, match=message) as caught:
            jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
        assert '\n' not in str(caught.value)

    jax.eval_shape(lambda: model.init(jax.random.key(0), good, train=False))
    mask = good[f'{m}_mask']
    refused(rf'the batch lacks {m}_mask; the modalities are .*, the batch has ', **{f'{m}_mask': None})
    refused(rf'the batch lacks {m}; the modalities are ', **{m: None})
    refused(rf'the mask of {m} is float32: expected bool', **{f'{m}_mask': np.where(mask, 0, -1e9).astype(np.float32)})
    refused(rf'the mask of {m} has shape \({len(mask)}, {mask.shape[1]}, 1\)', **{f'{m}_mask': mask[..., None]})
    refused(rf'{m} has shape \({mask.shape[1]}, \d+\), expected \(B, T|the mask of {m} has shape', **{m: good[m][0]})
    if len(modalities) > 1:
        refused(rf"'{m}': 3, .*rows, expected as many of every modality", **{m: good[m][:3], f'{m}_mask': mask[:3]})


def test_pictures_that_are_joined_are_checked_too():
    model = StackedInput(('audio', 'vision'), 3, encoders.Simple3D(num_frames=64, features=2), 'width')
    pictures, mask = np.zeros((2, 3, 64, 64, 1), np.uint8), np.ones((2, 3), bool)
    batch = {'audio': pictures, 'audio_mask': mask, 'vision': pictures, 'vision_mask': mask}
    jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    for changed, message in (
        ({'vision_mask': mask[..., None]}, r'StackedInput: the mask of vision has shape \(2, 3, 1\)'),
        ({'audio_mask': mask.astype(np.float32)}, 'StackedInput: the mask of audio is float32'),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda changed=changed: model.init(jax.random.key(0), {**batch, **changed}, train=False))


# ---- a module of one's own -----------------------------------------------------------------------------------


class Returns(nn.Module):
    """Returns what `make` makes of the logits (B, 3)."""

    make: object

    @nn.compact
    def __call__(self, batch, *, train):
        return self.make(nn.Dense(3)(layers.masked_mean(batch['text'], batch['text_mask'])))


@pytest.mark.parametrize(
    ('returned', 'message'),
    [
        (lambda logits: logits, r'the model returned \w+ of shape \(4, 3\), expected a dictionary .*prediction'),
        (lambda logits: (logits, logits), r'the model returned tuple, expected a dictionary'),
        (lambda logits: {'logits': logits}, r'a dictionary of logits, expected a dictionary .*prediction'),
        (lambda logits: {'prediction': logits[:1]}, r"'prediction' has shape \(1, 3\) for a batch of 4 rows"),
        (lambda logits: {'prediction': logits.sum()}, r"'prediction' has shape \(\) for a batch of 4 rows"),
    ],
)
def test_what_a_model_returns_is_checked_in_training_and_evaluation(returned, message):
    model, batch, loss = Returns(returned), make_batch(('text',)), make_loss({'cross_entropy': 1.0})
    state = jax.eval_shape(lambda: init_state(model, optax.sgd(1.0), batch, 0))
    step = make_train_step(model, optax.sgd(1.0), loss)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(step, state, batch)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make_eval_step(model, loss), {'params': state.params}, batch)


class WithoutTrain(nn.Module):
    @nn.compact
    def __call__(self, batch):
        return {'prediction': nn.Dense(3)(batch['text'])}


class TakesAnything(nn.Module):
    def __call__(self, batch, **options):
        return {'prediction': batch['text'], **options}


def test_a_module_that_cannot_be_called_is_named():
    with pytest.raises(
        TypeError, match=r'WithoutTrain.__call__\(self, batch\) cannot be trained: expected .*\*, train'
    ):
        check_module(WithoutTrain())
    with pytest.raises(TypeError, match=r'the model is WithoutTrain, expected a linen module; give an instance'):
        check_module(WithoutTrain)
    with pytest.raises(TypeError, match='the model is <lambda>, expected'):
        check_module(lambda batch, *, train: batch)
    for model in (TakesAnything(), Returns(jnp.asarray), make('lf_lstm', ('text',))):
        assert check_module(model) is model
