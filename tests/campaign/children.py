"""Child processes of the campaign: forked, so that imports are paid once; their files, memory and time are watched.

The parent imports what the children need and starts no jax backend, which would not survive a fork.
"""

import contextlib
import dataclasses
import json
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

MOST_CPU = 10  # seconds of one input
MOST_MEMORY = 1 << 30  # bytes that one input may add
ROOM = 2 << 30  # bytes of addresses beyond what the process has; what asks for more gets a MemoryError
SILENT = 90.0  # wall seconds without an answer after which a child is taken to wait for ever
RAN = ('os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.forkpty', 'subprocess.Popen', 'pty.spawn')
REMOVED = ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.link', 'os.symlink')


@dataclasses.dataclass
class Ended:
    """How a child ended: exit status, or minus the signal; what it wrote to its two streams."""

    status: int
    text: str
    seconds: float
    event: int = 0  # file events of a child that counts them

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.text.splitlines()) if line.strip()), '')


def run(
    work: Callable[[], int | None],
    folder: Path,
    *,
    kill_after: float = 0.0,
    kill_at: int = 0,
    only: str = '',
    seconds: float = 300.0,
) -> Ended:
    """`work()` in a child whose current folder is `folder`.

    kill_after: wall seconds to a SIGKILL. kill_at: number of the file event before which the child kills itself; events
    are files opened for writing, renamed, made and removed, those with `only` in their path. 0 is never.
    """
    streams, counted = folder.parent / f'{folder.name}.output', folder.parent / f'{folder.name}.events'
    counted.unlink(missing_ok=True)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(work, folder, streams, counted, kill_at, only)
    status = _wait(child, kill_after or seconds)
    text = streams.read_text(errors='replace') if streams.is_file() else ''
    events = int(counted.read_text() or 0) if counted.is_file() else 0
    return Ended(status, text, time.monotonic() - began, events)


def _be_child(
    work: Callable[[], int | None], folder: Path, streams: Path, counted: Path, kill_at: int, only: str
) -> None:
    def counting() -> int:
        redirect(streams)
        os.chdir(folder)
        seen = _count_events(str(folder), kill_at, only)
        status = int(work() or 0)
        sys.stdout.flush()
        counted.write_text(str(seen[0]))
        return status

    end_with(counting)


def end_with(work: Callable[[], int]) -> NoReturn:
    """Ends this process, a forked one, with the status of the work; a traceback is said, and is 99."""
    status = 99
    try:
        status = work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def redirect(streams: Path) -> None:
    file = os.open(streams, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)


def _count_events(root: str, kill_at: int, only: str) -> list[int]:
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == 'open':
            path, mode, flags = arguments
            if not isinstance(path, (str, bytes, os.PathLike)) or not _writes(mode, flags):
                return
        elif event in REMOVED:
            path = arguments[0]
        else:
            return
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ''
        if (os.path.isabs(name) and not name.startswith(root)) or only not in name:
            return
        seen[0] += 1
        if seen[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def _writes(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in 'wxa+')
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _wait(child: int, seconds: float) -> int:
    """Exit status of a child, or minus the signal; it is killed after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.005)


# ---- many inputs in one child --------------------------------------------------------------------------------


def answers(read_one: Callable[[int], dict[str, Any]], numbers: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, read_one(number)) for each, in a child; where one ends the child, {'died': how} and a new child."""
    left = list(numbers)
    while left:
        done, died = yield from _batch(read_one, left)
        left = left[done:]
        if died and left:
            yield left[0], {'died': died}
            left = left[1:]


def _batch(read_one: Callable[[int], dict[str, Any]], numbers: list[int]) -> Any:
    """Answers of one child; returns how many came, and '' or how the child died in the next one."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _be_worker(read_one, numbers, send)
    os.close(send)
    done, rest = 0, b''
    while True:
        ready, _, _ = select.select([receive], [], [], SILENT)
        part = os.read(receive, 1 << 16) if ready else b''
        if not ready:
            os.kill(child, signal.SIGKILL)
        if not part:
            break
        *lines, rest = (rest + part).split(b'\n')
        for line in lines:
            yield numbers[done], json.loads(line)
            done += 1
    os.close(receive)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if done == len(numbers):
        return done, ''
    return done, {-signal.SIGXCPU: 'hang', -signal.SIGKILL: 'hang or memory'}.get(status, f'crash, status {status}')


def _be_worker(read_one: Callable[[int], dict[str, Any]], numbers: list[int], send: int) -> None:
    status, told = 1, os.dup(2)
    try:
        redirect(Path(os.devnull))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in numbers:
            _limit()
            answer = read_one(number)
            os.write(send, json.dumps(answer).encode() + b'\n')
        status = 0
    except BaseException:  # of the campaign itself
        os.write(told, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _limit() -> None:
    """For the next input: CPU time from now on, addresses beyond what is there."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(own.ru_utime + own.ru_stime) + MOST_CPU + 2, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (memory('VmSize') + ROOM, resource.RLIM_INFINITY))


def memory(name: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    try:
        found = re.search(rf'{name}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


@dataclasses.dataclass
class Watch:
    """What the reading of one input does: seconds of CPU, bytes of memory, programs, files outside its folder.

    One per process, set to zero for each input, since an audit hook cannot be taken back.
    """

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    began: float = 0.0
    before: int = 0
    active: bool = False
    ran: list[str] = dataclasses.field(default_factory=list)
    opened: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        sys.addaudithook(self._hook)

    def start(self, folder: Path, outside: Path) -> None:
        self.inside, self.outside = (str(folder.resolve()),), (str(outside.resolve()), '/etc/passwd')
        self.ran, self.opened = [], []
        with contextlib.suppress(OSError):  # the peak of the process then stands for that of the input
            Path('/proc/self/clear_refs').write_text('5')  # the peak of memory begins anew
        self.before, self.began, self.active = memory('VmRSS'), time.process_time(), True

    def stop(self) -> dict[str, Any]:
        self.active = False
        return {
            'seconds': time.process_time() - self.began,
            'bytes': max(memory('VmHWM') - self.before, 0),
            'ran': self.ran[:3],
            'opened': self.opened[:3],
        }

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in RAN:
            self.ran.append(f'{event} {str(arguments)[:80]}')
        elif event == 'open' and isinstance(arguments[0], (str, bytes)):
            name = os.path.realpath(os.fsdecode(arguments[0]))
            writes = _writes(arguments[1], arguments[2]) and not name.startswith((*self.inside, '/dev/', '/tmp/'))
            if name.startswith(self.outside) or writes:
                self.opened.append(name)
