"""Frames -> square face crops: by tracked landmarks, by MTCNN, by the middle of the frame, or as they are.

Boxes are (x1, y1, x2, y2) in pixels of the frame, NaN where no face was found. Such a frame takes the box of the
nearest frame that has one, and the share of frames with a face of their own is given back, to be recorded; a clip
without any face is a MediaError. The middle of the frame never stands in for a face.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mmer_jax.media import MediaError
from mmer_jax.media.textfile import read_rows

CROPS = ('none', 'center', 'landmarks', 'mtcnn')
TRACKED_SIZE = (1280, 720)  # width and height of the video that RAVDESS's landmarks were tracked in
LANDMARKS = 68
POINTS = tuple(f'{axis}_{number}' for axis in 'xy' for number in range(LANDMARKS))  # X_ and Y_ are the 3-D points
CONFIDENT = 0.5  # least confidence of a face in tables without `success`; OpenFace gives .9 and more to one it sees
NEAREST = 0.2  # seconds; a tracked row further from a frame does not speak for it
DETECTION_SIDE = 640  # pixels; faces are looked for in frames shrunk to this longer side, and cut out of the whole ones
SMALLEST = 2.0  # pixels; a box with a shorter side inside the frame is no face


class Detector(Protocol):
    """What finds faces, such as mmer_jax.media.mtcnn.Mtcnn."""

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """uint8 (T, H, W, 3) -> for each frame (N, 5): box and probability, the face to take first."""


def crop_faces(
    frames: np.ndarray,
    crop: str,
    size: int = 224,
    *,
    path: str | os.PathLike,
    times: Sequence[float] = (),
    landmarks: str | os.PathLike | None = None,
    detector: Detector | None = None,
) -> tuple[np.ndarray, float]:
    """uint8 (T, H, W, 3) -> (uint8 (T, size, size, 3), share of the frames in which a face was found).

    crop='none' resizes whole frames, 'center' their largest square in the middle; both find nothing, the share is 1.
    'landmarks' takes the box around the 68 points of the table `landmarks` at the row nearest to each of `times`
    (T,), in seconds; 'mtcnn' the largest face that `detector` sees. Sides are not made equal: a box is stretched to
    the square, as CFN-SR's code does. MediaError names `path` where no frame has a face, or the table is not usable.
    """
    if crop not in CROPS:
        raise ValueError(f'crop {crop!r} is unknown; the known ones are {", ".join(CROPS)}')
    height, width = frames.shape[1:3]
    if crop in ('none', 'center'):
        side = min(height, width)
        whole = np.array([0, 0, width, height]) if crop == 'none' else _square(width / 2, height / 2, side)
        return resize_boxes(frames, np.tile(whole, (len(frames), 1)), size), 1.0
    if crop == 'landmarks':
        if landmarks is None:
            raise ValueError("crop 'landmarks' needs the table of the clip's landmarks")
        boxes = landmark_boxes(landmarks, times, height, width)
    else:
        if detector is None:
            raise ValueError("crop 'mtcnn' needs a detector (mmer_jax.media.mtcnn)")
        boxes = _detect(frames, detector)
    boxes, has_face = fill_missing(_inside(boxes, height, width))
    if not has_face.any():
        raise MediaError(path, 'no face found', f'crop {crop!r} found none in {len(frames)} frames; look at the clip')
    return resize_boxes(frames, boxes, size), float(has_face.mean())


def _detect(frames: np.ndarray, detector: Detector) -> np.ndarray:
    """The box (T, 4) of the first face that the detector names in each frame."""
    height, width = frames.shape[1:3]
    scale = min(DETECTION_SIDE / max(height, width), 1.0)
    seen = frames
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        seen = np.stack([np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BILINEAR)) for x in frames])
    boxes = [faces[0, :4] if len(faces) else np.full(4, np.nan) for faces in detector.detect(seen)]
    return np.stack(boxes) * np.tile([width / seen.shape[2], height / seen.shape[1]], 2)


def _square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def _inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (T, 4) cut at the frame's border; what is left of less than SMALLEST pixels becomes NaN."""
    boxes = np.clip(boxes.astype(np.float64), 0, [width, height, width, height])
    with np.errstate(invalid='ignore'):
        small = ((boxes[:, 2:] - boxes[:, :2]) < SMALLEST).any(1)
    return np.where(small[:, None], np.nan, boxes)


