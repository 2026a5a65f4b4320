"""IEMOCAP's release -> record shards with the words, the sound and the pictures of each utterance, or any of them.

    python -m data_prep.iemocap --source IEMOCAP_full_release --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m data_prep.iemocap --source IEMOCAP_full_release --output data/iemocap_audio --modalities audio

--source is the folder with Session1 .. Session5 or its parent; data_prep/iemocap_layout.py has the layout.

The defaults are those of the pretrained-transformers paper: four classes with excited as happy (5,531 utterances),
16 kHz sound of at most 10 s, 16 frames for VideoMAE; its split by sessions, 3 / 1 / 1, is the manifest's column
`split`, and the protocol leave_sessions_out makes the five folds. --classes six has 7,380 in the release: the 7,433 of
conv-emotion's features count 648 happy, the evaluations have 595. Utterances without agreement (xxx) are left out.

**Text** (T,): token ids of --tokenizer, a folder of converted weights, also below $MMER_PRETRAINED.
**Audio** (S,): int16 samples of the utterance's own wav.
**Vision** (T, size, size, 3): JPEG frames spread evenly over the utterance, cut from its dialog's avi by its times.
The avi shows both actors; --screen speaker (the default) takes the half of the one who speaks, --screen whole both, as
the paper does. The short side is scaled to --size and the centre cropped, as VideoMAE's image processor does.
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

from data_prep.iemocap_layout import EMOTIONS, LAYOUT, SESSIONS, Utterance, list_utterances
from data_prep.pool import Remark, Skipped, missing, nothing_usable, process, run_command, summary
from mmer_jax.data.records import Feature, Label, RecordWriter, Schema, encode_frames
from mmer_jax.data.schema import MODALITIES
from mmer_jax.media import audio, video
from mmer_jax.media.tokens import TextTokenizer
from mmer_jax.pretrained import find_tokenizer, read_source
from mmer_jax.readers.sound import PCM_SCALE, as_int16
from mmer_jax.settings import ranges

SCREENS = ('speaker', 'whole')
SAMPLE_RATE = 16000
QUALITY = 95  # of JPEG
TOLERANCE = 0.1  # seconds that sound or pictures may be shorter than the evaluation says before it is reported
AGREED = {code: name for code, name in EMOTIONS.items() if code != 'xxx'}
CLASSES = {
    'four': {code: AGREED[code] for code in ('neu', 'hap', 'ang', 'sad')} | {'exc': 'happy'},
    'six': {code: AGREED[code] for code in ('neu', 'hap', 'ang', 'sad', 'exc', 'fru')},
    'all': AGREED,
}
# The evaluations of the full release: 10,039 utterances with the 2,507 without agreement.
RELEASE = {
    'neu': 1708,
    'hap': 595,
    'ang': 1103,
    'sad': 1084,
    'exc': 1041,
    'fru': 1849,
    'fea': 40,
    'sur': 107,
    'dis': 2,
    'oth': 3,
}
RELEASE_FOUR = dict(zip(SESSIONS, (1085, 1023, 1151, 1031, 1241), strict=True))

CONFIGS = {'text': 'bert_iemocap', 'audio': 'wav2vec2_iemocap', 'vision': 'videomae_iemocap'}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What of an utterance is stored, and how. `max_seconds` 0 is all of its sound."""

    classes: str = 'four'
    modalities: tuple[str, ...] = MODALITIES
    tokenizer: str = ''
    max_seconds: float = 10.0
    screen: str = 'speaker'
    num_frames: int = 16
    size: int = 224

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(CLASSES[self.classes].values()))


@dataclasses.dataclass(frozen=True)
class Job:
    utterance: Utterance
    settings: Settings


