"""Many runs side by side: what differs in their configs, which of them to show, in which order, in which groups.

A key is one of a config ('optimizer.learning_rate'), or of what results.json says of a run (FACTS). numpy only.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmer_jax.metrics import is_better_high
from mmer_jax.results.runs import ReportError, Run, flat, unique
from mmer_jax.results.summary import summarise
from mmer_jax.settings.command import WrongCall

FACTS = ('config', 'variant', 'dataset', 'model', 'modalities', 'protocol', 'metrics', 'selection', 'parameters')
# Keys that a table shows elsewhere, or that change no number.
ASIDE = ('name', 'variant', 'seeds', 'debug', 'tensorboard', 'tracker', 'log_every', 'headline', 'modalities', 'search')
ASIDE_BELOW = ('published.', 'protocol.name')
MOST_SHOWN = 5  # differences in a cell
NOTHING = '–'


def facts_of(run: Run) -> dict[str, Any]:
    """What a run can be chosen by: values of its config by dotted key, and those of FACTS."""
    known = {key: run.results[key] for key in FACTS if key in run.results}
    return known | run.config | dict(flat(run.results.get('protocol_options', {}), 'protocol.options.'))


def shown(value: Any) -> str:
    """A value of a config on one line."""
    if isinstance(value, float):
        return f'{value:g}'
    if isinstance(value, list | tuple):
        return ', '.join(map(shown, value)) or '()'
    return ' '.join(str(value).split()) if isinstance(value, str) else json.dumps(value)


def differing(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run its values, as text, of the config keys that are not the same in all runs; '–' where it has none.

    Runs without a config, which are no networks (classifiers --save_runs), differ in nothing.
    """
    configs = [run.config for run in runs]
    keys = unique(key for config in configs for key in config)
    texts = [{key: shown(config[key]) if key in config else NOTHING for key in keys} for config in configs]
    different = [
        key
        for key in keys
        if key not in ASIDE
        and not key.startswith(ASIDE_BELOW)
        and len({text[key] for text, config in zip(texts, configs, strict=True) if config}) > 1
    ]
    return [{key: text[key] for key in different} for text in texts]


def difference_cells(runs: Sequence[Run]) -> list[str]:
    """A cell for each run that says what differs: 'learning_rate 0.001, dropout 0.3'; all empty where nothing does."""
    found = differing(runs)
    keys = list(found[0]) if found else []
    leaves = [key.rpartition('.')[2] for key in keys]
    names = [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)]
    cells = []
    for values in found:
        texts = [f'{name} {value}' for name, value in zip(names, values.values(), strict=True) if value != NOTHING]
        more = f', and {len(texts) - MOST_SHOWN} more' if len(texts) > MOST_SHOWN + 1 else ''
        cells.append(', '.join(texts[: MOST_SHOWN if more else None]) + more)
    return cells


def chosen(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs for which every 'key=value' holds; ReportError for an unknown key, and where no run is
    left; WrongCall for what is no condition."""
    kept = list(runs)
    for condition in conditions:
        key, equals, text = condition.partition('=')
        if not equals:
            raise WrongCall(f'--where {condition}: expected KEY=VALUE, such as optimizer.learning_rate=0.001')
        values = values_of(runs, key, '--where')
        kept = [run for run in kept if _is(values[runs.index(run)], text)]
        if not kept:
            found = ', '.join(unique(shown(value) for value in values if value is not None))
            raise ReportError(f'--where {condition}: no run is left; the runs have {found}')
    return kept


def values_of(runs: Sequence[Run], key: str, flag: str) -> list[Any]:
    """The value of a key in each run, None where it has none; ReportError where no run has it."""
    facts, key = [facts_of(run) for run in runs], key.strip().removeprefix('config.') or key
    if all(key not in known for known in facts):
        known = unique(name for one in facts for name in one)
        close = difflib.get_close_matches(key, known, n=3) or [name for name in known if name.endswith(f'.{key}')][:3]
        hint = f'did you mean {" or ".join(close)}?' if close else f'known are {", ".join(known[:30])}'
        raise ReportError(f'{flag} {key}: no run has such a key; {hint}')
    return [one.get(key) for one in facts]


def _is(value: Any, text: str) -> bool:
    """Whether a value of a config is what a text says: equal as text, as a number, or as a list with commas."""
    if isinstance(value, list | tuple):
        return [shown(part) for part in value] == [part.strip() for part in text.strip('()[] ').split(',') if part]
    try:
        return (type(value) in (int, float) and float(text) == value) or shown(value) == text.strip()
    except ValueError:
        return shown(value) == text.strip() or (isinstance(value, bool) and shown(value) == text.strip().lower())


def ordered(runs: Sequence[Run], metric: str) -> list[Run]:
    """The runs by a metric, the best first and those without it last; ReportError where no run has it."""
    means = [summarise(run.values(metric)).mean for run in runs]
    if not np.isfinite(means).any():
        known = unique(name for run in runs for row in run.results['rows'] for name in row['test'])
        raise ReportError(f'--sort {metric}: no run has this metric; they have {", ".join(known)}')
    sign = -1 if is_better_high(metric) else 1
    order = sorted(range(len(runs)), key=lambda n: (not np.isfinite(means[n]), sign * means[n]))
    return [runs[n] for n in order]


def grouped(runs: Sequence[Run], key: str) -> Mapping[str, list[Run]]:
    """The runs by the value of a key, 'key: value' -> runs; numbers in their order, others as they first appear."""
    values = values_of(runs, key, '--group_by')
    numbers = all(type(value) in (int, float) for value in values)
    places = sorted(range(len(runs)), key=lambda n: values[n]) if numbers else range(len(runs))
    groups: dict[str, list[Run]] = {}
    for n in places:
        groups.setdefault(f'{key}: {NOTHING if values[n] is None else shown(values[n])}', []).append(runs[n])
    return groups
