"""The report: arithmetic by hand, marks that cannot be overlooked, pictures with something on them."""

import csv
import json

import matplotlib.image
import numpy as np
import pytest

from mmer_jax import report
from mmer_jax.results import canvas, curves, plots, run_page, runs, summary
from tests.finished_runs import ACCURACY, classification_run, damage, sentiment_run


@pytest.fixture(autouse=True)
def at_100_dpi(monkeypatch):
    """Pictures are counted in pixels here, and drawn sooner."""
    monkeypatch.setattr(canvas, 'DPI', 100)


def table_cells(text, run):
    (line,) = [line for line in text.splitlines() if line.startswith(f'| {run} |')]
    header = next(line for line in text.splitlines() if line.startswith('| run |'))
    return dict(
        zip([c.strip() for c in header.split('|')[1:-1]], [c.strip() for c in line.split('|')[1:-1]], strict=True)
    )


def test_means_and_deviations_by_hand(tmp_path):
    """Seeds .5 .6 .7: mean .6, deviation .1 (n - 1); floor (.2 + .3) / 2."""
    path = report.write_report([classification_run(tmp_path / 'run')])
    assert path == tmp_path / 'run' / 'report' / 'report.md'
    cells = table_cells(path.read_text(), 'cnn')
    assert cells['accuracy, %'] == '60.0 ± 10.0'
    assert cells['UAR, %'] == '50.0 ± 10.0'
    assert cells['floor'] == '25.0 (accuracy)'
    assert cells['published'] == '56.5 (accuracy)'
    assert cells['folds x seeds'] == '2 x 3'
    assert cells['parameters'] == '34,024'
    assert cells['modalities'] == 'audio, text'
    assert cells['protocol'] == 'leave_speakers_out'
    assert 'published in A paper, Table 1' in path.read_text()
    # Of each fold's four clips two are calm, one of which is called happy; every seed says the same.
    assert '| calm | 4 | 50.0 ± 0.0 | 100.0 ± 0.0 | 66.7 ± 0.0 |' in path.read_text()
    assert '| happy | 2 | 100.0 ± 0.0 | 50.0 ± 0.0 | 66.7 ± 0.0 |' in path.read_text()


def test_what_the_deviation_is_over():
    assert summary.summarise(np.array([[0.4, 0.6], [0.6, 0.8]])) == summary.Summary(
        pytest.approx(0.6), pytest.approx(np.std([0.5, 0.7], ddof=1)), 'seeds'
    )
    assert summary.summarise(np.array([[0.4], [0.6]])) == summary.Summary(0.5, pytest.approx(np.sqrt(0.02)), 'folds')
    assert summary.summarise(np.array([[0.4]])) == summary.Summary(0.4, None, '')


def test_metrics_of_another_split_are_found_where_the_run_has_them(tmp_path):
    folder = classification_run(tmp_path / 'run')
    rows = json.loads((folder / 'results.json').read_text())['rows']
    before = runs.read_run(folder)
    assert np.isnan(before.values('train/accuracy')).all()
    assert np.isnan(before.values('train/accuracy', 'floor')).all()
    damage(folder, rows=[{**row, 'train': {'accuracy': row['test']['accuracy'] + 0.1}} for row in rows])
    after = runs.read_run(folder)
    np.testing.assert_allclose(after.values('train/accuracy'), after.values('accuracy') + 0.1)
    assert np.isnan(after.values('train/accuracy', 'floor')).all()
    assert summary.column_title('train/loss') == 'train loss ↓'
    assert summary.column_title('train/accuracy', 'Acc') == 'Acc, %'
    assert summary.format_number('train/loss', 1.06) == '1.060'
    report.write_report([folder], tmp_path / 'out')
    with open(tmp_path / 'out' / 'rows.csv') as file:
        lines = list(csv.DictReader(file))
    assert all(float(line['train/accuracy']) == pytest.approx(float(line['accuracy']) + 0.1) for line in lines)


