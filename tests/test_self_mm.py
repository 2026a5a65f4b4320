"""Self-MM: the official network and the labels that its trainer finds; by itself, in parts, on devices, in a run."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax import losses
from mmer_jax.losses import make_loss
from mmer_jax.models import MODELS, SelfMm, build_model, reads_records
from mmer_jax.models.self_mm import MEMORY, remember
from mmer_jax.run import sharding
from mmer_jax.run.step import init_state, make_step_parts, make_train_step, over_seeds, take_seed, variables_of
from tests.any_values import any_values
from tests.conftest import REPOSITORY
from tests.golden import make_self_mm as golden_of
from tests.small_run import jit_step
from tests.test_models import make_batch

pytestmark = pytest.mark.usefixtures('strict_types')
ALL, BOTH = ('text', 'audio', 'vision'), ('text', 'audio')
HEADS = {f'{m}_head': size for m, size in golden_of.HEADS.items()}
SIZES = {**HEADS, 'audio_hidden': 4, 'vision_hidden': 3, 'audio_width': 3, 'vision_width': 2}
QUIET = dict.fromkeys(('text_dropout', 'audio_dropout', 'vision_dropout', 'fusion_dropout'), 0.0)
TINY = {'name': 'self_mm', 'text_pooling': 'mean', **SIZES}
LOSS = {'l1': 1.0, 'unimodal_l1': 1.0}


@pytest.fixture(scope='module')
def golden():
    with np.load(REPOSITORY / 'tests' / 'golden' / 'self_mm.npz') as file:
        return dict(file)


def make(modalities=BOTH, records=golden_of.RECORDS, **changes):
    fields = {**TINY, **QUIET, **changes}
    return build_model(fields, modalities=modalities, num_outputs=1, num_records=records, dtype=jnp.float32)


def numbered(modalities=BOTH, numbers=(0, 1, 2, 3), **options):
    batch = make_batch(modalities, rows=len(numbers), **options)
    label = np.linspace(-2, 2.5, len(numbers), dtype=np.float32)
    return {**batch, 'label': label, 'record': np.int32(numbers)}


@functools.cache
def state_of(modalities=BOTH):
    batch = numbered(modalities)
    shapes = jax.eval_shape(lambda: init_state(make(modalities), optax.sgd(0.1), batch, 0))
    state = any_values(shapes)
    memory = jax.tree.map(np.zeros_like, state.model_state)
    return jax.device_put(state.replace(model_state=memory, step=np.int32(0)))


# Beside the official code


def linear(weights, name):
    return {'kernel': weights[f'{name}.weight'].T, 'bias': weights[f'{name}.bias']}


def official_params(weights):
    """The official network's weights as those of the module."""
    params = {}
    for m, short in (('text', 'text'), ('audio', 'audio'), ('vision', 'video'), ('fusion', 'fusion')):
        first, second, third = (linear(weights, f'post_{short}_layer_{n}') for n in (1, 2, 3))
        params |= {f'{m}_representation': first, f'{m}_head': {'Dense_0': second, 'Dense_1': third}}
    for m, short in (('audio', 'audio_model'), ('vision', 'video_model')):
        params[f'{m}_projection'] = linear(weights, f'{short}.linear_1')
        of = {
            kind: np.split(weights[f'{short}.rnn.{kind}_l0'], 4)
            for kind in ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh')
        }
        cell = {}
        for number, gate in enumerate('ifgo'):
            cell[f'i{gate}'] = {'kernel': of['weight_ih'][number].T}
            cell[f'h{gate}'] = {
                'kernel': of['weight_hh'][number].T,
                'bias': of['bias_ih'][number] + of['bias_hh'][number],
            }
        params[f'{m}_lstm'] = {'OptimizedLSTMCell_0': cell}
    return params


