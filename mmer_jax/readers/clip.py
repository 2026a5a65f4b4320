"""What a reader is given and what it gives back."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mmer_jax.data.schema import Feature
from mmer_jax.media import MediaError


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
