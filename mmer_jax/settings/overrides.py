"""Config files by name, and values of their keys from text: what `main --config...` and `table --set` have in common.

`set_value(config, 'model.dropout', '0.3')` reads text as the key's own type: that of configs/base.py, of the field of
the model's module, of a protocol's option. Keys that the config file does not spell out are set too, where something
reads them; for any other one the known ones are listed.
"""

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from mmer_jax.settings import ranges
from mmer_jax.settings.keys import OPEN, kind_of, suggestion

ROOT = Path(__file__).resolve().parents[2]  # of the checkout or the installed packages, where configs/ lies
FOLDERS = {'get_config': 'configs', 'get_table': 'configs/tables'}  # where files are found by their name alone
Override = tuple[str, str]  # dotted key, text


# ---- files -----------------------------------------------------------------------------------------------------


def find_file(path: str, function: str = 'get_config') -> Path:
    """A file of the working directory, else a shipped one; 'quickstart' is configs/quickstart.py. FileNotFoundError."""
    names = [path] if path.endswith('.py') else [path, f'{FOLDERS[function]}/{path}.py']
    for folder in (Path(), ROOT):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    looked = dict.fromkeys((str(Path.cwd()), str(ROOT)))
    folder = ROOT / Path(names[-1]).parent
    near = suggestion(Path(names[-1]).name, [file.name for file in folder.glob('*.py')]) if folder.is_dir() else ''
    raise FileNotFoundError(f'{" or ".join(names)}: no such file in {" or ".join(looked)}{near}')


def load_module(path: str, function: str) -> ModuleType:
    """The Python file as a module, which must define `function`; what it raises itself is told with its line."""
    file = find_file(path, function)
    specification = importlib.util.spec_from_file_location(file.stem, file)
    if specification is None or specification.loader is None:
        raise ValueError(f'{path} is no Python file: its name must end in .py')
    module = importlib.util.module_from_spec(specification)
    try:
        _join_configs()
        # As it stands: an import takes compiled code of the same second and size for it, and leaves some beside it.
        exec(compile(file.read_bytes(), str(file), 'exec'), module.__dict__)
    except Exception as error:
        raise ValueError(f'{path}{_line_of(error, file)}: {type(error).__name__}: {error}') from error
    if not hasattr(module, function):
        raise ValueError(f'{path} defines no {function}()')
    return module


def _join_configs() -> None:
    """`import configs` finds the shipped ones and those of a folder `configs` of the user's, which come first.

    Else one of the two would hide the other: which one follows from how the toolkit is installed, and from whether
    the user's folder has an __init__.py. The working directory is no place of imports where a console script runs.
    """
    sys.path += [place for place in (str(Path.cwd()), str(ROOT)) if place not in sys.path]
    package = importlib.import_module('configs')
    places = [str(Path.cwd() / 'configs'), *getattr(package, '__path__', ()), str(ROOT / 'configs')]
    package.__path__ = list(dict.fromkeys(place for place in places if Path(place).is_dir()))


def load_config(path: str, variant: str = '') -> ConfigDict:
    """What get_config(variant) of the file returns, locked; FILE:VARIANT as one text is good too."""
    file, _, named = path.partition(':')
    get_config, variant = load_module(file, 'get_config').get_config, variant or named
    try:
        config = get_config(variant) if variant else get_config()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f'{file}{_line_of(error, find_file(file))}: {type(error).__name__}: {error}') from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f'{file}: get_config() returned {type(config).__name__}, expected a ConfigDict')
    return config.lock()


def _line_of(error: Exception, file: Path) -> str:
    """', line 12' of the file, where the error passed through it."""
    if isinstance(error, SyntaxError):
        return f', line {error.lineno}'
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f', line {lines[-1]}' if lines else ''


# ---- values by key ---------------------------------------------------------------------------------------------


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The arguments of a command -> (those that are no keys of a config, the keys and their texts).

    --config.KEY=TEXT, --config.KEY TEXT; of true or false keys also --config.KEY and --noconfig.KEY.
    """
    rest, overrides, waiting = [], [], list(arguments)
    while waiting:
        found = re.fullmatch(r'--?(no)?config\.([^=]+)(=.*)?', argument := waiting.pop(0), re.DOTALL)
        if not found:
            rest.append(argument)
            continue
        no, key, text = found.groups()
        if no:
            if text is not None:
                raise ValueError(f'{argument}: --noconfig.{key} takes no value')
            overrides.append((key, 'false'))
        elif text is not None:
            overrides.append((key, text[1:]))
        else:
            has_value = waiting and not waiting[0].startswith('--')
            overrides.append((key, waiting.pop(0) if has_value else 'true'))
    return rest, overrides


def apply(config: ConfigDict, overrides: Iterable[tuple[str, Any]], *, parse: bool = True) -> None:
    """Sets every key: whole dictionaries first, then names, then what lies below them; of one key the last wins."""
    for key, value in sorted(overrides, key=lambda pair: (pair[0].count('.'), not pair[0].endswith('name'))):
        set_value(config, key, value, parse=parse)


def set_value(config: ConfigDict, key: str, value: Any, *, parse: bool = True) -> None:
    """Sets config.<key>; `parse` reads the value from text. ValueError names the key, what was found and expected."""
    kind = kind_of(config.to_dict(), key)
    if kind is None:
        value = ranges.literal(value) if parse else value
        if not isinstance(value, Mapping):
            raise ValueError(f"config.{key}: found {value!r}, expected a dictionary such as {{'name': value}}")
        value = ConfigDict(dict(value))
    else:
        try:
            value = kind.parse(value) if parse else value
        except ValueError as error:
            raise ValueError(f'config.{key}: {error}') from None
        if fault := kind.fault(value):
            raise ValueError(f'config.{key}: {fault}')
    node, parts = config, _parts(key)
    with config.unlocked(), config.ignore_type():
        for part in parts[:-1]:
            if part not in node:
                node[part] = ConfigDict()
            node = node[part]
        with node.unlocked(), node.ignore_type():
            node[parts[-1]] = value


def _parts(key: str) -> list[str]:
    """The steps to a key; below an open dictionary with free names the rest is one name, dots and all."""
    for above in OPEN:
        if key.startswith(f'{above}.') and above != 'model':
            return [*above.split('.'), key[len(above) + 1 :]]
    return key.split('.')
