"""A process whose peers never come ends in time, in one line that says what to look at, and leaves nothing."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ('number', 'words'),
    [
        (0, 'still waits for process 1: each needs --coordinator=127.0.0.1:'),
        (1, 'still waits for process 0 at 127.0.0.1:'),
    ],
)
def test_a_peer_that_never_comes_is_named(tmp_path, number, words):
    place = f'127.0.0.1:{29_731 + number}'
    code = f'from mmer_jax.run import processes; processes.join({place!r}, {number}, 2, 2)'
    done = subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert words in line
    assert line.startswith('error: --wait: after 2 s')
    assert 'Check failure' not in done.stderr  # jax's own end
