"""MFSA and MulT in training: every batch padded to 50, 375 and 500 steps, against bucketed true lengths.

    python -m benchmarks.sequence_models [--model mfsa,mult] [--lengths padded,bucketed] [--batch_size 8]
    python -m benchmarks.sequence_models --data data/mosi        # the lengths of real records instead of drawn ones
    python -m benchmarks.sequence_models --model mult --peer DIR # beside the official code, benchmarks/peer_mult.py

Prints samples/s, seconds a step (forward, backward and update), peak memory, compile time, and the ratios of bucketed
to padded. Sizes, batch, accumulation and remat are those of configs/<model>_mosi.py unless a flag says otherwise;
records, plan and step are made by mmer_jax.experiment, as a run makes them. Values are random, which costs the same.

**Lengths** stand in for those of CMU-MOSI's 2,199 segments, 1,284 of them train. Its transcripts have 10 words in the
middle, 28 at the 95th percentile, 114 at most; ln(words) has mean 2.33 and deviation 0.62. Words over the labelled
interval have a median of 3.05 a second and a deviation of 0.35 in the logarithm. So words ~ round(LogNormal(2.33,
0.62)), at least 1; duration = words / rate, rate ~ LogNormal(ln 3.05, 0.35); audio has 12.5 and vision 15 steps a
second (MFSA, section 4.1); all are cut to 50, 375 and 500. In batches of 64 the real lengths fill the four planned
shapes with 12, 6, 1 and 2 batches, these with 10, 6, 3 and 2.

**Measured.** One batch of each shape is stepped --steps times after a first step, whose excess is called compilation;
an epoch is the sum over shapes of batches x seconds, a step its mean. Each case is a process of its own, in the order
padded, bucketed, and back in the next of --rounds, which finds the programs of the first in a cache: compile times are
those of the first round. Peak memory on CPU: resident memory above that before the state was made, compilation left
out where the kernel lets the peak be reset (Linux); on an accelerator the allocator's peak. The exit status is 1 if a
case ran out of memory.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import last_line, peer_mult
from configs import mfsa_mosi, mult_mosi
from data_prep.mult_pickle import make_schema
from mmer_jax.data.batches import BatchPlan
from mmer_jax.data.records import RecordWriter
from mmer_jax.run import sharding
from mmer_jax.run.choices import COMPUTE_DTYPES
from mmer_jax.run.program import (
    FoldData,
    fetch,
    folds_of,
    load_fold,
    make_model,
    make_program,
    open_source,
)
from mmer_jax.settings import command, ranges

CONFIGS = {'mfsa': mfsa_mosi, 'mult': mult_mosi}
ROOT = Path(__file__).parents[1]
LENGTHS = ('padded', 'bucketed')
PEER_BATCH = 8
PEER = 'peer'  # the official code of MulT, padded
LIMITS = {'text': 50, 'audio': 375, 'vision': 500}  # of MulT's pickles, which pad every record so far
RATES = {'audio': 12.5, 'vision': 15.0}  # steps a second
WORDS = (2.33, 0.62)  # mean and deviation of ln(words)
SPEED = (math.log(3.05), 0.35)  # the same of ln(words a second)
SPLITS = {'train': 1284, 'validation': 229, 'test': 686}
SMOKE_SPLITS, SMOKE_SHRINK = {'train': 64, 'validation': 8, 'test': 8}, 8
OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'out of memory', 'memoryerror', 'bad_alloc', 'cannot allocate memory')


def limits(smoke: bool) -> dict[str, int]:
    """Steps to which the padded case pads; --smoke has an eighth of all lengths."""
    return {m: math.ceil(steps / SMOKE_SHRINK) if smoke else steps for m, steps in LIMITS.items()}


def draw_lengths(records: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Steps of each modality in every record, int64 (R,) each, drawn as this file's docstring says."""
    generator = np.random.default_rng(seed)
    words = np.maximum(np.round(generator.lognormal(*WORDS, records)), 1)
    seconds = words / generator.lognormal(*SPEED, records)
    steps = {'text': words, **{m: np.ceil(seconds * rate) for m, rate in RATES.items()}}
    return {m: np.minimum(steps[m], LIMITS[m]).astype(np.int64) for m in LIMITS}


