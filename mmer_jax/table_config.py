"""What a table of a paper says: its file, checked, and the config of each row. `table.py` runs and writes it."""

import ast
import dataclasses
import importlib.util
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmer_jax.metrics import METRICS, floors
from mmer_jax.report import is_plain, unique

ROOT = Path(__file__).resolve().parents[1]  # of the checkout, where configs/ lies
OTHER_SPLITS = ('train/', 'validation/')  # before a metric's name


class TableError(ValueError):
    """A table's file, or an option of the command, is wrong."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a config to run, or (`quoted`) numbers that were measured elsewhere.

    Numbers are by metric, fractions from 0 to 1 except mae, corr and loss; a metric that the paper leaves out is
    left out, or None. `overrides` are values by dotted key; `group` is the heading above the row. `start` is
    config.start_from with rows above this one for workdirs: {'vision': 'label of the row:encoder'}. `ablate` is a row
    above with a modality hidden when it is tested, nothing trained: 'label of the row:vision'. In the bar plot, bars
    of one `bar` (the label by default) stand together, and those of one `series` have one colour.
    """

    label: str
    config: str = ''
    variant: str = ''
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Mapping[str, str] = dataclasses.field(default_factory=dict)
    published: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    group: str = ''
    quoted: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    source: str = ''  # of the quoted numbers
    ablate: str = ''
    bar: str = ''
    series: str = ''

    @property
    def slug(self) -> str:
        """The row's folder."""
        return re.sub(r'\W+', '_', self.label.lower()).strip('_')


@dataclasses.dataclass(frozen=True)
class Table:
    """`metrics` is a kind of mmer_jax/metrics.py, `classes` its classes or emotions, `columns` titles by metric.

    A column 'train/loss' or 'validation/loss' is of that split, at the epoch of the test's. `bars` is the column that
    is drawn as a bar plot; '' for none.
    """

    title: str
    source: str  # the paper and its table, or where the comparison comes from
    metrics: str
    columns: Mapping[str, str]
    rows: tuple[Row, ...]
    classes: tuple[str, ...] = ()
    seeds: int = 1
    notes: tuple[str, ...] = ()
    bars: str = ''


def find_file(path: str) -> Path:
    """A file of the working directory or, where there is none, of the checkout; TableError where neither has it."""
    for folder in (Path(), ROOT):
        if (folder / path).is_file():
            return folder / path
    raise TableError(f'{path}: no such file in {" or ".join(unique(map(str, (Path.cwd(), ROOT))))}')


def load_module(path: str, function: str) -> ModuleType:
    """The Python file as a module, which must define `function`."""
    file = find_file(path)
    specification = importlib.util.spec_from_file_location(file.stem, file)
    if specification is None or specification.loader is None:
        raise TableError(f'{path} is no Python file: its name must end in .py')
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if not hasattr(module, function):
        raise TableError(f'{path} defines no {function}()')
    return module


def read_table(path: str) -> Table:
    """The table in a file, checked; TableError names the key or the row that is wrong."""
    values = load_module(path, 'get_table').get_table()
    table = _build(Table, values, path)
    rows = tuple(_build(Row, row, f'{path}, row {number}') for number, row in enumerate(table.rows, 1))
    table = dataclasses.replace(table, rows=rows)
    known = known_metrics(table, path)
    unknown = [metric for metric in table.columns if metric.removeprefix(_split_of(metric)) not in known]
    if unknown or not table.columns:
        raise TableError(
            f'{path}: no column {", ".join(unknown)!r} is measured; choose from {", ".join(known)}, or of another '
            f'split as {OTHER_SPLITS[0]}loss'
        )
    if table.bars and table.bars not in table.columns:
        raise TableError(f'{path}: bars {table.bars!r} is no column; they are {", ".join(table.columns)}')
    if table.seeds < 1 or not rows:
        raise TableError(f'{path}: {table.seeds} seeds and {len(rows)} rows, expected at least one of each')
    for number, row in enumerate(rows):
        _check_row(row, table, f'{path}, row {row.label!r}')
        above = [other.label for other in rows[:number] if other.config]
        wrong = [label for label, _ in map(split_start, row.start.values()) if label not in above]
        if row.ablate:
            wrong += [label for label, _ in [split_start(row.ablate)] if label not in above]
        if wrong:
            found = f'starts from {wrong[0]!r}, which is no row with a config above it'
            raise TableError(f'{path}, row {row.label!r}: {found}')
    shared = [row.label for row in rows if [other.slug for other in rows].count(row.slug) > 1]
    if shared:
        raise TableError(f'{path}: the labels {", ".join(shared)} would share a folder; make them differ in letters')
    return table


def _split_of(metric: str) -> str:
    """'train/' of 'train/loss'; '' for a metric of the test split."""
    return next((split for split in OTHER_SPLITS if metric.startswith(split)), '')


def split_start(value: str) -> tuple[str, str]:
    """A value of Row.start or Row.ablate -> (label of a row, module path or modality)."""
    label, _, path = value.rpartition(':')
    return (label, path) if label else (path, '')


