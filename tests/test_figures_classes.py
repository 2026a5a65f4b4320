"""`figures classes`: the counts are the manifest's, in natural order, and what cannot be counted is named."""

import matplotlib.image
import numpy as np
import pytest

from mmer_jax import figures
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema
from mmer_jax.results import canvas

NAMES = ('calm', 'happy', 'sad')
COLUMNS = ({'session': '10', 'split': 'test'}, {'session': '2', 'split': 'train'}, {'session': '1', 'split': ''})
LABELS = ([0, 0, 2], [1, 1, 1, 2], [0])  # of the records of each


def write(folder, label, labels=LABELS, columns=COLUMNS):
    with RecordWriter(folder, Schema('tiny', {'text': Feature((2,))}, label), num_shards=1) as writer:
        for group, values in zip(labels, columns, strict=True):
            for value in group:
                number = len(writer._rows)
                writer.write({'id': str(number), 'label': value, 'text': np.zeros(2, np.float32)}, **values)
    return folder


@pytest.fixture(autouse=True)
def at_100_dpi(monkeypatch):
    """Pictures are counted in pixels here, and drawn sooner."""
    monkeypatch.setattr(canvas, 'DPI', 100)


@pytest.fixture
def directory(tmp_path):
    return write(tmp_path / 'tiny', Label('classes', NAMES))


def test_sessions_stand_in_natural_order_with_their_counts(directory, tmp_path, capsys):
    path = tmp_path / 'new' / 'classes.png'
    assert figures.main(['classes', str(directory), '--output', str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '| session | calm | happy | sad | all |',
        '| --- | ---: | ---: | ---: | ---: |',
        '| 1 | 1 | 0 | 0 | 1 |',
        '| 2 | 0 | 3 | 1 | 4 |',
        '| 10 | 2 | 0 | 1 | 3 |',
        '| all | 3 | 3 | 2 | 8 |',
        '',
        f'written: {path}',
    ]
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] == 460
    assert pixels[..., :3].std() > 0.05


def test_splits_stand_in_their_order_and_records_of_none_at_the_end(directory, tmp_path, capsys, monkeypatch):
    assert list(figures.count_classes(RecordSource(directory), 'split')) == ['train', 'test', 'none']
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    before = sorted(path.name for path in directory.iterdir())
    assert figures.main(['classes', str(directory), '--by', 'split']) == 0
    assert '| none | 1 | 0 | 0 | 1 |' in capsys.readouterr().out
    assert [path.name for path in (tmp_path / 'elsewhere').iterdir()] == ['classes_tiny_by_split.png']
    assert sorted(path.name for path in directory.iterdir()) == before


@pytest.mark.parametrize(
    ('options', 'status', 'message'),
    [
        (['--by', 'speaker'], 1, 'tiny: no record has a speaker, so there is nothing to count by; columns that are '
         'filled: session, split'),
        (['--output', 'a.jpg'], 2, '--output a.jpg: expected a file that ends in .png, .svg, .pdf'),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(directory, tmp_path, capsys, options, status, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figures.main(['classes', str(directory), *options]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ['tiny']


def test_values_are_no_classes(tmp_path, capsys):
    write(tmp_path / 'values', Label('regression'))
    assert figures.main(['classes', str(tmp_path / 'values')]) == 1
    assert "values: labels of kind 'regression' cannot be counted, expected classes" in capsys.readouterr().err
    assert figures.main(['classes', str(tmp_path / 'absent')]) == 1
    assert 'is missing; write it with one of the data_prep modules' in capsys.readouterr().err
