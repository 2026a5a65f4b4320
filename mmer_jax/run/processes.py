"""Joining the processes of a run, with one line where one of them never comes.

jax's own wait ends by aborting the process, with a stack of C++; so a timer of ours ends it before, and says what to
look at. A process that is lost later ends the others through jax, at their next step that needs it.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

MARGIN = 60  # seconds by which jax waits longer than we do
FAILED = 1  # as settings/command.py has it


def join(coordinator: str, number: int, count: int, seconds: int) -> None:
    """jax.distributed.initialize of process `number` of `count`; ends this process where not all come in time."""
    import jax

    if number == 0:
        missing = 'process 1' if count == 2 else f'one or more of processes 1 to {count - 1}'
        look = f'each needs --coordinator={coordinator} --num_processes={count} and a --process_id of its own'
    else:
        missing = f'process 0 at {coordinator}, or another of the {count}'
        look = 'is it started, does the name lead to its host, and is the port open'
    message = f'--wait: after {seconds} s this process (--process_id {number}) still waits for {missing}: {look}'
    with _ended_after(seconds, message):
        jax.distributed.initialize(coordinator, count, number, initialization_timeout=seconds + MARGIN)


@contextlib.contextmanager
def _ended_after(seconds: int, message: str) -> Iterator[None]:
    """Ends the process with `message` where the block takes longer."""

    def end() -> None:
        print(f'error: {message}', file=sys.stderr, flush=True)
        os._exit(FAILED)  # jax waits in C++, where no exception reaches it; nothing has been written yet

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
