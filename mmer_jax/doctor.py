"""What is here and what is missing: `python -m mmer_jax.doctor`. Ends with 1 where a needed part is missing or broken.

It imports nothing of jax itself: packages are tried in a process of their own, which may die.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmer_jax import __version__
from mmer_jax.run import cache
from mmer_jax.settings import command
from mmer_jax.settings.overrides import ROOT

# What each extra of pyproject.toml is for.
PURPOSES = {
    'classifiers': 'xgboost in mmer_jax.classifiers; its SVM and MLP need nothing more',
    'csd': 'data_prep.cmu_sdk, which reads computational sequences (.csd)',
    'cuda': 'NVIDIA GPUs',
    'docs': 'make docs',
    'export': 'mmer_jax.export, whose programs jax.export writes with flatbuffers',
    'mlflow': "config.tracker = 'mlflow'",
    'search': 'mmer_jax.search, which needs optuna',
    'test': 'make test',
    'tpu': 'TPUs',
    'wandb': "config.tracker = 'wandb'",
}
# Names under which packages are imported, where they differ by more than a hyphen.
IMPORTED = {
    'absl-py': 'absl', 'orbax-checkpoint': 'orbax.checkpoint', 'pillow': 'PIL', 'scikit-learn': 'sklearn',
    'xgboost-cpu': 'xgboost', 'pytest-xdist': 'xdist', 'mkdocs-material': 'material',
}  # fmt: skip
PLUGINS = {'jax[cuda13]': 'jax-cuda13-plugin', 'jax[tpu]': 'libtpu'}  # what an extra of another package installs
PATIENCE = 300  # seconds until a package that is being imported counts as hanging
DEVICES = 'devices of jax'
PROBE = f"""
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        if name == {DEVICES!r}:
            import jax
            sizes = [(device.memory_stats() or {{}}).get('bytes_limit', 0) for device in jax.devices()]
            found = [[d.platform, d.device_kind, size] for d, size in zip(jax.devices(), sizes)]
        else:
            importlib.import_module(name)
            found = ''
    except BaseException as error:
        found = type(error).__name__ + ': ' + ' '.join(str(error).split())[:200]
    print(json.dumps([name, found]), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A package that pyproject.toml names: 'jax[cuda13]', '>=0.10.2', and the extra that wants it ('' for all)."""

    name: str
    versions: str
    extra: str

    @classmethod
    def read(cls, text: str, extra: str = '') -> 'Requirement':
        """From 'h5py>=3.11', also with '; extra == "csd"' behind it, as in the metadata of an installed package."""
        package, _, marker = text.partition(';')
        parts = re.match(r'\s*([\w.-]+(?:\[[\w,]*\])?)\s*(.*)', package)
        assert parts is not None, text
        name, versions = parts.groups()
        found = re.search(r'extra == [\'"]([\w-]+)', marker)
        return cls(name, versions.strip(), found[1] if found else extra)

    @property
    def package(self) -> str:
        return PLUGINS.get(self.name, self.name.partition('[')[0])

    @property
    def module(self) -> str:
        """'' where there is none to try."""
        return '' if self.name in PLUGINS else IMPORTED.get(self.package, self.package.replace('-', '_'))

    def version(self) -> str:
        """'' where it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ''

    def fault(self) -> str:
        """What is wrong with the installed version, '' for nothing."""
        found = self.version()
        if not found:
            return f'missing, expected {self.versions or "any version"}'
        for operator, wanted in re.findall(r'(>=|<=|==|<|>)\s*([\d.]+)', self.versions):
            a, b = ([int(part) for part in re.findall(r'\d+', text)[:3]] for text in (found, wanted))
            a, b = a + [0] * (3 - len(a)), b + [0] * (3 - len(b))
            good = {'>=': a >= b, '<=': a <= b, '==': a == b, '<': a < b, '>': a > b}[operator]
            if not good and self.name not in PLUGINS:
                return f'expected {self.versions}'
        return ''


def requirements() -> list[Requirement]:
    """Of the checkout's pyproject.toml; of an installed package its metadata."""
    file = ROOT / 'pyproject.toml'
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding='utf-8'))['project']
        texts = [(text, '') for text in project['dependencies']]
        texts += [(text, extra) for extra, some in project['optional-dependencies'].items() for text in some]
        return [Requirement.read(text, extra) for text, extra in texts]
    try:
        return [Requirement.read(text) for text in importlib.metadata.requires('mmer_jax') or ()]
    except importlib.metadata.PackageNotFoundError:
        return []


