"""mmer_jax.optimizer: schedules by hand, first updates in numpy, and five steps beside torch.optim."""

import jax
import numpy as np
import optax
import pytest

from mmer_jax.run.optimizer import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule

PARAMS = {'a': np.array([1.0, -2.0, 0.5], np.float32), 'b': np.array([[3.0]], np.float32)}
GRADIENT = {'a': np.array([0.3, -0.1, 0.0], np.float32), 'b': np.array([[-4.0]], np.float32)}


def fields(**changes):
    values = {
        'name': 'adam',
        'learning_rate': 0.1,
        'schedule': 'constant',
        'warmup': 0.0,
        'weight_decay': 0.0,
        'b1': 0.9,
        'b2': 0.999,
        'momentum': 0.9,
        'clip_norm': 0.0,
        'clip_value': 0.0,
        'clip_alone': (),
        'freeze': (),
    }
    assert set(changes) <= set(values)
    return {**values, **changes}


def run(gradients, total_steps=100, **changes):
    """Parameters after each of the gradients."""
    optimizer, _ = make_optimizer(fields(**changes), total_steps)
    params = jax.device_put(PARAMS)
    state, path = optimizer.init(params), []

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for gradient in gradients:
        params, state = step(params, state, gradient)
        path.append(params)
    return path


