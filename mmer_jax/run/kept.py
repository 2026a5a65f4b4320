"""Compiled programs kept whole between runs: a start that was made before is neither traced nor lowered.

jax's own cache finds a program by its text, which of MFSA takes longer to make than the program to load. Here an entry,
found by all that the text is made of, names the files of the programs: the sources of this package, versions, the
environment and settings of jax and XLA, devices and processor, the config but for what reaches no program (HARMLESS),
the model, and the shapes of a call. Whatever differs in one of them has another entry; a program of the same text is
one file for all of them. What jax's cache has already is not kept too. Commands turn this on (cache.keep_programs), a
library's user has to ask for it: where functions of this package are replaced by hand, no source tells. A model with
modules or functions of one's own is never kept, nor anything where a source is younger than the process.

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

from mmer_jax.losses import LOSSES
from mmer_jax.run import cache, program_files, provenance
from mmer_jax.run.optimizer import OPTIMIZERS
from mmer_jax.run.own_module import outline
from mmer_jax.run.program_files import Gone

# Of a config: names, where data lie, what is written and chosen by, and the seeds, which are arguments of programs.
HARMLESS = (
    'name', 'variant', 'debug', 'seed', 'data_seed', 'log_every', 'checkpoint_every', 'tensorboard', 'tracker',
    'headline', 'published', 'evaluate_train', 'search', 'selection.metric', 'selection.patience',
    'selection.plateau_patience', 'selection.plateau_factor', 'data.directory', 'data.workers', 'data.threads',
)  # fmt: skip
ENVIRONMENT = ('XLA_', 'TF_XLA', 'LIBTPU', 'NVIDIA_TF32', 'CUDA_VISIBLE', 'JAX_')
OWN = ('mmer_jax.', 'flax.', 'jax.', 'numpy', 'builtins')  # where sources or versions are known
HIT = '/jax/compilation_cache/cache_hits'


@dataclasses.dataclass(frozen=True)
class Kept:
    """The kept programs of one run. facts: the digest of all that they have in common; '' keeps and finds nothing."""

    facts: str
    machine: str = ''  # the digest of those facts that decide what XLA makes of a text
    devices: tuple[Any, ...] = ()
    later: Callable[[Callable[[], Any]], Any] = lambda work: work()  # how files are written: beside what goes on

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """What make() gives, which the facts decide and which can be pickled; kept without any program."""
        entry = self._entry(name, ())
        found = program_files.read_entry(entry) if entry else None
        if found is not None:
            return found[1]
        made = make()
        if entry and cache.sources():
            self.later(lambda: program_files.keep(entry, [], {}, made))
        return made

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
        entry = self._entry(name, shapes)
        found = program_files.read_entry(entry) if entry else None
        if found is not None:
            paths, more = found
            program_files.get_ready(paths)
            return lambda: (_load(paths, devices), more)
        lowered, more = lower()
        if entry is None:
            return lambda: ([one.compile() for one in lowered], more)
        like = [self.machine, name, json.dumps(dict(options or {}), sort_keys=True)]
        return lambda: (self._compiled(like, entry, lowered, more, devices), more)

    def _entry(self, name: str, shapes: Any) -> Path | None:
        folder = cache.whole_programs()
        if not self.facts or folder is None:
            return None
        leaves, treedef = jax.tree.flatten(shapes)
        told = [f'{x.shape} {x.dtype} {getattr(x, "sharding", None)}' for x in leaves]
        return folder / (_digest([self.facts, name, str(treedef), *told]) + program_files.ENTRY)

    def _compiled(
        self, like: Sequence[str], entry: Path, lowered: Sequence[Any], more: Any, devices: Sequence[Any]
    ) -> list[Any]:
        """Each program from the file of its text, or compiled; those that are new are kept."""
        programs, paths, whole = [], [], True
        new: dict[Path, Any] = {}
        for one in lowered:
            text = one.as_text()
            told = [*like, str(one.in_tree), str(one.out_tree), text]
            if not takes_all(text, one.in_tree.num_leaves):  # which ones it takes is not in the text
                told.append(self.facts)
            path = entry.with_name(_digest(told) + program_files.PROGRAM)
            program = program_files.load_if_there(path, devices)
            if program is None:
                with Watched() as watch:
                    program = one.compile()
                # What jax's cache gave cannot be kept: XLA's CPU programs lose functions when they are serialised anew.
                whole = whole and not watch.hit
                new |= {} if watch.hit else {path: program}
            programs.append(program)
            paths.append(path)
        if programs and cache.sources():  # or else a file has changed, and with it perhaps what was lowered
            self.later(lambda: program_files.keep(entry, paths if whole else None, new, more))
        return programs


NOTHING = Kept('')


def kept_of(config: ConfigDict, model: nn.Module, more: Any, devices: Sequence[Any], later: Any) -> Kept:
    """Of a run with this config and model; `more` is what else decides its programs, as JSON."""
    if cache.whole_programs() is None or jax.process_count() > 1 or not is_known(model, config):
        return NOTHING
    sources = cache.sources()
    if not sources:
        return NOTHING
    versions = provenance.versions() | {'ml_dtypes': importlib.metadata.version('ml_dtypes')}
    machine = [
        versions['jax'],
        versions['jaxlib'],
        *(f'{k}={v}' for k, v in sorted(os.environ.items()) if k.startswith(ENVIRONMENT) and 'CACHE' not in k),
        *(f'{k}={v}' for k, v in sorted(jax.config.values.items()) if 'cache' not in k),
        *(f'{d.id} {d.platform} {d.device_kind} {d.client.platform_version}' for d in devices),
        jax.default_backend(),
        *_processor(),
    ]
    run = [without_harmless(config.to_dict()), outline(model), more, versions, sys.version, sources]
    facts = [*machine, *(json.dumps(part, sort_keys=True, default=str) for part in run)]
    return Kept(_digest(facts), _digest(machine), tuple(devices), later)


def is_known(module: nn.Module, config: ConfigDict) -> bool:
    """Whether the sources of all that decides a run's programs are known: those of this package, of flax and of jax.

    Each module, and each function or type in a field, and the losses and the optimiser that the config names. A
    function that another function made is not known: what it was made with is not seen.
    """

    def parts(value: Any) -> list[Any]:
        if isinstance(value, nn.Module):
            inside = [getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in ('parent', 'name')]
            return [type(value), *parts(inside)]
        if isinstance(value, Mapping):
            return parts(list(value.values()))
        if isinstance(value, (list, tuple)):
            return [one for item in value for one in parts(item)]
        return [value] if callable(value) else []

    named: list[Any] = [LOSSES[name] for name in config.losses if name in LOSSES]
    named += [OPTIMIZERS[name] for name in (config.optimizer.name,) if name in OPTIMIZERS]
    inside = parts(module)
    nameless = [one for one in inside if '<' in getattr(one, '__qualname__', '<')]
    return not nameless and all(str(one.__module__).startswith(OWN) for one in [*inside, *named])


def takes_all(text: str, arguments: int) -> bool:
    """Whether the program of a text has so many arguments: none was left out as unused."""
    head = text[text.index('@main(') :].split('\n', 1)[0]
    return arguments == 0 or (f'%arg{arguments - 1}:' in head and f'%arg{arguments}:' not in head)


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
