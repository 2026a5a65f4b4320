"""The processes of a run that are started by hand: who has come, who is lost, and one line of it in each of them.

jax ends a process whose peer is lost by aborting it, at once or after minutes, with a stack of C++ that names none.
So a process of ours forks before jax is loaded: the child trains, the parent holds a connection to the parent of
process 0 and knows by it when another ends. It then ends its child, and says which process was lost and how to go on.
What the child writes to stderr comes PENDING seconds later, so that jax's words about a loss can be left out.

The parent of process 0 listens at the given address; jax's own port is any free one that it tells the others. Messages
are lines of JSON. Whoever reaches the port can disturb the run: it is for a network whose machines are trusted.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

MARGIN = 60  # seconds by which jax waits longer than we do
PENDING = 2.0  # seconds that the child's words wait
GRACE = 5.0  # seconds in which a process may still end by itself after another has failed
RETRY, TICK = 0.2, 0.1  # seconds between attempts to connect, and between looks at the child
LONGEST = 1000  # bytes of a message
FAILED, INTERRUPTED = 1, 130  # as settings/command.py has them
GO_ON = 'start the same command again for every process: the run goes on from its last checkpoint'
ALIVE = {'TCP_KEEPIDLE': 10, 'TCP_KEEPINTVL': 5, 'TCP_KEEPCNT': 4}  # a host without power is noticed in 30 s

_joined = False  # this is a child, joined to others


def join(coordinator: str, number: int, count: int, seconds: int) -> float:
    """Joins process `number` of `count`; returns in the child, the parent ends with the child's status.

    Returns the seconds of waiting for the others. jax may not have been used before.

    ValueError in one line where not all have come after `seconds`, naming those that lack; where two have the same
    number, or another count; and where the address cannot be used.
    """
    global _joined
    began = time.monotonic()
    peers, port = gather(coordinator, number, count, seconds)
    waited = time.monotonic() - began
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        raise SystemExit(_Parent(number, count, child, receive, peers).watch())
    _end_with_parent()
    for peer in peers.values():
        peer.close()
    os.close(receive)
    os.dup2(send, 2)
    os.close(send)
    _joined = True
    import jax

    host = coordinator.rpartition(':')[0]
    jax.distributed.initialize(f'{host}:{port}', count, number, initialization_timeout=seconds + MARGIN)
    return waited


def ending(work: Callable[[], int]) -> int:
    """`work()`; a joined process that failed ends at once, since jax would first wait for the others."""
    try:
        status = work()
    except Exception:
        if not _joined:
            raise
        traceback.print_exc()
        status = FAILED
    if _joined and status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _end_with_parent() -> None:
    """Where the system can (Linux), a child whose parent is killed is killed too."""
    import ctypes

    prctl = getattr(ctypes.CDLL(None), 'prctl', None)
    if prctl is not None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- coming together -----------------------------------------------------------------------------------------


class _Peer:
    """The connection to another parent: lines of JSON in both directions."""

    def __init__(self, connection: socket.socket):
        self.connection, self._rest = connection, b''
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        return self.connection.fileno()

    def close(self) -> None:
        self.connection.close()

    def tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone, which reading will show
            self.connection.sendall(json.dumps(message).encode() + b'\n')

    def read(self) -> list[dict[str, Any]] | None:
        """Messages that have come; None where the connection has ended, or brings anything else."""
        try:
            part = self.connection.recv(LONGEST)
        except OSError:
            return None
        *lines, self._rest = (self._rest + part).split(b'\n')
        try:
            found = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            return None
        good = part and len(self._rest) <= LONGEST and all(isinstance(one, dict) for one in found)
        return found if good else None


def gather(coordinator: str, number: int, count: int, seconds: float) -> tuple[dict[int, _Peer], int]:
    """({number: connection to its parent}, jax's port) when all have come: all others for process 0, else only 0."""
    host, _, port = coordinator.rpartition(':')
    end = time.monotonic() + seconds
    waited = f'--wait: after {seconds:g} s this process (--process_id {number}) still waits for'
    if number:
        peer, jax_port = _find(host.strip('[]'), int(port), number, count, end, waited)
        return {0: peer}, jax_port
    peers: dict[int, _Peer] = {}
    try:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        listening = socket.create_server(('', int(port)), family=family)
    except OSError as error:
        raise ValueError(
            f'--coordinator={coordinator}: process 0 cannot listen at port {port} ({error.strerror or error}): another '
            'run has it, or it is not yours to take; give another port to all processes'
        ) from error
    with listening:
        while len(peers) < count - 1 and (left := end - time.monotonic()) > 0:
            if select.select([listening], [], [], left)[0]:
                _accept(listening.accept()[0], peers, count)
    missing = sorted(set(range(1, count)) - set(peers))
    if missing:
        for peer in peers.values():
            peer.tell(missing=missing)
            peer.close()
        raise ValueError(f'{waited} {_named(missing)}: {_look(coordinator, count)}')
    with socket.socket() as one:
        one.bind(('', 0))
        jax_port = one.getsockname()[1]
    for peer in peers.values():
        peer.tell(port=jax_port)
    return peers, jax_port


def _named(numbers: Sequence[int]) -> str:
    return f'process{"es" if len(numbers) > 1 else ""} {", ".join(map(str, numbers[:8]))}'


def _look(coordinator: str, count: int) -> str:
    return f'each needs --coordinator={coordinator} --num_processes={count} and a --process_id of its own'


def _accept(connection: socket.socket, peers: dict[int, _Peer], count: int) -> None:
    """Takes in who says its number; whoever says another count, or a number that is taken, hears so."""
    connection.settimeout(GRACE)
    peer = _Peer(connection)
    said = (peer.read() or [{}])[0]
    rank, theirs = said.get('number'), said.get('count')
    if type(rank) is not int or type(theirs) is not int:  # not one of ours
        peer.close()
    elif theirs != count:
        peer.tell(error=f'--num_processes={theirs}, process 0 was given {count}: all need the same')
        peer.close()
    elif not 0 < rank < count or rank in peers:
        peer.tell(error=f'--process_id={rank} is taken by another process: each needs its own, from 0 to {count - 1}')
        peer.close()
    else:
        connection.settimeout(None)
        peers[rank] = peer


def _find(host: str, port: int, number: int, count: int, end: float, waited: str) -> tuple[_Peer, int]:
    """The connection to process 0, and jax's port."""
    place, peer = f'{host}:{port}', None
    while peer is None:
        try:
            peer = _Peer(socket.create_connection((host, port), timeout=max(end - time.monotonic(), RETRY)))
        except OSError as error:
            if time.monotonic() + RETRY >= end:
                raise ValueError(
                    f'{waited} process 0 at {place} ({error.strerror or error}): is it started, does the name lead to '
                    'its host, and is the port open'
                ) from error
            time.sleep(RETRY)
    peer.tell(number=number, count=count)
    peer.connection.settimeout(max(end - time.monotonic(), RETRY) + GRACE)
    said = (peer.read() or [{}])[0]
    if type(said.get('port')) is int:
        peer.connection.settimeout(None)
        return peer, said['port']
    peer.close()
    if 'error' in said:
        raise ValueError(str(said['error'])[:200])
    if 'missing' in said:
        raise ValueError(f'{waited} {_named(said["missing"])}, as process 0 does: {_look(place, count)}')
    raise ValueError(f'{waited} another of the {count}; process 0 at {place} was found: {_look(place, count)}')


# ---- while the child trains ----------------------------------------------------------------------------------


class _Parent:
    """Hands on what the child says, and ends it where another process has ended before it."""

    def __init__(self, number: int, count: int, child: int, stderr: int, peers: dict[int, _Peer]):
        self.number, self.count, self.child, self.stderr, self.peers = number, count, child, stderr, peers
        self.pending: list[tuple[float, bytes]] = []
        self.done: set[int] = set()  # have trained to the end
        self.why, self.until = '', 0.0  # another has ended: what to say, and when the child is ended for it

    def watch(self) -> int:
        """The exit status, when the child has ended. Ctrl-C is left to the child, which says how to go on."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.set_blocking(self.stderr, False)
        status = None
        while status is None:
            self._listen()
            self._hand_on(time.monotonic() - PENDING)
            if self.why and time.monotonic() >= self.until:
                os.kill(self.child, signal.SIGKILL)
                self.until = float('inf')
            found, raw = os.waitpid(self.child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(raw) if found else None
        end = time.monotonic() + PENDING
        while status in (FAILED, -signal.SIGABRT) and not self.why and time.monotonic() < end:
            self._listen()  # whether it is the loss of another that ended it
        return self._tell_end(status)

    def _tell_end(self, status: int) -> int:
        """The last words, to the user and to the others; the exit status."""
        self._listen()
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.stderr, 1 << 16):
                self.pending.append((time.monotonic(), part))
        if self.why and status and status != INTERRUPTED:
            _say(f'error: {self.why}')
            return FAILED
        self._hand_on(float('inf'))
        if status < 0:
            _say(f'error: this process (--process_id {self.number}) was ended by signal {-status}; {GO_ON}')
        for peer in self.peers.values():
            peer.tell(number=self.number, end=status)
        return status if status >= 0 else FAILED

    def _listen(self) -> None:
        """Takes in what comes within TICK from the child and from other parents."""
        sources: list[Any] = [self.stderr, *self.peers.values()]
        ready = select.select(sources, [], [], TICK)[0]
        if self.stderr in ready:
            part = os.read(self.stderr, 1 << 16)
            if part:
                self.pending.append((time.monotonic(), part))
            else:  # closed: the child ends
                time.sleep(TICK)
        for number, peer in list(self.peers.items()):
            if peer not in ready:
                continue
            messages = peer.read()
            if messages is None:
                del self.peers[number]
                if number not in self.done:
                    self._another_ended(number, None)
            for message in messages or ():
                self._another_ended(message.get('number', number), message.get('end'))

    def _another_ended(self, number: Any, status: Any) -> None:
        """status: of its child, None where the connection ended. Process 0 tells the others."""
        if status == 0:
            self.done.add(number)
            return
        if self.why:
            return
        if status is None:
            how = 'was lost (its connection has ended)'
        elif status == INTERRUPTED:
            how = 'was interrupted'
        else:
            how = 'ended with an error, which it says itself' if status > 0 else f'was ended by signal {-status}'
        self.why = f'process {number} of {self.count} {how}; {GO_ON}'
        self.until = time.monotonic() + (0 if status is None or status < 0 else GRACE)
        for other, peer in self.peers.items():
            if self.number == 0 and other != number:
                peer.tell(number=number, end=status)

    def _hand_on(self, before: float) -> None:
        """Writes what the child said before that time."""
        while self.pending and self.pending[0][0] <= before:
            os.write(2, self.pending.pop(0)[1])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
