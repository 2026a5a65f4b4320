"""Kinds of values, and the range that each number of a command has."""

import argparse
import importlib
import re

import numpy as np
import pytest

from mmer_jax.settings import keys, ranges
from mmer_jax.settings.keys import KEYS
from tests.conftest import REPOSITORY

INF, NAN = float('inf'), float('nan')


# ---- kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'good', 'bad'),
    [
        (ranges.COUNT, [1, 2**31 - 1], [0, -1, 2**31, 10**400, True, 1.0, 2.5, '3', None, NAN, INF, np.int64(1)]),
        (ranges.COUNT_OR_0, [0, 1], [-1, False]),
        (ranges.SEED, [0, 2**31 - 1], [-1, 2**31]),
        (ranges.NUMPY_SEED, [2**32 - 1], [2**32, -1]),
        (ranges.POSITIVE, [1, 1e-30], [0, 0.0, -1.0, NAN, INF, 10**400, '1', True, None]),
        (ranges.NOT_NEGATIVE, [0, 0.0], [-1e-9, INF]),
        (ranges.FRACTION, [0, 1, 1.0], [1.0001, -0.1]),
        (ranges.BELOW_1, [0.0, 0.999], [1, 1.0, -0.1]),
        (ranges.BETWEEN_0_AND_1, [0.5], [0, 1]),
        (ranges.FINITE, [-3, 0.0], [NAN, -INF]),
        (KEYS['mesh.data'], [-1, 1], [0, -2]),
        (ranges.FLAG, [True, False], [0, 1, 'true', None]),
        (ranges.Text(('a', 'b')), ['a'], ['c', '', 1]),
        (ranges.Text(pattern=True), ['^a'], ['(', 3]),
        (ranges.Items(ranges.COUNT, 2), [(1, 2), [3, 4]], [(1,), (1, 0), 1, '12']),
        (ranges.optional(ranges.COUNT), [None, 1], [0, 'None']),
    ],
)
def test_a_kind_takes_the_good_and_names_the_bad(kind, good, bad):
    assert [value for value in good if kind.fault(value)] == []
    for value in bad:
        assert re.fullmatch(r'found .*, expected .+', kind.fault(value)), value
        assert len(kind.fault(value)) < 220


@pytest.mark.parametrize(
    ('kind', 'text', 'value'),
    [
        (ranges.COUNT, '12', 12),
        (ranges.POSITIVE, '1e-4', 1e-4),
        (ranges.FLAG, 'False', False),
        (ranges.FLAG, '1', True),
        (ranges.TEXT, '3', '3'),
        (ranges.Items(ranges.COUNT), '(3, 1)', (3, 1)),
        (ranges.Items(ranges.COUNT), '3,1', (3, 1)),
        (ranges.Items(ranges.COUNT), '3', (3,)),
        (ranges.Items(ranges.COUNT), '()', ()),
        (ranges.Items(ranges.NAME), 'text,audio', ('text', 'audio')),
        (ranges.Items(ranges.NAME), "('text',)", ('text',)),
        (ranges.Items(ranges.NAME), '(text, audio)', ('text', 'audio')),
        (keys.PATTERNS, '(^a{1,2}/)|(b)', ('(^a{1,2}/)|(b)',)),
        (keys.PATTERNS, "('^a', 'b$')", ('^a', 'b$')),
        (ranges.Either((ranges.COUNT, ranges.Items(ranges.COUNT))), '3', 3),
        (ranges.optional(ranges.COUNT), 'None', None),
    ],
)
def test_text_becomes_a_value_of_its_type(kind, text, value):
    parsed = kind.parse(text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ('kind', 'text'),
    [(ranges.COUNT, '2.5'), (ranges.COUNT, '1e3'), (ranges.COUNT, ''), (ranges.POSITIVE, 'nan'), (ranges.FLAG, 'yep'),
     (ranges.Items(ranges.COUNT), '3,a'), (keys.PATTERNS, '('), (ranges.Items(ranges.NAME), 'text,'),
     (ranges.optional(ranges.COUNT), 'no')],
)  # fmt: skip
def test_text_that_is_no_value_is_named(kind, text):
    with pytest.raises(ValueError, match='found .*, expected '):
        kind.parse(text)


# ---- flags of the commands -------------------------------------------------------------------------------------


class Caught(Exception):
    """Holds a parser in place of its parsed arguments."""


def commands():
    """The modules that make a parser and are commands of their own."""
    for folder in ('mmer_jax', 'data_prep', 'benchmarks'):
        for path in sorted((REPOSITORY / folder).rglob('*.py')):
            text = path.read_text()
            if "if __name__ == '__main__':" in text or path.stem == '__main__':
                name = '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts)
                if 'argparse' in text or 'pickle_command' in text:
                    yield name


def parser_of(name, monkeypatch):
    def catch(self, *arguments, **options):
        raise Caught(self)

    module = importlib.import_module(name)
    monkeypatch.setattr('sys.argv', ['x'])
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', catch)
    with pytest.raises(Caught) as caught:
        module.main() if module.main.__code__.co_argcount == 0 else module.main([])
    return caught.value.args[0]


def flags_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from flags_of(below)
        else:
            yield action


def test_there_are_commands():
    assert len(list(commands())) > 20


@pytest.mark.parametrize('name', list(commands()))
def test_every_number_of_a_command_has_a_range(name, monkeypatch):
    pytest.importorskip('torch') if name.startswith('benchmarks.') else None
    for action in flags_of(parser_of(name, monkeypatch)):
        defaults = action.default if isinstance(action.default, tuple | list) else (action.default,)
        number = any(isinstance(value, int | float) and not isinstance(value, bool) for value in defaults)
        assert action.type not in (int, float), f'{action.dest}: give it a range of mmer_jax/settings/ranges.py'
        if action.nargs != 0 and number:
            assert isinstance(action.type, ranges.Number), action.dest
        if isinstance(action.type, ranges.Number) and action.default is not None:
            assert [fault for value in defaults if (fault := action.type.fault(value))] == [], action.dest


@pytest.mark.parametrize('text', ['0', '-1', '2.5', 'nan', 'a', '99999999999'])
def test_a_flag_outside_its_range_is_one_line(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--steps', type=ranges.COUNT)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([f'--steps={text}'])
    assert caught.value.code == 2
    assert 'error: argument --steps: found ' in capsys.readouterr().err