def test_the_network_is_the_official_one(golden):
    weights = {name.removeprefix('weight/'): array for name, array in golden.items() if name.startswith('weight/')}
    batch = {'text': golden['given/text'], 'text_mask': np.ones((3, 2), bool)}
    for m, lengths in golden_of.LENGTHS.items():
        batch[m] = golden[f'given/{m}']
        batch[f'{m}_mask'] = np.arange(max(lengths)) < np.array(lengths)[:, None]
    model = make(ALL, text_pooling='first')
    params = official_params(weights)
    assert jax.tree.map(np.shape, params) == jax.tree.map(
        np.shape, jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))['params']
    )
    found = model.apply({'params': params}, batch, train=False)
    np.testing.assert_allclose(found['prediction'], golden['output/M'], atol=1e-6)
    np.testing.assert_allclose(found['features'], golden['output/Feature_f'], atol=1e-6)
    expected = np.concatenate([golden[f'output/{short}'] for short in 'TAV'], -1)
    np.testing.assert_allclose(found['unimodal'], expected, atol=1e-6)


def no_memory(sizes, records, columns):
    zeros = {name: np.zeros((records, size), np.float32) for name, size in sizes.items()}
    zeros |= {'count': np.zeros(records, np.int32), 'labels': np.zeros((records, columns), np.float32)}
    return {**zeros, 'seen': np.zeros((records, columns), bool)}


@pytest.mark.parametrize('limit', [3.0, 0.0])
@pytest.mark.parametrize(('name', 'positive'), [('positive', True), ('excluded', False)])
def test_labels_are_those_that_the_official_trainer_finds(golden, name, positive, limit):
    """Three epochs in batches whose last one is not full; zero is a positive label, or none. The largest label is 3."""
    sizes = {'fusion': HEADS['fusion_head'], **{m: golden_of.HEADS[m] for m in ALL}}
    run, memory = (
        jax.jit(functools.partial(remember, modalities=ALL, limit=limit, neutral_is_positive=positive)),
        no_memory(sizes, golden_of.RECORDS, 4),
    )
    numbers, shown, behind = (golden[f'{name}/{key}'] for key in ('numbers', 'shown', 'behind'))
    present_BM = np.ones((golden_of.BATCH, 3), bool)
    given = np.append(golden['label'], 0)  # of the row of padding whatever
    for step, (number_B, x_BD) in enumerate(zip(numbers, shown, strict=True)):
        parts = np.split(x_BD, np.cumsum(list(sizes.values()))[:-1], axis=-1)
        before = behind[step - 1] if step else np.repeat(golden['label'][:, None], 4, 1)
        found = dict(zip(sizes, parts, strict=True))
        label_BM, weight_BM, memory = run(
            memory, found, number_B=number_B.astype(np.int32), label_B=given[number_B], present_BM=present_BM
        )
        real = number_B < golden_of.RECORDS
        np.testing.assert_allclose(label_BM[real], before[number_B[real], 1:], rtol=1e-4, atol=1e-5)
        difference = np.abs(before[number_B[real], 1:] - before[number_B[real], :1])
        np.testing.assert_allclose(weight_BM[real], np.tanh(difference), atol=1e-4)
        seen = np.asarray(memory['count']) > 0
        np.testing.assert_allclose(memory['labels'][seen], behind[step][seen], rtol=1e-4, atol=1e-5)
    assert np.asarray(memory['count']).tolist() == [golden_of.EPOCHS] * golden_of.RECORDS
    assert np.abs(memory['labels'][:, 1:] - memory['labels'][:, :1]).max() > 1


def test_the_two_ways_to_count_zero_differ(golden):
    assert np.abs(golden['positive/behind'][-1] - golden['excluded/behind'][-1]).max() > 0.1


# By itself


