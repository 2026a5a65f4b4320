"""CREMA-D -> record shards with each clip's pictures and the mel spectrogram of its sound, drawn as pictures too.

    python -m data_prep.crema_d --source CREMA-D --output data/crema_d_2d
    python -m data_prep.crema_d --source CREMA-D --output data/crema_d_3d --layout 3d
    python -m data_prep.crema_d --source CREMA-D --output data/crema_d_videomae --layout 3d \\
        --frames 32 --fill repeat --vision_width 208 --audio_width 16
    python -m data_prep.crema_d human --tables CREMA-D

Both layouts are those of the shared-encoder report. 2d: the middle frame, cut to the face, and the spectrogram of the
whole clip as one picture. 3d: the frames at 24 a second, whole, and the spectrogram cut into a strip for each frame;
a clip with more than --frames gives that many, evenly spread, a shorter one is filled up as --fill says. Pictures and
sound are stored apart; models join them. --vision_width 208 --audio_width 16 are the report's sizes for VideoMAE,
which joins a frame and its strip to a square of 224.

The label is the emotion that the actor was asked for, or with --labels voted the one most raters chose. All votes, and
the actor's age, sex, race and ethnicity, are in the manifest. Nothing is split here: protocols.py makes the folds.
`human` prints how often single human votes name the intended emotion. The folder: data_prep/crema_d_layout.py.
"""

import argparse
import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep import crema_d_layout as layout
from data_prep import ravdess_video
from data_prep.pool import (
    PreparationError,
    Remark,
    Skipped,
    compare_spans,
    missing,
    nothing_usable,
    process,
    run_command,
    summary,
)
from mmer_jax.data.records import Feature, Label, RecordWriter, Schema, encode_frames
from mmer_jax.media import MediaError, audio, faces, spectrogram_image, video
from mmer_jax.readers.pictures import QUALITY, make_detector
from mmer_jax.settings import ranges

CHOICES = {
    'layout': ('2d', '3d'),
    'labels': ('intended', 'voted'),
    'voted_by': tuple(layout.SEEN.values()),
    'crop': ('none', 'center', 'mtcnn'),
    'color': ('rgb', 'grey'),
    'fill': ('blank', 'repeat', 'none'),
    'strips': ('stored', 'frames'),
    'encoding': ('jpeg', 'raw'),
}
SAMPLE_RATE, N_FFT, HOP_LENGTH, FPS = 22050, 2048, 512, 24.0
LONGEST = 30.0  # seconds; the clips have 1.3 to 5, and all frames of one are in memory at a time
LEAST_SHARE = (
    1 / 3
)  # of the sound's length that the pictures last in a clip that was not cut; the real ones differ little


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a clip becomes pictures; the defaults are the report's 2-D ones. A width of 0 is `size`."""

    layout: str = '2d'
    labels: str = 'intended'
    voted_by: str = 'both'
    crop: str = 'mtcnn'
    color: str = 'rgb'
    size: int = 224
    vision_width: int = 0
    audio_width: int = 0
    frames: int = 1
    fill: str = 'blank'
    strips: str = 'stored'
    num_mels: int = 128
    encoding: str = 'jpeg'
    quality: int = QUALITY
    min_face: int = 20

    @property
    def channels(self) -> int:
        return 1 if self.color == 'grey' else 3


# The defaults of --layout 3d: 135 is the report's longest clip.
VIDEO = Settings('3d', crop='none', frames=135)


@dataclasses.dataclass(frozen=True)
class Job:
    clip: layout.Clip
    label: int
    settings: Settings


def make_schema(settings: Settings) -> Schema:
    """The schema of the records that read_clip makes under these settings."""
    encoding = f'JPEG quality {settings.quality}' if settings.encoding == 'jpeg' else 'raw'
    pictures, sound = f'the middle frame, crop {settings.crop!r}', 'one picture of the clip'
    if settings.layout == '3d':
        pictures = f'frames at {FPS:g} a second, {settings.frames} at most, crop {settings.crop!r}'
        sound = 'one picture a frame, a strip in time'
    mel = f'mel power in dB below the loudest, {settings.num_mels} bands at {SAMPLE_RATE} Hz'
    texts = {'audio': f'{mel}, {sound}, {encoding}', 'vision': f'{pictures}, {encoding}'}
    widths = {'audio': settings.audio_width or settings.size, 'vision': settings.vision_width or settings.size}
    features = {
        m: Feature((None, settings.size, widths[m], settings.channels), 'uint8', settings.encoding, texts[m], True)
        for m in ('audio', 'vision')
    }
    info = {'dataset': 'crema_d', 'made_by': 'data_prep.crema_d', **dataclasses.asdict(settings)}
    return Schema(f'crema_d_{settings.layout}', features, Label('classes', layout.EMOTIONS), info)


