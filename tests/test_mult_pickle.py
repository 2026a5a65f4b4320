"""data_prep.mult_pickle and data_prep.sequences: files of the real layout, record for record and count for count."""

import pickle
import re

import numpy as np
import pytest

from data_prep import mult_pickle, sequences
from data_prep.mult_pickle import make_schema, prepare
from data_prep.pool import PreparationError
from mmer_jax.data.protocols import official_split
from mmer_jax.data.records import RecordSource, verify

COUNTS = {'train': 6, 'valid': 3, 'test': 4}
STEPS = {'text': 5, 'audio': 9, 'vision': 7}
SIZES = {'text': 6, 'audio': 5, 'vision': 4}
MODALITIES = tuple(STEPS)


def make_content(dataset='mosi', *, steps=STEPS, seed=0):
    """(content as the release has it, {id: {m: its steps without padding}}); no step of data is all zero."""
    generator, content, rows = np.random.default_rng(seed), {}, {}
    for split, count in COUNTS.items():
        part = {m: np.zeros((count, steps[m], SIZES[m]), np.float64 if m == 'text' else np.float32) for m in MODALITIES}
        word = sequences.SPLITS[split]
        names = [
            f'{word}_{n:05d}' if dataset == 'iemocap' else f'{split}Video{n // 2}[{n}.5-{n + 1}.25]'
            for n in range(count)
        ]
        for number, name in enumerate(names):
            common = int(generator.integers(1, min(steps.values()) + 1))
            for m in MODALITIES:
                length = common if len(set(steps.values())) == 1 else int(generator.integers(1, steps[m] + 1))
                part[m][number, steps[m] - length :] = generator.uniform(1, 2, (length, SIZES[m]))
            rows[name] = {m: part[m][number] for m in MODALITIES}
        part['labels'] = generator.uniform(-3, 3, (count, 1, 1))
        if dataset == 'iemocap':
            part['labels'] = np.eye(2)[generator.integers(2, size=(count, 4))]
        else:
            parts = [(f'{split}Video{n // 2}', f'{n}.5', f'{n + 1}.25') for n in range(count)]
            part['id'] = np.array(parts, 'S') if dataset == 'mosi' else np.array(parts, object)
        content[split] = part
    return content, rows


