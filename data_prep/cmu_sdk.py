"""CMU-MOSI or CMU-MOSEI from computational sequences of the CMU-MultimodalSDK -> record shards.

    python -m data_prep.cmu_sdk --dataset mosei --labels CMU_MOSEI_Labels.csd --words CMU_MOSEI_TimestampedWords.csd \
        --glove glove.840B.300d.txt --audio CMU_MOSEI_COVAREP.csd --vision CMU_MOSEI_VisualFacet42.csd \
        --folds cmu_mosei_std_folds.py --output data/mosei_glove

Each interval of the labels file is one record, `video[n]` as in the SDK. Its words, audio and vision are the steps
whose time overlaps it (data_prep/csd.py says how), each at its own rate: nothing is aligned, padded or cut to a
length. Text is one GloVe vector a word, without the pauses; --times adds `<modality>_times` (T, 2), seconds from the
start of the segment. A modality of which a segment has nothing but zeros is missing there. Labels: the sentiment in
[-3, 3] (the first column), or of MOSEI the presence of six emotions.

The video id stands for the speaker, since the SDK names no speakers; the standard folds share no video.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep import csd
from data_prep.pool import (
    PreparationError,
    Remark,
    Skipped,
    holds_nothing,
    missing,
    nothing_usable,
    run_command,
    summary,
)
from mmer_jax.data.records import Feature, Label, RecordWriter, Schema
from mmer_jax.media.text import WordVectors, embed, is_pause, read_glove
from mmer_jax.settings import ranges

LABEL_COLUMNS = {'mosi': 1, 'mosei': 7}
EMOTIONS = ('happy', 'sad', 'anger', 'surprise', 'disgust', 'fear')  # columns 1 to 6 of MOSEI's labels
NONFINITE = {
    'zero': 'replaced by 0',
    'mean': 'replaced by the mean of the finite values of the dimension over the training split',
    'refuse': 'refused',
}
SEGMENT_ID = re.compile(r'(.+)\[\d+\]')
NONFINITE_HELP = 'NaN and infinite values: ' + '; '.join(f'{name}: {what}' for name, what in NONFINITE.items())
Fill = np.ndarray | float | None
Steps = dict[str, tuple[np.ndarray, np.ndarray]]  # modality -> (features, intervals) of a whole video


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is made of the sequences. `unknown`: a word without a vector becomes 'zero' in its place, or 'drop'."""

    dataset: str = 'mosi'
    label: str = 'sentiment'
    nonfinite: str = 'zero'
    unknown: str = 'zero'
    keep_pauses: bool = False
    times: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """The arrays of one record by feature key, its words without the pauses, and those without a vector."""

    arrays: dict[str, np.ndarray]
    words: list[str]
    unknown: list[str]