def write_records(output: Path, smoke: bool) -> None:
    """A shard directory of random records in the schema of MOSI's pickles (300, 5 and 20 features)."""
    schema, splits = make_schema('mosi'), SMOKE_SPLITS if smoke else SPLITS
    lengths, generator = draw_lengths(sum(splits.values())), np.random.default_rng(0)
    names = [split for split, count in splits.items() for _ in range(count)]
    with RecordWriter(output, schema, num_shards=1) as writer:
        for number, split in enumerate(names):
            record: dict[str, Any] = {'id': f'drawn_{number:04d}', 'label': float(generator.uniform(-3, 3))}
            for m, feature in schema.features.items():
                steps = math.ceil(lengths[m][number] / SMOKE_SHRINK) if smoke else lengths[m][number]
                record[m] = generator.standard_normal((steps, *feature.step_shape), np.float32)
            writer.write(record, speaker=f'{number % 9}', session='', split=split)


def make_config(model: str, arguments: argparse.Namespace) -> Any:
    """The model's config on CMU-MOSI (its tiny one for --smoke) with the changes that the flags ask for."""
    config = CONFIGS[model].get_config('smoke' if arguments.smoke else '')
    config.data.directory = str(arguments.data)
    config.data.normalize = ()  # random values have mean 0 and deviation 1, and times do not depend on values
    if arguments.smoke:
        config.data.batch_size, config.data.max_shapes, config.accumulate = 8, 1, 1
    if arguments.batch_size:
        config.data.batch_size = arguments.batch_size
    if arguments.accumulate:
        config.accumulate = arguments.accumulate
    if arguments.remat is not None:
        config.model.remat = arguments.remat
    if arguments.dtype:
        config.compute_dtype = arguments.dtype
    return config


def load_data(config: Any, lengths: str, pad_to: Mapping[str, int]) -> FoldData:
    """The fold as a run plans it; 'padded' has the one shape `pad_to` instead of the planned ones."""
    source = open_source(config)
    fold_data = load_fold(config, source, folds_of(config, source)[0])
    if lengths == 'bucketed':
        return fold_data
    loaders = {
        split: dataclasses.replace(load, plan=dataclasses.replace(load.plan, shapes=[pad_to]))
        for split, load in fold_data.loaders.items()
    }
    return dataclasses.replace(fold_data, loaders=loaders)


def shapes_of_epoch(plan: BatchPlan) -> dict[int, tuple[int, int]]:
    """{shape number: (first step of the epoch that has it, how many have it)}, smallest shape first."""
    used = [bucket for bucket, _ in plan.epoch(0)]
    return {bucket: (used.index(bucket), used.count(bucket)) for bucket in sorted(set(used))}


def peak_bytes() -> int:
    """Of the accelerator's allocator, or of this process where there is none."""
    memory = jax.local_devices()[0].memory_stats() or {}
    if 'peak_bytes_in_use' in memory:
        return memory['peak_bytes_in_use']
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def reset_peak() -> None:
    """Lets the resident peak begin anew from what is resident now; only Linux can."""
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def baseline_bytes() -> int:
    """What peak_bytes() counts before a case begins: imports and data on CPU, nothing in an accelerator's memory."""
    reset_peak()
    return peak_bytes() if jax.default_backend() == 'cpu' else 0


def measure(config: Any, lengths: str, pad_to: Mapping[str, int], steps: int | None) -> dict[str, Any]:
    """One case in this process: `shapes` with their times and the peak so far, smallest first, and `records`."""
    fold_data = load_data(config, lengths, pad_to)
    load = fold_data.loaders['train']
    program = make_program(config, make_model(config, fold_data.source), fold_data)
    found = shapes_of_epoch(load.plan)
    batches = {shape: sharding.put_batch(load(load.plan[step]), program.mesh) for shape, (step, _) in found.items()}
    baseline = baseline_bytes()
    state = program.unstack(program.init(np.zeros(1, np.int32)))
    first_steps, rows = {}, []
    for shape, batch in batches.items():
        started = time.perf_counter()
        state, numbers = program.train(state, batch)
        jax.block_until_ready(numbers)
        first_steps[shape] = time.perf_counter() - started  # a run pays for tracing and compilation too
        print(f'{load.plan.shapes[shape]}: first step {first_steps[shape]:.0f} s', file=sys.stderr, flush=True)
    reset_peak()
    steps = steps or (2 if jax.default_backend() == 'cpu' else 20)
    for shape, batch in batches.items():
        started = time.perf_counter()
        for _ in range(steps):
            state, numbers = program.train(state, batch)
        jax.block_until_ready((state, numbers))
        seconds = (time.perf_counter() - started) / steps
        if not np.isfinite(fetch(numbers, 'loss')).all():
            raise ValueError(f'the loss is not finite at shape {load.plan.shapes[shape]}; the times mean nothing')
        rows.append(
            {
                'steps': dict(load.plan.shapes[shape]),
                'batches': found[shape][1],
                'seconds': seconds,
                'compile': max(first_steps[shape] - seconds, 0.0),
                'peak': (peak_bytes() - baseline) / 2**30,
            }
        )
    device = jax.devices()[0]
    described = f'{device.device_kind}, {jax.device_count()} device(s), jax {jax.__version__}'
    sizes = {'records': len(load.plan.records), 'batch_size': load.plan.batch_size}
    return {'device': described, **sizes, 'timed_steps': steps, 'shapes': rows}