def test_one_seed_and_regression_metrics_are_plain_numbers(tmp_path):
    path = report.write_report([sentiment_run(tmp_path / 'mosi')])
    cells = table_cells(path.read_text(), 'mult_mosi')
    assert cells['MAE ↓'] == '1.139'
    assert cells['correlation'] == '0.520'
    assert cells['floor'] == '1.456 (MAE)'
    assert cells['published'] == '–'
    assert 'confusion' not in path.read_text()


def test_marks_stand_in_the_row_and_below(tmp_path):
    runs = [
        classification_run(tmp_path / 'a', config='honest'),
        classification_run(tmp_path / 'b', ['selected on test'], 'leaky'),
    ]
    text = report.write_report(runs, tmp_path / 'out').read_text()
    assert '⚠' not in table_cells(text, 'honest')['protocol']
    assert table_cells(text, 'leaky')['protocol'] == 'leave_speakers_out ⚠ selected on test'
    assert 'leaky: ⚠ not an honest estimate of performance on new speakers or clips: selected on test' in text


def test_csv_files_hold_the_same_numbers(tmp_path):
    report.write_report([classification_run(tmp_path / 'run')], tmp_path / 'out')
    with open(tmp_path / 'out' / 'results.csv') as file:
        first = next(csv.DictReader(file))
    assert first['metric'] == 'accuracy'
    assert float(first['mean']) == pytest.approx(0.6)
    assert float(first['sd']) == pytest.approx(0.1)
    assert float(first['floor']) == pytest.approx(0.25)
    assert float(first['published']) == 0.5653
    with open(tmp_path / 'out' / 'rows.csv') as file:
        rows = list(csv.DictReader(file))
    assert {(r['fold'], int(r['seed'])): float(r['accuracy']) for r in rows} == ACCURACY


def write_predictions(folder, labels, *seeds):
    """labels and predicted classes of a fold, one list a seed."""
    scores = np.stack([np.eye(3)[predicted] for predicted in seeds])
    path = folder / 'predictions' / 'test.npz'
    np.savez(path, id=np.arange(len(labels)), label=np.array(labels), prediction=scores, seed=np.arange(len(seeds)))


def class_rows(text):
    lines = text[text.index('| class |') :].splitlines()
    return {cells[0]: cells[1:] for line in lines[2:5] for cells in [[c.strip() for c in line.split('|')[1:-1]]]}


def test_the_confusion_matrix_sums_folds_for_each_seed(tmp_path):
    (run,), _ = runs.find_runs([classification_run(tmp_path / 'run')])
    np.testing.assert_array_equal(run_page.confusions(run), [[[2, 2, 0], [0, 2, 0], [0, 0, 2]]] * 3)


def test_a_perfect_classifier_has_100_where_a_fold_lacks_a_class(tmp_path):
    """sad is in fold_0 only: fold by fold its recall was 100 and 0 there, and 50 in the table."""
    folder = classification_run(tmp_path / 'run')
    write_predictions(folder / 'fold_0', [0, 1, 2], *[[0, 1, 2]] * 3)
    write_predictions(folder / 'fold_1', [0, 1, 1], *[[0, 1, 1]] * 3)
    rows = class_rows(report.write_report([folder]).read_text())
    assert rows == {
        'calm': ['2', '100.0 ± 0.0', '100.0 ± 0.0', '100.0 ± 0.0'],
        'happy': ['3', '100.0 ± 0.0', '100.0 ± 0.0', '100.0 ± 0.0'],
        'sad': ['1', '100.0 ± 0.0', '100.0 ± 0.0', '100.0 ± 0.0'],
    }


