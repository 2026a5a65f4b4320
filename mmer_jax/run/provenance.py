"""Where the numbers of a run come from: code, packages, devices, command, time, data. The host's name is left out.

It stands in results.json under KEY, apart from what is compared: two runs of the same numbers differ in it.
"""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mmer_jax import __version__
from mmer_jax.data.checksum import data_checksum
from mmer_jax.data.records import RecordSource

KEY = 'provenance'
PACKAGES = ('mmer_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'grain')
TOOLKIT = Path(__file__).resolve().parents[2]
OF_TOOLKIT = ('mmer_jax', 'configs', 'data_prep')
LONGEST = 2000  # characters of a command line
PATIENCE = 10  # seconds, for git


class Provenance:
    """What is known when a run begins; `of_fold` adds what is known when one of its folds ends."""

    def __init__(self, source: RecordSource):
        self._begun = time.time()
        self.known = {
            'command': command_line(),
            'git': {'toolkit': toolkit_state(), 'folder': git_state(Path.cwd())},
            'packages': versions(),
            'device': {'kind': jax.devices()[0].device_kind, 'count': jax.device_count()},
            'processes': jax.process_count(),
            'data': data_checksum(source),
        }

    def of_fold(self, resumed_at: int) -> dict[str, Any]:
        """The entry of a fold that ends now. Its seconds are those of this process, since it began with the fold.

        resumed_at: the step from which this process went on, 0 for none.
        """
        now = time.time()
        times = {'started': _utc(self._begun), 'seconds': round(now - self._begun, 1), 'resumed_at_step': resumed_at}
        self._begun = now  # of the next fold
        return {**self.known, **times}


def combined(entries: Sequence[Any]) -> dict[str, Any] | None:
    """The entry of a run from those of its folds: from the first one's start, seconds added up.

    `differing` names what is not the same in all of them; of that the last one's is given. None where one has none, as
    folds of version 0.2.
    """
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    apart = ('started', 'seconds', 'resumed_at_step')
    differing = [
        key for key in entries[-1] if key not in apart and any(e.get(key) != entries[-1][key] for e in entries)
    ]
    return {
        **{key: value for key, value in entries[-1].items() if key not in apart},
        'started': min(entry['started'] for entry in entries),
        'seconds': round(sum(entry['seconds'] for entry in entries), 1),
        'differing': differing,
    }


def command_line() -> str:
    """The command of this process, without the place of Python."""
    return shlex.join(['python', *sys.orig_argv[1:]])[:LONGEST]


def versions() -> dict[str, str]:
    """Of Python and the packages that make numbers; 'unknown' for one that has no metadata."""
    found = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'unknown'
    return {**found, 'mmer_jax': __version__}


def toolkit_state() -> dict[str, Any] | None:
    """The commit of the toolkit's checkout; None where it is installed as a package."""
    return git_state(TOOLKIT, only=OF_TOOLKIT) if _git(TOOLKIT, 'rev-parse', '--show-cdup') == '' else None


def git_state(folder: Path, only: Sequence[str] = ()) -> dict[str, Any] | None:
    """{'commit', 'clean'} of the repository around a folder, None where there is none, or no git, or no commit.

    only: folders whose new files count as changes too; else changes of known files count.
    """
    commit = _git(folder, 'rev-parse', '--verify', 'HEAD')
    if not commit:
        return None
    which = ['--untracked-files=normal', '--', *only] if only else ['--untracked-files=no']
    changes = _git(folder, '--no-optional-locks', 'status', '--porcelain', *which)
    return {'commit': commit, 'clean': None if changes is None else changes == ''}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None where it fails."""
    try:
        done = subprocess.run(
            ['git', '-C', str(folder), *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _utc(seconds: float) -> str:
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds))
