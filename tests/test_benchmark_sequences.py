"""The sequence benchmark: lengths as stated, an epoch's average, memory that ran out, and one tiny run."""

import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import sequence_models
from mmer_jax.data.batches import BatchPlan
from tests.conftest import REPOSITORY


def case(*shapes, records=10):
    names = ('batches', 'seconds', 'peak', 'compile')
    rows = [{**dict(zip(names, shape, strict=True)), 'steps': {'text': n}} for n, shape in enumerate(shapes, 1)]
    return {'device': 'cpu', 'timed_steps': 2, 'records': records, 'batch_size': 5, 'shapes': rows}


def test_drawn_lengths_are_those_of_mosi():
    """Measured on CMU-MOSI: 10 words and 42 audio steps in the middle, 28 and 128 at the 95th percentile."""
    lengths = sequence_models.draw_lengths(2199)
    assert np.median(lengths['text']) == 10
    assert abs(np.percentile(lengths['text'], 95) - 28) <= 1
    assert abs(np.median(lengths['audio']) - 42) <= 2
    assert abs(np.percentile(lengths['audio'], 95) - 128) <= 6
    assert {m: n.max() for m, n in lengths.items()} == sequence_models.LIMITS
    assert all(n.min() >= 1 for n in lengths.values())


def test_an_epoch_weighs_shapes_by_their_batches():
    found = sequence_models.summarise(case((3, 1.0, 0.5, 10.0), (1, 5.0, 2.0, 20.0), records=16))
    assert found == {'rate': 2.0, 'step': 2.0, 'peak': 2.0, 'compile': 30.0}


def test_every_batch_of_an_epoch_is_counted_once():
    lengths = {'text': np.array([1, 1, 2, 2, 3, 3, 3, 9])}
    plan = BatchPlan(np.arange(8), lengths, [{'text': 2}, {'text': 3}, {'text': 9}], 2, shuffle=True)
    found = sequence_models.shapes_of_epoch(plan)
    assert sum(count for _, count in found.values()) == len(plan) == 4
    assert all(plan[step][1] == shape for shape, (step, _) in found.items())
    assert {shape: count for shape, (_, count) in found.items()} == {0: 2, 1: 1, 2: 1}


@pytest.mark.parametrize(
    'code',
    [
        'import os, signal; os.kill(os.getpid(), signal.SIGKILL)',
        'raise MemoryError',
        'import sys; sys.exit("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")',
    ],
)
def test_a_case_without_memory_is_told_from_one_that_fails(code, tmp_path):
    assert sequence_models.run_case('mfsa:padded', [sys.executable, '-c', code], str(tmp_path)) is None


def test_a_case_that_fails_ends_the_benchmark_with_its_message(tmp_path):
    command = [sys.executable, '-c', 'raise ValueError("batch size 6 does not divide")']
    with pytest.raises(SystemExit, match='mfsa:padded ended with status 1: ValueError: batch size 6 does not divide'):
        sequence_models.run_case('mfsa:padded', command, str(tmp_path))


def test_memory_that_runs_out_is_named_and_sets_the_exit_status(monkeypatch, capsys):
    asked = []

    def run_case(name, command, cache):
        asked.append(name)
        return None if name == 'mfsa:padded' else case((2, 1.0, 0.5, 3.0))

    monkeypatch.setattr(sequence_models, 'run_case', run_case)
    assert sequence_models.main(['--smoke', '--rounds=3']) == 1
    assert asked.count('mfsa:padded') == 1, 'a case that ran out of memory is not tried again'
    forth, back = ('padded', 'bucketed'), ('bucketed', 'padded')
    assert asked == ['mfsa:padded', *['mfsa:bucketed'] * 3, *(f'mult:{name}' for name in forth + back + forth)]
    printed = capsys.readouterr()
    assert 'error: out of memory: mfsa:padded;' in printed.err
    assert 'mult: bucketed / padded: 1.00 times the samples/s' in printed.out
    assert 'mfsa: bucketed / padded' not in printed.out


@pytest.mark.parametrize('flags', [['--model=mica'], ['--lengths=padded,padded'], ['--case=mfsa'], ['--steps=0']])
def test_a_wrong_flag_is_refused(flags, capsys):
    with pytest.raises(SystemExit, match='2'):
        sequence_models.main(flags)
    assert 'expected one or more of' in capsys.readouterr().err or flags == ['--steps=0']


def test_the_ratio_is_that_of_the_epochs():
    found = {
        ('mult', 'padded'): [case((2, 3.0, 4.0, 10.0), records=12)],
        ('mult', 'bucketed'): [case((1, 1.0, 1.0, 10.0), (1, 2.0, 2.0, 10.0), records=12)],
    }
    lines = list(sequence_models.table_lines(found))
    assert lines[-1] == 'mult: bucketed / padded: 2.00 times the samples/s, 0.50 times the peak memory'


@pytest.mark.slow
def test_smoke_run_measures_in_a_process_of_its_own():
    # A process of its own: from one as large as this the cases would inherit its peak of memory, and measure 0.
    command = [sys.executable, '-m', 'benchmarks.sequence_models', '--smoke', '--model=mult', '--steps=1', '--rounds=1']
    command += ['--no-remat', '--lengths=padded']
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r'^mult +(padded|bucketed) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$', done.stdout, re.M)
    assert [row[0] for row in rows] == ['padded']
    assert all(float(value) > 0 for row in rows for value in row[1:5])
    assert re.search(r'^ +7 / 47 / 63 +8 ', done.stdout, re.M), 'the padded case has one shape, eight batches of eight'
