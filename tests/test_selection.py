"""mmer_jax.selection: best epoch, patience and plateau by hand, and N seeds together equal to N seeds alone."""

import json

import numpy as np
import pytest

from mmer_jax.run.selection import Selection


def follow(selection, values, first_epoch=1):
    """Feeds one seed's values epoch by epoch until it stops; returns the improved epochs."""
    improved = []
    for epoch, value in enumerate(values, first_epoch):
        if not selection.running[0]:
            break
        if selection.update(epoch, np.array([value]))[0]:
            improved.append(epoch)
    return improved


def test_first_of_equal_epochs_wins():
    selection = Selection(1, True)
    assert follow(selection, [0.2, 0.5, 0.4, 0.5, 0.5]) == [1, 2]
    assert (selection.best[0], selection.best_epoch[0], selection.epochs[0]) == (0.5, 2, 5)


def test_lower_is_better():
    selection = Selection(1, False)
    assert follow(selection, [0.9, 0.5, 0.7, 0.5, 0.1]) == [1, 2, 5]
    assert selection.best_epoch[0] == 5
    selection = Selection(1, False)
    assert follow(selection, [-3.0, -2.0, 0.0]) == [1]


def test_patience_counts_epochs_without_improvement():
    selection = Selection(1, True, patience=2)
    # The best is epoch 2; epochs 3 and 4 do not beat it, so epoch 5 is never run.
    assert follow(selection, [1, 3, 3, 2, 9]) == [1, 2]
    assert not selection.running[0]
    assert (selection.best_epoch[0], selection.epochs[0]) == (2, 4)


def test_improvement_restarts_patience_and_0_never_stops():
    selection = Selection(1, True, patience=2)
    assert follow(selection, [1, 0, 2, 0, 3, 0]) == [1, 3, 5]
    assert selection.running[0]
    endless = Selection(1, True)
    follow(endless, [1.0] + [0.0] * 50)
    assert endless.running[0]
    assert endless.lr_scale[0] == 1


def test_plateau_decays_after_more_than_its_patience_and_starts_over():
    selection = Selection(1, True, plateau_patience=2, plateau_factor=0.5)
    scales = []
    # Epoch 1 improves; 2 and 3 are borne, 4 decays; 5 and 6 are borne, 7 decays; 8 improves, 9 and 10 are borne.
    for epoch, value in enumerate([1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], 1):
        selection.update(epoch, np.array([value]))
        scales.append(float(selection.lr_scale[0]))
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]


def test_a_late_improvement_resets_the_plateau_but_not_the_rate():
    selection = Selection(1, False, plateau_patience=1, plateau_factor=0.1)
    follow(selection, [5, 5, 4, 4, 3, 3, 3, 2])
    assert selection.lr_scale[0] == pytest.approx(0.1)
    assert selection.best_epoch[0] == 8


def test_plateau_equals_torch():
    torch = pytest.importorskip('torch', reason='torch is not installed; the plateau is worked by hand above')
    for seed in range(10):
        values = np.random.default_rng(seed).integers(0, 6, 30).astype(float)
        patience, factor = 1 + seed % 3, 0.5
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        mode = 'max' if seed % 2 else 'min'
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode, factor=factor, patience=patience, threshold=0.0, eps=0.0
        )
        selection = Selection(1, mode == 'max', plateau_patience=patience, plateau_factor=factor)
        for epoch, value in enumerate(values, 1):
            scheduler.step(value)
            selection.update(epoch, np.array([value]))
            assert selection.lr_scale[0] == optimizer.param_groups[0]['lr'], (seed, epoch)
        assert selection.lr_scale[0] < 1


OPTIONS = [
    {},
    {'patience': 3},
    {'plateau_patience': 2},
    {'patience': 4, 'plateau_patience': 1, 'plateau_factor': 0.5},
]
# Everything that a run of one seed ends with.
RESULT = ('best', 'best_epoch', 'epochs', 'running', 'lr_scale')


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('higher_is_better', [True, False])
def test_seeds_together_equal_seeds_alone(options, higher_is_better):
    stopped_early = 0
    for trial in range(20):
        # Few different values, so that equal epochs are common.
        values = np.random.default_rng(trial).integers(-4, 5, (25, 4)).astype(float)
        together = Selection(4, higher_is_better, **options)
        alone = [Selection(1, higher_is_better, **options) for _ in range(4)]
        for epoch, row in enumerate(values, 1):
            # What a stopped seed's idle model scores is of no account, be it the best of all or NaN.
            row = np.where(together.running, row, np.nan if epoch % 2 else 99 * (1 if higher_is_better else -1))
            improved = together.update(epoch, row)
            for seed, selection in enumerate(alone):
                single = selection.update(epoch, row[seed : seed + 1])[0] if selection.running[0] else False
                assert single == improved[seed]
                for name in RESULT:
                    assert getattr(selection, name)[0] == getattr(together, name)[seed], (trial, epoch, seed, name)
        stopped_early += (~together.running).sum()
    assert (stopped_early > 0) == ('patience' in options)


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('stop', [0, 1, 5])
def test_json_round_trip_continues_as_if_nothing_had_happened(options, stop):
    values = np.random.default_rng(stop).integers(-4, 5, (12, 3)).astype(float)
    whole, first = Selection(3, False, **options), Selection(3, False, **options)
    for epoch, row in enumerate(values[:stop], 1):
        whole.update(epoch, row)
        first.update(epoch, row)
    resumed = Selection(3, False, **options)
    resumed.restore(json.loads(json.dumps(first.to_json(), allow_nan=False)))
    for epoch, row in enumerate(values[stop:], stop + 1):
        np.testing.assert_array_equal(whole.update(epoch, row), resumed.update(epoch, row))
    for name in (*RESULT, 'plateau'):
        ours, theirs = getattr(resumed, name), getattr(whole, name)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert ours.dtype == theirs.dtype, name


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_stops_the_run(value):
    selection = Selection(2, True)
    selection.update(1, np.array([0.1, 0.2]))
    with pytest.raises(FloatingPointError, match='epoch 2') as error:
        selection.update(2, np.array([0.3, value]))
    assert '0.3' in str(error.value)
    assert str(value) in str(error.value)
