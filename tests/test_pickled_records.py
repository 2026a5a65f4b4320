"""Feature files of data sets that no reader knows: modalities, labels, lists of records; exact values and one line."""

import pickle
import re

import numpy as np
import pytest

from data_prep import mmsa_pickle, mult_pickle, pickled_labels
from data_prep.pickled_labels import Choice
from data_prep.pool import PreparationError
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.media.tokens import TextTokenizer
from tests.iemocap_release import WORDS, write_tokenizer

COUNTS = {'train': 4, 'dev': 2, 'test': 3}
SAID = ['so', 'good', 'zyx']


def save(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def run(module, source, output, *flags):
    return module.main(['--source', str(source), '--output', str(output), *map(str, flags)])


def listed(*, misa=False, numbers=False, columns=1):
    """A file of MAG-BERT's layout, whose records have 1 to 3 words, or of MISA's, with the words as a fourth part."""
    generator, content = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        content[split] = []
        for n in range(count):
            words = SAID[: n % 3 + 1]
            parts = [words, generator.uniform(1, 2, (len(words), 5)), generator.uniform(1, 2, (len(words), 4))]
            if misa or numbers:
                parts[0] = np.arange(len(words))
            if misa:
                parts.append(words)
            label = generator.uniform(-3, 3, (1, columns)).astype(np.float32)
            content[split].append((tuple(parts), label, f'{split}Vid_{n // 2}[{n}]'))
    return content


@pytest.mark.parametrize('misa', [False, True])
def test_a_list_of_records(tmp_path, capsys, misa):
    content = listed(misa=misa)
    content['train'][1][0][1][:, :] = 0  # nothing seen
    source = save(tmp_path / 'mosi.pkl', content)
    assert run(mult_pickle, source, tmp_path / 'out') == 0
    out = capsys.readouterr().out
    assert 'train 4, validation 2, test 3' in out
    assert 'configs/' not in out  # they have text
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    rows = [row for part in content.values() for row in part]
    assert set(records.schema.features) == {'audio', 'vision'}
    for number, (parts, label, segment) in enumerate(rows):
        record = records[number]
        assert (record['id'], record['label']) == (segment, label[0, 0])
        np.testing.assert_array_equal(record['audio'], parts[2].astype(np.float32))
        if number != 1:
            np.testing.assert_array_equal(record['vision'], parts[1].astype(np.float32))
    manifest = records.manifest
    assert manifest['length_vision'][:3].tolist() == [1, 0, 3]
    assert manifest['text'][:3].tolist() == ['so', 'so good', 'so good zyx']
    assert manifest['speaker'][:3].tolist() == ['trainVid_0', 'trainVid_0', 'trainVid_1']
    assert manifest['split'].tolist() == ['train'] * 4 + ['validation'] * 2 + ['test'] * 3


def test_words_become_vectors_or_token_ids(tmp_path, capsys):
    source = save(tmp_path / 'mosi.pkl', listed())
    (tmp_path / 'glove.txt').write_text('so 1 2\ngood 3 4\n')
    assert run(mult_pickle, source, tmp_path / 'glove', '--glove', tmp_path / 'glove.txt') == 0
    assert 'words have no vector' in capsys.readouterr().out
    record = RecordSource(tmp_path / 'glove')[2]
    np.testing.assert_array_equal(record['text'], [[1, 2], [3, 4], [0, 0]])  # a step for each word
    assert len(record['audio']) == 3
    folder = write_tokenizer(tmp_path / 'tiny')
    assert run(mult_pickle, source, tmp_path / 'ids', '--tokenizer', folder, '--modalities', 'audio,text') == 0
    records = RecordSource(tmp_path / 'ids')
    assert set(records.schema.features) == {'text', 'audio'}
    assert records.schema.info['tokenizer'] == 'tiny'
    np.testing.assert_array_equal(records[1]['text'], TextTokenizer(folder)('so good'))
    assert WORDS
    numbers = (
        save(tmp_path / 'numbers' / 'mosi.pkl', listed(numbers=True)) if (tmp_path / 'numbers').mkdir() is None else ''
    )
    assert run(mult_pickle, numbers, tmp_path / 'plain') == 0
    assert 'note: the words are numbers of a vocabulary' in capsys.readouterr().out
    assert run(mult_pickle, numbers, tmp_path / 'refused', '--tokenizer', folder) == 1
    assert 'leave --glove and --tokenizer out' in capsys.readouterr().err


ODD_LISTS = {
    'record 1 is a str, expected ((words, vision, audio), label, segment)': lambda rows: rows.__setitem__(1, 'x'),
    'record 0 is a tuple of 3, the first of which is a list, expected': lambda rows: rows.__setitem__(0, ([1], 2, 3)),
    'vision: record 2 has shape (3, 4), expected numbers (steps, features)': lambda rows: rows.__setitem__(
        2, ((rows[2][0][0], rows[2][0][1][:, :4], rows[2][0][2]), *rows[2][1:])
    ),
    'audio: record 1 has list, expected numbers': lambda rows: rows.__setitem__(
        1, ((*rows[1][0][:2], [1.0]), *rows[1][1:])
    ),
    'record 3, words: found int, expected a list of words': lambda rows: rows.__setitem__(
        3, ((7, *rows[3][0][1:]), *rows[3][1:])
    ),
    'labels: record 2 has nan': lambda rows: rows.__setitem__(2, (rows[2][0], np.array([[np.nan]]), '')),
    'is empty, expected a record or more': lambda rows: rows.clear(),
}


@pytest.mark.parametrize('message', ODD_LISTS)
def test_a_list_of_something_else_is_told(tmp_path, capsys, message):
    content = listed()
    ODD_LISTS[message](content['train'])
    assert run(mult_pickle, save(tmp_path / 'mosi.pkl', content), tmp_path / 'out') == 1
    error = capsys.readouterr().err
    assert re.search(f"^error: .*mosi.pkl, split 'train'.*{re.escape(message)}", error)
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_what_a_split_is_instead_of_a_dict(tmp_path, capsys):
    assert run(mmsa_pickle, save(tmp_path / 'mosi.pkl', listed()), tmp_path / 'out') == 1
    assert "split 'train' is a list of 4, the first of which is a tuple, expected a dict" in capsys.readouterr().err
    content = listed()
    content['dev'] = {}
    assert run(mult_pickle, save(tmp_path / 'mosi.pkl', content), tmp_path / 'out') == 1
    assert "split 'dev' is an empty dict, expected a list of records" in capsys.readouterr().err


def of_arrays(**more):
    """Two modalities by other names, padded on the left, in splits train, dev and test."""
    generator, content = np.random.default_rng(1), {}
    for split, count in COUNTS.items():
        part = {'acoustic': np.zeros((count, 6, 3)), 'visual': generator.uniform(1, 2, (count, 2))}
        for n in range(count):
            part['acoustic'][n, 5 - n :] = generator.uniform(1, 2, (n + 1, 3))
        part |= {key: value[:count] if isinstance(value, (list, np.ndarray)) else value for key, value in more.items()}
        content[split] = part
    return content


def test_a_data_set_of_any_name_with_two_modalities(tmp_path, capsys):
    content = of_arrays(labels=np.array([[0, 5.5], [1, -2], [2, 0], [0, 1]]), id=[f'clip{n}' for n in range(4)])
    source = save(tmp_path / 'own.pkl', content)
    assert run(mult_pickle, source, tmp_path / 'no') == 1
    assert 'pass --dataset, one of mosi, mosei, iemocap, or a name of your own' in capsys.readouterr().err
    own = ('--dataset', 'meld')
    assert run(mult_pickle, source, tmp_path / 'no', *own) == 1
    assert 'labels: 2 numbers for each record; choose one with --label_column 0 to 1' in capsys.readouterr().err
    assert run(mult_pickle, source, tmp_path / 'one', *own, '--label_column', 1) == 0
    assert 'note: meld is none of mosi, mosei, iemocap' in capsys.readouterr().out
    records = RecordSource(tmp_path / 'one')
    assert records.schema.name == 'meld_mult'
    assert [records[n]['label'] for n in range(4)] == [5.5, -2, 0, 1]
    assert records.manifest['length_audio'].tolist() == [1, 2, 3, 4, 1, 2, 1, 2, 3]
    np.testing.assert_array_equal(records[2]['audio'], content['train']['acoustic'][2, -3:].astype(np.float32))
    np.testing.assert_array_equal(records[2]['vision'], content['train']['visual'][2:3].astype(np.float32))
    flags = ('--label_column', 0, '--classes', 'anger,joy,fear', '--modalities', 'audio')
    assert run(mult_pickle, source, tmp_path / 'classes', *own, *flags) == 0
    records = RecordSource(tmp_path / 'classes')
    assert (records.schema.label.kind, records.schema.label.names) == ('classes', ('anger', 'joy', 'fear'))
    assert [int(records[n]['label']) for n in range(4)] == [0, 1, 2, 0]
    assert set(records.schema.features) == {'audio'}
    assert run(mult_pickle, source, tmp_path / 'binary', *own, '--label_kind', 'binary') == 0
    assert RecordSource(tmp_path / 'binary')[1]['label'].tolist() == [1, 0]
    for path in ('one', 'classes', 'binary'):
        assert verify(tmp_path / path) == []


def test_another_key_of_mmsa_as_the_label(tmp_path):
    content = of_arrays(regression_labels=np.arange(4.0), regression_labels_T=np.array([9.0, 8, 7, 6]))
    for part in content.values():
        part['audio'] = [array[array.any(1)] for array in part.pop('acoustic')]  # a list of true lengths
    source = save(tmp_path / 'own.pkl', content)
    assert run(mmsa_pickle, source, tmp_path / 'out', '--dataset', 'own', '--label_column', 'regression_labels_T') == 0
    records = RecordSource(tmp_path / 'out')
    assert [records[n]['label'] for n in range(4)] == [9, 8, 7, 6]
    assert records.manifest['length_audio'].tolist()[:4] == [1, 2, 3, 4]
    assert records.manifest['id'][0] == 'train_00000'


LABELS = [
    (Choice('classes', '', ('a', 'b')), ['b', b'a', 'b'], [1, 0, 1]),
    (Choice('classes', '', ('a', 'b')), np.array([[0, 1], [1, 0], [0, 1]]), [1, 0, 1]),
    (Choice('classes', '', ('a', 'b')), np.array([[1.0], [0.0], [1.0]]), [1, 0, 1]),
    (Choice('classes', 'x:1', ('a', 'b')), [[5, 1], [5, 0], [5, 1]], [1, 0, 1]),
    (Choice('binary', '', ('a', 'b')), np.array([[[1, 0], [0, 1]]] * 3), [[0, 1]] * 3),
    (Choice('binary', '2'), np.array([[0, 0, 3.0], [1, 1, 0], [0, 0, -1]]), [[1], [0], [0]]),
    (Choice('', 'x:0'), np.array([[[1.5, 2]], [[2.5, 3]], [[3.5, 4]]]), [1.5, 2.5, 3.5]),
]


@pytest.mark.parametrize(('choice', 'values', 'expected'), LABELS)
def test_labels_of_every_form(choice, values, expected):
    assert np.asarray(pickled_labels.read(values, choice, 3, 'here')).tolist() == expected


@pytest.mark.parametrize(
    ('choice', 'values', 'message'),
    [
        (Choice('classes', '', ('a', 'b')), [0, 2, 1], 'record 1 has 2, expected a number from 0 to 1, one of a, b'),
        (Choice('classes', '', ('a', 'b')), [0, 0.5, 1], 'record 1 has 0.5'),
        (Choice('classes', '', ('a', 'b')), ['a', 'c', 'a'], "record 1 has 'c'"),
        (Choice('classes', '', ('a', 'b')), [[1, 1], [0, 1], [1, 0]], 'record 0 has 2 values'),
        (Choice('', '3'), np.zeros((3, 2)), '--label_column 3, expected 0 to 1'),
        (Choice('binary', '', ('a',)), np.zeros((3, 3)), '3 columns, expected 1 as --classes has'),
        (Choice(), [[1], [1, 2], [1]], 'expected as many numbers for each record'),
        (Choice(), [1, 2], 'found 2, expected one value for each of 3 records'),
    ],
)
def test_labels_that_do_not_fit_are_named(choice, values, message):
    with pytest.raises(PreparationError, match=re.escape(message)):
        pickled_labels.read(values, choice, 3, 'here')


@pytest.mark.parametrize(
    ('flags', 'status', 'message'),
    [
        (['--classes', 'a,a'], 2, '--classes a,a: expected different names'),
        (['--label_kind', 'classes'], 2, 'needs --classes with two names or more'),
        (['--label_kind', 'regression', '--classes', 'a,b'], 2, 'leave one of them out'),
        (['--label_column', 'x:y'], 2, 'expected a number after the colon'),
        (['--label_column', 'mood'], 1, "no labels 'mood': found acoustic, labels, visual"),
        (['--modalities', 'audio,smell'], 2, '--modalities audio,smell: expected some of text, audio, vision'),
        (['--modalities', 'text'], 1, '--modalities text, but the file has audio, vision'),
        (['--tokenizer', 'tiny'], 1, 'holds features and no words: leave --glove and --tokenizer out'),
    ],
)
def test_flags_that_do_not_fit_are_one_line(tmp_path, capsys, flags, status, message):
    source = save(tmp_path / 'own.pkl', of_arrays(labels=np.zeros(4)))
    assert run(mult_pickle, source, tmp_path / 'out', '--dataset', 'own', *flags) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()
