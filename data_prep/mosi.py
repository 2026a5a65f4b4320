"""CMU-MOSI's text and utterance audio, from public files of a few megabytes -> record shards.

    python -m data_prep.mosi --source DIR --output data/mosi_text_audio

--source holds CMU_MOSI_Opinion_Labels.csd, CMU_MOSI_ModifiedTimestampedWords.csd and std_folds.json (CMU-MultimodalSDK;
Zadeh et al. 2016), transcripts.csv and utterance_audio_{train,test}.csv (bc-LSTM, Poria et al. 2017,
https://github.com/declare-lab/multimodal-deep-learning), and word vectors in GloVe's text format.

All 2,199 segments, the standard split by video: 1,284 / 229 / 686. Label: sentiment in [-3, 3].

**Text** (T, 300): one GloVe vector a word of the segment's own transcript. The word times of the .csd would do too,
but its label intervals begin 0.4 s (median) before their words, up to 1.8 s: a cut by time takes the last word of
the segment before and loses its own last one ("it was really | good"). 0.3 % of cut segments equal their transcript,
and a TF-IDF ridge regression does worse on them. `--words csd` cuts by time all the same, as the SDK would.
A subset of GloVe may lack words that carry much of the sentiment ("terrible", "didnt"), and GloVe puts "good" beside
"bad". So each word that the training split says twice or more has a dimension of its own behind GloVe's, and a model's
first layer learns a vector for it; `--indicators unknown` gives one to the words without a GloVe vector alone,
`--indicators none` to no word.
`--tokenizer NAME` stores the token ids (T,) of a pretrained model instead, from the transcript as it is written; NAME
is a folder of weights, or below $MMER_PRETRAINED. Manifest columns: text, the transcript, and tokens, those of the ids.
`--context N` puts the N segments before, by time, behind each: text (T, 2), ids and types, 1 of the context.

**Audio** (73,): one vector a segment, no time axis. The rows of the CSV files carry no ids. Their order is that of
bc-LSTM's data: videos numbered 1 to 62 (third column of transcripts.csv) in `train`, the others in `test`; in each
file first the segments of label 1, then those of label 0, in the order of transcripts.csv. Two guards: the label in
each row must agree with the sentiment's sign, and the values must cluster by video, as voices do; the labels alone
would not notice a wrong order within a class.
"""

import argparse
import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import csd
from data_prep.clips import fine_tuning_of
from data_prep.cmu_sdk import NONFINITE, NONFINITE_HELP, Report, Segment, make_fill, print_report, write_segment
from data_prep.mosi_text import (
    AUDIO_SIZE,
    GLOVE,
    WORDS,
    Labels,
    Line,
    texts_before,
    token_reader,
    vector_reader,
)
from data_prep.pool import PreparationError, Skipped, nothing_usable, run_command
from mmer_jax.data.records import RecordWriter
from mmer_jax.files import links
from mmer_jax.media.textfile import read_rows
from mmer_jax.settings import ranges

LABELS, TRANSCRIPTS, FOLDS = 'CMU_MOSI_Opinion_Labels.csd', 'transcripts.csv', 'std_folds.json'
AUDIO = {'train': 'utterance_audio_train.csv', 'test': 'utterance_audio_test.csv'}
TRAIN_VIDEOS = 62  # of bc-LSTM's own split, which is not the standard one
SPLIT_COUNTS = {'train': 1284, 'validation': 229, 'test': 686}
INDICATORS = ('frequent', 'unknown', 'none')
LEAST_AGREEMENT = 0.99  # measured: 1.0
LEAST_SHARE = 0.5  # of each file's variance lies between videos; measured: 0.57, rows in random order: 0.04


def read_transcripts(path: Path) -> list[Line]:
    """The rows of transcripts.csv in the order of the file: id (video_1 ...), text, number of the video, label."""
    lines = []
    for number, row in read_rows(path, 'rows of segment id, text, video number, label'):
        match = re.fullmatch(r'(.+)_([1-9][0-9]*)', row[0]) if len(row) == 4 else None
        if match is None or not re.fullmatch('[0-9]+', row[2]) or row[3] not in ('0', '1'):
            found = f'line {number} is {row}'
            raise PreparationError(f'{path}: {found}, expected segment id, text, video number and 0 or 1')
        lines.append(Line(match.group(1), int(match.group(2)) - 1, row[1], int(row[2]), row[3] == '1'))
    if len({line.id for line in lines}) != len(lines) or not lines:
        raise PreparationError(f'{path} has {len(lines)} rows, expected at least one and each segment once')
    return lines


def audio_order(lines: list[Line]) -> dict[str, list[Line]]:
    """Which segment each row of the audio files is: {'train', 'test'} -> lines in the order of the rows."""
    ordered = sorted(lines, key=lambda line: not line.positive)  # stable: the order of the file within a class
    return {
        'train': [line for line in ordered if line.video_number <= TRAIN_VIDEOS],
        'test': [line for line in ordered if line.video_number > TRAIN_VIDEOS],
    }


