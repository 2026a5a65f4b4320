"""What a run writes down: metrics.jsonl (the record of truth), timing.jsonl, TensorBoard files, progress.

Only process 0 writes. Nothing here imports jax, so a report can be made on a machine without it.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mmer_jax.files import atomic, end_with_newline, parse_lines, replace, to_json

PLAIN_INTERVAL = 30.0  # seconds between two lines of progress when the stream is a file and not a terminal


class Writer:
    """The only writer of `metrics.jsonl`, `timing.jsonl` and the TensorBoard files of a workdir.

    Wall-clock figures (seconds, examples per second) go to `timing.jsonl` and nowhere else, so that the
    `metrics.jsonl` of a run that was killed and resumed is byte for byte that of an undisturbed one.

    Args:
        workdir: the run's folder; it is created.
        active: False on every process but the first; all methods then do nothing.
        tensorboard: also write scalars to `workdir/tensorboard`, one run (`seed_0`, ...) for each seed.
    """

    def __init__(self, workdir: str | os.PathLike, *, active: bool = True, tensorboard: bool = True):
        self.workdir = Path(workdir)
        self.active = active
        self.rows = 0  # in metrics.jsonl
        self._tensorboard = tensorboard
        self._files: dict[str, TextIO] = {}
        self._summaries: dict[str, Any] = {}
        self._purge_step: int | None = None
        if active:
            self.workdir.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, row: dict[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`, flushed, keys in the given order, and its scalars to TensorBoard.

        Args:
            row: scalars, strings or None by name. `step` is required; `split` and `seed` name the
                TensorBoard tag (`<split>/<key>`) and run.

        Raises:
            ValueError: `step` is missing, or a value is NaN or infinite; JSON has neither, so write None for a
                metric that is undefined.
            TypeError: a value is not a scalar.
        """
        if not self.active:
            return
        step = row.get('step')
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
            raise ValueError(f"metrics.jsonl: the row's 'step' is {step!r}, expected an integer (keys: {list(row)})")
        converted = self._append('metrics.jsonl', row)
        self.rows += 1
        if self._tensorboard:
            self._summarise(converted)

    def timing(self, row: dict[str, Any]) -> None:
        """Appends one line to `timing.jsonl`, flushed: the place of everything that depends on the clock.

        A resumed run keeps the old lines (see `truncate_after`): the time of the steps done twice was spent.
        Raises as `write` does, but needs no `step`.
        """
        if self.active:
            self._append('timing.jsonl', row)

    def truncate_after(self, step: int) -> None:
        """Drops what a killed run wrote after the checkpoint at `step`, from which it now goes on.

        `metrics.jsonl` is rewritten without rows of a later step and without a partial last line; the rows
        kept stay byte for byte. TensorBoard is told to hide later points. `timing.jsonl` is kept.

        Raises:
            ValueError: a line in the middle of the file is corrupt or has no `step`.
        """
        if not self.active:
            return
        self.close()
        self._purge_step, self.rows = step + 1, 0
        path = self.workdir / 'metrics.jsonl'
        if not path.exists():
            return
        kept = []
        for number, raw, row in parse_lines(path):
            if type(row.get('step')) is not int:
                raise ValueError(
                    f"{path}, line {number}: no number 'step' among {list(row)}; remove the line to resume this run"
                )
            if row['step'] <= step:
                kept.append(raw + b'\n')
        replace(path, b''.join(kept))
        self.rows = len(kept)

    def close(self) -> None:
        """Closes all files; a later `write` opens them again."""
        for file in self._files.values():
            file.close()
        for summary in self._summaries.values():
            summary.close()
        self._files, self._summaries = {}, {}

    def _append(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        converted = {key: to_json(value, name, key, scalar=True) for key, value in row.items()}
        if name not in self._files:
            path = self.workdir / name
            end_with_newline(path)
            self._files[name] = open(path, 'a', encoding='utf-8')
        with atomic.naming(self.workdir / name):
            self._files[name].write(json.dumps(converted, allow_nan=False) + '\n')
            self._files[name].flush()
        return converted

    def _summarise(self, row: dict[str, Any]) -> None:
        run = 'all' if row.get('seed') is None else f'seed_{row["seed"]}'
        if run not in self._summaries:
            from tensorboardX import SummaryWriter  # two seconds to import, so only where it is used

            folder = self.workdir / 'tensorboard' / run
            # tensorboardX names its file by the second: a run resumed within one would overwrite the first file.
            suffix = f'.{len(list(folder.glob("events*")))}'
            self._summaries[run] = SummaryWriter(str(folder), purge_step=self._purge_step, filename_suffix=suffix)
        prefix = f'{row["split"]}/' if row.get('split') else ''
        for key, value in row.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if number and key not in ('step', 'seed', 'epoch'):
                self._summaries[run].add_scalar(prefix + key, value, row['step'])


class Progress:
    """One line on a terminal, redrawn in place; a plain line at most every 30 s anywhere else.

    Shows step/total, percent, epoch, steps/s, examples/s, time left (h:mm:ss) and the last loss and metrics.
    Rates and time left count from the first `update` of this process, so neither the steps that a resumed run
    skipped nor the compilation of the first step enters them.

    Args:
        total_steps: the step at which training ends.
        active: False on every process but the first; all methods then do nothing.
        stream: where to draw; standard error by default.
        interval: seconds between two redraws on a terminal, at least.
        clock: seconds, monotonic; a test gives its own.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        active: bool = True,
        stream: TextIO | None = None,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._active, self._clock = total_steps, active, clock
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._interval = interval if self._terminal else max(interval, PLAIN_INTERVAL)
        self._fields: dict[str, Any] = {}
        self._examples = 0
        self._first: tuple[int, float] | None = None  # step and time of the first update
        self._drawn_at: float | None = None
        self._last: tuple[int, float] | None = None
        self._pending = False
        self._waited_at: float | None = None

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, step: int, **fields: Any) -> None:
        """Notes that `step` is done, and redraws if it is time.

        Args:
            step: steps done since the start of training, those before a resume included.
            **fields: `epoch`; `examples`, the number of examples since the last update; anything else
                (`loss=0.7`, `accuracy=0.5`) is shown by its name until a new value comes.
        """
        if not self._active:
            return
        now = self._clock()
        examples = int(fields.pop('examples', 0))
        self._fields.update(fields)
        if self._first is None:
            self._first = (step, now)
        else:
            self._examples += examples
        self._last, self._pending = (step, now), True
        if self._drawn_at is None or now - self._drawn_at >= self._interval:
            self._draw(now)

    def wait(self, what: str, seconds: float) -> None:
        """Says that `what` is being compiled and for how long already, in the place of the line of progress."""
        now = self._clock()
        if not self._active or (self._waited_at is not None and now - self._waited_at < self._interval):
            return
        self._waited_at = now
        self._write(f'compiling {what}: {seconds:.0f} s so far')

    def close(self) -> None:
        """Draws the last state and ends the line. Safe to call twice."""
        if not self._active or self._last is None:
            return
        if self._pending:
            self._draw(self._last[1])
        if self._terminal:
            self._stream.write('\n')
        self._stream.flush()
        self._active = False

    def _draw(self, now: float) -> None:
        self._write(self._line())
        self._drawn_at, self._pending = now, False

    def _write(self, line: str) -> None:
        if self._terminal:
            # A line wider than the terminal would wrap, and \r returns only to the start of its last part.
            line = '\r' + line[: shutil.get_terminal_size().columns - 1] + '\x1b[K'
        else:
            line += '\n'
        self._stream.write(line)
        self._stream.flush()

    def _line(self) -> str:
        assert self._first is not None
        assert self._last is not None
        step, elapsed = self._last[0], self._last[1] - self._first[1]
        done = step - self._first[0]
        parts = [f'step {step}/{self._total}', f'{100 * step / max(self._total, 1):.1f} %']
        if 'epoch' in self._fields:
            parts.append(f'epoch {self._fields["epoch"]}')
        # A narrow terminal cuts the end off, so the rates come last.
        rates = []
        if done > 0 and elapsed > 0:
            left = round((self._total - step) * elapsed / done)
            parts.append(f'{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left')
            rates.append(f'{done / elapsed:.2f} steps/s')
            if self._examples:
                rates.append(f'{self._examples / elapsed:.0f} examples/s')
        for key, value in self._fields.items():
            if key != 'epoch' and value is not None:
                parts.append(f'{key} {value}' if isinstance(value, (str, int)) else f'{key} {float(value):.4g}')
        return ' '.join(parts + rates)
