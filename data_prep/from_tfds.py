"""A corpus that TensorFlow Datasets prepared (crema_d, savee) -> record shards with its sound, without TensorFlow.

    python -m data_prep.from_tfds --source ~/tensorflow_datasets/crema_d/1.0.0 --output data/crema_d_tfds
    python -m data_prep.from_tfds --source ~/tensorflow_datasets/savee/1.0.0 --output data/savee --audio waveform

The source has TFRecord or ArrayRecord files whose examples hold a sound (tfds.features.Audio), a label (ClassLabel or a
number) and mostly the speaker. Sound is read as `data_prep.clips` reads a wav file, and what is written says how, so
that `mmer_jax.predict` reads new clips the same way. The splits of TFDS become the column `split`; not so with
--speaker_folds: folds are then made over speakers.
"""

import argparse
import dataclasses
import os
import re
import sys
import tempfile
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import sound_flags
from data_prep.clips_table import SPLITS
from data_prep.pool import PreparationError, Skipped, nothing_usable, process, run_command, summary
from mmer_jax.data.records import Label, RecordError, RecordWriter, Schema
from mmer_jax.data.tfds_directory import FEATURES, Described, Example, TfdsDirectory, read_directory
from mmer_jax.media import MediaError
from mmer_jax.readers import Clip, Sound, to_info
from mmer_jax.readers.sound import FEATURES as KINDS
from mmer_jax.settings import ranges

SPEAKER = 'speaker_id'  # of crema_d and savee
PCM = np.iinfo(np.int16)
NO_LABEL = -1  # of a ClassLabel
LAYOUT = 'expected examples with a sound, a label and mostly speaker_id'


@dataclasses.dataclass(frozen=True)
class Keys:
    """Which features of an example are taken. speaker: '' where there is none."""

    audio: str
    label: str
    speaker: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.audio, self.label, self.speaker)))


@dataclasses.dataclass(frozen=True)
class Job:
    example: Example
    source: TfdsDirectory
    keys: Keys
    rate: int  # Hz, of the samples stored; 0: a whole sound file is stored
    label: Label
    reader: Sound


def choose_keys(source: TfdsDirectory, audio: str, label: str, speaker: str | None) -> Keys:
    """PreparationError where a feature is not there, or is of no kind that can be read."""
    found = ', '.join(f'{key} ({feature.kind})' for key, feature in source.features.items())
    asked = {'audio_key': audio, 'label_key': label, **({} if speaker is None else {'speaker_key': speaker})}
    for flag, key in asked.items():
        if key not in source.features:
            raise PreparationError(f'{source.path} has no feature {key!r}: it has {found}; name another by --{flag}')
    sound = source.features[audio]
    stored = sound.get('lazy_decode') or (sound.dtype.startswith('int') and len(sound.shape) in (1, 2))
    if sound.kind != 'Audio' or not stored or str(sound.get('encoding')).lower() == 'zlib':
        wanted = 'expected an Audio of whole numbers, mono or (samples, channels), not compressed'
        raise PreparationError(
            f'{source.path}: {audio!r} is {sound.kind} {sound.dtype} {sound.shape}, {wanted}; it has {found}'
        )
    if source.features[label].kind != 'ClassLabel' and not _is_number(source.features[label], 'f'):
        given = source.features[label]
        raise PreparationError(
            f'{source.path}: {label!r} is {given.kind} {given.dtype} {given.shape}, expected a ClassLabel or one float'
        )
    if speaker is None and SPEAKER in source.features:
        speaker = SPEAKER
    if speaker:
        who = source.features[speaker]
        if not (who.is_text or who.kind == 'ClassLabel' or _is_number(who, 'iu')):
            raise PreparationError(f'{source.path}: {speaker!r} is {who.kind} {who.dtype} {who.shape}, expected a text')
    return Keys(audio, label, speaker or '')


def _is_number(feature: Described, kinds: str) -> bool:
    try:
        return feature.shape == () and np.dtype(feature.dtype).kind in kinds
    except TypeError:
        return False


def choose_rate(source: TfdsDirectory, key: str, given: int | None) -> int:
    """Hz of the samples stored, 0 where whole files are. PreparationError where neither metadata nor flag says it."""
    if source.features[key].get('lazy_decode'):
        return 0
    rate = int(source.features[key].get('sample_rate') or given or 0)
    if not rate:
        raise PreparationError(f'{source.path}: {FEATURES} has no sample rate of {key!r}; give it with --source_rate')
    if fault := ranges.SAMPLE_RATE.fault(rate):
        raise PreparationError(f'{source.path}: the sample rate of {key!r} in {FEATURES}: {fault}')
    return rate