def read_audio(source: Path, lines: list[Line], sentiment: dict[str, float]) -> tuple[dict[str, np.ndarray], dict]:
    """({segment id: float32 (73,)}, the guards' numbers 'agreement' and 'share').

    PreparationError where the files have other sizes, or the rows cannot be in the order that `audio_order` says.
    """
    vectors: dict[str, np.ndarray] = {}
    agree, share = 0, 1.0
    for part, order in audio_order(lines).items():
        table = _read_table(source / AUDIO[part])
        if len(table) != len(order):
            raise PreparationError(
                f'{source / AUDIO[part]} has {len(table)} rows, expected {len(order)}: the segments of {TRANSCRIPTS} '
                f'in videos numbered {"1 to" if part == "train" else "above"} {TRAIN_VIDEOS}'
            )
        agree += sum(int((row[-1] > 0.5) == (sentiment[line.id] >= 0)) for line, row in zip(order, table, strict=True))
        share = min(share, between_videos(table[:, :-1], [line.video for line in order]))
        vectors |= {line.id: row[:-1].astype(np.float32) for line, row in zip(order, table, strict=True)}
    agreement, files = agree / len(lines), f'{AUDIO["train"]} and {AUDIO["test"]} in {source}'
    if agreement < LEAST_AGREEMENT:
        raise PreparationError(
            f'the labels in {files} agree with the sign of the sentiment in {LABELS} for {agreement:.1%} of '
            f"{len(lines)} segments, expected {LEAST_AGREEMENT:.0%} or more: the rows are not in bc-LSTM's order "
            f'(label 1 before label 0, each in the order of {TRANSCRIPTS})'
        )
    if share < LEAST_SHARE:
        raise PreparationError(
            f'the audio vectors differ too much within a video: {share:.2f} of their variance lies between videos, '
            f"expected {LEAST_SHARE} or more: the rows of {files} are not in bc-LSTM's order"
        )
    return vectors, {'agreement': agreement, 'share': share}


def _read_table(path: Path) -> np.ndarray:
    table = []
    for number, row in read_rows(path, f'rows of {AUDIO_SIZE} values and a label'):
        if len(row) != AUDIO_SIZE + 1:
            raise PreparationError(f'{path}: line {number} has {len(row)} values, expected {AUDIO_SIZE + 1}')
        try:
            table.append([float(value) for value in row])
        except ValueError as error:
            raise PreparationError(f'{path}: line {number} holds a value that is no number: {error}') from error
    if not table:
        raise PreparationError(f'{path} has no rows, expected rows of {AUDIO_SIZE} values and a label')
    return np.array(table)


def between_videos(array: np.ndarray, videos: list[str]) -> float:
    """The share of variance that lies between videos, the median over dimensions: array (N, D) -> 0 to 1."""
    array = np.where(np.isfinite(array), array, 0).astype(np.float64)
    within, groups = np.zeros(array.shape[1]), np.array(videos)
    for video in np.unique(groups):
        rows = array[groups == video]
        within += ((rows - rows.mean(axis=0)[None]) ** 2).sum(axis=0)
    total = ((array - array.mean(axis=0)[None]) ** 2).sum(axis=0)
    varies = total > 0
    return float(np.median(1 - within[varies] / total[varies])) if varies.any() else 0.0


def read_labels(path: Path) -> Labels:
    """{segment id: (sentiment, start, end)}; the labels of some videos are not in the order of time."""
    with csd.Sequence(path) as labels:
        if labels.is_text or labels.size != 1:
            raise PreparationError(f'{path} has {labels.size} columns, expected one: the sentiment')
        found = {}
        for video in labels.videos:
            for number, (value, (start, end)) in enumerate(zip(*labels.read(video), strict=True)):
                if not np.isfinite(value[0]):
                    raise PreparationError(f'{path}: the sentiment of {video}[{number}] is {value[0]}')
                found[f'{video}[{number}]'] = (float(str(value[0])), float(start), float(end))
    return found


