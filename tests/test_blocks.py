"""Blocks in other people's code: nn.remat of each as flax users write it; stages of encoders; names of arguments."""

import ast
import doctest
import functools
import inspect
import re
import tomllib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import fusion, layers, losses
from mmer_jax.encoders import ENCODERS, Encoder, StagedEncoder
from mmer_jax.encoders.transformer import SelfAttention, TransformerLayer
from mmer_jax.fusion.cross_modal_attention import CrossModalBlock, ResidualHead
from mmer_jax.fusion.distribution_alignment import SideDiscriminator
from mmer_jax.fusion.message_hub import SelfAttentionLayer
from tests.any_values import any_values
from tests.conftest import REPOSITORY
from tests.gradients import recomputes
from tests.test_masks import BLOCKS as WITH_MASK
from tests.test_masks import MASK, ROWS, SIZE, STEPS, WITHOUT_MASK, example
from tests.test_models import CASES, make, make_batch

pytestmark = pytest.mark.usefixtures('strict_types')
PAIRS = MASK[:, :, None] & MASK[:, None]
# name -> (the block, its arguments made of one sequence (B, T, D) and one mask (B, T))
BLOCKS = WITH_MASK | {
    'CompactBilinear': (fusion.CompactBilinear(16), lambda x, mask: ([x[:, 0], x[:, 1]],)),
    'ConcatFc': (fusion.ConcatFc(3, 4), lambda x, mask: ([x[:, 0], x[:, 1]],)),
    'CrossModalBlock': (CrossModalBlock(2), lambda x, mask: (x, None, PAIRS)),
    'DoubleDiscriminator': (fusion.DoubleDiscriminator(4), lambda x, mask: (x[:, :2], x[:, 2:4])),
    'GatedShift': (fusion.GatedShift(), lambda x, mask: (x, [x, x[..., :3]])),
    'MLP': (layers.MLP((4, 3), 0.5), lambda x, mask: (x,)),
    'ResidualHead': (ResidualHead(3), lambda x, mask: (x[:, 0],)),
    'SelfAttention': (SelfAttention(2), lambda x, mask: (x, mask)),
    'SelfAttentionLayer': (SelfAttentionLayer(2), lambda x, mask: (x, mask)),
    'SideDiscriminator': (SideDiscriminator(4), lambda x, mask: (x,)),
    'TransformerLayer': (TransformerLayer(2, 8, dropout=0.5), lambda x, mask: (x, mask)),
}
FUNCTIONS = {'averaging', 'multiplication', 'multiplicative', 'reverse_gradient'}


def test_every_block_of_fusion_is_here():
    assert set(fusion.__all__) - FUNCTIONS <= set(BLOCKS)
    assert set(fusion.__all__) >= WITHOUT_MASK


def with_remat(block):
    """`nn.remat(Block, static_argnums=...)` with the same fields: static are `train` and what is no array."""
    names = list(inspect.signature(type(block).__call__).parameters)
    static = {'train', 'modalities', 'target_size'} & set(names)
    fields = {name: getattr(block, name) for name in block.__dataclass_fields__ if name not in ('parent', 'name')}
    return nn.remat(type(block), static_argnums=tuple(sorted(map(names.index, static))))(**fields)


def sorted_arguments(arguments, x):
    """Dictionaries sorted by name, as jax hands them on in remat, jit and grad; no two arrays are equal."""
    leaves, tree = jax.tree.flatten(arguments(x, MASK))
    numbers = [jnp.issubdtype(getattr(leaf, 'dtype', bool), jnp.floating) for leaf in leaves]
    return tree.unflatten(
        [leaf * (1 + n / 3) if yes else leaf for n, (leaf, yes) in enumerate(zip(leaves, numbers, strict=True))]
    )


