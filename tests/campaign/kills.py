"""Commands killed at seeded moments, run again, and compared byte for byte with an undisturbed run.

    python -m tests.campaign kills --seed 0 --kills 200

Half of the moments are file events (a file opened for writing, renamed, removed, made): the child kills itself before
the n-th, n drawn from those of the undisturbed run. The others are by the clock, and so are all of one of two
processes.
"""

import dataclasses
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign import children, commands, report
from tests.campaign.commands import Command

COLUMNS = ('command', 'tried', 'kills', 'past its end', 'lost', 'different', 'litter', 'tracebacks')
FAULTS = COLUMNS[4:]
AGAIN, MOST = 0.5, 5  # probability of one more kill of the same run, and the most that it gets


@dataclasses.dataclass
class Row:
    """A command, what it starts from, and its undisturbed run."""

    command: Command
    begin: Path
    whole: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    events: int = 0
    tried: int = 0
    spent: float = 0.0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)


def kills(
    folder: Path, *, seed: int, minutes: float, count: int, short: bool = False, names: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """(the table, one line for each fault): `count` kills, or those that fit into the time; of the short part two
    trials of each command."""
    chosen = commands.SHORT if short else commands.ALL
    chosen = tuple(command for command in chosen if not names or command.name in names)
    end, faults = time.monotonic() + 60 * minutes, []
    rows = [Row(command, folder / 'begin' / command.name.replace(' ', '_')) for command in chosen]
    while time.monotonic() < end:
        if all(row.tried >= 2 for row in rows) if short else sum(row.counts['kills'] for row in rows) >= count:
            break
        row = min(rows, key=lambda row: row.tried if short else row.spent)  # each has its share of the time
        began = time.monotonic()
        if not row.whole:
            _undisturbed(row, folder)
        number, row.tried = row.tried, row.tried + 1
        found = _trial(row, folder, np.random.default_rng([seed, zlib.crc32(row.command.name.encode()), number]))
        row.spent += time.monotonic() - began
        for kind, why in found:
            row.counts[kind] += 1
            if kind in FAULTS:
                faults.append(f'{row.command.name}, trial {number} of seed {seed}: {kind}: {why}')
                report.say(faults[-1])
    lines = [
        {**dict.fromkeys(COLUMNS[2:], 0), **row.counts, COLUMNS[0]: row.command.name, 'tried': row.tried}
        for row in rows
    ]
    return report.table(COLUMNS, lines), faults


def _undisturbed(row: Row, folder: Path) -> None:
    command, begin = row.command, row.begin
    begin.mkdir(parents=True)
    for prepare in command.before:
        ended = children.run(prepare, begin)
        if ended.status:
            raise RuntimeError(f'{command.name}: what it starts from failed: {ended.text[-2000:]}')
    place = _fresh(begin, folder / 'whole')
    ended = children.run(_and_digest(command), place, only=command.only)
    if ended.status:
        raise RuntimeError(f'{command.name}: the undisturbed run ended with {ended.status}: {ended.text[-2000:]}')
    row.whole, row.seconds, row.events = commands.read_digests(place), ended.seconds, ended.event
    report.say(f'{command.name}: undisturbed {row.seconds:.1f} s, {row.events} file events, {len(row.whole)} files')


def _and_digest(command: Command) -> Callable[[], int]:
    def work() -> int:
        status = command.work()
        commands.write_digests(Path.cwd(), command)
        return status

    return work


def _fresh(begin: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(begin, place, symlinks=True)
    return place


def _trial(row: Row, folder: Path, generator: np.random.Generator) -> list[tuple[str, str]]:
    command, place = row.command, _fresh(row.begin, folder / 'trial')
    found: list[tuple[str, str]] = []
    for _ in range(min(int(generator.geometric(1 - AGAIN)), MOST)):
        moment: dict[str, Any] = {'kill_after': float(generator.uniform(0.02, 1)) * row.seconds}
        if command.only or (generator.integers(2) and not command.by_clock):
            moment = {'kill_at': int(generator.integers(1, row.events + 1)), 'only': command.only}
        ended = children.run(command.work, place, **moment)
        found.append(('kills', '') if ended.status == -9 else ('past its end', ''))
        if 'Traceback (most recent call last)' in ended.text:
            found.append(('tracebacks', f'before the kill: {ended.last_line}'))
        if command.check is not None and (lost := _checked(command.check, place)):
            found.append(('lost', f'after the kill: {lost}'))
    ended = children.run(_and_digest(command), place)
    if 'Traceback (most recent call last)' in ended.text:
        found.append(('tracebacks', ended.last_line))
    elif ended.status and not (command.may_exist and 'exists' in ended.last_line):
        found.append(('lost', f'the same command ends with {ended.status}: {ended.last_line}'))
    if ended.status:  # nothing is left to compare but what is there
        children.run(lambda: commands.write_digests(Path.cwd(), command), place)
    return [*found, *_compare(row.whole, commands.read_digests(place))]


def _checked(check: Callable[[Path], str], place: Path) -> str:
    """What a check in a child says of the folder: '' or a fault."""

    def work() -> int:
        print(check(place))
        return 0

    ended = children.run(work, place)
    return ended.text.strip() or (f'status {ended.status}' if ended.status else '')


def _compare(whole: dict[str, str], found: dict[str, str]) -> list[tuple[str, str]]:
    lost = [name for name in whole if name not in found]
    more = [name for name in found if name not in whole]
    other = [name for name in whole if found.get(name, whole[name]) != whole[name]]
    kinds = (('lost', lost), ('litter', more), ('different', other))
    return [(kind, ', '.join(names[:4])) for kind, names in kinds if names]
