"""The flags of pictures, and where RAVDESS has the landmarks of a clip; data_prep.ravdess and crema_d use it."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pool import PreparationError, Remark, compare_spans
from mmer_jax.media import faces
from mmer_jax.readers import Clip, Pictures
from mmer_jax.readers.pictures import FRAME_CHOICES, make_detector
from mmer_jax.settings import command, ranges

Vision = Pictures


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


def read_pictures(
    path: Path, vision: Vision, landmarks: Mapping[str, Path]
) -> tuple[Any, Mapping[str, Any], list[Remark]]:
    """(Frames, manifest columns, remarks). MediaError where the file cannot be used; None for pictures all black.

    The columns: frame rate, start and length in seconds, those of the file's own sound, share of frames with a face,
    distinct frames.
    """
    found = vision.read(Clip(path.stem, path, landmarks=landmarks.get(path.stem[3:])))
    if found.fault is not None:
        raise found.fault
    columns, remarks = found.columns, []
    if 'sound_start' in columns:
        spans = [(columns[f'{m}_start'], columns[f'{m}_start'] + columns[f'{m}_duration']) for m in ('sound', 'video')]
        remarks = compare_spans(*spans)
    return found.array, columns, remarks


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
