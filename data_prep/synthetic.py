"""A small trimodal data set whose label no single modality tells, and random stand-ins for real data sets.

    python -m data_prep.synthetic --output data/synthetic
    python -m data_prep.synthetic --like ravdess_mfcc --output data/smoke/ravdess_mfcc

**How the label hides.** Each modality of a clip carries one hidden bit, each bit 1 with probability q = 0.7,
independent of the others:

- text (4 to 8 words, 16 values each): one word is polar, positive or negative (1 or 0), the rest neutral;
- audio (15 to 24 frames, 8 values): one burst of energy of 4 frames, with rising or falling pitch;
- vision (12 to 18 frames, 10 values): one of two facial actions (a smile or a frown), 3 frames long.

The three events lie in three different thirds of the clip, in random order, and the sequences have different rates
and unrelated lengths, so nothing is aligned. The label is the parity of the bits, text xor audio xor vision: a polar
word counts as said, unless voice and face disagree, which turns it around (irony). 1 is 'positive'.

**Bayes rates.** Given one bit, the label equals it when the other two agree: q^2 + (1 - q)^2 = 0.58. So no model of
one modality exceeds 58 % in expectation; two modalities give max(q, 1 - q) = 70 %; three give 100 % (the events are far
above the noise). Each split holds the eight bit patterns in exactly these proportions (largest remainder), so answers
that follow the bits have these rates on the data written too. Answers that depart from them win or lose by chance, on
the 1,000 test clips with a standard deviation of at most sqrt(0.58 x 0.42 / 1000), 1.6 points. The majority class is
53.2 %.
"""

import argparse
import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import crema_d, iemocap, mosi_text, mult_pickle, ravdess, ravdess_openface, ravdess_video
from data_prep.pool import run_command
from mmer_jax.data.records import Feature, Label, RecordWriter, Schema
from mmer_jax.settings import ranges

Q = 0.7
SPLITS = {'train': 4000, 'validation': 500, 'test': 1000}
TEXT_DIM, AUDIO_DIM, VISION_DIM = 16, 8, 10
LENGTHS = {'text': (4, 8), 'audio': (15, 24), 'vision': (12, 18)}
EVENT_LENGTHS = {'text': 1, 'audio': 4, 'vision': 3}
NOISE = 0.2
NUM_SPEAKERS = 30  # ten to a split

SCHEMA = Schema(
    name='synthetic',
    features={
        'text': Feature((None, TEXT_DIM), description='word vectors; one polar word'),
        'audio': Feature((None, AUDIO_DIM), description='pitch, energy, 6 distracting values; one burst'),
        'vision': Feature((None, VISION_DIM), description='facial actions; one smile or frown'),
    },
    label=Label('classes', ('negative', 'positive')),
    info={
        'dataset': 'synthetic',
        'made_by': 'data_prep.synthetic',
        'q': Q,
        'bayes': {'one': 0.58, 'two': 0.7, 'three': 1.0},
    },
)


