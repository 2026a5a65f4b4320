"""What every preparation shares: work on many files in order, skip the unusable ones, say which and why."""

import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

import numpy as np
from tqdm import tqdm

from mmer_jax.data.records import RecordError
from mmer_jax.files.locks import InUse
from mmer_jax.media import MediaError
from mmer_jax.settings import command

JobT = TypeVar('JobT')
IN_FLIGHT = 4  # jobs queued or finished but not consumed, per worker: bounds the memory their results hold
NAMES_SHOWN = 5
REMARKS_SHOWN = 100  # records named of one kind of remark; a data set of which all are odd shall not fill the screen
APART = 0.2  # seconds by which sound and pictures may differ: a few pictures, or a frame of a sound coder, are no fault


class PreparationError(ValueError):
    """The source folder or the options do not allow a data set to be written; the message says what to do."""


# What a command reports in one line: a source, a file or an option that cannot be used, an output that another process
# writes, a disk that is full or closed, an extra that is not installed.
MISTAKES = (PreparationError, MediaError, RecordError, InUse, OSError, ImportError)


def run_command(work: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Does the work of a preparation and returns its exit status, mmer_jax/settings/command.py."""
    go_on = f'nothing was written, {command.ANEW}'
    return command.run(work, arguments, mistakes=MISTAKES, go_on=go_on)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Stands for the result of a file that could not be used.

    `reason` is a short phrase that many files can share, `detail` the whole story of this one.
    """

    reason: str
    detail: str = ''
    is_fault: bool = False  # it was tried, and cannot be read


@dataclasses.dataclass(frozen=True)
class Remark:
    """What a reader should know of a record that was written: a phrase that many can share, and its own numbers."""

    reason: str
    detail: str = ''


def holds_nothing(array: np.ndarray) -> bool:
    """Whether features hold no number but 0: NaN and infinite ones, which stand for what could not be computed, too."""
    return not (np.isfinite(array) & (array != 0)).any()


def missing(found: Mapping[str, str], modalities: Iterable[str]) -> list[Remark]:
    """Remarks on the modalities that a record lacks, {modality: why}, of those that its data set has."""
    remarks = [Remark(f'{m} is missing ({why}; masked in batches)') for m, why in found.items()]
    if set(modalities) <= set(found):
        remarks.append(Remark('every modality is missing'))
    return remarks


def compare_spans(sound: tuple[float, float], pictures: tuple[float, float]) -> list[Remark]:
    """A remark where (start, end) of the sound and of the pictures of a clip are apart, in seconds."""
    if max(abs(a - b) for a, b in zip(sound, pictures, strict=True)) <= APART:
        return []
    detail = f'sound {sound[0]:.3f} to {sound[1]:.3f} s, pictures {pictures[0]:.3f} to {pictures[1]:.3f} s'
    return [Remark(f'sound and pictures more than {APART:g} s apart', detail)]


def nothing_usable(what: str, skipped: Iterable[tuple[str, Skipped]], hint: str) -> PreparationError:
    """The error of a preparation that has no record: the first cause with its file, then all reasons.

    What was tried and failed is a cause before what was not taken (a file of another kind, say). `hint` is the layout
    expected, for a folder in which nothing was tried.
    """
    found = [result for _, result in skipped]
    faults = [result for result in found if result.is_fault]
    causes = faults or found
    if not causes:
        return PreparationError(f'{what}: {hint}; nothing was written')
    counts: dict[str, int] = {}
    for result in found:
        counts[result.reason] = counts.get(result.reason, 0) + 1
    first = f'the first cause: {causes[0].detail or causes[0].reason}'
    reasons = ', '.join(f'{reason} ({count})' for reason, count in sorted(counts.items()))
    advice = '' if faults else f'; {hint}'
    return PreparationError(f'{what}; {first}; all reasons: {reasons}{advice}; nothing was written')


def process(
    function: Callable[[JobT], Any],
    jobs: Iterable[JobT],
    *,
    workers: int,
    description: str,
) -> Iterator[tuple[JobT, Any]]:
    """Yields (job, function(job)) in the order of the jobs, with a progress bar on stderr.

    A MediaError of one job gives (job, Skipped); any other exception is raised here, with a note that names the
    job, and the jobs that have not begun are cancelled. `workers` 0 or 1 runs in this process; more start spawned
    processes (a fork is unsafe once a library holds threads), so function and jobs must be picklable, and a
    script needs its `if __name__ == '__main__'` guard. At most 4 * workers results wait at any time.
    """
    if workers < 0:
        raise ValueError(f'workers must be 0 or more, found {workers}')
    jobs = list(jobs)
    attempt = functools.partial(_attempt, function)
    results = map(attempt, jobs) if workers <= 1 else _parallel(attempt, jobs, workers)
    done = 0
    try:
        bar = tqdm(results, desc=description, total=len(jobs), file=sys.stderr, mininterval=0.5)
        for job, result in zip(jobs, bar, strict=True):
            done += 1
            yield job, result
    except Exception as error:
        if done < len(jobs):
            error.add_note(f'{description}: job {done + 1} of {len(jobs)}: {jobs[done]}')
        raise


def _attempt(function, job):
    try:
        return function(job)
    except MediaError as error:
        return Skipped(error.reason, str(error), is_fault=True)


def _parallel(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[Any]:
    context = multiprocessing.get_context('spawn')
    workers = min(workers, max(len(jobs), 1))
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupt)
    waiting: deque[concurrent.futures.Future] = deque()
    remaining = iter(jobs)
    try:
        while True:
            free = IN_FLIGHT * workers - len(waiting)
            waiting.extend(pool.submit(function, job) for job in itertools.islice(remaining, free))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent stops the pool, without a traceback a worker


def summary(
    skipped: Iterable[tuple[str, Skipped]],
    remarks: Iterable[tuple[str, Remark]] = (),
    *,
    file: TextIO | None = None,
) -> None:
    """Prints the remarks on records, (name, Remark) each, one by one, and the skipped items, (name, Skipped) each.

    Both are grouped by reason, with a count; of the skipped the first few names follow.
    """
    print_remarks(remarks, file=file)
    groups: dict[str, list[str]] = {}
    for name, result in skipped:
        groups.setdefault(result.reason, []).append(name)
    total = sum(map(len, groups.values()))
    print(f'skipped: {total}', file=file)
    for reason, names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        more = f' and {len(names) - NAMES_SHOWN} more' if len(names) > NAMES_SHOWN else ''
        print(f'  {len(names):6d}  {reason}: {", ".join(names[:NAMES_SHOWN])}{more}', file=file)


def print_remarks(remarks: Iterable[tuple[str, Remark]], *, file: TextIO | None = None) -> None:
    """The count of each kind of remark, then its records by name, those with numbers of their own a line each."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, remark in remarks:
        groups.setdefault(remark.reason, []).append((name, remark.detail))
    for reason, found in groups.items():
        print(f'  {reason}: {len(found)}', file=file)
        plain = [name for name, detail in found[:REMARKS_SHOWN] if not detail]
        if plain:
            print(f'      {", ".join(plain)}', file=file)
        for name, detail in found[:REMARKS_SHOWN]:
            if detail:
                print(f'      {name}: {detail}', file=file)
        if len(found) > REMARKS_SHOWN:
            print(f'      and {len(found) - REMARKS_SHOWN} more (manifest.csv has their lengths and times)', file=file)