def test_in_evaluation_nothing_is_remembered_and_the_loss_is_that_of_the_prediction():
    state, batch = state_of(), numbered()
    assert set(variables_of(state)) == {'params'}
    outputs = make().apply(
        variables_of(state), {key: batch[key] for key in batch if key not in ('record', 'label')}, train=False
    )
    assert outputs['prediction'].shape == (4, 1)
    assert outputs['unimodal'].shape == (4, 2)
    np.testing.assert_array_equal(losses.unimodal_l1(outputs, batch), np.zeros(4))
    np.testing.assert_allclose(make_loss(LOSS)(outputs, batch), losses.l1(outputs, batch))


def test_the_loss_by_hand():
    outputs = {
        'unimodal': np.float32([[1, -1], [0.5, 2]]),
        'unimodal_label': np.float32([[0, -1], [1, 0]]),
        'unimodal_weight': np.float32([[0.5, 0.2], [1, 0.25]]),
    }
    np.testing.assert_allclose(losses.unimodal_l1(outputs, {}), [0.5, 0.5 + 0.5])


def test_modalities_by_themselves_learn_from_the_third_time_on():
    """The first two times all labels are the record's, and their heads have no gradient."""
    step, batch, states = jax.jit(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS))), numbered(), [state_of()]
    for _ in range(3):
        states.append(step(states[-1], batch)[0])
    for name in ('text_head', 'audio_head', 'text_representation', 'audio_representation'):
        leaves = [jax.tree.leaves(state.params[name]) for state in states]
        moved = [max(np.abs(a - b).max() for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(leaves)]
        assert moved[:2] == [0, 0], name
        assert moved[2] > 0, name
    assert np.asarray(states[-1].model_state[MEMORY]['count']).tolist() == [3] * 4 + [0] * 7


def test_a_column_of_labels_is_that_of_its_modality():
    """Recomputed by name from what was remembered; jax sorts the keys of dictionaries, modalities have their order."""
    state, batch = state_of(), numbered()
    step = jax.jit(make_train_step(make(), optax.sgd(0.0), make_loss(LOSS)))
    for _ in range(2):
        state, _ = step(state, batch)
    memory, label = state.model_state[MEMORY], batch['label']

    def nearness(name):  # parameters have not moved, so that the second time found what the first one did
        x = np.asarray(memory[name])[:4]
        positive, negative = (np.linalg.norm(x - x[mark].mean(0), axis=-1) for mark in (label > 0, label < 0))
        return (negative - positive) / positive

    fusion = nearness('fusion')
    for column, m in enumerate(BOTH, 1):
        new = np.clip(label * nearness(m) / fusion / 2 + (label + nearness(m) - fusion) / 2, -2.5, 2.5)
        np.testing.assert_allclose(memory['labels'][:4, column], label / 3 + new * 2 / 3, atol=1e-4)
    assert np.abs(memory['labels'][:4, 1] - memory['labels'][:4, 2]).max() > 0.1
    apply = jax.jit(functools.partial(make().apply, train=True, mutable=[MEMORY]))
    outputs, _ = apply({'params': state.params, **state.model_state}, batch, rngs={'dropout': jax.random.key(0)})
    np.testing.assert_array_equal(outputs['unimodal_label'], memory['labels'][:4, 1:])


@pytest.mark.parametrize('modalities', [BOTH, ALL, ('vision',)])
def test_rows_padding_and_missing_modalities(modalities):
    model, variables = make(modalities), {'params': state_of(modalities).params}
    predict = jax.jit(lambda batch: model.apply(variables, batch, train=False)['prediction'])
    batch, order = make_batch(modalities), np.array([2, 0, 3, 1])
    expected = np.asarray(predict(batch))
    np.testing.assert_allclose(predict(make_batch(modalities, extra=3, garbage=np.nan)), expected, atol=2e-6)
    np.testing.assert_allclose(predict({key: x[order] for key, x in batch.items()}), expected[order], atol=2e-6)
    for garbage in (0.0, np.nan):
        other = make_batch(modalities)
        for m in modalities:
            other[f'{m}_mask'][1], other[m][1] = False, garbage
        found = np.asarray(predict(other))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[np.array([0, 2, 3])], expected[np.array([0, 2, 3])], atol=2e-6)


