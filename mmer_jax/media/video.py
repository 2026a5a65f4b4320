"""Video files -> RGB frames, by their timestamps, one frame in memory at a time until it is wanted.

Everything goes by the time at which a frame is shown, never by its number: files from phones and screen recorders have
variable frame rates. A frame is shown from its timestamp until the next frame's. Time 0 is where the file's first sound
or picture begins, as in mmer_jax.media.audio: pictures that begin later than the sound begin later here too.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from mmer_jax.media import MediaError, announced
from mmer_jax.media.audio import AV_OPTIONS, check_file

__all__ = ['MediaError', 'VideoInfo', 'is_black', 'iterate_frames', 'read_frames', 'read_info']
CHOICES = ('even', 'starts', 'consecutive', 'all')
PLACES = {'even': 0.5, 'starts': 0.0}  # of a frame in its part of the span
ROUNDING = 1e-6  # seconds: timestamps are sums of rounded fractions
BLACK = 2  # of 255, at most, in every pixel: what a lossy coder leaves of black


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file says of its first video stream; height and width as shown, times in seconds.

    The first picture is shown at `start`, the last one until `end`, `duration` later; the sound of the file lies in
    `sound`, (start, end). `fps` is the mean rate. `rotation` is by how many degrees counter-clockwise the stored
    pictures are turned (a phone held upright: -90). `timestamps` are those of the frames that read_frames gives.
    """

    fps: float
    duration: float
    height: int
    width: int
    has_audio: bool
    rotation: int = 0
    timestamps: tuple[float, ...] = ()
    start: float = 0.0
    sound: tuple[float, float] | None = None

    @property
    def end(self) -> float:
        return self.start + self.duration


def is_black(frames: np.ndarray) -> bool:
    """Whether pictures uint8 (T, H, W, C) show nothing at all."""
    return bool(frames.max(initial=0) <= BLACK)


def read_frames(
    path: str | os.PathLike,
    count: int | None = None,
    how: str = 'even',
    *,
    start: float = 0.0,
    end: float | None = None,
    fps: float | None = None,
    max_side: int | None = None,
) -> tuple[np.ndarray, VideoInfo]:
    """Reads frames of [start, end) seconds, `end` None: to the end: (uint8 (T, H, W, 3) RGB, VideoInfo).

    how='even': `count` frames, shown in the middle of `count` equal parts of the span, of what of it has pictures; a
    span with fewer frames gives some twice. how='starts': those at the beginning of the parts. how='consecutive': the
    first `count` frames, or what there is. how='all': every frame, `count` None. `fps` resamples the last two to a
    fixed rate: the frames shown at start + k / fps, the first one also before it begins. `max_side` shrinks a frame
    whose longer side is larger, its aspect kept, as soon as it is decoded.

    Only the frames returned are held in memory. MediaError names the file and the fault (missing, empty, git-LFS
    pointer, no video stream, no frames, damaged, truncated, start beyond the end); ValueError: senseless arguments.
    """
    _check_arguments(count, how, start, end, fps, max_side)
    path = Path(path)
    info = read_info(path)
    if start >= info.end:
        raise _beyond(path, start, info.end)
    if how in PLACES:
        assert count is not None
        first, last = max(start, info.start), info.end if end is None else min(end, info.end)
        if first >= last:
            raise MediaError(path, 'no frames', f'none is shown between {start:g} and {end} s; widen the span')
        times = first + (np.arange(count) + PLACES[how]) / count * (last - first)
        shown = _shown_at(_decoded(path, start), iter(times.tolist()))
    else:
        shown = itertools.islice(_span(path, start, end, fps), count)
    arrays, timestamps, converted = [], [], _Converter(max_side)
    for time, frame in shown:
        arrays.append(converted(frame))
        timestamps.append(round(time, 6))
    if not arrays:
        raise MediaError(path, 'no frames', f'none is shown between {start:g} and {end} s; widen the span')
    info = dataclasses.replace(info, rotation=converted.rotation, timestamps=tuple(timestamps))
    if converted.rotation % 180:
        info = dataclasses.replace(info, height=info.width, width=info.height)
    return np.stack(arrays), info


