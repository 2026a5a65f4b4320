"""The flags of preparations that store sound by the reader `Sound`: one home for their names and ranges."""

import argparse

from mmer_jax.media import functionals
from mmer_jax.readers import Sound
from mmer_jax.settings import ranges

NAMES = ('sample_rate', 'num_mfcc', 'num_mels', 'hop_length', 'n_fft', 'offset', 'duration')
DEFAULT = Sound(sample_rate=16000, num_mfcc=40, num_mels=64, hop_length=320, n_fft=1024)


def add_flags(
    parser: argparse.ArgumentParser,
    default: Sound = DEFAULT,
    *,
    num_mfcc: ranges.Number = ranges.MELS,
    duration: ranges.Number = ranges.SECONDS_OR_0,
) -> None:
    """--sample_rate, --num_mfcc and the others, as fields of the reader; `num_mfcc` and `duration` are their ranges."""
    add = parser.add_argument
    add('--sample_rate', type=ranges.SAMPLE_RATE, default=default.sample_rate, help='Hz, after resampling')
    add('--num_mfcc', type=num_mfcc, default=default.num_mfcc, help='coefficients per frame, of MFCC')
    add('--num_mels', type=ranges.MELS, default=default.num_mels, help='mel bands, of which MFCC are made too')
    add('--hop_length', type=ranges.COUNT, default=default.hop_length, help='samples from one frame to the next')
    add('--n_fft', type=ranges.Number(int, low=16, high=2**16), default=default.n_fft, help='samples of a frame')
    add('--offset', type=ranges.NOT_NEGATIVE, default=default.offset, help='seconds to leave out at the start')
    add('--duration', type=duration, default=default.duration, help='seconds to take; 0: the whole clip')


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program in one line where flags do not fit each other; `audio` is the kind of feature."""
    if arguments.num_mfcc > arguments.num_mels and arguments.num_mels != parser.get_default('num_mels'):
        parser.error(f'--num_mfcc {arguments.num_mfcc}: expected at most --num_mels {arguments.num_mels}')
    check_rate(parser, arguments.audio, arguments.sample_rate)


def check_rate(parser: argparse.ArgumentParser, features: str, sample_rate: int) -> None:
    """Ends the program in one line where functionals are asked for at another rate than theirs."""
    if features == 'functionals' and sample_rate != functionals.SAMPLE_RATE:
        parser.error(f'--sample_rate {sample_rate}: functionals are of {functionals.SAMPLE_RATE} Hz')


def reader(features: str, fields: object) -> Sound:
    """The reader of these `features` with what the flags say, or anything else that has them as fields."""
    return Sound(features, **{name: getattr(fields, name) for name in NAMES})