def read_clip(job: Job) -> dict[str, Any]:
    """Decodes one clip: {'record': {'id', 'label', 'audio', 'vision'}, 'columns': manifest columns, 'remarks'}.

    'audio' and 'vision' are uint8 (T, H, W, C) of one length T, or JPEG Frames of them; None for silence, and for
    black pictures. MediaError where a file cannot be used.
    """
    clip, settings = job.clip, job.settings
    samples, rate = audio.load_audio(clip.wav, SAMPLE_RATE)
    frames, info = _read_frames(clip.flv, settings)
    seconds, total = len(samples) / rate, len(frames)
    if info.duration < LEAST_SHARE * seconds:
        found = f'pictures of {info.duration:.3f} s, sound of {seconds:.3f} s in {clip.wav}'
        raise MediaError(clip.flv, 'truncated', f'{found}; copy or download it again')
    numbers = np.arange(total)
    if total > settings.frames or settings.fill == 'repeat':
        numbers = spectrogram_image.spread(total, settings.frames)
    vision, share = _crop(frames[numbers], clip.flv, settings)
    count, chosen = (total, numbers) if settings.strips == 'frames' else (len(numbers), None)
    record: dict[str, Any] = {
        'audio': None if audio.is_silent(samples) else _draw(samples, rate, count, chosen, settings)
    }
    record |= {'id': clip.id, 'label': job.label, 'vision': vision}
    why = {'audio': 'silence', 'vision': 'black pictures'}
    remarks = compare_spans((0.0, seconds), (info.start, info.end))
    remarks += missing({m: why[m] for m in why if record[m] is None}, why)
    columns = {
        'duration': round(seconds, 6),
        'peak': round(float(np.abs(samples).max()), 4),
        'video_fps': round(info.fps, 3),
        'video_start': round(info.start, 3),
        'video_duration': round(info.duration, 3),
        'frames': total,
        'distinct_frames': len(np.unique(np.asarray(info.timestamps)[numbers])),
        'face_share': round(share, 4),
    }
    return {'record': record, 'columns': columns, 'remarks': remarks}


def _crop(frames: np.ndarray, path: Path, settings: Settings) -> tuple[Any, float]:
    """(The pictures as they are stored, share of them with a face); (None, 0) where they are black."""
    if video.is_black(frames):
        return None, 0.0
    detector = make_detector(settings.min_face) if settings.crop == 'mtcnn' else None
    cropped, share = faces.crop_faces(frames, settings.crop, settings.size, path=path, detector=detector)
    pictures = _convert(cropped, settings.vision_width or settings.size, settings.color)
    return _store(pictures, settings), share


def _draw(samples: np.ndarray, rate: int, count: int, numbers: np.ndarray | None, settings: Settings) -> Any:
    """The pictures of the sound as they are stored: `count` strips, of which those of `numbers` are drawn."""
    decibels = audio.log_mel(samples, rate, n_fft=N_FFT, hop_length=HOP_LENGTH, num_mels=settings.num_mels)
    width, channels = settings.audio_width or settings.size, settings.channels
    drawn = spectrogram_image.draw_strips(decibels, count, settings.size, width, channels=channels, numbers=numbers)
    return _store(drawn, settings)


def _read_frames(path: Path, settings: Settings) -> tuple[np.ndarray, video.VideoInfo]:
    """The middle frame, or all at 24 a second: uint8 (T, H, W, 3)."""
    if settings.layout == '2d':
        return video.read_frames(path, 1)
    info = video.read_info(path)
    if info.duration > LONGEST:
        raise MediaError(path, 'too long for a clip of CREMA-D', f'{info.duration:.1f} s; expected {LONGEST:g} or less')
    return video.read_frames(path, how='all', fps=FPS)


