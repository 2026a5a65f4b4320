"""The folder of a run among processes: who writes it, what it was begun with, its files read back.

Whoever writes a fold holds its lock, the file `.<fold>.lock` (files/locks.py). Reading needs no lock.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from mmer_jax.files import read_json, replace, write_json
from mmer_jax.files.locks import InUse, clear, hold
from mmer_jax.files.older_configs import with_defaults
from mmer_jax.run import own_module

# Keys, with all below them, that may change between the start of a run and its resumption without changing its numbers.
MAY_CHANGE = (
    'debug',
    'data.workers',
    'data.threads',
    'mesh',
    'checkpoint_every',
    'tensorboard',
    'tracker',
    'search',
    'published',
    'headline',
    'evaluate_train',
)
NEEDED = ('data', 'epochs', 'losses', 'mesh', 'modalities', 'model', 'name', 'optimizer', 'protocol', 'seed', 'seeds')
RESULTS = ('config', 'dataset', 'modalities', 'rows', 'variant')  # keys of results.json that others read


@contextlib.contextmanager
def alone(workdir: Path, folds: Sequence[str]) -> Iterator[None]:
    """Holds the locks of these folds, for all processes of a run; InUse where another run writes one of them.

    Process 0 takes them and tells the others, so that either all go on or none.
    """
    with contextlib.ExitStack() as stack:
        fault: Exception | None = None
        if jax.process_index() == 0:
            try:
                for fold in folds:
                    stack.enter_context(hold(workdir / f'.{fold}.lock', workdir))
            except (InUse, OSError) as error:
                fault = error
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(fault is not None)):
            fault = fault or InUse(f'{workdir}: process 0 could not take it for this run, and says why')
        if fault is not None:
            raise fault
        yield


# ---- what it was begun with ----------------------------------------------------------------------------------


def check_config(
    config: Any,
    workdir: Path,
    module: nn.Module | None = None,
    batch: Any = None,
    *,
    held: Sequence[str] | None = None,
) -> None:
    """Writes config.json into a new workdir; ValueError where an existing one differs in what changes numbers.

    module: one's own instead of the config's, with a `batch` of its data (program.example_batch). held: the folds whose
    locks this process holds. Where nothing was kept of what was begun, as of a run without enough memory, it is begun
    anew with the changed config then; a run of several processes never is, for they would have to agree.
    """
    path = workdir / 'config.json'
    if not path.is_file():
        if (workdir / 'results.json').is_file():
            raise ValueError(f'{workdir} has results but no config.json to compare: take a new --workdir, or remove it')
        _write_config(path, config, module, batch)
        return
    saved = with_defaults(_read_object(path, NEEDED))
    entry, fault = saved.pop(own_module.KEY, None), None
    changed = [one for one in config_differences(saved, config.to_dict()) if not may_change(one.key)]
    words = '; '.join(map(str, changed))
    if changed:
        fault = ValueError(
            f'{workdir} was begun with another config: {words}. Take a new --workdir, or the old values to resume'
        )
    try:
        own_module.check(entry, module, workdir)
    except ValueError as error:
        fault, words = error, '; '.join(filter(None, ('another module', words)))
    if fault is None:
        return
    if held is None or jax.process_count() > 1 or not is_untouched(workdir, held):
        raise fault
    before = path.read_bytes()
    _write_config(path, config, module, batch)
    if not is_untouched(workdir, held):  # whoever took a lock meanwhile may have read the old one
        replace(path, before)
        raise fault
    print(f'{workdir} is begun anew: nothing was kept of what was begun there ({words})', file=sys.stderr)
    _sweep(workdir)


def _write_config(path: Path, config: Any, module: nn.Module | None, batch: Any) -> None:
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {own_module.KEY: own_module.describe(module, batch)} if module is not None else {}
        write_json(path, {**config.to_dict(), **own}, sealed=True)


def is_untouched(workdir: Path, held: Sequence[str] = ()) -> bool:
    """Whether no run has kept a checkpoint, a curve or a result here, and none is at work but on the `held` folds."""
    for path in workdir.glob('.*.lock'):
        if path.name not in {f'.{fold}.lock' for fold in held}:
            clear(path)  # a killed process left it
            if path.exists():
                return False
    folders = _folders(workdir)
    if any(folder.is_symlink() for folder in folders):  # it lies elsewhere, and who else uses it is unknown
        return False
    kept = ('results.json', 'curve.json', 'checkpoints/*', 'predictions/*')
    return not any(any(folder.glob(pattern)) for folder in folders for pattern in kept)


def _folders(workdir: Path) -> list[Path]:
    """Those of the folds and inner folds below a workdir, the inner ones first, and itself."""
    folds = [*workdir.glob('fold_*'), workdir]
    return [*(inner for fold in folds for inner in fold.glob('inner_*')), *folds]


def _sweep(workdir: Path) -> None:
    """Removes what a run writes before it keeps anything, for curves and folds of another config would be read."""
    for folder in _folders(workdir):
        for name in ('metrics.jsonl', 'timing.jsonl', 'statistics.npz', 'tracker.json'):
            (folder / name).unlink(missing_ok=True)
        if (folder / 'tensorboard').is_dir():
            shutil.rmtree(folder / 'tensorboard')
        for empty in (folder / 'checkpoints', folder):
            with contextlib.suppress(OSError):  # it is not there, or holds what no run wrote
                empty.rmdir()


class Difference(NamedTuple):
    """A value of a config that is another than it was, by its dotted key; None where there is or was none."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f'{self.key}: {self.old!r} -> {self.new!r}'


def may_change(key: str) -> bool:
    return any(key == name or key.startswith(f'{name}.') for name in MAY_CHANGE)


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = '') -> list[Difference]:
    """Every value that differs between two nested configs; a tuple equals its saved list."""
    rows = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            rows += config_differences(a, b, f'{prefix}{key}.')
        elif json.dumps(a) != json.dumps(b):
            rows.append(Difference(f'{prefix}{key}', a, b))
    return rows


def read_config(workdir: Path) -> tuple[Any, dict[str, Any] | None]:
    """The config of a run, and the entry of its own module; None where it is the config's model."""
    path = workdir / 'config.json'
    saved = with_defaults(_read_object(path, NEEDED))
    own = saved.pop(own_module.KEY, None)
    try:
        return ConfigDict(saved), own
    except (TypeError, ValueError) as error:  # a key that no config can have
        raise ValueError(f'{path} is damaged ({error}): {_again(path)}') from error


# ---- its other files -----------------------------------------------------------------------------------------


def read_results(path: Path, keys: tuple[str, ...] = RESULTS) -> dict[str, Any]:
    """results.json of a run or a fold with the keys that are needed; ValueError in one line where it is damaged."""
    results = _read_object(path, keys)
    rows = results['rows'] if 'rows' in keys else [{'fold': '', 'seed': 0}]
    known = isinstance(rows, list) and all(isinstance(row, dict) and {'fold', 'seed'} <= set(row) for row in rows)
    if not known or not rows:
        raise ValueError(f'{path} has no rows of folds and seeds: {_again(path)}')
    return results


def _read_object(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f'{path} is damaged ({error.__cause__ or error}): {_again(path)}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} is damaged: it holds {type(content).__name__}, expected an object; {_again(path)}')
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(
            f'{path} is damaged or was not written by this toolkit: it lacks {", ".join(missing)}; {_again(path)}'
        )
    return content


def _again(path: Path) -> str:
    if path.name == 'config.json':
        return 'bring it back, or take a new --workdir'
    return 'remove it and start the run again with its command, which makes it anew from the checkpoint'
