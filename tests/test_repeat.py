"""Layers that repeat: the loop gives what the layers one by one give, and its program does not grow with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import encoders
from mmer_jax.encoders import transformer
from mmer_jax.fusion import cross_modal_attention
from mmer_jax.models import build_model, mfsa, pmr
from mmer_jax.repeat import repeat_layers
from tests.any_values import any_values
from tests.test_models import MFSA, make_batch

BOTH = ('text', 'audio')
NO_DROPOUT = {'dropout': 0.0}
MODELS = {
    'mult': {
        'width': 4, 'num_layers': 2, 'memory_layers': 3, 'num_heads': 2, 'capture_attention': True,
        **dict.fromkeys(
            ('text_dropout', 'embedding_dropout', 'attention_dropout', 'memory_attention_dropout', 'relu_dropout',
             'residual_dropout', 'output_dropout'), 0.0,
        ),
    },
    'mfsa': {
        **MFSA, 'psa_layers': 3, 'hca_layers': 2, 'grains': ('coarse',), 'embedding_dropout': 0.0,
        'capture_attention': True, **NO_DROPOUT,
    },
    'pmr': {'width': 8, 'num_layers': 2, 'num_heads': 2, 'final_layers': 2, 'capture_attention': True, **NO_DROPOUT},
}  # fmt: skip
# The order of the modalities matters: jax sorts the keys of dictionaries, the models go by theirs.
ORDER = ('vision', 'text')


def build(name, **changes):
    common = {'modalities': changes.pop('modalities', ORDER), 'num_outputs': 3, 'dtype': jnp.float32}
    return build_model({'name': name, **MODELS[name], **changes}, **common)


def one_by_one(monkeypatch):
    for module in (cross_modal_attention, mfsa, pmr, transformer):
        monkeypatch.setattr(module, 'repeat_layers', lambda *a, **k: repeat_layers(*a, **{**k, 'loop': False}))


def shapes_of(model, batch):
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), batch)


def outputs_and_gradient(model, variables, batch):
    def loss(params):
        outputs = model.apply({'params': params}, batch, train=True, rngs={'dropout': jax.random.key(1)})
        return (outputs['prediction'] ** 2).sum(), outputs

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.parametrize(('name', 'remat'), [('mult', False), ('mfsa', True), ('pmr', True)])
def test_a_model_is_what_its_layers_are_one_by_one(name, remat, monkeypatch):
    model, batch = build(name, remat=remat), make_batch(ORDER)
    shapes = shapes_of(model, batch)
    variables = any_values(shapes)
    (value, outputs), gradient = outputs_and_gradient(model, variables, batch)
    with monkeypatch.context() as patch:
        one_by_one(patch)
        assert shapes_of(model, batch) == shapes
        (expected, expected_outputs), expected_gradient = outputs_and_gradient(model, variables, batch)
    close((value, outputs, gradient), (expected, expected_outputs, expected_gradient))
    assert list(outputs['attention']) == list(expected_outputs['attention'])


def test_an_encoder_trains_in_a_loop_and_is_applied_without(monkeypatch):
    sizes = {'hidden_size': 8, 'num_layers': 3, 'num_heads': 2, 'intermediate_size': 12}
    rates = dict.fromkeys(('dropout', 'attention_dropout'), 0.0)
    model = encoders.Bert(vocab_size=11, max_positions=9, **sizes, **rates, layer_sum=True)
    x, mask = jnp.arange(12).reshape(2, 6) % 11, jnp.arange(6)[None] < jnp.array([[4], [6]])
    variables = model.init(jax.random.key(0), x, mask, train=False)
    loops = []

    def counted(*arguments, **options):
        loops.append(options['loop'])
        return repeat_layers(*arguments, **options)

    def features(variables, train):
        return model.apply(variables, x, mask, train=train, rngs={'dropout': jax.random.key(1)})[0]

    monkeypatch.setattr(transformer, 'repeat_layers', counted)
    trained, applied = (
        jax.jit(features, static_argnums=1)(variables, True),
        jax.jit(features, static_argnums=1)(variables, False),
    )
    assert loops == [True, False]
    close(trained, applied)
    dropped = model.clone(layer_drop=1.0)  # every layer is skipped: all states are the embeddings
    states, _ = dropped.apply(
        variables, x, mask, train=True, rngs={'dropout': jax.random.key(1)}, method=dropped.states
    )
    close(states[1:], states[:1] * 3)


def test_each_layer_has_its_own_dropout():
    model, batch = build('mult', residual_dropout=0.5, modalities=('text',)), make_batch(('text',))
    variables = model.init(jax.random.key(0), batch, train=False)
    same = jax.tree.map(lambda x: x, variables['params'])
    memory = same['fusion']['text_memory']
    memory |= {f'layer_{n}': memory['layer_0'] for n in range(3)}

    def predict(key):
        return model.apply({'params': same}, batch, train=True, rngs={'dropout': key})['prediction']

    keys = jax.random.split(jax.random.key(2), 3)
    first, again, other = predict(keys[0]), predict(keys[0]), predict(keys[1])
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def lines(model, batch):
    """Of the program of a gradient."""
    shapes = shapes_of(model, batch)

    def loss(params):
        return model.apply({'params': params}, batch, train=True, rngs={'dropout': jax.random.key(1)})[
            'prediction'
        ].sum()

    return len(jax.jit(jax.grad(loss)).lower(shapes['params']).as_text().splitlines())


@pytest.mark.parametrize(
    ('name', 'few', 'many', 'per_layer'),
    [
        # What is left per layer: each parameter is put into the stack, and its gradient taken out of it.
        ('mult', {'num_layers': 2}, {'num_layers': 4}, 400),
        ('mfsa', {'psa_layers': 3}, {'psa_layers': 5}, 300),
    ],
)
def test_a_program_hardly_grows_with_the_layers(name, few, many, per_layer):
    batch, fields = make_batch(BOTH), {'modalities': BOTH, 'capture_attention': False}
    if name == 'mult':
        few, many = ({**sizes, 'memory_layers': sizes['num_layers']} for sizes in (few, many))
    less, more = (lines(build(name, **fields, **sizes), batch) for sizes in (few, many))
    assert (more - less) / 2 < per_layer, f'{less} lines, {more} with two layers more'
