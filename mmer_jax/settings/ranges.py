"""What a value of a config or a flag may be, in one place: it says so in words, finds the fault, and reads text.

A kind has `words` (what is expected), `fault(value)` ('' where the value is one, else what was found and expected) and
`parse(text)` (a value from the command line; ValueError with the fault). A `Number` is also a `type=` of argparse:

    parser.add_argument('--workers', type=ranges.PROCESSES, default=0)

Nothing is rounded or taken for something near: True and '3' are no numbers here, 2.5 and 3.0 no whole ones, nan and
inf no real ones.
"""

import argparse
import ast
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

LARGEST = 2**31 - 1  # steps, sizes and seeds are int32 on the devices


class Kind(Protocol):
    @property
    def words(self) -> str: ...

    def fault(self, value: Any) -> str: ...

    def parse(self, text: str) -> Any: ...


def _found(value: Any, expected: str) -> str:
    shown = repr(value)
    return f'found {shown if len(shown) <= 80 else shown[:77] + "..."}, expected {expected}'


def _checked(kind: Kind, value: Any) -> Any:
    """The value; ValueError with its fault where it has one."""
    if fault := kind.fault(value):
        raise ValueError(fault)
    return value


@dataclasses.dataclass(frozen=True)
class Number:
    """A whole (int) or real (float) number. low and high may be reached, above and below may not; `also` may be too."""

    kind: type
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        name = 'a whole number' if self.kind is int else 'a finite number'
        if self.low is not None and self.high is not None and self.high != LARGEST:
            limits = [f'from {self.low} to {self.high}']
        else:
            limits = [] if self.low is None else [f'of at least {self.low}']
            limits += [] if self.above is None else [f'above {self.above}']
            limits += [] if self.high in (None, LARGEST) else [f'of at most {self.high}']
        limits += [] if self.below is None else [f'below {self.below}']
        return ' '.join([name, ' and '.join(limits)]).strip() + ''.join(f', or {value}' for value in self.also)

    def fault(self, value: Any) -> str:
        types = int if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, types):
            return _found(value, self.words)
        if value in self.also:
            return ''
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an int that no float can hold
            finite = False
        if self.high is not None and value > self.high:
            return _found(value, f'{self.words}, at most {self.high}' if self.high == LARGEST else self.words)
        inside = (
            finite
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        return '' if inside else _found(value, self.words)

    def parse(self, text: str) -> Any:
        try:
            value = self.kind(text)
        except ValueError:
            raise ValueError(_found(text, self.words)) from None
        return _checked(self, value)

    def __call__(self, text: str) -> Any:
        """As a `type=` of argparse, which puts the flag's name before the message."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Flag:
    words: str = 'true or false'

    def fault(self, value: Any) -> str:
        return '' if isinstance(value, bool) else _found(value, self.words)

    def parse(self, text: str) -> bool:
        known = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}
        if text.lower() not in known:
            raise ValueError(_found(text, self.words))
        return known[text.lower()]


@dataclasses.dataclass(frozen=True)
class Text:
    """A string: one of `choices` where there are some; a regular expression where `pattern`; not '' where `filled`."""

    choices: tuple[str, ...] = ()
    pattern: bool = False
    filled: bool = False

    @property
    def words(self) -> str:
        if self.choices:
            return f'one of {", ".join(self.choices)}'
        return 'a regular expression' if self.pattern else 'a text that is not empty' if self.filled else 'a text'

    def fault(self, value: Any) -> str:
        right = (
            isinstance(value, str) and (not self.choices or value in self.choices) and bool(value or not self.filled)
        )
        if right and self.pattern:
            try:
                re.compile(value)
            except re.error as error:
                return _found(value, f'{self.words} ({error})')
        return '' if right else _found(value, self.words)

    def parse(self, text: str) -> str:
        return _checked(self, text)


@dataclasses.dataclass(frozen=True)
class Items:
    """A tuple (or list) of values of one kind, of `length` where given; on the command line (3, 1, 1) or 3,1,1."""

    kind: Kind
    length: int | None = None

    @property
    def words(self) -> str:
        count = '' if self.length is None else f'{self.length} values, '
        return f'a tuple of {count}each {self.kind.words}' if count else f'a tuple, each {self.kind.words}'

    def fault(self, value: Any) -> str:
        if not isinstance(value, tuple | list) or self.length not in (None, len(value)):
            return _found(value, self.words)
        return next((_found(value, self.words) for item in value if self.kind.fault(item)), '')

    def parse(self, text: str) -> tuple:
        value = literal(text)
        if isinstance(value, str) and not getattr(self.kind, 'pattern', False):  # bare words: text,audio
            inner = value[1:-1] if value[:1] + value[-1:] in ('()', '[]') else value
            value = tuple(part.strip() for part in inner.split(','))
        return _checked(self, tuple(value) if isinstance(value, tuple | list) else (value,))


@dataclasses.dataclass(frozen=True)
class Either:
    """A value of one of several kinds."""

    kinds: tuple[Kind, ...]

    @property
    def words(self) -> str:
        return ', or '.join(kind.words for kind in self.kinds)

    def fault(self, value: Any) -> str:
        faults = [kind.fault(value) for kind in self.kinds]
        return '' if '' in faults else _found(value, self.words)

    def parse(self, text: str) -> Any:
        for kind in self.kinds:
            try:
                return kind.parse(text)
            except ValueError:
                continue
        raise ValueError(_found(text, self.words))


@dataclasses.dataclass(frozen=True)
class Nothing:
    words: str = 'None'

    def fault(self, value: Any) -> str:
        return '' if value is None else _found(value, self.words)

    def parse(self, text: str) -> None:
        return _checked(self, None if text.lower() == 'none' else text)


@dataclasses.dataclass(frozen=True)
class Anything:
    words: str = 'a value'

    def fault(self, value: Any) -> str:
        return ''

    def parse(self, text: str) -> Any:
        return literal(text)


def literal(text: str) -> Any:
    """A Python literal, true and false too; the text itself where it is none."""
    try:
        return ast.literal_eval(text.capitalize() if text in ('true', 'false') else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


@dataclasses.dataclass(frozen=True)
class Listed:
    """A `type=` of argparse for several numbers in one flag, each once: --folds=0,2."""

    kind: Number

    def __call__(self, text: str) -> list:
        values = [self.kind(part) for part in text.split(',')]
        if len(set(values)) < len(values):
            raise argparse.ArgumentTypeError(f'found {text}, expected each number once')
        return values


def optional(kind: Kind) -> Either:
    return Either((kind, Nothing()))


def join(values: Sequence[str]) -> str:
    return ', '.join(map(str, values)) or 'none'


COUNT = Number(int, low=1, high=LARGEST)
COUNT_OR_0 = Number(int, low=0, high=LARGEST)
PROCESSES = Number(int, low=0, high=1024)
SEED = Number(int, low=0, high=LARGEST)
NUMPY_SEED = Number(int, low=0, high=2**32 - 1)
FINITE = Number(float)
POSITIVE = Number(float, above=0)
NOT_NEGATIVE = Number(float, low=0)
FRACTION = Number(float, low=0, high=1)
BELOW_1 = Number(float, low=0, below=1)
BETWEEN_0_AND_1 = Number(float, above=0, below=1)
FLAG, TEXT, NAME = Flag(), Text(), Text(filled=True)
# Flags of the preparation of data.
SHARDS = Number(int, low=1, high=10**4)
SEGMENTS = Number(int, low=0, high=100)  # of a conversation, before one
SAMPLE_RATE = Number(int, low=1, high=768_000)  # Hz
FRAMES = Number(int, low=1, high=10**4)  # a clip
MELS = Number(int, low=1, high=1024)
SECONDS_OR_0 = Number(float, low=0.1, also=(0,))
SIDE = Number(int, low=16, high=4096)  # pixels
WIDTH_OR_0 = Number(int, low=0, high=4096)  # of one part of a joined picture, which may be a narrow strip
QUALITY = Number(int, low=1, high=95)  # of JPEG
FACE = Number(int, low=12, high=1000)  # pixels
