"""The flags of preparations that store sound by the reader `Sound`: one home for their names and ranges."""

import argparse

from mmer_jax.media import functionals
from mmer_jax.readers import Sound
from mmer_jax.settings import ranges

NAMES = ('sample_rate', 'num_mfcc', 'num_mels', 'hop_length', 'n_fft', 'offset', 'duration')


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--sample_rate, --num_mfcc and the others, as fields of the reader."""
    add = parser.add_argument
    add('--sample_rate', type=ranges.SAMPLE_RATE, default=16000, help='Hz, after resampling')
    add('--num_mfcc', type=ranges.MELS, default=40, help='coefficients per frame, with --audio mfcc')
    add('--num_mels', type=ranges.MELS, default=64, help='mel bands')
    add('--hop_length', type=ranges.COUNT, default=320, help='samples from one frame of sound to the next')
    add('--n_fft', type=ranges.Number(int, low=16, high=2**16), default=1024, help='samples of a frame of sound')
    add('--offset', type=ranges.NOT_NEGATIVE, default=0.0, help='seconds of sound to leave out at the start')
    add('--duration', type=ranges.SECONDS_OR_0, default=0.0, help='seconds of sound to take; 0: the whole clip')


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program in one line where flags do not fit each other; `audio` is the kind of feature."""
    if arguments.num_mfcc > arguments.num_mels and arguments.num_mels != parser.get_default('num_mels'):
        parser.error(f'--num_mfcc {arguments.num_mfcc}: expected at most --num_mels {arguments.num_mels}')
    if arguments.audio == 'functionals' and arguments.sample_rate != functionals.SAMPLE_RATE:
        parser.error(f'--sample_rate {arguments.sample_rate}: functionals are of {functionals.SAMPLE_RATE} Hz')


def reader(features: str, arguments: argparse.Namespace) -> Sound:
    """The reader of these `features` with what the flags say."""
    return Sound(features, **{name: getattr(arguments, name) for name in NAMES})