def read_example(job: Job) -> dict[str, Any]:
    """{'label', 'speaker', 'arrays', 'columns', 'missing'} of one example.

    MediaError where it has no label or its sound cannot be used; RecordError where it is not what the metadata say.
    """
    found = job.source.read(job.example, job.keys.names)
    label = _label(job, found[job.keys.label])
    if job.rate:
        suffix, content = '.wav', None
        samples = _samples(job, np.asarray(found[job.keys.audio]))
    else:
        suffix, content = '', found[job.keys.audio]
    with tempfile.TemporaryDirectory() as folder:  # a reader reads files
        path = Path(folder) / f'sound{suffix}'
        if content is None:
            _write_wav(path, samples, job.rate)
        else:
            path.write_bytes(content)
        try:
            reading = job.reader.read(Clip(job.example.id, path))
        except MediaError as error:
            raise MediaError(job.example.where, error.reason, error.detail) from error
    why = {} if reading.array is not None else {'audio': reading.missing}
    return {
        'label': label,
        'speaker': _speaker(job, found) if job.keys.speaker else '',
        'arrays': {'audio': reading.array},
        'columns': dict(reading.columns),
        'missing': why,
    }


def _label(job: Job, value: Any) -> int | float:
    if job.label.kind == 'regression':
        if not np.isfinite(value):
            raise MediaError(job.example.where, 'a label that is no number', f'found {value}')
        return float(value)
    if value == NO_LABEL:
        raise MediaError(job.example.where, 'no label', f'{job.keys.label} is {NO_LABEL}')
    if not 0 <= value < len(job.label.names):
        last = len(job.label.names) - 1
        raise RecordError(
            f'{job.example.where}: {job.keys.label} is {value}, expected 0 to {last} ({", ".join(job.label.names)}); '
            'the shards are of another version than the metadata'
        )
    return int(value)


def _speaker(job: Job, found: dict[str, Any]) -> str:
    value = found[job.keys.speaker]
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace').strip()
    if job.source.features[job.keys.speaker].kind == 'ClassLabel':
        names = job.source.class_names(job.keys.speaker)
        return names[value] if 0 <= value < len(names) else ''
    return str(value)


def _samples(job: Job, samples: np.ndarray) -> np.ndarray:
    """int16 (S,) or (S, channels): TFDS stores the samples of 16-bit files as they are, in int64."""
    if not samples.size:
        raise MediaError(job.example.where, 'no samples')
    if samples.min() < PCM.min or samples.max() > PCM.max:
        raise RecordError(
            f'{job.example.where}: {job.keys.audio} has values from {samples.min()} to {samples.max()}, expected '
            'samples of 16 bits'
        )
    return samples.astype('<i2')


def _write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


