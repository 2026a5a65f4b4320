"""What a reader is given and what it gives back."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mmer_jax.data.schema import Feature
from mmer_jax.media import MediaError

# Files of sound or pictures that are found by themselves, in a folder or by a clip's number.
MEDIA = (
    '.mp4', '.avi', '.mov', '.mkv', '.webm', '.flv', '.m4v', '.mpg', '.mpeg', '.wav', '.flac', '.mp3', '.m4a', '.ogg',
    '.opus', '.aac', '.aiff',
)  # fmt: skip


def seconds(cell: str) -> float | None:
    """The time in a cell of a table, None where it is empty. ValueError for anything but a number from 0 on."""
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f'{cell!r} is no time; expected seconds from 0 on')
    return value


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip as a user has it: a sound or video file, or the part of one from `start` to `end` seconds (None: to its
    end), words, features that were extracted elsewhere {modality: file}; any of them may be missing.

    `landmarks` is the table of the face in it, for pictures cropped by landmarks; by default the .csv beside the file.
    """

    id: str
    path: Path | None = None
    text: str | None = None
    start: float = 0.0
    end: float | None = None
    given: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    landmarks: Path | None = None

    def names(self) -> list[str]:
        """The names, without an ending, that its features may have: its id, with and without an ending, its path in
        one name, its file's name. A part of a file is not known by the name of the whole.
        """
        names = []
        for name in (self.id, str(Path(self.id).with_suffix('')) if Path(self.id).suffix.lower() in MEDIA else self.id):
            names += [name, name.replace('/', '_'), Path(name).name]
        if self.path is not None and not self.start and self.end is None:
            names.append(self.path.stem)
        return list(dict.fromkeys(names))


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader found of a clip: its array, or None and why it is `missing`; columns for the manifest.

    fault: what the file said where it has no such stream, for preparations whose clips must have it.
    """

    array: Any
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    missing: str = ''
    fault: MediaError | None = None


class Reader(Protocol):
    """A frozen dataclass, picklable; its fields are settings that JSON can hold."""

    @property
    def modality(self) -> str:
        """text, audio or vision: the key of the record."""

    def feature(self) -> Feature:
        """The schema's entry."""

    def read(self, clip: Clip) -> Reading:
        """The array of one clip. MediaError where a file of it is damaged, or is not what it should be."""

    def check(self) -> None:
        """Raises MediaError, FileNotFoundError or ValueError where what the settings name is not on this machine."""
