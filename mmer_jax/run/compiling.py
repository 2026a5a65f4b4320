"""Programs compiled once per shape of the batch, in the background, so that the device works while others compile.

XLA compiles outside Python's lock: several programs side by side take the time of one where there are cores. Tracing
and lowering stay in the thread that trains: jax imports parts of itself when they are first traced, which two threads
must not do at once. What is still to be lowered is done while that thread would only wait. With one or two cores the
first program has them to itself, since others beside it would only put off the first step.
"""

import collections
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from mmer_jax.run.kept import Gone

Batch = Mapping[str, Any]
TICK = 1.0  # seconds between two words on what is waited for
SIDE_BY_SIDE = 8  # at most: each holds its program in memory while it compiles
FEW_CORES = 2


class Background:
    """Threads that compile, and what is told while somebody waits for them."""

    def __init__(self) -> None:
        self.listener: Callable[[str, float], None] = lambda name, seconds: None
        self.waited = 0.0  # seconds, by whoever called a program that was not there yet
        self.first_is_there = (os.cpu_count() or 1) > FEW_CORES  # or else whether it was called
        self._pool: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._of_writer = threading.Lock()
        self._later: collections.deque[Callable[[], Any]] = collections.deque()

    def later(self, work: Callable[[], Any]) -> None:
        """To be done by whoever waits next."""
        self._later.append(work)

    def submit(self, function: Callable[[], Any]) -> Future:
        if self._pool is None:
            workers = min(os.cpu_count() or 1, SIDE_BY_SIDE)
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix='compile')
        return self._pool.submit(function)

    def write(self, work: Callable[[], Any]) -> None:
        """Beside all else, and not to be forgotten: what is kept of a program."""
        with self._of_writer:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, thread_name_prefix='keep')
            self._writer.submit(work)

    def wait(self, future: Future, name: str) -> Any:
        """Its result; the listener hears every second what is waited for and for how long."""
        started = time.monotonic()
        try:
            while not future.done():
                if self._later and self.first_is_there:
                    self._later.popleft()()
                    continue
                try:
                    return future.result(timeout=TICK)
                except TimeoutError:
                    self.listener(name, time.monotonic() - started)
            return future.result()
        finally:
            self.waited += time.monotonic() - started

    def forget(self) -> None:
        """Drops what has not begun; what compiles ends by itself, what is being kept is waited for."""
        self._later.clear()
        with self._of_writer:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.shutdown()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


class ByShape:
    """A function of (state, batch) with a program for each shape of the batch.

    lower_for(batch of jax.ShapeDtypeStruct) lowers the program here and now, and gives a function that compiles it in
    the background and returns what is called with (state, batch) of that shape.
    """

    def __init__(
        self, name: str, lower_for: Callable[[Batch], Callable[[], Callable[..., Any]]], background: Background
    ):
        self.name, self._lower_for, self._background = name, lower_for, background
        self._programs: dict[Any, Future] = {}

    def prepare(self, batch: Batch) -> Future:
        """Begins to compile for a batch like this one, of arrays or of jax.ShapeDtypeStruct, if nobody has yet."""
        key = _key(batch)
        if key not in self._programs or self._programs[key].cancelled():  # by `forget`, at the end of a fold
            shapes = {m: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for m, x in batch.items()}
            self._programs[key] = self._background.submit(self._lower_for(shapes))
        return self._programs[key]

    def known(self, batch: Batch) -> Any:
        """The program for a batch like this one where it is compiled already, else None."""
        future = self._programs.get(_key(batch))
        there = future is not None and future.done() and not future.cancelled() and future.exception() is None
        return future.result() if future is not None and there else None

    def __call__(self, state: Any, batch: Batch) -> Any:
        program = self.compiled(batch)
        self._background.first_is_there = True
        return program(state, batch)

    def compiled(self, batch: Batch) -> Any:
        """The program for a batch like this one, waited for."""
        try:
            return self._wait(batch)
        except Gone:
            del self._programs[_key(batch)]
            return self._wait(batch)

    def _wait(self, batch: Batch) -> Callable[..., Any]:
        begun = time.monotonic()
        future = self.prepare(batch)
        self._background.waited += time.monotonic() - begun  # to lower it, where nobody had prepared it
        return future.result() if future.done() else self._background.wait(future, f'{self.name} {steps_of(batch)}')


def _key(batch: Batch) -> Any:
    return tuple(sorted((name, tuple(x.shape), str(x.dtype)) for name, x in batch.items()))


def steps_of(batch: Batch) -> str:
    """'for 64 x text 50, audio 375': rows, and steps of each modality."""
    steps = [f'{name.removesuffix("_mask")} {x.shape[1]}' for name, x in batch.items() if name.endswith('_mask')]
    return f'for {len(batch["weight"])} x {", ".join(steps)}'


def shapes_of(batch: Mapping[str, np.ndarray], place: Sharding, processes: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What sharding.put_batch makes of a host's batch when all processes give as many rows."""
    return {
        key: jax.ShapeDtypeStruct((len(x) * processes, *x.shape[1:]), x.dtype, sharding=place)
        for key, x in batch.items()
        if key != 'id'
    }
