"""What a model says over the time of a long clip: a curve per class, or one of a value."""

import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from mmer_jax.results import canvas, plots

STYLES = ('-', '--', ':')  # a second round of colours is dashed
MARK_AT_MOST = 60  # windows of which each is marked
LOWEST_TOP = 40.0  # percent: a narrower axis would make noise look like a finding
LABELLED = 14  # stretches that are named under the picture


def draw(
    spans: Sequence[tuple[float, float]],
    scores: Mapping[str, Sequence[float]],
    spread: Mapping[str, Sequence[float]],
    path: str | os.PathLike,
    *,
    title: str,
    kind: str = 'classes',
) -> None:
    """Draws `scores` {name: one per window} at the middle of the windows (start, end) in seconds, `spread` around them.

    kind: 'classes' and 'binary' are probabilities, 'regression' a value. Under classes a bar says which is most
    probable where. ValueError where the sizes differ or there is no window.
    """
    middle = np.array([(start + end) / 2 for start, end in spans])
    if not len(middle) or any(len(values) != len(middle) for values in (*scores.values(), *spread.values())):
        raise ValueError(f'{len(middle)} windows, scores of {[len(values) for values in scores.values()]}')
    figure = canvas.new_figure(9.0, 4.2)
    with_bar = kind == 'classes'
    axes, *bar = figure.subplots(2, 1, sharex=True, height_ratios=(8, 1)) if with_bar else (figure.add_subplot(),)
    order = sorted(scores, key=lambda name: -float(np.mean(scores[name])))
    colors = {name: plots.PALETTE[k % len(plots.PALETTE)] for k, name in enumerate(scores)}
    factor = 1.0 if kind == 'regression' else 100.0
    for name in order:
        number = list(scores).index(name)
        values, around = factor * np.array(scores[name]), factor * np.array(spread[name])
        style = STYLES[number // len(plots.PALETTE) % len(STYLES)]
        marker = 'o' if len(middle) <= MARK_AT_MOST else None
        axes.plot(middle, values, style, color=colors[name], marker=marker, ms=3, lw=1.4, label=canvas.short(name))
        axes.fill_between(middle, values - around, values + around, color=colors[name], alpha=0.12, lw=0)
    axes.set_ylabel('score' if kind == 'regression' else 'probability (%)')
    if kind != 'regression':
        highest = max(100 * (v + d) for name in scores for v, d in zip(scores[name], spread[name], strict=True))
        axes.set_ylim(0, min(100, max(LOWEST_TOP, 1.1 * highest)))
    axes.set_xlim(spans[0][0], max(end for _, end in spans))
    axes.grid(color='0.9', lw=0.6)
    axes.set_axisbelow(True)
    axes.set_title(canvas.short(title, 80), fontsize=11)
    if len(scores) > 1:
        axes.legend(loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    if bar:
        _draw_bar(bar[0], spans, scores, colors)
    (bar[0] if bar else axes).set_xlabel(
        'time (s); a point is the middle of its window, the band one deviation of the models'
    )
    canvas.save(figure, path)


def _draw_bar(axes, spans, scores, colors):
    """The most probable class of each window, from where the window before it has its middle to its own."""
    names = list(scores)
    best = np.array([scores[name] for name in names]).argmax(0)
    middle = [(start + end) / 2 for start, end in spans]
    edges = [spans[0][0], *[(a + b) / 2 for a, b in itertools.pairwise(middle)], spans[-1][1]]
    begin = 0
    stretches = []
    for k in range(1, len(best) + 1):
        if k == len(best) or best[k] != best[begin]:
            stretches.append((edges[begin], edges[k], names[best[begin]]))
            begin = k
    total = edges[-1] - edges[0]
    for left, right, name in stretches:
        axes.axvspan(left, right, color=colors[name], alpha=0.75, lw=0)
        if len(stretches) <= LABELLED and (right - left) > 0.011 * total * len(name):
            axes.text((left + right) / 2, 0.5, canvas.short(name), ha='center', va='center', fontsize=8, color='white')
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel('most\nprobable', rotation=0, ha='right', va='center', fontsize=8)
