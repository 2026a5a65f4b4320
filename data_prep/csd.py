"""Computational sequences (.csd) of the CMU-MultimodalSDK, and its standard folds.

A .csd file is HDF5 and holds one kind of feature for all videos of a data set:

    /<root>/data/<video id>/features     (T, D) numbers, or (T, 1) words as bytes
    /<root>/data/<video id>/intervals    (T, 2) start and end of each step, seconds from the start of the video
    /<root>/metadata/<key>               JSON strings, not read here: in published files some are no JSON at all

Source: Zadeh et al. 2018, https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK.
"""

import ast
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pool import PreparationError
from mmer_jax.files.npy import LIMIT_VARIABLE, largest
from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download
from mmer_jax.media.textfile import decode_word, read_json, read_text

try:
    import h5py
except ImportError:  # told where a file is opened
    h5py = None

EXPECTED = 'a computational sequence (.csd), which is HDF5'
LAYOUT = 'expected /<root>/data/<video id>/{features, intervals}'
NO_TIMES = np.zeros((0, 2))
AGAIN = 'copy or download it again'
REFUSED = 'nothing of it was read: get the file from its publisher, or copy the data into it'
RATIO = 1100  # bytes announced per byte stored: the most that HDF5's compression reaches is 1032
FOLDS = {'standard_train_fold': 'train', 'standard_valid_fold': 'validation', 'standard_test_fold': 'test'}


class Sequence:
    """One .csd file, read a video at a time; use it in a `with` statement.

    MediaError, which names the file and the video, where it is not what the layout says: not HDF5, truncated, no
    data group, features or intervals missing or of another shape.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        check_download(self.path, EXPECTED)
        if h5py is None:
            raise ImportError(f"{self.path}: reading it needs h5py, the extra csd: pip install 'mmer_jax[csd]'")
        try:
            self._file = h5py.File(self.path, 'r', locking=False)  # some network folders cannot lock
        except OSError as error:
            reason = 'truncated' if 'truncated' in str(error) else 'not an HDF5 file'
            raise MediaError(self.path, reason, f'expected {EXPECTED} ({error}); {AGAIN}') from error
        try:
            with self._readable(''):
                self.root, self._data = self._find_data()
                self.videos: tuple[str, ...] = tuple(self._data)
                if not self.videos:
                    raise MediaError(self.path, 'no videos', f'/{self.root}/data is empty; {AGAIN}')
                described = [self._describe(self.videos[0])]
                for video in self.videos[1:]:
                    if described[-1][0][0]:  # a video without steps says nothing about the others
                        break
                    described.append(self._describe(video))
                shape, dtype = described[-1]
        except BaseException:
            self._file.close()
            raise
        self.is_text = dtype.kind in 'SUO'
        self.size = 1 if len(shape) == 1 else shape[1]

    @contextlib.contextmanager
    def _readable(self, place: str) -> Iterator[None]:
        """Turns what HDF5 raises on damaged bytes into a MediaError."""
        try:
            yield
        except (OSError, RuntimeError, KeyError) as error:
            raise MediaError(self.path, 'damaged', f'{place or "the file"}: {error}; {AGAIN}') from error

    def _find_data(self) -> tuple[str, 'h5py.Group']:
        self._check_links('', self._file)
        roots = [name for name, node in self._file.items() if isinstance(node, h5py.Group)]
        for name in roots:
            self._check_links(f'/{name}', self._file[name])
        found = [name for name in roots if isinstance(self._file[name].get('data'), h5py.Group)]
        if len(found) != 1:
            has = ', '.join(self._file) or 'nothing'
            raise MediaError(self.path, 'not a computational sequence', f'{LAYOUT}; the file has at its top: {has}')
        data = self._file[found[0]]['data']
        self._check_links(f'/{found[0]}/data', data)
        return found[0], data

    def _describe(self, video: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of a video's features, checked against its intervals."""
        where = f'/{self.root}/data/{video}'
        node = self._data.get(video)
        if isinstance(node, h5py.Group):
            self._check_links(where, node)
        members = dict(node.items()) if isinstance(node, h5py.Group) else {}
        for name in ('features', 'intervals'):
            if not isinstance(members.get(name), h5py.Dataset):
                raise MediaError(self.path, f'{name} missing', f'{where} has {sorted(members)}; {LAYOUT}')
        shape, times = members['features'].shape, members['intervals'].shape
        fits = times == (shape[0], 2) if shape and shape[0] else 0 in times[:1]
        if len(shape) not in (1, 2) or not fits:
            found = f'{where} has features {shape} and intervals {times}'
            raise MediaError(self.path, 'features and intervals do not fit', f'{found}, expected (T, D) and (T, 2)')
        for name, kinds in (('features', 'fiuSUO'), ('intervals', 'fiu')):
            if members[name].dtype.kind not in kinds:
                found = (
                    f'{where}/{name} holds {members[name].dtype}, expected numbers{" or words" * (name == "features")}'
                )
                raise MediaError(self.path, 'values of another kind', found)
            self._check_stored(f'{where}/{name}', members[name])
        return shape, members['features'].dtype

    def _check_stored(self, where: str, array: 'h5py.Dataset') -> None:
        """What an array announces lies in this file, and is not made out of nothing."""
        if array.is_virtual or array.external:
            raise MediaError(self.path, 'data outside the file', f'{where} reads other files; {REFUSED}')
        announced, stored = int(array.nbytes), int(array.id.get_storage_size())
        if announced > RATIO * stored:
            found = f'{where} {array.shape} announces {announced} bytes, {stored} are stored'
            raise MediaError(self.path, 'announces more than it holds', f'{found}, expected {RATIO} for one at most')
        if announced > largest():
            found = f'{where} {array.shape} has {announced} bytes, expected {largest()} at most'
            raise MediaError(self.path, 'too large', f'{found}; {LIMIT_VARIABLE}=BYTES allows more')

    def _check_links(self, place: str, group: 'h5py.Group') -> None:
        """Every member of a group lies in this file."""
        for name in group:
            if isinstance(link := group.get(name, getlink=True), h5py.ExternalLink):
                found = f'{place}/{name} is a link to another file ({str(link.filename)[:100]})'
                raise MediaError(self.path, 'data outside the file', f'{found}; {REFUSED}')

    def __enter__(self) -> 'Sequence':
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __contains__(self, video: str) -> bool:
        with self._readable(f'/{self.root}/data/{video}'):
            return video in self._data

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """(features, intervals) of one video, in the order of the file.

        Features are float32 (T, D) and may hold NaN or infinite values; words are str (T,). Intervals are float64
        (T, 2), seconds. KeyError where the file does not have the video.
        """
        if video not in self:
            raise KeyError(f'{self.path} has no video {video!r}')
        with self._readable(f'/{self.root}/data/{video}'):
            shape, dtype = self._describe(video)
            features, intervals = (self._data[video][name][()] for name in ('features', 'intervals'))
        if not len(features):
            return np.zeros((0,) if self.is_text else (0, self.size), str if self.is_text else np.float32), NO_TIMES
        size = 1 if len(shape) == 1 else shape[1]
        if (dtype.kind in 'SUO') != self.is_text or size != self.size or (self.is_text and size != 1):
            found = f'/{self.root}/data/{video}/features is {shape} {dtype}'
            kind = 'words (T, 1)' if self.is_text else f'numbers (T, {self.size})'
            raise MediaError(self.path, 'features of another shape', f'{found}, expected {kind}')
        if self.is_text:
            words = [decode_word(word) if isinstance(word, bytes) else str(word) for word in features.ravel()]
            return np.array([word.strip() for word in words], dtype=str), intervals.astype(np.float64)
        with np.errstate(over='ignore'):  # too large for float32 becomes infinite, and is counted as such
            return features.reshape(len(features), size).astype(np.float32), intervals.astype(np.float64)