def probe(names: Sequence[str]) -> dict[str, str | list]:
    """Each module imported in another process -> '' or what it raised; DEVICES -> [[platform, kind, bytes], ...]."""
    found: dict[str, str | list] = {}
    waiting = list(names)
    while waiting:
        try:
            done = subprocess.run(
                [sys.executable, '-c', PROBE, *waiting], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            output, how = done.stdout, f'ended the process with status {done.returncode}'
        except subprocess.TimeoutExpired as error:
            output, how = (error.stdout or b'').decode(errors='replace'), f'not imported after {PATIENCE} s'
        last = ''
        for line in output.splitlines():
            try:
                name, fault = json.loads(line)
            except ValueError:  # a package that prints while it is imported
                continue
            if name in waiting:
                last = name
                if fault is not None:
                    found[name] = fault
        if last not in found:  # nothing began, or the last one that did has not ended
            found[last or waiting[0]] = how
        waiting = [name for name in waiting if name not in found]
    return found


def examine() -> tuple[list[str], list[str]]:
    """The lines to print, and what is wrong with needed parts."""
    needed = [one for one in requirements() if not one.extra]
    tried = probe([*(one.module for one in needed if one.version()), DEVICES])
    lines, faults = ['Toolkit', *_toolkit_lines(), '', 'Needed packages'], []
    if not needed:
        faults.append('mmer_jax is not installed, and its pyproject.toml is not here: pip install it')
    for one in needed:
        fault = one.fault() or tried.get(one.module, '')
        lines.append(_row(one.package, one.version() or '-', f'! {fault}' if fault else 'ok'))
        if fault:
            faults.append(f'{one.package}: {fault}')
    lines += ['', 'Devices']
    devices = tried[DEVICES]
    if isinstance(devices, str):
        lines.append(f'  ! jax gives no devices: {devices}')
        faults.append(f'jax gives no devices: {devices}')
    else:
        lines += _device_lines(devices)
    lines += ['', 'Optional parts', *_extra_lines(), '', 'Places', *_place_lines(), '']
    if faults:
        lines += [f'{len(faults)} needed parts are missing or broken:', *(f'  {fault}' for fault in faults)]
    else:
        lines.append('Ready: all that is needed is here.')
    return lines, faults


def _row(*cells: str) -> str:
    return ('  ' + ''.join(f'{cell:<22}' for cell in cells[:-1]) + cells[-1]).rstrip()


def _toolkit_lines() -> Iterator[str]:
    is_checkout = (ROOT / 'pyproject.toml').is_file()
    yield _row('mmer_jax', __version__, f'{"checkout" if is_checkout else "installed"} in {ROOT}')
    yield _row('python', platform.python_version(), f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs')
    configs = [path for path in (ROOT / 'configs').glob('*.py') if 'def get_config' in path.read_text(encoding='utf-8')]
    example = 'for instance --config=quickstart' if configs else '! none: this is no whole installation'
    yield _row('configs', str(len(configs)), example)


def _device_lines(devices: Sequence[Sequence]) -> Iterator[str]:
    for kind in dict.fromkeys((platform_, kind, size) for platform_, kind, size in devices):
        count = sum(tuple(device) == kind for device in devices)
        memory = f'{kind[2] / 1e9:.1f} GB each' if kind[2] else ''
        yield _row(f'{count} x {kind[0]}', kind[1], memory)
    if all(device[0] == 'cpu' for device in devices) and shutil.which('nvidia-smi'):
        named = os.environ.get('JAX_PLATFORMS')
        why = f'JAX_PLATFORMS={named}' if named else "install the extra cuda: pip install 'mmer_jax[cuda]'"
        yield f'  nvidia-smi is here, and jax sees no GPU: {why}'


def _extra_lines() -> Iterator[str]:
    extras: dict[str, list[Requirement]] = {}
    for one in requirements():
        if one.extra:
            extras.setdefault(one.extra, []).append(one)
    for extra, parts in extras.items():
        faults = [f'{one.package} {one.fault()}' for one in parts if one.fault()]
        missing = [one.package for one in parts if not one.version()]
        state = 'missing' if missing else '; '.join(faults) or 'here'
        yield _row(extra, state, f'for {PURPOSES.get(extra, "what its name says")}')
        if missing:
            yield _row('', '', f'without {", ".join(missing)}: {_install(extra)}')


def _install(extra: str) -> str:
    return f"pip install -e '.[{extra}]'" if (ROOT / 'pyproject.toml').is_file() else f"pip install 'mmer_jax[{extra}]'"


def _place_lines() -> Iterator[str]:
    try:
        programs = cache.folder()
        size = sum(path.stat().st_size for path in programs.rglob('*') if path.is_file()) if programs.is_dir() else 0
        words = f'{size / 1e6:.0f} MB in {programs}' + ('' if _is_writable(programs) else '; ! cannot be written')
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        words = f'! none, each run compiles anew: {error}'
    yield _row('compiled programs', words)
    root = os.environ.get('MMER_PRETRAINED', '')
    weights = sorted(path.parent.name for path in Path(root).glob('*/params.safetensors')) if root else []
    named = ', '.join(weights) or 'none; python -m data_prep.convert_weights writes them'
    yield _row('converted weights', f'{root}: {named}' if root else 'MMER_PRETRAINED, their folder, is not set')
    try:
        yield _row('free here', f'{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB in {Path.cwd()}')
    except OSError as error:
        yield _row('free here', f'! {error}')


def _is_writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mmer_jax.doctor', description=__doc__.split('\n')[0])
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> int:
    lines, faults = examine()
    print('\n'.join(lines))
    return command.FAILED if faults else command.OK


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 where a needed part is missing or broken."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