def iterate_frames(
    path: str | os.PathLike,
    *,
    start: float = 0.0,
    end: float | None = None,
    fps: float | None = None,
    max_side: int | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Streams a file of any length: (time in seconds, uint8 (H, W, 3) RGB) of each frame of [start, end).

    Arguments and errors are those of read_frames(how='all'); one frame is in memory at a time.
    """
    _check_arguments(None, 'all', start, end, fps, max_side)
    converted = _Converter(max_side)
    for time, frame in _span(Path(path), start, end, fps):
        yield time, converted(frame)


def read_info(path: str | os.PathLike) -> VideoInfo:
    """Times and rate from the time stamps of the packets, which are read but not decoded; rotation stays 0.

    MediaError as read_frames, also where the file holds less than it says (announced.py).
    """
    path = Path(path)
    check_file(path)
    status = path.stat()
    return _read_info(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)  # the utterances of a dialog follow one another, and its file is long
def _read_info(path: Path, size: int, changed: int) -> VideoInfo:
    with _opened(path) as (container, stream):
        spans = announced.scan(path, container)
        span = spans.get(stream.index)
        if span is None or not span.packets:
            raise MediaError(path, 'no frames', 'its video stream is empty; copy or download it again')
        duration, rate = span.end - span.start, float(stream.guessed_rate or 25)
        sounds = [spans[other.index] for other in container.streams.audio if spans[other.index].packets]
        return VideoInfo(
            fps=round(span.packets / duration, 6) if duration else rate,
            duration=duration or 1 / rate,
            height=stream.codec_context.height,
            width=stream.codec_context.width,
            has_audio=bool(container.streams.audio),
            start=max(span.start, 0.0),
            sound=(max(sounds[0].start, 0.0), sounds[0].end) if sounds else None,
        )


def _check_arguments(
    count: int | None, how: str, start: float, end: float | None, fps: float | None, max_side: int | None
) -> None:
    if how not in CHOICES:
        raise ValueError(f'how={how!r} is unknown; the known ones are {", ".join(CHOICES)}')
    if (how == 'all') != (count is None) or (count is not None and count < 1):
        raise ValueError(f"count must be 1 or more, and None for how='all' alone; found {count} with how={how!r}")
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f'expected 0 <= start < end (seconds), found {start} and {end}')
    if fps is not None and (fps <= 0 or how in PLACES):
        raise ValueError(f'fps must be positive and cannot go with how={how!r}, found {fps}')
    if max_side is not None and max_side < 1:
        raise ValueError(f'max_side must be 1 or more, found {max_side}')


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """(container, first video stream); what FFmpeg finds wrong meanwhile becomes a MediaError."""
    check_file(path)
    try:
        with av.open(str(path), **AV_OPTIONS) as container:
            if not container.streams.video:
                kinds = ', '.join(stream.type for stream in container.streams) or 'no stream at all'
                raise MediaError(path, 'no video stream', f'found {kinds}; use the version of the clip with pictures')
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        detail = f'damaged or not a media file ({error}); copy or download it again'
        raise MediaError(path, 'cannot be decoded', detail) from error


def _beyond(path: Path, start: float, duration: float) -> MediaError:
    return MediaError(path, 'start beyond the end', f'start {start:g} s, but the video is {duration:.3f} s long')


def _decoded(path: Path, start: float) -> Iterator[tuple[float, float, Any]]:
    """(time, seconds it is shown by its own account, frame), from the last key frame before `start` on."""
    with _opened(path) as (container, stream):
        base, rate = float(stream.time_base), float(stream.average_rate or stream.guessed_rate or 25)
        origin = announced.origin(container)
        if start > 1:
            with contextlib.suppress(av.FFmpegError):  # a format that cannot seek is decoded from its beginning
                container.seek(int((start + origin) / base), stream=stream)
        time = -1 / rate
        for frame in container.decode(stream):
            time = time + 1 / rate if frame.time is None else frame.time - origin
            if frame.is_corrupt and time >= start:
                raise MediaError(path, 'cannot be decoded', f'damaged at {time:.3f} s; copy or download it again')
            yield time, (frame.duration or 0) * base or 1 / rate, frame


def _shown_at(frames: Iterator[tuple[float, float, Any]], times: Iterator[float]) -> Iterator[tuple[float, Any]]:
    """(its time, frame) of the frame shown at each of the increasing times; ends with the times or the frames."""
    current, following = next(frames, None), next(frames, None)
    for time in times:
        while following is not None and following[0] <= time + ROUNDING:
            current, following = following, next(frames, None)
        if current is None or (following is None and time >= current[0] + current[1] - ROUNDING):
            return
        yield current[0], current[2]


def _span(path: Path, start: float, end: float | None, fps: float | None) -> Iterator[tuple[float, Any]]:
    """(time, frame) of the frames of [start, end), or of those shown every 1 / fps seconds."""
    stop = float('inf') if end is None else end
    frames, empty = _decoded(path, start), True
    if fps is not None:
        times = itertools.takewhile(lambda time: time < stop - ROUNDING, (start + k / fps for k in itertools.count()))
        pairs = _shown_at(frames, times)
    else:
        pairs = ((time, frame) for time, _, frame in frames if time >= start - ROUNDING)
    for time, frame in itertools.takewhile(lambda pair: pair[0] < stop - ROUNDING, pairs):
        empty = False
        yield time, frame
    if empty and end is None:
        raise _beyond(path, start, read_info(path).end)


class _Converter:
    """A decoded frame -> uint8 (H, W, 3), turned upright, shrunk; the same frame twice is converted once."""

    def __init__(self, max_side: int | None):
        self.max_side, self.rotation = max_side, 0
        self._last: tuple[Any, np.ndarray] | None = None

    def __call__(self, frame: Any) -> np.ndarray:
        if self._last is not None and self._last[0] is frame:
            return self._last[1]
        self.rotation = frame.rotation
        longest = max(frame.width, frame.height)
        if self.max_side is not None and longest > self.max_side:
            sizes = {k: max(round(getattr(frame, k) * self.max_side / longest), 1) for k in ('width', 'height')}
            array = frame.to_ndarray(format='rgb24', interpolation='AREA', **sizes)
        else:
            array = frame.to_ndarray(format='rgb24')
        array = np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90)))
        self._last = (frame, array)
        return array
