"""One writer at a time: locks of the operating system on a file beside what is written.

The kernel takes a lock back from a process that ends or is killed, so that none has to be removed by hand, on whatever
machine and under whatever number that process was. The file says who holds it. Reading needs no lock.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class InUse(ValueError):
    """Another process writes what this one would write."""


@contextlib.contextmanager
def hold(path: Path, what: Path) -> Iterator[None]:
    """Holds the lock file `path` of the folder `what`; InUse, with who holds it, where another process does."""
    file = _take(path, what)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever opened it meanwhile finds another file there
        file.close()


def _take(path: Path, what: Path) -> Any:
    for folder in (path.parent, *path.parent.parents):
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f'{folder} is no folder; choose another place than {what}')
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, 'a+', encoding='utf-8')  # open as long as it is held
        try:
            locked = try_lock(file)
        except BlockingIOError:
            holder = _read(file)
            file.close()
            raise InUse(f'{what} is in use by {_words(holder)}: wait for its end, or take another folder') from None
        if locked and not is_at(file, path):  # removed by the one before between opening and locking
            file.close()
            continue
        holder = _read(file)
        if holder:
            _left_behind(holder, path, what, locked, file)
        file.truncate(0)
        own = {'process': os.getpid(), 'host': socket.gethostname(), 'since': time.strftime('%Y-%m-%d %H:%M:%S %z')}
        file.write(json.dumps({**own, 'command': ' '.join(sys.argv)[:300]}) + '\n')
        file.flush()
        return file


def try_lock(file: Any) -> bool:
    """True where the lock is now ours, False where the file system has none; BlockingIOError where another has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def clear(path: Path) -> None:
    """Removes a lock file, or another file that is locked while it is written, which nobody holds: a killed process
    left it. Where the file system has no locks it stays."""
    with contextlib.suppress(FileNotFoundError, PermissionError, BlockingIOError), open(path, 'rb') as file:
        if try_lock(file) and is_at(file, path):
            path.unlink()


def is_at(file: Any, path: Path) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _read(file: Any) -> dict[str, Any]:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except ValueError:  # empty, or not written to its end
        return {}
    return holder if isinstance(holder, dict) else {}


def _words(holder: dict[str, Any]) -> str:
    if not holder:
        return 'another process'
    return (
        f'process {holder.get("process")} on {holder.get("host")} since {holder.get("since")} ({holder.get("command")})'
    )


def _left_behind(holder: dict[str, Any], path: Path, what: Path, locked: bool, file: Any) -> None:
    """A lock file that nobody gave back. Its lock is free, or the file system knows none: then InUse unless it is known
    that its process has ended."""
    here = holder.get('host') == socket.gethostname()
    if not locked and not (here and not _is_alive(holder.get('process'))):
        file.close()
        raise InUse(
            f'{what} is or was in use by {_words(holder)}, and its file system knows no locks: if that process has '
            f'ended, remove {path}'
        )
    known = 'it has ended' if here else 'its lock is free, so it is taken to have ended'
    print(f'{what} was left by {_words(holder)}; {known}, and the run goes on', file=sys.stderr, flush=True)


def _is_alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        return True
    return True
