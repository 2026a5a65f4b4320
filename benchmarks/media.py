"""Clips per second from video files to records, part by part, and from records to batches; sound features by librosa.

    python -m benchmarks.media --source RAVDESS_FOLDER [--crop mtcnn] [--clips 18]
    python -m benchmarks.media --sound [--rounds 5]

The first times decoding, cropping and encoding apart, in one process; prepares the clips in one process and in two,
with the largest memory of any; then loads what was prepared into batches with 1 and 2 threads. The second times MFCCs
of drawn sound by librosa and by numpy (mmer_jax/media/spectrum.py, which the toolkit uses) in turns: the first call
and a clip, each round in fresh processes, then clips in one process and in two workers.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep import ravdess, ravdess_video
from data_prep.pool import Skipped, process
from mmer_jax.data.batches import BatchPlan, LoadBatch, plan_shapes, read_batches, record_lengths
from mmer_jax.data.records import RecordSource, RecordWriter, encode_frames
from mmer_jax.media import audio, faces, video
from mmer_jax.readers.pictures import make_detector
from mmer_jax.settings import command, ranges

REPEATS = 3


def read_and_weigh(job: ravdess.Job) -> tuple[dict, float]:
    """A clip's record, and the largest memory this process has held so far, MB."""
    return ravdess.read_clip(job), peak_memory()


def peak_memory() -> float:
    """MB. On Linux of this program alone: ru_maxrss also counts what a process was before it became this one."""
    status = Path('/proc/self/status')
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_parts(jobs: list[ravdess.Job], vision: ravdess_video.Vision) -> None:
    """Prints clips per second of decoding, cropping and encoding alone, once through."""
    detector = make_detector(vision.min_face) if vision.crop == 'mtcnn' else None
    seconds: dict[str, float] = dict.fromkeys(('decode', 'crop', 'encode'), 0.0)
    for number, job in enumerate([jobs[0], *jobs]):
        marks = [time.perf_counter()]
        frames, info = video.read_frames(job.clip.path, vision.frames, vision.frame_choice)
        marks.append(time.perf_counter())
        cropped, _ = faces.crop_faces(
            frames, vision.crop, vision.size, path=job.clip.path, times=info.timestamps, detector=detector
        )
        marks.append(time.perf_counter())
        encode_frames(cropped, vision.quality)
        marks.append(time.perf_counter())
        if number:  # the first clip once more: jax compiles for it
            for part, spent in zip(seconds, np.diff(marks), strict=True):
                seconds[part] += float(spent)
    total = sum(seconds.values())
    for part, used in seconds.items():
        print(f'  {part}: {len(jobs) / used:.1f} clips/s, {100 * used / total:.0f} % of the time')


def measure_preparation(jobs: list[ravdess.Job], repeat: int, settings: ravdess.Settings, output: Path) -> None:
    """Prepares the clips with one process and two, from the first clip on; what the first wrote stays at `output`."""
    rates = {}
    for workers in (1, 2):
        folder = output if workers == 1 else output.with_name('again')
        memory, count, started = 0.0, 0, 0.0
        with RecordWriter(folder, ravdess.make_schema(settings)) as writer:
            for _, found in process(read_and_weigh, jobs * repeat, workers=workers, description=f'{workers} processes'):
                if isinstance(found, Skipped):
                    continue
                result, weight = found
                record = {**result['record'], 'id': f'{result["record"]["id"]}_{count}'}
                writer.write(record, **result['columns'])
                memory, count = max(memory, weight), count + 1
                started = started or time.perf_counter()  # the start of the processes is left out
        rates[workers] = (count - 1) / (time.perf_counter() - started)
        print(f'prepared by {workers} process(es): {rates[workers]:.1f} clips/s, largest process {memory:.0f} MB')
    print(f'  ratio {rates[2] / rates[1]:.2f}')


