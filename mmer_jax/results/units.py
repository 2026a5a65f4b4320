"""What the test records of a run fall into for intervals and tests: speakers where they are known, else records.

Clips of one speaker are alike, so that records drawn one by one promise more than new speakers keep. What is drawn or
swapped as a whole is a unit. numpy only.
"""

import csv
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmer_jax.results.runs import Run

Fold = Mapping[str, np.ndarray]  # id (R,), label (R, ...), prediction (N, R, ...), and speaker (R,) where it is known


@dataclasses.dataclass(frozen=True)
class Units:
    """'speaker' or 'record', their number over all folds, and of each fold the unit of every record (R,)."""

    what: str
    count: int
    of_folds: tuple[np.ndarray, ...]

    def words(self) -> str:
        return f'{self.count:,} {self.what}s'


def units_of(folds: Sequence[Fold]) -> Units:
    """The speakers of all folds together, where each record has one and there are two or more; else the records."""
    sizes = [len(fold['id']) for fold in folds]
    ends = np.cumsum(sizes)[:-1]
    if all('speaker' in fold and (fold['speaker'] != '').all() for fold in folds):
        names, numbers = np.unique(np.concatenate([fold['speaker'] for fold in folds]), return_inverse=True)
        if len(names) > 1:
            return Units('speaker', len(names), tuple(np.split(numbers, ends)))
    return Units('record', sum(sizes), tuple(np.split(np.arange(sum(sizes)), ends)))


def drawn(units: Units, draws: int, keys: Sequence[bytes]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fold how often every draw holds every record (draws, R), and the weight of the fold in it (draws,).

    Speakers are drawn with replacement from those of all folds together, each with all its records (the bootstrap by
    clusters: Davison and Hinkley 1997, section 3.8); a fold weighs what its speakers were drawn, 1 on average. Records
    are drawn within their fold. keys: of each fold, the seeds; the same folds are drawn alike for every run.
    """
    if units.what == 'record':
        found = []
        for key, places in zip(keys, units.of_folds, strict=True):
            generator, size = _generator(key), len(places)
            times = np.stack([np.bincount(generator.integers(size, size=size), minlength=size) for _ in range(draws)])
            found.append((times, np.ones(draws)))
        return found
    chances = np.full(units.count, 1 / units.count)
    times = _generator(hashlib.sha256(b''.join(keys)).digest()).multinomial(units.count, chances, size=draws)
    return [(times[:, places], times[:, np.unique(places)].mean(1)) for places in units.of_folds]


def swaps(units: Units, draws: int, keys: Sequence[bytes]) -> tuple[np.ndarray, bool]:
    """(P, units) bool: which units are swapped between two runs; all ways where they are no more than `draws`, and
    whether these are all."""
    if 2**units.count <= draws:
        return (np.arange(2**units.count)[:, None] >> np.arange(units.count)) % 2 == 1, True
    generator = _generator(hashlib.sha256(b'swaps' + b''.join(keys)).digest())
    return generator.integers(2, size=(draws, units.count), dtype=bool), False


def _generator(key: bytes) -> np.random.Generator:
    return np.random.default_rng(np.frombuffer(key, np.uint32))


def speakers_of(path: Path, run: Run, ids: np.ndarray) -> np.ndarray | None:
    """The speaker of every record (R,) of predictions/test.npz: from that file, of an older run from the data's
    manifest.csv where it still lies at the config's place; None where neither knows them all."""
    with np.load(path) as arrays:
        if 'speaker' in arrays.files:
            return np.asarray(arrays['speaker']).astype(str)
    directory = str(run.config.get('data.directory') or '')
    if not directory or run.results['protocol'].startswith('other data'):
        return None
    known = _manifest(str(Path(directory) / 'manifest.csv'))
    return np.array([known[name] for name in ids.tolist()]) if set(ids.tolist()) <= set(known) else None


@functools.lru_cache(maxsize=8)
def _manifest(path: str) -> Mapping[str, str]:
    """id -> speaker; empty where the file is not there, or is no manifest."""
    if not Path(path).is_file():
        return {}
    try:
        with open(path, encoding='utf-8', newline='') as file:
            return {row['id']: row['speaker'] for row in csv.DictReader(file)}
    except (KeyError, UnicodeDecodeError, csv.Error):
        return {}
