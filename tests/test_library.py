"""The rooms as a library: the page's examples run; each block and encoder within jax's transformations and in nnx.

What is shown by shapes is traced only, nothing compiled: a transformation that does not fit fails when it is traced.
"""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx.bridge.variables import nnx_attrs_to_linen_vars

from mmer_jax import fusion, losses
from mmer_jax.encoders import ENCODERS, MfccCnn
from mmer_jax.models import build_model
from tests.conftest import REPOSITORY
from tests.test_blocks import BLOCKS
from tests.test_masks import ENCODER_INPUTS, MASK, ROWS, SIZE, STEPS, example

PAGE = (REPOSITORY / 'docs/library.md').read_text(encoding='utf-8')
EXAMPLES = dict(re.findall(r'^## (\w+)\n.*?^```python\n(.*?)^```', PAGE, re.M | re.S))
NAMES = [*BLOCKS, *ENCODER_INPUTS]
DEEP = ('googlenet', 'i3d')
KEYS = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}


# ---- the page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('room', ['fusion', 'encoders', 'models', 'losses', 'metrics', 'media', 'readers', 'nnx'])
def test_the_example_of_a_room_runs(room, tmp_path, monkeypatch, capsys):
    """As it stands on the page, in a folder of its own; what it prints is what its comments say."""
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[room]
    assert len([line for line in code.splitlines() if line and not line.startswith(('import ', 'from '))]) <= 12
    exec(compile(code, f'docs/library.md: {room}', 'exec'), {})
    said = re.findall(r'print\(.*\)  # (.*)', code)
    assert said
    assert capsys.readouterr().out.splitlines() == said


def test_the_page_has_every_room_and_no_other():
    assert set(EXAMPLES) == {'fusion', 'encoders', 'models', 'losses', 'metrics', 'media', 'readers', 'nnx'}
    table = re.findall(r'^\| `mmer_jax\.(\w+)` \|', PAGE, re.M)
    assert table == [room for room in EXAMPLES if room != 'nnx']


# ---- transformations -------------------------------------------------------------------------------------------


def example_of(name):
    """(block, x, x -> its arguments by position, its words) of a block or an encoder."""
    if name in BLOCKS:
        block, arguments = BLOCKS[name]
        x = np.random.default_rng(0).standard_normal((ROWS, STEPS, SIZE)).astype(np.float32)
    else:
        block, arguments, x = example(name)
    words = {'train': True} if 'train' in inspect.signature(type(block).__call__).parameters else {}
    return block, x, lambda x: arguments(x, MASK), words


@functools.cache
def traced(name):
    """(outputs, variables) of a block in bfloat16, in training, as shapes; the block, its input, arguments, words."""
    block, x, arguments, words = example_of(name)
    if 'dtype' in block.__dataclass_fields__:
        block = block.clone(dtype=jnp.bfloat16)
    if name == 'conv_videomae':  # its network has a type of its own
        block = block.clone(network=block.network.clone(dtype=jnp.bfloat16))
    found = jax.eval_shape(lambda: block.init_with_output(KEYS, *arguments(x), **words))
    return *found, (block, x, arguments, words)


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_under_jit_of_vmap_of_grad_of_remat(name):
    """Three inputs at once, in training: parameters in float32, and gradients of their shapes, three of each."""
    out, variables, (block, x, arguments, words) = traced(name)
    variables = dict(variables)
    params = variables.pop('params', {})
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype('float32')}
    found = {leaf.dtype for leaf in jax.tree.leaves(out)} - {jnp.dtype(bool)}
    assert found <= {jnp.dtype('bfloat16'), jnp.dtype('float32')}
    assert name not in ENCODERS or out[0].dtype == jnp.bfloat16
    inputs = jax.ShapeDtypeStruct((3, *x.shape), x.dtype)
    argnums = (0, 1) if jnp.issubdtype(x.dtype, jnp.floating) else (0,)

    def loss(params, x, variables):
        out, _ = block.apply({'params': params, **variables}, *arguments(x), **words, rngs=KEYS, mutable=[*variables])
        return sum(jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(out))

    if name in DEEP:  # the blocks of others, many times: tests/test_cnn_encoders.py has gradients
        values = jax.eval_shape(jax.jit(jax.vmap(loss, in_axes=(None, 0, None))), params, inputs, variables)
        assert values.shape == (3,)
        return
    gradient = jax.vmap(jax.grad(jax.checkpoint(loss), argnums=argnums), in_axes=(None, 0, None))
    by_params, *by_x = jax.eval_shape(jax.jit(gradient), params, inputs, variables)
    assert jax.tree.map(lambda leaf: leaf.shape, by_params) == jax.tree.map(lambda leaf: (3, *leaf.shape), params)
    assert [(leaf.shape, leaf.dtype) for leaf in by_x] == [(inputs.shape, inputs.dtype)] * (len(argnums) - 1)


@pytest.mark.parametrize('name', NAMES)
def test_a_block_inside_nnx(name):
    """nnx.bridge.ToNNX makes the parameters that linen makes, and gives outputs of the same shapes and types."""
    expected, variables, (block, x, arguments, words) = traced(name)
    changing = {'mutable': [*set(variables) - {'params'}]} if set(variables) - {'params'} else {}

    def bridged():
        module = nnx.bridge.lazy_init(nnx.bridge.ToNNX(block, rngs=nnx.Rngs(0, dropout=1)), *arguments(x), **words)
        # Of an encoder the call that makes the parameters is enough: it takes long to trace.
        out = module(*arguments(x), **words, **changing) if name in BLOCKS else None
        return nnx.state(module, nnx.Param), out

    state, out = jax.eval_shape(bridged)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state, variables.get('params', {}))]
    assert sizes[0] == sizes[1]
    if name in BLOCKS:
        shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (out, expected)]
        assert shapes[0] == shapes[1]


