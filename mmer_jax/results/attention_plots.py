"""The drawing of figures.py: attention maps as heat maps, and points of representations. PNG, SVG or PDF.

Drawn as plots.py draws: through matplotlib's objects on the Agg canvas, in colours that readers with a colour vision
deficiency tell apart.
"""

import dataclasses
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mmer_jax.results import canvas
from mmer_jax.results.plots import BLUES, GREY, component_titles

CELL = 0.21  # inches of a word's row or column
CHARACTER = 0.075  # inches of a character at LABEL_SIZE points
LABEL_SIZE, TITLE_SIZE = 8.5, 10
PAGE_WIDTH = 17.0  # inches of a page at most, unless one map alone is wider
WORD_LENGTH = 18  # characters of a word that are shown
LIGHT_DARK = {  # modality -> colours of its specific and its agnostic vectors, marker
    'text': ('#7FBCE3', '#00446B', 'o'),
    'audio': ('#F6B26B', '#A63E00', 's'),
    'vision': ('#7FD1B9', '#005C43', '^'),
}


@dataclasses.dataclass(frozen=True)
class Axis:
    """The steps of one modality along a side of a map: words, or numbers from `start` to `end` in `unit`."""

    modality: str
    steps: int
    words: tuple[str, ...] = ()  # one a step; empty: numbers
    start: float = 0.5
    end: float = 0.5
    unit: str = 'step'  # or 's'

    @property
    def inches(self) -> float:
        return max(CELL * self.steps, 0.35) if self.words else float(np.clip(0.045 * self.steps, 0.35, 4.5))

    @property
    def label_inches(self) -> float:
        return CHARACTER * max(map(len, self.shown), default=0) if self.words else 0.35

    @property
    def shown(self) -> list[str]:
        return [word if len(word) <= WORD_LENGTH else word[: WORD_LENGTH - 1] + '…' for word in self.words]

    @property
    def edges(self) -> tuple[float, float]:
        return (-0.5, self.steps - 0.5) if self.words else (self.start, self.end)

    @property
    def label(self) -> str:
        return self.modality if self.words else f'{self.modality}, {self.unit}'


@dataclasses.dataclass(frozen=True)
class Picture:
    """One attention map (T, S): its rows are the target axes end to end, its columns the source axes.

    span: what the lightest and the darkest colour stand for.
    """

    title: str
    subtitle: str
    values: np.ndarray
    targets: tuple[Axis, ...]
    sources: tuple[Axis, ...]
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        expected = tuple(sum(axis.steps for axis in side) for side in (self.targets, self.sources))
        if self.values.shape != expected:
            raise ValueError(f'{self.title}: a map of shape {self.values.shape}, its axes have {expected} steps')

    @property
    def size(self) -> tuple[float, float]:
        """Inches (width, height), with titles, labels and the colour bar."""
        inner = sum(axis.inches for axis in self.sources) + 0.1 * (len(self.sources) - 1) + 1.0
        title = max(0.086 * len(self.title), 0.068 * len(self.subtitle)) + 0.1
        width = max(inner, title) + max(axis.label_inches for axis in self.targets) + 0.5
        height = sum(axis.inches for axis in self.targets) + max(axis.label_inches for axis in self.sources) + 1.15
        return width, max(height, 2.0)


