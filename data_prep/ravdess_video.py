"""The pictures of a RAVDESS clip: which frames, where the face is, how they are stored; data_prep.ravdess uses it."""

import argparse
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pool import PreparationError, Remark, compare_spans
from mmer_jax.data.records import Feature, encode_frames
from mmer_jax.media import faces, video
from mmer_jax.settings import command, ranges

FRAME_CHOICES = {
    'even': 'spread evenly over the clip',
    'starts': 'at the beginning of equal parts of the clip',
    'consecutive': 'from the beginning on',
}
QUALITY = 95


@dataclasses.dataclass(frozen=True)
class Vision:
    """How a clip becomes pictures: number and size of CFN-SR, each frame from the middle of its part of the clip.

    CFN-SR's code takes the frames at the beginning of the parts (`frame_choice='starts'`) and crops by landmark tables;
    it shrinks a frame to 224 x 224 before it crops, here the face is cut out of the whole frame.
    """

    frames: int = 30
    frame_choice: str = 'even'
    crop: str = 'none'
    size: int = 224
    quality: int = QUALITY
    min_face: int = 20


def make_feature(vision: Vision) -> Feature:
    """The schema's entry 'vision'."""
    frames = f'{vision.frames} RGB frames {FRAME_CHOICES[vision.frame_choice]}'
    description = f'{frames}, crop {vision.crop!r}, JPEG quality {vision.quality}'
    return Feature((None, vision.size, vision.size, 3), 'uint8', 'jpeg', description, optional=True)


def find_inputs(vision: Vision | None, folder: Path | None) -> dict[str, Path]:
    """FacialTracking tables below a folder, by the clip's name without its modality; {} where none is wanted.

    PreparationError where what the crop needs, these tables or the weights of MTCNN, is not there.
    """
    if vision is not None and vision.crop == 'mtcnn':
        try:
            make_detector(vision.min_face)
        except (FileNotFoundError, ValueError) as error:
            raise PreparationError(f'--crop mtcnn: {error}') from error
    if vision is None or vision.crop != 'landmarks':
        return {}
    if folder is None:
        raise command.WrongCall("--crop landmarks needs --landmarks DIR, the tables of RAVDESS's FacialTracking")
    if not folder.is_dir():
        raise PreparationError(f'--landmarks {folder} is no folder')
    tables = {path.stem[3:]: path for path in sorted(folder.rglob('*.csv')) if not path.name.startswith('.')}
    if not tables:
        raise PreparationError(f'--landmarks {folder} holds no .csv table; see https://zenodo.org/record/3255102')
    return tables


@functools.lru_cache(maxsize=1)
def make_detector(min_face: int) -> faces.Detector:
    """MTCNN, loaded once in every process."""
    from mmer_jax.media import mtcnn

    return dataclasses.replace(mtcnn.load(), min_size=min_face)


def read_pictures(
    path: Path, vision: Vision, landmarks: Mapping[str, Path]
) -> tuple[Any, dict[str, Any], list[Remark]]:
    """(Frames, manifest columns, remarks). MediaError where the file cannot be used; None for pictures all black.

    The columns: frame rate, start and length in seconds, those of the file's own sound, share of frames with a face,
    distinct frames.
    """
    frames, info = video.read_frames(path, vision.frames, vision.frame_choice)
    columns: dict[str, Any] = {
        'video_fps': round(info.fps, 3),
        'video_start': round(info.start, 3),
        'video_duration': round(info.duration, 3),
    }
    remarks = []
    if info.sound is not None:
        start, end = info.sound
        columns |= {'sound_start': round(start, 3), 'sound_duration': round(end - start, 3)}
        remarks = compare_spans(info.sound, (info.start, info.end))
    columns |= {'face_share': 0.0, 'distinct_frames': len(np.unique(info.timestamps))}
    if video.is_black(frames):
        return None, columns, remarks
    cropped, share = faces.crop_faces(
        frames,
        vision.crop,
        vision.size,
        path=path,
        times=[time - info.start for time in info.timestamps],  # the tables count from the first picture
        landmarks=landmarks.get(path.stem[3:], path.with_suffix('.csv')) if vision.crop == 'landmarks' else None,
        detector=make_detector(vision.min_face) if vision.crop == 'mtcnn' else None,
    )
    columns['face_share'] = round(share, 4)
    return encode_frames(cropped, vision.quality), columns, remarks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Vision()
    add = parser.add_argument
    add('--vision', choices=('none', 'frames'), default='none', help='what to store of the pictures')
    add('--frames', type=ranges.FRAMES, default=default.frames, help='frames a clip')
    add('--frame_choice', choices=tuple(FRAME_CHOICES), default=default.frame_choice, help='which frames of a clip')
    add('--crop', choices=faces.CROPS, default=default.crop, help='what of a frame to keep')
    add('--size', type=ranges.SIDE, default=default.size, help='height and width of the pictures stored')
    add('--quality', type=ranges.QUALITY, default=default.quality, help='of JPEG, 1 to 95')
    add('--min_face', type=ranges.FACE, default=default.min_face, help='pixels, the smallest face --crop mtcnn seeks')
    add('--landmarks', type=Path, help="folder with RAVDESS's FacialTracking tables, for --crop landmarks")
    add('--video_only', action='store_true', help='take files without sound (02-) too; with --features none')


def from_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Vision | None:
    """The settings asked for, None without --vision frames; parser.error where they make no sense."""
    if arguments.vision == 'none':
        if arguments.features == 'none':
            parser.error('--features none needs --vision frames: nothing would be stored')
        if arguments.video_only:
            parser.error('--video_only needs --vision frames and --features none')
        return None
    if arguments.video_only and arguments.features != 'none':
        parser.error(f'--video_only needs --features none: those files have no {arguments.features}')
    return Vision(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Vision)})


def report(rows: list[dict[str, Any]], vision: Vision) -> None:
    """Prints what the pictures of a prepared data set lack."""
    repeated = sum(row['distinct_frames'] < vision.frames for row in rows)
    if repeated:
        print(f'  with fewer than {vision.frames} frames of their own: {repeated} (see the column distinct_frames)')
    if vision.crop in ('landmarks', 'mtcnn'):
        shares = [row['face_share'] for row in rows]
        partly = sum(share < 1 for share in shares)
        print(
            f'  a face in {100 * np.mean(shares):.2f} % of all frames; {partly} clips have frames that borrowed a box'
        )
