"""The pictures of a clip: which frames, where the face is, how they are stored."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.schema import Feature, encode_frames
from mmer_jax.media import MediaError, faces, video
from mmer_jax.readers.clip import Clip, Reading

FRAME_CHOICES = {
    'even': 'spread evenly over the clip',
    'starts': 'at the beginning of equal parts of the clip',
    'consecutive': 'from the beginning on',
}
QUALITY = 95
NO_PICTURES = 'no video stream'  # MediaError.reason of a file with sound alone


@dataclasses.dataclass(frozen=True)
class Pictures:
    """`frames` RGB pictures of a clip, size x size, JPEG: number and size of CFN-SR by default.

    Each is from the middle of its part of the clip (`frame_choice` even). CFN-SR's code takes the frames at the
    beginning of the parts (starts) and crops by landmark tables; it shrinks a frame to 224 x 224 before it crops, here
    the face is cut out of the whole frame. Black pictures are missing.
    """

    frames: int = 30
    frame_choice: str = 'even'
    crop: str = 'none'
    size: int = 224
    quality: int = QUALITY
    min_face: int = 20

    modality = 'vision'

    def check(self) -> None:
        if self.crop == 'mtcnn':
            make_detector(self.min_face)

    def feature(self) -> Feature:
        frames = f'{self.frames} RGB frames {FRAME_CHOICES[self.frame_choice]}'
        description = f'{frames}, crop {self.crop!r}, JPEG quality {self.quality}'
        return Feature((None, self.size, self.size, 3), 'uint8', 'jpeg', description, optional=True)

    def read(self, clip: Clip) -> Reading:
        if clip.path is None:
            return Reading(None, missing='no file')
        try:
            frames, info = video.read_frames(clip.path, self.frames, self.frame_choice, start=clip.start, end=clip.end)
        except MediaError as error:
            if error.reason != NO_PICTURES:
                raise
            return Reading(None, missing='no pictures in the file', fault=error)
        columns = self._columns(info)
        if video.is_black(frames):
            return Reading(None, columns, 'black pictures')
        cropped, share = faces.crop_faces(
            frames,
            self.crop,
            self.size,
            path=clip.path,
            times=[time - info.start for time in info.timestamps],  # the tables count from the first picture
            landmarks=(clip.landmarks or clip.path.with_suffix('.csv')) if self.crop == 'landmarks' else None,
            detector=make_detector(self.min_face) if self.crop == 'mtcnn' else None,
        )
        return Reading(encode_frames(cropped, self.quality), {**columns, 'face_share': round(share, 4)})

    def _columns(self, info: video.VideoInfo) -> dict[str, Any]:
        """Frame rate, start and length in seconds, those of the file's own sound, distinct frames; no face yet."""
        columns: dict[str, Any] = {
            'video_fps': round(info.fps, 3),
            'video_start': round(info.start, 3),
            'video_duration': round(info.duration, 3),
        }
        if info.sound is not None:
            start, end = info.sound
            columns |= {'sound_start': round(start, 3), 'sound_duration': round(end - start, 3)}
        return {**columns, 'face_share': 0.0, 'distinct_frames': len(np.unique(info.timestamps))}


@functools.lru_cache(maxsize=1)
def make_detector(min_face: int) -> faces.Detector:
    """MTCNN, loaded once in every process."""
    from mmer_jax.media import mtcnn

    return dataclasses.replace(mtcnn.load(), min_size=min_face)


def has_pictures(path: Path) -> bool:
    """Whether a file has a video stream; False too where it cannot be opened, which its reading will say."""
    try:
        video.read_info(path)
    except MediaError:
        return False
    return True
