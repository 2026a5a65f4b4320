"""The table of BUILD.md, enforced: which file may import what; no circle; no torch and no TensorFlow in training."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ('mmer_jax', 'data_prep', 'configs')


def table():
    """{where: (names of mmer_jax, third-party packages)} as BUILD.md has it; 'data/' is a room, 'layers' a file."""
    text = (REPOSITORY / 'BUILD.md').read_text()
    rows = text[text.index('## Layers') :].split('| where |')[1].split('\n\n')[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]
    return {where: tuple(set(names.split(', ')) - {'-'} for names in names) for where, *names in cells}


LAYERS = table()


def modules(path):
    """Full names of the modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: import by full name'
            inner = REPOSITORY / node.module.replace('.', '/')
            for alias in node.names:
                is_module = (inner / f'{alias.name}.py').is_file() or (inner / alias.name).is_dir()
                found.add(f'{node.module}.{alias.name}' if is_module else node.module)
    return found


def name_of(path):
    """'data/records', 'layers', 'configs/base': a file as the table names it."""
    return path.relative_to(REPOSITORY).with_suffix('').as_posix().removeprefix('mmer_jax/')


FILES = {name_of(path): path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob('*.py'))}


@pytest.mark.parametrize('name', FILES)
def test_imports(name):
    room = name.split('/')[0]
    key = name if name in LAYERS else f'{room}/'
    assert key in LAYERS or name == '__init__', f'{name}.py is in no layer: add it to the table of BUILD.md'
    allowed_own, allowed_third = LAYERS.get(key, (set(), set()))
    own, third = set(), set()
    for module in modules(FILES[name]):
        first, *rest = module.split('.')
        if first == 'mmer_jax':
            own |= set(rest[:1])
        elif first in PACKAGES:
            own.add(first)
        elif first not in sys.stdlib_module_names and first != 'numpy':
            third.add(first)
    own -= {room} if '/' in name else set()
    assert own <= allowed_own, f'{name}.py imports mmer_jax.{sorted(own - allowed_own)}'
    assert third <= allowed_third, f'{name}.py imports {sorted(third - allowed_third)}'


def test_no_file_imports_in_a_circle():
    graph = {}
    for path in FILES.values():
        name = '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts).removesuffix('.__init__')
        graph[name] = {module for module in modules(path) if module.split('.')[0] in PACKAGES} - {name}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph)


def test_the_table_says_no_more_than_is_so():
    used = {where: (set(), set()) for where in LAYERS}
    for name, path in FILES.items():
        key = name if name in LAYERS else f'{name.split("/")[0]}/'
        if key in used:
            for module in modules(path):
                first, *rest = module.split('.')
                used[key][0].update(rest[:1] if first == 'mmer_jax' else ())
                used[key][1].add(first)
    spare = {w: [sorted(allowed - found) for allowed, found in zip(LAYERS[w], used[w], strict=True)] for w in LAYERS}
    assert {where: names for where, names in spare.items() if any(names)} == {}


def test_a_model_never_imports_another_model():
    for name, path in FILES.items():
        if name.startswith('models/') and name != 'models/__init__':
            assert 'mmer_jax.models' not in path.read_text(), name


def test_only_sharding_names_mesh_axes():
    for name, path in FILES.items():
        text = path.read_text()
        found = re.search(r'PartitionSpec|axis_types|\bmesh\.shape|mesh\.axis_names', text)
        assert name == 'run/sharding' or not found, f'{name}: {found[0] if found else ""}'


def test_no_torch_and_no_tensorflow_on_the_training_path():
    code = 'import sys, mmer_jax.main, mmer_jax.records; print(sorted({"torch", "tensorflow"} & set(sys.modules)))'
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert found.stdout.strip() == '[]'


def test_files_stay_readable():
    """About 100 to 350 lines a file; a longer one wants splitting."""
    files = [*FILES.values(), *(REPOSITORY / 'benchmarks').glob('*.py')]
    long = {str(p.relative_to(REPOSITORY)): n for p in files if (n := len(Path(p).read_text().splitlines())) > 400}
    assert long == {}