def _build(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a dictionary; lists become tuples."""
    if not isinstance(values, Mapping):
        raise TableError(f'{where}: found {type(values).__name__}, expected a dictionary')
    fields = {field.name: field for field in dataclasses.fields(kind)}
    nothing = dataclasses.MISSING
    required = [name for name, f in fields.items() if f.default is nothing and f.default_factory is nothing]
    unknown, missing = [k for k in values if k not in fields], [name for name in required if name not in values]
    if unknown or missing:
        fault = f'unknown key {", ".join(map(repr, unknown))}' if unknown else f'lacks {", ".join(missing)}'
        raise TableError(f'{where}: {fault}; the known keys are {", ".join(fields)}')
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in values.items():
        expected: Any = typing.get_origin(fields[name].type) or fields[name].type
        if not isinstance(value, expected):
            raise TableError(f'{where}: {name} is {value!r}, expected {expected.__name__.lower()}')
    return kind(**values)


def known_metrics(table: Table, where: str) -> list[str]:
    """What the table's kind of metrics measures, with its classes."""
    if table.metrics not in METRICS:
        raise TableError(f'{where}: metrics {table.metrics!r}, expected one of {", ".join(METRICS)}')
    if table.metrics != 'sentiment' and not table.classes:
        raise TableError(f'{where}: metrics {table.metrics!r} need `classes`, the names of the classes or emotions')
    count = len(table.classes)
    labels = {'sentiment': np.array([-1.0, 1.0]), 'classification': np.arange(count)}
    example = labels.get(table.metrics, np.eye(2, count))
    return ['loss', *floors(table.metrics, example, names=table.classes or None)]


def _check_row(row: Row, table: Table, where: str) -> None:
    if not row.slug or set(row.label) & set(',|\n'):
        raise TableError(f'{where}: a label holds a letter or digit, and no comma, bar or line break')
    if bool(row.config) + bool(row.quoted) + bool(row.ablate) != 1 or bool(row.quoted) != bool(row.source):
        raise TableError(f'{where}: give one of a config, a row to ablate, and quoted numbers with their source')
    if row.ablate and (row.variant or row.overrides or row.start):
        raise TableError(f'{where}: variant, overrides and start belong to a row with a config')
    if row.quoted and (row.variant or row.overrides or row.published or row.start):
        raise TableError(f'{where}: variant, overrides, published and start belong to a row with a config')
    for metric, value in {**row.published, **row.quoted}.items():
        if metric not in table.columns:
            raise TableError(f'{where}: a number for {metric}, which is no column; they are {", ".join(table.columns)}')
        if value is not None and not is_plain(metric) and not 0 <= value <= 1:
            raise TableError(f'{where}: {metric} is {value}, expected a fraction from 0 to 1 (41.4 % is 0.414)')


# ---- configs of the rows -------------------------------------------------------------------------------------


def row_config(table: Table, row: Row, seeds: int | None, settings: Sequence[str]) -> ConfigDict | None:
    """The row's config with the table's seeds, its overrides, then `settings` ('key=value'); None for a quoted row.

    The headline gets the table's columns, so training refuses, before its first step, one that is not measured; a
    column of the training split has it measured.
    """
    if not row.config:
        return None
    where = f'row {row.label!r}'
    try:
        config = load_module(row.config, 'get_config').get_config(row.variant)
        config.seeds = table.seeds if seeds is None else seeds
        for key, value in row.overrides.items():
            set_value(config, key, value)
        for setting in settings:
            key, equals, text = setting.partition('=')
            if not equals:
                raise TableError(f'--set {setting}: expected KEY=VALUE')
            set_value(config, key, text, parse=True)
        tested = [metric for metric in table.columns if not _split_of(metric)]
        config.headline = tuple(unique((*config.headline, *tested)))
        if any(metric.startswith('train/') for metric in table.columns):
            config.evaluate_train = True
    except (ValueError, TypeError) as error:
        raise TableError(f'{where}: {error}') from error
    return config


def set_value(config: ConfigDict, key: str, value: Any, *, parse: bool = False) -> None:
    """Sets config.<key>, a dotted key that exists; `parse` reads a Python literal from text, where one is wanted."""
    *parents, leaf = key.split('.')
    node = config
    for number, name in enumerate([*parents, leaf]):
        if not isinstance(node, ConfigDict) or name not in node:
            known = ', '.join(node) if isinstance(node, ConfigDict) else 'a plain value'
            above = '.'.join(('config', *parents[:number]))
            raise TableError(f'{key!r} is no key of the config; {above} has {known}')
        if number < len(parents):
            node = node[name]
    if isinstance(node[leaf], ConfigDict):
        raise TableError(f'{key!r} holds several values ({", ".join(node[leaf])}); set one, by {key}.<name>')
    if parse and not isinstance(node[leaf], str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise TableError(f'{key}={value}: expected a value like {node[leaf]!r}') from None
    node[leaf] = value
