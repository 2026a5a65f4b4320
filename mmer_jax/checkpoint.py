"""Checkpoints: the only file that knows orbax.

One checkpoint is the whole of a run at a step: `state` (everything the step changes), `best` (the variables that
validation chose, for each seed those of its own best epoch) and `host` (counters of the loop, as JSON). Because
`best` travels inside, only the latest checkpoint is kept, and it is never older than the best one. orbax writes
into a temporary folder that is renamed when complete: a run killed while saving falls back to the step before.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

Tree = Any


def _abstract(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _shapes(tree: Tree) -> dict[str, list]:
    return {
        jax.tree_util.keystr(path): [*x.shape, str(x.dtype)] for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for what is still being written."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, *, state: Tree, best: Tree, host: dict[str, Any]) -> None:
        """Writes a checkpoint; one of the same step is replaced (orbax itself would silently keep the old one)."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            best=ocp.args.StandardSave(best),
            host=ocp.args.JsonSave({'loop': host, 'shapes': _shapes(best)}),
        )
        if not self._manager.save(step, args=args, force=True):
            raise RuntimeError(f'{self.directory}: checkpoint {step} exists and was not written again')

    def restore(self, step: int, *, state: Tree, best: Tree) -> tuple[Tree, Tree, dict[str, Any]]:
        """(state, best, host) of a step, placed and shaped as the given trees; ValueError where the shapes differ."""
        host = self._checked_host(step, best)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(_abstract(state)), best=ocp.args.StandardRestore(_abstract(best))
        )
        restored = self._manager.restore(step, args=args)
        return restored['state'], restored['best'], host['loop']

    def restore_best(self, step: int, best: Tree) -> Tree:
        """Only the chosen variables of a step, placed as the given tree (of arrays, or of jax.ShapeDtypeStruct)."""
        self._checked_host(step, best)
        args = ocp.args.Composite(best=ocp.args.StandardRestore(_abstract(best)))
        return self._manager.restore(step, args=args)['best']

    def _checked_host(self, step: int, best: Tree) -> dict[str, Any]:
        """The saved JSON; ValueError that names the first arrays whose name, shape or type is not the checkpoint's."""
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))['host']
        saved, wanted = host['shapes'], _shapes(best)
        wrong = [key for key in sorted({*saved, *wanted}) if saved.get(key) != wanted.get(key)]
        if wrong:
            shown = '; '.join(f'{key}: saved {saved.get(key)}, model {wanted.get(key)}' for key in wrong[:3])
            raise ValueError(
                f'checkpoint {step} in {self.directory} does not fit this model: {len(wrong)} arrays differ ({shown}); '
                'the model, its sizes or the number of seeds were changed since: use a new --workdir'
            )
        return host
