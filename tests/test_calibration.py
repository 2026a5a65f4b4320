"""Expected calibration error by hand and by loop; columns on request of a report."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from mmer_jax.metrics import about, expected_calibration_error, is_better_high
from mmer_jax.results.columns import read_columns, seconds_of
from mmer_jax.results.run_table import main_table, notes, summary_rows
from mmer_jax.results.runs import ReportError, find_runs
from tests.finished_runs import classification_run, damage


def test_by_hand():
    """Confidence .9 twice, once right: |1/2 - .9| weighs 2/3; .62 right: |1 - .62| weighs 1/3."""
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.38, 0.62]])
    expected = 2 / 3 * 0.4 + 1 / 3 * 0.38
    assert expected_calibration_error(logits, np.array([0, 1, 1])) == pytest.approx(expected)
    shifted = logits + np.array([[3.0], [-7.0], [0.0]])  # a softmax does not see it
    assert expected_calibration_error(shifted, np.array([0, 1, 1])) == pytest.approx(expected)
    # .9 and .62 in one bin of the only one: |2/3 - mean confidence|
    assert expected_calibration_error(logits, np.array([0, 1, 1]), bins=1) == pytest.approx(abs(2 / 3 - 2.42 / 3))


def test_by_loop():
    """The definition as it is printed: bins ((m - 1) / 15, m / 15], their accuracy and confidence."""
    generator = np.random.default_rng(0)
    logits, labels = 2 * generator.normal(size=(500, 4)), generator.integers(4, size=500)
    probabilities, expected = softmax(logits, -1), 0.0
    confidence, answers = probabilities.max(-1), probabilities.argmax(-1)
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            gap = (answers == labels)[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    assert expected_calibration_error(logits, labels) == pytest.approx(expected)


def test_confidence_that_is_kept_has_none():
    """Labels drawn from the probabilities themselves: near 0; the same logits five times as large: far from it."""
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(20000, 3))
    labels = (softmax(logits, -1).cumsum(-1) < generator.random((20000, 1))).sum(-1)
    assert expected_calibration_error(logits, labels) < 0.02
    assert expected_calibration_error(5 * logits, labels) > 0.2
    assert not is_better_high('ece')
    assert about('validation/ece').title == 'ECE'


@pytest.mark.parametrize(
    ('scores', 'labels', 'told'),
    [
        (np.zeros((0, 3)), [], 'is the split empty'),
        (np.zeros((2, 1)), [0, 0], 'expected (R, C)'),
        (np.zeros((2, 3)), [0, 3], 'labels hold 3'),
        (np.zeros((2, 3)), [0], 'expected as many'),
        (np.full((2, 3), np.nan), [0, 1], 'not finite'),
    ],
)
def test_faults(scores, labels, told):
    with pytest.raises(ValueError, match=told.replace('(', r'\(').replace(')', r'\)')):
        expected_calibration_error(scores, np.array(labels))


# ---- columns -------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run before 0.3: no ECE, no FLOPs; epochs of 1 and 2 s in each of two folds, and a first step."""
    folder = classification_run(tmp_path_factory.mktemp('runs') / 'run')
    rows = [{'first_step': 1, 'step': 9.0}, {'epoch': 1, 'seconds': 1.0}, {'epoch': 2, 'seconds': 2.0}]
    for fold in ('fold_0', 'fold_1'):
        (folder / fold / 'timing.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (found,), _ = find_runs([folder])
    return found


def test_columns_of_a_table(run):
    columns = read_columns([run], 'ece, recall,seconds,flops,accuracy')
    table = main_table([run], columns=columns)
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells['training, s ↓'] == '6'
    assert cells['MFLOPs per example ↓'] == '–'
    assert cells['recall_calm, %'] == '60.0 ± 10.0'
    assert list(table.header).count('accuracy, %') == 1
    # calm, calm, happy, sad with one calm called happy, at a confidence of e / (e + 2) of logits 0 and 1
    gap = abs(3 / 4 - np.e / (np.e + 2))
    assert cells['ECE, % ↓'] == f'{100 * gap:.1f} ± 0.0'
    points = notes([run], [], columns).points
    assert any('Guo et al. 2017' in point for point in points)
    rows = summary_rows([run], columns=columns)
    assert {row['metric'] for row in rows} == {'accuracy', 'uar', 'ece', 'recall_calm', 'recall_happy', 'recall_sad'}
    assert {row['seconds'] for row in rows} == {6.0}
    assert {row['flops'] for row in rows} == {None}


def test_recorded_numbers_are_shown(run, tmp_path):
    folder = classification_run(tmp_path / 'new')
    rows = json.loads((folder / 'results.json').read_text())['rows']
    damage(folder, rows=[{**row, 'test': {**row['test'], 'ece': 0.25}} for row in rows], flops_per_example=2.5e6)
    (new,), _ = find_runs([folder])
    table = main_table([new], columns=read_columns([new], 'ece,flops,seconds'))
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert (cells['ECE, % ↓'], cells['MFLOPs per example ↓']) == ('25.0 ± 0.0', '2.500')
    assert cells['training, s ↓'] == '–'
    assert seconds_of(new) is None


def test_an_unknown_column_is_told_with_those_there_are(run):
    with pytest.raises(
        ReportError, match=r'--columns mae: no run has it; choose from seconds, flops, recall, .*uar, .*ece'
    ):
        read_columns([run], 'mae')