def test_the_class_table_is_the_picture_and_undefined_is_no_number(tmp_path, monkeypatch):
    """By hand, records of both folds together: recall of calm 2/3, 1/3, 3/3 by seed; happy is never predicted by the
    last seed, so its precision 1/2, 2/4 is of two seeds; no record is sad, so it has no recall, and F1 0 where it is
    called so."""
    folder, drawn = classification_run(tmp_path / 'run'), []
    write_predictions(folder / 'fold_0', [0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 2])
    write_predictions(folder / 'fold_1', [0, 1], [0, 2], [0, 1], [0, 0])
    monkeypatch.setattr(plots, 'confusion', lambda matrix, names, path, title: drawn.append((matrix, title)))
    text = report.write_report([folder]).read_text()
    (matrix, title) = drawn[0]
    np.testing.assert_allclose(matrix, [[2, 1, 0], [1 / 3, 1, 2 / 3], [0, 0, 0]])
    assert title == 'cnn: test, 2 folds together, mean of 3 seeds'
    rows = class_rows(text)
    shares = [f'{100 * matrix[k, k] / matrix[k].sum():.1f} ±' for k in (0, 1)]
    assert [rows[name][1][:6] for name in ('calm', 'happy')] == shares  # the diagonal of the picture
    assert rows['calm'] == ['3', '66.7 ± 33.3', '91.7 ± 14.4', '71.9 ± 19.2']
    assert rows['happy'] == ['2', '50.0 ± 50.0', '50.0 ± 0.0', '38.9 ± 34.7']
    assert rows['sad'] == ['0', '–', '0.0 ± 0.0', '0.0 ± 0.0']
    assert 'the test records of all folds are counted together' in text
    assert 'undefined, as no test record is of the class (recall)' in text


def test_a_metric_that_a_fold_lacks_is_left_out_of_the_mean():
    values = np.array([[0.2, 0.4], [np.nan, 0.6]])
    found = summary.summarise(values)
    assert (found.mean, found.over) == (pytest.approx(0.35), 'seeds')
    assert found.deviation == pytest.approx(np.std([0.2, 0.5], ddof=1))
    assert summary.summarise(values[:, :1]) == summary.Summary(0.2, None, '')
    assert np.isnan(summary.summarise(np.full((2, 2), np.nan)).mean)


@pytest.mark.parametrize('dataset', ['mmmo_mult', 'corpus2', 'other', 'random_corpus'])
def test_published_numbers_stand_only_beside_their_data_set(tmp_path, dataset):
    folder = classification_run(tmp_path / 'run')
    damage(folder, dataset=dataset)
    assert table_cells(report.write_report([folder], tmp_path / 'out').read_text(), 'cnn')['published'] == '–'
    text = (tmp_path / 'out' / 'report.md').read_text()
    assert f'- cnn: published numbers are of corpus, this run is on {dataset}.' in text
    assert 'A paper, Table 1' not in text
    with open(tmp_path / 'out' / 'results.csv') as file:
        assert all(line['published'] == '' for line in csv.DictReader(file))


def test_published_numbers_of_no_data_set_are_not_shown(tmp_path):
    folder = classification_run(tmp_path / 'run')
    damage(folder, published={'accuracy': 0.9})
    text = report.write_report([folder]).read_text()
    assert table_cells(text, 'cnn')['published'] == '–'
    assert 'published numbers are of a data set that is not named (key dataset of config.published)' in text


def test_a_comparison_draws_no_published_mark_beside_other_data(tmp_path, monkeypatch):
    runs = [classification_run(tmp_path / name, config=name) for name in ('a', 'b')]
    damage(runs[1], dataset='mmmo')
    drawn = {}
    monkeypatch.setattr(
        plots, 'comparison', lambda names, *args, **options: drawn.update(zip(names, options['published'], strict=True))
    )
    report.write_report(runs, tmp_path / 'out')
    assert drawn == {'a': pytest.approx(56.53), 'b': None}


def test_pictures_are_linked_and_not_blank(tmp_path):
    runs = [classification_run(tmp_path / 'a', variant='x'), classification_run(tmp_path / 'b', variant='y')]
    path = report.write_report([tmp_path], tmp_path / 'out')
    names = [part.split(')')[0] for part in path.read_text().split('](')[1:]]
    assert names == [
        'comparison_accuracy.png',
        'cnn_x_curves.png',
        'cnn_x_confusion.png',
        'cnn_y_curves.png',
        'cnn_y_confusion.png',
    ]
    for name in names:
        pixels = matplotlib.image.imread(path.parent / name)[..., :3]
        assert min(pixels.shape[:2]) >= 250
        assert np.allclose(pixels[0, 0], 1)  # white ground
        assert 0.01 < np.mean(pixels.min(-1) < 0.9) < 0.9
    assert len(runs) == 2


