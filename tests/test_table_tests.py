"""Columns on request, intervals, paired tests and the power of small test sets in a table; nothing is trained."""

import types

import numpy as np
import pytest

from mmer_jax import table
from mmer_jax.results import table_page
from mmer_jax.results.columns import Columns, columns_of
from mmer_jax.results.page import markdown
from mmer_jax.results.runs import ReportError, find_runs
from mmer_jax.results.table_config import Row, Table
from mmer_jax.results.tests_page import of_table
from tests.finished_runs import CLASSES, classification_run

TABLE = Table(
    title='T', source='S', metrics='classification', columns={'accuracy': 'Acc'}, classes=tuple(CLASSES),
    rows=(Row('A', config='a'), Row('B', config='b'), Row('C', config='c')),
)  # fmt: skip


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    """Two finished rows on the same 8 clips, the second right in half as many, and one that has not run."""
    folder = tmp_path_factory.mktemp('rows')
    for name in ('a', 'b'):
        classification_run(folder / name, config='same')
    for fold in ('fold_0', 'fold_1'):
        path = folder / 'b' / fold / 'predictions' / 'test.npz'
        with np.load(path) as file:
            np.savez(path, **{**file, 'prediction': np.stack([np.eye(3)[[0, 2, 2, 2]]] * 3)})
    first, second = find_runs([folder])[0]
    done = [table_page.Outcome('finished', run=run) for run in (first, second)]
    return dict(zip('ABC', [*done, table_page.Outcome('not run')], strict=True))


def runs_of(outcomes):
    return {label: one.run for label, one in outcomes.items() if one.run is not None}


def test_a_small_test_set_is_told_below_the_table_without_being_asked(outcomes):
    tested, below = of_table(runs_of(outcomes), ['accuracy'], tests=False)
    assert tested == {}
    assert '8 test clips: a test finds a true difference in accuracy of ' in markdown(below)
    assert of_table({}, ['accuracy'], tests=True) == ({}, [])


def test_tests_name_the_rows_by_their_labels(outcomes):
    tested, below = of_table(runs_of(outcomes), ['accuracy'], tests=True)
    text = markdown([table_page.table_of(TABLE, outcomes, Columns(), tested), *below])
    assert '| model | parameters | folds x seeds | Acc, % [95 % by record] | protocol |' in text
    assert '| A | 34,024 | 2 x 3 | 60.0 ± 10.0 [' in text
    assert '| accuracy, % | A | B |' in text
    assert text.count('| not run |') == 1


def test_more_columns_are_shown_and_none_is_trained_for(outcomes):
    more = columns_of('ece,recall,flops', ['accuracy', 'ece', *(f'recall_{name}' for name in CLASSES)], CLASSES)
    job = types.SimpleNamespace(table=TABLE)
    shown = table.Job.with_columns(job, more)
    text = markdown([table_page.table_of(shown.table, outcomes, more)])
    header = '| model | parameters | MFLOPs per example ↓ | folds x seeds | Acc, % | ECE, % ↓ | recall_calm, % |'
    assert header in text
    assert '| A | 34,024 | – | 2 x 3 | 60.0 ± 10.0 |' in text
    assert list(job.table.columns) == ['accuracy']
    with pytest.raises(
        ReportError, match='--columns wer: no run has it; choose from seconds, flops, recall, accuracy, ece'
    ):
        columns_of('wer', ['accuracy', 'ece', 'recall_calm'], CLASSES)
