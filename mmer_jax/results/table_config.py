"""What a table of a paper says: its file, checked, and the config of each row. `table.py` runs and writes it."""

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mmer_jax.metrics import KINDS, names
from mmer_jax.results.runs import Run, is_of, unique
from mmer_jax.results.summary import is_plain
from mmer_jax.settings.keys import check_config_values
from mmer_jax.settings.overrides import apply, load_config, load_module

OTHER_SPLITS = ('train/', 'validation/')  # before a metric's name


class TableError(ValueError):
    """A table's file, or an option of the command, is wrong."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a config to run, or (`quoted`) numbers that were measured elsewhere.

    Numbers are by metric, fractions from 0 to 1 except mae, corr and loss; a metric that the paper leaves out is
    left out, or None. `published` numbers of a row with a config stand in the config (`config.published`), where
    `read_table` takes them; a table's file adds those that its config lacks, never one twice.

    `overrides` are values by dotted key; `group` is the heading above the row. `start` is config.start_from with rows
    above this one for workdirs: {'vision': ('label of the row', 'encoder')}. `ablate` is a row above with a modality
    hidden when it is tested, nothing trained: ('label of the row', 'vision'). In the bar plot, bars of one `bar` (the
    label by default) stand together, and those of one `series` have one colour.
    """

    label: str
    config: str = ''
    variant: str = ''
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    published: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    group: str = ''
    quoted: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    source: str = ''  # of the quoted numbers
    ablate: tuple[str, ...] = ()
    bar: str = ''
    series: str = ''

    @property
    def slug(self) -> str:
        """The row's folder."""
        return re.sub(r'\W+', '_', self.label.lower()).strip('_')


@dataclasses.dataclass(frozen=True)
class Table:
    """`metrics` is a kind of mmer_jax/metrics, `classes` its classes or emotions, `columns` titles by metric.

    A column 'train/loss' or 'validation/loss' is of that split, at the epoch of the test's. `bars` is the column that
    is drawn as a bar plot; '' for none. `dataset` is the data set of the published numbers, the name of a directory's
    data or its beginning ('mosi' for 'mosi_mult'): beside runs on other data they are not shown. Without it
    there are none.
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
    dataset: str = ''

    def published(self, row: Row, run: Run | None) -> Mapping[str, float | None]:
        """A row's published numbers; none beside a run on another data set."""
        return row.published if run is None or is_of(run.results['dataset'], self.dataset) else {}


def read_table(path: str) -> Table:
    """The table in a file, checked; TableError names the key or the row that is wrong."""
    try:
        values = load_module(path, 'get_table').get_table()
    except (ValueError, OSError) as error:
        raise TableError(str(error)) from error
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
        wrong = [label for label, _ in (*row.start.values(), *filter(None, [row.ablate])) if label not in above]
        if wrong:
            found = f'starts from {wrong[0]!r}, which is no row with a config above it'
            raise TableError(f'{path}, row {row.label!r}: {found}')
    if any(row.published for row in rows) and not table.dataset:
        raise TableError(
            f"{path}: rows have published numbers; give `dataset`, the data set they are of, such as 'mosi'"
        )
    shared = [row.label for row in rows if [other.slug for other in rows].count(row.slug) > 1]
    if shared:
        raise TableError(f'{path}: the labels {", ".join(shared)} would share a folder; make them differ in letters')
    return dataclasses.replace(table, rows=tuple(_with_published(row, table) for row in rows))


def _split_of(metric: str) -> str:
    """'train/' of 'train/loss'; '' for a metric of the test split."""
    return next((split for split in OTHER_SPLITS if metric.startswith(split)), '')


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


def _with_published(row: Row, table: Table) -> Row:
    """The row with the published numbers of its config, for the table's columns and of its data set."""
    if not row.config or not table.dataset:
        return row
    published = _load(row).published
    if published.get('dataset') != table.dataset:
        return row
    found = {metric: published[metric] for metric in table.columns if metric in published}
    twice = [metric for metric in found if metric in row.published]
    if twice:
        raise TableError(f'row {row.label!r}: published {", ".join(twice)} stands in {row.config} too: remove it here')
    return dataclasses.replace(row, published={**found, **row.published})


def _load(row: Row) -> ConfigDict:
    try:
        return load_config(row.config, row.variant)
    except (ValueError, TypeError, OSError) as error:
        raise TableError(f'row {row.label!r}: {error}') from error


def known_metrics(table: Table, where: str) -> list[str]:
    """What the table's kind of metrics measures, with its classes."""
    if table.metrics not in KINDS:
        raise TableError(f'{where}: metrics {table.metrics!r}, expected one of {", ".join(KINDS)}')
    if KINDS[table.metrics].each and not table.classes:
        raise TableError(f'{where}: metrics {table.metrics!r} need `classes`, the names of the classes or emotions')
    return ['loss', *names(table.metrics, table.classes)]


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and [type(part) for part in value] == [str, str]


def _check_row(row: Row, table: Table, where: str) -> None:
    if row.ablate and not _is_pair(row.ablate):
        raise TableError(f"{where}: ablate is {row.ablate!r}, expected ('label of a row above', 'modality')")
    for module, pair in row.start.items():
        if not _is_pair(pair):
            raise TableError(
                f"{where}: start of {module} is {pair!r}, expected ('label of a row above', 'path in its model')"
            )
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
    config = _load(row)
    try:
        config.seeds = table.seeds if seeds is None else seeds
        apply(config, row.overrides.items(), parse=False)
        pairs = [setting.partition('=') for setting in settings]
        wrong = [setting for setting, (_, equals, _) in zip(settings, pairs, strict=True) if not equals]
        if wrong:
            raise TableError(f'--set {wrong[0]}: expected KEY=VALUE')
        apply(config, [(key, text) for key, _, text in pairs])
        tested = [metric for metric in table.columns if not _split_of(metric)]
        config.headline = tuple(unique((*config.headline, *tested)))
        if any(metric.startswith('train/') for metric in table.columns):
            config.evaluate_train = True
        check_config_values(config)
    except (ValueError, TypeError, OSError) as error:
        raise TableError(f'row {row.label!r}: {error}') from error
    return config