def one_case(config: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """A case in this process, ours or the official code's, on as many records."""
    pad_to = limits(arguments.smoke)
    if arguments.lengths[0] != PEER:
        return measure(config, arguments.lengths[0], pad_to, arguments.steps)
    source = open_source(config)
    records = len(load_fold(config, source, folds_of(config, source)[0]).fold.train)
    features = [source.schema.features[m].step_shape[0] for m in pad_to]
    on_cpu = jax.default_backend() == 'cpu'
    steps = arguments.steps or (2 if on_cpu else 20)
    return peer_mult.measure(arguments.peer, config, features, pad_to, records=records, steps=steps, cuda=not on_cpu)


def summarise(case: Mapping[str, Any]) -> dict[str, float]:
    """`rate` (samples/s), `step` (s), `peak` (GiB) and `compile` (s) of a case: an epoch, not a mean over shapes."""
    rows = case['shapes']
    epoch = sum(row['batches'] * row['seconds'] for row in rows)
    return {
        'rate': case['records'] / epoch,
        'step': epoch / sum(row['batches'] for row in rows),
        'peak': max(row['peak'] for row in rows),
        'compile': sum(row['compile'] for row in rows),
    }


def run_case(name: str, command: Sequence[str], cache: str) -> dict[str, Any] | None:
    """What the process of a case printed, None where it ran out of memory; SystemExit where it failed otherwise."""
    environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': cache}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)  # what Linux does when memory is short
    if killed or any(words.lower() in done.stderr.lower() for words in OUT_OF_MEMORY):
        return None
    raise SystemExit(f'error: {name} ended with status {done.returncode}: {last_line(done.stderr, "no message")}')


def measure_all(arguments: argparse.Namespace, flags: Sequence[str], cache: str) -> dict[tuple[str, str], list[Any]]:
    """{(model, lengths): the case of each round, None where memory ran out}, models one after another."""
    found: dict[tuple[str, str], list[Any]] = {}
    for model in arguments.model:
        for number in range(arguments.rounds):
            cases = [*arguments.lengths, *([PEER] if arguments.peer and model == 'mult' else [])]
            for lengths in cases[:: -1 if number % 2 else 1]:
                name = f'{model}:{lengths}'
                command = [sys.executable, '-m', 'benchmarks.sequence_models', *flags]
                command += [f'--data={arguments.data}', f'--case={name}']
                rounds = found.setdefault((model, lengths), [])
                if None in rounds:
                    continue  # it would run out of memory again
                started = time.perf_counter()
                rounds.append(run_case(name, command, cache))
                status = 'out of memory' if rounds[-1] is None else 'done'
                print(f'{name}, round {number + 1}: {status} after {time.perf_counter() - started:.0f} s', flush=True)
    return found


def table_lines(found: Mapping[tuple[str, str], list[Any]]) -> Iterator[str]:
    """A row a case (medians over the rounds, compile times of the first), one a shape (first round), and the ratios."""
    heads = ('samples/s', 's a step', 'peak GiB', 'compile s')
    yield f'{"model":6}{"lengths":30}{"batches":>8}' + ''.join(f'{head:>11}' for head in heads)
    summaries: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (model, lengths), cases in found.items():
        if None in cases:
            yield f'{model:6}{lengths:30}  out of memory'
            continue
        parts = summaries[model, lengths] = [summarise(case) for case in cases]
        middle = {key: statistics.median(part[key] for part in parts) for key in parts[0]}
        middle['compile'] = parts[0]['compile']
        yield _row(model, lengths, sum(row['batches'] for row in cases[0]['shapes']), middle)
        for row in cases[0]['shapes']:
            part = summarise({'records': row['batches'] * cases[0]['batch_size'], 'shapes': [row]})
            yield _row('', '  ' + ' / '.join(map(str, row['steps'].values())), row['batches'], part)
    for model in dict.fromkeys(model for model, _ in summaries):
        if all((model, lengths) in summaries for lengths in LENGTHS):
            pairs = list(zip(summaries[model, 'bucketed'], summaries[model, 'padded'], strict=True))
            rate, peak = (statistics.median(a[key] / b[key] for a, b in pairs) for key in ('rate', 'peak'))
            yield f'{model}: bucketed / padded: {rate:.2f} times the samples/s, {peak:.2f} times the peak memory'
    for model, lengths in summaries:
        if lengths in LENGTHS and (model, PEER) in summaries:
            pairs = list(zip(summaries[model, lengths], summaries[model, PEER], strict=True))
            rate = statistics.median(a['rate'] / b['rate'] for a, b in pairs)
            yield f'{model}: ours {lengths} / the official code padded: {rate:.2f} times the samples/s'


def _row(model: str, lengths: str, batches: int, numbers: Mapping[str, float]) -> str:
    values = f'{numbers["rate"]:11.2f}{numbers["step"]:11.3f}{numbers["peak"]:11.2f}{numbers["compile"]:11.1f}'
    return f'{model:6}{lengths:30}{batches:8d}{values}'


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.sequence_models', description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--model', default=','.join(CONFIGS), help='mfsa, mult or both, with a comma')
    add('--lengths', default=','.join(LENGTHS), help='padded, bucketed or both, with a comma')
    add('--data', type=Path, help='shard directory of unaligned MOSI records (default: lengths are drawn)')
    add('--batch_size', type=ranges.COUNT, help='default: of the config')
    add('--accumulate', type=ranges.COUNT, help='default: of the config')
    add('--remat', action=argparse.BooleanOptionalAction, help='default: of the config')
    add('--dtype', choices=list(COMPUTE_DTYPES), help='default: of the config, float32')
    add(
        '--peer', type=Path, help='folder of the official code of MulT; batches of 8 in one part unless flags say other'
    )
    add('--steps', type=ranges.COUNT, help='timed steps a shape (default: 2 on CPU, 20 elsewhere)')
    add('--rounds', type=ranges.COUNT, default=2, help='how often the cases alternate (default: 2)')
    add('--smoke', action='store_true', help='tiny models and lengths: does it work')
    add('--case', help='MODEL:LENGTHS, this one alone and in this process; prints JSON')
    arguments = parser.parse_args(argv)
    arguments.model, arguments.lengths = arguments.model.split(','), arguments.lengths.split(',')
    if arguments.peer:
        if 'mult' not in arguments.model and not arguments.case:
            parser.error('--peer is the official code of MulT: put mult into --model')
        arguments.batch_size, arguments.accumulate = arguments.batch_size or PEER_BATCH, arguments.accumulate or 1
        arguments.remat = bool(arguments.remat)
    if arguments.case:
        arguments.model, arguments.lengths = ([part] for part in (*arguments.case.split(':'), '')[:2])
    lengths = (*LENGTHS, PEER) if arguments.case and arguments.peer else LENGTHS
    for flag, names, known in (('model', arguments.model, CONFIGS), ('lengths', arguments.lengths, lengths)):
        if not set(names) <= set(known) or len(set(names)) != len(names):
            parser.error(f'--{flag} {",".join(names)!r}: expected one or more of {", ".join(known)}, each once')
    return arguments


def work(flags: list[str]) -> int:
    arguments = parse_arguments(flags)
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.data:
            arguments.data = Path(folder) / 'records'
            write_records(arguments.data, arguments.smoke)
        if arguments.case:
            config = make_config(arguments.model[0], arguments)
            print(json.dumps(one_case(config, arguments)))
            return 0
        # A fresh cache makes the first round compile; no jax device here: on a GPU it would take the cases' memory.
        cache = (os.environ.get('JAX_COMPILATION_CACHE_DIR') if arguments.smoke else '') or f'{folder}/cache'
        found = measure_all(arguments, flags, cache)
    case = next((case for cases in found.values() for case in cases if case), None)
    if case:
        print(f'{case["device"]}; {case["timed_steps"]} timed steps a shape, {arguments.rounds} round(s)')
    print('\n'.join(table_lines(found)))
    exhausted = [':'.join(name) for name, cases in found.items() if None in cases]
    if exhausted:
        print(f'error: out of memory: {", ".join(exhausted)}; try --batch_size or --accumulate', file=sys.stderr)
    return 1 if exhausted else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where a case ran out of memory."""
    return command.run(work, list(sys.argv[1:] if argv is None else argv))


if __name__ == '__main__':
    sys.exit(main())
