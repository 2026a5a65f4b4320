"""Which folds a workdir holds, by number, name and folder, and which of them is meant."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmer_jax.data.folds import Fold
from mmer_jax.run.workdir import read_results


@dataclasses.dataclass(frozen=True)
class Place:
    """A fold of a workdir, whether it is trained or not: the number that --fold takes, its name and its folder."""

    number: int
    name: str
    folder: Path


def workdir_of(folder: str | Path) -> Path:
    """The workdir of a run from itself or from one of its fold folders; ValueError where it is neither."""
    folder = Path(folder)
    for parent in (folder, folder.parent):
        if folder.is_dir() and (parent / 'config.json').is_file():
            return parent
    raise ValueError(f'{folder} is no workdir: it has no config.json; give the --workdir of a finished run')


def planned(workdir: Path, folds: Mapping[str, Fold]) -> list[Place]:
    """The folds that a run on these data has, trained or not."""
    return [Place(k, name, workdir / name if len(folds) > 1 else workdir) for k, name in enumerate(folds)]


def places_of(workdir: Path) -> list[Place]:
    """The folds that a workdir holds, by number; of one split its name, '' where that is not known yet."""
    found = [path for path in workdir.glob('fold_*') if path.is_dir() and path.name[5:].isdecimal()]
    if found:
        return sorted((Place(int(path.name[5:]), path.name, path) for path in found), key=lambda place: place.number)
    results = workdir / 'results.json'
    return [Place(0, read_results(results)['rows'][0]['fold'] if results.is_file() else '', workdir)]


def choose(folder: Path, workdir: Path, places: Sequence[Place], fold: int | None, *, several: bool) -> Sequence[Place]:
    """The fold whose folder is given, the one numbered `fold`, or all; ValueError where that is none, or not one."""
    numbers = ', '.join(str(place.number) for place in places)
    if workdir != folder:
        chosen = [place for place in places if place.folder == folder]
        if not chosen:
            raise ValueError(f'{folder} is no fold of the run {workdir}; give {workdir}, and --fold if it has several')
        if fold not in (None, chosen[0].number):
            raise ValueError(f'{folder} is fold {chosen[0].number}: leave --fold {fold} out, or give {workdir}')
        return chosen
    if fold is not None:
        chosen = [place for place in places if place.number == fold]
        if not chosen:
            raise ValueError(f'{folder} has no fold {fold}; it has {numbers}')
        return chosen
    if len(places) > 1 and not several:
        raise ValueError(
            f'{folder} has the folds {numbers}: choose one with --fold, or give its folder, such as {places[0].folder}'
        )
    return places


def choose_trained(workdir: Path, parent: Path, fold: int | None) -> Sequence[Place]:
    """The finished folds of a run, or the one numbered or given, by its folder alone: its data are not opened."""
    places = places_of(parent)
    chosen = choose(workdir, parent, places, fold, several=True)
    check_trained(chosen, places, must_be_finished=True)
    return chosen


def check_trained(chosen: Sequence[Place], places: Sequence[Place], *, must_be_finished: bool) -> None:
    """ValueError where a chosen fold has no variables yet, or is unfinished and must be finished."""

    def is_begun(place: Place) -> bool:
        return (place.folder / 'results.json').is_file() or (place.folder / 'checkpoints').is_dir()

    for place in chosen:
        if must_be_finished and not (place.folder / 'results.json').is_file():
            raise ValueError(
                f'{place.folder} is unfinished: it has no results.json; train it to its end with the same command'
            )
        if not is_begun(place):
            begun = [str(other.number) for other in places if is_begun(other)]
            hint = f'choose another with --fold ({", ".join(begun)}), or train it' if begun else 'train first'
            raise ValueError(f'{place.folder} holds no trained fold; {hint}')
