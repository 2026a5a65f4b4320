"""EF-LSTM, RAVEN and MCTN: their equations against numpy, and what each promises beyond tests/test_models.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.fusion.gated_shift import GatedShift
from mmer_jax.losses.translation import cycle_translation, second_translation, translation
from mmer_jax.models.ef_lstm import EfLstm
from mmer_jax.models.mctn import Mctn
from mmer_jax.models.raven import Raven
from tests.any_values import random_variables

ALL = ('text', 'audio', 'vision')
KEY = jax.random.key(0)
TRANSLATIONS = (translation, cycle_translation, second_translation)


def make_batch(steps=(6, 9, 4), sizes=(3, 4, 2), rows=3, seed=0):
    generator = np.random.default_rng(seed)
    batch = {}
    for m, length, size in zip(ALL, steps, sizes, strict=True):
        batch[m] = generator.standard_normal((rows, length, size)).astype(np.float32)
        lengths = np.array([length, max(length - 2, 1), 0])[:rows, None]
        batch[f'{m}_mask'] = np.arange(length) < lengths
    return batch


def predictor(model, batch):
    variables = random_variables(model, batch, seed=7)
    return jax.jit(lambda batch: model.apply(variables, batch, train=False)), variables


# The gated shift of RAVEN


def shift_example(**fields):
    generator = np.random.default_rng(0)
    word = generator.standard_normal((2, 3, 4)).astype(np.float32)
    states = [2 * generator.standard_normal((2, 3, size)).astype(np.float32) for size in (5, 2)]
    module = GatedShift(**fields)
    shifted, variables = module.init_with_output(KEY, word, states)
    return module, variables, word, states, shifted


@pytest.mark.parametrize('scaling', ['capped', 'floored'])
@pytest.mark.parametrize('gate', ['sigmoid', 'none'])
@pytest.mark.parametrize('beta', [0.2, 3.0])
def test_gated_shift_against_numpy(beta, gate, scaling):
    _, variables, word, states, shifted = shift_example(beta=beta, gate_activation=gate, scaling=scaling)
    params = jax.tree.map(np.asarray, variables['params'])
    expected = np.zeros_like(word)
    for place in np.ndindex(2, 3):
        e, weighted = word[place], []
        for number, state in enumerate(states):
            layer = params[f'gate_{number}']
            w = (np.concatenate([state[place], e]) @ layer['kernel'] + layer['bias']).item()
            weighted.append((1 / (1 + np.exp(-w)) if gate == 'sigmoid' else w) * state[place])
        h = np.concatenate(weighted) @ params['shift']['kernel'] + params['shift']['bias']
        ratio = beta * np.linalg.norm(e)
        alpha = min(ratio / np.linalg.norm(h), 1) if scaling == 'capped' else ratio / max(np.linalg.norm(h), 1)
        expected[place] = e + alpha * h
    np.testing.assert_allclose(shifted, expected, atol=1e-5)


def test_a_capped_shift_is_at_most_beta_times_the_word():
    _, _, word, _, shifted = shift_example(beta=0.2)
    ratio = np.linalg.norm(shifted - word, axis=-1) / np.linalg.norm(word, axis=-1)
    assert (ratio < 0.2 + 1e-5).all()
    assert (ratio > 0.01).all()


def test_gradients_of_the_shift_flow_unless_cut_and_are_finite_at_zero():
    def gradient(zero, **fields):
        module, variables, word, states, _ = shift_example(**fields)
        word, states = (np.zeros_like(word), [np.zeros_like(s) for s in states]) if zero else (word, states)
        loss = jax.jit(jax.grad(lambda v, w, s: (module.apply(v, w, s) ** 2).sum(), argnums=(0, 1, 2)))
        return loss(variables, word, states)

    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(gradient(False)))
    params, word, states = gradient(False, cut_gradient=True)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves((params, states)))
    assert jnp.any(word)
    for scaling in ('capped', 'floored'):
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(True, scaling=scaling)))


def test_gated_shift_refuses_unknown_options():
    with pytest.raises(ValueError, match=r"gate_activation = 'tanh': expected 'sigmoid' or 'none'"):
        shift_example(gate_activation='tanh')
    with pytest.raises(ValueError, match=r"scaling = 'paper': expected 'capped' or 'floored'"):
        shift_example(scaling='paper')


# EF-LSTM and RAVEN


EARLY = {
    'ef_lstm': EfLstm(ALL, 2, max_text_length=4, hidden_size=5, mlp_size=6),
    'raven': Raven(ALL, 2, max_text_length=4, hidden_size=5, nonverbal_size=3),
}


@pytest.fixture(scope='module', params=EARLY)
def early(request):
    batch = make_batch(steps=(6, 7, 1))
    return batch, *predictor(EARLY[request.param], batch)


def changed(batch, **steps):
    """A copy in which row 0 has other values at the given steps."""
    batch = dict(batch)
    for m, number in steps.items():
        batch[m] = batch[m].copy()
        batch[m][0, number] += 1
    return batch


def test_every_modality_counts_and_words_behind_the_last_position_do_not(early):
    batch, predict, _ = early
    prediction = predict(batch)['prediction']
    np.testing.assert_array_equal(predict(changed(batch, text=4))['prediction'], prediction)
    for m, step in (('text', 3), ('audio', 6), ('vision', 0)):
        other = predict(changed(batch, **{m: step}))['prediction']
        assert not np.allclose(other[0], prediction[0], atol=1e-5), m
        np.testing.assert_array_equal(other[1:], prediction[1:])


def test_an_utterance_vector_has_no_alignment_module(early):
    batch, predict, variables = early
    assert list(variables['params']['alignment']) == ['audio_ctc']
    outputs = predict(batch)
    assert {key for key in outputs if key.startswith('ctc_')} == {
        'ctc_logits_audio',
        'ctc_mask_audio',
        'ctc_target_mask',
    }


@pytest.mark.parametrize('model', [EfLstm, Raven])
def test_word_aligned_data_and_missing_text(model):
    batch = make_batch(steps=(5, 5, 5))
    sizes = {'hidden_size': 4, 'align': 'none'}
    pair = model(('vision', 'audio'), 2, **sizes)
    outputs, variables = jax.eval_shape(functools.partial(pair.init_with_output, train=False), KEY, batch)
    assert not [key for key in outputs if key.startswith('ctc_')]
    assert 'alignment' not in variables['params']
    assert outputs['prediction'].shape == (3, 2)
    with pytest.raises(ValueError, match=r"one number of steps.*use align = 'ctc' or 'pool'"):
        random_variables(model(ALL, 2, **sizes), make_batch(), seed=7)


def test_raven_without_other_modalities_has_no_shift():
    model = Raven(('text',), 2, hidden_size=4)
    assert set(random_variables(model, make_batch(), seed=7)['params']) == {'word_lstm', 'head'}


# MCTN


MCTN = Mctn(ALL, 2, max_length=5, hidden_size=4, regressor_size=3, dropout=0.0)


@pytest.fixture(scope='module')
def mctn():
    batch = make_batch(steps=(6, 9, 8))
    return batch, *predictor(MCTN, batch)


def test_mctn_predicts_from_the_source_alone(mctn):
    batch, predict, _ = mctn
    prediction = predict(batch)['prediction']
    other = {**make_batch(steps=(6, 9, 8), seed=1), 'text': batch['text']}
    other['vision'][:] = np.nan
    np.testing.assert_array_equal(predict(other)['prediction'], prediction)
    assert np.abs(predict(changed(batch, text=0))['prediction'][0] - prediction[0]).max() > 1e-4

    source = {key: batch[key] for key in ('text', 'text_mask')}
    outputs = predict(source)
    np.testing.assert_allclose(outputs['prediction'], prediction, atol=1e-6)
    assert not [key for key in outputs if key.startswith('mctn')]
    with pytest.raises(ValueError, match=r'^translation: .*no mctn_mask'):
        translation(outputs, source)


def test_mctn_trains_on_all_its_modalities_only(mctn):
    batch, _, variables = mctn
    batch = {key: value for key, value in batch.items() if not key.startswith('vision')}
    with pytest.raises(ValueError, match=r'trained on .*but the batch has no vision'):
        MCTN.apply(variables, batch, train=True)


def test_translation_losses_against_numpy(mctn):
    batch, predict, _ = mctn
    outputs = {key: np.array(value) for key, value in predict(batch).items()}
    lengths = [5, 4, 0]  # the text's six, four and no words, cut to max_length
    np.testing.assert_array_equal(outputs['mctn_mask'].sum(1), lengths)
    np.testing.assert_array_equal(outputs['mctn_cycle_target'][0], batch['text'][0, :5])
    assert outputs['mctn_forward_target'].shape == (3, 5, 4)
    assert outputs['mctn_second_target'].shape == (3, 5, 2)
    for loss, key in zip(TRANSLATIONS, ('mctn_forward', 'mctn_cycle', 'mctn_second'), strict=True):
        error = (outputs[key] - outputs[f'{key}_target']) ** 2
        expected = [error[row, :length].mean() if length else 0 for row, length in enumerate(lengths)]
        assert expected[0] > 0
        outputs[key][1, 4:] = np.nan  # a padded step
        np.testing.assert_allclose(loss(outputs, batch), expected, rtol=1e-5)


def test_translation_losses_are_0_without_targets_and_refuse_other_models():
    outputs = {'mctn_mask': np.ones((2, 3), bool), 'mctn_forward': np.ones((2, 3, 4))}
    for loss in TRANSLATIONS[1:]:
        np.testing.assert_array_equal(loss(outputs, {}), [0, 0])
    for loss in TRANSLATIONS:
        with pytest.raises(ValueError, match=rf"^{loss.__name__}: .*no mctn_mask.*'prediction'"):
            loss({'prediction': np.zeros((2, 1))}, {})
    with pytest.raises(ValueError, match=r'expected one shape \(B, P, D\)'):
        translation({**outputs, 'mctn_forward_target': np.ones((2, 3, 5))}, {})


@pytest.mark.parametrize(('modalities', 'present'), [(('audio',), set()), (('audio', 'text'), {'forward', 'cycle'})])
def test_mctn_of_one_and_two_modalities(modalities, present):
    model = Mctn(modalities, 2, max_length=4, hidden_size=3, align='pool')
    predict, variables = predictor(model, make_batch())
    outputs = predict(make_batch())
    names = {'mctn_mask'} | {f'mctn_{what}{end}' for what in present for end in ('', '_target', '_mask')}
    assert {key for key in outputs if key.startswith('mctn')} == names
    assert 'second_translation' not in variables['params']
    np.testing.assert_array_equal(second_translation(outputs, {}), np.zeros(3))
    assert bool(translation(outputs, {})[0] > 0) == bool(present)
    # The source is the anchor even where it is not the text: its 9 steps are pooled to 4.
    np.testing.assert_array_equal(outputs['mctn_mask'].sum(1), [4, 4, 0])


def test_translations_and_task_do_not_move_the_alignment_of_the_targets(mctn):
    batch, _, variables = mctn

    def loss(alignment):
        outputs = MCTN.apply({'params': {**variables['params'], 'alignment': alignment}}, batch, train=True)
        translations = sum(loss(outputs, batch).sum() for loss in TRANSLATIONS)
        return translations + (outputs['prediction'] ** 2).sum()

    alignment = variables['params']['alignment']
    assert set(alignment) == {'audio_ctc', 'vision_ctc'}
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(alignment)))


def test_mctn_learns_to_translate():
    """The target is a function of the source; the error falls well below that of the best constant."""
    generator = np.random.default_rng(0)
    text = np.repeat(generator.choice([-1, 1], (32, 1, 2)), 3, axis=1).astype(np.float32)
    audio = np.concatenate([text, -text[..., :1] * text[..., 1:]], -1)
    mask = np.ones((32, 3), bool)
    batch = {'text': text, 'audio': audio, 'text_mask': mask, 'audio_mask': mask}
    model = Mctn(('text', 'audio'), 1, align='none', hidden_size=8, regressor_size=2, dropout=0.0)
    optimizer = optax.adam(0.03)

    def loss_of(variables):
        outputs = model.apply(variables, batch, train=True)
        forward, cycle = translation(outputs, batch).mean(), cycle_translation(outputs, batch).mean()
        return forward + cycle, (forward, cycle)

    def step(carry, _):
        variables, opt_state = carry
        gradient, losses = jax.grad(loss_of, has_aux=True)(variables)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(variables, updates), opt_state), losses

    variables = random_variables(model, batch, seed=7)
    carry = (variables, optimizer.init(variables))
    for losses in jax.jit(lambda carry: jax.lax.scan(step, carry, length=100)[1])(carry):
        assert losses[0] > 0.8  # entries are +1 or -1 with mean 0: the best constant has an error of 1
        assert losses[-1] < 0.1
