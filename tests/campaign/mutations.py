"""Seeded changes of a file: its bytes, the values of its JSON, csv or pickle, names that ask for something."""

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Generator = np.random.Generator
SECRET = 'of the machine and of nobody else'  # content of the file outside
NUMBERS = (0, -1, 1, 5, 2**31, 2**63, 10**12, 10**30, 1e308, -0.5, 0.5, 1e-320, float('nan'), float('inf'), True)
ODD: tuple[Any, ...] = (None, '', [], {}, [[]], {'a': 1}, 'x', '1', 'nan', [None], ['a', 1])
DEEP = 20_000


class Outside:
    """What an input could ask for: a file beside its folder that holds a secret, and one that only a program makes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.secret, self.canary = folder / 'secret.txt', folder / 'canary'
        folder.mkdir(parents=True, exist_ok=True)
        self.secret.write_text(SECRET)

    def names(self) -> list[str]:
        touch = f'touch {self.canary}'
        return [
            str(self.secret), '../outside/secret.txt', '/etc/passwd', f'$({touch})', f'`{touch}`', f'| {touch}',
            f"__import__('os').system('{touch}')", f'!!python/object/apply:os.system ["{touch}"]', '..', '.', '/',
            'a\0b', 'a\nb', '\x1b[31mred\x1b[0m', '=HYPERLINK("x")', '<script>x</script>', '|x|', '$x^{$', 'x' * 3000,
            '\u202egnp', '\ud800', '%s%n', '{0.__class__}',
        ]  # fmt: skip


# ---- bytes ---------------------------------------------------------------------------------------------------


def change_bytes(content: bytes, generator: Generator, outside: Outside) -> bytes:
    """Bits flipped, bytes replaced, cut, lengthened, blocks exchanged, repeated or zeroed, or numbers made huge."""
    kinds = (_flip, _flip, _replace, _cut, _cut, _lengthen, _exchange, _repeat, _zero, _huge, _huge)
    return kinds[int(generator.integers(len(kinds)))](bytearray(content), generator)


def _place(content: bytearray, generator: Generator) -> int:
    """Anywhere, half of the time in the first 256 bytes, where headers are."""
    most = min(len(content), 256) if generator.integers(2) else len(content)
    return int(generator.integers(max(most, 1)))


def _flip(content: bytearray, generator: Generator) -> bytes:
    for _ in range(int(generator.choice([1, 1, 1, 3, 20]))):
        if content:
            content[_place(content, generator)] ^= 1 << int(generator.integers(8))
    return bytes(content)


def _replace(content: bytearray, generator: Generator) -> bytes:
    start, count = _place(content, generator), int(generator.integers(1, 33))
    content[start : start + count] = generator.bytes(len(content[start : start + count]))
    return bytes(content)


def _cut(content: bytearray, generator: Generator) -> bytes:
    return bytes(content[: int(generator.integers(len(content) + 1))])


def _lengthen(content: bytearray, generator: Generator) -> bytes:
    more = (bytes(64), generator.bytes(64), bytes(content))[int(generator.integers(3))]
    return bytes(content) + more


def _block(content: bytearray, generator: Generator) -> tuple[int, int]:
    size = int(generator.choice([4, 16, 64, 512]))
    return int(generator.integers(max(len(content) - size, 1))), size


def _exchange(content: bytearray, generator: Generator) -> bytes:
    (a, size), (b, _) = _block(content, generator), _block(content, generator)
    first, second = bytes(content[a : a + size]), bytes(content[b : b + size])
    content[a : a + size], content[b : b + size] = second, first
    return bytes(content)


def _repeat(content: bytearray, generator: Generator) -> bytes:
    start, size = _block(content, generator)
    return bytes(content[: start + size] + content[start:])


def _zero(content: bytearray, generator: Generator) -> bytes:
    start, size = _block(content, generator)
    content[start : start + size] = bytes(len(content[start : start + size]))
    return bytes(content)


def _huge(content: bytearray, generator: Generator) -> bytes:
    """A number of 2, 4 or 8 bytes as large as it can be."""
    size, start = int(generator.choice([2, 4, 8])), _place(content, generator)
    value = (b'\xff' * size, b'\xff' * (size - 1) + b'\x7f', bytes(size - 1) + b'\x40')[int(generator.integers(3))]
    content[start : start + size] = value[: len(content[start : start + size])]
    return bytes(content)


# ---- values --------------------------------------------------------------------------------------------------


def change_json(content: bytes, generator: Generator, outside: Outside) -> bytes:
    """One to three values of a JSON file become others; now and then it is nested deeply, or has a key twice."""
    if generator.integers(20) == 0:
        return (b'[' * DEEP + b']' * DEEP, b'{"a":' * DEEP + b'1' + b'}' * DEEP)[int(generator.integers(2))]
    value = json.loads(content)
    for _ in range(int(generator.integers(1, 4))):
        value = change_value(value, generator, [*NUMBERS, *ODD, *outside.names()])
    text = json.dumps(value)
    if generator.integers(20) == 0 and text.startswith('{"'):
        text = f'{{{text[1 : text.index(":")]}: 1, {text[1:]}'
    return text.encode('utf-8', 'surrogatepass')


def change_lines(content: bytes, generator: Generator, outside: Outside) -> bytes:
    """One line of lines of JSON changed as a JSON file is."""
    lines = content.splitlines()
    number = int(generator.integers(len(lines)))
    lines[number] = change_json(lines[number], generator, outside)
    return b'\n'.join(lines) + b'\n'


def change_csv(content: bytes, generator: Generator, outside: Outside) -> bytes:
    """One to three cells of a csv become others, or a line is lost, doubled, or exchanged."""
    lines = [line.split(',') for line in content.decode().splitlines()]
    for _ in range(int(generator.integers(1, 4))):
        row = lines[int(generator.integers(len(lines)))]
        kind = int(generator.integers(6))
        if kind < 3:
            odd = [*map(str, NUMBERS), *map(str, ODD), *outside.names(), '"', '"a']
            row[int(generator.integers(len(row)))] = odd[int(generator.integers(len(odd)))]
        elif kind == 3:
            row.append('1')
        else:
            other = lines[int(generator.integers(len(lines)))]
            row[:], other[:] = other[:], row[:]
    return '\n'.join(map(','.join, lines)).encode('utf-8', 'surrogatepass') + b'\n'


def change_value(value: Any, generator: Generator, choices: Sequence[Any]) -> Any:
    """One value anywhere in nested dictionaries and lists becomes another, is removed or repeated, or a key changes."""
    places = list(_places(value))
    if not places:
        return choices[int(generator.integers(len(choices)))]
    container, key = places[int(generator.integers(len(places)))]
    new, kind = choices[int(generator.integers(len(choices)))], int(generator.integers(8))
    if kind < 5:
        container[key] = new
    elif kind == 5:
        del container[key]
    elif isinstance(container, dict):
        container[new if isinstance(new, str) else 'unknown'] = container.pop(key)
    else:
        container.append(container[key])
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(items):
        yield value, key
        yield from _places(below)


# ---- pickles -------------------------------------------------------------------------------------------------


class _Call:
    """A value whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


