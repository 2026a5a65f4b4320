"""The pictures of a report: training curves, a confusion matrix, a comparison of runs. PNG at 100 dpi.

Drawn through matplotlib's objects on the Agg canvas: no pyplot, no global state, no display needed. Most
colours are those of Okabe and Ito; readers with a colour vision deficiency can tell all of PALETTE apart.
"""

import collections
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmer_jax.files.outputs import MADE_BY

BLUE, VERMILION, GREEN, GREY = '#0072B2', '#D55E00', '#009E73', '#5F5F5F'
BLUES = LinearSegmentedColormap.from_list('white_to_blue', ['#FFFFFF', '#9CC9E5', BLUE, '#003A5D'])
PALETTE = (
    '#0072B2', '#E69F00', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#5F5F5F', '#A39A52', '#332288', '#7F0000',
    '#7FDCC4', '#000000',
)  # fmt: skip
MARKERS = 'osv^DPX*<>dp'
DPI = 100
NAME_WIDTH = 34  # characters of a run's name on one line

Series = dict[int, float]  # epoch -> value


def curves(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    title: str,
    *,
    metric: str | None = None,
    scale: float = 1.0,
    label: str | None = None,
) -> None:
    """Draws the loss, and the metric that selects the checkpoint, against the epoch (1000 x 420 pixels).

    Each seed is a thin line and their mean a thick one; with several folds a seed's line is its mean over the
    folds, and each fold is drawn faintly behind. The folds of a single seed are the thin lines themselves. A mean
    ends where the first of its lines ends.

    Args:
        rows: lines of `metrics.jsonl`, each with `epoch`, `split` and `seed`, and `fold` if there are several;
            `train_epoch` and `validation` rows are drawn, others ignored.
        path: the PNG file.
        title: stands above both panels.
        metric: key of the right panel; without it there is only the loss.
        scale: the metric is multiplied by it (100 for percent).
        label: the right panel's axis; `metric` by default.

    Raises:
        ValueError: no row can be drawn.
    """
    panels = [('loss', 1.0, 'loss')]
    if metric not in (None, 'loss') and any(row.get(metric) is not None for row in rows):
        panels.append((metric, scale, label or metric))
    figure = _figure(10, 4.2)
    figure.suptitle(title, fontsize=12, fontweight='bold')
    drawn = 0
    for number, (key, factor, name) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for split, colour, text in (('train_epoch', BLUE, 'train'), ('validation', VERMILION, 'validation')):
            series = _series(rows, split, key, factor)
            if series:
                drawn += 1
                _draw_series(axes, series, colour, text)
        axes.set_xlabel('epoch')
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        if axes.lines and all(len(line.get_xdata()) == 1 for line in axes.lines):  # type: ignore[arg-type]
            epoch = float(axes.lines[0].get_xdata()[0])  # type: ignore[index, arg-type]
            axes.set_xlim(epoch - 1, epoch + 1)
        _plain(axes, grid='both')
        if axes.lines:
            axes.legend(frameon=False, fontsize=10)
    if not drawn:
        raise ValueError(
            f"{path}: no curve to draw: none of the {len(rows)} rows has split 'train_epoch' or 'validation' with "
            "an 'epoch' and a 'loss'"
        )
    _save(figure, path)


def confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | os.PathLike, title: str) -> None:
    """Draws a confusion matrix: colour and percent by row (the share of a true class), counts below, as its axis says.

    Args:
        matrix: (C, C) counts, rows true and columns predicted; may be fractional (a mean over seeds).
        class_names: C names.
        path: the PNG file; a square that grows with C, from 500 to 1000 pixels or so.
        title: stands above.

    Raises:
        ValueError: the matrix is not (C, C).
    """
    matrix, count = np.asarray(matrix, float), len(class_names)
    if matrix.shape != (count, count):
        raise ValueError(f'confusion: matrix of shape {matrix.shape}, expected ({count}, {count}): {class_names}')
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    side = 2.6 + 0.72 * max(count, 3)
    figure = _figure(side + 0.5, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1)
    small = count > 8
    for row in range(count):
        for column in range(count):
            ink = 'white' if shares[row, column] > 0.5 else 'black'
            percent = f'{100 * shares[row, column]:.0f}%' if totals[row, 0] else '-'
            axes.text(column, row - 0.13, percent, ha='center', va='center', color=ink, fontsize=10 if small else 11)
            axes.text(column, row + 0.24, _count(matrix[row, column]), ha='center', va='center', color=ink, fontsize=8)
    long_names = max(map(len, class_names)) * count > 40
    axes.set_xticks(range(count), class_names, rotation=40 if long_names else 0, ha='right' if long_names else 'center')
    if long_names:
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode('anchor')
    axes.set_yticks(range(count), class_names)
    axes.set_xlabel('predicted\n(percent of the true class, a row; below: records)')
    axes.set_ylabel('true')
    axes.set_title(title, fontsize=11, fontweight='bold')
    axes.tick_params(length=0)
    for edge in np.arange(count - 1) + 0.5:
        axes.axhline(edge, color='white', linewidth=1.5)
        axes.axvline(edge, color='white', linewidth=1.5)
    for spine in axes.spines.values():
        spine.set_color('#BBBBBB')
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(['0%', '25%', '50%', '75%', '100%'], fontsize=9)
    bar.outline.set_visible(False)  # type: ignore[operator]
    _save(figure, path)