def fill_missing(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 4) with NaN -> (boxes without NaN, found (T,) bool): the box of the nearest frame, the earlier of two."""
    has_face = ~np.isnan(boxes).any(1)
    known = np.flatnonzero(has_face)
    if not len(known):
        return boxes, has_face
    distance = np.abs(np.arange(len(boxes))[:, None] - known)
    return boxes[known[distance.argmin(1)]], has_face


def resize_boxes(frames: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Cuts boxes (T, 4), rounded to whole pixels, out of frames: uint8 (T, size, size, 3), bilinear, antialiased."""
    resized = [
        Image.fromarray(frame[top:bottom, left:right]).resize((size, size), Image.Resampling.BILINEAR)
        for frame, (left, top, right, bottom) in zip(frames, boxes.round().astype(int), strict=True)
    ]
    return np.stack([np.asarray(picture) for picture in resized])


def landmark_boxes(path: str | os.PathLike, times: Sequence[float], height: int, width: int) -> np.ndarray:
    """Boxes (T, 4) around the tracked landmarks at `times`, in pixels of frames of this height and width."""
    seconds, boxes = read_landmarks(path)
    nearest = np.abs(np.asarray(times)[:, None] - seconds).argmin(1)
    chosen = boxes[nearest] * np.tile([width / TRACKED_SIZE[0], height / TRACKED_SIZE[1]], 2)
    far = np.abs(seconds[nearest] - np.asarray(times)) > NEAREST
    return np.where(far[:, None], np.nan, chosen)


def read_landmarks(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """A table of OpenFace, such as RAVDESS's FacialTracking (zenodo 3255102): (seconds (R,), boxes (R, 4) in pixels).

    Columns are found by their names in the first row, in any order, blanks around them apart: `timestamp`, x_0 .. x_67
    and y_0 .. y_67. A row whose `success` is 0 has no face (NaN); in a table without that column, as RAVDESS's, one
    whose `confidence` is below 0.5. MediaError where the table is missing, or a column or a number of it.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(path, 'no landmarks', 'the table of the clip is missing')
    try:
        rows = read_rows(path, 'a table of landmarks', skip_spaces=True)
    except MediaError as error:
        raise MediaError(path, 'landmarks cannot be read', f'{error.reason}; {error.detail}') from error
    names = [name.strip() for name in rows[0][1]] if rows else []
    places = _find_columns(path, names)
    if len(rows) < 2:
        raise MediaError(path, 'landmarks cannot be read', 'no row behind the names of the columns')
    table = np.array([_read_numbers(path, line, row, places) for line, row in rows[1:]])
    seconds, sure = table[:, 0], table[:, -1]
    if not np.isfinite(seconds).all():
        line = rows[1 + int(np.argmin(np.isfinite(seconds)))][0]
        raise MediaError(path, 'landmarks cannot be read', f'line {line}: the timestamp is no finite number')
    x, y = table[:, 1 : 1 + LANDMARKS], table[:, 1 + LANDMARKS : 1 + 2 * LANDMARKS]
    boxes = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1)
    if 'success' in places:
        boxes[sure == 0] = np.nan
    elif 'confidence' in places:
        boxes[sure < CONFIDENT] = np.nan
    return seconds, boxes


def _find_columns(path: Path, names: list[str]) -> dict[str, int]:
    """{name: its place} of `timestamp`, the landmarks and, last, what says whether a face is there, if anything."""
    needed = ('timestamp', *POINTS)
    absent = [name for name in needed if name not in names]
    if absent:
        first = ', '.join(map(repr, names[:4])) or 'nothing'
        found = f'{len(absent)} of them are missing, such as {absent[0]!r}; it has {len(names)}, first {first}'
        expected = 'expected the columns timestamp, x_0 .. x_67 and y_0 .. y_67'
        raise MediaError(path, 'landmarks cannot be read', f'{expected}; {found}')
    twice = [name for name in needed if names.count(name) > 1]
    if twice:
        raise MediaError(path, 'landmarks cannot be read', f'the column {twice[0]!r} stands there twice')
    says = next((name for name in ('success', 'confidence') if name in names), None)
    return {name: names.index(name) for name in (*needed, *([says] if says else []))}


def _read_numbers(path: Path, line: int, row: list[str], places: dict[str, int]) -> list[float]:
    numbers = []
    for name, place in places.items():
        try:
            numbers.append(float(row[place]))
        except (IndexError, ValueError) as error:
            found = repr(row[place]) if place < len(row) else f'a row of {len(row)} values'
            detail = f'line {line}: {name} should be a number, found {found}'
            raise MediaError(path, 'landmarks cannot be read', detail) from error
    return numbers
