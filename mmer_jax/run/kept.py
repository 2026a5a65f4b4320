"""Compiled programs kept whole between runs: a start that was made before is neither traced nor lowered.

jax's own cache finds a program by its text, which of MFSA takes longer to make than the program to load. Here an entry,
found by all that the text is made of, names the files of the programs: the sources of this package, versions, the
environment and settings of jax and XLA, devices and processor, the config but for what reaches no program (HARMLESS),
the model, and the shapes of a call. Whatever differs in one of them has another entry; a program of the same text is
one file for all of them. What jax's cache has already is not kept too. Commands turn this on (cache.keep_programs), a
library's user has to ask for it: where functions of this package are replaced by hand, no source tells. A model with
modules of one's own is never kept.

Files hold what jax.experimental.serialize_executable makes, as pickles: like jax's own cache, the folder must be the
user's.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from mmer_jax.run import cache, program_files
from mmer_jax.run.own_module import outline
from mmer_jax.run.program_files import Gone

# Of a config: names, where data lie, what is written and chosen by, and the seeds, which are arguments of programs.
HARMLESS = (
    'name', 'variant', 'debug', 'seed', 'data_seed', 'log_every', 'checkpoint_every', 'tensorboard', 'tracker',
    'headline', 'published', 'evaluate_train', 'search', 'selection.metric', 'selection.patience',
    'selection.plateau_patience', 'selection.plateau_factor', 'data.directory', 'data.workers', 'data.threads',
)  # fmt: skip
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'ml_dtypes')
ENVIRONMENT = ('XLA', 'TF_', 'LIBTPU', 'NVIDIA', 'CUDA', 'JAX_')
OWN = ('mmer_jax.', 'flax.')  # modules whose sources or versions are known
HIT = '/jax/compilation_cache/cache_hits'


@dataclasses.dataclass(frozen=True)
class Kept:
    """The kept programs of one run. facts: the digest of all that they have in common; '' keeps and finds nothing."""

    facts: str
    machine: str = ''  # the digest of those facts that are not of the run
    devices: tuple[Any, ...] = ()
    later: Callable[[Callable[[], Any]], Any] = lambda work: work()  # how files are written: beside what goes on

    def programs(
        self,
        name: str,
        shapes: Any,
        lower: Callable[[], tuple[Sequence[Any], Any]],
        *,
        options: Mapping[str, Any] | None = None,
        devices: Sequence[Any] | None = None,
    ) -> Callable[[], tuple[list[Any], Any]]:
        """The programs of a name, for arguments of these shapes, and what belongs to them. options: XLA's, of some.

        lower() -> (programs lowered, anything that can be pickled) is called here and now where they are not kept; the
        function that comes back, in any thread, gives the same compiled or loaded. It raises Gone where what was kept
        cannot be loaded: asked anew, they are lowered.
        """
        devices = self.devices if devices is None else devices
        folder = cache.whole_programs()
        if not self.facts or folder is None:
            lowered, more = lower()
            return lambda: ([one.compile() for one in lowered], more)
        leaves, treedef = jax.tree.flatten(shapes)
        told = [f'{x.shape} {x.dtype} {getattr(x, "sharding", None)}' for x in leaves]
        entry = folder / (_digest([self.facts, name, str(treedef), *told]) + program_files.ENTRY)
        found = program_files.read_entry(entry)
        if found is not None:
            paths, more = found
            program_files.get_ready(paths)
            return lambda: (_load(paths, devices), more)
        lowered, more = lower()
        like = [self.machine, name, json.dumps(dict(options or {}), sort_keys=True)]
        return lambda: (self._compiled(like, entry, lowered, more, devices), more)

    def _compiled(
        self, like: Sequence[str], entry: Path, lowered: Sequence[Any], more: Any, devices: Sequence[Any]
    ) -> list[Any]:
        """Each program from the file of its text, or compiled; those that are new are kept."""
        programs, paths, whole = [], [], True
        new: dict[Path, Any] = {}
        for one in lowered:
            text = [*like, str(one.in_tree), str(one.out_tree), one.as_text()]
            path = entry.with_name(_digest(text) + program_files.PROGRAM)
            program = program_files.load_if_there(path, devices)
            if program is None:
                with Watched() as watch:
                    program = one.compile()
                # What jax's cache gave cannot be kept: XLA's CPU programs lose functions when they are serialised anew.
                whole = whole and not watch.hit
                new |= {} if watch.hit else {path: program}
            programs.append(program)
            paths.append(path)
        if programs:
            self.later(lambda: program_files.keep(entry, paths if whole else [], new, more))
        return programs


NOTHING = Kept('')


def kept_of(config: ConfigDict, model: nn.Module, more: Any, devices: Sequence[Any], later: Any) -> Kept:
    """Of a run with this config and model; `more` is what else decides its programs, as JSON."""
    if cache.whole_programs() is None or jax.process_count() > 1 or not is_known(model):
        return NOTHING
    machine = [
        sys.version,
        *(importlib.metadata.version(name) for name in PACKAGES),
        *(f'{k}={v}' for k, v in sorted(os.environ.items()) if k.startswith(ENVIRONMENT) and 'CACHE' not in k),
        *(f'{k}={v}' for k, v in sorted(jax.config.values.items()) if 'cache' not in k),
        *(f'{d.id} {d.platform} {d.device_kind} {d.client.platform_version}' for d in devices),
        jax.default_backend(),
        *_processor(),
    ]
    run = [without_harmless(config.to_dict()), outline(model), more]
    facts = [_sources(), *machine, *(json.dumps(part, sort_keys=True, default=str) for part in run)]
    return Kept(_digest(facts), _digest(machine), tuple(devices), later)


def is_known(module: nn.Module) -> bool:
    """Whether a module, and each one in its fields, is of this package or of flax."""

    def modules(value: Any) -> list[nn.Module]:
        if isinstance(value, nn.Module):
            inside = [getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in ('parent', 'name')]
            return [value, *modules(inside)]
        if isinstance(value, Mapping):
            return modules(list(value.values()))
        return [one for item in value for one in modules(item)] if isinstance(value, (list, tuple)) else []

    return all(type(one).__module__.startswith(OWN) for one in modules(module))


def without_harmless(fields: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """A config's fields but those that reach no program."""
    return {
        key: without_harmless(value, f'{prefix}{key}.') if isinstance(value, dict) else value
        for key, value in fields.items()
        if f'{prefix}{key}' not in HARMLESS
    }