def segment(features: np.ndarray, intervals: np.ndarray, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a video that fall in [start, end]: (features (T', ...), times float64 (T', 2)).

    The rule is that of the SDK's `align`: a step belongs to a segment where their intervals **overlap** for some
    time, so a step on the border of two segments is in both. A step without duration belongs where
    start <= time < end. Steps come in the order of their start, whatever the order of the file, and may overlap one
    another. Times are seconds from the start of the segment, cut to it as the SDK does. Steps whose times are NaN or
    infinite are in no segment.
    """
    first, last = intervals[:, 0], intervals[:, 1]
    overlaps = (first < end) & (last > start)
    instants = (first == last) & (start <= first) & (first < end)
    chosen = np.flatnonzero((overlaps | instants) & np.isfinite(intervals).all(axis=1))
    chosen = chosen[np.argsort(first[chosen], kind='stable')]
    return features[chosen], np.clip(intervals[chosen], start, end) - start


def read_folds(path: str | os.PathLike) -> dict[str, str]:
    """The standard split: {video id: 'train', 'validation' or 'test'}.

    Reads JSON with the lists standard_train_fold, standard_valid_fold and standard_test_fold, or the SDK's own
    cmu_mosei_std_folds.py and its like, which assign these lists (parsed, never run). PreparationError where a list
    is missing or a video stands twice.
    """
    path = Path(path)
    try:
        expected = f'the lists {", ".join(FOLDS)}'
        lists = _assignments(read_text(path, expected)) if path.suffix == '.py' else read_json(path, expected)
    except SyntaxError as error:
        raise PreparationError(f'{path}, line {error.lineno}: no folds file of the SDK ({error.msg})') from error
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, MediaError):
            raise
        raise PreparationError(f'{path} is neither JSON nor a folds file of the SDK: {error}') from error
    splits: dict[str, str] = {}
    for key, split in FOLDS.items():
        videos = lists.get(key) if isinstance(lists, dict) else None
        if not isinstance(videos, list) or not videos or not all(isinstance(video, str) for video in videos):
            has = ', '.join(map(str, lists)) if isinstance(lists, dict) else type(lists).__name__
            raise PreparationError(f'{path} has no list of video ids {key!r} (it has: {has}); expected {list(FOLDS)}')
        for video in videos:
            if video in splits:
                raise PreparationError(f'{path}: video {video!r} is in {splits[video]} and in {split}; expected once')
            splits[video] = split
    return splits


def _assignments(source: str) -> dict[str, Any]:
    values = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in FOLDS:
            values[node.targets[0].id] = ast.literal_eval(node.value)
    return values
