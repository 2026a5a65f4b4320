"""Several files of one folder, written together: all are made before the first takes its name."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path


def write_together(folder: str | os.PathLike, files: Mapping[str, str | Callable[[Path], object]]) -> list[Path]:
    """Writes {name: its text, or what writes it into a path} into `folder`, and returns the paths.

    They are made in a hidden folder beside it. Where one of them fails nothing is changed; else a folder that was not
    there, or was empty, appears with all of them at once, and in another each replaces its older one.
    """
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f'.{folder.name}.{os.getpid()}.tmp')
    shutil.rmtree(hidden, ignore_errors=True)  # of a process of this number that was killed
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