def _convert(frames: np.ndarray, width: int, color: str) -> np.ndarray:
    """uint8 (T, H, W, 3) -> (T, H, width, 1 or 3), grey by ITU-R 601."""
    pictures = []
    for frame in frames:
        picture = Image.fromarray(frame)
        picture = picture.convert('L') if color == 'grey' else picture
        if width != picture.width:
            picture = picture.resize((width, picture.height), Image.Resampling.BILINEAR)
        pictures.append(np.asarray(picture).reshape(picture.height, width, -1))
    return np.stack(pictures)


def _store(pictures: np.ndarray, settings: Settings) -> Any:
    """Fills up with black pictures at the end where that is asked for, and encodes."""
    if settings.fill == 'blank':
        pictures = np.pad(pictures, ((0, settings.frames - len(pictures)), (0, 0), (0, 0), (0, 0)))
    return encode_frames(pictures, settings.quality) if settings.encoding == 'jpeg' else pictures


def prepare(
    source: str | os.PathLike,
    output: str | os.PathLike,
    settings: Settings,
    *,
    tables: str | os.PathLike | None = None,
    drop: str = 'known',
    workers: int = 0,
    num_shards: int = 4,
    overwrite: bool = False,
) -> tuple[list[dict[str, Any]], list[tuple[str, Skipped]], list[tuple[str, Remark]], layout.Tables]:
    """Writes the shard directory: (manifest columns of each record, skipped files, remarks on records, csv tables).

    PreparationError where nothing can be written, FileExistsError where `output` exists without `overwrite`.
    """
    if settings.crop == 'mtcnn':  # before anything is read: its weights may be missing
        ravdess_video.find_inputs(ravdess_video.Vision(crop='mtcnn', min_face=settings.min_face), None)
    found = layout.read_tables(Path(tables if tables is not None else source))
    if settings.labels == 'voted' and not found.votes:
        raise PreparationError(
            f'--labels voted needs tabulatedVotes.csv in {tables or source}; say where with --tables'
        )
    clips, skipped = layout.list_clips(Path(source), drop)
    jobs, rows = [], []
    remarks: list[tuple[str, Remark]] = []
    for clip in clips:
        label = layout.choose_label(clip, found.votes, settings.labels, settings.voted_by)
        if isinstance(label, Skipped):
            skipped.append((clip.id, label))
        else:
            jobs.append(Job(clip, label, settings))
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': [source, tables or source]}
    with RecordWriter(output, make_schema(settings), **options) as writer:
        for job, result in process(read_clip, jobs, workers=workers, description='crema_d'):
            if isinstance(result, Skipped):
                skipped.append((job.clip.id, result))
                continue
            columns = {**job.clip.columns(), **found.columns(job.clip), **result['columns']}
            writer.write(result['record'], **columns)
            rows.append({**columns, 'label': job.label})
            remarks += [(job.clip.id, remark) for remark in result['remarks']]
        if not rows:
            hint = layout.LAYOUT if skipped else f'its folders are empty; {layout.LAYOUT}'
            raise nothing_usable(f'no usable clip in {source}', skipped, hint)
    return rows, skipped, remarks, found


