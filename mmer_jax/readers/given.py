"""Features that other programs extracted: .npy, .npz, tables of OpenFace, openSMILE and others, one file per clip."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from mmer_jax.data.schema import Feature
from mmer_jax.files.npy import FAULTS, LIMIT_VARIABLE, check_npy, check_zip, largest, why
from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download
from mmer_jax.media.textfile import read_text
from mmer_jax.readers.clip import Clip, Reading

SUFFIXES = ('.npy', '.npz', '.csv')
MOST = 1 << 30  # bytes that one file of features may announce
# Columns of OpenFace and openSMILE that say when and how well, not what.
NOT_FEATURES = ('frame', 'face_id', 'timestamp', 'confidence', 'success', 'frametime', 'name', 'file', 'start', 'end')


@dataclasses.dataclass(frozen=True)
class Given:
    """`modality` from files: (T, size) or, where `is_vector`, (size,), float32; `columns` are those of its tables.

    A .npz holds one array. A .csv has a row per step under a row of names; columns that number, time or rate the rows
    are left out, rows that OpenFace calls a failure (`success` 0) too. `folder` is where preparation found them.
    """

    modality: str
    size: int
    is_vector: bool = False
    columns: tuple[str, ...] = ()
    folder: str = ''

    def check(self) -> None:
        return None

    def feature(self) -> Feature:
        shape = (self.size,) if self.is_vector else (None, self.size)
        return Feature(shape, description='features extracted elsewhere', optional=True)

    def read(self, clip: Clip) -> Reading:
        path = clip.given.get(self.modality)
        if path is None:
            return Reading(None, missing=f'no file of {self.modality} features')
        array, columns = read_features(path)
        if array.ndim == 2 and self.is_vector and len(array) == 1:
            array = array[0]  # a table of one row
        wanted = f'({self.size},)' if self.is_vector else f'(T, {self.size})'
        if array.ndim != (1 if self.is_vector else 2) or array.shape[-1] != self.size:
            raise MediaError(path, 'features of another shape', f'found {array.shape}, expected {wanted}')
        if columns and self.columns and columns != self.columns:
            first = next(f'{a} where {b} was' for a, b in zip(columns, self.columns, strict=True) if a != b)
            raise MediaError(path, 'features of other columns', f'{first}; expected {", ".join(self.columns[:4])} ...')
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise MediaError(path, 'features that are not finite', f'{count} of {array.size} are NaN or infinite')
        if not len(array) or not array.any():
            return Reading(None, missing='zeros' if len(array) else 'no steps')
        return Reading(np.ascontiguousarray(array, np.float32))


def like(modality: str, path: Path, folder: str | Path = '') -> Given:
    """The reader of files like this one."""
    array, columns = read_features(path)
    if array.ndim not in (1, 2):
        raise MediaError(path, 'features of another shape', f'found {array.shape}, expected (T, D) or (D,)')
    is_vector = array.ndim == 1 or (bool(columns) and len(array) == 1)
    return Given(modality, array.shape[-1], is_vector, columns, str(folder))


def find(folder: Path, clip: Clip) -> Path | None:
    """The file of a clip's features in a folder, by the first of its names that has one."""
    for name in clip.names():
        for suffix in SUFFIXES:
            path = folder / f'{name}{suffix}'
            if path.is_file() and folder.resolve() in path.resolve().parents:
                return path
    return None


def read_features(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """(float array, names of its columns where the file has them). MediaError in one line where it is no features."""
    suffix = path.suffix.lower()
    if suffix == '.csv':
        return _read_table(path)
    check_download(path, 'an array', **({'but': 'zip archive'} if suffix == '.npz' else {}))
    try:
        _check_announced(path)
        with open(path, 'rb') as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.lib.npyio.NpzFile):
                if len(found.files) != 1:
                    names = ', '.join(found.files[:5]) or 'none'
                    raise MediaError(path, 'not one array', f'it holds {len(found.files)} ({names}); expected one')
                found = found[found.files[0]]
    except FAULTS as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(path, 'no array can be read', f'{why(error)}; expected .npy or .npz of numbers') from error
    if found.dtype.kind not in 'fiu':
        raise MediaError(path, 'no array of numbers', f'found {found.dtype}, expected float or int')
    with np.errstate(over='ignore'):
        return found.astype(np.float32), ()


def _check_announced(path: Path) -> None:
    """ValueError where a .npy announces more than it holds, or a .npz would be larger than MOST when unpacked."""
    with open(path, 'rb') as file:
        if path.suffix.lower() == '.npz':
            check_zip(file, max(MOST, largest() if LIMIT_VARIABLE in os.environ else 0))
        else:
            check_npy(file, path.stat().st_size)


def _read_table(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    lines = [line for line in read_text(path, 'a table of features').splitlines() if line.strip()]
    if len(lines) < 2:
        raise MediaError(path, 'no features', f'{len(lines)} lines, expected names and a row per step')
    mark = ';' if lines[0].count(';') > lines[0].count(',') else ','
    names = [name.strip().strip('"\'') for name in lines[0].split(mark)]
    places = [place for place, name in enumerate(names) if name.lower() not in NOT_FEATURES]
    success = names.index('success') if 'success' in names else None
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line.split(mark)]
        if len(cells) != len(names):
            raise MediaError(
                path, 'a damaged table', f'line {number}: expected {len(names)} values, found {len(cells)}'
            )
        if success is not None and cells[success].strip() in ('0', '0.0'):
            continue
        try:
            rows.append([float(cells[place]) for place in places])
        except ValueError as error:
            raise MediaError(path, 'a value that is no number', f'line {number}: {error}') from error
    array = np.array(rows, np.float32).reshape(len(rows), len(places))
    return array, tuple(names[place] for place in places)
