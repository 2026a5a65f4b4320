"""Pictures: curves with the whole range, floor, chosen epochs and names of folds; formats; contrast; components."""

import matplotlib.image
import numpy as np
import pytest

from mmer_jax.files.outputs import check_file
from mmer_jax.map_names import MapName
from mmer_jax.results import attention_maps, attention_plots, canvas, curves, plots, run_page
from mmer_jax.results.runs import Run


def rows(folds=2, seeds=1, epochs=4, low=0.52):
    """Noise: an accuracy that moves by two points."""
    places = [(e, s, f) for e in range(1, epochs + 1) for s in range(seeds) for f in range(folds)]
    return [
        {'epoch': e, 'split': 'validation', 'seed': s, 'fold': f'fold_{f}', 'loss': 0.7 - e / 100,
         'accuracy': low + 0.01 * (e % 2) + f / 100}
        for e, s, f in places
    ]  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """Figures instead of files."""
    figures = []
    monkeypatch.setattr(canvas, 'save', lambda figure, path: figures.append(figure))
    return figures


def draw(figures, found, **options):
    curves.curves(found, 'x.png', 'title', metric='accuracy', scale=100, label='validation accuracy, %', **options)
    (figure,) = figures
    figure.canvas.draw()
    return figure


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_noise_does_not_fill_the_axis_and_the_floor_is_drawn(drawn):
    figure = draw(drawn, rows(), limits=(0.0, 100.0), floor=0.5, loss='loss: cross-entropy, nats')
    left, right = figure.axes
    assert right.get_ylim() == (0.0, 100.0)
    assert left.get_ylim()[0] == 0.0
    assert left.get_ylabel() == 'loss: cross-entropy, nats'
    assert [line for line in right.lines if list(line.get_ydata()) == [50.0, 50.0]]
    assert 'floor: best constant answer' in legend_of(figure)
    assert not [line for line in left.lines if len(set(line.get_ydata())) == 1]


def test_the_chosen_epoch_stands_on_its_line(drawn):
    figure = draw(drawn, rows(folds=1), chosen={(0, 'fold_0'): 3})
    circle = figure.axes[1].lines[-1]
    assert (list(circle.get_xdata()), list(circle.get_ydata())) == ([3], [pytest.approx(53.0)])
    assert 'chosen epoch (3)' in legend_of(figure)


def test_folds_are_named_at_their_ends_and_do_not_overlap(drawn):
    figure = draw(drawn, rows(folds=5), limits=(0.0, 100.0), chosen={(0, f'fold_{k}'): 1 for k in range(5)})
    names = [text for text in figure.axes[1].texts if text.get_gid() == 'end of a line']
    assert [text.get_text() for text in names] == ['0', '1', '2', '3', '4']
    heights = sorted(text.xy[1] for text in names)
    assert np.diff(heights).min() >= 100 * curves.GAP - 1e-9
    assert 'one fold, its number at the end' in legend_of(figure)
    assert 'validation, mean of 5 folds' in legend_of(figure)


def test_the_legend_lies_inside_the_picture(tmp_path):
    curves.curves(rows(5, 3), tmp_path / 'a.png', 'title', metric='accuracy', floor=0.5, chosen={(0, 'fold_0'): 2})
    pixels = matplotlib.image.imread(tmp_path / 'a.png')[..., :3].min(-1)
    assert pixels.shape == (int(4.2 * canvas.DPI), 10 * canvas.DPI)
    edge = canvas.DPI // 50
    assert pixels[:, :edge].min() == 1
    assert pixels[:, -edge:].min() == 1


def run_of(config, rows=()):
    run = Run.__new__(Run)
    run.__dict__.update(config=config, results={'rows': list(rows)})
    return run


@pytest.mark.parametrize(
    ('weights', 'title'),
    [
        ({'cross_entropy': 1.0}, 'loss: cross-entropy, nats'),
        ({'l1': 1.0, 'separation': 0.1}, 'loss: absolute error + 0.1 separation'),
        ({'a_small': 0.1, 'l1': 1.0}, 'loss: absolute error + 0.1 a small'),
        ({'mse': 2.0, 'off': 0.0}, 'loss: 2 squared error'),
        ({'a': 1, 'b_c': 1, 'd': 1, 'e': 1, 'f': 1}, 'loss: a + b c + d + 2 more'),
        ({}, 'loss'),
    ],
)
def test_the_loss_has_its_name(weights, title):
    assert run_page.loss_title(run_of({f'losses.{name}': weight for name, weight in weights.items()})) == title


@pytest.mark.parametrize(
    ('metric', 'limits'), [('accuracy', (0, 100)), ('ccc', (-0.212, 1)), ('mae', None), ('loss', None)]
)
def test_the_range_of_a_metric(metric, limits):
    assert run_page._limits(metric, [-0.2, 0.1]) == (None if limits is None else pytest.approx(limits))


@pytest.mark.parametrize('kind', canvas.FORMATS)
def test_a_picture_is_known_as_ours_in_every_format_and_is_the_same_twice(tmp_path, kind):
    first, second, foreign = (tmp_path / f'{name}.{kind}' for name in ('a', 'b', 'c'))
    for path in (first, second):
        plots.confusion(np.eye(2) * 3, ['a$x', '$\\frac'], path, 'a title with $ and \\alpha$')
        check_file(path, canvas.mark_of(kind))
    assert first.read_bytes() == second.read_bytes()
    foreign.write_bytes(b'of another program')
    with pytest.raises(FileExistsError, match='was not made by this command'):
        check_file(foreign, canvas.mark_of(kind))


def test_a_png_has_300_dots_per_inch(tmp_path):
    canvas.save(canvas.new_figure(1, 0.5), tmp_path / 'a.png')
    assert matplotlib.image.imread(tmp_path / 'a.png').shape[:2] == (150, 300)
    assert canvas.format_of('.bars.pdf.12.tmp') == 'pdf'
    with pytest.raises(ValueError, match=r'expected a picture that ends in \.png, \.svg, \.pdf'):
        canvas.save(canvas.new_figure(1, 1), tmp_path / 'a.jpg')


@pytest.mark.parametrize(('lowest', 'contrast', 'low'), [(0.2, False, 0.0), (0.2, True, 0.2), (0.3, False, 0.3)])
def test_nearly_uniform_attention_is_drawn_with_contrast(lowest, contrast, low):
    name = MapName.from_key('psa/0/text')
    values = np.array([[[lowest, 0.5], [0.4, 0.45]]], np.float32)
    side = attention_maps.Side(
        '', 'run', {'psa/0/text': attention_maps.AttentionMap(name, ('text',), ('text',), values)},
        {'text': attention_plots.Axis('text', 2, ('a', 'b'))},
    )  # fmt: skip
    found = attention_maps.drawing([side], ['psa/0/text'], 'mean', contrast=contrast)
    assert found.pictures['psa/0/text'][0].span == (pytest.approx(low), 0.5)
    assert bool(found.notes) == (lowest == 0.3)


def test_principal_components_say_how_much_they_show(drawn):
    plots.scatter(np.eye(2), np.array([0, 1]), ['a', 'b'], 'x.png', 'title', [0.5, 0.25])
    points = np.zeros((1, 3, 2))
    attention_plots.representations(
        [attention_plots.Cloud('a', '', ('text',), points, points, (0.5, 0.25))], 'y.png', 'heading'
    )
    for figure in drawn:
        assert figure.axes[0].get_xlabel() == 'first principal component (50.0 % of the variance)'
        assert figure.axes[0].get_ylabel() == 'second principal component (25.0 % of the variance)'
