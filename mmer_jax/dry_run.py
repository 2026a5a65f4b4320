"""What a config would do, in words: its folds, shapes, parameters and memory. `main --dry_run` prints it."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.folds import SPLITS
from mmer_jax.data.records import RecordSource
from mmer_jax.run import sharding, warm_start
from mmer_jax.run.compiling import shapes_of
from mmer_jax.run.inner_folds import inner_of
from mmer_jax.run.program import FoldData, Program, load_fold, make_model, make_program, takes_turns
from mmer_jax.run.step import variables_of
from mmer_jax.run.workdir import is_untouched
from mmer_jax.settings import shown
from mmer_jax.train import completed, folds_to_run


def lines(config: ConfigDict, workdir: str | Path, folds: Sequence[int] | None = None) -> Iterator[str]:
    """The lines to print; nothing is trained, and nothing is written but the compiled step that jax may keep.

    ValueError, as training itself would raise it.
    """
    config = completed(config)
    source, all_folds, chosen = folds_to_run(config, folds)
    warm_start.check_starts(config, [all_folds[number] for number in chosen], source)
    fold_data = load_fold(config, source, all_folds[chosen[0]], statistics={})
    program = make_program(config, make_model(config, source), fold_data)
    yield f'Dry run of {workdir} ({_state_of(Path(workdir))}): nothing is trained, and nothing written there'
    yield from ('', 'Config', *shown.lines(config), '', 'Data and folds')
    labels = ', '.join(source.schema.label.names) or source.schema.label.kind
    yield f'  {source.schema.name} in {source.directory}: {len(source):,} records; labels: {labels}'
    yield f'  protocol {config.protocol.name}; folds to run: {len(chosen)} of {len(all_folds)}'
    for number in chosen:
        fold = all_folds[number]
        sizes = ', '.join(f'{split} {len(getattr(fold, split)):,}' for split in SPLITS)
        marks = f'  ! {"; ".join(fold.marks)}' if fold.marks else ''
        yield f'  {number}  {fold.name}: {sizes}{marks}'
        if inner := inner_of(config, source, fold):
            held = ', '.join(f'{len(one.validation):,}' for one in inner)
            yield f'     {len(inner)} inner folds choose its epochs, each validating {held} of the training records'
    yield from ('', f'Shapes of fold {all_folds[chosen[0]].name} (rows x steps x features; each is compiled once)')
    yield from _shape_lines(config, source, fold_data)
    yield from ('', 'Model')
    yield from _parameter_lines(config, program)
    yield from ('', 'Memory, estimated')
    yield from _memory_lines(config, fold_data, program)


def _shape_lines(config: ConfigDict, source: RecordSource, fold_data: FoldData) -> Iterator[str]:
    plan = fold_data.loaders['train'].plan
    for shape in plan.shapes:
        parts = [
            f'{m} {" x ".join(map(str, (plan.batch_size, steps, *source.schema.features[m].step_shape)))}'
            for m, steps in shape.items()
        ]
        yield f'  {", ".join(parts)}'
    yield f'  {plan.batches_per_epoch:,} steps per epoch, {len(plan):,} in {config.epochs} epochs'


def _parameter_lines(config: ConfigDict, program: Program) -> Iterator[str]:
    params = program.shapes(1).params
    by_module = {name: _count(tree) for name, tree in params.items()}
    seeds = f', {config.seeds} seeds' if config.seeds > 1 else ''
    yield f'  {config.model.name}: {sum(by_module.values()):,} parameters{seeds}'
    yield f'  {", ".join(f"{name} {count:,}" for name, count in by_module.items())}'


def _memory_lines(config: ConfigDict, fold_data: FoldData, program: Program) -> Iterator[str]:
    """Bytes on one device, by what they are for."""
    states, batch = program.shapes(config.seeds), _largest_batch(fold_data, program)
    rows = max(jax.device_count() // config.mesh.seed, 1) if config.mesh.data == -1 else config.mesh.data
    step, together = _step_bytes(config, fold_data, program)
    parts = {
        'parameters and optimiser state': _bytes(states) // config.mesh.seed,
        'variables of the best epoch so far': _bytes(variables_of(states)) // config.mesh.seed,
        'a batch': _bytes(batch) // rows,
        f'what a training step needs beside them{together}': step,
    }
    for name, size in parts.items():
        yield f'  {_size(size):>9}  {name}'
    device = jax.local_devices()[0]
    yield f'  {_size(sum(parts.values())):>9}  together, per device; {_available(device)}'


def _largest_batch(fold_data: FoldData, program: Program) -> Mapping[str, jax.ShapeDtypeStruct]:
    load = fold_data.loaders['train']
    empty = load((0, len(load.plan.shapes) - 1, np.zeros(0, np.int64)))  # padding rows: nothing is read
    return shapes_of(empty, sharding.batch_sharding(program.mesh), load.process_count)


def _step_bytes(config: ConfigDict, fold_data: FoldData, program: Program) -> tuple[int, str]:
    """What the compiled step of the largest shape takes for itself, gradients and activations, as XLA says.

    Of a step in parts one part is compiled, and where seeds take turns one seed: they do not need it at once.
    """
    probe, turns = copy.deepcopy(config), takes_turns(config, program.mesh)
    probe.data.batch_size //= config.accumulate
    probe.data.eval_batch_size, probe.accumulate = probe.data.batch_size, 1
    probe.seeds, probe.mesh.seed = (1, 1) if turns else (config.seeds, config.mesh.seed)
    source = fold_data.source
    loaded = load_fold(probe, source, fold_data.fold, statistics={})
    one = make_program(probe, make_model(probe, source), loaded)
    train: Any = one.train
    found = train.compiled(_largest_batch(loaded, one)).memory_analysis()
    beyond = max(found.output_size_in_bytes - found.alias_size_in_bytes, 0)
    return int(found.temp_size_in_bytes + beyond), ' (seeds take turns)' if turns else ''


def _available(device: jax.Device) -> str:
    stats = device.memory_stats() if device.platform != 'cpu' else None
    if stats and 'bytes_limit' in stats:
        return f'{device.device_kind} has {_size(stats["bytes_limit"])}'
    if hasattr(os, 'sysconf'):
        return f'this machine has {_size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))}'
    return f'on {device.device_kind}'


def _state_of(workdir: Path) -> str:
    if (workdir / 'results.json').is_file():
        return 'finished'
    if not (workdir / 'config.json').is_file():
        return 'new'
    return 'begun, nothing was kept yet' if is_untouched(workdir) else 'begun, the run would go on'


def _count(tree: Any) -> int:
    return sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _size(size: float) -> str:
    """'3.2 MB'."""
    for unit in ('B', 'kB', 'MB'):
        if size < 1000:
            return f'{size:.0f} B' if unit == 'B' else f'{size:.1f} {unit}'
        size /= 1000
    return f'{size:.1f} GB'
