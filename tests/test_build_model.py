"""mmer_jax.models.build_model: fields to modules, and errors that name the alternatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders import ENCODERS, MfccCnn
from mmer_jax.models import MODELS, LfLstm, Unimodal, build_model

ENCODER = {'name': 'mfcc_cnn', 'dropout': 0.1}


def build(fields, **changes):
    return build_model(fields, **{'modalities': ('audio',), 'num_outputs': 8, 'dtype': jnp.float32, **changes})


def batch_of(*modalities, steps=20, size=13):
    batch = {m: np.zeros((2, steps, size), np.float32) for m in modalities}
    return {**batch, **{f'{m}_mask': np.ones((2, steps), bool) for m in modalities}}


def shapes(model, batch):
    """(outputs, variables) as shapes and dtypes; nothing is compiled."""
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch, train=False))


def test_fields_arrive():
    model = build({'name': 'lf_lstm', 'hidden_size': 7, 'dropout': 0.3}, modalities=('text', 'audio'), num_outputs=3)
    assert isinstance(model, LfLstm)
    assert (model.hidden_size, model.dropout, model.modalities, model.num_outputs) == (7, 0.3, ('text', 'audio'), 3)
    assert model.mlp_size == LfLstm.mlp_size
    outputs, _ = shapes(model, batch_of('text', 'audio'))
    assert outputs['prediction'].shape == (2, 3)
    assert outputs['features'].shape == (2, 14)


def test_nested_encoder_is_built():
    model = build({'name': 'unimodal', 'encoder': ENCODER})
    assert isinstance(model, Unimodal)
    assert model.encoder == MfccCnn(dropout=0.1)


def test_the_given_fields_are_not_changed():
    fields = {'name': 'unimodal', 'encoder': dict(ENCODER)}
    build(fields)
    assert fields == {'name': 'unimodal', 'encoder': ENCODER}


def test_lists_become_tuples():
    model = build_model({'name': 'lf_lstm', 'modalities': ['text', 'audio']}, num_outputs=2, dtype=jnp.float32)
    assert model.modalities == ('text', 'audio')
    assert type(model.modalities) is tuple


def test_dtype_reaches_model_and_encoder():
    model = build({'name': 'unimodal', 'encoder': ENCODER}, dtype=jnp.bfloat16)
    assert model.dtype == model.encoder.dtype == jnp.bfloat16
    assert build({'name': 'lf_lstm'}, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    outputs, variables = shapes(model, batch_of('audio'))
    assert outputs['features'].dtype == jnp.bfloat16
    # Predictions and parameters stay float32.
    assert outputs['prediction'].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
    ('fields', 'named', 'known'),
    [
        ({'name': 'lf_ltsm'}, "model 'lf_ltsm'", MODELS),
        ({}, 'model None', MODELS),
        ({'name': 'mfcc_cnn'}, "model 'mfcc_cnn'", MODELS),
        ({'name': 'unimodal', 'encoder': {'name': 'mfcc'}}, "encoder 'mfcc'", ENCODERS),
        ({'name': 'unimodal', 'encoder': {}}, 'encoder None', ENCODERS),
    ],
)
def test_unknown_name_lists_the_known_ones(fields, named, known):
    with pytest.raises(ValueError, match='unknown') as error:
        build(fields)
    assert named in str(error.value)
    assert all(name in str(error.value) for name in known)


@pytest.mark.parametrize(
    ('fields', 'named', 'known'),
    [
        ({'name': 'lf_lstm', 'hiden_size': 3}, 'LfLstm has no field hiden_size', ['hidden_size', 'num_layers']),
        (
            {'name': 'unimodal', 'encoder': {**ENCODER, 'num_frame': 3}},
            'MfccCnn has no field num_frame;',
            ['num_frames', 'head_dropout'],
        ),
        ({'name': 'lf_lstm', 'parent': None}, 'LfLstm has no field parent', ['hidden_size']),
    ],
)
def test_misspelt_field_is_named_beside_the_fields(fields, named, known):
    with pytest.raises(TypeError) as error:
        build(fields)
    assert named in str(error.value)
    assert all(name in str(error.value).split(';')[1] for name in known)


@pytest.mark.parametrize('modalities', [('audio', 'text'), ()])
def test_unimodal_takes_one_modality(modalities):
    model = build({'name': 'unimodal', 'encoder': ENCODER}, modalities=modalities)
    with pytest.raises(ValueError, match='one modality') as error:
        shapes(model, batch_of('audio', 'text'))
    assert str(modalities) in str(error.value)