def steps_of(train, state, batch, count=4, place=lambda state: state):
    """The state and the losses of so many steps on one batch; modalities learn by themselves from the third on."""
    losses, state = [], place(state)
    for _ in range(count):
        state, numbers = train(state, batch)
        losses.append(float(numbers['loss']))
    return jax.tree.map(np.asarray, state), losses


def assert_same(a, b, atol=1e-5):
    np.testing.assert_allclose(a[1], b[1], rtol=1e-4)
    pairs = zip(*(jax.tree.leaves((state.params, state.model_state)) for state, _ in (a, b)), strict=True)
    for x, y in pairs:
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.fixture(scope='module')
def whole():
    """Four steps on a batch of four records, of which one lacks the sound."""
    batch = numbered(numbers=(3, 0, 7, 1))
    batch['audio_mask'][1] = False
    train = jax.jit(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS)))
    return batch, steps_of(train, state_of(), batch)


def test_rows_of_padding_are_not_remembered_and_change_no_step(whole):
    batch, expected = whole
    none = {key: np.zeros_like(x) for key, x in batch.items()} | {'record': np.full(4, golden_of.RECORDS, np.int32)}
    padded = {key: np.concatenate([x, none[key]]) for key, x in batch.items()}
    train = jax.jit(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS)))
    assert_same(steps_of(train, state_of(), padded), expected)


def test_two_devices_make_the_same_steps_and_parts_the_same_first_one(whole):
    """Later parts see what earlier ones brought, as in the official code, so only the first time is the same."""
    batch, expected = whole
    mesh = sharding.make_mesh(1, 2)
    put = {'batch': sharding.put_batch(batch, mesh), 'place': lambda state: _copied(state, sharding.replicated(mesh))}
    step = jit_step(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS)), _same, sharding.replicated(mesh))
    assert_same(steps_of(step, state_of(), **put), expected)
    parts = make_step_parts(make(), optax.sgd(0.1), make_loss(LOSS), accumulate=2)
    parts = jit_step(parts, _same, sharding.replicated(mesh))
    one = jax.jit(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS)))
    assert_same(steps_of(parts, state_of(), count=1, **put), steps_of(one, state_of(), batch, count=1))


def _same(function, states):
    return function


def _copied(state, place):
    return sharding.copy_tree(jax.device_put(state, place))


