"""A page is written as Markdown that reads back as what it was made of, and rows as a csv file."""

import csv
import io

import pytest

from mmer_jax.results.page import Code, Group, Heading, Notes, Picture, Table, Text, csv_text, markdown


def test_a_page_by_hand():
    table = Table(['', 'accuracy, %', 'protocol'], [Group('Alone'), ['a|b', '61.8', ''], ['floor', '', 'random']])
    blocks = [
        Heading('Results', 1), table, Notes('What it means.', ['one', 'two']), Picture('bars of all', 'bars.png'),
        Heading('again'), Text('Made by'), Code('python -m x\n  --y'),
    ]  # fmt: skip
    assert markdown(blocks) == (
        '# Results\n\n'
        '| | accuracy, % | protocol |\n'
        '|---|---|---|\n'
        '| **Alone** | | |\n'
        '| a\\|b | 61.8 |  |\n'
        '| floor |  | random |\n\n'
        'What it means.\n\n- one\n- two\n\n'
        '![bars of all](bars.png)\n\n'
        '## again\n\n'
        'Made by\n\n'
        '    python -m x\n      --y\n'
    )


def test_numbers_stand_on_the_right():
    assert Table(['by', 'calm', 'all'], [['1', 20, 3]], numbers=True).lines() == [
        '| by | calm | all |',
        '| --- | ---: | ---: |',
        '| 1 | 20 | 3 |',
    ]


def test_a_row_of_another_length_is_a_fault():
    with pytest.raises(AssertionError, match='a row of 1 cells below 2 titles'):
        Table(['a', 'b'], [['1', '2'], ['3']])


def test_a_csv_file_has_a_column_for_every_key():
    text = csv_text([{'run': 'a, b', 'mae': 0.5}, {'run': 'c', 'train/mae': None, 'mae': 1.0}])
    assert text.splitlines()[0] == 'run,mae,train/mae'
    assert list(csv.DictReader(io.StringIO(text))) == [
        {'run': 'a, b', 'mae': '0.5', 'train/mae': ''},
        {'run': 'c', 'mae': '1.0', 'train/mae': ''},
    ]
    assert '\r' not in text