def test_runs_of_the_same_config_are_told_apart(tmp_path):
    text = report.write_report(
        [classification_run(tmp_path / 'first'), classification_run(tmp_path / 'second')]
    ).read_text()
    assert table_cells(text, 'cnn (first)')['accuracy, %'] == table_cells(text, 'cnn (second)')['accuracy, %']


def test_an_unfinished_cross_validation_says_so(tmp_path):
    folder = classification_run(tmp_path / 'run')
    (folder / 'results.json').unlink()
    (folder / 'fold_1' / 'results.json').unlink()
    text = report.write_report([folder]).read_text()
    assert table_cells(text, 'cnn')['folds x seeds'] == '1 x 3'
    assert 'cnn: unfinished: folds fold_0 only' in text


def test_a_fold_of_a_run_that_is_shown_is_not_shown_again(tmp_path):
    folder = classification_run(tmp_path / 'run')
    found, _ = runs.find_runs([folder / 'fold_0', folder, folder])
    assert [run.folder for run in found] == [folder]


def test_one_bad_run_is_a_note_below_the_others(tmp_path):
    runs = [classification_run(tmp_path / name, config=name) for name in ('good', 'newer', 'torn', 'begun')]
    damage(runs[1], format=9)
    damage(runs[2], rows=json.loads((runs[2] / 'results.json').read_text())['rows'][:-1])
    for file in ('results.json', 'fold_0/results.json', 'fold_1/results.json'):
        (runs[3] / file).unlink()
    text = report.write_report(runs, tmp_path / 'out').read_text()
    assert table_cells(text, 'good')['accuracy, %'] == '60.0 ± 10.0'
    faults = [line for line in text.splitlines() if line.startswith('- Not shown: ')]
    for fault, expected in zip(
        faults, ('has format 9, expected 1', 'its 5 rows are not every fold', 'is unfinished'), strict=True
    ):
        assert expected in fault


def test_damaged_predictions_are_named(tmp_path):
    folder = classification_run(tmp_path / 'run')
    (folder / 'fold_1' / 'predictions' / 'test.npz').write_bytes(b'PK nothing')
    with pytest.raises(runs.ReportError, match=r'fold_1/predictions/test.npz is damaged'):
        report.write_report([folder])


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda d: d / 'nowhere', 'is no folder'),
        (lambda d: d, 'no results.json in or below it'),
        (lambda d: (d / 'config.json').write_text('{}') and d, 'is unfinished'),
        (lambda d: (d / 'results.json').write_text('{"rows": ') and d, 'not valid JSON'),
        (lambda d: (d / 'results.json').write_text('{"rows": []}') and d, 'lacks format, config'),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, capsys, make, message):
    assert report.main([str(make(tmp_path))]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    import re

    assert re.search(message, error)


@pytest.mark.parametrize('count', [2, 11])
def test_confusion_of_any_number_of_classes(tmp_path, count):
    plots.confusion(np.eye(count) * 3, [f'emotion {k}' for k in range(count)], tmp_path / 'c.png', 'title')
    height, width = matplotlib.image.imread(tmp_path / 'c.png').shape[:2]
    assert 400 <= height <= 1200
    assert 400 <= width <= 1200


def test_plots_refuse_what_they_cannot_draw(tmp_path):
    with pytest.raises(ValueError, match='no curve to draw'):
        curves.curves([{'split': 'train', 'loss': 1.0}], tmp_path / 'x.png', 'title')
    with pytest.raises(ValueError, match=r'expected \(2, 2\)'):
        plots.confusion(np.eye(3), ['a', 'b'], tmp_path / 'x.png', 'title')
    with pytest.raises(ValueError, match='1 names with'):
        plots.comparison(['a'], [1.0, 2.0], [None], [None], tmp_path / 'x.png')
    assert list(tmp_path.iterdir()) == []
