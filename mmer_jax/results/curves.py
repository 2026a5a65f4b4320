"""The curves of a run: loss and validation metric against the epoch, with floor, chosen epochs, folds and seeds named.

The metric's axis is as long as the metric can be (0 to 100 %, or down to 0), so that noise does not look like learning.
"""

import collections
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmer_jax.results import canvas
from mmer_jax.results.plots import BLUE, GREY, VERMILION, plain

Series = dict[int, float]  # epoch -> value
Place = tuple[Any, Any]  # seed, fold
THIN: dict = {'alpha': 0.5, 'linewidth': 1.0}
FAINT: dict = {'alpha': 0.15, 'linewidth': 0.8}
CHOSEN: dict = {'marker': 'o', 'markerfacecolor': 'white', 'linestyle': '', 'zorder': 5}
FLOOR: dict = {'color': GREY, 'linestyle': (0, (4, 2)), 'linewidth': 1.5}
SPLITS = (('train_epoch', BLUE, 'train'), ('validation', VERMILION, 'validation'))
GAP = 0.05  # of the axis between two names at the ends of lines
NAME_WIDTH = 40  # letters of an axis' name on one line
MOST_NAMED = 12  # lines that get their names


def curves(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    title: str,
    *,
    metric: str | None = None,
    scale: float = 1.0,
    label: str | None = None,
    loss: str = 'loss',
    limits: tuple[float, float] | None = None,
    floor: float | None = None,
    chosen: Mapping[Place, int] | None = None,
) -> None:
    """Draws the loss, and the metric that selects the checkpoint, against the epoch (10 x 4.2 inches).

    Each seed is a thin line and their mean a thick one; with several folds a seed's line is its mean over the
    folds, and each fold is drawn faintly behind. The folds of a single seed are the thin lines themselves. Thin lines
    have their number at their end. A mean ends where the first of its lines ends.

    Args:
        rows: lines of `metrics.jsonl`, each with `epoch`, `split` and `seed`, and `fold` if there are several;
            `train_epoch` and `validation` rows are drawn, others ignored.
        path: the picture's file.
        title: stands above both panels.
        metric: key of the right panel; without it there is only the loss.
        scale: the metric and its floor are multiplied by it (100 for percent).
        label: the right panel's axis; `metric` by default.
        loss: the left panel's axis.
        limits: the whole range of the metric, scaled; None: from 0 to the largest value, or below 0 where one is.
        floor: what the best constant answer scores on validation, not scaled.
        chosen: (seed, fold) -> the epoch that validation chose; a circle stands there.

    Raises:
        ValueError: no row can be drawn.
    """
    panels: list[tuple[str, float, str]] = [('loss', 1.0, loss)]
    if metric not in (None, 'loss') and any(row.get(metric) is not None for row in rows):
        panels.append((str(metric), scale, label or str(metric)))
    figure = canvas.new_figure(10, 4.2)
    figure.suptitle(title, fontsize=12, fontweight='bold')
    entries: dict[str, Any] = {}
    for number, (key, factor, name) in enumerate(panels):
        axes, epochs = figure.add_subplot(1, len(panels), number + 1), set[int]()
        for split, colour, text in SPLITS:
            series = series_of(rows, split, key, factor)
            epochs |= {epoch for folds in series.values() for line in folds.values() for epoch in line}
            if series:
                entries |= draw_series(axes, series, colour, text, named=split == 'validation')
                if split == 'validation':
                    entries |= _mark_chosen(axes, series, colour, chosen or {})
        if number and floor is not None and np.isfinite(floor):
            entries['floor: best constant answer'] = axes.axhline(factor * floor, **FLOOR)
        if len(epochs) == 1:
            axes.set_xlim(min(epochs) - 1, max(epochs) + 1)
        _axes(axes, name, limits if number else None)
    if not entries:
        raise ValueError(
            f"{path}: no curve to draw: none of the {len(rows)} rows has split 'train_epoch' or 'validation' with "
            "an 'epoch' and a 'loss'"
        )
    figure.legend(
        list(entries.values()), list(entries), loc='outside lower center', ncols=min(len(entries), 3), frameon=False,
        fontsize=9.5,
    )  # fmt: skip
    canvas.save(figure, path)


def _axes(axes: Axes, name: str, limits: tuple[float, float] | None) -> None:
    axes.set_xlabel('epoch')
    axes.set_ylabel(textwrap.fill(name, NAME_WIDTH))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03)
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.zeros(1)])
    low, high = min(0.0, float(heights.min())), float(heights.max())
    axes.set_ylim(*(limits or (1.06 * low, 1.06 * high if high > low else low + 1)))
    _spread_names(axes)
    plain(axes, grid='both')


