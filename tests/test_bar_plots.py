"""Grouped bars: what is drawn where, and that nothing lies on anything else."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmer_jax.results import bar_plots, canvas
from mmer_jax.results.bar_plots import COLOURS, Bar

SERIES = ('voice', 'face', 'face and voice')


@pytest.fixture(autouse=True)
def at_100_dpi(monkeypatch):
    """Pictures are counted in pixels here, and drawn sooner."""
    monkeypatch.setattr(canvas, 'DPI', 100)


def bars(groups=8):
    """A whole figure: networks with error bars, floors and published marks, one of them not run, and the humans."""
    found = [
        Bar(f'Network {g}', s, 40.0 + 5 * k + g, 3.0, 17.2, published=52.0 + 4 * k)
        for g in range(groups)
        for k, s in enumerate(SERIES)
    ]
    found[1] = Bar('Network 0', 'face', None, published=60.0)
    return [*found, *(Bar('humans', s, 40.0 + 10 * k, quoted=True) for k, s in enumerate(SERIES))]


def draw(path, *args, **options):
    bar_plots.grouped(*args, path, label='Test accuracy, %', **options)
    return matplotlib.image.imread(path)[..., :3]


def share(pixels, colour):
    return np.mean(np.abs(pixels - np.array(colour)).max(-1) < 0.02)


def test_a_whole_figure(tmp_path):
    pixels = draw(tmp_path / 'a.png', bars(), title='Shared encoders')
    assert pixels.shape[0] == 460
    assert pixels.shape[1] > 1000
    assert all(share(pixels, bar_plots._pale(colour)) > 0.01 for colour in COLOURS[:3])
    assert np.allclose(pixels[[0, -1]], 1)  # white edges: nothing is cut off
    assert np.allclose(pixels[:, [0, -1]], 1)
    again = draw(tmp_path / 'b.png', bars(), title='Shared encoders')
    np.testing.assert_array_equal(pixels, again)


def test_one_series_has_no_legend_of_series_and_its_bars_are_as_high_as_their_means(tmp_path):
    pixels = draw(tmp_path / 'a.png', [Bar('a', '', 10.0), Bar('b', '', 20.0), Bar('c', '', None)])
    inside = np.abs(pixels - np.array(bar_plots._pale(COLOURS[0]))).max(-1) < 0.02
    columns = np.flatnonzero(inside.any(0))
    cut = columns[np.flatnonzero(np.diff(columns) > 20)]
    assert len(cut) == 1  # two bars: the third has no number
    heights = [inside[:, columns[columns <= cut[0]]].any(1).sum(), inside[:, columns[columns > cut[0]]].any(1).sum()]
    assert heights[1] == pytest.approx(2 * heights[0], abs=4)


def test_a_bar_plot_grows_with_its_groups_and_keeps_narrow_ones_readable(tmp_path):
    widths = [draw(tmp_path / f'{n}.png', bars(n)).shape[1] for n in (2, 5, 10)]
    assert widths[0] < widths[1] < widths[2]
    assert draw(tmp_path / 'one.png', [Bar('a', '', 0.5, published=0.7, floor=0.1)], decimals=3).shape[1] == 500


def test_numbers_that_cannot_be_drawn_leave_their_place_empty(tmp_path):
    empty = [Bar('a', 'x', np.nan, np.nan, np.nan), Bar('b', 'x', 0.0), Bar('c', 'x', -3.0, 1.0)]
    pixels = draw(tmp_path / 'a.png', empty)
    assert share(pixels, to_rgb(COLOURS[0])) > 0


def tops(pixels, number):
    """Rows of the highest pixel of each bar of that colour, from the left."""
    inside = np.abs(pixels[60:] - np.array(bar_plots._pale(COLOURS[number]))).max(-1) < 0.02
    columns = np.flatnonzero(inside.sum(0) > 3)
    parts = np.split(columns, np.flatnonzero(np.diff(columns) > 5) + 1)
    return [int(inside[:, part].any(1).argmax()) for part in parts]


def test_counts_are_as_high_as_they_are_and_carry_their_numbers_above(tmp_path):
    table = {f'session {s}': {'calm': 100 * s, 'happy': 200, 'sad': 310 - s} for s in range(1, 4)}
    bar_plots.counts(table, tmp_path / 'a.png', label='records', title='1,500 records')
    pixels = matplotlib.image.imread(tmp_path / 'a.png')[..., :3]
    first, second, third = tops(pixels, 0)
    assert first - second == pytest.approx(second - third, abs=2)
    assert tops(pixels, 1) == [second] * 3
    ink = np.abs(pixels[60:] - np.array(to_rgb(bar_plots.INK))).max(-1) < 0.02
    assert ink[third - 30 : third - 2].any()
    assert np.allclose(pixels[[0, -1]], 1)


def test_very_many_counts_are_narrow_and_have_no_numbers(tmp_path):
    few, many = ({str(g): {str(s): 5 + s for s in range(8)} for g in range(count)} for count in (2, 40))
    for name, table in (('few', few), ('many', many)):
        bar_plots.counts(table, tmp_path / f'{name}.png', label='records')
    pixels = {name: matplotlib.image.imread(tmp_path / f'{name}.png')[..., :3] for name in ('few', 'many')}
    assert pixels['many'].shape[1] < 40 / 2 * pixels['few'].shape[1] / 4
    above = {name: share(image[60:430, 80:], to_rgb(bar_plots.INK)) for name, image in pixels.items()}
    assert above['few'] > 0
    assert above['many'] == 0


@pytest.mark.parametrize(
    'wrong',
    [[], [Bar('a', 'x', 1.0), Bar('a', 'x', 2.0)], [Bar('a', str(k), 1.0) for k in range(len(COLOURS) + 1)]],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match='expected at least one bar, at most 12 series, and one bar a place'):
        bar_plots.grouped(wrong, tmp_path / 'a.png', label='x')
    assert list(tmp_path.iterdir()) == []
