"""What a finished run, or a published checkpoint, says of clips that nobody labelled.

    python -m mmer_jax.predict runs/mine clip.mp4 other.wav
    python -m mmer_jax.predict runs/mine FOLDER --output predictions
    python -m mmer_jax.predict runs/mine --csv clips.csv --media FOLDER --output predictions
    python -m mmer_jax.predict runs/mine interview.mp4 --window 3 --hop 1 --output predictions
    python -m mmer_jax.predict runs/by_speaker clip.wav --enrol neutral_1.wav neutral_2.wav
    python -m mmer_jax.predict --pretrained superb-wav2vec2 clip.wav

A clip is read as the run's data were. The models of all folds and seeds answer, and their mean is printed; --output
keeps each one's answer. --pretrained takes converted weights with their own head and labels in place of RUN. A clip
that cannot be read is one line, and the rest goes on; the exit status is then 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmer_jax.settings import command, ranges

SECONDS = ranges.Number(float, low=0.1, high=86400)
OF_RUNS = ('fold', 'seed', 'calibrate', 'features', 'glove', 'enrol')  # flags that a checkpoint has no use for
SHOWN = 3  # most probable classes on a line


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m mmer_jax.predict', description='What a model says of clips that nobody labelled.'
    )
    add = parser.add_argument
    add('workdir', type=Path, metavar='RUN', nargs='?', help='a finished run, or one of its fold folders')
    add('clips', type=Path, nargs='*', metavar='CLIP', help='video, sound or .txt files, or folders of them')
    add('--pretrained', metavar='NAME', help='converted weights of a published classifier, in place of RUN')
    add('--crop', choices=('none', 'center', 'mtcnn'), default='none', help='with --pretrained: how pictures are cut')
    add('--csv', type=Path, help='table of clips: path and optionally id,text,start,end')
    add('--media', type=Path, help="folder that the paths of --csv begin at; the csv's own by default")
    add('--text', help='the words of the clip, or alone')
    add(
        '--features', nargs='+', default=[], metavar='MODALITY=PLACE', help='features extracted elsewhere: file, folder'
    )
    add('--enrol', type=Path, nargs='+', default=[], metavar='CLIP', help='clips of the speaker, where RUN needs them')
    add('--window', type=SECONDS, help='seconds: cut long clips into windows, and draw a timeline into --output')
    add('--hop', type=SECONDS, help='seconds from one window to the next; by default --window')
    add('--fold', type=ranges.COUNT_OR_0, help='the models of one fold; all by default')
    add('--seed', type=ranges.SEED, help='the models of one seed; all by default')
    add('--calibrate', action='store_true', help='fit the probabilities to the validation split, by a temperature')
    add('--tokenizer', default='', help='folder of the tokenizer, where it is not where preparation found it')
    add('--glove', default='', help='file of word vectors, likewise')
    add('--batch_size', type=ranges.COUNT, default=8, help='clips that go through the models together')
    add('--output', type=Path, help='folder of predictions.jsonl, predictions.csv and timelines')
    add(
        '--no_cache',
        action='store_true',
        help='compile anew; programs are kept in JAX_COMPILATION_CACHE_DIR, or ~/.cache',
    )
    add('--format', choices=('png', 'svg', 'pdf'), default='png', help='of the timelines')
    arguments = parser.parse_args(argv)
    if arguments.pretrained:
        arguments.clips = [*filter(None, [arguments.workdir]), *arguments.clips]
        given = [f'--{name}' for name in OF_RUNS if getattr(arguments, name)]
        if given or 0 in (arguments.fold, arguments.seed):
            parser.error(f'{" ".join(given) or "--fold, --seed"}: a pretrained checkpoint has none; leave it out')
    elif arguments.workdir is None:
        parser.error('nothing to predict with: give RUN, or --pretrained NAME')
    elif arguments.crop != 'none':
        parser.error('--crop is of --pretrained: a run cuts pictures as its data were cut')
    if not arguments.clips and not arguments.csv and arguments.text is None and not arguments.features:
        parser.error('nothing to predict: give clips, a folder, --csv, or --text')
    if arguments.csv and (arguments.clips or arguments.text is not None):
        parser.error('--csv names the clips and their words itself: leave CLIP and --text out')
    if arguments.media and not arguments.csv:
        parser.error('--media is where the paths of --csv begin: give --csv')
    if arguments.hop and not arguments.window:
        parser.error('--hop needs --window')
    if arguments.hop and arguments.hop > arguments.window:
        parser.error(
            f'--hop {arguments.hop:g} is longer than --window {arguments.window:g}: sound between would be lost'
        )
    arguments.features = dict(command.feature_place(parser, text) for text in arguments.features)
    return arguments


def work(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mmer_jax.prediction import clips, load_predictor, output, published_predictor
    from mmer_jax.run.cache import keep_programs

    if arguments.output:
        output.check(arguments.output)
    keep_programs(keep=not arguments.no_cache)
    if arguments.csv:
        found = clips.read_clips(arguments.csv, arguments.media, arguments.features)
    else:
        found = clips.find_clips(arguments.clips, text=arguments.text, features=arguments.features)
    names = ('fold', 'seed', 'calibrate', 'tokenizer', 'glove')
    if arguments.pretrained:
        predictor = published_predictor(arguments.pretrained, tokenizer=arguments.tokenizer, crop=arguments.crop)
    else:
        enrol = clips.find_to_enrol(arguments.enrol, arguments.features)
        options = {name: getattr(arguments, name) for name in names}
        predictor = load_predictor(arguments.workdir, enrol=enrol, **options)
    plan, failed = _windows(found, arguments) if arguments.window else (found, [])
    rows: list[Any] = list(failed)
    shown = predictor.predict(plan, batch_size=min(arguments.batch_size, max(len(plan), 1)))
    for row in tqdm(shown, total=len(plan), disable=len(plan) < 2, file=sys.stderr, desc='predict', mininterval=0.5):
        rows.append(row)
    lines = list(output.lines(rows, SHOWN))
    for line in lines:
        print(line, file=sys.stderr if line.startswith('error: ') else sys.stdout)
    if arguments.output:
        for path in output.write(
            arguments.output, rows, predictor, timelines=arguments.format if arguments.window else ''
        ):
            print(f'-> {path}')
    return command.FAILED if any(output.is_failure(row) for row in rows) else command.OK


def _windows(found: Sequence[Any], arguments: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """(the windows of all clips, the failures of those whose length cannot be told)."""
    from mmer_jax.media import MediaError
    from mmer_jax.prediction import Failure, clips

    plan: list[Any] = []
    failed: list[Any] = []
    for clip in found:
        if clip.path is None:
            failed.append(Failure(clip, f'{clip.id}: words alone have no times; leave --window out'))
            continue
        try:
            plan += clips.windows(clip, arguments.window, arguments.hop or arguments.window)
        except (MediaError, OSError) as error:
            failed.append(Failure(clip, command.one_line(error)))
    return plan, failed


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