def scatter(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: str | os.PathLike, title: str
) -> None:
    """Draws points (R, 2) coloured by class (R,), at most twelve classes (600 x 500 pixels).

    The two directions of an embedding have no unit, so the axes have no numbers.

    Raises:
        ValueError: points are not (R, 2), or there are more classes than colours.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels) or len(class_names) > len(PALETTE):
        raise ValueError(
            f'scatter: points {points.shape}, {len(labels)} labels of {len(class_names)} classes; expected (R, 2), R '
            f'labels and at most {len(PALETTE)} classes'
        )
    figure = _figure(6, 5)
    axes = figure.add_subplot()
    size = float(np.clip(8000 / max(len(points), 1), 10, 30))
    for number, name in enumerate(class_names):
        chosen = points[labels == number]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=size * (1.5 if MARKERS[number] in 'PX*d' else 1), color=PALETTE[number],
            marker=MARKERS[number], alpha=0.75, edgecolor='white', linewidth=0.3, label=name,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel('first principal component')
    axes.set_ylabel('second')
    axes.set_title(title, fontsize=11, fontweight='bold')
    _plain(axes, grid='both')
    figure.legend(
        loc='outside lower center',
        ncols=min(len(class_names), 4),
        frameon=False,
        fontsize=10,
        markerscale=float(np.sqrt(50 / size)),
    )
    _save(figure, path)


def comparison(
    names: Sequence[str],
    means: Sequence[float],
    sds: Sequence[float | None],
    floors: Sequence[float | None],
    path: str | os.PathLike,
    *,
    published: Sequence[float | None] | None = None,
    label: str = '',
    decimals: int = 1,
) -> None:
    """Draws one horizontal bar for each run, from the top in the given order (900 pixels wide).

    Args:
        names: (R,) of the runs.
        means: (R,) lengths of the bars, in the unit of `label`.
        sds: (R,) error bars to both sides; None for none.
        floors: (R,) what the majority class alone scores; None for none.
        path: the PNG file.
        published: (R,) the papers' numbers; None for none.
        label: the axis, with its unit.
        decimals: of the numbers on the right.

    Raises:
        ValueError: there is no run, or the lengths differ.
    """
    published = [None] * len(names) if published is None else published
    lengths = [len(means), len(sds), len(floors), len(published)]
    if not names or set(lengths) != {len(names)}:
        raise ValueError(f'comparison: {len(names)} names with {lengths} means, sds, floors and published numbers')
    figure = _figure(9, 1.6 + 0.62 * len(names))
    axes = figure.add_subplot()
    places = np.arange(len(names))
    axes.barh(places, means, height=0.56, color='#8CBFDD', edgecolor=BLUE, linewidth=0.8, zorder=2)
    for place, mean, sd in zip(places, means, sds, strict=True):
        spread = 0.0 if sd is None or not np.isfinite(sd) else sd
        if spread:
            axes.errorbar(mean, place, xerr=spread, color='#1A1A1A', capsize=4, linewidth=1.4, zorder=4)
    _marks(axes, places, floors, colour=GREY, marker='|', label='majority floor')
    _marks(axes, places, published, colour=VERMILION, marker='D', label='published')
    _bar_numbers(axes, means, sds, decimals)
    axes.set_yticks(places, [_wrap(name) for name in names], fontsize=10)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.axvline(0, color='#444444', linewidth=0.8, zorder=3)
    axes.set_xlabel(label)
    _plain(axes, grid='x')
    axes.tick_params(axis='y', length=0)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc='outside upper right', ncols=2, frameon=False, fontsize=10)
    _save(figure, path)


def _bar_numbers(axes: Axes, means: Sequence[float], sds: Sequence[float | None], decimals: int) -> None:
    """Writes each mean in a column beyond the right edge, where no mark can be taken for its end."""
    for place, (mean, sd) in enumerate(zip(means, sds, strict=True)):
        text = f'{mean:.{decimals}f}' if np.isfinite(mean) else 'undefined'
        if sd is not None and np.isfinite(sd):
            text += f' ± {sd:.{decimals}f}'
        where = axes.get_yaxis_transform()
        axes.text(1.015, place, text, va='center', ha='left', fontsize=10, transform=where)


def _marks(
    axes: Axes, places: Iterable[float], values: Sequence[float | None], *, colour: str, marker: str, label: str
) -> None:
    known = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
    if not known:
        return
    x, y = zip(*known, strict=True)
    if marker == '|':  # as high as the bar
        axes.vlines(
            x,
            np.subtract(y, 0.36),
            np.add(y, 0.36),
            color=colour,
            linestyle=(0, (2, 1.2)),
            linewidth=2,
            label=label,
            zorder=4,
        )
    else:
        axes.scatter(x, y, s=46, marker=marker, color=colour, edgecolor='white', linewidth=0.8, label=label, zorder=5)


def _series(rows: Iterable[Mapping[str, Any]], split: str, key: str, factor: float) -> dict[Any, dict[Any, Series]]:
    """seed -> fold -> {epoch: value}, without the values that are undefined."""
    series: dict[Any, dict[Any, Series]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        if row.get('split') == split and row.get(key) is not None and row.get('epoch') is not None:
            series[row.get('seed')][row.get('fold')][row['epoch']] = factor * row[key]
    return series


def _draw_series(axes: Axes, series: dict[Any, dict[Any, Series]], colour: str, label: str) -> None:
    thin: dict = {'color': colour, 'alpha': 0.5, 'linewidth': 1.0}
    seeds = []
    for folds in series.values():
        if len(folds) > 1:
            for line in folds.values():
                axes.plot(*_points(line), **(thin if len(series) == 1 else {**thin, 'alpha': 0.15, 'linewidth': 0.8}))
        seeds.append(_mean(list(folds.values())))
    if len(seeds) > 1:
        for line in seeds:
            axes.plot(*_points(line), **{**thin, 'alpha': 0.45})
    mean = _mean(seeds)
    # A single epoch is a point, which a line alone would not show.
    axes.plot(*_points(mean), color=colour, linewidth=2.6, marker='o' if len(mean) == 1 else '', label=label)


def _mean(lines: list[Series]) -> Series:
    shared = set.intersection(*(set(line) for line in lines))
    return {epoch: float(np.mean([line[epoch] for line in lines])) for epoch in sorted(shared)}


def _points(line: Series) -> tuple[list[int], list[float]]:
    epochs = sorted(line)
    return epochs, [line[epoch] for epoch in epochs]


def _count(value: float) -> str:
    return f'{value:.0f}' if value == round(value) or value >= 100 else f'{value:.1f}'


def _wrap(name: str) -> str:
    """Breaks a long name after a character that separates its parts."""
    lines, rest = [], name
    while len(rest) > NAME_WIDTH:
        cut = max((rest.rfind(mark, 0, NAME_WIDTH) for mark in ' :/_-'), default=-1) + 1 or NAME_WIDTH
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:]
    return '\n'.join([*lines, rest])


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes, grid: str) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color('#888888')
    axes.grid(axis=grid, color='#E4E4E4', linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    # Without the version of matplotlib in it the same numbers give the same file; by the mark it may be replaced.
    figure.savefig(path, dpi=DPI, facecolor='white', format='png', metadata={'Software': MADE_BY})
