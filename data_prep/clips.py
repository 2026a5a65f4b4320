"""Your own clips: a csv of files and labels -> record shards with their sound, pictures and words.

    python -m data_prep.clips --csv labels.csv --media FOLDER --output data/mine
    python -m data_prep.clips --csv labels.csv --output data/mine --audio waveform --vision none --tokenizer bert-base
    python -m data_prep.clips --csv labels.csv --output data/mine --vision OPENFACE_FOLDER --audio none

The csv has the columns path,label and optionally text,speaker,session,split,start,end,id; flags map other names. Labels
are classes, numbers, or with several --label_column one 0/1 each. --audio and --vision are kinds of features or a
folder of features extracted elsewhere (.npy, .npz, tables of OpenFace or openSMILE), one file per clip, of its name or
id. What a clip lacks is masked. What is written says how each clip was read, so that `mmer_jax.predict` reads new ones
the same way. Nothing is split here, but for a column `split`.
"""

import argparse
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep import sound_flags
from data_prep.clips_table import Table, read_clips
from data_prep.pool import (
    PreparationError,
    Remark,
    Skipped,
    missing,
    nothing_usable,
    process,
    run_command,
    summary,
)
from mmer_jax.data.records import RecordWriter, Schema
from mmer_jax.data.schema import MODALITIES
from mmer_jax.media import MediaError, audio, faces
from mmer_jax.readers import Clip, Pictures, Reader, Sound, Tokens, WordVectorsOf, given, read_record, sound, to_info
from mmer_jax.readers.pictures import FRAME_CHOICES, has_pictures
from mmer_jax.settings import ranges
from mmer_jax.settings.command import WrongCall

PROBED = 20  # clips that are opened to tell whether there are pictures or sound at all
AUTO, NONE = 'auto', 'none'
KINDS = ('auto', 'classes', 'regression', 'binary')
LAYOUT = 'expected a csv with the columns path and label, whose paths begin at --media'


@dataclasses.dataclass(frozen=True)
class Job:
    clip: Clip
    readers: tuple[Reader, ...]


