"""The commands that the campaign kills and starves: each works in the current folder, with names relative to it.

What a command leaves is known by digests: of each file its bytes; of results.json without where the run came from; of a
checkpoint its arrays. Times are left out.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import configs.base  # noqa: F401  loaded once, before the children load configs
from data_prep import synthetic
from mmer_jax import extract, main, report, table
from mmer_jax.data import records
from mmer_jax.files import sums
from tests.campaign.two import other_told, train_two

HERE = Path(__file__).resolve().parent
CONFIG, TABLE = str(HERE / 'tiny.py'), str(HERE / 'tiny_table.py')
DIGESTS = '.digests.json'  # beside the folder
NOT_COMPARED = ('timing.jsonl',)
Work = Callable[[], int]


@dataclasses.dataclass(frozen=True)
class Command:
    """before: what makes the folder that it starts from; check: '' or what is lost right after a kill; only: kills
    only at events of files with this in their path; by_clock: at no events; may_exist: it refuses to write what is
    whole already; output: the name of what it makes; rows: it tells one line for each of them."""

    name: str
    work: Work
    before: tuple[Work, ...] = ()
    check: Callable[[Path], str] | None = None
    only: str = ''
    by_clock: bool = False
    may_exist: bool = False
    output: str = 'run'
    rows: int = 1


def prepare(output: str = 'data', *, seed: int = 0, overwrite: bool = False, records: int = 24) -> Work:
    """A preparation of random records; that of the command writes 160, here few."""

    def work() -> int:
        from data_prep.pool import run_command

        arguments = synthetic.parse_arguments([f'--output={output}', '--like=mosi', f'--seed={seed}'])
        arguments.overwrite = overwrite
        options = {'seed': seed, 'overwrite': overwrite, 'records': records}
        return run_command(lambda _: synthetic.write_like('mosi', output, **options) and None, arguments)

    return work


def train(variant: str = '', *flags: str) -> Work:
    return lambda: main.main([f'--config={CONFIG}{variant}', '--workdir=run', *flags])


def run_extract() -> int:
    return extract.main(['run', '--output=features'])


def run_table() -> int:
    return table.main([f'--table={TABLE}', '--output=tables'])


def run_report() -> int:
    return report.main(['run', '--output=report', '--html'])


def old_or_new(place: Path) -> str:
    """'' where `data` is whole, the old set or the new one."""
    faults = records.verify(place / 'data')
    return faults[0] if faults else ''


FEW = ('--config.epochs=2',)
ALL = (
    Command('train, 1 seed', train(), (prepare(),)),
    Command('train, 3 seeds', train('', '--config.seeds=3', '--config.selection.patience=2'), (prepare(),)),
    Command('train, folds', train(':folds'), (prepare(),)),
    *(
        Command(f'train, 2 processes, {k} killed', train_two(CONFIG, k), (prepare(),), other_told(k), by_clock=True)
        for k in (0, 1)
    ),
    Command('checkpoints', train(), (prepare(),), only='checkpoints'),
    Command(
        'extract',
        run_extract,
        (prepare(records=160), train('', *FEW, '--config.data.eval_batch_size=2')),
        output='features',
    ),
    Command('table, training', run_table, (prepare(),), output='tables', rows=2),
    Command('report', run_report, (prepare(), train('', *FEW)), output='report'),
    Command('preparation', prepare(), may_exist=True, output='data'),
    Command('preparation, --overwrite', prepare(seed=1, overwrite=True), (prepare(),), check=old_or_new, output='data'),
)
SHORT = tuple(command for command in ALL if command.name.startswith('preparation'))
LIMITED = tuple(
    command
    for command in ALL
    if command.name in ('train, 1 seed', 'extract', 'table, training', 'report', 'preparation')
)
MADE = tuple({command.output for command in ALL})


# ---- what is left --------------------------------------------------------------------------------------------


def write_digests(folder: Path, command: Command) -> int:
    """{name: digest} of all files below the folder, kept beside it."""
    found = {}
    for path in sorted(folder.rglob('*')):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                found[f'{name}/'] = 'empty'
        elif '/checkpoints/' not in f'/{name}' and path.name not in NOT_COMPARED:
            found[name] = _digest(path)
    for checkpoints in folder.rglob('checkpoints'):
        found |= _of_checkpoints(checkpoints, checkpoints.relative_to(folder).as_posix())
    folder.with_name(f'{folder.name}{DIGESTS}').write_text(json.dumps(found))
    return 0


def read_digests(folder: Path) -> dict[str, str]:
    return json.loads(folder.with_name(f'{folder.name}{DIGESTS}').read_text())


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.name == 'results.json':
        value = json.loads(content)
        for key in ('provenance', sums.OWN):
            value.pop(key, None)
        content = json.dumps(value).encode()
    return hashlib.sha256(content).hexdigest()


def _of_checkpoints(folder: Path, name: str) -> dict[str, str]:
    """The arrays of each step; names that are no step are litter."""
    found = {}
    for step in sorted(folder.iterdir()):
        if not step.name.isdecimal():
            found[f'{name}/{step.name}'] = 'no step'
            continue
        found[f'{name}/{step.name}'] = _of_step(step)
        known = {'_CHECKPOINT_METADATA', 'best', 'state', 'host', 'sums.json'}
        found |= {f'{name}/{step.name}/{path.name}': 'unknown' for path in step.iterdir() if path.name not in known}
    return found


def _of_step(step: Path) -> str:
    import jax
    import orbax.checkpoint as ocp

    def as_numpy(_: object) -> ocp.RestoreArgs:  # wherever the devices are that wrote it
        return ocp.RestoreArgs(restore_type=np.ndarray)

    found = hashlib.sha256((step / 'host' / 'metadata').read_bytes())
    for item in ('state', 'best'):
        reader = ocp.PyTreeCheckpointer()
        kinds = jax.tree.map(as_numpy, reader.metadata(step / item).item_metadata.tree)
        tree = reader.restore(step / item, restore_args=kinds)
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            found.update(f'{jax.tree_util.keystr(path)}{np.asarray(value).dtype}{np.shape(value)}'.encode())
            found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()