def prepare(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    glove: Path | None = None,
    words: str = 'transcripts',
    indicators: str = 'frequent',
    tokenizer: str = '',
    context: int = 0,
    nonfinite: str = 'zero',
    num_shards: int = 4,
    overwrite: bool = False,
) -> tuple[Report, dict[str, Any]]:
    """Writes the shard directory: (report, numbers of the checks and how many segments took which words).

    PreparationError or MediaError where a file cannot be used, FileExistsError where `output` exists without
    `overwrite`.
    """
    source, report = Path(source), Report()
    if context and not tokenizer:
        raise PreparationError(f'--context {context}: segments before are put behind token ids; give --tokenizer too')
    for name in (LABELS, TRANSCRIPTS, FOLDS, WORDS, GLOVE, *AUDIO.values()):
        if links.leads_out(source / name, source):
            raise PreparationError(f'{source / name} is {links.OUT}')
    glove = source / GLOVE if glove is None else glove
    labels, lines = read_labels(source / LABELS), read_transcripts(source / TRANSCRIPTS)
    different = sorted(set(labels) ^ {line.id for line in lines})
    if different:
        found = f'{len(labels)} and {len(lines)} segments, {len(different)} in one of them only, such as {different[0]}'
        raise PreparationError(f'{LABELS} and {TRANSCRIPTS} in {source} differ: {found}')
    folds = csd.read_folds(source / FOLDS)
    lines_by_id = {line.id: line for line in lines}
    audio, facts = read_audio(source, lines, {identity: values[0] for identity, values in labels.items()})
    training = (audio[line.id][None] for line in lines if folds.get(line.video) == 'train')
    fills = {'audio': make_fill(nonfinite, training)}
    read = (
        token_reader(tokenizer, context, texts_before(labels, lines_by_id, context))
        if tokenizer
        else vector_reader(source, lines, labels, folds, glove, words=words, indicators=indicators)
    )
    schema, timed, segment = read
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': [source, glove]}
        writer = stack.enter_context(RecordWriter(output, schema, **options))
        for identity, (sentiment, start, end) in labels.items():
            video = identity.rsplit('[', 1)[0]
            array, words_found, unknown = segment(lines_by_id[identity])
            skipped = 'the video is in no fold' if video not in folds else 'no words' if not words_found else ''
            if skipped:
                report.skipped.append((identity, Skipped(skipped, f'{source / TRANSCRIPTS}, {identity}: {skipped}')))
                continue
            part = Segment({'text': array, 'audio': audio[identity]}, words_found, unknown)
            columns: dict[str, Any] = {'speaker': video, 'session': '', 'split': folds[video]}
            columns |= {'start': round(start, 3), 'end': round(end, 3), 'text': ' '.join(words_found)}
            if tokenizer:
                columns |= {'text': lines_by_id[identity].text, 'tokens': ' '.join(words_found)}
            write_segment(writer, {'id': identity, 'label': sentiment}, part, columns, fills, report)
        if not report.rows:
            raise nothing_usable(
                f'no usable segment in {source / LABELS}', report.skipped, f'{FOLDS} should name its videos'
            )
    report.absent = sorted(set(folds) - {identity.rsplit('[', 1)[0] for identity in labels})
    return report, {**facts, 'timed': timed}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.mosi', description="CMU-MOSI's text and utterance audio -> record shards."
    )
    add = parser.add_argument
    add('--source', type=Path, required=True, help=f'folder with {LABELS}, {TRANSCRIPTS} and the rest')
    add('--output', type=Path, required=True, help='shard directory to write')
    add('--glove', type=Path, help=f'word vectors as text (default: {GLOVE} in the source folder)')
    add(
        '--words', choices=('transcripts', 'csd'), default='transcripts', help='csd: words cut by time, as the SDK does'
    )
    add('--indicators', choices=INDICATORS, default='frequent', help='training words with a dimension of their own')
    add('--tokenizer', default='', help='folder of converted weights: token ids of that model instead of word vectors')
    add('--context', type=ranges.SEGMENTS, default=0, help='segments before each, behind its token ids')
    add('--nonfinite', choices=list(NONFINITE), default='zero', help=NONFINITE_HELP)
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    options = {
        name: getattr(arguments, name)
        for name in ('glove', 'words', 'indicators', 'tokenizer', 'context', 'nonfinite', 'num_shards', 'overwrite')
    }
    report, facts = prepare(arguments.source, arguments.output, **options)
    print(f'audio rows: {facts["agreement"]:.1%} of the labels agree, {facts["share"]:.2f} of variance between videos')
    if arguments.words == 'csd':
        print(f'words: {facts["timed"]} segments from {WORDS}, {len(report.rows) - facts["timed"]} from {TRANSCRIPTS}')
    counts = {name: sum(row['split'] == name for row in report.rows) for name in SPLIT_COUNTS}
    if counts != SPLIT_COUNTS:
        print(f'note: the published split has {SPLIT_COUNTS}, this one has {counts}')
    print_report(report, arguments.output)
    config = 'configs/mfsa_mosi_text_audio.py'
    if arguments.tokenizer:
        minilm = arguments.tokenizer == 'all-minilm-l6-v2'  # the weights that this config names
        config = 'configs/minilm_mosi_text.py' if minilm else fine_tuning_of(arguments.tokenizer)
    print(f'      python -m mmer_jax.main --config={config} --config.data.directory={arguments.output}')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
