"""RAVDESS -> record shards with the sound of each clip (MFCC, log-mel, samples, functionals), its pictures, or both.

    python -m data_prep.ravdess --source DIR --output DIR
    python -m data_prep.ravdess --source DIR --output DIR --features waveform
    python -m data_prep.ravdess --source DIR --output DIR --vision frames --crop landmarks --landmarks DIR

Source: Livingstone and Russo 2018, https://zenodo.org/record/1188976 (CC BY-NC-SA 4.0). --source is any folder with
Actor_XX folders somewhere below it, of files named MM-CC-EE-II-SS-RR-AA.wav, .flac or .mp4: modality (01 audio and
video, 02 video only, 03 audio), channel (01 speech, 02 song), emotion, intensity, statement, repetition, actor.

The defaults are the audio of the CFN-SR paper: 44,100 Hz, 2.45 s from 0.5 s on, 13 MFCC every 512 samples: 212 frames.
With --features waveform they are the input of the pretrained speech models: 16,000 Hz, the whole clip, 10 s at most.
With --features functionals a clip is one vector for mmer_jax.classifiers (mmer_jax/media/functionals.py).
With --vision frames 30 frames, spread evenly over the whole clip, are stored as JPEG (data_prep/ravdess_video.py).
Nothing is split here: protocols.py makes folds of actors from the manifest.
"""

import argparse
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep import ravdess_video, sound_flags
from data_prep.pool import PreparationError, Remark, Skipped, missing, nothing_usable, process, run_command, summary
from mmer_jax import readers
from mmer_jax.data.records import Label, RecordWriter, Schema
from mmer_jax.files import links
from mmer_jax.settings import ranges

EMOTIONS = ('neutral', 'calm', 'happy', 'sad', 'angry', 'fearful', 'disgust', 'surprised')
FEATURES = ('mfcc', 'log_mel', 'waveform', 'functionals', 'none')
WHOLE = ('waveform', 'functionals')  # of the whole clip at 16,000 Hz unless said otherwise
SUFFIXES = ('.wav', '.flac', '.mp4')
NUM_MELS = 128
MFCC = ranges.Number(int, low=1, high=NUM_MELS)
NAME = re.compile(r'(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])')
LAYOUT = 'expected Actor_01 .. Actor_24 folders below it, with files such as Actor_01/03-01-01-01-01-01-01.wav'


