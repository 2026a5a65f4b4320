"""Checkpoints: the only file that knows orbax.

One checkpoint is the whole of a run at a step: `state` (everything the step changes), `best` (the variables that
validation chose, for each seed those of its own best epoch) and `host` (counters of the loop, as JSON). Because
`best` travels inside, a checkpoint is never older than the best one. orbax writes into a temporary folder that is
renamed when complete: a run killed while saving falls back to the step before.

A file may also be damaged later, by a full disk or a dead machine. So the sizes and CRCs of all files of a step are
written beside them (sums.json), the step before the newest is kept too, and a run goes on from the newest step that is
whole.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mmer_jax.files import replace
from mmer_jax.files.sums import SUMS, size_and_crc

Tree = Any
Convert = Callable[[Tree, Tree], Tree]
KEPT = 2  # the newest checkpoint, and the one before for when that is damaged
STATE = 'state'  # folder of what only training reads (run/prune.py drops it)
FORMAT = 2  # 1, of version 0.1, had an optimiser state per parameter and did not say so


class DoesNotFit(ValueError):
    """A checkpoint is whole, and of another model."""


def _abstract(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _of_one_device(tree: Tree) -> Tree:
    """What every device has, from the first one. Of copies on several devices orbax has each write a part, and compiles
    for every shape how to cut it. Several processes do share the writing."""
    if jax.process_count() > 1:
        return tree
    return jax.tree.map(lambda x: x.addressable_data(0) if x.is_fully_replicated else x, tree)


def _shapes(tree: Tree) -> dict[str, list]:
    return {
        jax.tree_util.keystr(path): [*x.shape, str(x.dtype)] for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


@contextlib.contextmanager
def _in_one_line(directory: Path) -> Iterator[None]:
    """A disk that is full is an OSError. Where orbax fails, each of its threads logs a traceback: only the error that
    is raised is told."""
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in ('absl', 'asyncio')}
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    told, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    except Exception as error:  # all stays silent: threads and futures end later than this
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory)) from error
        raise
    sys.unraisablehook = told
    for logger, level in loggers.items():
        logger.setLevel(level)


class Pruned(ValueError):
    """A checkpoint holds the chosen variables only."""


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for what is still being written.

    read_only: nothing is created or tidied up, so that a run which is training is not disturbed.
    """

    def __init__(self, directory: str | Path, *, read_only: bool = False):
        self.directory = Path(directory).absolute()
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(f'{self.directory} is a file, expected the folder of the checkpoints: remove it')
        if read_only and not self.directory.is_dir():
            raise ValueError(f'{self.directory} is missing: train first, or again')
        options = ocp.CheckpointManagerOptions(  # orbax's own read_only logs a warning each time
            max_to_keep=None if read_only else KEPT, create=not read_only, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps of which there is a complete checkpoint, the newest first; damaged ones are among them."""
        return sorted(self._manager.all_steps(), reverse=True)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return next(iter(self.steps()), None)

    def save(self, step: int, *, state: Tree, best: Tree, host: dict[str, Any]) -> None:
        """Writes a checkpoint; an error where one of the same step is there."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_of_one_device(state)),
            best=ocp.args.StandardSave(_of_one_device(best)),
            host=ocp.args.JsonSave({'loop': host, 'shapes': _shapes(best), 'format': FORMAT}),
        )
        with _in_one_line(self.directory):
            if not self._manager.save(step, args=args, force=True):
                raise RuntimeError(f'{self.directory}: checkpoint {step} exists and was not written again')
        if jax.process_index() == 0:
            write_sums(self.directory / str(step))

    def restore_newest(
        self, *, state: Tree, best: Tree, convert: Convert | None = None
    ) -> tuple[int, Tree, Tree, dict[str, Any]] | None:
        """(step, state, best, host) of the newest whole checkpoint, placed and shaped as the given trees, to go on from
        it; None where there is no checkpoint. convert(saved, state): a state of format 1 in the form of `state`.

        Newer ones that are damaged are told and removed: the run will write them again. ValueError where none is
        whole; DoesNotFit where the shapes differ.
        """
        faults: dict[int, str] = {}
        for step in self.steps():
            found, fault = self._try(step, best, state, convert)
            if not fault:
                for damaged, why in faults.items():
                    self._tell_and_remove(damaged, why, step)
                self._tidy(step)
                return step, found['state'], found['best'], found['host']
            faults[step] = fault
        if not faults:
            return None
        listed = '; '.join(f'{step}: {why}' for step, why in faults.items())
        raise ValueError(
            f'{self.directory}: no checkpoint is whole ({listed}); '
            f'remove {self.directory} to train from the first step, or bring the files back'
        )

    def restore_best(self, best: Tree) -> Tree:
        """The chosen variables of the newest step, placed as the given tree (of arrays, or of jax.ShapeDtypeStruct).

        ValueError where there is none, or it is damaged: an older step may have chosen others.
        """
        steps = self.steps()
        if not steps:
            raise ValueError(f'{self.directory} holds no complete checkpoint; train first, or again')
        found, fault = self._try(steps[0], best)
        if fault:
            self._manager.reload()  # a run that is training may have written a newer one, and removed this
            if self.latest() not in (None, steps[0]):
                return self.restore_best(best)
            results = self.directory.parent / 'results.json'
            again = f'remove {results} and start the run again with its command: it goes on from checkpoint '
            if len(steps) > 1:
                again += f'{steps[1]} and ends with the same numbers'
            else:
                again = f'remove {self.directory} and {results}, and train again'
            raise ValueError(f'checkpoint {steps[0]} in {self.directory} is damaged ({fault}); {again}')
        return found['best']

    def _try(
        self, step: int, best: Tree, state: Tree = None, convert: Convert | None = None
    ) -> tuple[dict[str, Any], str]:
        """What a step holds, and '' or what is damaged in it."""
        known = self._fault(step)
        if known:
            return {}, known
        try:
            return self._restore(step, best, state, convert), ''
        except (DoesNotFit, Pruned):
            raise
        except Exception as error:  # orbax and tensorstore have many kinds for a file that is cut, empty or missing
            if known is not None:  # every byte is as it was written: the fault lies elsewhere
                raise
            return {}, f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'

    def _restore(self, step: int, best: Tree, state: Tree, convert: Convert | None) -> dict[str, Any]:
        host = self._checked_host(step, best)
        if state is not None and not (self.directory / str(step) / STATE).is_dir():
            raise Pruned(
                f'{self.directory} was pruned: its optimiser state is gone, and training cannot go on from it; remove '
                f'{self.directory.parent} to train again, or bring its results.json back'
            )
        items = {'best': ocp.args.StandardRestore(_abstract(best))}
        old = host.get('format', 1) < FORMAT and convert is not None
        if state is not None:
            items['state'] = ocp.args.StandardRestore(None if old else _abstract(state))
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        found = restored.get('state')
        if old and convert is not None:
            found = convert(found, state)
            print(f'checkpoint {step} in {self.directory} is of version 0.1 and was converted', file=sys.stderr)
        return {'best': restored['best'], 'state': found, 'host': host['loop']}

    def _checked_host(self, step: int, best: Tree) -> dict[str, Any]:
        """The saved JSON; DoesNotFit names the first arrays whose name, shape or type is not the checkpoint's."""
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))['host']
        saved, wanted = host['shapes'], _shapes(best)
        wrong = [key for key in sorted({*saved, *wanted}) if saved.get(key) != wanted.get(key)]
        if wrong:
            shown = '; '.join(f'{key}: saved {saved.get(key)}, model {wanted.get(key)}' for key in wrong[:3])
            raise DoesNotFit(
                f'checkpoint {step} in {self.directory} does not fit this model: {len(wrong)} arrays differ ({shown}); '
                'the model, its sizes or the number of seeds were changed since: use a new --workdir'
            )
        return host

    def _fault(self, step: int) -> str | None:
        """As `fault_of`; process 0 reads for all, so that they agree."""
        if jax.process_count() == 1:
            return fault_of(self.directory / str(step))
        found = fault_of(self.directory / str(step)) if jax.process_index() == 0 else ''
        code = 2 if found is None else int(bool(found))
        code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
        return {0: '', 1: found or 'process 0 tells what', 2: None}[code]

    def _tidy(self, newest: int) -> None:
        """What a run leaves that is killed just after a checkpoint: a step too many, or one without its sums."""
        for old in self.steps()[KEPT:]:
            self._manager.delete(old)
        if jax.process_index() == 0 and self.directory.is_dir():
            known = {str(step) for step in self.steps()}
            for path in self.directory.iterdir():  # half removed
                if path.name.isdecimal() and path.name not in known and int(path.name) < newest:
                    shutil.rmtree(path)
            if not (self.directory / str(newest) / SUMS).is_file():
                write_sums(self.directory / str(newest))

    def _tell_and_remove(self, step: int, fault: str, earlier: int) -> None:
        if jax.process_index() == 0:
            print(
                f'checkpoint {step} in {self.directory} is damaged ({fault}); it is removed, and the run goes on from '
                f'checkpoint {earlier}',
                file=sys.stderr,
                flush=True,
            )
        self._manager.delete(step)


def write_sums(folder: Path) -> None:
    """sums.json of a step: {file: [bytes, CRC-32]} of all its files."""
    own = (SUMS, f'.{SUMS}.')  # and what a killed writer left of it
    files = (path for path in sorted(folder.rglob('*')) if path.is_file() and not path.name.startswith(own))
    sums = {str(path.relative_to(folder)): list(size_and_crc(path)) for path in files}
    replace(folder / SUMS, json.dumps(sums).encode())


def fault_of(folder: Path) -> str | None:
    """What differs in a step's files from what was written: '' for nothing, None where that is not known."""
    try:
        sums = {str(name): tuple(written) for name, written in json.loads((folder / SUMS).read_bytes()).items()}
    except FileNotFoundError:  # of an older version, or killed before it was written
        return None
    except (ValueError, TypeError, AttributeError, NotADirectoryError) as error:
        return f'{SUMS}: {error}'
    for name, written in sums.items():
        path = folder / name
        if not path.is_file():
            return f'{name} is missing'
        if path.stat().st_size != written[0]:
            return f'{name} has {path.stat().st_size} bytes, {written[0]} were written'
        if size_and_crc(path) != written:
            return f'{name} holds other bytes than were written'
    return ''
