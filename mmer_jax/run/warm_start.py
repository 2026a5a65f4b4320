"""Where a run's variables begin: converted weights, or those of finished runs, fold by fold and seed by seed.

`config.pretrained` names converted weights by module path, `config.start_from` workdirs:

    config.pretrained = {'encoder': 'resnext3d-kinetics'}
    config.start_from = {'vision': 'runs/video:encoder', 'audio': 'runs/sound:encoder'}

The second takes, for fold k and seed s, what validation chose in fold k for seed s (for its first seed where it has no
s). A part that was trained on a record that is tested or validated here is refused: its numbers would be no numbers.
With inner folds (config.selection.folds) every record that is not tested validates once, so that only runs on other
records can be begun with.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from mmer_jax import pretrained
from mmer_jax.data.folds import Fold
from mmer_jax.data.inner_folds import NAME as INNER
from mmer_jax.data.leakage import Seen, check_unseen
from mmer_jax.data.other_data import same_corpus
from mmer_jax.data.records import RecordSource
from mmer_jax.media.textfile import read_json, read_lines
from mmer_jax.run import finished, sharding
from mmer_jax.run.program import FoldData
from mmer_jax.run.step import TrainState, variables_of

Tree = Any
TEXT_FAMILIES = ('bert', 'distilbert', 'roberta')


def with_sizes(config: ConfigDict) -> ConfigDict:
    """The config with the sizes of its converted weights written into config.model; itself where it names none."""
    if not config.pretrained:
        return config
    config = copy.deepcopy(config)
    with config.unlocked():
        config.model = ConfigDict(pretrained.fill_fields(config.model.to_dict(), config.pretrained.to_dict()))
    return config


def begin(config: ConfigDict, fold_data: FoldData, state: TrainState, mesh: Any, *, tell: bool = False) -> TrainState:
    """A fresh state of all seeds with the parts that the config names replaced; the state itself where it names none.

    tell: process 0 prints what is loaded, and by name what stays at its initialisation. ValueError where a part does
    not fit, is missing, or has seen what this fold tests on.
    """
    if not config.pretrained and not config.start_from:
        return state
    tell = tell and jax.process_index() == 0
    before = variables = jax.device_get(variables_of(state))
    for path, name in config.pretrained.items():
        check_vocabulary(name, fold_data.source)
        loaded, _ = pretrained.load_pretrained(name)
        variables = pretrained.graft(variables, loaded, path=path, fresh=tuple(config.fresh))
        if tell:
            print(f'{path}: weights of {pretrained.find(name)}')
    for path, where in config.start_from.items():
        loaded = chosen_part(where, fold_data, config.seed + np.arange(config.seeds))
        variables = pretrained.graft(variables, loaded, path=path, fresh=tuple(config.fresh))
        if tell:
            print(f'{path}: variables of {where}')
    if tell:
        for line in begun_anew(before, variables, [*config.pretrained, *config.start_from]):
            print(line, flush=True)
    placed = sharding.put_tree(dict(variables), sharding.state_sharding(mesh))
    params = placed.pop('params')
    average = None if state.average is None else sharding.copy_tree(params)
    return state.replace(params=params, model_state={**state.model_state, **placed}, average=average)


def check_starts(config: ConfigDict, folds: Sequence[Fold], source: RecordSource) -> None:
    """ValueError where inner folds of these folds would begin with a run that saw their records or speakers.

    Each record of a fold is tested, or validates an inner fold. Said before the first is trained: the final training,
    which tests, begins when all inner ones are done. A record of the same id counts whatever its data set is called, a
    speaker within one corpus only, for speakers of others have the same numbers.
    """
    if not config.selection.folds or not folds:
        return  # chosen_part compares each fold with the same fold of the start
    for name, run in (found for where in config.start_from.values() for found in runs_behind(where, INNER)):
        seen = Seen.of(source, run.fold_data.fold, run.fold_data.source)
        same = same_corpus(run.fold_data.source.schema.name, source.schema.name)
        for fold in folds:
            own = np.isin(np.arange(len(source)), np.concatenate([fold.train, fold.validation, fold.test]))
            words = Seen(seen.records & own, seen.speakers & own & same).words(source)
            if words:
                raise ValueError(
                    f'{name}: inner folds (config.selection.folds) of fold {fold.name!r} validate on, or it tests, '
                    f'{words}. Begin with a run on other records, or without inner folds'
                )


def runs_behind(where: str, fold: str) -> Iterator[tuple[str, finished.Run]]:
    """(workdir, run) of a start, in the same fold, and of what it began with itself, and so on.

    ValueError where one is not there any more: what it saw is unknown then.
    """
    workdir, _, path = where.partition(':')
    folder = Path(workdir) / fold
    if fold.startswith(INNER):
        run, *others = finished.open_runs(workdir)
        if others:
            raise ValueError(
                f'{workdir} has {1 + len(others)} folds: inner folds begin with one, on other records than theirs, '
                f'such as {run.folder}:{path}'
            )
    else:
        run = finished.open_run(folder if folder.is_dir() else workdir)
    yield workdir, run
    for other in run.config.start_from.values():
        try:
            yield from runs_behind(other, run.fold_data.fold.name)
        except ValueError as error:
            raise ValueError(f'{workdir} began with {other}, and what that saw cannot be read: {error}') from error


def begun_anew(before: Tree, after: Tree, paths: Sequence[str]) -> list[str]:
    """What stays at its initialisation, in words: parameters by name below the loaded `paths`, other modules whole."""
    old, new = traverse_util.flatten_dict(before), traverse_util.flatten_dict(after)
    kept = [key[1:] for key in old if key[0] == 'params' and new[key] is old[key]]
    lines, rest = [], set(kept)
    for path in paths:
        prefix = tuple(filter(None, path.split('/')))
        inside = [key for key in kept if key[: len(prefix)] == prefix]
        rest -= set(inside)
        if inside:
            names = ', '.join('/'.join(key[len(prefix) :]) for key in inside)
            lines.append(f'{path}: at their initialisation, as config.fresh says: {names}')
    if rest:
        lines.append(f'modules at their initialisation: {", ".join(sorted({key[0] for key in rest}))}')
    return lines


def check_vocabulary(name: str, source: RecordSource) -> None:
    """ValueError where the records hold token ids of another vocabulary than that of the text weights `name`.

    Their numbers would name other words, and nothing would look wrong. Not known, and not checked, where the folder of
    the tokenizer that the records name is not here.
    """
    tokenizer = source.schema.info.get('tokenizer')
    if not tokenizer or pretrained.read_source(name).get('family') not in TEXT_FAMILIES:
        return
    folder = pretrained.find(name)
    try:
        other = pretrained.find(tokenizer)
    except FileNotFoundError:
        return
    if other == folder:
        return
    theirs, ours = vocabulary_of(other), vocabulary_of(folder)
    if theirs is not None and ours is not None and theirs != ours:
        raise ValueError(
            f'{source.directory} holds token ids of {tokenizer} ({len(theirs)} tokens), the weights {name} have '
            f'another vocabulary ({len(ours)} tokens): prepare the data with --tokenizer {name}'
        )


def vocabulary_of(folder: Path) -> dict[str, int] | None:
    """{token: id} of the tokenizer files in a folder of weights; None where there are none that say it."""
    try:
        if (path := folder / 'tokenizer.json').is_file():
            return read_json(path)['model']['vocab']
        if (path := folder / 'vocab.json').is_file():
            return read_json(path)
        if (path := folder / 'vocab.txt').is_file():
            return {token: n for n, token in enumerate(read_lines(path))}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no vocabulary of a tokenizer ({error!r}); convert the weights again') from error
    return None


def chosen_part(where: str, fold_data: FoldData, seeds: np.ndarray) -> dict[str, Tree]:
    """'WORKDIR:module/path' -> {'params': subtree, ...} of the same fold, each array with a leading seed axis."""
    path = where.partition(':')[2]
    (_, run), *before = runs_behind(where, fold_data.fold.name)
    for name, one in ((where, run), *before):
        check_unseen(one.fold_data.fold, one.fold_data.source, fold_data.fold, fold_data.source, name)
    known = range(run.config.seed, run.config.seed + run.config.seeds)
    parts = []
    for seed in seeds.tolist():
        chosen = finished.chosen_variables(finished.with_seed(run, seed if seed in known else run.config.seed))
        parts.append({name: _subtree(tree, path, where) for name, tree in chosen.items() if _has(tree, path)})
    if not parts[0].get('params'):
        raise ValueError(f'{where}: the run has no module {path!r}; it has {", ".join(chosen["params"])}')
    return jax.tree.map(lambda *arrays: np.stack(arrays), *parts)


def _has(tree: Mapping[str, Any], path: str) -> bool:
    for name in filter(None, path.split('/')):
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _subtree(tree: Mapping[str, Any], path: str, where: str) -> Tree:
    for name in filter(None, path.split('/')):
        tree = tree[name]
    if not isinstance(tree, Mapping):
        raise ValueError(f'{where}: {path!r} is one array, expected a module')
    return tree
