"""The pictures of a report: a confusion matrix, points of classes, a comparison of runs. PNG, SVG or PDF.

Most colours are those of Okabe and Ito; readers with a colour vision deficiency can tell all of PALETTE apart.
"""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from mmer_jax.results import canvas

BLUE, VERMILION, GREEN, GREY = '#0072B2', '#D55E00', '#009E73', '#5F5F5F'
BLUES = LinearSegmentedColormap.from_list('white_to_blue', ['#FFFFFF', '#9CC9E5', BLUE, '#003A5D'])
PALETTE = (
    '#0072B2', '#E69F00', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#5F5F5F', '#A39A52', '#332288', '#7F0000',
    '#7FDCC4', '#000000',
)  # fmt: skip
MARKERS = 'osv^DPX*<>dp'
NAME_WIDTH = 34  # characters of a run's name on one line


def confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | os.PathLike, title: str) -> None:
    """Draws a confusion matrix: colour and percent by row (the share of a true class), counts below, as its axis says.

    Args:
        matrix: (C, C) counts, rows true and columns predicted; may be fractional (a mean over seeds).
        class_names: C names.
        path: the picture's file; a square that grows with C, from 5 to 10 inches or so.
        title: stands above.

    Raises:
        ValueError: the matrix is not (C, C).
    """
    matrix, count, class_names = np.asarray(matrix, float), len(class_names), list(map(canvas.short, class_names))
    if matrix.shape != (count, count):
        raise ValueError(f'confusion: matrix of shape {matrix.shape}, expected ({count}, {count}): {class_names}')
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    side = 2.6 + 0.72 * max(count, 3)
    figure = canvas.new_figure(side + 0.5, side)
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
    canvas.save(figure, path)


def scatter(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: str | os.PathLike,
    title: str,
    explained: Sequence[float] | None = None,
) -> None:
    """Draws points (R, 2) coloured by class (R,), at most twelve classes (6 x 5 inches).

    The two directions of an embedding have no unit, so the axes have no numbers. explained: the shares (2,) of the
    variance that the components have, from 0 to 1.

    Raises:
        ValueError: points are not (R, 2), or there are more classes than colours.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels) or len(class_names) > len(PALETTE):
        raise ValueError(
            f'scatter: points {points.shape}, {len(labels)} labels of {len(class_names)} classes; expected (R, 2), R '
            f'labels and at most {len(PALETTE)} classes'
        )
    figure = canvas.new_figure(6, 5)
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
    first, second = component_titles(explained)
    axes.set_xlabel(first)
    axes.set_ylabel(second)
    axes.set_title(title, fontsize=11, fontweight='bold')
    plain(axes, grid='both')
    figure.legend(
        loc='outside lower center',
        ncols=min(len(class_names), 4),
        frameon=False,
        fontsize=10,
        markerscale=float(np.sqrt(50 / size)),
    )
    canvas.save(figure, path)


def component_titles(explained: Sequence[float] | None) -> tuple[str, str]:
    """Titles of the axes of two principal components, with their shares of the variance where these are known."""
    shares = [f' ({100 * share:.1f} % of the variance)' for share in explained] if explained is not None else ['', '']
    return f'first principal component{shares[0]}', f'second principal component{shares[1]}'


def comparison(
    names: Sequence[str],
    means: Sequence[float],
    sds: Sequence[float | None],
    floors: Sequence[float | None],
    path: str | os.PathLike,
    *,
    published: Sequence[float | None] | None = None,
    label: str = '',
    title: str = '',
    decimals: int = 1,
) -> None:
    """Draws one horizontal bar for each run, from the top in the given order (9 inches wide).

    Args:
        names: (R,) of the runs.
        means: (R,) lengths of the bars, in the unit of `label`.
        sds: (R,) error bars to both sides; None for none.
        floors: (R,) what the majority class alone scores; None for none.
        path: the picture's file.
        published: (R,) the papers' numbers; None for none.
        label: the axis, with its unit.
        title: stands above.
        decimals: of the numbers on the right.

    Raises:
        ValueError: there is no run, or the lengths differ.
    """
    published = [None] * len(names) if published is None else published
    lengths = [len(means), len(sds), len(floors), len(published)]
    if not names or set(lengths) != {len(names)}:
        raise ValueError(f'comparison: {len(names)} names with {lengths} means, sds, floors and published numbers')
    figure = canvas.new_figure(9, 1.6 + 0.62 * len(names))
    axes = figure.add_subplot()
    places = np.arange(len(names))
    axes.barh(places, means, height=0.56, color='#8CBFDD', edgecolor=BLUE, linewidth=0.8, zorder=2)
    for place, mean, sd in zip(places, means, sds, strict=True):
        spread = 0.0 if sd is None or not np.isfinite(sd) else sd
        if spread:
            axes.errorbar(mean, place, xerr=spread, color='#1A1A1A', capsize=4, linewidth=1.4, zorder=4)
    _marks(axes, places, floors, colour=GREY, marker='|', label='majority floor')
    _marks(axes, places, published, colour=VERMILION, marker='D', label='published')
    if title:
        figure.suptitle(title, fontsize=12, fontweight='bold', x=0.01, ha='left')
    _bar_numbers(axes, means, sds, decimals)
    axes.set_yticks(places, [_wrap(name) for name in names], fontsize=10)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.axvline(0, color='#444444', linewidth=0.8, zorder=3)
    axes.set_xlabel(label)
    plain(axes, grid='x')
    axes.tick_params(axis='y', length=0)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc='outside upper right', ncols=2, frameon=False, fontsize=10)
    canvas.save(figure, path)


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


def plain(axes: Axes, grid: str) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color('#888888')
    axes.grid(axis=grid, color='#E4E4E4', linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
