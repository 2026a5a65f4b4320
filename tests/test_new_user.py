"""README's way from a MulT pickle to a trained MFSA and a paper's table, run as its commands.

Those behind the first are called here: as a process each would import jax and compile what is compiled already.
`python -m mmer_jax.table` itself is in tests/test_table.py.
"""

import csv
import pickle
import subprocess
import sys

import numpy as np

from mmer_jax import records, table
from tests.any_values import quick_runs
from tests.conftest import REPOSITORY

STEPS = {'text': (50, 300, 6), 'audio': (375, 5, 12), 'vision': (500, 20, 12)}  # padded to, features, longest
COUNTS = {'train': 48, 'valid': 16, 'test': 16}
TINY = (
    'model.width=8', 'model.output_width=8', 'model.num_heads=2', 'model.psa_layers=0', 'model.hca_layers=0',
    'model.remat=False', 'accumulate=1', 'epochs=1', 'data.batch_size=16',
    'data.max_shapes=1', 'tensorboard=False',
)  # fmt: skip


def write_pickle(path):
    """CMU-MOSI as MulT's files have it: left zero padding, (N, 1, 1) labels, ids of three byte strings, -inf."""
    generator, content = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        part = {'labels': generator.uniform(-3, 3, (count, 1, 1)).astype(np.float32)}
        for m, (steps, size, longest) in STEPS.items():
            array = np.zeros((count, steps, size), np.float32)
            for row in array:
                row[steps - generator.integers(3, longest + 1) :] = 1
            part[m] = np.where(array > 0, generator.standard_normal(array.shape), 0).astype(np.float32)
        part['audio'][0, -2:, 3] = -np.inf
        part['id'] = np.array([[f'{split}{n}'.encode(), b'0.5', b'1.5'] for n in range(count)])
        content[split] = part
    path.write_bytes(pickle.dumps(content, protocol=4))


def run(*arguments):
    done = subprocess.run(
        [sys.executable, '-m', *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_a_pickle_to_the_table(tmp_path, capsys):
    source, data, tables = tmp_path / 'mosi_data_noalign.pkl', tmp_path / 'mosi', tmp_path / 'table1'
    write_pickle(source)
    prepared = run('data_prep.mult_pickle', '--source', str(source), '--output', str(data))
    assert 'train 48' in prepared
    assert '-inf' in prepared
    assert records.main(['verify', str(data)]) == 0
    assert '80 records in 4 shards, 0 faults' in capsys.readouterr().out
    options = ['--table=configs/tables/mfsa_table1.py', f'--output={tables}', '--rows=MFSA', '--seeds=2']
    with quick_runs():
        assert table.main([*options, '--set', f'data.directory={data}', *TINY]) == 0
    with open(tables / 'table.csv', newline='') as file:
        rows = {row['label']: row for row in csv.DictReader(file)}
    page = (tables / 'table.md').read_text()
    assert 'not run' in page
    assert '41.4' in page, 'the published number stands beside ours'
    assert set(rows) >= {'MFSA', 'MulT'}
