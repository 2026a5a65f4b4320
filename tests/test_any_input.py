"""AnyInput: pictures, samples, ids and vectors before a model of sequences; what is padded changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.encoders.filterbank import kaldi_fbank
from mmer_jax.models import build_model
from mmer_jax.models.any_input import _thinned

ROWS = 3
INPUTS = {  # name -> (modality, its array of so many steps, steps)
    'vectors': ('audio', lambda g, t: g.standard_normal((ROWS, t, 5)).astype(np.float32), 6),
    'pictures': ('vision', lambda g, t: g.integers(0, 255, (ROWS, t, 16, 16, 3)).astype(np.uint8), 3),
    'samples': ('audio', lambda g, t: (3000 * g.standard_normal((ROWS, t))).astype(np.int16), 1600),
    'ids': ('text', lambda g, t: g.integers(0, 50, (ROWS, t)).astype(np.int32), 5),
}


@pytest.fixture(scope='module', params=INPUTS)
def case(request):
    m, make, steps = INPUTS[request.param]
    x = make(np.random.default_rng(0), steps)
    mask = np.arange(steps) < np.array([steps, steps // 2, 0])[:, None]
    inner = {'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 4}
    fields = {'name': 'any_input', 'model': inner, 'bands': 8, 'embedding': 4, 'vocabulary': 32}
    model = build_model(fields, modalities=(m,), num_outputs=2, dtype=jnp.float32)
    variables = model.init(jax.random.key(0), {m: x, f'{m}_mask': mask}, train=False)

    @jax.jit
    def predict(variables, x, mask):
        return model.apply(variables, {m: x, f'{m}_mask': mask}, train=False)['prediction']

    return request.param, m, x, mask, variables, predict


def test_what_is_padded_changes_nothing_and_what_is_there_does(case):
    _kind, _m, x, mask, variables, predict = case
    before = predict(variables, x, mask)
    assert before.shape == (ROWS, 2)
    other = np.random.default_rng(1).permutation(x.reshape(-1)).reshape(x.shape)
    hidden = np.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, other).astype(x.dtype)
    np.testing.assert_allclose(predict(variables, hidden, mask), before, atol=1e-6)
    changed = predict(variables, other, mask)
    assert (np.abs(changed - before).max(1) > 1e-6).tolist() == [True, True, False]  # the last row has no step


def test_every_parameter_of_the_front_learns(case):
    kind, _m, x, mask, variables, predict = case
    gradient = jax.jit(jax.grad(lambda v: (predict(v, x, mask) ** 2).sum()))(variables)['params']
    front = {name: tree for name, tree in gradient.items() if name != 'model'}
    assert set(front) == {'pictures': {'vision_cnn'}, 'ids': {'text_embedding'}}.get(kind, set())
    for leaf in jax.tree.leaves(front):
        assert np.abs(leaf).max() > 0


def test_samples_become_the_mean_of_each_so_many_frames():
    samples = np.random.default_rng(0).standard_normal((2, 1600)).astype(np.float32)
    mask = np.arange(1600) < np.array([1600, 900])[:, None]
    bands, valid = jax.device_get(jax.jit(functools.partial(kaldi_fbank, num_bands=4))(samples, mask))
    found, steps = jax.jit(_thinned, static_argnums=2)(bands, valid, 4)
    assert found.shape == (2, 2, 4)
    assert steps.tolist() == [[True, True], [True, False]]
    np.testing.assert_allclose(found[0, 0], bands[0, :4].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[1, 0], bands[1][np.asarray(valid[1])][:4].mean(0), rtol=1e-5)