def attention_page(
    pictures: Sequence[Picture], path: str | os.PathLike, heading: str, notes: Sequence[str] = ()
) -> None:
    """Draws maps in rows as wide as a page, each with its colour bar.

    Args:
        pictures: the maps, from left to right and from the top down.
        path: the picture's file; its size follows the number of words.
        heading: stands above all.
        notes: small lines at the foot, such as why an axis has no words.

    Raises:
        ValueError: there is no picture, or a map does not fit its axes.
    """
    if not pictures:
        raise ValueError(f'{path}: no attention map to draw')
    rows = _rows(pictures)
    widths = [sum(picture.size[0] for picture in row) for row in rows]
    heights = [max(picture.size[1] for picture in row) for row in rows]
    lines = [line for text in notes for line in textwrap.wrap(text, int(max(widths) / 0.07))]
    width = max(*widths, 5.0)
    titles = textwrap.wrap(heading, int(width / 0.11))
    head, foot = 0.2 + 0.22 * len(titles), 0.1 + 0.17 * len(lines)
    figure = canvas.new_figure(width, sum(heights) + head + foot)
    parts = _split(figure, [head, *heights, foot], down=True)
    parts[0].text(0.12 / width, 0.5, '\n'.join(titles), fontsize=12, fontweight='bold', va='center', parse_math=False)
    parts[-1].text(0.12 / width, 0.95, '\n'.join(lines), fontsize=LABEL_SIZE, color=GREY, va='top', parse_math=False)
    for part, row, used, height in zip(parts[1:-1], rows, widths, heights, strict=True):
        for cell, picture in zip(_split(part, [*(p.size[0] for p in row), width - used]), row, strict=False):
            _draw_map(_split(cell, [picture.size[1], height - picture.size[1]], down=True)[0], picture)
    canvas.save(figure, path)


def _split(part: Any, inches: Sequence[float], *, down: bool = False) -> list[Any]:
    """Subfigures of the given sizes, from left to right or from the top down; without a last one of no size."""
    inches = inches if inches[-1] > 0.05 else inches[:-1]
    sizes = {'height_ratios': inches} if down else {'width_ratios': inches}
    shape = (len(inches), 1) if down else (1, len(inches))
    return list(part.subfigures(*shape, squeeze=False, **sizes).flat)


def _rows(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """As many pictures in a row as the page is wide."""
    rows: list[list[Picture]] = []
    left = 0.0
    for picture in pictures:
        if not rows or picture.size[0] > left:
            rows.append([])
            left = PAGE_WIDTH
        rows[-1].append(picture)
        left -= picture.size[0]
    return rows


def _draw_map(part: Any, picture: Picture) -> None:
    """One map in its subfigure: a panel for each pair of a target and a source modality, one colour scale."""
    targets, sources, (low, high) = picture.targets, picture.sources, picture.span
    axes = part.subplots(
        len(targets), len(sources), squeeze=False,
        width_ratios=[axis.inches for axis in sources], height_ratios=[axis.inches for axis in targets],
    )  # fmt: skip
    rows = np.split(picture.values, np.cumsum([axis.steps for axis in targets])[:-1], axis=0)
    for (i, band), target in zip(enumerate(rows), targets, strict=True):
        columns = np.split(band, np.cumsum([axis.steps for axis in sources])[:-1], axis=1)
        for (j, values), source in zip(enumerate(columns), sources, strict=True):
            panel = axes[i, j]
            extent = (*source.edges, *target.edges[::-1])
            fits = all(axis.steps <= axis.inches * canvas.DPI for axis in (source, target))
            image = panel.imshow(
                values, cmap=BLUES, vmin=low, vmax=high, aspect='auto', extent=extent,
                interpolation='nearest' if fits else 'antialiased',
            )  # fmt: skip
            across, down = (f'{what}: ' if not n else '' for what, n in (('source', j), ('target', i)))
            _label(panel.xaxis, source, f'{across}{source.label}' if i == len(targets) - 1 else None)
            _label(panel.yaxis, target, f'{down}{target.label}' if j == 0 else None)
            for spine in panel.spines.values():
                spine.set_color('#BBBBBB')
    axes[0, 0].set_title(' ', fontsize=TITLE_SIZE, pad=18)  # the room of the two lines
    above = {'textcoords': 'offset points', 'xycoords': 'axes fraction', 'annotation_clip': False, 'parse_math': False}
    for text, height, style in (
        (picture.title, 19, {'fontsize': TITLE_SIZE, 'fontweight': 'bold'}),
        (picture.subtitle, 5, {'fontsize': LABEL_SIZE, 'color': GREY}),
    ):
        line = axes[0, 0].annotate(text, (0, 1), xytext=(0, height), **above, **style)
        line.set_in_layout(False)  # a long one would push the first panel away from the second
    bar = part.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=18, format='%.3g')
    bar.locator = MaxNLocator(nbins=4)
    bar.set_label('attention', fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=LABEL_SIZE - 1)
    bar.outline.set_visible(False)


