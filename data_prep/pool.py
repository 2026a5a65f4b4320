"""What every preparation shares: work on many files in order, skip the unusable ones, say which and why."""

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from mmer_jax.media import MediaError
from mmer_jax.records import RecordError

JobT = TypeVar('JobT')
IN_FLIGHT = 4  # jobs queued or finished but not consumed, per worker: bounds the memory their results hold
NAMES_SHOWN = 5


class PreparationError(ValueError):
    """The source folder or the options do not allow a data set to be written; the message says what to do."""


# What a command reports in one line: a source, a file or an option that cannot be used, a disk that is full or closed.
MISTAKES = (PreparationError, MediaError, RecordError, OSError)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Stands for the result of a file that could not be used.

    `reason` is a short phrase that many files can share, `detail` the whole story of this one.
    """

    reason: str
    detail: str = ''


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
        return Skipped(error.reason, str(error))


def _parallel(function, jobs, workers: int) -> Iterator[Any]:
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


def summary(skipped: Iterable[tuple[str, Skipped]], *, file: TextIO | None = None) -> None:
    """Prints the skipped items, (name, Skipped) each, grouped by reason: a count and the first few names."""
    groups: dict[str, list[str]] = {}
    for name, result in skipped:
        groups.setdefault(result.reason, []).append(name)
    total = sum(map(len, groups.values()))
    print(f'skipped: {total}', file=file)
    for reason, names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        more = f' and {len(names) - NAMES_SHOWN} more' if len(names) > NAMES_SHOWN else ''
        print(f'  {len(names):6d}  {reason}: {", ".join(names[:NAMES_SHOWN])}{more}', file=file)
