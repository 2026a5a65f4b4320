"""Several files of one folder, written together: all are made before the first takes its name."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from mmer_jax.files import atomic
from mmer_jax.files.locks import hold


def write_together(folder: str | os.PathLike, files: Mapping[str, str | Callable[[Path], object]]) -> list[Path]:
    """Writes {name: its text, or what writes it into a path} into `folder`, and returns the paths.

    They are made in a hidden folder beside it. Where one of them fails nothing is changed; else a folder that was not
    there, or was empty, appears with all of them at once, and in another each replaces its older one. InUse where
    another process is writing it.
    """
    folder = Path(os.path.abspath(folder))
    hidden = atomic.incomplete(folder)
    with hold(atomic.lock_of(folder), folder):
        shutil.rmtree(hidden, ignore_errors=True)  # of a process that was killed
        hidden.mkdir()
        try:
            for name, write in files.items():
                if isinstance(write, str):
                    (hidden / name).write_text(write, encoding='utf-8', newline='')
                else:
                    write(hidden / name)
            if not folder.exists() or not any(folder.iterdir()):
                os.replace(hidden, folder)
            for name in files if hidden.exists() else ():
                os.replace(hidden / name, folder / name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return [folder / name for name in files]