def test_seeds_side_by_side_are_each_by_itself(whole):
    batch, expected = whole
    other = state_of().replace(params=jax.tree.map(np.negative, state_of().params))
    train = jax.jit(over_seeds(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS)), 2))
    both = jax.tree.map(lambda *x: np.stack(x), state_of(), other)
    for _ in range(4):
        both, _ = train(both, batch)
    for a, b in zip(jax.tree.leaves(take_seed(both, 0)), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_record_without_a_modality_keeps_its_label_and_is_in_no_mean(whole):
    """Row 1, record 0: whatever stands where the sound is not; its other modality is remembered."""
    batch, (state, _) = whole
    memory = state.model_state[MEMORY]
    assert memory['seen'][0].tolist() == [True, True, False]
    assert memory['labels'][0, 2] == memory['labels'][0, 0] == batch['label'][1]
    assert memory['labels'][0, 1] != memory['labels'][0, 0]
    assert not memory['audio'][0].any()
    outputs, _ = make().apply(
        {'params': state.params, **state.model_state}, batch, train=True, rngs={'dropout': jax.random.key(0)},
        mutable=[MEMORY],
    )  # fmt: skip
    assert np.asarray(outputs['unimodal_weight'][1] == 0).tolist() == [False, True]
    assert (outputs['unimodal_weight'][:, 1] > 0).tolist() == [True, False, True, True]


def test_labels_stay_where_they_have_one_sign():
    """No record to be far from: the label of a modality is the record's."""
    train = jax.jit(make_train_step(make(), optax.sgd(0.1), make_loss(LOSS)))
    batch = {**numbered(), 'label': np.float32([1, 2, 3, 50])}
    state, _ = steps_of(train, state_of(), batch)
    np.testing.assert_array_equal(state.model_state[MEMORY]['labels'][:4], np.repeat(batch['label'][:, None], 3, 1))
    mixed, _ = steps_of(train, state_of(), {**batch, 'label': np.float32([-40, 2, 3, 50])})
    labels = mixed.model_state[MEMORY]['labels'][:4]
    assert 3 < np.abs(labels[:, 1:] - labels[:, :1]).max() < 90  # bounded by the largest label, not by MOSI's
    assert np.abs(labels).max() <= 50


def test_bfloat16_computes_in_less_and_keeps_float32():
    model, batch = make().clone(dtype=jnp.bfloat16), numbered()
    with jax.numpy_dtype_promotion('standard'):
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
        found, exact = (
            jax.jit(functools.partial(m.apply, train=False))(variables_of(state_of()), batch)['prediction']
            for m in (model, make())
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes['params'])} == {jnp.dtype('float32')}
    assert found.dtype == jnp.float32
    assert not np.array_equal(found, exact)
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_what_cannot_be_is_said():
    model, state, batch = make(), state_of(), numbered()
    for key in ('record', 'label'):
        lacking = {name: x for name, x in batch.items() if name != key}
        with pytest.raises(ValueError, match=f"numbers and labels of the records: the batch lacks '{key}', it has "):
            model.apply(
                {'params': state.params, **state.model_state}, lacking, train=True, rngs={'dropout': jax.random.key(0)}
            )
    with pytest.raises(
        ValueError, match='self_mm predicts one number, found num_outputs = 3: the labels are classes, or `ordinal`'
    ):
        model.clone(num_outputs=3).apply(variables_of(state), batch, train=False)
    with pytest.raises(ValueError, match="text_pooling 'last', expected 'first' or 'mean'"):
        model.clone(text_pooling='last').apply(variables_of(state), batch, train=False)
    with pytest.raises(
        ValueError, match=r"unimodal_l1 reads outputs\['unimodal'\], which is not among prediction; the model"
    ):
        losses.unimodal_l1({'prediction': np.zeros((4, 1))}, batch)
    with pytest.raises(ValueError, match=r'unimodal_l1: predictions \(4, 2\), labels \(4, 2\) and weights \(4,\)'):
        shapes = {'unimodal': np.zeros((4, 2)), 'unimodal_label': np.zeros((4, 2)), 'unimodal_weight': np.zeros(4)}
        losses.unimodal_l1(shapes, batch)


def test_the_size_of_the_data_is_asked_for_and_levels_are_refused():
    common = {'modalities': BOTH, 'num_outputs': 1, 'dtype': jnp.float32}
    with pytest.raises(ValueError, match='SelfMm remembers records: give num_records, how many the data set has'):
        build_model(TINY, **common)
    levels = build_model({'name': 'ordinal', 'model': TINY}, **common, num_records=7)
    with pytest.raises(ValueError, match='found num_outputs = 7: the labels are classes, or `ordinal` stands'):
        jax.eval_shape(lambda: levels.init(jax.random.key(0), numbered(), train=False))


def test_models_inside_others_are_found_too():
    inside = {'name': 'encoded', 'text': {'name': 'vector_encoder', 'sizes': (6,)}, 'model': TINY}
    assert reads_records(TINY)
    assert reads_records(inside)
    assert not any(reads_records({'name': name}) for name in MODELS if name != 'self_mm')
    assert not reads_records({})
    common = {'modalities': BOTH, 'num_outputs': 1, 'num_records': 7, 'dtype': jnp.float32}
    assert isinstance(build_model(inside, **common).model, SelfMm)
    assert build_model(inside, **common).model.num_records == 7