def nested(depth: int, value: Any = (1.0, 2.0)) -> Any:
    """Tuples of a few bytes that stand for 2 ** depth values."""
    for _ in range(depth):
        value = (value, value)
    return value


def change_pickle(content: bytes, generator: Generator, outside: Outside) -> bytes:
    """A value of a pickle of our own becomes an odd array, a bomb or a call."""
    import builtins
    import os
    import subprocess

    command = f'touch {outside.canary}'
    calls = [
        _Call(os.system, command),
        _Call(eval, f'__import__("os").system({command!r})'),
        _Call(builtins.exec, f'open({str(outside.canary)!r}, "w")'),
        _Call(subprocess.Popen, ['touch', str(outside.canary)]),
        _Call(open, str(outside.secret)),
        _Call(np.fromfile, str(outside.secret), np.uint8),
        _Call(np.load, str(outside.secret)),
        _Call(getattr, 'a', '__class__'),
    ]
    arrays = [
        np.zeros(0), np.zeros((3, 0, 2)), np.zeros((2,) * 20), np.full((3, 4, 5), np.nan), np.full(3, np.inf),
        np.array(['a', 'b']), np.array([None, 1], object), np.array([b'\xff']), np.zeros(3, 'M8[s]'), np.float32(3),
        np.zeros(3, complex), np.array(nested(3), object), np.ones((6, 5, 6), bool), np.array([2**63], np.uint64),
    ]  # fmt: skip
    bombs = [nested(40), [nested(40)], {'a': nested(40)}, 'x' * 100_000, list(range(3000)), nested(400, ())]
    value = pickle.loads(content)  # of our own
    for _ in range(int(generator.integers(1, 3))):
        group = (calls, arrays, bombs, [*NUMBERS, *ODD, *outside.names()])[int(generator.integers(4))]
        value = change_value(value, generator, group)
    try:
        return pickle.dumps(value, int(generator.integers(2, 6)))
    except (RecursionError, UnicodeEncodeError):
        return pickle.dumps(calls[0])