@pytest.mark.parametrize('name', BLOCKS)
def test_remat_of_a_block_gives_the_same_gradients(name):
    """Called by position, for only such arguments can be static, in training, where dropout acts."""
    block, arguments = BLOCKS[name]
    x = np.random.default_rng(0).standard_normal((ROWS, STEPS, SIZE)).astype(np.float32)
    train = (True,) * ('train' in inspect.signature(type(block).__call__).parameters)
    keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    variables = any_values(jax.eval_shape(lambda: dict(block.init(keys, *sorted_arguments(arguments, x), *train))))
    params = variables.pop('params', {})

    def gradient_of(module):
        def loss(params, x):
            given = (*sorted_arguments(arguments, x), *train)
            out, _ = module.apply({'params': params, **variables}, *given, rngs=keys, mutable=[*variables])
            return sum(jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(out))

        return jax.grad(loss, argnums=(0, 1))

    rematted = with_remat(block)
    both = jax.jit(lambda *of: (gradient_of(block)(*of), gradient_of(rematted)(*of))).trace(params, x)
    assert recomputes(both.jaxpr)
    expected, found = both.lower().compile()(params, x)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected[1]))
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ENCODERS)
def test_stages_of_an_encoder_make_what_a_call_makes(name):
    """Shapes only; mypy checks the signatures where ENCODERS is written down."""
    encoder, _, x = example(name)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, StagedEncoder) == bool(encoder.stages)

    def by_stages(encoder, x, mask):
        x, mask = encoder.prepare(x, mask)
        for stage in encoder.stages:
            x = getattr(encoder, stage)(x, mask if encoder.masks_steps else mask.any(1), train=False)
            if encoder.masks_steps:
                mask = mask[:, :: mask.shape[1] // x.shape[1]]
        return x, mask if encoder.masks_steps else mask[:, : x.shape[1]]

    def call(encoder, x, mask):
        x, mask = encoder(x, mask, train=False)
        # flax's avg_pool, which I3D pools by, divides float32 by an integer.
        with jax.numpy_dtype_promotion('standard' if name == 'i3d' else 'strict'):
            encoder.pool(x, mask, train=False)
        return x, mask

    def shapes_of(method):
        run = functools.partial(encoder.init_with_output, jax.random.key(0), method=method)
        (x_out, mask), _ = jax.eval_shape(run, x, MASK)
        return x_out.shape, x_out.dtype, mask.shape, mask.dtype

    called = shapes_of(call)
    assert called[2:] == (called[0][:2], bool)
    if encoder.stages:
        assert shapes_of(by_stages) == called


@pytest.mark.parametrize('name', ['mult', 'mica', 'cfn_sr'])
def test_each_dropout_of_a_model_reaches_its_place(name):
    """Traced only: what the transformers inside were given."""
    (modalities,) = CASES[name][1]
    fields = {'relu_dropout': 0.2, 'residual_dropout': 0.3, 'embedding_dropout': 0.4}
    attention = {'cfn_sr': {'attention_dropout': 0.1}}.get(
        name, {'attention_dropout': (0.5, 0.6), 'memory_attention_dropout': 0.1}
    )
    model, found = make(name, modalities, **fields, **attention), set()

    def look(call, arguments, words, context):
        if isinstance(context.module, fusion.CrossModalTransformer):
            found.add(context.module.dropouts)
        return call(*arguments, **words)

    with nn.intercept_methods(look):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(modalities), train=False))
    of_attention = [0.1, *(attention['attention_dropout'] if name != 'cfn_sr' else ())]
    assert found == {layers.Dropouts(share, relu=0.2, residual=0.3, embedding=0.4) for share in of_attention}


def test_the_example_of_fusion_runs():
    failed, tried = doctest.testmod(fusion)
    assert tried > 10
    assert not failed


def test_all_losses_are_public():
    assert {loss.__name__ for loss in losses.LOSSES.values()} <= set(losses.__all__)
    assert all(hasattr(losses, name) for name in losses.__all__)
    assert losses.__all__ == sorted(losses.__all__)


def test_types_are_shipped():
    """Type checkers of other projects read the package's types only where it has the file py.typed."""
    project = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())
    (named,) = project['tool']['setuptools']['package-data']['mmer_jax']
    assert named == 'py.typed'
    assert (REPOSITORY / 'mmer_jax' / named).is_file()


def test_letters_of_shapes_are_those_of_build():
    text = (REPOSITORY / 'BUILD.md').read_text().split('## Dimension letters')[1].split('##')[0]
    known = set(re.findall(r'\b[A-Zds]\b', text)) | set('0123456789')
    assert {'B', 'T', 'D', 'd'} <= known
    rooms = ('encoders', 'fusion', 'losses', 'models')
    for path in [
        REPOSITORY / 'mmer_jax/layers.py',
        *(p for r in rooms for p in (REPOSITORY / 'mmer_jax' / r).glob('*.py')),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = {ast.Name: 'id', ast.arg: 'arg'}.get(type(node))
            if name and (shape := re.fullmatch(r'[a-z0-9_]*[a-z0-9]_([A-Z1][A-Za-z0-9]*)', getattr(node, name))):
                unknown = set(shape[1]) - known
                assert not unknown, f'{path}: {shape[0]} has the letters {unknown}, which BUILD.md does not list'


# What may stand without its word: operations of jax, jax.numpy and linen, callbacks, and functions of the same file
# with a backward pass of their own, whose arguments jax differentiates by their places.
KNOWN = (
    'jax.',
    'jnp.',
    'lax.',
    'self.param',
    'self.observe',
    '_maps',
    '_attend',
    '_convolve',
    'keep_from',
    'call_block',
    'call',
    'repeat_layers',
    'conv2d_in_parts',
)
METHODS = ('reshape', 'append')


@pytest.mark.parametrize('room', ['encoders', 'fusion', 'models'])
def test_more_than_three_arguments_have_their_names(room):
    """Fields of modules stand in the order of their definition: one more in the middle would move all behind it."""
    for path in sorted((REPOSITORY / 'mmer_jax' / room).glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 3:
                called = ast.unparse(node.func)
                known = called.startswith(KNOWN) or called.split('.')[-1] in METHODS
                assert known, f'{path}:{node.lineno}: {called} with {len(node.args)} arguments by position: name them'