def bit_patterns(count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, 3) bits in {0, 1}: the eight patterns as often as their probability says, in random order."""
    patterns = np.array(list(itertools.product((0, 1), repeat=3)))
    expected = count * (Q**patterns * (1 - Q) ** (1 - patterns)).prod(1)
    numbers = np.floor(expected).astype(int)
    largest = np.argsort(numbers - expected, kind='stable')[: count - numbers.sum()]
    numbers[largest] += 1
    return generator.permutation(np.repeat(patterns, numbers, axis=0))


class Vocabulary:
    """20 neutral, 4 positive and 4 negative word vectors of unit length, the same in every data set."""

    def __init__(self):
        vectors = np.random.default_rng(1234).standard_normal((28, TEXT_DIM))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.neutral, self.polar = vectors[:20], {1: vectors[20:24], 0: vectors[24:]}


def make_clip(
    bits: np.ndarray, vocabulary: Vocabulary, generator: np.random.Generator
) -> tuple[dict[str, Any], dict[str, int]]:
    """({modality: (T, D) float32}, {modality: first step of its event}) for one pattern of three bits."""
    thirds = generator.permutation(3)
    arrays, starts = {}, {}
    for number, m in enumerate(LENGTHS):
        steps = int(generator.integers(LENGTHS[m][0], LENGTHS[m][1] + 1))
        first, last = steps * thirds[number] // 3, steps * (thirds[number] + 1) // 3 - EVENT_LENGTHS[m]
        starts[m] = int(generator.integers(first, max(last, first) + 1))
        event = slice(starts[m], starts[m] + EVENT_LENGTHS[m])
        bit = int(bits[number])
        if m == 'text':
            words = vocabulary.neutral[generator.integers(20, size=steps)]
            words[event] = vocabulary.polar[bit][generator.integers(4)]
            array = 2 * words + NOISE * generator.standard_normal((steps, TEXT_DIM))
        elif m == 'audio':
            array = NOISE * generator.standard_normal((steps, AUDIO_DIM))
            array[event, 0] += np.linspace(-1.5, 1.5, EVENT_LENGTHS[m]) * (1 if bit else -1)
            array[event, 1] += 2
        else:
            array = NOISE * generator.standard_normal((steps, VISION_DIM))
            array[event, slice(0, 2) if bit else slice(2, 4)] += 1.5  # smile or frown: two actions each
        arrays[m] = array.astype(np.float32)
    return arrays, starts


def write_synthetic(output: str | Path, *, seed: int = 0, num_shards: int = 2, overwrite: bool = False) -> int:
    """Writes the data set; returns the number of records."""
    generator, vocabulary, total = np.random.default_rng(seed), Vocabulary(), 0
    with RecordWriter(output, SCHEMA, num_shards=num_shards, overwrite=overwrite) as writer:
        for number, (split, count) in enumerate(SPLITS.items()):
            for bits in bit_patterns(count, generator):
                arrays, starts = make_clip(bits, vocabulary, generator)
                speaker = f'{number * 10 + total % 10:02d}'
                columns = {f'event_{m}': start for m, start in starts.items()}
                record = {'id': f'clip_{total:05d}', 'label': int(bits.sum() % 2), **arrays}
                writer.write(record, speaker=speaker, split=split, bits=''.join(map(str, bits)), **columns)
                total += 1
    return total


# Schema, lengths and number of speakers of the data sets that configs name, for their :smoke variants.
SHORT = {'text': (3, 6), 'audio': (5, 12), 'vision': (4, 12)}  # steps of the sequence data sets, kept few
IEMOCAP_RAW: tuple = (
    lambda: iemocap.make_schema(iemocap.Settings(tokenizer='random', num_frames=4, size=32)),
    {'text': (4, 12), 'audio': (1200, 2400), 'vision': (4, 4)},
    10,
)
LIKE = {
    'crema_d_2d': (lambda: crema_d.make_schema(crema_d.Settings(size=32)), {'audio': (1, 1), 'vision': (1, 1)}, 20),
    'crema_d_2d_grey': (
        lambda: crema_d.make_schema(crema_d.Settings(size=32, color='grey')),
        {'audio': (1, 1), 'vision': (1, 1)},
        20,
    ),
    'crema_d_3d': (
        lambda: crema_d.make_schema(crema_d.Settings('3d', crop='none', frames=4, size=64)),
        {'audio': (4, 4), 'vision': (4, 4)},
        20,
    ),
    'crema_d_3d_32': (
        lambda: crema_d.make_schema(crema_d.Settings('3d', crop='none', frames=4, size=32)),
        {'audio': (4, 4), 'vision': (4, 4)},
        20,
    ),
    'crema_d_videomae': (
        lambda: crema_d.make_schema(
            crema_d.Settings('3d', crop='none', frames=4, size=32, vision_width=28, audio_width=4)
        ),
        {'audio': (4, 4), 'vision': (4, 4)},
        20,
    ),
    'iemocap': (lambda: mult_pickle.make_schema('iemocap'), SHORT, 9),
    'iemocap_raw': IEMOCAP_RAW,
    'iemocap_roberta': IEMOCAP_RAW,
    'mosei': (lambda: mult_pickle.make_schema('mosei'), SHORT, 9),
    'mosi': (lambda: mult_pickle.make_schema('mosi'), SHORT, 9),
    'mosi_text_audio': (mosi_text.make_schema, SHORT, 9),
    'mosi_tokens': (lambda: mosi_text.make_schema(tokenizer='random'), SHORT, 9),
    'ravdess_log_mel_64': (
        lambda: ravdess.make_schema(ravdess.Settings('log_mel', num_mels=64)),
        {'audio': (16, 32)},
        20,
    ),
    'ravdess_log_mel': (lambda: ravdess.make_schema(ravdess.Settings('log_mel')), {'audio': (16, 32)}, 20),
    'ravdess_mfcc_frames': (
        lambda: ravdess.make_schema(ravdess.Settings(vision=ravdess_video.Vision(frames=4, size=32))),
        {'audio': (212, 212), 'vision': (4, 4)},
        20,
    ),
    'ravdess_one_actor': (
        lambda: ravdess.make_schema(ravdess.Settings(vision=ravdess_video.Vision(frames=4, size=32))),
        {'audio': (212, 212), 'vision': (4, 4)},
        20,
    ),
    'ravdess_openface': (lambda: ravdess_openface.make_schema(ravdess.Settings()), {'audio': (212, 212)}, 20),
    'ravdess_openface_log_mel': (
        lambda: ravdess_openface.make_schema(ravdess.Settings('log_mel', num_mels=64)),
        {'audio': (16, 32)},
        20,
    ),
    'ravdess_mfcc': (lambda: ravdess.make_schema(ravdess.Settings()), {'audio': (212, 212)}, 20),
    'ravdess_waveform': (lambda: ravdess.make_schema(ravdess.WAVEFORM), {'audio': (1200, 2400)}, 20),
    'synthetic': (lambda: SCHEMA, LENGTHS, 9),
}


def write_like(name: str, output: str | Path, *, records: int = 160, seed: int = 0, overwrite: bool = False) -> int:
    """Random records of a real data set's schema, lengths, classes and speakers, named random_<its name>: enough to run
    its configs."""
    if name not in LIKE:
        raise ValueError(f'--like {name!r} is unknown; the known ones are {", ".join(LIKE)}')
    make_schema, lengths, speakers = LIKE[name]
    schema, generator = make_schema(), np.random.default_rng(seed)
    schema = dataclasses.replace(schema, name=f'random_{schema.name}')  # so that no published number stands beside it
    with RecordWriter(output, schema, num_shards=2, overwrite=overwrite) as writer:
        for number in range(records):
            arrays = {}
            for key, feature in schema.features.items():
                low, high = lengths.get(key, (1, 1))
                steps = int(generator.integers(low, high + 1))
                shape = [steps if size is None else size for size in feature.shape]
                arrays[key] = _random_array(feature, shape, generator)
            split = ('train', 'train', 'validation', 'test')[number % 4]
            record = {'id': f'random_{number:04d}', 'label': _random_label(schema.label, generator), **arrays}
            speaker, gender = number % speakers + 1, ('female', 'male')[number % speakers % 2 == 0]
            columns = {'speaker': f'{speaker:02d}', 'session': str(number % 5 + 1), 'split': split, 'gender': gender}
            writer.write(record, **columns)
    return records


def _random_array(feature: Feature, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    if feature.is_image:  # one colour a picture: noise makes large JPEG files
        colours = generator.integers(256, size=(*shape[:-3], 1, 1, shape[-1]))
        return np.broadcast_to(colours, shape).astype(feature.dtype)
    if feature.dtype == 'int32':  # token ids
        return generator.integers(1000, size=shape).astype(np.int32)
    return (generator.standard_normal(shape) * 10).astype(feature.dtype)


def _random_label(label: Label, generator: np.random.Generator) -> Any:
    if label.kind == 'regression':
        return float(generator.uniform(-3, 3))
    if label.kind == 'binary':
        return generator.integers(2, size=len(label.names))
    return int(generator.integers(len(label.names)))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m data_prep.synthetic', description=__doc__.split('\n')[0])
    parser.add_argument('--output', required=True, type=Path, help='shard directory to write')
    parser.add_argument('--like', choices=list(LIKE), help='random records of this data set instead')
    parser.add_argument('--seed', type=ranges.SEED, default=0)
    parser.add_argument('--overwrite', action='store_true', help='replace an existing output')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    options = {'seed': arguments.seed, 'overwrite': arguments.overwrite}
    count = (
        write_like(arguments.like, arguments.output, **options)
        if arguments.like
        else write_synthetic(arguments.output, **options)
    )
    print(f'{arguments.output}: {count} records')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
