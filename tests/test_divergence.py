"""Training that diverges is an error that says what to do, or is told and stands in results.json."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.files import read_json
from mmer_jax.run.divergence import Divergence, are_not_finite
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config


def test_a_learning_rate_without_bounds_ends_with_step_rate_and_advice(tiny, tmp_path):
    """One step per epoch: its loss is finite, and only the parameters behind it are not."""
    rate = {'optimizer__name': 'sgd', 'optimizer__learning_rate': 1e38, 'data__batch_size': 20, 'data__max_shapes': 1}
    config = small_config(tiny, **rate, epochs=2)
    with pytest.raises(FloatingPointError) as caught:
        train_and_evaluate(config, tmp_path / 'run', MeanModel())
    message = str(caught.value)
    assert message.startswith('step ')
    assert '1e+38' in message
    assert 'learning rate' in message
    assert 'clip gradients' in message
    assert not (tmp_path / 'run' / 'results.json').exists()


def test_a_loss_that_grows_a_thousandfold_is_said_once_and_stays(tiny, tmp_path, capsys):
    large = {'optimizer__name': 'sgd', 'optimizer__learning_rate': 1e5}
    train_and_evaluate(small_config(tiny, **large), tmp_path / 'run', MeanModel())
    told = [line for line in capsys.readouterr().err.splitlines() if 'training diverges' in line]
    rows = read_json(tmp_path / 'run' / 'results.json')['rows']
    assert len(told) == len(rows) == 2
    for row, line in zip(rows, sorted(told), strict=True):
        assert f'seed {row["seed"]}, step {row["loss_grew_at_step"]}: the loss is ' in line
        assert line.endswith('lower config.optimizer.learning_rate, or clip gradients (config.optimizer.clip_norm)')


def test_growth_is_counted_from_the_first_loss_and_survives_a_checkpoint(capsys):
    running, found = np.array([True, True, False]), Divergence(np.arange(3))
    found.account(1, np.array([2.0, 0.0, 1.0]), running, tell=True)
    found.account(2, np.array([1999.0, 0.5, 1e9]), running, tell=True)
    assert capsys.readouterr().err == ''
    again = Divergence(np.arange(3))
    again.restore(found.to_json())
    again.account(3, np.array([2001.0, 1.5, 1e9]), running, tell=True)
    again.account(4, np.array([9e9, 9e9, 1e9]), running, tell=True)
    assert capsys.readouterr().err.count('step 3: the loss is') == 2
    rows = [{}, {}, {}]
    again.mark(rows)
    assert rows == [{'loss_grew_at_step': 3}, {'loss_grew_at_step': 3}, {}]


def test_the_seed_whose_parameters_are_not_finite_is_found():
    good, bad = jnp.ones((3, 4)), jnp.ones((3, 2, 2)).at[1, 0, 1].set(jnp.inf)
    tree = {'a': good, 'b': bad, 'key': jnp.zeros((3, 2), jnp.uint32), 'c': bad.astype(jnp.bfloat16)}
    assert are_not_finite(tree, 3).tolist() == [False, True, False]
    found = Divergence(np.array([7, 8, 9]))
    found.check_parameters(5, tree, np.array([True, False, True]), np.ones(3))  # a seed that has stopped
    with pytest.raises(FloatingPointError, match=r'step 5: .* \(seeds \[8\], learning rate 0.5\); lower'):
        found.check_parameters(5, tree, np.ones(3, bool), np.full(3, 0.5))