def assert_params(actual, expected, tolerance=1e-6):
    for name in PARAMS:
        np.testing.assert_allclose(actual[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def each(function, *trees):
    return jax.tree.map(function, *trees)


# Schedules


def rates(steps, total_steps=20, **changes):
    schedule = make_schedule(fields(learning_rate=0.4, **changes), total_steps)
    return [float(schedule(step)) for step in steps]


def test_constant_schedule():
    assert rates([0, 7, 19, 20, 99]) == pytest.approx([0.4] * 5)


def test_cosine_schedule_ends_at_0():
    # Half way down at half time; cos(pi / 4) a quarter of the way.
    quarter = 0.4 * (1 + np.sqrt(0.5)) / 2
    assert rates([0, 5, 10, 20, 30], schedule='cosine') == pytest.approx([0.4, quarter, 0.2, 0, 0], abs=1e-7)


def test_linear_schedule_ends_at_0():
    assert rates([0, 5, 10, 20, 30], schedule='linear') == pytest.approx([0.4, 0.3, 0.2, 0, 0], abs=1e-7)


@pytest.mark.parametrize('name', SCHEDULES)
def test_warmup_is_a_share_of_all_steps(name):
    # A quarter of 20 steps: 0, 1/5, ... of the rate, all of it at step 5; the schedule takes the 15 steps left.
    rise = [0, 0.08, 0.16, 0.24, 0.32, 0.4]
    assert rates(range(6), schedule=name, warmup=0.25) == pytest.approx(rise, abs=1e-7)
    expected = {
        'constant': [0.4, 0.4, 0.4],
        'cosine': [0.4 * (1 + np.cos(np.pi / 3)) / 2, 0.4 * (1 + np.cos(np.pi * 2 / 3)) / 2, 0],
        'linear': [0.4 * 2 / 3, 0.4 / 3, 0],
    }[name]
    assert rates([10, 15, 20], schedule=name, warmup=0.25) == pytest.approx(expected, abs=1e-7)


def test_warmup_over_all_steps():
    assert rates([0, 10, 20], schedule='cosine', warmup=1.0) == pytest.approx([0, 0.2, 0.4], abs=1e-7)


def test_unknown_schedule_and_optimizer_list_the_known_ones():
    with pytest.raises(ValueError, match="'cosin' is unknown") as error:
        make_schedule(fields(schedule='cosin'), 10)
    assert all(name in str(error.value) for name in SCHEDULES)
    with pytest.raises(ValueError, match="'rmsprop' is unknown") as error:
        make_optimizer(fields(name='rmsprop'), 10)
    assert all(name in str(error.value) for name in OPTIMIZERS)


# First updates in numpy


def adam_first(parameter, gradient, rate=0.1):
    # The bias corrections undo (1 - b1) and (1 - b2): m = g, v = g^2.
    return parameter - rate * gradient / (np.abs(gradient) + 1e-8)


def test_adam_first_update():
    assert_params(run([GRADIENT])[0], each(adam_first, PARAMS, GRADIENT))


def test_adam_second_update_uses_both_betas():
    second = each(lambda g: np.float32(0.5) - g, GRADIENT)
    b1, b2 = 0.8, 0.95

    def expected(parameter, g1, g2):
        parameter = adam_first(parameter, g1)
        m = ((1 - b1) * b1 * g1 + (1 - b1) * g2) / (1 - b1**2)
        v = ((1 - b2) * b2 * g1**2 + (1 - b2) * g2**2) / (1 - b2**2)
        return parameter - 0.1 * m / (np.sqrt(v) + 1e-8)

    assert_params(run([GRADIENT, second], b1=b1, b2=b2)[1], each(expected, PARAMS, GRADIENT, second), 2e-6)


def test_adam_adds_weight_decay_to_the_gradient():
    decayed = each(lambda p, g: g + np.float32(0.2) * p, PARAMS, GRADIENT)
    result = run([GRADIENT], weight_decay=0.2)[0]
    assert_params(result, each(adam_first, PARAMS, decayed))
    # Where the gradient is 0 the step has its full size: that is what AdamW does otherwise.
    assert float(result['a'][2]) == pytest.approx(0.4, rel=1e-5)


def test_adamw_decays_apart_from_the_gradient():
    result = run([GRADIENT], name='adamw', weight_decay=0.2)[0]
    assert_params(result, each(lambda p, g: adam_first(p, g) - np.float32(0.1 * 0.2) * p, PARAMS, GRADIENT))
    assert float(result['a'][2]) == pytest.approx(0.5 - 0.1 * 0.2 * 0.5, rel=1e-6)


def test_sgd_with_momentum_over_two_steps():
    second = each(lambda g: g + np.float32(1), GRADIENT)
    first_params, second_params = run([GRADIENT, second], name='sgd', momentum=0.8)
    expected = each(lambda p, g: p - np.float32(0.1) * g, PARAMS, GRADIENT)
    assert_params(first_params, expected)
    expected = each(lambda p, g1, g2: p - np.float32(0.1) * (np.float32(0.8) * g1 + g2), expected, GRADIENT, second)
    assert_params(second_params, expected)


def test_the_rate_follows_the_schedule():
    # Warm-up over two of four steps, so the first step moves nothing; plain SGD shows the rate itself.
    path = run([GRADIENT] * 5, 4, name='sgd', momentum=0.0, schedule='linear', warmup=0.5)
    moves = np.diff([3.0, *(float(params['b'][0, 0]) for params in path)]) / 4
    np.testing.assert_allclose(moves, [0, 0.05, 0.1, 0.05, 0], atol=1e-6)


# Clipping


def clipped(gradient, **changes):
    """The gradient that arrives at the optimiser: plain SGD with rate 1 subtracts it."""
    result = run([gradient], name='sgd', momentum=0.0, learning_rate=1.0, **changes)[0]
    return each(lambda before, after: before - np.asarray(after), PARAMS, result)


LARGE = {'a': np.array([2.0, -1.0, 0.0], np.float32), 'b': np.array([[2.0]], np.float32)}  # norm 3


def test_clip_norm_scales_all_arrays_together():
    assert_params(clipped(LARGE, clip_norm=1.5), each(lambda g: g / 2, LARGE))
    assert_params(clipped(LARGE, clip_norm=3.5), LARGE)


def test_what_is_clipped_alone_has_a_norm_of_its_own():
    # b has norm 2 by itself; the norm of the rest, root 5, no longer knows of it, however large it is.
    rest = np.sqrt(5)
    found = clipped(LARGE, clip_norm=1.0, clip_alone=('^b$',))
    assert_params(found, {'a': LARGE['a'] / rest, 'b': [[1.0]]})
    huge = {**LARGE, 'b': 100 * LARGE['b']}
    assert_params(clipped(huge, clip_norm=1.0, clip_alone=('^b$',)), {'a': LARGE['a'] / rest, 'b': [[1.0]]})
    assert_params(clipped(LARGE, clip_norm=1.0, clip_alone=('^a$', '^b$')), {'a': LARGE['a'] / rest, 'b': [[1.0]]})
    assert_params(clipped(LARGE, clip_norm=1.5, clip_alone=('no such parameter',)), each(lambda g: g / 2, LARGE))
    frozen = clipped(LARGE, clip_norm=1.0, clip_alone=('^b$',), freeze=('^b$',))
    assert_params(frozen, {'a': LARGE['a'] / rest, 'b': [[0.0]]})


def test_clipping_alone_needs_a_norm():
    with pytest.raises(ValueError, match=r'clip_alone says what is clipped apart, but clip_norm is 0'):
        make_optimizer(fields(clip_alone=('^b$',)), 10)


def test_clip_value_cuts_each_number():
    assert_params(clipped(LARGE, clip_value=1.5), {'a': [1.5, -1, 0], 'b': [[1.5]]})


def test_value_is_clipped_before_norm():
    # Cut to (1, -1, 0), (1): norm sqrt(3). The other way round nothing would be left to cut.
    cut = {'a': np.array([1, -1, 0]), 'b': np.array([[1]])}
    assert_params(clipped(LARGE, clip_value=1.0, clip_norm=0.5), each(lambda g: g * 0.5 / np.sqrt(3), cut))


def test_weight_decay_is_added_after_clipping():
    result = clipped(LARGE, clip_norm=1.5, weight_decay=0.2)
    assert_params(result, each(lambda p, g: g / 2 + np.float32(0.2) * p, PARAMS, LARGE))


# torch.optim


@pytest.mark.parametrize(
    ('name', 'kind', 'clip_norm', 'changes', 'options'),
    [
        ('adam', 'Adam', 0.0, {}, {'betas': (0.9, 0.999)}),
        ('adam', 'Adam', 1.0, {'weight_decay': 0.1, 'b1': 0.7, 'b2': 0.9}, {'weight_decay': 0.1, 'betas': (0.7, 0.9)}),
        ('adamw', 'AdamW', 1.0, {'weight_decay': 0.1}, {'weight_decay': 0.1}),
        ('sgd', 'SGD', 0.0, {'momentum': 0.0}, {}),
        ('sgd', 'SGD', 1.0, {'weight_decay': 0.1}, {'weight_decay': 0.1, 'momentum': 0.9}),
    ],
)
def test_five_steps_equal_torch(name, kind, clip_norm, changes, options):
    torch = pytest.importorskip('torch', reason='torch is not installed; the numpy updates above stand alone')
    generator = np.random.default_rng(0)
    gradients = [each(lambda p: generator.standard_normal(p.shape).astype(np.float32), PARAMS) for _ in range(5)]
    path = run(gradients, name=name, learning_rate=0.01, clip_norm=clip_norm, **changes)
    parameters = {key: torch.nn.Parameter(torch.from_numpy(value.copy())) for key, value in PARAMS.items()}
    optimizer = getattr(torch.optim, kind)(parameters.values(), lr=0.01, **options)
    for gradient, ours in zip(gradients, path, strict=True):
        for key, parameter in parameters.items():
            parameter.grad = torch.from_numpy(gradient[key].copy())
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip_norm)
        optimizer.step()
        assert_params(ours, {key: parameter.detach().numpy() for key, parameter in parameters.items()})