def _report(
    rows: list[dict[str, Any]], skipped: Any, remarks: Any, tables: layout.Tables, output: Path, settings: Settings
) -> None:
    labels, actors = Counter(row['label'] for row in rows), {row['speaker'] for row in rows}
    print(f'{len(rows)} clips of {len(actors)} actors -> {output}')
    named = ((name, labels[number]) for number, name in enumerate(layout.EMOTIONS))
    print(f'  by emotion, {settings.labels}: ' + ', '.join(f'{name} {count}' for name, count in named if count))
    if len(tables.names) > len(rows):
        print(
            f'  {len(tables.names) - len(rows)} of the {len(tables.names)} clips of SentenceFilenames.csv are not in it'
        )
    for name, table in (('VideoDemographics.csv', tables.actors), ('tabulatedVotes.csv', tables.votes)):
        if not table:
            print(f'  without the columns of {name}, which was not found (--tables)')
    counts = {}
    if settings.layout == '3d':
        counts[f'more than {settings.frames} frames, of which {settings.frames} were taken'] = sum(
            row['frames'] > settings.frames for row in rows
        )
        counts[f'fewer than {settings.frames} frames (--fill {settings.fill})'] = sum(
            row['frames'] < settings.frames for row in rows
        )
    for what, count in counts.items():
        if count:
            print(f'  {what}: {count}')
    summary(skipped, remarks)
    print(f'next: python -m mmer_jax.records verify {output}')
    print(f'      python -m data_prep.look {output} --output grid.png')
    if settings.layout == '2d':
        print(f'      python -m mmer_jax.main --config=configs/resnet18_crema_d.py --config.data.directory={output}')


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    if argv[:1] == ['human']:
        return parse_human(argv[1:])
    early = argparse.ArgumentParser(add_help=False)  # --layout decides the defaults of the others
    early.add_argument('--layout', nargs='?')
    default = VIDEO if early.parse_known_args(argv)[0].layout == '3d' else Settings()
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.crema_d',
        description='CREMA-D -> record shards with the pictures of each clip and of its sound.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(human=False)
    add = parser.add_argument
    add('--source', type=Path, required=True, help='folder of CREMA-D, with AudioWAV and VideoFlash')
    add('--output', type=Path, required=True, help='shard directory to write')
    add('--tables', type=Path, help='folder of the csv tables; --source unless said otherwise')
    helps = {
        'layout': 'one picture a modality, or a sequence; decides other defaults',
        'labels': 'the emotion acted, or the one most raters chose; a tie is left out',
        'voted_by': 'whose votes: raters who heard, saw, or both',
        'crop': 'what of a frame to keep',
        'color': 'of both modalities',
        'fill': '3d, clips with fewer than --frames: black pictures at the end, frames twice, or as they are',
        'strips': '3d, long clips: as many strips as frames stored, or as the clip has (then sound between is lost)',
        'encoding': 'of the pictures stored',
    }
    for name, text in helps.items():
        add(f'--{name}', choices=CHOICES[name], default=getattr(default, name), help=text)
    add('--size', type=ranges.SIDE, default=default.size, help='height of the pictures, and their width unless given')
    add('--vision_width', type=ranges.WIDTH_OR_0, default=0, help='of the frames; 0: --size')
    add('--audio_width', type=ranges.WIDTH_OR_0, default=0, help='of the pictures of the sound; 0: --size')
    add('--frames', type=ranges.FRAMES, default=default.frames, help='3d: pictures a clip')
    add('--num_mels', type=ranges.MELS, default=default.num_mels, help='mel bands (the report: 128, at first 512)')
    add('--quality', type=ranges.QUALITY, default=default.quality, help='of JPEG, 1 to 95')
    add('--min_face', type=ranges.FACE, default=default.min_face, help='pixels, the smallest face --crop mtcnn seeks')
    add('--drop', choices=tuple(layout.DROPS), default='known', help='bad clips: all known, as the report did, none')
    add('--workers', type=ranges.PROCESSES, default=os.cpu_count() or 1, help='processes; 0 or 1: this one')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    arguments = parser.parse_args(argv)
    if arguments.layout == '2d' and arguments.frames != 1:
        parser.error(f'--frames {arguments.frames} needs --layout 3d')
    return arguments


def parse_human(argv: list[str]) -> argparse.Namespace:
    """The flags of the command `human`."""
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.crema_d human',
        description='How often single human votes name the emotion that the actor was asked for.',
    )
    parser.add_argument('--tables', type=Path, required=True, help='folder with tabulatedVotes.csv')
    parser.set_defaults(human=True)
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    if arguments.human:
        print(layout.human_table(arguments.tables))
        return
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    rows, skipped, remarks, tables = prepare(
        arguments.source,
        arguments.output,
        settings,
        tables=arguments.tables,
        drop=arguments.drop,
        workers=arguments.workers,
        num_shards=arguments.num_shards,
        overwrite=arguments.overwrite,
    )
    _report(rows, skipped, remarks, tables, arguments.output, settings)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == '__main__':
    sys.exit(main())
