"""Commands where the machine gives less than they ask for: one line, nothing half-written, and they go on afterwards.

    python -m tests.campaign limits

Full disk: a tmpfs of few kB where mounting is allowed (in a mount namespace of the child's own), else RLIMIT_FSIZE.
Read-only: a read-only tmpfs, or the access rights of the folder where this is no superuser. Every command works in a
folder that is not the repository's.
"""

import ctypes
import dataclasses
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.campaign import children, commands, report
from tests.campaign.commands import Command

COLUMNS = ('condition', 'tried', 'one line', 'not needed', 'tracebacks', 'other words', 'half-written', 'different')
FAULTS = COLUMNS[4:]
GROWING = (
    'metrics.jsonl',
    'config.json',
    'statistics.npz',
    'job.json',
    'table.md',
    'table.csv',
)  # of a run or job that has begun, also when whole
NEW_NAMESPACE, READ_ONLY, REMOUNT = 0x20000, 1, 32  # of unshare(2) and mount(2)
SILENCED = ('HOME', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR', 'LANG', 'PYTHONUTF8')


@dataclasses.dataclass(frozen=True)
class Condition:
    """Something that is not as a command wants it. spoil: makes it so, in the child; must_fail: or may go on."""

    name: str
    spoil: Callable[[Path, Command], None]
    must_fail: bool = True


def limits(
    folder: Path, *, seed: int, minutes: float, short: bool = False, names: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """(the table, one line for each fault)."""
    end, faults, rows = time.monotonic() + 60 * minutes, [], []
    chosen = commands.SHORT[:1] if short else commands.LIMITED
    starts = {command.name: _undisturbed(command, folder) for command in chosen}
    for condition in CONDITIONS:
        row = {**dict.fromkeys(COLUMNS[1:], 0), COLUMNS[0]: condition.name}
        for command in chosen:
            if time.monotonic() >= end or (names and condition.name not in names):
                continue
            row['tried'] += 1
            for kind, why in _try(condition, command, folder, *starts[command.name]):
                row[kind] += 1
                if kind in FAULTS:
                    faults.append(f'{condition.name}, {command.name}: {kind}: {why}')
                    report.say(faults[-1])
        rows.append(row)
    return report.table(COLUMNS, rows), faults


def _undisturbed(command: Command, folder: Path) -> tuple[Path, dict[str, str]]:
    begin = folder / 'begin' / command.name.replace(' ', '_')
    begin.mkdir(parents=True)
    for prepare in command.before:
        if (ended := children.run(prepare, begin)).status:
            raise RuntimeError(f'{command.name}: what it starts from failed: {ended.text[-2000:]}')
    place = folder / 'whole'
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(begin, place)
    ended = children.run(command.work, place)
    if ended.status:
        raise RuntimeError(f'{command.name}: the undisturbed run failed: {ended.text[-2000:]}')
    children.run(lambda: commands.write_digests(Path.cwd(), command), place)
    return begin, commands.read_digests(place)


def _try(
    condition: Condition, command: Command, folder: Path, begin: Path, whole: dict[str, str]
) -> list[tuple[str, str]]:
    place, found = folder / 'trial', []
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(begin, place)

    def spoilt() -> int:
        condition.spoil(place, command)
        status = command.work()
        if _is_mounted(place):  # what is in it goes with the child
            shutil.copytree(place, folder / 'left', dirs_exist_ok=True)
        return status

    shutil.rmtree(folder / 'left', ignore_errors=True)
    ended = children.run(spoilt, place)
    if (folder / 'left').is_dir():
        shutil.rmtree(place)
        (folder / 'left').rename(place)
    lines = [line for line in ended.text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('error: ')]
    if 'Traceback (most recent call last)' in ended.text or ended.status < 0 or ended.status == 99:
        found.append(('tracebacks', f'status {ended.status}: {_last_error(ended.text)[:300]}'))
    elif ended.status and len(errors) in (1, command.rows):
        found.append(('one line', errors[0]))
        report.say(f'{condition.name}, {command.name}: {errors[0][:200]}')
    elif not ended.status and not condition.must_fail:
        found.append(('not needed', ''))
    else:
        found.append(('other words', f'status {ended.status}: {ended.last_line[:300]}'))
    _restore(condition, place)
    children.run(lambda: commands.write_digests(Path.cwd(), command), place)
    half = [
        name
        for name, digest in commands.read_digests(place).items()
        if whole.get(name) != digest and not name.endswith(('/', *GROWING)) and '/checkpoints' not in name
    ]
    if half:
        found.append(('half-written', ', '.join(half[:4])))
    again = children.run(command.work, place)
    children.run(lambda: commands.write_digests(Path.cwd(), command), place)
    if again.status and not (command.may_exist and 'exists' in again.last_line):
        found.append(('different', f'afterwards status {again.status}: {again.last_line[:300]}'))
    elif commands.read_digests(place) != whole:
        after = commands.read_digests(place)
        other = [name for name in {*after, *whole} if after.get(name) != whole.get(name)]
        found.append(('different', ', '.join(sorted(other)[:4])))
    return found


def _last_error(text: str) -> str:
    """The line of the exception of the first traceback, or the last line."""
    _, _, rest = text.partition('Traceback (most recent call last)')
    found = [line for line in rest.splitlines()[1:] if line and not line.startswith(' ')]
    return (found or text.strip().splitlines() or [''])[0]


def _restore(condition: Condition, place: Path) -> None:
    """What a condition put into the folder goes away."""
    for name in (*commands.MADE, ''):
        path = place / name
        if path.is_file() and path.read_bytes() == b'a file':
            path.unlink()
    place.chmod(0o755)


# ---- conditions ----------------------------------------------------------------------------------------------


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    if not flags & REMOUNT and library.unshare(NEW_NAMESPACE):
        return False
    library.mount(b'none', b'/', None, 0x44000, None)  # nothing of it is seen outside: MS_REC | MS_PRIVATE
    return library.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode()) == 0


def _is_mounted(place: Path) -> bool:
    return os.path.ismount(place)


def _in_memory(place: Path, extra: int | None) -> bool:
    """The folder as a tmpfs of what it holds and `extra` bytes more; False where nothing may be mounted."""
    kept, size = place.with_name('kept'), 0
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(place, kept)
    for path in kept.rglob('*'):
        size += 4096 if path.is_dir() else -(-path.stat().st_size // 4096) * 4096
    if not _mount('tmpfs', place, 'tmpfs', 0, f'size={size + (extra or 0) + 8192}'):
        return False
    shutil.copytree(kept, place, dirs_exist_ok=True)
    os.chdir(place)
    return True


def _full(extra: int) -> Callable[[Path, Command], None]:
    def spoil(place: Path, command: Command) -> None:
        if not _in_memory(place, extra):
            report.say('no mounts here: RLIMIT_FSIZE stands for the full disk')
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (extra // 4, resource.RLIM_INFINITY))

    return spoil


def _read_only(place: Path, command: Command) -> None:
    if os.geteuid() and place.chmod(0o555) is None:
        return
    if not _in_memory(place, None) or not _mount('tmpfs', place, 'tmpfs', REMOUNT | READ_ONLY, ''):
        raise SystemExit('no read-only folder can be made here')


def _file(place: Path, command: Command) -> None:
    (place / command.output).write_bytes(b'a file')


def _without_home(place: Path, command: Command) -> None:
    """No HOME, no user of this number, nowhere to keep programs."""
    import pwd

    for name in SILENCED:
        os.environ.pop(name, None)

    def unknown(*_: object) -> None:
        raise KeyError('no such user')

    pwd.getpwuid = unknown  # type: ignore[assignment]


def _plain_locale(place: Path, command: Command) -> None:
    import locale
    import sys

    for name in SILENCED[3:]:
        os.environ.pop(name, None)
    os.environ['LC_ALL'] = 'C'
    locale.setlocale(locale.LC_ALL, 'C')
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding='ascii', errors='strict')  # type: ignore[union-attr]


CONDITIONS = (
    Condition('full disk, 8 kB left', _full(8 << 10), must_fail=False),
    Condition('full disk, 64 kB left', _full(64 << 10), must_fail=False),
    Condition('read-only folder', _read_only),
    Condition('output is a file', _file),
    Condition('no HOME, no user', _without_home, must_fail=False),
    Condition('LC_ALL=C, streams in ASCII', _plain_locale, must_fail=False),
)
