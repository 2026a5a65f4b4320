"""data_prep.mmsa_pickle: files of the real layout, aligned or not, with or without lengths, record for record."""

import pickle
import re

import numpy as np
import pytest

from data_prep import mmsa_pickle, sequences
from data_prep.mmsa_pickle import make_schema, prepare
from data_prep.pool import PreparationError
from mmer_jax.data.protocols import official_split
from mmer_jax.data.records import RecordSource, verify

COUNTS = {'train': 5, 'valid': 2, 'test': 3}
STEPS = {'text': 6, 'audio': 9, 'vision': 7}
SIZES = {'text': 8, 'audio': 5, 'vision': 4}
MODALITIES = tuple(STEPS)
TRANSCRIPT = 'SO, "well"\nI SAY;\r' + 'very ' * 60


def make_content(*, aligned=False, sims=False, seed=0):
    """(content as MMSA has it, {id: {m: its steps without padding}}, {id: label}); zero steps inside are possible."""
    steps = dict.fromkeys(STEPS, 6) if aligned else STEPS
    generator, content, rows, labels = np.random.default_rng(seed), {}, {}, {}
    for split, count in COUNTS.items():
        part = {m: np.zeros((count, steps[m], SIZES[m]), np.float32) for m in MODALITIES}
        lengths = {m: generator.integers(2, steps[m] + 1, count) for m in MODALITIES}
        if aligned:
            lengths = dict.fromkeys(MODALITIES, lengths['text'])
        part['text_bert'] = np.zeros((count, 3, steps['text']), np.float32)
        part['id'] = [f'{split}Clip{n // 2}$_${n}' for n in range(count)]
        part['raw_text'] = np.array([TRANSCRIPT, *['\u5f88\u597d'] * (count - 1)], object)
        part['annotations'] = np.array(['Negative', *['Positive'] * (count - 1)])
        part['classification_labels'] = np.zeros(count)
        part['regression_labels'] = generator.uniform(-3, 3, count).astype(np.float32)
        for letter in 'TAV' if sims else '':
            part[f'regression_labels_{letter}'] = np.round(generator.uniform(-1, 1, count), 1).astype(np.float32)
        if not aligned:
            part.update(audio_lengths=lengths['audio'].tolist(), vision_lengths=lengths['vision'])
        for number, name in enumerate(part['id']):
            rows[name] = {}
            for m in MODALITIES:
                length = lengths[m][number]
                part[m][number, :length] = generator.uniform(1, 2, (length, SIZES[m]))
                part[m][number, length - 2] = 0  # a step of zeros inside
                rows[name][m] = part[m][number, :length]
            part['text_bert'][number, 1, : lengths['text'][number]] = 1
            labels[name] = part['regression_labels'][number]
        content[split] = part
    return content, rows, labels


