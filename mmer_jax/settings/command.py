"""How every command ends: its exit status, and one line on stderr for what went wrong.

0 ok; 1 failed: an input is missing or wrong, or a run has failed; 2 wrong call: a flag, a config or a table that cannot
be, as argparse ends by itself; 130 interrupted by Ctrl-C, with a line that says how to go on.
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

ArgumentsT = TypeVar('ArgumentsT')
OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130
MISTAKES = (ValueError, TypeError, FloatingPointError, OSError, ImportError)  # of a user, told without a traceback
ANEW = 'the same command begins anew'


class WrongCall(ValueError):
    """What the command line asks for cannot be, whatever its inputs hold."""


@contextlib.contextmanager
def wrong_call() -> Iterator[None]:
    """What is raised inside, as mistakes in a config or a table are, is a wrong call."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise WrongCall(str(error)) from error


def run(
    work: Callable[[ArgumentsT], int | None],
    arguments: ArgumentsT,
    *,
    mistakes: tuple[type[Exception], ...] = MISTAKES,
    go_on: str = ANEW,
) -> int:
    """Does the work of a command and returns its exit status: work's own, 0 for None, or that of how it ended.

    mistakes: what is told in one line; anything else is a fault of the toolkit and keeps its traceback, and with
    `arguments.debug` everything does. go_on: what one does after Ctrl-C.
    """
    told: tuple[type[Exception], ...] = (WrongCall, *mistakes)
    try:
        return work(arguments) or OK
    except told as error:
        if getattr(arguments, 'debug', False):
            raise
        print(f'error: {one_line(error)}', file=sys.stderr)
        return WRONG_CALL if isinstance(error, WrongCall) else FAILED
    except KeyboardInterrupt:
        print(f'interrupted; {go_on}', file=sys.stderr)
        return INTERRUPTED


def feature_place(parser: argparse.ArgumentParser, text: str) -> tuple[str, Path]:
    """(modality, file or folder) of `--features M=PLACE`; a wrong call where it is none or nothing is there."""
    modality, mark, place = text.partition('=')
    if not mark or modality not in ('text', 'audio', 'vision') or not place:
        parser.error(f'--features {text}: expected text=, audio= or vision= and a file or folder')
    if not Path(place).exists():
        parser.error(f'--features {text}: {place} is missing')
    return modality, Path(place)


def one_line(error: Exception) -> str:
    """What an error says, its line breaks as spaces; its type where it says nothing."""
    return re.sub(r'\s*\n\s*', ' ', str(error)).strip() or type(error).__name__