@dataclasses.dataclass
class Report:
    """What the command prints."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    labels: list[Any] = dataclasses.field(default_factory=list)
    skipped: list[tuple[str, Skipped]] = dataclasses.field(default_factory=list)


def make_schema(name: str, source: TfdsDirectory, keys: Keys, reader: Sound) -> Schema:
    is_classes = source.features[keys.label].kind == 'ClassLabel'
    label = Label('classes', source.class_names(keys.label)) if is_classes else Label('regression')
    of = {'name': source.name, 'version': source.version, **dataclasses.asdict(keys)}
    info = {'dataset': name, 'made_by': 'data_prep.from_tfds', 'readers': to_info([reader]), 'tfds': of}
    return Schema(name, {'audio': reader.feature()}, label, info)


def prepare(
    source: TfdsDirectory,
    output: str | os.PathLike,
    keys: Keys,
    reader: Sound,
    *,
    name: str,
    rate: int,
    speaker_folds: bool = False,
    workers: int = 0,
    num_shards: int = 4,
    overwrite: bool = False,
) -> Report:
    """Writes the shard directory.

    PreparationError or RecordError where nothing can be written, FileExistsError where `output` exists without
    `overwrite`.
    """
    schema, report = make_schema(name, source, keys, reader), Report()
    jobs = [Job(example, source, keys, rate, schema.label, reader) for example in source.examples()]
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': [source.path]}
    with RecordWriter(output, schema, **options) as writer:
        for job, result in process(read_example, jobs, workers=workers, description=name):
            identity, split = job.example.id, job.example.split
            if isinstance(result, Skipped):
                report.skipped.append((identity, result))
                continue
            if result['missing']:
                detail = f'{job.example.where}: {result["missing"]["audio"]}'
                report.skipped.append((identity, Skipped('nothing to store', detail, True)))
                continue
            official = '' if speaker_folds else SPLITS.get(split.lower(), '')
            columns = {'speaker': result['speaker'], 'split': official, 'tfds_split': split, **result['columns']}
            writer.write({'id': identity, 'label': result['label'], **result['arrays']}, **columns)
            report.rows.append(columns)
            report.labels.append(result['label'])
        if not report.rows:
            raise nothing_usable(f'no usable example in {source.path}', report.skipped, LAYOUT)
    return report


def _print_report(report: Report, source: TfdsDirectory, keys: Keys, arguments: argparse.Namespace) -> None:
    speakers = {row['speaker'] for row in report.rows} - {''}
    print(f'{len(report.rows)} clips{f" of {len(speakers)} speakers" if speakers else ""} -> {arguments.output}')
    print(f'  audio: {arguments.reader.feature().description}')
    if source.features[keys.label].kind == 'ClassLabel':
        counts = Counter(report.labels)
        names = source.class_names(keys.label)
        print(f'  {keys.label}: ' + ', '.join(f'{name} {counts[n]}' for n, name in enumerate(names)))
    else:
        print(f'  {keys.label}: numbers from {min(report.labels):g} to {max(report.labels):g}')
    splits = Counter(row['tfds_split'] for row in report.rows)
    kept = {row['split'] for row in report.rows} >= {'train', 'validation', 'test'}
    use = 'the official split' if kept else 'not used: folds are over speakers' if len(speakers) > 2 else 'not used'
    print(f'  splits of TFDS ({use}): ' + ', '.join(f'{name} {count}' for name, count in splits.items()))
    if not kept and len(speakers) < 3:
        print(
            f'warning: {len(speakers) or "no"} speakers are known (--speaker_key), so the same voices are trained on '
            'and tested: such results are too high for new people, and each row is marked'
        )
    if others := [key for key in source.features if key not in keys.names]:
        print(f'  not read: {", ".join(others)}')
    summary(report.skipped)
    print(f'next: python -m mmer_jax.records verify {arguments.output}')
    config = 'configs/own_fine_tuned.py' if arguments.audio == 'waveform' else 'configs/own_audio_vision.py'
    run = f'--config={config} --config.data.directory={arguments.output} --workdir=runs/{arguments.output.name}'
    print(f'      python -m mmer_jax.main {run}')


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.from_tfds',
        description='A corpus that TensorFlow Datasets prepared (crema_d, savee) -> record shards.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('--source', type=Path, required=True, help='folder of one version, such as tensorflow_datasets/crema_d/1.0.0')
    add('--output', type=Path, required=True, help='shard directory to write')
    add('--name', type=_name, help="of the data set; by default TFDS's, and _tfds")
    add('--audio', choices=KINDS, default='mfcc', help='how the sound is stored')
    add('--audio_key', default='audio', help='name of the feature that is the sound')
    add('--label_key', default='label', help='name of the feature that is the label')
    add('--speaker_key', help=f'name of the feature that is the speaker; {SPEAKER} where there is one')
    add('--source_rate', type=ranges.SAMPLE_RATE, help='Hz of the sound, where the metadata do not say it')
    add('--speaker_folds', action='store_true', help='leave the splits of TFDS out: folds are made over speakers')
    sound_flags.add_flags(parser)
    add('--workers', type=ranges.PROCESSES, default=os.cpu_count() or 1, help='processes; 0 or 1: this one')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    arguments = parser.parse_args(argv)
    sound_flags.check(parser, arguments)
    arguments.reader = sound_flags.reader(arguments.audio, arguments)
    return arguments


def _name(text: str) -> str:
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_]*', text):
        raise argparse.ArgumentTypeError(f'{text!r}: expected letters, digits and underscores')
    return text


def work(arguments: argparse.Namespace) -> None:
    source = read_directory(arguments.source)
    keys = choose_keys(source, arguments.audio_key, arguments.label_key, arguments.speaker_key)
    name = arguments.name or f'{re.sub(r"[^A-Za-z0-9]+", "_", source.name).strip("_")}_tfds'
    options = {k: getattr(arguments, k) for k in ('speaker_folds', 'workers', 'num_shards', 'overwrite')}
    rate = choose_rate(source, keys.audio, arguments.source_rate)
    report = prepare(source, arguments.output, keys, arguments.reader, name=name, rate=rate, **options)
    _print_report(report, source, keys, arguments)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