def save(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def unpadded(row):
    return row[(row != 0).any(1).argmax() :]


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('dataset', ['mosi', 'mosei', 'iemocap'])
def test_records_are_the_rows_without_padding(tmp_path, monkeypatch, dataset, protocol):
    monkeypatch.setattr(sequences, 'BLOCK', 2 * 9 * 5 * 4)  # blocks of two rows
    content, rows = make_content(dataset)
    source = save(tmp_path / f'{dataset}_data_noalign.pkl', content, protocol)
    found, summary = prepare(source, tmp_path / 'out', num_shards=2)
    assert found == dataset
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    assert records.manifest['id'].tolist() == list(rows)
    for record in (records[number] for number in range(len(records))):
        for m in MODALITIES:
            np.testing.assert_array_equal(record[m], unpadded(rows[record['id']][m]).astype(np.float32))
    labels = np.concatenate([part['labels'] for part in content.values()])
    if dataset == 'iemocap':
        np.testing.assert_array_equal([records[n]['label'] for n in range(13)], labels[:, :, 1])
        assert records.schema.label.names == ('neutral', 'happy', 'sad', 'angry')
        assert set(records.manifest['speaker']) == {''}
    else:
        np.testing.assert_array_equal([records[n]['label'] for n in range(13)], labels.reshape(-1).astype(np.float32))
        assert records.manifest['speaker'][:3].tolist() == ['trainVideo0', 'trainVideo0', 'trainVideo1']
    (fold,) = official_split(records.manifest)
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [6, 3, 4]
    assert summary.records == {'train': 6, 'validation': 3, 'test': 4}
    info = records.schema.info
    assert {key: info[key] for key in ('dataset', 'source', 'aligned', 'nonfinite')} == {
        'dataset': dataset,
        'source': source.name,
        'aligned': False,
        'nonfinite': 'zero',
    }
    assert info['replaced'] == {'text': {}, 'audio': {}, 'vision': {}}


def test_an_aligned_file_keeps_its_steps_aligned(tmp_path):
    content, rows = make_content(steps=dict.fromkeys(STEPS, 5))
    content['train']['audio'][0, :-1] = 0  # the audio of the first words is silent, the words are there
    prepare(save(tmp_path / 'mosi_data.pkl', content), tmp_path / 'out')
    records = RecordSource(tmp_path / 'out')
    assert records.schema.info['aligned'] is True
    for record in (records[number] for number in range(len(records))):
        row = rows[record['id']]
        length = len(unpadded(row['text']))
        for m in MODALITIES:
            np.testing.assert_array_equal(record[m], row[m][-length:].astype(np.float32))


def test_padding_is_found_before_infinities_are_replaced(tmp_path):
    content, _ = make_content()
    audio = content['train']['audio']
    audio[0] = 0
    audio[0, 4] = -np.inf  # the first real step: five steps remain
    audio[0, 5] = [1, -np.inf, 2, np.inf, np.nan]
    audio[0, 6] = 0  # a silent step inside stays
    audio[0, 7:] = 3
    audio[1] = 0  # nothing at all
    audio[2] = 0
    audio[2, -2:] = -np.inf  # nothing either, once it is replaced
    content['test']['vision'][0, -1, 0] = np.inf
    _, summary = prepare(save(tmp_path / 'mosi_data_noalign.pkl', content), tmp_path / 'out')
    records = RecordSource(tmp_path / 'out')
    np.testing.assert_array_equal(records[0]['audio'], [[0] * 5, [1, 0, 2, 0, 0], [0] * 5, [3] * 5, [3] * 5])
    assert records[1]['audio'].shape == records[2]['audio'].shape == (0, 5)
    assert records[9]['vision'][-1, 0] == 0
    replaced = {'text': {}, 'audio': {'NaN': 1, '-inf': 16, '+inf': 1}, 'vision': {'+inf': 1}}
    assert records.schema.info['replaced'] == replaced
    assert records.schema.info['all_zero'] == {'text': 0, 'audio': 2, 'vision': 0}
    assert {m: dict(counts) for m, counts in summary.replaced.items()} == replaced
    assert records.manifest['length_audio'][:3].tolist() == [5, 0, 0]
    missing = 'audio is missing (zeros throughout; masked in batches)'
    assert [(name, remark.reason) for name, remark in summary.remarks] == [
        (records.manifest['id'][number], missing) for number in (1, 2)
    ]


def test_mean_is_that_of_the_training_split_without_padding(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, 'BLOCK', 1)  # row by row
    content, _ = make_content()
    for split in content:
        content[split]['audio'][:] = 0
    train, test = content['train']['audio'], content['test']['audio']
    train[:, -2:] = 1
    train[0, -2:, 0] = 7, -np.inf
    train[:, -2:, 4] = np.nan  # a feature without any finite value
    test[:, -1] = 100
    test[0, -1, :2] = -np.inf
    prepare(save(tmp_path / 'mosi_data.pkl', content), tmp_path / 'out', nonfinite='mean')
    records = RecordSource(tmp_path / 'out')
    mean = np.float32((7 + 10) / 11)
    np.testing.assert_allclose(records[0]['audio'], [[7, 1, 1, 1, 0], [mean, 1, 1, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(records[9]['audio'], [[mean, 1, 100, 100, 100]], rtol=1e-6)
    assert records.schema.info['nonfinite'] == 'mean'
    assert records.schema.info['replaced']['audio'] == {'NaN': 12, '-inf': 3}


def test_a_value_beyond_float32_counts_as_infinite(tmp_path):
    content, _ = make_content()
    content['train']['text'][2, -1, 0] = 1e300
    for policy in ('zero', 'mean'):
        prepare(save(tmp_path / 'mosi_data.pkl', content), tmp_path / policy, nonfinite=policy)
        assert RecordSource(tmp_path / policy).schema.info['replaced']['text'] == {'+inf': 1}


def test_refuse_names_the_record_and_leaves_nothing(tmp_path):
    content, _ = make_content()
    content['valid']['audio'][1, -1, :2] = -np.inf
    source = save(tmp_path / 'mosi_data.pkl', content)
    with pytest.raises(PreparationError, match=r"'validVideo0\[1\.5-2\.25\]' of validation, audio has 2 -inf of"):
        prepare(source, tmp_path / 'out', nonfinite='refuse')
    assert list(tmp_path.iterdir()) == [source]


def test_ids_of_any_kind_are_unique(tmp_path, capsys):
    content, _ = make_content()
    content['train']['id'] = np.array([[7, 1.5, 2], [7, 1.5, 2], [8, 0, 1], [9, 0, 1], [9, 1, 2], [9, 2, 3]])
    content['valid']['id'] = np.array([['a', '0', '1'], [7, 1.5, 2], ['', '', '']], object)
    content['test']['id'] = np.array([[b'b'], [b'b\xff'], [b'c\nd'], [b'']])
    assert (
        mult_pickle.main(['--source', str(save(tmp_path / 'mosi.pkl', content)), '--output', str(tmp_path / 'o')]) == 0
    )
    manifest = RecordSource(tmp_path / 'o').manifest
    train = ['7[1.5-2]', '7[1.5-2]#2', '8[0-1]', '9[0-1]', '9[1-2]', '9[2-3]']
    rest = ['a[0-1]', '7[1.5-2]#3', '[-]', 'b', 'b\\xff', 'c d', 'test_00003']
    assert manifest['id'].tolist() == train + rest
    assert manifest['speaker'].tolist() == ['7', '7', '8', '9', '9', '9', 'a', '7', '', 'b', 'b\\xff', 'c d', '']
    out = capsys.readouterr().out
    assert 'warning: in two splits: 1 ids, for example 7[1.5-2] (train, train, validation)' in out
    assert 'note: more than once in a split: 1 ids, for example 7[1.5-2]' in out


def test_command_line_reports_what_it_wrote(tmp_path, capsys):
    content, _ = make_content()
    content['train']['audio'][0, -1, 0] = -np.inf
    source, output = save(tmp_path / 'mosi_data_noalign.pkl', content), tmp_path / 'out'
    arguments = ['--source', str(source), '--output', str(output), '--num_shards', '1']
    assert mult_pickle.main(arguments) == 0
    out = capsys.readouterr().out
    lengths = RecordSource(output).manifest['length_audio']
    for line in (
        f'13 records -> {output}: train 6, validation 3, test 4',
        f'audio: {lengths.min()} / {np.median(lengths):g} / {lengths.max()} steps',
        'audio: 1 -inf: replaced by 0, as the published code does for -inf',
        'note: train has 6 records, the published file 1284',
        'note: test has 4 records, the published file 686',
        'note: text has 6 features, the published file 300',
        f'next: python -m mmer_jax.records verify {output}',
        f'python -m mmer_jax.main --config=configs/mfsa_mosi.py --config.data.directory={output}',
    ):
        assert line in out
    assert 'audio has 5 features' not in out
    assert mult_pickle.main(arguments) == 1
    assert '--overwrite' in capsys.readouterr().err
    before = (output / 'features.json').read_text()
    assert mult_pickle.main([*arguments, '--overwrite', '--nonfinite', 'refuse']) == 1
    assert 'has 1 -inf of' in capsys.readouterr().err
    assert (output / 'features.json').read_text() == before
    assert mult_pickle.main([*arguments, '--overwrite']) == 0


def change(split, key, value):
    def apply(content):
        content[split][key] = value(content[split][key]) if callable(value) else value

    return apply


FAULTS = {
    "no split 'test': found ['train', 'valid']": lambda content: content.pop('test'),
    "split 'valid' lacks ['audio']": lambda content: content['valid'].pop('audio'),
    "'audio': found list, expected numbers of shape": change('train', 'audio', lambda array: array.tolist()),
    "'audio': found (6, 9) of float32": change('train', 'audio', lambda array: array[:, :, 0]),
    "'audio': found (6, 9, 5) of |S1": change('train', 'audio', np.zeros((6, 9, 5), 'S1')),
    "'text': found (0, 5, 6)": change('test', 'text', lambda array: array[:0]),
    'text 6, audio 5, vision 6': change('train', 'audio', lambda array: array[:5]),
    "'vision' has 3 features in test, 4 in train": change('test', 'vision', lambda array: array[:, :, :3]),
    'labels of shape (6, 4, 2), mosi has (records, 1, 1)': change('train', 'labels', np.zeros((6, 4, 2))),
    'found 5, expected one value for each of 6 records': change('train', 'labels', lambda array: array[:5]),
    'has the shape (6, 2)': change('train', 'labels', np.zeros((6, 2))),
    'record 2 has nan': change('test', 'labels', np.array([0, 1, np.nan, 0])),
    'could not convert string': change('test', 'labels', np.array(['a', 'b', 'c', 'd'])),
    "split 'train', id: found 5": change('train', 'id', lambda array: array[:5]),
}


@pytest.mark.parametrize('message', FAULTS)
def test_faults_of_a_file_are_named_and_nothing_is_written(tmp_path, capsys, message):
    content, _ = make_content()
    FAULTS[message](content)
    source = save(tmp_path / 'mosi_data.pkl', content)
    assert mult_pickle.main(['--source', str(source), '--output', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert re.search(f'error: .*{re.escape(message)}', error)
    assert str(source) in error
    assert list(tmp_path.iterdir()) == [source]


def test_iemocap_labels_must_be_its_own(tmp_path):
    content, _ = make_content('mosi')
    with pytest.raises(PreparationError, match=r'labels of shape \(6, 1, 1\), iemocap has \(records, 4, 2\)'):
        prepare(save(tmp_path / 'iemocap_data.pkl', content), tmp_path / 'out')
    content, _ = make_content('iemocap')
    content['train']['labels'][0, 0] = 1
    with pytest.raises(PreparationError, match='not one-hot'):
        prepare(save(tmp_path / 'iemocap_data.pkl', content), tmp_path / 'out')


class Call:
    def __reduce__(self):
        return print, ('run',)


def test_other_files_are_refused(tmp_path, capsys):
    content, _ = make_content()
    source = tmp_path / 'mosi_data.pkl'
    whole = pickle.dumps(content, 4)
    for data, message in (
        (pickle.dumps({**content, 'extra': Call()}), 'builtins.print'),
        (whole[: len(whole) // 2], 'truncated'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git-LFS pointer'),
        (pickle.dumps([1]), 'holds a list of 1, the first of which is a int, expected a dict with the keys'),
    ):
        source.write_bytes(data)
        assert mult_pickle.main(['--source', str(source), '--output', str(tmp_path / 'out')]) == 1
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ''
        assert list(tmp_path.iterdir()) == [source]


def test_the_data_set_is_guessed_from_the_name(tmp_path):
    names = list(mult_pickle.SIZES)
    for name, expected in (
        ('mosi_data.pkl', 'mosi'),
        ('mosei_senti_data_noalign.pkl', 'mosei'),
        ('IEMOCAP_data.pkl', 'iemocap'),
        ('MOSEI/Processed/a.pkl', 'mosei'),
    ):
        assert sequences.guess_dataset(tmp_path / 'x' / name, names) == expected
    for name in ('data.pkl', 'mosimo.pkl', 'mosi_mosei.pkl'):
        with pytest.raises(PreparationError, match='pass --dataset, one of mosi, mosei, iemocap'):
            sequences.guess_dataset(tmp_path / 'x' / 'y' / name, names)


def test_schema_of_the_published_files():
    assert {m: f.shape for m, f in make_schema('mosei').features.items()} == {
        'text': (None, 300),
        'audio': (None, 74),
        'vision': (None, 35),
    }
    assert make_schema('mosi', {'text': 1, 'audio': 2, 'vision': 3}).features['vision'].shape == (None, 3)
    assert make_schema('iemocap').label.num_outputs == 8
    assert make_schema('mosi', info={'aligned': True}).info['aligned'] is True
