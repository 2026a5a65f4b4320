"""The short part of the campaign of docs/reliability.md: it finds nothing, and would find what it looks for."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmer_jax.run.checkpoint import SUMS, Checkpoints, fault_of
from tests.campaign import children, fuzz, mutations
from tests.campaign.subject import Subject
from tests.conftest import REPOSITORY


def test_the_short_part_finds_nothing():
    command = [sys.executable, '-m', 'tests.campaign', 'all', '--short']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=600)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert ended.stdout.count('| all |') == 3
    assert '| pickle of MulT | 2 |' in ended.stdout
    assert '| preparation, --overwrite | 2 |' in ended.stdout


def read(folder):
    return (folder / 'x').read_bytes()


SUBJECT = Subject('x', lambda folder: None, read, ('x',), (mutations.change_bytes,), has_sum=True)
NOTHING = {'ran': [], 'opened': [], 'seconds': 0.0, 'bytes': 0}


@pytest.mark.parametrize(
    ('answer', 'kind'),
    [
        ({'died': 'hang'}, 'hangs'),
        ({'died': 'crash, status -11'}, 'tracebacks'),
        ({**NOTHING, 'ran': ['os.system']}, 'executions'),
        ({**NOTHING, 'opened': ['/etc/passwd']}, 'reads outside'),
        ({**NOTHING, 'same': False, 'secret': True}, 'reads outside'),
        ({**NOTHING, 'seconds': 11.0, 'same': True}, 'hangs'),
        ({**NOTHING, 'bytes': 2 << 30, 'same': True}, 'above 1 GB'),
        ({**NOTHING, 'error': 'KeyError: x', 'at': 'a.py:1', 'expected': False, 'named': True}, 'tracebacks'),
        ({**NOTHING, 'error': 'ValueError: x', 'at': 'a.py:1', 'expected': True, 'named': False}, 'without the file'),
        ({**NOTHING, 'error': 'ValueError: x', 'at': 'a.py:1', 'expected': True, 'named': True}, 'one line'),
        ({**NOTHING, 'same': True}, 'unharmed'),
        ({**NOTHING, 'same': False}, 'other content against a sum'),
    ],
)
def test_each_answer_has_its_column(answer, kind):
    assert fuzz.judge(SUBJECT, answer)[0] == kind
    assert (kind in fuzz.FAULTS) == (kind not in ('one line', 'unharmed', 'other content'))


def test_the_same_seed_gives_the_same_inputs(tmp_path):
    outside = mutations.Outside(tmp_path / 'outside')
    content = bytes(range(256)) * 4

    def changed(seed):
        generator = np.random.default_rng(seed)
        return [mutations.change_bytes(content, generator, outside) for _ in range(50)]

    assert changed(1) == changed(1)
    assert changed(1) != changed(2)
    assert sum(found != content for found in changed(1)) > 45


def test_what_an_input_does_is_seen(tmp_path):
    """In a process of its own: an audit hook stays for ever."""
    code = """
import os, sys
from pathlib import Path
from tests.campaign.children import Watch
folder, watch = Path(sys.argv[1]), Watch()
(folder / 'outside').mkdir()
(folder / 'case').mkdir()
(folder / 'outside' / 'secret.txt').write_text('x')
watch.start(folder / 'case', folder / 'outside')
open(folder / 'case' / 'own', 'w').close()
print(watch.stop()['opened'], watch.stop()['ran'])
watch.start(folder / 'case', folder / 'outside')
open(folder / 'case' / '..' / 'outside' / 'secret.txt').close()
os.system('true')
found = watch.stop()
print([Path(name).name for name in found['opened']], len(found['ran']))
"""
    ended = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.stdout.splitlines() == ['[] []', "['secret.txt'] 1"], ended.stderr


def test_a_child_is_killed_at_its_event(tmp_path):
    """In a process of its own too: this one holds jax's threads, which do not survive a fork."""
    code = """
import sys
from pathlib import Path
from tests.campaign import children
place = Path(sys.argv[1]) / 'work'
place.mkdir()
def work():
    for name in 'abcd':
        Path(name).write_text(name)
whole = children.run(work, place)
for path in place.iterdir():
    path.unlink()
killed = children.run(work, place, kill_at=3)
print(whole.status, whole.event, killed.status, sorted(path.name for path in place.iterdir()))
"""
    ended = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.stdout.strip() == f"0 4 {-signal.SIGKILL} ['a', 'b']", ended.stderr
    assert Path(children.__file__).is_file()


def test_what_a_kill_beside_a_checkpoint_leaves_is_cleared(tmp_path):
    """Found by the campaign: a step too many, one half removed, one without its sums, and the temporary of these."""
    tree, folder = {'x': jax.numpy.arange(3.0)}, tmp_path / 'checkpoints'
    with Checkpoints(folder) as checkpoints:
        for step in (2, 3):
            checkpoints.save(step, state=tree, best=tree, host={})
    shutil.copytree(folder / '2', folder / '1')
    (folder / '0' / 'best').mkdir(parents=True)
    (folder / '3' / SUMS).rename(folder / '3' / f'.{SUMS}.abcd.tmp')
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_newest(state=tree, best=tree)[0] == 3
    assert sorted(path.name for path in folder.iterdir()) == ['2', '3']
    assert sorted(path.name for path in (folder / '3').glob('*sums*')) + list((folder / '3').glob('.sums*')) == [SUMS]
    assert fault_of(folder / '3') == ''
