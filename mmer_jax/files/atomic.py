"""Whole or not at all: files and folders that are new and whole, or as they were before, whenever a writer is killed.

What is new goes to a hidden sibling, is brought to the disk, and takes the final name by one rename; then the parent
folder is brought to the disk too. A writer holds a lock of the operating system as long as it writes, so the next one
knows by the lock alone what a killed one left, and clears it away.
"""

import contextlib
import ctypes
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mmer_jax.files import locks

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
TEMPORARY = '.tmp'


# ---- files ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system that names no file, as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the name `path` when the block ends, and is gone where the block raises.

    What writers of the same file left, killed on the way, is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    file, temporary = _take(path)
    with naming(path):
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if locks.fcntl is None:  # Windows does not rename a file that is open
                file.close()
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)  # while it is locked
            with contextlib.suppress(OSError):  # a full disk was told above
                file.close()


def _take(path: Path) -> tuple[BinaryIO, Path]:
    """A new locked sibling. One that was cleared by another writer before it was locked is left for a newer one."""
    while True:
        temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}{TEMPORARY}')
        file = open(temporary, 'xb')
        try:
            if not locks.try_lock(file) or locks.is_at(file, temporary):
                return file, temporary
        except BlockingIOError:  # whoever clears it has it now
            pass
        file.close()


def _clear(path: Path) -> None:
    """Removes the siblings of killed writers: those whose lock is free. Where there are no locks, none is removed."""
    begin, old = f'.{path.name}.', f'.{path.stem}.'  # version 0.2 wrote .NAME.PID.tmp, and .STEM.PID.tmp.npz of arrays
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(old) and entry.is_file(follow_symlinks=False)]
    for name in names:
        if not (name.startswith(begin) and name.endswith(TEMPORARY)) and not name.endswith(f'{TEMPORARY}.npz'):
            continue
        locks.clear(path.with_name(name))


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk; on a file system that cannot, they get there when it likes."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


# ---- folders -------------------------------------------------------------------------------------------------


def incomplete(directory: Path) -> Path:
    """Where a folder is written before it takes its name."""
    return directory.with_name(f'.{directory.name}.incomplete')


def replaced(directory: Path) -> Path:
    """Where the old folder is while the new one takes its name, on a system that cannot exchange two names at once."""
    return directory.with_name(f'.{directory.name}.replaced')


def lock_of(directory: Path) -> Path:
    """The lock file of whoever writes a folder."""
    return directory.with_name(f'.{directory.name}.lock')


def recover(directory: Path, remove: Callable[[Path], None]) -> None:
    """Brings in order what a killed writer of `directory` left; the caller holds its lock.

    An old folder that was set aside takes its name again, and only then is anything removed, by `remove`.
    """
    parent = directory.parent
    if not parent.is_dir():
        return
    stem = f'.{directory.name}.incomplete-'  # of version 0.2, followed by host and process
    old = sorted(path for path in parent.iterdir() if path.name.startswith(stem))
    set_aside = [replaced(directory), *(path for path in old if path.name.endswith('-replaced'))]
    for path in set_aside:
        if _is_folder(path) and not os.path.lexists(directory):
            os.rename(path, directory)
            sync_folder(parent)
    for path in (incomplete(directory), *set_aside, *old):
        if _is_folder(path):
            remove(path)


def remove_known(folder: Path, names: Iterable[str]) -> None:
    """Removes these files, and the folder where nothing else is in it."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


@contextlib.contextmanager
def making(directory: Path, remove: Callable[[Path], None]) -> Iterator[Path]:
    """A new folder that takes the name `directory` when the block ends, and is gone, by `remove`, where it raises.

    What was there is removed. InUse where another process makes it.
    """
    directory = Path(os.path.abspath(directory))
    with locks.hold(lock_of(directory), directory):
        recover(directory, remove)
        new = incomplete(directory)
        new.mkdir()
        try:
            yield new
            install(directory, remove)
        finally:
            if _is_folder(new):
                remove(new)


def install(directory: Path, remove: Callable[[Path], None]) -> None:
    """Gives `incomplete(directory)` the name `directory`; what was there is removed. The caller holds the lock.

    Where the system exchanges two names at once, a whole folder is there at every moment; else the old one is set aside
    for the moment between two renames, and `recover` puts it back if that moment is the last.
    """
    new = incomplete(directory)
    for path in new.iterdir():
        _sync_file(path)
    sync_folder(new)
    if not os.path.lexists(directory):
        os.rename(new, directory)
    elif not _exchange(new, directory):
        aside = replaced(directory)
        os.rename(directory, aside)
        try:
            os.rename(new, directory)
        except BaseException:
            os.rename(aside, directory)
            raise
    sync_folder(directory.parent)
    for path in (new, replaced(directory)):
        if _is_folder(path):
            remove(path)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two names at once; False where the system or its file system cannot."""
    function = getattr(ctypes.CDLL(None, use_errno=True), 'renameat2', None) if os.name == 'posix' else None
    if function is None:
        return False
    if function(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _sync_file(path: Path) -> None:
    with open(path, 'rb') as file:
        os.fsync(file.fileno())