@dataclasses.dataclass
class Report:
    """Manifest columns of each record, skipped names, remarks on records, and how often each label was left out."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    skipped: list[tuple[str, Skipped]] = dataclasses.field(default_factory=list)
    remarks: list[tuple[str, Remark]] = dataclasses.field(default_factory=list)
    left_out: Counter = dataclasses.field(default_factory=Counter)


def make_schema(settings: Settings) -> Schema:
    """The schema of the records under these settings."""
    features = {}
    info: dict[str, Any] = {'dataset': 'iemocap', 'made_by': 'data_prep.iemocap', 'classes': settings.classes}
    if 'text' in settings.modalities:
        name = Path(settings.tokenizer).name
        features['text'] = Feature((None,), 'int32', description=f'token ids of {name}')
        info['tokenizer'] = name
    if 'audio' in settings.modalities:
        description = f'{SAMPLE_RATE} Hz mono, float = int16 / {PCM_SCALE}'
        features['audio'] = Feature((None,), 'int16', description=description, optional=True)
        info |= {'sample_rate': SAMPLE_RATE, 'max_seconds': settings.max_seconds}
    if 'vision' in settings.modalities:
        part = {'speaker': "the speaker's half of the screen", 'whole': 'the whole screen'}[settings.screen]
        description = f'{settings.num_frames} RGB frames spread evenly over the utterance, {part}, JPEG {QUALITY}'
        features['vision'] = Feature((None, settings.size, settings.size, 3), 'uint8', 'jpeg', description, True)
        info |= {'screen': settings.screen, 'num_frames': settings.num_frames, 'size': settings.size}
    return Schema('iemocap_raw', features, Label('classes', settings.class_names), info)


def choose(utterances: list[Utterance], settings: Settings, report: Report) -> list[Utterance]:
    """The utterances of the classes that have what the records need; `report` gets the others."""
    chosen = []
    for utterance in utterances:
        lacks = None
        if utterance.emotion not in CLASSES[settings.classes]:
            report.left_out[utterance.emotion] += 1
            continue
        if 'text' in settings.modalities and not utterance.text:
            lacks = Skipped('no transcript', f'no text of {utterance.id} in the transcriptions of {utterance.session}')
        elif 'audio' in settings.modalities and not utterance.wav.exists():
            lacks = Skipped('no wav of the utterance', f'{utterance.wav} is missing')
        elif 'vision' in settings.modalities and not utterance.avi.exists():
            lacks = Skipped('no avi of the dialog', f'{utterance.avi} is missing')
        if lacks is None:
            chosen.append(utterance)
        else:
            report.skipped.append((utterance.id, lacks))
    return chosen


def read_utterance(job: Job) -> dict[str, Any]:
    """Decodes the media of one utterance: {'record': 'audio' and/or 'vision', 'columns', 'remarks'}.

    'audio' is int16 (S,), None for silence; 'vision' JPEG Frames, None for black pictures. MediaError where a file
    cannot be used.
    """
    utterance, settings = job.utterance, job.settings
    record: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    lacks: dict[str, str] = {}
    if 'audio' in settings.modalities:
        samples, rate = audio.load_audio(utterance.wav, SAMPLE_RATE, duration=settings.max_seconds or None)
        record['audio'] = as_int16(samples)
        if audio.is_silent(samples):
            record['audio'], lacks['audio'] = None, 'silence'
        columns['duration'] = round(len(samples) / rate, 6)
    if 'vision' in settings.modalities:
        start, end = utterance.start, utterance.end
        frames, info = video.read_frames(utterance.avi, settings.num_frames, start=start, end=end)
        frames = take_screen(frames, settings.screen, utterance.on_left)
        if video.is_black(frames):
            record['vision'], lacks['vision'] = None, 'black pictures'
        else:
            record['vision'] = encode_frames(resize(frames, settings.size), QUALITY)
        columns['video_seconds'] = round(min(end, info.end) - max(start, info.start), 6)
        columns['distinct_frames'] = len(np.unique(info.timestamps))
    remarks = missing(lacks, settings.modalities) + _compare_times(columns, utterance, settings)
    return {'record': record, 'columns': columns, 'remarks': remarks}


def _compare_times(columns: dict[str, Any], utterance: Utterance, settings: Settings) -> list[Remark]:
    """Remarks where the sound or the pictures are shorter than the evaluation says."""
    remarks, stated = [], utterance.end - utterance.start
    heard = min(stated, settings.max_seconds or np.inf)
    if columns.get('duration', np.inf) < heard - TOLERANCE:
        detail = f'{columns["duration"]:.3f} s of {heard:.3f} s'
        remarks.append(Remark('sound shorter than the evaluation says', detail))
    if columns.get('video_seconds', np.inf) < stated - TOLERANCE:
        detail = f'{columns["video_seconds"]:.3f} s of {stated:.3f} s'
        remarks.append(Remark('pictures end before the utterance', detail))
    return remarks


def take_screen(frames: np.ndarray, screen: str, left: bool) -> np.ndarray:
    """(T, H, W, 3) -> the half that shows the speaker, (T, H, W // 2, 3), or all of it."""
    if screen == 'whole':
        return frames
    half = frames.shape[2] // 2
    return frames[:, :, :half] if left else frames[:, :, -half:]


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """uint8 (T, H, W, 3) -> (T, size, size, 3): short side to `size`, bilinear, then the centre.

    Rounding as in Hugging Face's VideoMAE image processor: the long side and the corner are rounded down.
    """
    height, width = frames.shape[1:3]
    short = min(height, width)
    new_height, new_width = int(size * height / short), int(size * width / short)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    pictures = []
    for frame in frames:
        picture = Image.fromarray(frame).resize((new_width, new_height), Image.Resampling.BILINEAR)
        pictures.append(np.asarray(picture.crop((left, top, left + size, top + size))))
    return np.stack(pictures)


def prepare(
    source: str | os.PathLike,
    output: str | os.PathLike,
    settings: Settings,
    *,
    workers: int = 0,
    num_shards: int = 4,
    overwrite: bool = False,
) -> Report:
    """Writes the shard directory.

    PreparationError where nothing can be written, FileNotFoundError or MediaError where there is no such tokenizer,
    FileExistsError where `output` exists without `overwrite`.
    """
    report = Report()
    tokenize = TextTokenizer(find_tokenizer(settings.tokenizer)) if 'text' in settings.modalities else None
    utterances, report.skipped = list_utterances(source)
    # In the order of the dialogs and their times: jobs that follow one another read the same part of the same avi.
    jobs = [Job(utterance, settings) for utterance in choose(utterances, settings, report)]
    workers = workers if {'audio', 'vision'} & set(settings.modalities) else 0
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': [source]}
    with RecordWriter(output, make_schema(settings), **options) as writer:
        for job, result in process(read_utterance, jobs, workers=workers, description='iemocap'):
            utterance = job.utterance
            if isinstance(result, Skipped):
                report.skipped.append((utterance.id, result))
                continue
            name = CLASSES[settings.classes][utterance.emotion]
            record = {'id': utterance.id, 'label': settings.class_names.index(name), **result['record']}
            if tokenize is not None:
                record['text'] = tokenize(utterance.text)
            columns = {**utterance.columns(), **result['columns']}
            writer.write(record, **columns)
            report.rows.append({**columns, 'class': name})
            report.remarks += [(utterance.id, remark) for remark in result['remarks']]
        if not report.rows:
            hint = LAYOUT if report.skipped else f'no utterance of a class; {LAYOUT}'
            raise nothing_usable(f'no usable utterance in {source}', report.skipped, hint)
    return report


def _print_report(report: Report, output: Path, settings: Settings) -> None:
    rows = report.rows
    classes, sessions = (Counter(row[name] for row in rows) for name in ('class', 'session'))
    print(f'{len(rows)} utterances of {len({row["speaker"] for row in rows})} speakers -> {output}')
    print('  by class: ' + _listed({name: classes[name] for name in settings.class_names}))
    print('  by session: ' + _listed({name: sessions[name] for name in SESSIONS}))
    if report.left_out:
        counts = {f'{EMOTIONS[code]} ({code})': count for code, count in report.left_out.most_common()}
        print('  left out, of no class: ' + _listed(counts))
    repeated = sum(row.get('distinct_frames', settings.num_frames) < settings.num_frames for row in rows)
    if repeated:
        print(
            f'  with fewer than {settings.num_frames} frames of their own: {repeated} (see the column distinct_frames)'
        )
    _compare(classes, sessions, settings)
    summary(report.skipped, report.remarks)
    print(f'next: python -m mmer_jax.records verify {output}')
    if 'vision' in settings.modalities:
        print(f'      python -m data_prep.look {output} --output grid.png')
    for m, config in CONFIGS.items():
        if m in settings.modalities:
            weights = ''
            if m == 'text':
                family = read_source(settings.tokenizer).get('family', 'bert')
                config, weights = f'{family}_iemocap', f' --config.pretrained.encoder={settings.tokenizer}'
            print(
                f'      python -m mmer_jax.main --config=configs/{config}.py --config.data.directory={output}{weights}'
            )


def _compare(classes: Counter, sessions: Counter, settings: Settings) -> None:
    """Prints a note where the counts are not those of the full release."""
    expected: Counter = Counter()
    for code, name in CLASSES[settings.classes].items():
        expected[name] += RELEASE[code]
    if classes != expected:
        print(f'note: the full release has {sum(expected.values())}: {_listed(expected)}')
    elif settings.classes == 'four' and dict(sessions) != RELEASE_FOUR:
        print(f'note: the full release has by session: {_listed(RELEASE_FOUR)}')


def _listed(counts: dict[str, int]) -> str:
    return ', '.join(f'{name} {count}' for name, count in counts.items())


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.iemocap',
        description='IEMOCAP -> record shards with the words, the sound and the pictures of each utterance.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = Settings()
    add = parser.add_argument
    add('--source', type=Path, required=True, help='folder with Session1 .. Session5, or its parent')
    add('--output', type=Path, required=True, help='shard directory to write')
    add('--modalities', nargs='+', choices=MODALITIES, default=list(MODALITIES), help='what to store')
    add('--classes', choices=CLASSES, default=default.classes, help='four: excited is happy; all: every label but xxx')
    add('--tokenizer', default=default.tokenizer, help='folder of converted weights whose token ids to store')
    add('--max_seconds', type=ranges.SECONDS_OR_0, default=default.max_seconds, help='of sound to take; 0: all of it')
    add('--screen', choices=SCREENS, default=default.screen, help="the speaker's half of the pictures, or all of them")
    add('--num_frames', type=ranges.FRAMES, default=default.num_frames, help='frames an utterance')
    add('--size', type=ranges.SIDE, default=default.size, help='height and width of the pictures stored')
    add('--workers', type=ranges.PROCESSES, default=os.cpu_count() or 1, help='processes; 0 or 1: this one')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    arguments = parser.parse_args(argv)
    arguments.modalities = tuple(name for name in MODALITIES if name in arguments.modalities)
    if 'text' in arguments.modalities and not arguments.tokenizer:
        parser.error('text needs --tokenizer NAME, the model whose token ids to store; or leave it out of --modalities')
    if 'text' not in arguments.modalities and arguments.tokenizer:
        parser.error(f'--tokenizer {arguments.tokenizer} needs text among --modalities')
    return arguments


def work(arguments: argparse.Namespace) -> None:
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    options = {name: getattr(arguments, name) for name in ('workers', 'num_shards', 'overwrite')}
    report = prepare(arguments.source, arguments.output, settings, **options)
    _print_report(report, arguments.output, settings)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