def test_numbers_in_nnx_and_under_vmap_are_those_of_linen():
    """An encoder with batch statistics, compiled."""
    encoder, x, _, _ = example_of('mfcc_cnn')
    assert isinstance(encoder, MfccCnn)
    x = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    module = nnx.bridge.lazy_init(nnx.bridge.ToNNX(encoder, rngs=nnx.Rngs(0)), x, MASK, train=False)
    features, _ = module(x, MASK, train=False)
    attributes = {name: value for name, value in vars(module).items() if not name.startswith(('to_nnx', '_pytree'))}
    variables = nnx_attrs_to_linen_vars(attributes)
    stacked = np.stack([x, 2 * x])
    run = jax.jit(jax.vmap(lambda x: encoder.apply(variables, x, MASK, train=False)[0]))
    np.testing.assert_allclose(run(stacked)[0], features, atol=1e-5)
    np.testing.assert_allclose(run(stacked)[1], module(2 * x, MASK, train=False)[0], atol=1e-5)


# ---- what is wrong is one line ---------------------------------------------------------------------------------

X, V = np.ones((2, 5, 8), np.float32), np.ones((2, 8), np.float32)
FAULTS = {
    'sequences for vectors': (lambda: fusion.ConcatFc(3).init(KEYS, [X, X]), r'ConcatFc: found \[\(2, 5, 8\), '),
    'an array for a list': (lambda: fusion.CompactBilinear(8).init(KEYS, V), r'Bilinear: found \(2, 8\), .*a list'),
    'no vector': (lambda: fusion.CompactBilinear(8).init(KEYS, []), r'found \[\], expected a list of one or more'),
    'a vector missing': (lambda: fusion.ConcatFc(3).init(KEYS, [V, None]), r'found \[\(2, 8\), None\]'),
    'other rows': (lambda: fusion.ConcatFc(3).init(KEYS, [V, V[:1]]), r'\(2, 8\), \(1, 8\), expected as many rows'),
    'logits of one modality': (lambda: fusion.averaging(V), r'averaging: logits are \(2, 8\), expected \(B, M, C\)'),
    'logits in a list': (lambda: fusion.multiplicative([V, V]), r'logits are list, .*jnp.stack\(list, 1\)'),
    'vectors without modalities': (
        lambda: fusion.DoubleDiscriminator(4).init(KEYS, V, V, train=False), r'specific vectors are \(2, 8\), .*\(B, M',
    ),
    'two shapes': (
        lambda: fusion.DoubleDiscriminator(4).init(KEYS, X, X[:, :2], train=False), r'8\) and \(2, 2, 8\), expected',
    ),
    'words missing': (lambda: fusion.GatedShift().init(KEYS, None, [X]), r'Shift: words of shape None and states \['),
    'states as an array': (lambda: fusion.GatedShift().init(KEYS, X, X), r'states \(2, 5, 8\), expected .*one or more'),
    'no masks': (
        lambda: fusion.HierarchicalCrossModalAttention(2).init(KEYS, {'text': X}, None, train=False),
        r'expected a dictionary by modality, found masks of type None',
    ),
    'a list of modalities': (
        lambda: fusion.WeightedAttention().init(KEYS, [X], [MASK]), r'Attention: .*found sequences of type list',
    ),
    'maps without channels': (lambda: fusion.Mmtm().init(KEYS, {'audio': V[0]}, {}), r"Mmtm: found \{'audio': '\(8,"),
    'maps in a list': (lambda: fusion.Msaf(4).init(KEYS, [V], {}, train=False), r'Msaf: found list, expected a dict'),
    'a batch that is an array': (
        lambda: build_model({'name': 'lf_lstm'}, modalities=('text',), num_outputs=3, dtype=jnp.float32)
        .init(KEYS, X, train=False), r'LfLstm: expected a dictionary by modality, found batch of type ndarray',
    ),
    'losses in a list': (lambda: losses.make_loss(['mse']), r"losses are \['mse'\], expected a dictionary"),
    'no weight': (
        lambda: losses.separation({'specific': X, 'agnostic': X}, {'label': 0}), r"reads batch\['weight'\].* label",
    ),
}  # fmt: skip


@pytest.mark.parametrize('fault', FAULTS)
def test_a_wrong_call_is_one_line(fault):
    call, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(call)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', losses.LOSSES)
def test_a_loss_says_what_is_missing(name):
    """No dictionary; none of what it reads; and a loss of the task without labels."""
    batch = {'label': np.zeros(2, np.int32), 'weight': np.ones(2, np.float32)}
    for outputs, given, message in (
        (V, batch, rf'^{name}: the outputs are ndarray of shape \(2, 8\), expected a dictionary'),
        ({'logits': V}, batch, rf'{name}.*(reads|have no) .*logits'),
        *([({'prediction': V}, {}, rf"^{name} reads batch\['label'\]")] if name in TASKS else []),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            losses.LOSSES[name](outputs, given)
        assert '\n' not in str(caught.value)


TASKS = ('cross_entropy', 'double_softmax', 'true_class_score', 'l1', 'mse', 'binary_cross_entropy')
