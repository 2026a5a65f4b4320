"""A finished run without what only training needs: the optimiser's state, and the checkpoint before the last.

What evaluation, extraction, prediction and warm starts read is the variables that validation chose; they stay as they
are, byte for byte.
"""

import json
import shutil
from pathlib import Path

from mmer_jax.files import replace
from mmer_jax.run.checkpoint import STATE, SUMS
from mmer_jax.run.places import places_of, workdir_of
from mmer_jax.run.workdir import alone, read_results

DROPPED = '.dropped'  # what is being removed is called so first, so that a kill leaves nothing that looks whole


def prune(workdir: str | Path) -> tuple[int, int]:
    """Bytes of a run's folder before and after. Again it changes nothing.

    ValueError where it is no run, is unfinished, or is being written. A run that was pruned is never trained on.
    """
    workdir = Path(workdir)
    if workdir_of(workdir) != workdir:
        raise ValueError(f'{workdir} is one fold of {workdir.parent}: give the run, of which all folds are pruned')
    places = places_of(workdir)
    for folder in dict.fromkeys([workdir, *(place.folder for place in places)]):
        if not (folder / 'results.json').is_file():
            raise ValueError(
                f'{folder} is unfinished: it has no results.json, and needs its optimiser state to go on; train it to '
                'its end with the same command'
            )
        read_results(folder / 'results.json')
    before = size_of(workdir)
    with alone(workdir, [place.name for place in places]):
        for place in places:
            _prune_fold(place.folder / 'checkpoints')
    return before, size_of(workdir)


def _prune_fold(checkpoints: Path) -> None:
    steps = sorted((path for path in checkpoints.glob('*') if path.name.isdecimal()), key=lambda path: int(path.name))
    if not steps:
        raise ValueError(f'{checkpoints} holds no checkpoint: bring it back, or remove results.json and train again')
    for old in steps[:-1]:
        _remove(old)
    newest = steps[-1]
    sums = newest / SUMS
    if sums.is_file():
        kept = {name: value for name, value in json.loads(sums.read_bytes()).items() if Path(name).parts[0] != STATE}
        replace(sums, json.dumps(kept).encode())
    if (newest / STATE).is_dir():
        _remove(newest / STATE)
    for left in checkpoints.rglob(f'*{DROPPED}'):  # by a prune that was killed
        shutil.rmtree(left)


def _remove(folder: Path) -> None:
    dropped = folder.with_name(f'.{folder.name}{DROPPED}')
    folder.rename(dropped)
    shutil.rmtree(dropped)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
