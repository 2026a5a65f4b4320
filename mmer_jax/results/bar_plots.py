"""Bars in groups: one metric of many runs, or counts of records, side by side by what they share. PNG, SVG or PDF."""

import dataclasses
import os
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mmer_jax.results import canvas
from mmer_jax.results.plots import GREY, PALETTE

INK = '#1A1A1A'
# An order in which the first three, made pale, are still far apart.
COLOURS = tuple(PALETTE[number] for number in (0, 1, 3, 4, 2, *range(5, len(PALETTE))))
FILL = 0.82  # of a group's width that its bars take
NARROW, WIDE = 0.4, 0.9  # inches for a bar, and least for a group: room for its name
READABLE = 0.17  # inches of a bar below which a number does not stand on it
DIGIT = 0.075  # inches that a digit is wide
NAME_WIDTH = 12  # characters of a group's name on one line
MARK: dict = {'s': 34, 'marker': 'D', 'color': 'white', 'edgecolor': INK, 'linewidth': 1.2}
DASHES: dict = {'color': GREY, 'linestyle': (0, (2, 1.2)), 'linewidth': 1.6}


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar, in the unit of the axis.

    `mean` None: nothing measured yet, an empty place. `deviation`: an error bar to both sides. `floor`: what the
    majority class alone scores. `quoted`: not measured here (other people's number, human raters), drawn hatched.
    """

    group: str
    series: str
    mean: float | None
    deviation: float | None = None
    floor: float | None = None
    published: float | None = None
    quoted: bool = False


def grouped(
    bars: Sequence[Bar],
    path: str | os.PathLike,
    *,
    label: str,
    title: str = '',
    decimals: int = 1,
    sizes: tuple[float, float] = (NARROW, WIDE),
) -> None:
    """Draws bars of one group together and those of one series in one colour, both in order of first appearance.

    Args:
        bars: any number; a group may lack a series, and its bars then stay in its middle.
        path: the picture's file, 4.6 inches high, as wide as the bars need.
        label: the axis, with its unit.
        title: stands above.
        decimals: of the numbers at the foot of the bars; 0 for counts, which stand above the bars.
        sizes: inches for a bar, with no numbers where it is too narrow, and least for a group.

    Raises:
        ValueError: there is no bar, more series than colours, or two bars of one group and series.
    """
    groups, series = list(dict.fromkeys(b.group for b in bars)), list(dict.fromkeys(b.series for b in bars))
    places = {(b.group, b.series) for b in bars}
    if not bars or len(series) > len(COLOURS) or len(places) < len(bars):
        raise ValueError(
            f'{path}: {len(bars)} bars in {len(places)} places of {len(series)} series; expected at least one bar, at '
            f'most {len(COLOURS)} series, and one bar a place'
        )
    room = max(sizes[0] * len(series), sizes[1])
    figure = canvas.new_figure(max(1.3 + len(groups) * room, 5.0), 4.6)
    axes = figure.add_subplot()
    step = FILL / len(series)
    longest = max(len(f'{bar.mean or 0:.{decimals}f}') for bar in bars)
    rotation = 0 if not decimals and DIGIT * (longest + 0.5) < step * room else 90
    for number, group in enumerate(groups):
        members = sorted((b for b in bars if b.group == group), key=lambda b: series.index(b.series))
        for k, bar in enumerate(members):
            place = number + (k - (len(members) - 1) / 2) * step
            _draw(axes, bar, place, step, COLOURS[series.index(bar.series)])
            if sizes[0] >= READABLE:
                _number(axes, bar, place, decimals, rotation)
    _axes(axes, groups, bars, label)
    if room < WIDE and 0.085 * max(map(len, groups)) > room:  # a character is about 0.085 inches wide
        axes.tick_params(axis='x', labelrotation=90)
    if not decimals:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(top=1.09 * axes.get_ylim()[1])  # room for the highest bar's number
    if title:
        axes.set_title(title, fontsize=12, fontweight='bold')
    _legend(figure, axes, bars, series)
    canvas.save(figure, path)


def counts(table: Mapping[str, Mapping[str, int]], path: str | os.PathLike, *, label: str, title: str = '') -> None:
    """Draws `table`, group -> series -> count, with narrower bars and no numbers where there are very many.

    Raises:
        ValueError: as `grouped`.
    """
    bars = [Bar(group, series, count) for group, row in table.items() for series, count in row.items()]
    narrow = float(np.clip(14 / max(len(bars), 1), 0.06, NARROW))
    grouped(bars, path, label=label, title=title, decimals=0, sizes=(narrow, WIDE if len(table) <= 12 else 0.5))


def _draw(axes: Axes, bar: Bar, place: float, step: float, colour: str) -> None:
    half = 0.46 * step
    if bar.mean is not None and np.isfinite(bar.mean):
        style: dict = {'facecolor': 'white', 'hatch': '////'} if bar.quoted else {'facecolor': _pale(colour)}
        axes.bar(place, bar.mean, width=2 * half, edgecolor=colour, linewidth=0.9, zorder=2, **style)
        if bar.deviation is not None and np.isfinite(bar.deviation):
            axes.errorbar(place, bar.mean, yerr=bar.deviation, color=INK, capsize=3, linewidth=1.2, zorder=4)
    if bar.floor is not None and np.isfinite(bar.floor):
        axes.hlines(bar.floor, place - half, place + half, **DASHES, zorder=3)
    if bar.published is not None:
        axes.scatter(place, bar.published, **MARK, zorder=5)


def _number(axes: Axes, bar: Bar, place: float, decimals: int, rotation: int) -> None:
    """Writes the mean at the foot of a bar, a count above it."""
    if bar.mean is None or not np.isfinite(bar.mean):
        return
    foot = 0 if decimals else bar.mean
    text = axes.annotate(
        f'{bar.mean:.{decimals}f}', (place, foot), (0, 4), textcoords='offset points', rotation=rotation, ha='center',
        va='bottom', fontsize=8.5, color=INK, zorder=6,
    )  # fmt: skip
    if bar.quoted:  # readable on the hatching
        text.set_bbox({'facecolor': 'white', 'edgecolor': 'none', 'pad': 1.2})


def _axes(axes: Axes, groups: Sequence[str], bars: Sequence[Bar], label: str) -> None:
    names = [textwrap.fill(group, NAME_WIDTH, break_long_words=False) for group in groups]
    axes.set_xticks(range(len(groups)), names, fontsize=10)
    axes.set_xlim(-0.55, len(groups) - 0.45)
    tops = [(b.mean or 0) + (b.deviation or 0) for b in bars] + [b.published or 0 for b in bars]
    top = max((value for value in tops if np.isfinite(value)), default=0)
    low = min((b.mean or 0 for b in bars if np.isfinite(b.mean or 0)), default=0)
    axes.set_ylim(1.06 * min(low, 0), 1.06 * top or 1.0)
    axes.axhline(0, color='#444444', linewidth=0.8, zorder=3)
    axes.set_ylabel(label)
    axes.tick_params(axis='x', length=0)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color('#888888')
    axes.grid(axis='y', color='#E4E4E4', linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes, bars: Sequence[Bar], series: Sequence[str]) -> None:
    """Beside the axes, never on a bar; what does not occur is not in it."""
    handles: list[Artist] = [
        Patch(facecolor=_pale(COLOURS[number]), edgecolor=COLOURS[number], label=name)
        for number, name in enumerate(series)
        if name and len(series) > 1
    ]
    if any(b.quoted for b in bars):
        handles.append(Patch(facecolor='white', edgecolor=GREY, hatch='////', label='quoted'))
    if any(b.published is not None for b in bars):
        handles.append(axes.scatter([], [], **MARK, label='published'))
    if any(b.floor is not None for b in bars):
        handles.append(axes.plot([], [], **DASHES, label='majority floor')[0])
    if handles:
        columns = min(len(handles), int(figure.get_figwidth() / 1.6))
        figure.legend(handles=handles, loc='outside upper center', ncols=columns, frameon=False, fontsize=10)


def _pale(colour: str) -> tuple[float, float, float]:
    """Half way to white: black numbers can be read on it."""
    red, green, blue = (0.5 + 0.5 * part for part in to_rgb(colour))
    return red, green, blue
