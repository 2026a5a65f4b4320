"""What is to be predicted: files, folders, tables of clips, and windows over long ones."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmer_jax.files import links
from mmer_jax.media import MediaError, audio, video
from mmer_jax.media.textfile import read_table, read_text
from mmer_jax.readers import MEDIA, Clip, given, seconds

TEXT = '.txt'


def find_clips(
    paths: Sequence[Path], *, text: str | None = None, features: dict[str, Path] | None = None
) -> list[Clip]:
    """A clip for each file, and for each sound, video or text file below each folder; `text` alone is one too.

    features: {modality: a file, or a folder with one per clip}. ValueError where a folder holds none.
    """
    clips = []
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob('*') if p.suffix.lower() in (*MEDIA, TEXT) and p.is_file())
            files = [p for p in files if not p.name.startswith('.')]
            if outside := [p for p in files if links.leads_out(p, path)]:
                raise ValueError(f'{outside[0]} is {links.OUT}: nothing of it was read')
            if not files:
                raise ValueError(f'{path} holds no sound, video or text file ({", ".join((*MEDIA, TEXT))})')
            clips += [_of_file(p, str(p.relative_to(path)), text) for p in files]
        else:
            clips.append(_of_file(path, str(path), text))
    if not clips and (text is not None or features):
        clips = [Clip('text' if text is not None else 'features', None, text)]
    return [with_features(clip, features or {}, alone=len(clips) == 1) for clip in clips]


def find_to_enrol(paths: Sequence[Path], features: dict[str, Path]) -> list[Clip]:
    """The clips of a speaker that are known beforehand, with those of `features` that are folders; [] of none."""
    return find_clips(paths, features={m: place for m, place in features.items() if place.is_dir()}) if paths else []


def _of_file(path: Path, name: str, text: str | None) -> Clip:
    if path.suffix.lower() == TEXT and path.is_file():
        return Clip(name, None, read_text(path).strip())
    return Clip(name, path, text)


def read_clips(table: Path, media: Path | None, features: dict[str, Path] | None = None) -> list[Clip]:
    """The clips of a csv: path and optionally id, text, start, end; other columns are not read.

    Paths begin at `media`, by default the folder of the table. MediaError or ValueError names the line.
    """
    root, clips = media or table.parent, []
    for line, cells in read_table(table, expected='rows of path and optionally id,text,start,end'):
        path, text = cells.get('path', '').strip(), cells.get('text', '').strip()
        if not path and not text:
            raise ValueError(f'{table}, line {line}: neither a path nor a text; expected the columns path or text')
        start, end = (_seconds(table, line, name, cells.get(name, '')) for name in ('start', 'end'))
        name = cells.get('id', '').strip() or path or f'line {line}'
        if end is not None and end <= (start or 0):
            raise ValueError(f'{table}, line {line}: end {end:g} is not after start {start or 0:g}')
        clips.append(Clip(name, root / path if path else None, text or None, start or 0.0, end))
    return [with_features(clip, features or {}) for clip in clips]


def _seconds(table: Path, line: int, name: str, cell: str) -> float | None:
    try:
        return seconds(cell)
    except ValueError as error:
        raise ValueError(f'{table}, line {line}: {name} {error}') from None


def with_features(clip: Clip, features: dict[str, Path], *, alone: bool = False) -> Clip:
    """The clip with its files of features that were extracted elsewhere."""
    found = {}
    for m, place in features.items():
        if place.is_dir():
            path = given.find(place, clip)
        else:
            path = place if alone else None
        if path is not None:
            found[m] = path
    return dataclasses.replace(clip, given={**clip.given, **found})


def seconds_of(path: Path) -> float:
    """How long a sound or video file is."""
    try:
        info = video.read_info(path)
        return max(info.end, info.sound[1] if info.sound else 0.0)
    except MediaError as error:
        if error.reason != 'no video stream':
            raise
    samples, rate = audio.load_audio(path)
    return len(samples) / rate


def windows(clip: Clip, window: float, hop: float) -> Iterator[Clip]:
    """The clip cut into windows of `window` seconds, one every `hop`; the last one ends with the clip.

    A clip that is shorter than a window is one. Words have no times and are left out.
    """
    assert clip.path is not None
    total = (clip.end if clip.end is not None else seconds_of(clip.path)) - clip.start
    count = 1 + max(math.ceil((total - window) / hop - 1e-9), 0)
    for k in range(count):
        start = min(k * hop, max(total - window, 0.0))
        end = min(start + window, total)
        name = f'{clip.id} {clip.start + start:.2f}-{clip.start + end:.2f} s'
        yield dataclasses.replace(
            clip, id=name, start=round(clip.start + start, 6), end=round(clip.start + end, 6), text=None, given={}
        )
