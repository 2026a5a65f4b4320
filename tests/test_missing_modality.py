"""Records that lack a modality: how `modality_dropout` makes them, and what aligned models do without their anchor.

That every model trains on them stands in tests/test_models.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.data import augment
from mmer_jax.data.batches import BatchPlan, LoadBatch, plan_shapes, read_batches, record_lengths
from mmer_jax.data.records import RecordSource
from mmer_jax.data.schema import Frames, encode_frames
from mmer_jax.fusion import AlignToAnchor
from mmer_jax.losses.alignment import ctc_alignment
from mmer_jax.losses.translation import second_translation, translation
from tests.test_models import make, make_batch

ALL = ('text', 'audio', 'vision')


def dropped(probability, record, draws):
    """(draws, modalities) bool: which of the record's modalities are missing in each draw."""
    change = augment.modality_dropout(probability)
    found = [change(record, np.random.default_rng([0, 0, number])) for number in range(draws)]
    return np.array([[not len(one[m]) for m in ALL if m in record] for one in found])


@pytest.mark.parametrize('probability', [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize('modalities', [ALL, ('text', 'vision'), ('audio',)])
def test_each_modality_is_dropped_as_often_as_asked_but_never_all(probability, modalities):
    record = {m: np.ones((4, 2), np.float32) for m in modalities}
    missing, n = dropped(probability, record, 3000), len(modalities)
    assert not missing.all(1).any()
    share = probability - probability**n / n
    np.testing.assert_allclose(missing.mean(0), share, atol=0.035 if 0 < probability < 1 and n > 1 else 0.03)
    # Independent of each other, but for what keeps one: all but one together.
    if n == 3 and probability == 0.3:
        assert missing[:, :2].all(1).mean() == pytest.approx(0.3**2 * 0.7 + 0.3**3 / 3, abs=0.02)


def test_what_a_record_lacks_counts_as_missing_already():
    record = {'text': np.ones((4, 2)), 'audio': np.ones((0, 2)), 'vision': np.ones((3, 2)), 'label': 1}
    missing = dropped(0.6, record, 500)
    assert missing[:, 1].all()
    assert not missing[:, [0, 2]].all(1).any()
    assert missing[:, [0, 2]].any(1).mean() > 0.5
    assert dropped(0.9, {m: np.ones((0, 2)) for m in ALL}, 3).all()  # nothing to keep: left as it is


def test_pictures_are_dropped_undecoded():
    pictures = encode_frames(np.zeros((3, 8, 8, 3), np.uint8))
    change = augment.modality_dropout(1.0)
    record = {'audio': np.ones((4, 2)), 'vision': Frames(pictures.encoded, step_shape=(8, 8, 3))}
    kept = [change(record, np.random.default_rng(seed)) for seed in range(20)]
    lengths = {(len(one['audio']), len(one['vision'])) for one in kept}
    assert lengths == {(4, 0), (0, 3)}
    assert all(isinstance(one['vision'], Frames) for one in kept)
    empty = next(one['vision'] for one in kept if not len(one['vision']))
    assert np.asarray(empty).shape == (0, 8, 8, 3)


def test_a_senseless_probability():
    with pytest.raises(ValueError, match=r'modality_dropout: expected a probability in 0..1, found 30'):
        augment.modality_dropout(30)


def loader(directory, probability):
    source = RecordSource(directory)
    lengths = record_lengths(source, ALL, {})
    plan = BatchPlan(np.arange(len(source)), lengths, plan_shapes(lengths, 2), 8, shuffle=True, seed=3, epochs=3)
    changes = augment.make_augmentations([('modality_dropout', {'probability': probability})])
    return LoadBatch(source, ALL, plan, {}, {}, changes)


def test_a_resumed_run_drops_what_a_whole_run_drops(tiny):
    """A function of record and epoch: from any step on, with any number of threads."""
    load = loader(tiny, 0.5)
    whole = list(read_batches(load))
    for start, threads in ((0, 3), (7, 1)):
        again = list(read_batches(load, start=start, threads=threads))
        assert len(again) == len(whole) - start
        for a, b in zip(again, whole[start:], strict=True):
            assert set(a) == set(b)
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])
    by_epoch = {}
    for step, batch in enumerate(whole):
        epoch = load.plan[step][0]
        for row, name in enumerate(batch['id'][batch['weight'] > 0]):
            there = tuple(bool(batch[f'{m}_mask'][row].any()) for m in ALL)
            assert any(there)
            by_epoch.setdefault(name, {})[epoch] = there
    assert all(len(epochs) == 3 for epochs in by_epoch.values())
    assert any(len(set(epochs.values())) > 1 for epochs in by_epoch.values())  # drawn anew in each epoch


# ---- models that align to an anchor --------------------------------------------------------------------------


def lacking(batch, m, row):
    mask = batch[f'{m}_mask'].copy()
    mask[row] = False
    return {**batch, f'{m}_mask': mask}


@pytest.mark.parametrize('align', ['none', 'pool', 'ctc'])
def test_a_record_without_the_anchor_keeps_its_other_modalities(align):
    """Only that record changes: it has the steps of its longest other modality."""
    batch = make_batch(ALL)
    if align == 'none':
        for m in ALL:
            batch[m], batch[f'{m}_mask'] = batch[m][:, :4], batch['text_mask'][:, :4]
    batch['audio_mask'][1, 3:] = False
    batch['vision_mask'][1, 2:] = False
    aligner = AlignToAnchor('text', 6, align=align)
    variables = aligner.init(jax.random.key(0), batch, ALL, train=False)
    run = jax.jit(lambda batch: aligner.apply(variables, batch, ALL, train=False))
    aligned, mask, extras = jax.device_get(run(batch))
    without, mask_without, extras_without = jax.device_get(run(lacking(batch, 'text', 1)))
    np.testing.assert_array_equal(mask_without[1].sum(), batch['audio_mask'][1].sum())
    assert np.abs(without['audio'][1]).max() > 0
    assert np.abs(without['text'][1]).max() == 0
    others = np.array([0, 2, 3])
    np.testing.assert_array_equal(mask_without[others], mask[others])
    for m in ALL:
        np.testing.assert_array_equal(without[m][others], aligned[m][others])
    if align == 'ctc':  # nothing to align to: no loss
        loss = jax.jit(lambda extras: ctc_alignment(extras, {}))
        np.testing.assert_allclose(loss(extras_without), np.where(np.arange(4) == 1, 0, loss(extras)), rtol=1e-6)


def test_mctn_learns_no_translation_into_what_is_missing():
    """Without the target there is no loss; without the source the prediction is a constant, whatever the targets."""
    model, batch = make('mctn', ALL, align='pool'), make_batch(ALL)
    variables = model.init(jax.random.key(0), batch, train=False)
    run = jax.jit(lambda batch: model.apply(variables, batch, train=False))
    whole, no_first, no_source = run(batch), run(lacking(batch, 'audio', 1)), run(lacking(batch, 'text', 1))
    assert (translation(whole, {}) > 0).all()
    np.testing.assert_array_equal(translation(no_first, {}) > 0, [True, False, True, True])
    assert (second_translation(no_first, {}) > 0).all()
    np.testing.assert_array_equal(second_translation(no_source, {}) > 0, [True, False, True, True])
    np.testing.assert_array_equal(no_first['prediction'], whole['prediction'])
    both = run(lacking(lacking(batch, 'text', 1), 'audio', 1))
    np.testing.assert_array_equal(both['prediction'][1], no_source['prediction'][1])
    assert jnp.abs(no_source['prediction'][1] - whole['prediction'][1]).max() > 1e-5