@dataclasses.dataclass(frozen=True, order=True)
class Clip:
    """One file and the fields of its name, as the two-digit codes RAVDESS uses."""

    actor: str
    channel: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    modality: str
    path: Path

    @property
    def id(self) -> str:
        return self.path.stem

    @property
    def take(self) -> tuple[str, ...]:
        """What was performed, whatever files show it: the fields without the modality."""
        return (self.actor, self.channel, self.emotion, self.intensity, self.statement, self.repetition)

    def columns(self) -> dict[str, str]:
        """The manifest columns that the name gives."""
        return {
            'speaker': self.actor,
            'session': '',
            'split': '',
            'emotion': EMOTIONS[int(self.emotion) - 1],
            'intensity': {'01': 'normal', '02': 'strong'}[self.intensity],
            'statement': str(int(self.statement)),
            'repetition': str(int(self.repetition)),
            'gender': 'male' if int(self.actor) % 2 else 'female',
            'channel': {'01': 'speech', '02': 'song'}[self.channel],
        }


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a clip becomes arrays. `duration` 0 is the whole clip; lengths are samples, times are seconds."""

    features: str = 'mfcc'
    sample_rate: int = 44100
    num_mfcc: int = 13
    hop_length: int = 512
    offset: float = 0.5
    duration: float = 2.45
    n_fft: int = 2048
    num_mels: int = NUM_MELS
    vision: ravdess_video.Vision | None = None

    @property
    def sound(self) -> readers.Sound | None:
        """The reader of the sound, None where only pictures are stored."""
        if self.features == 'none':
            return None
        return sound_flags.reader(self.features, self)


# The defaults of --features waveform and functionals; the others' are Settings().
WAVEFORM = Settings('waveform', sample_rate=16000, offset=0.0, duration=10.0)
FUNCTIONALS = dataclasses.replace(WAVEFORM, features='functionals', duration=0.0)
DEFAULTS = {'waveform': WAVEFORM, 'functionals': FUNCTIONALS}


@dataclasses.dataclass(frozen=True)
class Job:
    clip: Clip
    settings: Settings
    landmarks: Mapping[str, Path] = dataclasses.field(default_factory=dict)


def list_clips(
    source: str | os.PathLike, *, song: bool = False, vision: bool = False, video_only: bool = False
) -> tuple[list[Clip], list[tuple[str, Skipped]]]:
    """Finds the clips below a folder: (clips, sorted by actor and name; skipped files as (name, Skipped)).

    A take found several times (audio and video, or two copies) is used once: the audio-only file, or with `vision`
    the one with pictures and sound, else the first path. PreparationError where the folder is missing or holds no
    Actor_XX folder.
    """
    source = Path(source)
    if not source.is_dir():
        raise PreparationError(f'source folder {source} {"is a file" if source.exists() else "is missing"}; {LAYOUT}')
    takes: dict[tuple[str, ...], list[Clip]] = {}
    skipped: list[tuple[str, Skipped]] = []
    folders = _actor_folders(source, skipped)
    if not folders:
        left_out = f', but {skipped[0][1].detail} is {links.OUT}' if skipped else ''
        raise PreparationError(f'source folder {source} holds no Actor_XX folder{left_out}; {LAYOUT}')
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.name.startswith('.') or not path.is_file():  # .DS_Store, ._resource forks, nested folders
                continue
            if links.leads_out(path, source):
                skipped.append((path.name, Skipped(links.OUT, str(path))))
                continue
            found = _parse(path, song=song, vision=vision, video_only=video_only)
            if isinstance(found, Skipped):
                skipped.append((path.name, found))
            else:
                takes.setdefault(found.take, []).append(found)
    clips = []
    for take in sorted(takes):
        chosen, *others = sorted(takes[take], key=lambda clip: (clip.modality != ('01' if vision else '03'), clip.path))
        clips.append(chosen)
        for other in others:
            reason = 'found again with its video; the audio-only file was taken'
            if vision:
                reason = 'found again without sound; the file with sound was taken'
            if other.modality == chosen.modality:
                reason = 'a second copy of the same clip'
            skipped.append((other.path.name, Skipped(reason, f'{other.path}: {chosen.path} was taken')))
    return clips, skipped


def _actor_folders(source: Path, skipped: list[tuple[str, Skipped]]) -> list[Path]:
    folders, seen = [], set()
    for name, children, _ in os.walk(source, followlinks=True):
        children.sort()
        for child in [child for child in children if links.leads_out(Path(name, child), source)]:
            skipped.append((child, Skipped(links.OUT, str(Path(name, child)))))
            children.remove(child)
        if (real := os.path.realpath(name)) in seen:  # two links to one folder, or a link to a parent
            children.clear()
            continue
        seen.add(real)
        if re.fullmatch(r'Actor_\d\d', Path(name).resolve().name) or re.fullmatch(r'Actor_\d\d', Path(name).name):
            folders.append(Path(name))
    return sorted(folders)


def _parse(path: Path, *, song: bool, vision: bool, video_only: bool) -> Clip | Skipped:
    if path.suffix.lower() not in SUFFIXES:
        return Skipped(f'not a {", ".join(SUFFIXES)} file', str(path))
    match = NAME.fullmatch(path.stem)
    if match is None:
        return Skipped('the name is not MM-CC-EE-II-SS-RR-AA with known codes', str(path))
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    folder = path.parent.name if path.parent.name.startswith('Actor_') else path.parent.resolve().name
    if folder != f'Actor_{actor}':
        return Skipped("the folder's actor is not the file name's", f'{path}: the name says actor {actor}')
    if modality == '02' and not video_only:
        return Skipped('video only, no sound', str(path))
    if vision and (modality == '03' or path.suffix.lower() != '.mp4'):
        return Skipped('sound only, no pictures', str(path))
    if channel == '02' and not song:
        return Skipped('song, not speech (--song takes both)', str(path))
    return Clip(actor, channel, emotion, intensity, statement, repetition, modality, path)


def read_clip(job: Job) -> dict[str, Any]:
    """Decodes one clip: {'record': {'id', 'label', 'audio' and/or 'vision'}, 'columns', 'remarks'}.

    'audio' is float32 (T, num_mfcc) or (T, num_mels), or int16 (S,), None for silence; 'vision' is JPEG Frames, None
    for black pictures. MediaError where the file cannot be used.
    """
    clip, settings = job.clip, job.settings
    record: dict[str, Any] = {'id': clip.id, 'label': int(clip.emotion) - 1}
    columns: dict[str, Any] = clip.columns()
    remarks: list[Remark] = []
    if settings.sound is not None:
        found = settings.sound.read(readers.Clip(clip.id, clip.path))
        if found.fault is not None:
            raise found.fault
        record['audio'] = found.array
        columns |= found.columns
    if settings.vision is not None:
        record['vision'], added, remarks = ravdess_video.read_pictures(clip.path, settings.vision, job.landmarks)
        columns |= added
        remarks = remarks if 'audio' in record else []
    why = {'audio': 'silence', 'vision': 'black pictures'}
    lacks = {m: why[m] for m in why if m in record and record[m] is None}
    return {'record': record, 'columns': columns, 'remarks': remarks + missing(lacks, set(why) & set(record))}


def make_schema(settings: Settings, *, song: bool = False) -> Schema:
    """The schema of the records that read_clip makes under these settings."""
    chosen = [reader for reader in (settings.sound, settings.vision) if reader is not None]
    features = {reader.modality: reader.feature() for reader in chosen}
    info = {'dataset': 'ravdess', 'made_by': 'data_prep.ravdess', 'song': song, **dataclasses.asdict(settings)}
    parts = [settings.features] if settings.features != 'none' else []
    if settings.vision is None:
        del info['vision']
    else:
        parts.append('frames')
    return Schema('_'.join(['ravdess', *parts]), features, Label('classes', EMOTIONS), info)


def prepare(
    source: str | os.PathLike,
    output: str | os.PathLike,
    settings: Settings,
    *,
    song: bool = False,
    video_only: bool = False,
    landmarks: Path | None = None,
    workers: int = 0,
    num_shards: int = 4,
    overwrite: bool = False,
) -> tuple[list[dict[str, Any]], list[tuple[str, Skipped]], list[tuple[str, Remark]]]:
    """Writes the shard directory: (manifest columns of each record, skipped files, remarks on records).

    PreparationError where nothing can be written, FileExistsError where `output` exists without `overwrite`.
    """
    tables = ravdess_video.find_inputs(settings.vision, landmarks)
    clips, skipped = list_clips(source, song=song, vision=settings.vision is not None, video_only=video_only)
    rows: list[dict[str, Any]] = []
    remarks: list[tuple[str, Remark]] = []
    sources = [source, landmarks or source]
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': sources}
    with RecordWriter(output, make_schema(settings, song=song), **options) as writer:
        jobs = [Job(clip, settings, _table_of(clip, tables)) for clip in clips]
        for job, result in process(read_clip, jobs, workers=workers, description='ravdess'):
            if isinstance(result, Skipped):
                skipped.append((job.clip.path.name, result))
                continue
            writer.write(result['record'], **result['columns'])
            rows.append(result['columns'])
            remarks += [(job.clip.id, remark) for remark in result['remarks']]
        if not rows:
            hint = LAYOUT if skipped else f'the Actor_XX folders are empty; {LAYOUT}'
            raise nothing_usable(f'no usable clip below {source}', skipped, hint)
    return rows, skipped, remarks


def _table_of(clip: Clip, tables: Mapping[str, Path]) -> dict[str, Path]:
    key = clip.path.stem[3:]  # one tracking serves the files of a take, with sound and without
    return {key: tables[key]} if key in tables else {}


def _report(rows: list[dict[str, Any]], skipped: Any, remarks: Any, output: Path, settings: Settings) -> None:
    actors = Counter(row['speaker'] for row in rows)
    emotions = Counter(row['emotion'] for row in rows)
    print(f'{len(rows)} clips of {len(actors)} actors -> {output}')
    print('  by emotion: ' + ', '.join(f'{name} {emotions[name]}' for name in EMOTIONS if emotions[name]))
    print(f'  by actor: {_by_actor(actors)}')
    short = sum(row.get('duration', settings.duration) < settings.duration - 1e-3 for row in rows)
    if settings.vision is not None:
        ravdess_video.report(rows, settings.vision)
    if short and settings.features not in WHOLE:  # whose duration is a limit
        print(f'  shorter than the {settings.duration:g} s asked for: {short} (see the column duration)')
    summary(skipped, remarks)
    print(f'next: python -m mmer_jax.records verify {output}')
    if settings.vision is not None:
        print(f'      python -m data_prep.look {output} --output grid.png')
    elif config := _config_for(settings):
        print(f'      python -m mmer_jax.main --config={config} --config.data.directory={output}')


def _config_for(settings: Settings) -> str:
    if (settings.features, settings.sample_rate) == (WAVEFORM.features, WAVEFORM.sample_rate):
        return 'configs/wav2vec2_ravdess.py'
    if settings.features == 'log_mel':
        return 'configs/erann_ravdess.py' if settings.num_mels == NUM_MELS else 'configs/tdnn_ravdess.py'
    return 'configs/mfcc_cnn_ravdess.py' if (settings.features, settings.num_mfcc) == ('mfcc', 13) else ''


def _by_actor(actors: Counter) -> str:
    if len(set(actors.values())) == 1:
        return f'{next(iter(actors.values()))} each ({", ".join(sorted(actors))})'
    return ', '.join(f'{name}: {actors[name]}' for name in sorted(actors))


def chosen_features(argv: list[str] | None, flag: str = '--features') -> str | None:
    """The value of `flag`, which decides the defaults of the others; its faults are the whole parser's to report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(flag, dest='chosen', nargs='?')
    return parser.parse_known_args(argv)[0].chosen


