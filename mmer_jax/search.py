"""Searches for better values of a config's keys: `python -m mmer_jax.search --config=FILE --trials 20 --workdir=DIR`.

`config.search` says which keys, and between which values (mmer_jax/settings/space.py); the first trial is the config as
it stands. A trial is a training with all folds and seeds, and its value the mean of what validation chose: the test
split is not read. A trial that is worse than the median of the others at the end of an epoch is pruned.

The same command goes on with a search that was stopped, a trial in the midst of its epochs included; started several
times at once, all work on the same trials. trials.md, trials.csv, best.py (the config of the best trial) and best.json
are rewritten after every trial.
"""

import argparse
import copy
import pprint
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mmer_jax import __version__, train
from mmer_jax.files import write_json
from mmer_jax.files.together import write_together
from mmer_jax.metrics import is_better_high
from mmer_jax.results import page
from mmer_jax.results import trials as trials_of
from mmer_jax.results.runs import flat
from mmer_jax.run import cache, warm_start
from mmer_jax.run.choices import Range
from mmer_jax.run.inner_folds import Programs, choose_epochs
from mmer_jax.run.loop import AfterEpoch, finished_loop
from mmer_jax.run.program import load_fold, make_model
from mmer_jax.run.selection import Selection
from mmer_jax.run.study import Pruned, Study, Trial, alone, import_optuna
from mmer_jax.run.workdir import check_config, config_differences, may_change
from mmer_jax.settings import command, overrides, ranges, shown, space
from mmer_jax.settings.keys import check_config_values, kind_of

BEST = '''\
"""The best of {count} trials: trial {number}, {value}. Made by mmer_jax.search; trained, and tested once, by

    {command}
"""

from ml_collections import ConfigDict

from configs.base import get_base

VALUES = {values}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('best', variant, ())
    with config.unlocked(), config.ignore_type():
        config.update(VALUES)
    return config
'''


# ---- one trial -------------------------------------------------------------------------------------------------


class Progress:
    """What a trial has reached: finished folds, and the fold that is being trained."""

    def __init__(self, trial: Trial, *, higher: bool, seeds: Sequence[int]):
        self.trial, self.seeds = trial, seeds
        self.sign = 1 if higher else -1  # Selection keeps the best so that larger is better
        self.rows: list[dict[str, Any]] = []
        self.fold = 0

    def after_epoch(self, epoch: int, selection: Selection) -> None:
        """Tells the study the mean over the finished folds and this one, as if it ended here; may raise Pruned."""
        values = [*(row['value'] for row in self.rows), *(float(self.sign * best) for best in selection.best)]
        self.trial.report(self.fold, epoch, float(np.mean(values)))

    def in_inner_fold(self, number: int) -> AfterEpoch:
        """The same of an inner fold: each is a step of the trial, judged by itself until their curves are averaged."""
        if number:
            self.fold += 1
        return self.after_epoch

    def end_fold(self, name: str, selection: Selection) -> None:
        for n, seed in enumerate(self.seeds):
            row: dict[str, Any] = {'fold': name, 'seed': int(seed), 'value': float(self.sign * selection.best[n])}
            row |= {'best_epoch': int(selection.best_epoch[n]), 'epochs': int(selection.epochs[n])}
            if not np.isfinite(row['value']):
                raise FloatingPointError(f'{name}, seed {seed}: validation gave no finite value')
            self.rows.append(row)
        self.fold += 1


def run_trial(config: ConfigDict, trial: Trial) -> float | None:
    """Trains all folds of a trial, from its checkpoint where it was begun; its value, None where it was pruned."""
    begun = time.monotonic()
    check_config_values(config)
    config = train.completed(config)
    source, folds, _ = train.folds_to_run(config, None)
    programs = Programs(config, make_model(config, source))
    check_config(config, trial.folder)
    higher = is_better_high(config.selection.metric)
    progress = Progress(trial, higher=higher, seeds=config.seed + np.arange(config.seeds))
    try:
        for fold in folds:
            folder = trial.folder / fold.name if len(folds) > 1 else trial.folder
            if config.selection.folds:
                choice = choose_epochs(config, folder, source, fold, programs, after_epoch=progress.in_inner_fold)
                progress.end_fold(fold.name, choice.reached(config.epochs))
                continue
            data = load_fold(config, source, fold)
            # train.train_fold without its end, which reads the test split.
            with finished_loop(config, folder, data, programs.of(data), after_epoch=progress.after_epoch) as loop:
                selection = loop.selection
            progress.end_fold(fold.name, selection)
    except Pruned as where:
        trial.prune(str(where), time.monotonic() - begun)
        return None
    value = float(np.mean([row['value'] for row in progress.rows]))
    trial.finish(value, progress.rows, time.monotonic() - begun)
    return value