def series_of(rows: Iterable[Mapping[str, Any]], split: str, key: str, factor: float) -> dict[Any, dict[Any, Series]]:
    """seed -> fold -> {epoch: value}, without the values that are undefined."""
    series: dict[Any, dict[Any, Series]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        if row.get('split') == split and row.get(key) is not None and row.get('epoch') is not None:
            series[row.get('seed')][row.get('fold')][row['epoch']] = factor * row[key]
    return series


def draw_series(
    axes: Axes, series: dict[Any, dict[Any, Series]], colour: str, label: str, *, named: bool = False
) -> dict[str, Any]:
    """Draws the lines of one split; named: thin lines get their number. Returns what the legend says, by its text."""
    seeds, entries, several = [], dict[str, Any](), len(series) > 1
    folds = len(next(iter(series.values())))
    for by_fold in series.values():
        if len(by_fold) > 1:
            for fold, line in by_fold.items():
                axes.plot(*_points(line), color=colour, **(FAINT if several else THIN))
                if named and not several and len(by_fold) <= MOST_NAMED:
                    _name(axes, line, str(fold).removeprefix('fold_'), colour)
        seeds.append(_mean(list(by_fold.values())))
    if several:
        for seed, line in zip(series, seeds, strict=True):
            axes.plot(*_points(line), color=colour, **{**THIN, 'alpha': 0.45})
            if named and len(series) <= MOST_NAMED:
                _name(axes, line, str(seed), colour)
    mean = _mean(seeds)
    # A single epoch is a point, which a line alone would not show.
    axes.plot(*_points(mean), color=colour, linewidth=2.6, marker='o' if len(mean) == 1 else '')
    parts = [f'{len(series)} seeds'] * several + [f'{folds} folds'] * (folds > 1)
    entries[f'{label}, mean of {" and ".join(parts)}' if parts else label] = Line2D([], [], color=colour, linewidth=2.6)
    if parts:
        what = ('seed' if several else 'fold') + (', its number at the end' if named else '')
        if named:
            entries[f'one {what}'] = Line2D([], [], color=GREY, linewidth=1.0)
    return entries


def _mark_chosen(
    axes: Axes, series: dict[Any, dict[Any, Series]], colour: str, chosen: Mapping[Place, int]
) -> dict[str, Any]:
    """A circle where validation chose, on the line of each seed and fold; beside the only one its epoch."""
    places = [(seed, fold, line) for seed, folds in series.items() for fold, line in folds.items()]
    points = [(chosen[s, f], line[chosen[s, f]]) for s, f, line in places if chosen.get((s, f)) in line]
    if not points:
        return {}
    size = 8 if len(points) == 1 else 4.5 if len(points) <= MOST_NAMED else 3
    axes.plot(*zip(*points, strict=True), color=colour, markersize=size, clip_on=False, **CHOSEN)
    text = f'chosen epoch ({points[0][0]})' if len(points) == 1 else 'chosen epoch'
    return {text: Line2D([], [], color=colour, markersize=6, **CHOSEN)}


def _name(axes: Axes, line: Series, text: str, colour: str) -> None:
    """The number of a line at its end; _spread_names moves those that would lie on each other."""
    epoch = max(line)
    axes.annotate(
        text, (epoch, line[epoch]), (4, 0), textcoords='offset points', fontsize=7.5, color=colour, va='center',
        annotation_clip=False, gid='end of a line',
    )  # fmt: skip


def _spread_names(axes: Axes) -> None:
    low, high = axes.get_ylim()
    names = sorted((t for t in axes.texts if t.get_gid() == 'end of a line'), key=lambda t: t.xy[1])  # type: ignore[attr-defined]
    places = np.array([t.xy[1] for t in names], np.float64)  # type: ignore[attr-defined]
    for n in range(1, len(places)):
        places[n] = max(places[n], places[n - 1] + GAP * (high - low))
    if len(places):
        places = places - max(0.0, float(places[-1]) - high)
    for name, place in zip(names, places, strict=True):
        name.xy = (name.xy[0], place)  # type: ignore[attr-defined]


def _mean(lines: list[Series]) -> Series:
    shared = set.intersection(*(set(line) for line in lines))
    return {epoch: float(np.mean([line[epoch] for line in lines])) for epoch in sorted(shared)}


def _points(line: Series) -> tuple[list[int], list[float]]:
    epochs = sorted(line)
    return epochs, [line[epoch] for epoch in epochs]