def add_sound_flags(parser: argparse.ArgumentParser, features: str | None) -> None:
    """How the sound is read, as the fields of Settings are called, with the defaults of these features."""
    default = DEFAULTS.get(features or '', Settings())
    sound = sound_flags.reader(default.features, default)
    sound_flags.add_flags(parser, sound, num_mfcc=MFCC, duration=ranges.NOT_NEGATIVE)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.ravdess',
        description='RAVDESS -> record shards with the sound of each clip, its pictures, or both.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('--source', type=Path, required=True, help='folder with Actor_XX folders somewhere below it')
    add('--output', type=Path, required=True, help='shard directory to write')
    add(
        '--features',
        choices=FEATURES,
        default=Settings.features,
        help='what to store of the sound; waveform (int16 samples, the first 10 s) and functionals are of 16000 Hz',
    )
    add_sound_flags(parser, chosen_features(argv))
    ravdess_video.add_arguments(parser)
    add('--song', action='store_true', help='take the songs too, not only speech')
    add('--workers', type=ranges.PROCESSES, default=os.cpu_count() or 1, help='processes; 0 or 1: this one')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    arguments = parser.parse_args(argv)
    sound_flags.check_rate(parser, arguments.features, arguments.sample_rate)
    arguments.vision = ravdess_video.from_arguments(parser, arguments)
    return arguments


def work(arguments: argparse.Namespace) -> None:
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    rows, skipped, remarks = prepare(
        arguments.source,
        arguments.output,
        settings,
        song=arguments.song,
        video_only=arguments.video_only,
        landmarks=arguments.landmarks,
        workers=arguments.workers,
        num_shards=arguments.num_shards,
        overwrite=arguments.overwrite,
    )
    _report(rows, skipped, remarks, arguments.output, settings)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