@dataclasses.dataclass
class Report:
    """What was written, left out and replaced."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    skipped: list[tuple[str, Skipped]] = dataclasses.field(default_factory=list)
    remarks: list[tuple[str, Remark]] = dataclasses.field(default_factory=list)
    nonfinite: Counter = dataclasses.field(default_factory=Counter)  # modality -> values replaced
    untimed: Counter = dataclasses.field(default_factory=Counter)  # modality -> steps without a finite time
    tokens: int = 0
    unknown: Counter = dataclasses.field(default_factory=Counter)  # word -> how often it had no vector
    absent: list[str] = dataclasses.field(default_factory=list)  # videos of the folds that have no labels


def make_fill(policy: str, parts: Iterable[np.ndarray]) -> Fill:
    """What stands for a value that is not finite: 0 ('zero'), the mean ('mean'), or None, which refuses ('refuse').

    The mean is that of the finite values of each dimension over `parts`, arrays (T, D) of the training split, which
    are read for it alone: float32 (D,), 0 where a dimension has none.
    """
    if policy not in NONFINITE:
        raise ValueError(f'nonfinite is {policy!r}, expected one of {tuple(NONFINITE)}')
    if policy != 'mean':
        return 0.0 if policy == 'zero' else None
    total: Any = 0.0
    count: Any = 0
    for part in parts:
        finite = np.isfinite(part)
        total = total + np.where(finite, part, 0).sum(axis=0, dtype=np.float64)
        count = count + finite.sum(axis=0)
    return (total / np.maximum(count, 1)).astype(np.float32) if np.ndim(total) else 0.0


def replace_nonfinite(array: np.ndarray, fill: Fill, where: str) -> tuple[np.ndarray, int]:
    """(array with finite values only, how many of its values were not): float32 (T, D) or (D,).

    PreparationError with `where` and the count where `fill` is None. COVAREP files hold -inf and NaN.
    """
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count and fill is None:
        raise PreparationError(
            f'{where}: {count} of {array.size} values are NaN or infinite; --nonfinite zero or mean replaces them'
        )
    if not count:
        return array, 0
    return np.where(bad, np.broadcast_to(np.asarray(fill, np.float32), array.shape), array), count


def make_schema(settings: Settings, sizes: dict[str, int], sources: dict[str, str] | None = None) -> Schema:
    """The schema of the records; `sizes` has the values a step of 'text' and of 'audio', 'vision' where given."""
    note = {'text': 'one word vector a word', 'audio': 'one frame a step', 'vision': 'one frame a step'}
    features = {
        m: Feature((None, size), description=f'{note[m]}, not aligned', optional=True) for m, size in sizes.items()
    }
    if settings.times:
        seconds = 'start and end of each step, seconds from the start of the segment'
        features |= {f'{m}_times': Feature((None, 2), description=seconds, optional=True) for m in sizes}
    label = Label('regression') if settings.label == 'sentiment' else Label('binary', EMOTIONS)
    info = {'made_by': 'data_prep.cmu_sdk', **dataclasses.asdict(settings), 'sources': sources or {}}
    name = '_'.join((settings.dataset, *sizes)) + ('' if settings.label == 'sentiment' else '_emotions')
    return Schema(name, features, label, info)


def check_labels(labels: csd.Sequence, settings: Settings) -> None:
    """PreparationError where the labels file does not have the columns of the data set."""
    expected = LABEL_COLUMNS[settings.dataset]
    if settings.label == 'emotions' and settings.dataset != 'mosei':
        raise PreparationError(f'--label emotions: only mosei has emotions, found --dataset {settings.dataset}')
    if labels.is_text or labels.size != expected:
        found = 'words' if labels.is_text else f'{labels.size} numbers a segment'
        raise PreparationError(f'{labels.path} has {found}, expected {expected} for --dataset {settings.dataset}')


def check_folds(folds: dict[str, str], labels: csd.Sequence, path: Path) -> list[str]:
    """The videos of the folds without labels; PreparationError where no labelled video is in any fold."""
    videos = {video_of(name) for name in labels.videos}
    if not videos & set(folds):
        example = f'{min(folds)!r} in {path}, {min(videos)!r} in {labels.path}'
        raise PreparationError(f'no video of the folds has labels (for example {example}): folds of another data set?')
    return sorted(set(folds) - videos)


def video_of(name: str) -> str:
    """The video of a key: itself, or what stands before [n] in a file that the SDK has aligned to segments."""
    match = SEGMENT_ID.fullmatch(name)
    return match.group(1) if match else name


def read_vectors(glove: Path, words: csd.Sequence) -> WordVectors:
    """The vectors of all words of the file."""
    if not words.is_text:
        raise PreparationError(
            f'{words.path} holds {words.size} numbers a step, expected words (such as CMU_MOSI_TimestampedWords.csd)'
        )
    vocabulary: set[str] = set()
    for video in words.videos:
        vocabulary.update(words.read(video)[0].tolist())
    vectors = read_glove(glove, vocabulary)
    if not len(vectors):
        raise PreparationError(f'{glove} has a vector for none of the {len(vocabulary)} words of {words.path}')
    return vectors


def read_video(sequences: dict[str, csd.Sequence], name: str) -> Steps | Skipped:
    """{modality: (features, intervals)} of a key of the labels, found under the same key or that of its video."""
    whole, video = {}, video_of(name)
    for m, sequence in sequences.items():
        key = name if name in sequence else video
        if key not in sequence:
            return Skipped(f'the video has no {m}', f'{sequence.path} has no video {video}')
        whole[m] = sequence.read(key)
    return whole


def cut(steps: Steps, vectors: WordVectors, start: float, end: float, settings: Settings) -> Segment | Skipped:
    """One segment of a video; Skipped where it has no usable time or a modality has nothing in it."""
    if not np.isfinite([start, end]).all() or end < start:
        return Skipped('the label has no usable time', f'{start} to {end} s')
    parts = {m: csd.segment(*whole, start, end) for m, whole in steps.items()}
    tokens, times = parts['text']
    found = embed(tokens.tolist(), vectors, unknown=settings.unknown, keep_pauses=settings.keep_pauses)
    words = [token for token in tokens.tolist() if not is_pause(token)]
    if not words:
        return Skipped('no words in the segment', f'{start:.2f} to {end:.2f} s')
    parts['text'] = (found.array, times[found.kept])
    empty = [m for m, (array, _) in parts.items() if not len(array)]
    if empty:
        what = {'text': 'no word with a vector'}.get(empty[0], f'no {empty[0]}')
        return Skipped(f'{what} in the segment', f'{start:.2f} to {end:.2f} s')
    arrays = {m: array for m, (array, _) in parts.items()}
    if settings.times:
        arrays |= {f'{m}_times': seconds.astype(np.float32) for m, (_, seconds) in parts.items()}
    return Segment(arrays, words, found.unknown)


def prepare(
    paths: dict[str, Path],
    glove: Path,
    folds_path: Path,
    output: str | os.PathLike,
    settings: Settings,
    *,
    num_shards: int = 4,
    overwrite: bool = False,
) -> Report:
    """Writes the shard directory from `paths`: 'labels', 'text' (the words) and optionally 'audio', 'vision'.

    PreparationError or MediaError where a file cannot be used or nothing is left to write, FileExistsError where
    `output` exists without `overwrite`.
    """
    report = Report()
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(csd.Sequence(path)) for name, path in paths.items()}
        labels = opened.pop('labels')
        check_labels(labels, settings)
        folds = csd.read_folds(folds_path)
        report.absent = check_folds(folds, labels, folds_path)
        for m in opened:
            if m != 'text' and opened[m].is_text:
                raise PreparationError(f'{opened[m].path} holds words, expected numbers for --{m}')
        vectors = read_vectors(glove, opened['text'])
        training = {m: _training_parts(sequence, folds) for m, sequence in opened.items() if m != 'text'}
        fills = {m: make_fill(settings.nonfinite, parts) for m, parts in training.items()}
        sizes = {m: vectors.size if m == 'text' else sequence.size for m, sequence in opened.items()}
        schema = make_schema(settings, sizes, {name: path.name for name, path in {**paths, 'glove': glove}.items()})
        sources = [*paths.values(), glove, folds_path]
        options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': sources}
        writer = stack.enter_context(RecordWriter(output, schema, **options))
        for name in tqdm(labels.videos, desc=settings.dataset, file=sys.stderr, mininterval=0.5):
            if (split := folds.get(video_of(name))) is None:
                report.skipped.append((name, Skipped('the video is in no fold', f'{folds_path} has no {name}')))
                continue
            _write_video(writer, opened, vectors, labels, name, split, fills, settings, report)
        if not report.rows:
            hint = 'expected segments with the modalities asked for'
            raise nothing_usable(f'no usable segment in {labels.path}', report.skipped, hint)
    return report


def _training_parts(sequence: csd.Sequence, folds: dict[str, str]) -> Iterator[np.ndarray]:
    return (sequence.read(name)[0] for name in sequence.videos if folds.get(video_of(name)) == 'train')


def _write_video(
    writer: RecordWriter,
    sequences: Any,
    vectors: Any,
    labels: Any,
    name: str,
    split: str,
    fills: Any,
    settings: Settings,
    report: Report,
) -> None:
    targets, intervals = labels.read(name)
    steps, video = read_video(sequences, name), video_of(name)
    for m, (_, times) in steps.items() if isinstance(steps, dict) else ():
        report.untimed[m] += int((~np.isfinite(times)).any(axis=1).sum())
    for number, (target, (start, end)) in enumerate(zip(targets, intervals, strict=True)):
        identity = f'{video}[{number}]' if name == video else name
        found = steps if isinstance(steps, Skipped) else cut(steps, vectors, start, end, settings)
        if not np.isfinite(target).all():
            found = Skipped('the label is not finite', f'{labels.path}, {identity}: {target}')
        if isinstance(found, Skipped):
            report.skipped.append((identity, found))
            continue
        if settings.label == 'sentiment':
            label: Any = float(str(target[0]))  # the shortest digits: 2.4, not 2.4000000953674316
        else:
            label = (target[1:7] > 0).astype(np.int64)
        columns: dict[str, Any] = {'speaker': video, 'session': '', 'split': split}
        columns |= {'start': round(float(start), 3), 'end': round(float(end), 3), 'text': ' '.join(found.words)}
        write_segment(writer, {'id': identity, 'label': label}, found, columns, fills, report)


def write_segment(
    writer: RecordWriter,
    record: dict[str, Any],
    found: Segment,
    columns: dict[str, Any],
    fills: dict[str, Fill],
    report: Report,
) -> None:
    """Adds one record to the shards and its numbers to the report; a modality of zeros is missing, with its times."""
    modalities = [key for key in found.arrays if not key.endswith('_times')]
    lacks = {m: 'zeros throughout' for m in modalities if holds_nothing(found.arrays[m])}
    for key, array in found.arrays.items():
        record[key], count = replace_nonfinite(array, fills.get(key, 0.0), f'{record["id"]}, {key}')
        report.nonfinite[key] += count
        if key.removesuffix('_times') in lacks:
            record[key] = None
    report.remarks += [(record['id'], remark) for remark in missing(lacks, modalities)]
    report.tokens += len(found.words)
    report.unknown.update(found.unknown)
    writer.write(record, **columns)
    report.rows.append(columns)


def print_report(report: Report, output: Path) -> None:
    """The summary that both CMU preparations print."""
    splits = Counter(row['split'] for row in report.rows)
    videos = len({row['speaker'] for row in report.rows})
    print(f'{len(report.rows)} segments of {videos} videos -> {output}')
    print('  by split: ' + ', '.join(f'{name} {splits[name]}' for name in ('train', 'validation', 'test')))
    missing = sum(report.unknown.values())
    share = 1 - missing / max(report.tokens, 1)
    often = ', '.join(f'{word} {count}' for word, count in report.unknown.most_common(5)) or 'none'
    print(f'  words: {report.tokens}, of which {share:.1%} have a vector (most missed: {often})')
    print('  values that were not finite: ' + (_counts(report.nonfinite) or 'none'))
    if _counts(report.untimed):
        print(f'  steps without a finite time, left out: {_counts(report.untimed)}')
    if report.absent:
        more = ', ...' if len(report.absent) > 5 else ''
        print(f'  videos of the folds without labels: {len(report.absent)} ({", ".join(report.absent[:5])}{more})')
    summary(report.skipped, report.remarks)
    print(f'next: python -m mmer_jax.records verify {output}')


def _counts(counter: Counter) -> str:
    return ', '.join(f'{key} {count}' for key, count in counter.items() if count)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.cmu_sdk', description='Computational sequences of the CMU-MultimodalSDK -> shards.'
    )
    add, default = parser.add_argument, Settings()
    add('--dataset', choices=tuple(LABEL_COLUMNS), required=True)
    add('--labels', type=Path, required=True, help='.csd with the label intervals')
    add('--words', type=Path, required=True, help='.csd with the words and their times')
    add('--glove', type=Path, required=True, help='word vectors as text, such as glove.840B.300d.txt')
    add('--audio', type=Path, help='.csd of acoustic frames, such as COVAREP')
    add('--vision', type=Path, help='.csd of visual frames, such as FACET or OpenFace')
    add('--folds', type=Path, required=True, help='the standard folds: JSON, or cmu_mosei_std_folds.py of the SDK')
    add('--output', type=Path, required=True, help='shard directory to write')
    add('--label', choices=('sentiment', 'emotions'), default=default.label, help='emotions: six of MOSEI, presence')
    add('--nonfinite', choices=list(NONFINITE), default=default.nonfinite, help=NONFINITE_HELP)
    add('--unknown', choices=('zero', 'drop'), default=default.unknown, help='what a word without a vector becomes')
    add('--keep_pauses', action='store_true', help="keep the pauses 'sp' as zero vectors")
    add('--times', action='store_true', help='store the times of the steps too')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    paths = {'labels': arguments.labels, 'text': arguments.words}
    paths |= {m: path for m in ('audio', 'vision') if (path := getattr(arguments, m)) is not None}
    options = {'num_shards': arguments.num_shards, 'overwrite': arguments.overwrite}
    report = prepare(paths, arguments.glove, arguments.folds, arguments.output, settings, **options)
    print_report(report, arguments.output)
    if {'audio', 'vision'} <= set(paths) and settings.label == 'sentiment':
        config = f'configs/mfsa_{settings.dataset}.py'
        print(f'      python -m mmer_jax.main --config={config} --config.data.directory={arguments.output}')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
