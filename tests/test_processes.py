"""Processes joined by hand: who does not come is named, who is lost too, in one line of each of the others."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mmer_jax.run import processes
from tests.conftest import REPOSITORY


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def come(*who, seconds=1.0):
    """What gather says to each (number, count), all at the same time: the numbers of its peers, or its error."""
    place, said = f'127.0.0.1:{free_port()}', {}

    def one(key, number, count):
        try:
            peers, port = processes.gather(place, number, count, seconds)
            said[key] = (sorted(peers), port)
            for peer in peers.values():
                peer.close()
        except ValueError as error:
            said[key] = str(error).replace(place, 'HERE')

    threads = [threading.Thread(target=one, args=(key, *given)) for key, given in enumerate(who)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [said[key] for key in range(len(who))]


def test_all_that_come_hear_of_one_port():
    (zero, port), (one, port_of_one), (two, port_of_two) = come((0, 3), (1, 3), (2, 3), seconds=20)
    assert (zero, one, two) == ([1, 2], [0], [0])
    assert port == port_of_one == port_of_two > 0


def test_those_that_never_come_are_named():
    each = 'each needs --coordinator=HERE --num_processes=4 and a --process_id of its own'
    zero, two = come((0, 4), (2, 4))
    assert zero == f'--wait: after 1 s this process (--process_id 0) still waits for processes 1, 3: {each}'
    assert two == (
        f'--wait: after 1 s this process (--process_id 2) still waits for processes 1, 3, as process 0 does: {each}'
    )
    (alone,) = come((1, 2))
    assert alone.startswith('--wait: after 1 s this process (--process_id 1) still waits for process 0 at HERE (')
    assert 'is it started, does the name lead to its host, and is the port open' in alone


def test_numbers_that_are_taken_and_other_counts_are_refused():
    _, *said = come((0, 3), (1, 3), (1, 3))
    assert '--process_id=1 is taken by another process: each needs its own, from 0 to 2' in said
    assert come((0, 3), (1, 2))[1] == '--num_processes=2, process 0 was given 3: all need the same'


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(('', 0)) as taken, pytest.raises(ValueError, match='process 0 cannot listen at port'):
        processes.gather(f'127.0.0.1:{taken.getsockname()[1]}', 0, 2, 1)


def test_a_stranger_at_the_port_is_no_process():
    port = free_port()
    said = []

    def zero():
        with pytest.raises(ValueError, match='still waits for process 1') as error:
            processes.gather(f'127.0.0.1:{port}', 0, 2, 2)
        said.append(error)

    thread = threading.Thread(target=zero)
    thread.start()
    for words in (
        b'GET / HTTP/1.1\r\n\r\n',
        b'[' * 5000,
        b'{"number": "1", "count": 2}\n',
        b'{"number": 7, "count": 2}\n',
    ):
        for _ in range(50):
            try:
                with socket.create_connection(('127.0.0.1', port), timeout=5) as stranger:
                    stranger.sendall(words)
                break
            except OSError:
                time.sleep(0.05)
    thread.join(30)
    assert len(said) == 1


CHILD = """
import os, signal, sys, time, types
place, number, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax = types.ModuleType('jax')
jax.distributed = types.SimpleNamespace(initialize=lambda *a, **k: None)
sys.modules['jax'] = jax  # what is tested here comes before it and around it
from mmer_jax.run import processes

def work():
    processes.join(place, number, 3, 30)
    print('trains', os.getpid(), flush=True)
    if what == 'trains':
        time.sleep(60)
    if what == 'fails':
        print('error: the disk is full', file=sys.stderr)
        return 1
    if what == 'aborts':  # as jax does where another is lost
        time.sleep(0.5)
        print('E0000 many words of C++', file=sys.stderr, flush=True)
        os.abort()
    return 0

sys.exit(processes.ending(work))
"""


def start(*what):
    place = f'127.0.0.1:{free_port()}'
    started = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, place, str(number), one],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number, one in enumerate(what)
    ]  # fmt: skip
    return started, [int(process.stdout.readline().split()[1]) for process in started]


def ends(process):
    words = process.communicate(timeout=30)[1]
    return process.returncode, words


@pytest.mark.parametrize('lost', [0, 1, 2])
def test_a_lost_process_is_named_by_all_others_in_one_line(lost):
    what = ['aborts'] * 3
    what[lost] = 'trains'
    started, children = start(*what)
    os.kill(started[lost].pid, signal.SIGKILL)
    line = (
        f'error: process {lost} of 3 was lost (its connection has ended); start the same command again for every '
        'process: the run goes on from its last checkpoint\n'
    )
    began = time.monotonic()
    for number, process in enumerate(started):
        assert ends(process) == ((-signal.SIGKILL, '') if number == lost else (1, line))
    assert time.monotonic() - began < 5
    for child in children:  # that of the killed one too
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(child, 0)
                time.sleep(0.02)


def test_one_that_fails_says_why_and_the_others_end():
    started, _ = start('trains', 'fails', 'trains')
    assert ends(started[1]) == (1, 'error: the disk is full\n')
    for process in (started[0], started[2]):
        status, words = ends(process)
        assert status == 1
        assert words.startswith('error: process 1 of 3 ended with an error, which it says itself; start the same')
        assert words.count('\n') == 1


def test_a_child_that_the_system_kills_is_told_by_all():
    started, children = start('trains', 'trains', 'trains')
    os.kill(children[2], signal.SIGKILL)
    assert ends(started[2])[1].startswith('error: this process (--process_id 2) was ended by signal 9; start')
    for process in started[:2]:
        assert ends(process)[1].startswith('error: process 2 of 3 was ended by signal 9; start')


def test_all_that_train_to_the_end_end_well():
    assert [ends(process) for process in start('ok', 'ok', 'ok')[0]] == [(0, '')] * 3
