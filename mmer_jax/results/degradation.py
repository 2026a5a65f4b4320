"""How a metric falls as records are disturbed: a metric against a share or a deviation, a line for each modality."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mmer_jax.metrics import about, is_better_high
from mmer_jax.results import canvas
from mmer_jax.results.plots import BLUE, GREEN, GREY, VERMILION, plain
from mmer_jax.results.summary import Summary, column_title, format_summary, scale_of, unit_of

# Told apart by the shape of their points and by brightness too.
LOOKS = {'text': (BLUE, 'o'), 'audio': (VERMILION, 's'), 'vision': (GREEN, '^'), 'all': ('#1A1A1A', 'D')}
POINTS: dict = {'linewidth': 2.0, 'markersize': 5.5, 'markeredgecolor': 'white', 'markeredgewidth': 0.7}
FLOOR: dict = {'color': GREY, 'linestyle': (0, (4, 2)), 'linewidth': 1.5}


@dataclasses.dataclass(frozen=True)
class Line:
    """One modality disturbed, or 'all': the levels (L,) and the metric at each, the undisturbed one at level 0."""

    modality: str
    levels: Sequence[float]
    values: Sequence[Summary]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One way to disturb: `axis` says what the levels are; they are multiplied by `scale` (100 for percent)."""

    axis: str
    lines: Sequence[Line]
    scale: float = 1.0


def draw(
    panels: Sequence[Panel], path: str | os.PathLike, *, metric: str, split: str, floor: float | None, title: str
) -> None:
    """Draws the panels side by side, one height (5 inches wide each): means, and a band of one deviation.

    The metric's axis is as long as the metric can be (0 to 100 %), or goes from 0, or the lowest value, to the highest.

    Raises:
        ValueError: no panel has a line.
    """
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        raise ValueError(f'{path}: no curve to draw: no modality was disturbed')
    figure = canvas.new_figure(5.2 * len(panels) if len(panels) > 1 else 6.4, 4.4)
    figure.suptitle(title, fontsize=12, fontweight='bold')
    scale, first = scale_of(metric), None
    entries: dict[str, Any] = {}
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1, sharey=first)
        first = first or axes
        for line in panel.lines:
            entries |= _draw_line(axes, line, panel.scale, scale)
        if floor is not None and np.isfinite(floor):
            entries['floor: best constant answer'] = axes.axhline(scale * floor, **FLOOR)
        axes.set_xlabel(panel.axis)
        axes.margins(x=0.03)
        plain(axes, grid='both')
    assert first is not None
    direction = '' if is_better_high(metric) else ' (lower is better)'
    first.set_ylabel(f'{split} {about(metric).title}{unit_of(metric)}{direction}')
    first.set_ylim(*_limits(panels, metric, floor))
    figure.legend(
        list(entries.values()), list(entries), loc='outside lower center', ncols=min(len(entries), 5), frameon=False,
        fontsize=9.5,
    )  # fmt: skip
    canvas.save(figure, path)


def _draw_line(axes: Axes, line: Line, across: float, scale: float) -> dict[str, Any]:
    colour, marker = LOOKS.get(line.modality, (GREY, 'v'))
    x = across * np.asarray(line.levels)
    means = scale * np.array([value.mean for value in line.values])
    deviations = scale * np.array([value.deviation or 0.0 for value in line.values])
    if deviations.any():
        axes.fill_between(x, means - deviations, means + deviations, color=colour, alpha=0.14, linewidth=0)
    (drawn,) = axes.plot(x, means, color=colour, marker=marker, **POINTS)
    return {'all modalities' if line.modality == 'all' else line.modality: drawn}


def _limits(panels: Sequence[Panel], metric: str, floor: float | None) -> tuple[float, float]:
    if about(metric).percent:
        return 0.0, 100.0
    values = [v.mean + s * (v.deviation or 0) for p in panels for line in p.lines for v in line.values for s in (-1, 1)]
    values = [value for value in [*values, *([] if floor is None else [floor])] if np.isfinite(value)]
    low, high = min(0.0, *values), max(0.0, *values)
    return 1.06 * low, 1.06 * high if high > low else low + 1


def table_of(panel: Panel, metric: str, floor: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a panel as a table: a row per modality, a column per level, and `floor` as it is written."""
    levels = sorted({level for line in panel.lines for level in line.levels})
    header = [f'{column_title(metric)}; {panel.axis}:', *(f'{panel.scale * level:g}' for level in levels), 'floor']
    rows = []
    for line in panel.lines:
        found = dict(zip(line.levels, line.values, strict=True))
        cells = [format_summary(metric, found[level]) if level in found else '' for level in levels]
        rows.append(['all modalities' if line.modality == 'all' else line.modality, *cells, floor])
    return header, rows