def _label(side: Any, axis: Axis, text: str | None) -> None:
    """Ticks and name of a panel's side; none (text None) inside a map of several panels."""
    across = side.axis_name == 'x'
    if text is None:
        side.set_ticks([])
        return
    side.set_label_text(text, fontsize=LABEL_SIZE)
    if axis.words:
        rotation = 90 if across and axis.steps > 1 else 0
        side.set_ticks(range(axis.steps), axis.shown, rotation=rotation, fontsize=LABEL_SIZE, parse_math=False)
    else:
        few = max(int(axis.inches / 0.4), 1)
        side.set_major_locator(MaxNLocator(nbins=few, integer=axis.unit == 'step', min_n_ticks=1))
    side.set_tick_params(length=2, labelsize=LABEL_SIZE)


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Points of one run: specific and agnostic (M, R, 2), in the order of `modalities`.

    explained: the shares (2,) of the variance along the axes, where they are principal components.
    """

    title: str
    subtitle: str
    modalities: tuple[str, ...]
    specific: np.ndarray
    agnostic: np.ndarray
    explained: tuple[float, ...] = ()


def representations(clouds: Sequence[Cloud], path: str | os.PathLike, heading: str) -> None:
    """Draws runs side by side, at most three in a row: colour and marker are the modality, light is specific, dark
    agnostic. The two directions of an embedding have no unit, so they have no numbers; principal components say how
    much of the variance they show.

    Raises:
        ValueError: there is no run.
    """
    if not clouds:
        raise ValueError(f'{path}: no representations to draw')
    columns = min(len(clouds), 3)
    rows = -(-len(clouds) // columns)
    figure = canvas.new_figure(max(4.6 * columns, 6.4), 4.7 * rows + 0.9)
    figure.suptitle(heading, fontsize=12, fontweight='bold')
    for number, cloud in enumerate(clouds):
        panel = figure.add_subplot(rows, columns, number + 1)
        size = float(np.clip(4000 / cloud.specific.shape[1], 8, 36))
        for n, m in enumerate(cloud.modalities):
            light, dark, marker = LIGHT_DARK[m]
            for points, colour, part in ((cloud.specific, light, 'specific'), (cloud.agnostic, dark, 'agnostic')):
                panel.scatter(
                    points[n, :, 0], points[n, :, 1], s=size, color=colour, marker=marker, edgecolor='white',
                    linewidth=0.3, alpha=0.9, label=f'{m}, {part}',
                )  # fmt: skip
        panel.set_title(f'{cloud.title}\n', fontsize=TITLE_SIZE, fontweight='bold', parse_math=False)
        panel.text(
            0.5, 1.02, cloud.subtitle, fontsize=LABEL_SIZE, color=GREY, ha='center', transform=panel.transAxes
        )  # fmt: skip
        if cloud.explained:
            first, second = component_titles(cloud.explained)
            panel.set_xlabel(first, fontsize=LABEL_SIZE)
            panel.set_ylabel(second, fontsize=LABEL_SIZE)
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_color('#BBBBBB')
    entries: dict[str, Any] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    # A legend fills its columns first: one column a modality, specific above agnostic.
    legend = figure.legend(
        list(entries.values()), list(entries), loc='outside lower center', ncols=len(entries) // 2,
        frameon=False, fontsize=LABEL_SIZE + 1, markerscale=1.6,
    )  # type: ignore[call-overload]  # fmt: skip
    for handle in legend.legend_handles:
        handle.set_alpha(1)  # type: ignore[union-attr]
    canvas.save(figure, path)
