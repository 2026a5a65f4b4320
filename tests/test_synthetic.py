"""The embedded data: what its docstring promises about what each modality can know."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from data_prep import synthetic
from mmer_jax.data.records import RecordSource, verify


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp('synthetic') / 'data'
    assert synthetic.main(['--output', str(folder)]) == 0
    return RecordSource(folder)


def bits_of(source, split):
    rows = source.manifest['split'] == split
    bits = np.array([[int(c) for c in text] for text in source.manifest['bits'][rows]])
    return bits, source.manifest['label'][rows].astype(int)


def bayes(bits, labels, columns):
    """Accuracy of the best rule that sees only these columns of the bits: the majority label of each pattern."""
    patterns = bits[:, columns] @ (2 ** np.arange(len(columns)))
    return sum(np.bincount(labels[patterns == p]).max() for p in np.unique(patterns)) / len(labels)


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_bayes_rates_of_the_data_written(source, split):
    bits, labels = bits_of(source, split)
    np.testing.assert_array_equal(labels, bits.sum(1) % 2)
    for one in range(3):
        assert bayes(bits, labels, [one]) == pytest.approx(0.58, abs=0.005)
        assert bayes(bits, labels, [one]) <= 0.6
    for two in itertools.combinations(range(3), 2):
        assert bayes(bits, labels, list(two)) == pytest.approx(0.7, abs=0.005)
    assert bayes(bits, labels, [0, 1, 2]) == 1
    assert max(np.mean(labels), 1 - np.mean(labels)) == pytest.approx(0.532, abs=0.005)


def decode(record, starts):
    """Reads each bit off its modality's event, knowing where it is: the information is there."""
    vocabulary = synthetic.Vocabulary()
    word = record['text'][starts['text']] / 2
    text = max((0, 1), key=lambda bit: (vocabulary.polar[bit] @ word).max())
    pitch = record['audio'][starts['audio'] : starts['audio'] + synthetic.EVENT_LENGTHS['audio'], 0]
    face = record['vision'][starts['vision'] : starts['vision'] + synthetic.EVENT_LENGTHS['vision']].mean(0)
    return [text, int(pitch[-1] > pitch[0]), int(face[:2].sum() > face[2:4].sum())]


def test_the_label_can_be_read_from_all_three(source):
    numbers = np.flatnonzero(source.manifest['split'] == 'test')[:300]
    right = 0
    for number in numbers:
        record = source[int(number)]
        starts = {m: int(source.manifest[f'event_{m}'][number]) for m in synthetic.LENGTHS}
        right += sum(decode(record, starts)) % 2 == record['label']
    assert right / len(numbers) >= 0.95


def test_events_lie_in_different_thirds(source):
    """So nothing is simultaneous; a third of T steps begins at T * k // 3."""
    thirds = []
    for m in synthetic.LENGTHS:
        start, steps = source.manifest[f'event_{m}'].astype(int), source.manifest[f'length_{m}']
        thirds.append(sum((start >= steps * k // 3).astype(int) for k in (1, 2)))
    assert {tuple(sorted(column)) for column in np.stack(thirds).T.tolist()} == {(0, 1, 2)}
    assert len({tuple(column) for column in np.stack(thirds).T.tolist()}) == 6  # in every order


def test_splits_share_no_speaker(source):
    speakers = {split: set(source.manifest['speaker'][source.manifest['split'] == split]) for split in synthetic.SPLITS}
    assert all(len(s) == 10 for s in speakers.values())
    assert len(set.union(*speakers.values())) == 30


def test_the_same_seed_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, 'SPLITS', {'train': 20, 'validation': 10, 'test': 10})
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        synthetic.write_synthetic(tmp_path / name, seed=seed)
    shard = 'data-00000-of-00002.tfrecord'
    a, b, c = ((tmp_path / name / shard).read_bytes() for name in 'abc')
    assert a == b != c


@pytest.mark.parametrize('name', list(synthetic.LIKE))
def test_stand_ins_have_the_real_schema(tmp_path, name):
    synthetic.main(['--like', name, '--output', str(tmp_path / name)])
    source = RecordSource(tmp_path / name)
    real = synthetic.LIKE[name][0]()
    assert source.schema.name == f'random_{real.name}'  # beside which no published number stands
    saved, expected = (json.dumps(dataclasses.replace(s, name='').to_json()) for s in (source.schema, real))
    assert saved == expected
    assert verify(tmp_path / name) == []
    assert len(set(source.manifest['speaker'])) >= 9


def test_an_existing_output_is_refused_in_one_line(tmp_path, capsys):
    assert synthetic.main(['--output', str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert '--overwrite' in error