# ---- the search ------------------------------------------------------------------------------------------------


def ranges_of(config: ConfigDict) -> list[Range]:
    """config.search as read; the config is one that check_config_values lets pass."""
    values = config.to_dict()
    return space.read(config.search, lambda key: kind_of(values, key))


def changed(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """The config of a trial, with nothing to search."""
    one = copy.deepcopy(config)
    with one.unlocked(), one.ignore_type():
        one.search = ()
    overrides.apply(one, values.items(), parse=False)
    return one


def search(
    config: ConfigDict, workdir: str | Path, trials: int = 20, *, prune_after: int = 3, call: str = ''
) -> dict[str, Any]:
    """Trains until `trials` have been begun in the workdir, by whatever process; returns what search.json holds.

    prune_after: epochs that each trial may train whatever its values are; 0: no trial is pruned. call: the command
    that is noted. A trial that fails is noted as failed, and the search goes on.

    Raises:
        ImportError: optuna is not installed.
        ValueError: the config cannot be, or another search was begun in the workdir.
    """
    import_optuna()
    check_config_values(config)
    if not config.search:
        raise ValueError(f'config.search is empty: name what to vary, each as {space.WORDS}')
    whole, folder = train.completed(changed(config, {})), Path(workdir)
    source, folds, _ = train.folds_to_run(whole, None)  # what is wrong for all trials ends the search before the first
    warm_start.check_starts(whole, folds, source)
    metric, higher = whole.selection.metric, is_better_high(whole.selection.metric)
    facts = {'format': 1, 'version': __version__, 'command': call, 'config': config.to_dict(), 'metric': metric}
    facts |= {'higher': higher, 'trials': [], 'importance': {}}
    _check_folder(folder)
    with alone(folder):
        if (folder / trials_of.FILE).is_file():
            _check_same(folder, facts)
        else:
            write_json(folder / trials_of.FILE, facts)
    study = Study(folder, ranges_of(config), higher=higher, seed=config.data_seed, prune_after=prune_after)
    study.begin_with({**dict(shown.defaults(config.model.to_dict())), **dict(flat(config.to_dict()))})
    while (trial := study.next(trials)) is not None:
        _run(config, trial, metric)
        write(study, facts)
    return write(study, facts)


def _run(config: ConfigDict, trial: Trial, metric: str) -> None:
    """A trial, told before and after; whatever goes wrong in it is its own failure; interruption passes."""
    values = ', '.join(f'{key}={shown.value_text(value)}' for key, value in trial.values.items())
    print(f'trial {trial.number}: {values}' + (' (goes on)' if trial.attempt > 1 else ''), flush=True)
    try:
        value = run_trial(changed(config, trial.values), trial)
        print(
            f'trial {trial.number}: {trials_of.in_words(metric, value) if value is not None else "pruned"}', flush=True
        )
    except Exception as error:
        if not isinstance(error, command.MISTAKES):
            traceback.print_exc()
        fault = command.one_line(error)
        print(f'error: trial {trial.number}: {fault}', file=sys.stderr, flush=True)
        trial.fail(fault)
    finally:
        trial.release()
        cache.let_go()
    for folder in trial.folder.rglob('checkpoints'):
        shutil.rmtree(folder)  # nothing goes on from it: the best config is trained anew, and then tested


def _check_folder(folder: Path) -> None:
    """FileExistsError where the folder holds anything but a search."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder} is no folder: take another --workdir')
    others = [path.name for path in folder.iterdir() if path.name[0] != '.'] if folder.is_dir() else []
    if others and trials_of.FILE not in others:
        raise FileExistsError(f'{folder} holds {others[0]} and no search: take another --workdir')
    folder.mkdir(parents=True, exist_ok=True)


def _check_same(folder: Path, facts: Mapping[str, Any]) -> None:
    """ValueError where a search of another config, or other ranges, was begun there."""
    saved = trials_of.read_search(folder)
    found = config_differences(saved['config'], facts['config'])
    found = [one for one in found if one.key == 'search' or not may_change(one.key)]
    if found:
        raise ValueError(
            f'{folder} was begun with another config: {"; ".join(map(str, found))}. Take a new --workdir, or the old '
            'values to go on'
        )


def write(study: Study, facts: Mapping[str, Any]) -> dict[str, Any]:
    """search.json, trials.md, trials.csv and, once a trial is finished, best.py and best.json; returns the first."""
    with alone(study.folder):
        return _write(study, {**facts, 'trials': study.records(), 'importance': study.importance()})


def _write(study: Study, found: dict[str, Any]) -> dict[str, Any]:
    best = best_of(found)
    files: dict[str, Any] = {}
    blocks: list[page.Block] = trials_of.blocks(found, f'Trials of {study.folder.name}', 1)
    if best is not None:
        config = changed(ConfigDict(found['config']), best['values'])
        train_it = shlex.join(['python', '-m', 'mmer_jax.main', f'--config={study.folder / "best.py"}',
                               f'--workdir={study.folder / "best"}'])  # fmt: skip
        value = trials_of.in_words(found['metric'], best['value'])
        files['best.py'] = BEST.format(
            count=len(found['trials']), number=best['number'], value=value, command=train_it,
            values=pprint.pformat(config.to_dict(), width=100, sort_dicts=False),
        )  # fmt: skip
        kept = {'trial': best['number'], 'metric': found['metric'], 'value': best['value'], 'values': best['values']}
        write_json(study.folder / 'best.json', {**kept, 'command': train_it, 'config': config.to_dict()})
        found['train'] = train_it
        blocks += [page.Text('The config of the best trial is trained, and tested once, by'), page.Code(train_it)]
    files |= {'trials.md': page.markdown(blocks), 'trials.csv': trials_of.trials_csv(found)}
    write_together(study.folder, files)
    write_json(study.folder / trials_of.FILE, found)
    return found


def best_of(found: Mapping[str, Any]) -> dict[str, Any] | None:
    first = next(iter(trials_of.ordered(found)), None)
    return first if first is not None and first['state'] == 'finished' else None


# ---- the command -----------------------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m mmer_jax.search',
        description=__doc__.split('\n')[0],
        epilog='--config.KEY=VALUE changes a key for all trials, as in mmer_jax.main',
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', required=True, metavar='FILE[:VARIANT]', help='the experiment, with its config.search')
    add('--workdir', help='folder of the search; default runs/search_<config>[_<variant>]')
    add('--trials', type=ranges.COUNT, default=20, help='how many in all, those of other processes included')
    add(
        '--prune_after', type=ranges.COUNT_OR_0, default=3, metavar='EPOCHS',
        help='epochs after which a trial may be pruned; 0: never',
    )  # fmt: skip
    cache.add_flag(parser)
    words = sys.argv[1:] if argv is None else argv
    try:
        rest, changes = overrides.split_arguments(words)
    except ValueError as error:
        parser.error(str(error))
    arguments = parser.parse_args(rest)
    arguments.changes, arguments.words = changes, words
    return arguments


def work(arguments: argparse.Namespace) -> int:
    with command.wrong_call():
        config = overrides.load_config(arguments.config)
        overrides.apply(config, arguments.changes)
        check_config_values(config)
        if not config.search:
            raise ValueError(f'{arguments.config}: config.search is empty: name what to vary, each as {space.WORDS}')
    arguments.debug = config.debug
    import_optuna()
    logging.set_verbosity(logging.WARNING)  # orbax and jax tell of every save
    cache.keep_programs(keep=not arguments.no_cache)
    name = config.name + (f'_{config.variant}' if config.variant else '')
    workdir = Path(arguments.workdir or f'runs/search_{name}')
    call = shlex.join(['python', '-m', 'mmer_jax.search', *arguments.words])
    found = search(config, workdir, arguments.trials, prune_after=arguments.prune_after, call=call)
    best = best_of(found)
    if best is None:
        print(f'error: no trial has finished; {workdir}/trials.md says why', file=sys.stderr)
        return command.FAILED
    print(f'best: trial {best["number"]}, {trials_of.in_words(found["metric"], best["value"])}')
    print(f'trials: {workdir}/trials.md; train the best, and test it: {found["train"]}')
    return command.OK


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where no trial has finished."""
    return command.run(work, parse(argv), go_on='the same command goes on with it, from the last epoch of the trial')


if __name__ == '__main__':
    sys.exit(main())