class Watched:
    """with Watched() as watch: ...; watch.hit then says whether this thread got a program from jax's cache."""

    _of_thread = threading.local()

    def __enter__(self) -> 'Watched':
        _listen()
        self.hit = False
        Watched._of_thread.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Watched._of_thread.current = None

    @staticmethod
    def tell(event: str, **_: Any) -> None:
        current = getattr(Watched._of_thread, 'current', None)
        if event == HIT and current is not None:
            current.hit = True


@functools.cache
def _listen() -> None:
    jax.monitoring.register_event_listener(Watched.tell)


def _digest(texts: Sequence[str]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(f'{len(text)}\n{text}\n'.encode())
    return found.hexdigest()


@functools.cache
def _sources() -> str:
    """Of all Python files of this package."""
    root = Path(__file__).parents[1]
    paths = sorted(root.rglob('*.py'))
    return _digest([text for path in paths for text in (str(path.relative_to(root)), path.read_text('utf-8'))])


@functools.cache
def _processor() -> list[str]:
    """What XLA compiles a program of the CPU for: the processor's instructions, and how many threads there are."""
    found = [platform.machine(), platform.processor(), str(os.cpu_count())]
    if hasattr(os, 'sched_getaffinity'):
        found.append(str(len(os.sched_getaffinity(0))))
    path = Path('/proc/cpuinfo')
    if path.is_file():
        lines = path.read_text('utf-8', errors='replace').split('\n\n')[0].splitlines()
        found += [line for line in lines if line.split(':')[0].strip() in ('flags', 'Features', 'model name')]
    return found


def _load(paths: Sequence[Path], devices: Sequence[Any]) -> list[Any]:
    """The programs of files, side by side."""
    with ThreadPoolExecutor(max(len(paths), 1)) as pool:
        return list(pool.map(lambda path: program_files.load(path, devices), paths))


__all__ = ['HARMLESS', 'NOTHING', 'Gone', 'Kept', 'Watched', 'is_known', 'kept_of', 'without_harmless']