def save(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('aligned', [False, True])
def test_records_are_the_rows_without_padding(tmp_path, monkeypatch, aligned, protocol):
    monkeypatch.setattr(sequences, 'BLOCK', 2 * 9 * 5 * 4)  # blocks of two rows
    content, rows, labels = make_content(aligned=aligned)
    if aligned:  # the last words have neither voice nor face: they stay words
        for name, m in (('audio', 'audio'), ('vision', 'vision')):
            rows['trainClip0$_$0'][m][1:] = 0
            assert content['train'][name][0, 1:].max() == 0
        content['train']['text_bert'][1, 1, 1:] = 0  # one word by its mask, whatever the others hold
        rows['trainClip0$_$1'] = {m: row[:1] for m, row in rows['trainClip0$_$1'].items()}
    source = save(tmp_path / 'unaligned_50.pkl', content, protocol)
    dataset, summary = prepare(source, tmp_path / 'out', dataset='mosei', num_shards=2)
    assert dataset == 'mosei'
    assert summary.records == {'train': 5, 'validation': 2, 'test': 3}
    records = RecordSource(tmp_path / 'out')
    assert verify(tmp_path / 'out') == []
    assert records.manifest['id'].tolist() == list(rows)
    for record in (records[number] for number in range(len(records))):
        assert record['label'] == labels[record['id']]
        for m in MODALITIES:
            np.testing.assert_array_equal(record[m], rows[record['id']][m])
    assert records.manifest['speaker'][:3].tolist() == ['trainClip0', 'trainClip0', 'trainClip1']
    (fold,) = official_split(records.manifest)
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [5, 2, 3]
    assert records.schema.info['aligned'] is aligned
    assert records.schema.info['source'] == 'unaligned_50.pkl'


def test_manifest_columns_of_sims(tmp_path):
    content, _, _ = make_content(sims=True)
    prepare(save(tmp_path / 'sims.pkl', content), tmp_path / 'out')
    manifest = RecordSource(tmp_path / 'out').manifest
    for letter in 'TAV':
        expected = np.concatenate([part[f'regression_labels_{letter}'] for part in content.values()])
        np.testing.assert_array_equal(manifest[f'label_{letter}'].astype(np.float32), expected)
    assert manifest['annotation'][:2].tolist() == ['Negative', 'Positive']
    assert manifest['raw_text'][0] == ('SO, "well" I SAY; ' + 'very ' * 60)[:200]
    assert manifest['raw_text'][1] == '\u5f88\u597d'


def test_without_lengths_the_zeros_at_the_end_are_padding(tmp_path):
    content, rows, _ = make_content()
    for part in content.values():
        for key in ('audio_lengths', 'vision_lengths', 'text_bert'):
            del part[key]
    prepare(save(tmp_path / 'mosi.pkl', content), tmp_path / 'out')
    records = RecordSource(tmp_path / 'out')
    for record in (records[number] for number in range(len(records))):
        for m in MODALITIES:
            np.testing.assert_array_equal(record[m], rows[record['id']][m])
    content, rows, _ = make_content(aligned=True)
    for part in content.values():
        del part['text_bert']
    content['train']['audio'][0] = 0
    prepare(save(tmp_path / 'mosi.pkl', content), tmp_path / 'aligned')
    manifest = RecordSource(tmp_path / 'aligned').manifest
    lengths = [len(row['text']) for row in rows.values()]
    assert manifest['length_text'].tolist() == manifest['length_vision'].tolist() == lengths
    assert manifest['length_audio'].tolist() == [0, *lengths[1:]]


def test_values_that_are_not_finite_and_lengths_of_zero(tmp_path):
    content, _, _ = make_content()
    train = content['train']
    train['audio'][0] = np.nan
    train['audio_lengths'][0] = 2
    train['audio'][1] = 0
    train['audio_lengths'][1] = 0
    train['vision_lengths'][2] = 7
    train['vision'][2] = 1
    train['vision'][2, 6, 1] = -np.inf
    source = save(tmp_path / 'mosi.pkl', content)
    _, summary = prepare(source, tmp_path / 'out')
    records = RecordSource(tmp_path / 'out')
    assert records[0]['audio'].shape == records[1]['audio'].shape == (0, 5)  # NaN alone is nothing either
    assert records[2]['vision'].sum() == 7 * 4 - 1
    assert records.schema.info['replaced'] == {'text': {}, 'audio': {'NaN': 10}, 'vision': {'-inf': 1}}
    assert summary.empty['audio'] == len(summary.remarks) == 2
    with pytest.raises(PreparationError, match=r"'trainClip0\$_\$0' of train, audio has 10 NaN of 10 values"):
        prepare(source, tmp_path / 'refused', nonfinite='refuse')
    assert not (tmp_path / 'refused').exists()


def set_value(split, key, index, value):
    def apply(content):
        content[split][key] = content[split][key].copy()
        content[split][key][index] = value

    return apply


FAULTS = {
    "split 'valid', audio_lengths: record 1 has length 10, expected 0 to 9": set_value('valid', 'audio_lengths', 1, 10),
    "split 'test', vision_lengths: record 2 has length -1, expected 0 to 7": set_value('test', 'vision_lengths', 2, -1),
    'record 0 has length 1.5, expected 0 to 9': set_value('train', 'audio_lengths', 0, 1.5),
    'vision_lengths: found 4, expected one value': lambda content: content['train'].update(vision_lengths=[1] * 4),
    'the mask of record 3 is not 1 ... 1 0 ... 0': set_value('train', 'text_bert', (3, 1), [1, 0, 1, 0, 0, 0]),
    'text_bert has shape (5, 3, 5), expected (5, 3, 6)': lambda content: content['train'].update(
        text_bert=np.ones((5, 3, 5))
    ),
    "lacks ['regression_labels']": lambda content: content['test'].pop('regression_labels'),
    'regression_labels: record 1 has nan': set_value('train', 'regression_labels', 1, np.nan),
    'raw_text: found 1, expected': lambda content: content['train'].update(raw_text=['a']),
    'id: found int, expected': lambda content: content['train'].update(id=3),
}


@pytest.mark.parametrize('message', FAULTS)
def test_faults_of_a_file_are_named_and_nothing_is_written(tmp_path, capsys, message):
    content, _, _ = make_content()
    FAULTS[message](content)
    source = save(tmp_path / 'mosi.pkl', content)
    assert mmsa_pickle.main(['--source', str(source), '--output', str(tmp_path / 'out')]) == 1
    assert re.search(f'error: {re.escape(str(source))}.*{re.escape(message)}', capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [source]


def test_command_line_reports_what_it_wrote(tmp_path, capsys):
    content, _, _ = make_content()
    content['test']['id'][0] = content['train']['id'][0]
    (tmp_path / 'MOSI' / 'Processed').mkdir(parents=True)
    source = save(tmp_path / 'MOSI' / 'Processed' / 'unaligned_50.pkl', content)
    output = tmp_path / 'out'
    assert mmsa_pickle.main(['--source', str(source), '--output', str(output)]) == 0
    out = capsys.readouterr().out
    for line in (
        f'10 records -> {output}: train 5, validation 2, test 3',
        'warning: in two splits: 1 ids, for example trainClip0$_$0 (train, test)',
        'note: validation has 2 records, the published file 229',
        'note: text has 8 features, the published file 768',
        f'python -m mmer_jax.main --config=configs/mfsa_mosi.py --config.data.directory={output}',
    ):
        assert line in out
    manifest = RecordSource(output).manifest
    assert manifest['id'][7] == 'trainClip0$_$0#2'
    assert manifest['speaker'][7] == 'trainClip0'
    sims = ['--source', str(source), '--output', str(tmp_path / 'sims'), '--dataset', 'sims']
    assert mmsa_pickle.main(sims) == 0
    assert 'configs/' not in capsys.readouterr().out
    source.write_bytes(b'<html><body>Too many users have viewed this file</body></html>')
    assert mmsa_pickle.main([*sims, '--overwrite']) == 1
    assert 'is an HTML page' in capsys.readouterr().err


def test_schema_of_the_published_files():
    shapes = {m: feature.shape for m, feature in make_schema('sims').features.items()}
    assert shapes == {'text': (None, 768), 'audio': (None, 33), 'vision': (None, 709)}
    assert make_schema('mosi').label.kind == 'regression'
