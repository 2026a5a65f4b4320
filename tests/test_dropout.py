"""mmer_jax.dropout: the rate, no pattern in the masks, and the same masks for one seed and for many."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.dropout import Dropout, keep

SHAPE = (64, 1024)


def masks(rate, count, shape=SHAPE):
    keys = jax.random.split(jax.random.key(0), count)
    return np.stack([np.asarray(keep(key, shape, rate)) for key in keys])


@pytest.mark.parametrize('rate', [0.1, 0.25, 0.5, 0.9])
def test_the_share_is_that_of_the_rate(rate):
    kept = masks(rate, 20)
    deviation = np.sqrt(rate * (1 - rate) / kept[0].size)
    shares = (kept.mean((1, 2)) - (1 - rate)) / deviation
    assert np.abs(shares).max() < 4.5
    assert 0.4 < shares.std() < 1.8  # as far off as chance is, and not less: no mask is made to fit
    assert np.abs(kept.mean((0, 1)) - (1 - rate)).max() < 6 * np.sqrt(rate * (1 - rate) / (20 * SHAPE[0]))


def test_neighbours_rows_columns_and_masks_are_independent():
    kept = masks(0.5, 16).astype(np.float64) - 0.5
    size, found = kept.size, {}
    for name, (a, b) in {
        'neighbours': (kept[..., 1:], kept[..., :-1]),
        'rows': (kept[:, 1:], kept[:, :-1]),
        'two apart': (kept[..., 2:], kept[..., :-2]),
        'masks of neighbouring keys': (kept[1:], kept[:-1]),
        'halves': (kept[..., :512], kept[..., 512:]),
    }.items():
        found[name] = 4 * (a * b).mean() * np.sqrt(size)
    assert max(map(abs, found.values())) < 5, found
    # The spectrum of white noise is flat: no period stands out (the largest of 32,768 exponentials is about 10.4).
    power = np.abs(np.fft.rfft(kept.reshape(16, -1))) ** 2 / (0.25 * kept[0].size)
    assert power[:, 1:].max() < 20


def test_keys_that_differ_in_one_bit_give_other_masks():
    words = np.array([[7, 9], [7, 8], [6, 9], [7, 9 + 2**31], [7 + 2**31, 9]], np.uint32)
    kept = [np.asarray(keep(jax.random.wrap_key_data(pair), SHAPE, 0.5)) for pair in words]
    for other in kept[1:]:
        assert abs((kept[0] == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(kept[0].size)


def test_it_is_flax_dropout_but_for_the_numbers():
    x = jnp.ones((200, 50), jnp.bfloat16)
    rngs = {'dropout': jax.random.key(3)}
    for module in (Dropout(0.25), nn.Dropout(0.25)):
        y = np.asarray(module.apply({}, x, deterministic=False, rngs=rngs), np.float32)
        assert set(np.unique(y)) == {0.0, float(jnp.bfloat16(1) / jnp.bfloat16(0.75))}
        assert module.apply({}, x, deterministic=True) is x
    assert Dropout(0.0).apply({}, x, deterministic=False) is x
    assert not np.asarray(Dropout(1.0).apply({}, x, deterministic=False)).any()
    assert Dropout(0.5, deterministic=True).apply({}, x) is x
    with pytest.raises(ValueError, match=r'dropout rate 1.5: expected a number from 0 to 1'):
        Dropout(1.5).apply({}, x, deterministic=False, rngs=rngs)


def test_a_seed_among_many_has_the_masks_it_has_alone():
    keys = jax.random.split(jax.random.key(5), 3)
    together = jax.vmap(lambda key: keep(key, (4, 6), 0.5))(keys)
    for key, kept in zip(keys, together, strict=True):
        np.testing.assert_array_equal(kept, keep(key, (4, 6), 0.5))


def test_gradients_go_where_values_went():
    x = jnp.arange(1.0, 41.0)

    def f(x):
        return Dropout(0.5).apply({}, x, deterministic=False, rngs={'dropout': jax.random.key(1)}).sum()

    y = Dropout(0.5).apply({}, x, deterministic=False, rngs={'dropout': jax.random.key(1)})
    np.testing.assert_allclose(jax.grad(f)(x), np.where(np.asarray(y) > 0, 2.0, 0.0))
