"""Mixup and label smoothing: what is mixed with what, the same step however it is accumulated, again after a kill."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.losses import LOSSES, make_loss
from mmer_jax.run.mixup import OWN, PARTNER, mix, of_both_labels
from mmer_jax.run.step import init_state, make_train_step
from tests.small_run import MeanModel
from tests.test_models import ALL, make_batch

MODEL = MeanModel(ALL, dropout=0.0)


def batch_of(rows=6, padding=2):
    batch = make_batch(ALL, rows=rows, garbage=np.nan)
    batch['weight'][rows - padding :] = 0
    batch['label'] = np.arange(rows) % 3
    return batch


def partners_of(batch, found):
    """The row whose shares of `audio` each row got, by its values."""
    x = np.where(batch['audio_mask'][..., None], batch['audio'], 0)
    share = np.asarray(found[OWN])[:, None, None]
    other = (np.asarray(found['audio']) - share * x) / np.maximum(1 - share, 1e-6)
    return [int(np.abs(other[row] - x).sum((1, 2)).argmin()) for row in range(len(x))]


def test_a_row_is_mixed_with_another_real_one_and_knows_its_label():
    batch = batch_of()
    for seed in range(5):
        found = mix(batch, jax.random.key(seed), 5.0)  # shares near a half, so that partners can be told
        share = np.asarray(found[OWN])
        assert (share >= 0.5).all()
        assert len(set(share.tolist())) == 6
        partner = partners_of(batch, found)
        assert sorted(partner[:4]) == [0, 1, 2, 3]
        assert all(row != other for row, other in enumerate(partner[:4]))
        np.testing.assert_array_equal(np.asarray(found[PARTNER])[:4], batch['label'][partner[:4]])
        for m in ALL:
            mask = batch[f'{m}_mask'][:4]
            np.testing.assert_array_equal(np.asarray(found[f'{m}_mask'])[:4], mask | mask[partner[:4]])
            assert np.isfinite(found[m]).all()


def test_padding_rows_are_nobodys_partner_and_stay():
    batch = batch_of()
    other = {**batch, 'audio': batch['audio'].copy()}
    other['audio'][4:] += 100
    a, b = (mix(each, jax.random.key(1), 0.4) for each in (batch, other))
    np.testing.assert_array_equal(a['audio'][:4], b['audio'][:4])
    mask = batch['audio_mask'][4:, :, None]
    np.testing.assert_allclose(a['audio'][4:], np.where(mask, batch['audio'][4:], 0), rtol=1e-6)
    alone = {**batch, 'weight': np.array([1, 0, 0, 0, 0, 0], np.float32)}
    mask = batch['audio_mask'][0, :, None]
    found = mix(alone, jax.random.key(0), 0.4)['audio'][0]
    np.testing.assert_allclose(found, np.where(mask, batch['audio'][0], 0), rtol=1e-6)


def test_the_loss_is_that_of_the_mixed_label():
    batch = mix(batch_of(), jax.random.key(3), 0.4)
    logits = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    share = np.asarray(batch[OWN])[:, None]
    target = share * np.eye(3)[batch['label']] + (1 - share) * np.eye(3)[batch[PARTNER]]
    found = of_both_labels(LOSSES['cross_entropy'])({'prediction': logits}, batch)
    np.testing.assert_allclose(found, optax.softmax_cross_entropy(logits, target), rtol=1e-5)


def test_label_smoothing_is_that_of_optax_and_of_cross_entropy_alone():
    batch, logits = {'label': np.array([0, 2])}, np.array([[2.0, 0.5, -1], [0.3, 0.2, 0.1]], np.float32)
    target = optax.smooth_labels(jnp.eye(3)[batch['label']], 0.1)
    loss = make_loss({'cross_entropy': 2.0}, smoothing=0.1)
    found = loss({'prediction': logits}, batch)
    np.testing.assert_allclose(found, 2 * optax.softmax_cross_entropy(logits, target), rtol=1e-5)
    assert loss.own is not None
    np.testing.assert_array_equal(loss.own({'prediction': logits}, batch), found)
    with pytest.raises(ValueError, match='label_smoothing: found 0.1, expected 0 without cross_entropy'):
        make_loss({'l1': 1.0}, smoothing=0.1)


def test_a_mixed_step_depends_on_the_step_alone_and_not_on_accumulate():
    batch, sgd = batch_of(8, 3), optax.sgd(1.0)
    state = init_state(MODEL, sgd, batch, 0)
    loss = make_loss({'cross_entropy': 1.0})
    steps = {k: jax.jit(make_train_step(MODEL, sgd, loss, accumulate=k, mixup=0.3)) for k in (1, 2)}
    (whole, numbers), (parts, part_numbers) = (step(state, batch) for step in steps.values())
    again, _ = steps[1](state, batch)
    later, _ = steps[1](state.replace(step=state.step + 1), batch)
    plain, _ = jax.jit(make_train_step(MODEL, sgd, loss))(state, batch)
    first = [jax.tree.leaves(each.params) for each in (whole, parts, again, later, plain)]
    for a, b, c, d, e in zip(*first, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_array_equal(a, c)
        assert not np.allclose(a, d, atol=1e-6)
        assert not np.allclose(a, e, atol=1e-6)
    for name in numbers:
        np.testing.assert_allclose(part_numbers[name], numbers[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_tokens_are_not_mixed():
    batch = {**batch_of(), 'text': np.zeros((6, 5), np.int32)}
    with pytest.raises(ValueError, match='mixup mixes real numbers, and text holds int32'):
        mix(batch, jax.random.key(0), 0.2)
