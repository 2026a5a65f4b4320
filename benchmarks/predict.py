"""Clips per second of prediction and the time to its first answer, split among decoding, features and model.

    python -m benchmarks.predict --run runs/mine --media FOLDER [--clips 40]

Prints, in one process: seconds from its start to the first answer (imports, opening the run, reading, compiling), then
clips per second of the whole of `Predictor.predict`, and of its parts by themselves: decoding the sound and the
pictures of a clip, the readers (decoding and features together), and the models of all folds and seeds. With
compiled programs kept (JAX_COMPILATION_CACHE_DIR, or ~/.cache) a second run begins sooner.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmer_jax.settings import command, ranges

BEGUN = time.perf_counter()


def rate(work: Callable[[], Any], clips: int) -> float:
    """Clips per second of one call."""
    started = time.perf_counter()
    work()
    return clips / (time.perf_counter() - started)


def decode_all(predictor: Any, paths: Sequence[Path]) -> None:
    """What the readers decode of clips, without features."""
    for path in paths:
        decode(predictor, path)


def decode(predictor: Any, path: Path) -> None:
    from mmer_jax.media import MediaError, audio, video
    from mmer_jax.readers import Pictures, Sound

    for reader in predictor.readers:
        try:
            if isinstance(reader, Sound):
                audio.load_audio(path, reader.sample_rate, offset=reader.offset, duration=reader.duration or None)
            elif isinstance(reader, Pictures):
                video.read_frames(path, reader.frames, reader.frame_choice)
        except MediaError as error:
            if error.reason not in ('no audio stream', 'no video stream'):
                raise


def work(arguments: argparse.Namespace) -> None:
    from mmer_jax.prediction import clips, load_predictor
    from mmer_jax.readers import read_record
    from mmer_jax.run.cache import keep_programs

    keep_programs(keep=not arguments.no_cache)
    found = clips.find_clips([arguments.media])[: arguments.clips]
    imported = time.perf_counter() - BEGUN
    predictor = load_predictor(arguments.run)
    opened = time.perf_counter() - BEGUN
    next(iter(predictor.predict(found[:1], batch_size=1)))
    first = time.perf_counter() - BEGUN
    parts = f'imports {imported:.1f}, run {opened - imported:.1f}, clip {first - opened:.1f}'
    print(f'first answer after {first:.1f} s: {parts}')
    batch = min(8, len(found))
    list(predictor.predict(found[:batch], batch_size=batch))  # compiles for the batch
    read = [predictor._read(clip) for clip in found]
    rows = {
        'whole': lambda: list(predictor.predict(found, batch_size=batch)),
        'decoding': lambda: decode_all(predictor, [clip.path for clip in found if clip.path is not None]),
        'decoding and features': lambda: [read_record(clip, predictor.readers) for clip in found],
        'models': lambda: [predictor._predict(read[k : k + batch], batch) for k in range(0, len(read), batch)],
    }
    models = sum(len(member.seeds) for member in predictor.members)
    print(f'{len(found)} clips, {models} models, batches of {batch}')
    rates = {name: rate(function, len(found)) for name, function in rows.items()}
    for name, value in rates.items():
        print(f'{name}: {value:.1f} clips/s, {rates["whole"] / value:.0%} of the time')


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.predict', description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--run', type=Path, required=True, help='a finished run whose data say how a clip is read')
    add('--media', type=Path, required=True, help='folder of clips')
    add('--clips', type=ranges.COUNT, default=40, help='clips to take')
    add('--no_cache', action='store_true', help='compile anew')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