@dataclasses.dataclass
class Report:
    """What the command prints."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    labels: list[Any] = dataclasses.field(default_factory=list)
    skipped: list[tuple[str, Skipped]] = dataclasses.field(default_factory=list)
    remarks: list[tuple[str, Remark]] = dataclasses.field(default_factory=list)


def choose_readers(arguments: argparse.Namespace, table: Table) -> list[Reader]:
    """The readers that the flags ask for; `auto` takes what the clips have.

    PreparationError, MediaError or FileNotFoundError where one cannot be used.
    """
    clips = [row.clip for row in table.rows]
    readers: list[Reader] = []
    if reader := _text_reader(arguments, clips):
        readers.append(reader)
    probed = [clip.path for clip in clips if clip.path is not None][:PROBED]
    if arguments.audio in sound.FEATURES or (arguments.audio == AUTO and any(map(_has_sound, probed))):
        kind = Sound.features if arguments.audio == AUTO else arguments.audio
        readers.append(sound_flags.reader(kind, arguments))
    elif arguments.audio not in (AUTO, NONE):
        readers.append(_given('audio', arguments.audio, clips))
    if arguments.vision == 'frames' or (arguments.vision == AUTO and any(map(has_pictures, probed))):
        names = [field.name for field in dataclasses.fields(Pictures)]
        readers.append(Pictures(**{name: getattr(arguments, name) for name in names}))
    elif arguments.vision not in (AUTO, NONE):
        readers.append(_given('vision', arguments.vision, clips))
    if not readers:
        raise PreparationError(
            f'{table.path}: there is nothing to store. The clips have neither sound nor pictures, or --audio and '
            '--vision are none; of words --tokenizer or --glove must say how they are stored'
        )
    for one in readers:
        one.check()
    return readers


def _text_reader(arguments: argparse.Namespace, clips: Sequence[Clip]) -> Reader | None:
    chosen = [name for name in ('tokenizer', 'glove', 'text') if getattr(arguments, name)]
    if len(chosen) > 1:
        raise WrongCall(f'--{chosen[0]} and --{chosen[1]} both say how words are stored: give one')
    if arguments.text:
        return _given('text', arguments.text, clips)
    if chosen and not any(clip.text for clip in clips):
        raise PreparationError(f'--{chosen[0]} needs words: the csv has no column text, or it is empty (--text_column)')
    if arguments.tokenizer:
        return Tokens(arguments.tokenizer, arguments.max_tokens)
    return WordVectorsOf(str(arguments.glove.absolute())).with_size() if arguments.glove else None


def _given(modality: str, folder: str, clips: Sequence[Clip]) -> Reader:
    if not Path(folder).is_dir():
        kinds = {'audio': f'{", ".join(sound.FEATURES)}, none', 'vision': 'frames, none', 'text': 'a folder'}[modality]
        raise PreparationError(
            f'--{modality} {folder} is neither a kind of feature ({kinds}) nor a folder of features extracted elsewhere'
        )
    first = next(filter(None, (given.find(Path(folder), clip) for clip in clips)), None)
    if first is None:
        expected = f'{clips[0].names()[0]}.npy, .npz or .csv' if clips else 'a file per clip'
        raise PreparationError(f'--{modality} {folder} has no file of any clip; expected such as {expected}')
    return given.like(modality, first, Path(folder).absolute())


def _has_sound(path: Path) -> bool:
    try:
        audio.load_audio(path, duration=0.05)
    except MediaError as error:
        return error.reason not in (sound.NO_SOUND, 'no samples', 'cannot be decoded')
    return True


def make_schema(name: str, readers: Sequence[Reader], table: Table) -> Schema:
    info = {'dataset': name, 'made_by': 'data_prep.clips', 'readers': to_info(readers)}
    by_modality = {reader.modality: reader for reader in readers}
    features = {m: by_modality[m].feature() for m in MODALITIES if m in by_modality}
    return Schema(name, features, table.label, info)


def read_clip(job: Job) -> dict[str, Any]:
    """{'arrays', 'columns', 'missing'} of one clip. MediaError where a file cannot be used."""
    arrays, columns, lacks = read_record(job.clip, job.readers)
    return {'arrays': arrays, 'columns': columns, 'missing': lacks}


def prepare(
    table: Table,
    output: str | os.PathLike,
    readers: Sequence[Reader],
    *,
    name: str,
    workers: int = 0,
    num_shards: int = 4,
    overwrite: bool = False,
) -> Report:
    """Writes the shard directory.

    PreparationError where nothing can be written, FileExistsError where `output` exists without `overwrite`.
    """
    report = Report(skipped=list(table.skipped))
    folders = {reader.modality: Path(reader.folder) for reader in readers if isinstance(reader, given.Given)}
    jobs = []
    for row in table.rows:
        found = {m: given.find(folder, row.clip) for m, folder in folders.items()}
        clip = dataclasses.replace(row.clip, given={m: path for m, path in found.items() if path is not None})
        jobs.append(Job(clip, tuple(readers)))
    sources = [table.path, *(job.clip.path for job in jobs if job.clip.path is not None), *folders.values()]
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': sources}
    modalities = [reader.modality for reader in readers]
    shown = process(read_clip, jobs, workers=workers, description=name)
    with RecordWriter(output, make_schema(name, readers, table), **options) as writer:
        for row, (_, result) in zip(table.rows, shown, strict=True):
            where = f'line {row.line}'
            if isinstance(result, Skipped):
                detail = f'{table.path}, {where}: {result.detail}'
                report.skipped.append((where, dataclasses.replace(result, detail=detail)))
                continue
            lacks = result['missing']
            if len(lacks) == len(readers):
                why = ', '.join(f'{m}: {reason}' for m, reason in lacks.items())
                detail = f'{table.path}, {where}: nothing of {row.clip.path or row.clip.id} can be stored ({why})'
                report.skipped.append((where, Skipped('nothing to store', detail, True)))
                continue
            columns = {**row.columns, **result['columns']}
            writer.write({'id': row.clip.id, 'label': row.label, **result['arrays']}, **columns)
            report.rows.append(columns)
            report.labels.append(row.label)
            report.remarks += [(where, one) for one in missing(lacks, modalities)]
        if not report.rows:
            raise nothing_usable(f'no usable clip in {table.path}', report.skipped, LAYOUT)
    return report


def _print_report(report: Report, table: Table, readers: Sequence[Reader], arguments: argparse.Namespace) -> None:
    output, label = arguments.output, table.label
    speakers = {row['speaker'] for row in report.rows} - {''}
    print(f'{len(report.rows)} clips{f" of {len(speakers)} speakers" if speakers else ""} -> {output}')
    print('  features: ' + '; '.join(f'{reader.modality}: {reader.feature().description}' for reader in readers))
    if label.kind == 'regression':
        low, high = min(report.labels), max(report.labels)
        print(f'  label: numbers from {low:g} to {high:g} ({table.why_label})')
    elif label.kind == 'classes':
        counts = Counter(report.labels)
        named = ', '.join(f'{name} {counts[n]}' for n, name in enumerate(label.names))
        print(f'  label: classes ({table.why_label}): {named}')
        if absent := [name for n, name in enumerate(label.names) if not counts[n]]:
            print(f'note: no clip is of the class {", ".join(absent)}')
    else:
        sums = [sum(values) for values in zip(*report.labels, strict=True)]
        print('  label: 0 or 1 each: ' + ', '.join(f'{n} {s}' for n, s in zip(label.names, sums, strict=True)))
    _print_protocol(report, speakers)
    if not arguments.tokenizer and not arguments.glove and not arguments.text and any(r.clip.text for r in table.rows):
        print('note: the column text is kept, but no model reads it: --tokenizer NAME or --glove FILE stores the words')
    summary(report.skipped, report.remarks)
    print(f'next: python -m mmer_jax.records verify {output}')
    config = _config_for(readers, label.kind)
    run = f'--config={config} --config.data.directory={output} --workdir=runs/{arguments.name}'
    print(f'      python -m mmer_jax.main {run}')


def _print_protocol(report: Report, speakers: set[str]) -> None:
    splits = Counter(row['split'] for row in report.rows)
    if all(splits[name] for name in ('train', 'validation', 'test')):
        print('  split: ' + ', '.join(f'{name} {splits[name]}' for name in ('train', 'validation', 'test')))
        return
    if splits.keys() - {''}:
        print('note: the column split lacks train, validation or test, so it is not used by default')
    if len(speakers) < 3:
        print(
            f'warning: {len(speakers) or "no"} speakers are known (column speaker, --speaker_column), so the same '
            'voices and faces are trained on and tested: such results are too high for new people, and each row is '
            'marked'
        )
    elif unknown := sum(not row['speaker'] for row in report.rows):
        print(f'note: {unknown} clips have no speaker; together they count as one')


def _config_for(readers: Sequence[Reader], kind: str) -> str:
    waves = any(isinstance(reader, Sound) and reader.features == 'waveform' for reader in readers)
    if len(readers) == 1 and isinstance(one := readers[0], Tokens):
        return fine_tuning_of(one.tokenizer)
    if len(readers) == 1 and waves:
        return 'configs/own_fine_tuned.py'
    has_text = any(reader.modality == 'text' for reader in readers)
    return 'configs/own_text_audio.py' if has_text or kind == 'regression' else 'configs/own_audio_vision.py'


def fine_tuning_of(weights: str) -> str:
    """The config, and what is set in it, that fine-tunes the text encoder whose token ids were stored."""
    from mmer_jax import pretrained  # brings jax, for which other clips do not wait

    family = pretrained.read_source(weights).get('family', 'bert')
    means = family == 'bert' and 'minilm' in Path(weights).name.lower()  # its sentence vectors are means of the steps
    variant = 'minilm' if means else family
    return f'configs/own_fine_tuned.py:{variant} --config.pretrained.encoder={weights}'


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.clips',
        description='Your own clips and their labels in a csv -> record shards.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('--csv', type=Path, required=True, help='table of the clips: path,label and optionally text,speaker,...')
    add('--media', type=Path, help="folder that the paths begin at; the csv's own by default")
    add('--output', type=Path, required=True, help='shard directory to write')
    add('--name', type=_name, default='', help='of the data set; by default that of --output')
    add('--label_column', nargs='+', default=[], help='the label; several: one column of 0 and 1 per emotion')
    for column in ('path', 'text', 'speaker', 'session', 'split', 'start', 'end', 'id'):
        add(f'--{column}_column', default=column, help=f'name of the column {column}')
    add('--label_kind', choices=KINDS, default='auto', help='what the labels are')
    add('--classes', nargs='+', default=[], help='the classes in their order; others are skipped')
    add('--audio', default=AUTO, help=f'auto, {", ".join(sound.FEATURES)}, none, or a folder of features')
    add('--vision', default=AUTO, help='auto, frames, none, or a folder of features')
    add('--text', default='', help='a folder of features of the words')
    add('--tokenizer', default='', help='folder of converted weights whose token ids of the words are stored')
    add('--max_tokens', type=ranges.COUNT, default=512, help='of a clip, with --tokenizer')
    add('--glove', type=Path, help="word vectors in GloVe's text format")
    sound_flags.add_flags(parser)
    add('--frames', type=ranges.FRAMES, default=8, help='pictures per clip')
    add('--frame_choice', choices=tuple(FRAME_CHOICES), default='even', help='which pictures of a clip')
    add('--crop', choices=faces.CROPS, default='center', help='what of a picture to keep')
    add('--size', type=ranges.SIDE, default=112, help='height and width of the pictures stored')
    add('--quality', type=ranges.QUALITY, default=95, help='of JPEG, 1 to 95')
    add('--min_face', type=ranges.FACE, default=20, help='pixels, the smallest face that --crop mtcnn seeks')
    add('--workers', type=ranges.PROCESSES, default=os.cpu_count() or 1, help='processes; 0 or 1: this one')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    arguments = parser.parse_args(argv)
    arguments.name = arguments.name or re.sub(r'[^A-Za-z0-9]+', '_', arguments.output.name).strip('_') or 'clips'
    sound_flags.check(parser, arguments)
    return arguments


def _name(text: str) -> str:
    if text and not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_]*', text):
        raise argparse.ArgumentTypeError(f'{text!r}: expected letters, digits and underscores')
    return text


def work(arguments: argparse.Namespace) -> None:
    columns = ('path', 'text', 'speaker', 'session', 'split', 'start', 'end', 'id')
    kinds = {m: getattr(arguments, m) for m in ('audio', 'vision')}
    needs_media = any(kind in (AUTO, 'frames', *sound.FEATURES) for kind in kinds.values())
    table = read_clips(
        arguments.csv,
        arguments.media,
        names={column: getattr(arguments, f'{column}_column') for column in columns},
        labels=arguments.label_column,
        label_kind=arguments.label_kind,
        classes=arguments.classes,
        needs_media=needs_media,
    )
    if not table.rows:
        raise nothing_usable(f'no usable clip in {table.path}', table.skipped, LAYOUT)
    readers = choose_readers(arguments, table)
    options = {name: getattr(arguments, name) for name in ('name', 'workers', 'num_shards', 'overwrite')}
    report = prepare(table, arguments.output, readers, **options)
    _print_report(report, table, readers, arguments)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