def measure_loading(directory: Path, batch_size: int) -> None:
    source = RecordSource(directory)
    numbers = np.tile(np.arange(len(source)), -(-64 // len(source)))  # an epoch of 64 clips or more
    lengths = record_lengths(source, ('vision',), {})
    plan = BatchPlan(numbers, {'vision': lengths['vision'][numbers]}, plan_shapes(lengths, 1), batch_size, shuffle=True)
    size = sum(shard['bytes'] for shard in source.shards) / len(source) / 1e3
    print(f'loading {source[0]["vision"].shape}, {size:.0f} kB a record, batches of {batch_size}:')
    load = LoadBatch(source, ('vision',), plan, {}, {})
    for threads in (1, 2):
        rate = len(numbers) / best(functools.partial(read_all, load, threads))
        print(f'  {threads} thread(s): {rate:.0f} clips/s')


def read_all(load: LoadBatch, threads: int) -> None:
    for _ in read_batches(load, threads=threads):
        pass


CLIP_SECONDS, CLIP_RATE, CLIPS_TIMED = 3.7, 48000, 30  # as a RAVDESS clip
SIDES = ('librosa', 'numpy')


def features_of(side: str) -> Callable[[np.ndarray, int], np.ndarray]:
    return by_librosa if side == 'librosa' else audio.mfcc


def by_librosa(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """As audio.mfcc, with BLAS held to one thread too."""
    import librosa.feature
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1):
        return librosa.feature.mfcc(y=samples, sr=sample_rate, n_mfcc=13).T


def draw_clip(seed: int) -> np.ndarray:
    """Float32 noise of CLIP_SECONDS at CLIP_RATE."""
    noise = np.random.default_rng(seed).standard_normal(int(CLIP_SECONDS * CLIP_RATE))
    return (0.1 * noise).astype(np.float32)


def measure_first_call(side: str) -> dict[str, float]:
    """Of this process, which must be fresh: seconds of the first call and a clip's, and what the call adds in MB."""
    mfcc, clip, memory = features_of(side), draw_clip(0), peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    mfcc(clip, CLIP_RATE)
    first, first_cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = peak_memory() - memory
    seconds = []
    for seed in range(CLIPS_TIMED):
        clip = draw_clip(seed)
        wall = time.perf_counter()
        mfcc(clip, CLIP_RATE)
        seconds.append(time.perf_counter() - wall)
    return {'first': first, 'first_cpu': first_cpu, 'clip': float(np.median(seconds)), 'memory': memory}


def make_features(job: tuple[str, int]) -> np.ndarray:
    side, seed = job
    return features_of(side)(draw_clip(seed), CLIP_RATE)


def measure_workers(side: str, workers: int, clips: int) -> tuple[float, float]:
    """Seconds to the first clip, the start of the processes included, and clips per second after it."""
    jobs, marks = [(side, seed) for seed in range(clips)], [time.perf_counter()]
    for _ in process(make_features, jobs, workers=workers, description=f'{side}, {workers} processes'):
        marks.append(time.perf_counter())
    return marks[1] - marks[0], (clips - 1) / (marks[-1] - marks[1])


def measure_sound(rounds: int, clips: int) -> None:
    """Prints a row per side: medians over rounds, in which the sides alternate."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            order = [sys.executable, '-m', 'benchmarks.media', '--first_call', side]
            done = subprocess.run(order, check=True, capture_output=True, text=True)
            found[side].append(json.loads(done.stdout))
    print(f'MFCCs of {CLIP_SECONDS} s at {CLIP_RATE} Hz, medians of {rounds} processes')
    for side, rows in found.items():
        first, cpu, clip, memory = (
            float(np.median([row[key] for row in rows])) for key in ('first', 'first_cpu', 'clip', 'memory')
        )
        print(
            f'  {side}: first call {first:.2f} s ({cpu:.2f} s of CPU, {memory:.0f} MB more), then {1e3 * clip:.1f} ms '
            'per clip'
        )
    for workers in (1, 2):  # 1: this process, where the first call has been made before
        for side in SIDES:
            make_features((side, 0))
            first, rate = measure_workers(side, workers, clips)
            print(f'  {side}, {workers} process(es): first clip after {first:.2f} s, then {rate:.0f} clips/s')


def best(work: Callable[[], object]) -> float:
    """The least seconds of REPEATS runs."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.media', description=__doc__.split('\n')[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--source', type=Path, help='folder with Actor_XX folders of .mp4 clips')
    what.add_argument('--sound', action='store_true', help='measure sound features by librosa and by numpy')
    what.add_argument('--first_call', choices=SIDES, help='one of them in this process; prints JSON')
    parser.add_argument('--rounds', type=ranges.COUNT, default=5, help='of --sound: fresh processes of each')
    parser.add_argument('--sound_clips', type=ranges.COUNT, default=200, help='of --sound: clips for the workers')
    parser.add_argument('--crop', choices=('none', 'center', 'mtcnn'), default='center')
    parser.add_argument('--clips', type=ranges.COUNT, default=18, help='clips to take')
    parser.add_argument('--repeat', type=ranges.COUNT, default=5, help='how often to prepare each clip')
    parser.add_argument('--batch_size', type=ranges.COUNT, default=8)
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    if arguments.first_call:
        print(json.dumps(measure_first_call(arguments.first_call)))
        return
    if arguments.sound:
        measure_sound(arguments.rounds, arguments.sound_clips)
        return
    vision = ravdess_video.Vision(crop=arguments.crop)
    settings = ravdess.Settings(features='none', vision=vision)
    clips, _ = ravdess.list_clips(arguments.source, vision=True, video_only=True)
    if not clips:
        raise FileNotFoundError(f'no clip with pictures below {arguments.source}')
    jobs = [ravdess.Job(clip, settings) for clip in clips[: arguments.clips]]
    print(f'{len(jobs)} clips, {vision.frames} frames, crop {vision.crop!r}, {vision.size} x {vision.size}')
    measure_parts(jobs, vision)
    with tempfile.TemporaryDirectory() as folder:
        measure_preparation(jobs, arguments.repeat, settings, Path(folder) / 'prepared')
        measure_loading(Path(folder) / 'prepared', arguments.batch_size)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
