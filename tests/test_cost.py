"""Operations per example: those of a matrix product by hand, on several devices and with seeds; and of a whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.files import read_arrays, read_json
from mmer_jax.metrics import expected_calibration_error
from mmer_jax.run import cost, sharding
from mmer_jax.run.seeds import Turns
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config


def compiled(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)).compile()


def test_a_product_by_hand():
    """(8, 16) by (16, 4): 2 * 8 * 16 * 4 operations; of three seeds as one program a third each."""
    program = compiled(jnp.matmul, (8, 16), (16, 4))
    assert cost.operations(program, 1, 1) == 2 * 8 * 16 * 4
    assert cost.operations(Turns(program, 3), 1, 3) == 2 * 8 * 16 * 4
    lifted = compiled(jax.vmap(jnp.matmul, in_axes=(None, 0)), (8, 16), (3, 16, 4))
    assert cost.operations(lifted, 1, 3) == 2 * 8 * 16 * 4


def test_devices_that_share_a_batch_count_together():
    mesh = sharding.make_mesh(1, jax.device_count())
    batch = jax.ShapeDtypeStruct((8, 16), np.float32, sharding=sharding.batch_sharding(mesh))
    weights = jax.ShapeDtypeStruct((16, 4), np.float32, sharding=sharding.replicated(mesh))
    program = jax.jit(jnp.matmul).lower(batch, weights).compile()
    assert cost.operations(program, mesh.size, 1) == 2 * 8 * 16 * 4


def test_what_is_not_known_is_left_out():
    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x @ x, x)

    assert cost.operations(compiled(loop, (4, 4)), 1, 1) is None
    assert cost.operations(None, 1, 1) is None


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny):
    workdir = tmp_path_factory.mktemp('cost') / 'run'
    train_and_evaluate(small_config(tiny, epochs=1), workdir, MeanModel(), folds=[0])
    return workdir


def test_a_run_records_operations_calibration_and_speakers(run):
    results = read_json(run / 'results.json')
    features = sum(shape['shape'][-1] for shape in results['inputs']['features'].values())
    assert results['flops_per_example'] > 2 * features * 3  # the layer, and what the means and the softmax need
    assert results['flops_per_example'] < 100 * 2 * features * 3
    found = read_arrays(run / 'predictions' / 'test.npz', ('id', 'speaker', 'prediction', 'label'))
    measured = [expected_calibration_error(scores, found['label']) for scores in found['prediction']]
    assert [row['test']['ece'] for row in results['rows']] == pytest.approx(measured)
    assert len(found['speaker']) == len(found['id'])
    assert (found['speaker'] != '').all()
