"""Pictures of plots.py: the lines of folds and seeds, and points of many classes."""

import itertools

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mmer_jax.results import canvas, curves, plots


@pytest.fixture(autouse=True)
def at_100_dpi(monkeypatch):
    """Pictures are counted in pixels here, and drawn sooner."""
    monkeypatch.setattr(canvas, 'DPI', 100)


def rows(seeds, folds, epochs=4):
    places = itertools.product(range(1, epochs + 1), range(seeds), range(folds))
    return [
        {'epoch': e, 'split': 'validation', 'seed': s, 'fold': f, 'loss': (s + 1) / e + f, 'accuracy': (2 * e + f) / 20}
        for e, s, f in places
    ]


def lines_of(seeds, folds):
    """Lines of the loss as plots.curves draws them: (alpha, width, values)."""
    axes: Axes = Figure().add_subplot()
    series = curves.series_of(rows(seeds, folds), 'validation', 'loss', 1.0)
    curves.draw_series(axes, series, plots.BLUE, 'validation')
    return [(line.get_alpha(), line.get_linewidth(), list(line.get_ydata())) for line in axes.lines]


def test_the_folds_of_one_seed_can_be_read_and_their_mean_is_thick():
    *folds, mean = lines_of(1, 5)
    assert [(alpha, width) for alpha, width, _ in folds] == [(0.5, 1.0)] * 5
    assert mean[:2] == (None, 2.6)
    np.testing.assert_allclose(mean[2], np.mean([values for *_, values in folds], 0))


def test_the_folds_of_several_seeds_are_faint_behind_the_seeds():
    lines = lines_of(3, 2)
    assert [alpha for alpha, *_ in lines] == [0.15] * 6 + [0.45] * 3 + [None]
    assert [alpha for alpha, *_ in lines_of(3, 1)] == [0.45] * 3 + [None]
    assert [alpha for alpha, *_ in lines_of(1, 1)] == [None]


def test_folds_are_seen_in_the_picture(tmp_path):
    def blue_to_vermilion(count):
        path = tmp_path / f'{count}.png'
        curves.curves(rows(1, count), path, 'title', metric='accuracy', scale=100, label='accuracy, %')
        pixels = matplotlib.image.imread(path)[..., :3]
        assert pixels.shape[:2] == (420, 1000)
        half = 0.5 + 0.5 * np.array(to_rgb(plots.VERMILION))  # a thin line on white
        return np.sum(np.abs(pixels - half).max(-1) < 0.05)

    assert blue_to_vermilion(5) > 4 * blue_to_vermilion(1)


@pytest.mark.parametrize('count', [10, 12])
def test_every_class_of_a_scatter_has_its_colour_and_its_marker(tmp_path, count):
    labels = np.repeat(np.arange(count), 6)
    angle = 2 * np.pi * labels / count
    points = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1 * np.tile(np.arange(6), count)[:, None]
    plots.scatter(points, labels, [f'class {k}' for k in range(count)], tmp_path / 'a.png', 'title')
    pixels = matplotlib.image.imread(tmp_path / 'a.png')[..., :3]
    assert pixels.shape[:2] == (500, 600)
    for colour in plots.PALETTE[:count]:
        seen = 0.25 + 0.75 * np.array(to_rgb(colour))
        assert np.sum(np.abs(pixels - seen).max(-1) < 0.02) > 20, colour


def test_more_classes_than_colours_are_refused(tmp_path):
    with pytest.raises(ValueError, match='of 13 classes; .* at most 12 classes'):
        plots.scatter(np.zeros((13, 2)), np.arange(13), [str(k) for k in range(13)], tmp_path / 'a.png', 'title')
    assert list(tmp_path.iterdir()) == []


def lightness_and_colour(name):
    """CIELAB of a colour as people with normal sight, deuteranopia and protanopia see it (Machado et al., 2009)."""
    deuteranopia = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    protanopia = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    rgb = np.array(to_rgb(name))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    found = []
    for sight in (np.eye(3), np.array(deuteranopia), np.array(protanopia)):
        xyz = to_xyz @ np.clip(sight @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        found.append([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    return np.array(found)


def test_no_two_colours_are_alike_to_any_reader():
    assert len(plots.PALETTE) == len(plots.MARKERS) == len(set(plots.MARKERS)) == 12
    seen = {colour: lightness_and_colour(colour) for colour in plots.PALETTE}
    for first, second in itertools.combinations(plots.PALETTE, 2):
        distance = np.linalg.norm(seen[first] - seen[second], axis=1)
        assert distance.min() > 15, (first, second, distance)
