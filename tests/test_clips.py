"""data_prep.clips: a csv of one's own clips -> shards; what it tells of labels, folds and lines that it cannot use."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from data_prep import clips
from data_prep.clips_table import read_clips
from data_prep.pool import PreparationError
from mmer_jax import main
from mmer_jax.data.protocols import make_folds
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.media import MediaError
from mmer_jax.readers import from_info
from mmer_jax.settings import overrides
from tests.iemocap_release import write_tokenizer
from tests.own_clips import EMOTIONS, write_clips, write_tone

SMALL = ['--size=16', '--frames=2', '--num_mfcc=8', '--num_mels=16', '--workers=0']


def prepare(table, output, *flags):
    return clips.main([f'--csv={table}', f'--media={table.parent / "media"}', f'--output={output}', *SMALL, *flags])


def write_csv(folder, header, *rows, name='table.csv'):
    with open(folder / name, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([header, *rows])
    return folder / name


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp('own'), count=9, videos=3)


@pytest.fixture(scope='module')
def mine(table):
    assert prepare(table, table.parent / 'mine') == 0
    return RecordSource(table.parent / 'mine')


def test_the_three_columns_are_enough(mine, table):
    assert verify(mine.directory) == []
    assert len(mine) == 9
    assert mine.schema.label.names == tuple(sorted(EMOTIONS))
    assert {m: f.shape for m, f in mine.schema.features.items()} == {'audio': (None, 8), 'vision': (None, 16, 16, 3)}
    assert mine.manifest['speaker'].tolist() == ['sp0', 'sp1', 'sp2'] * 3
    first, last = mine[0], mine[8]
    assert first['vision'].shape == (2, 16, 16, 3)
    assert last['vision'].shape == (0, 16, 16, 3)
    assert first['id'] == 's0/clip_00'
    assert mine.schema.label.names[int(first['label'])] == 'calm'


def test_what_was_written_says_how_a_clip_is_read(mine, table):
    again = from_info(json.loads(json.dumps(mine.schema.info)), ('audio', 'vision'))
    assert [reader.feature() for reader in again] == list(mine.schema.features.values())
    from mmer_jax.readers import Clip

    clip = Clip('x', table.parent / 'media' / 's2' / 'clip_08.wav')
    np.testing.assert_array_equal(again[0].read(clip).array, mine[8]['audio'])


def test_folds_are_by_speakers_and_marked_where_none_are_known(mine):
    folds = make_folds(mine.manifest, 'by_what_is_known')
    assert len(folds) == 3
    assert all(fold.marks == () for fold in folds)
    for fold in folds:
        assert not set(mine.manifest['speaker'][fold.train]) & set(mine.manifest['speaker'][fold.test])
    nobody = {**mine.manifest, 'speaker': np.full(9, '')}
    random = make_folds(nobody, 'by_what_is_known')
    assert len(random) == 5
    assert all('speakers unknown' in ' '.join(fold.marks) for fold in random)
    assert sorted(np.concatenate([fold.test for fold in random])) == list(range(9))
    split = np.array(['train'] * 5 + ['validation'] * 2 + ['test'] * 2)
    (official,) = make_folds({**mine.manifest, 'split': split}, 'by_what_is_known')
    assert official.test.tolist() == [7, 8]


@pytest.mark.parametrize(
    ('labels', 'flags', 'kind', 'names'),
    [
        (['a', 'b', 'a'], {}, 'classes', ('a', 'b')),
        (['10', '9', '2'], {}, 'classes', ('2', '9', '10')),
        (['0.5', '-1', '2'], {}, 'regression', ()),
        (['-1', '0', '1'], {}, 'regression', ()),
        (['1', '2', '3'], {'label_kind': 'regression'}, 'regression', ()),
        (['1', '2', '3'], {'classes': ['3', '2', '1']}, 'classes', ('3', '2', '1')),
    ],
)
def test_the_kind_of_label_is_told_by_the_labels(tmp_path, labels, flags, kind, names):
    write_tone(tmp_path / 'a.wav', 0, 0.1)
    path = write_csv(tmp_path, ['path', 'label'], *[['a.wav', label] for label in labels])
    found = read_clips(path, **flags)
    assert (found.label.kind, found.label.names) == (kind, names)
    assert len({row.clip.id for row in found.rows}) == 3  # one file in three lines


def test_several_columns_are_emotions_of_0_and_1(tmp_path):
    write_tone(tmp_path / 'a.wav', 0, 0.1)
    path = write_csv(tmp_path, ['path', 'joy', 'fear'], ['a.wav', '1', '0'], ['a.wav', '1', '2'])
    found = read_clips(path, labels=['joy', 'fear'])
    assert found.label.names == ('joy', 'fear')
    assert [row.label for row in found.rows] == [[1, 0]]
    assert 'line 3: ' in found.skipped[0][1].detail
    assert 'not 0 or 1' in found.skipped[0][1].reason


def test_lines_that_cannot_be_used_are_named_and_the_rest_is_written(tmp_path, capsys):
    write_tone(tmp_path / 'media' / 'a.wav', 0, 0.3)
    write_tone(tmp_path / 'media' / 'b.wav', 1, 0.3)
    (tmp_path / 'media' / 'bad.wav').write_bytes(b'RIFF no sound')
    rows = [
        ['a.wav', 'x', '', ''], ['b.wav', 'y', '0.1', '0.2'], ['gone.wav', 'x', '', ''], ['bad.wav', 'y', '', ''],
        ['a.wav', '', '', ''], ['a.wav', 'x', '2', '1'], ['a.wav', 'x', 'now', ''], ['../labels.csv', 'x', '', ''],
        ['', 'y', '', ''],
    ]  # fmt: skip
    path = write_csv(tmp_path, ['path', 'label', 'start', 'end'], *rows)
    assert prepare(path, tmp_path / 'out') == 0
    source = RecordSource(tmp_path / 'out')
    assert source.manifest['id'].tolist() == ['a', 'b_0.1_0.2']
    assert float(source.manifest['duration'][1]) == pytest.approx(0.1)
    shown = capsys.readouterr().out
    assert 'skipped: 7' in shown
    for line, reason in ((4, 'no file of the clip'), (6, 'no label'), (7, 'end not after start'), (8, 'no time')):
        assert f'{reason}: line {line}' in shown or f'line {line}' in shown.split(reason)[1].split('\n')[0]
    assert 'warning: no speakers are known' in shown


def test_the_layout_of_mmsa_fet(tmp_path):
    write_tone(tmp_path / 'Raw' / 'vid' / '0001.wav', 0, 0.1)
    header = ['video_id', 'clip_id', 'text', 'label', 'label_T', 'mode']
    path = write_csv(
        tmp_path, header, ['vid', '0001', 'well', '0.4', '0.2', 'valid'], ['vid', '2', 'no', '1.5', '', 'test']
    )
    found = read_clips(path)
    (row,) = found.rows
    assert (row.clip.id, row.clip.text, row.columns['split'], row.columns['session']) == (
        'vid_0001',
        'well',
        'validation',
        'vid',
    )
    assert row.columns['label_T'] == '0.2'
    assert 'Raw/vid/2.mp4' in found.skipped[0][1].detail


def test_features_extracted_elsewhere(tmp_path, table):
    folder, generator = tmp_path / 'vectors', np.random.default_rng(0)
    folder.mkdir()
    for number in range(8):
        np.save(folder / f'clip_{number:02d}.npy', generator.standard_normal((3 + number % 2, 5)).astype(np.float32))
    (folder / 'clip_08.npz').write_bytes(b'')
    assert prepare(table, tmp_path / 'out', f'--vision={folder}', '--audio=none') == 0
    source = RecordSource(tmp_path / 'out')
    assert len(source) == 8
    assert source.schema.features['vision'].shape == (
        None,
        5,
    )
    np.testing.assert_array_equal(source[1]['vision'], np.load(folder / 'clip_01.npy'))


def test_tables_of_openface_and_opensmile(tmp_path):
    from mmer_jax.readers.given import read_features

    openface = 'frame, face_id, timestamp, confidence, success, AU01_r, AU02_r\n'
    (tmp_path / 'a.csv').write_text(openface + '1, 0, 0.0, 0.9, 1, 0.5, 1.5\n2, 0, 0.1, 0.2, 0, 9, 9\n')
    array, columns = read_features(tmp_path / 'a.csv')
    assert columns == ('AU01_r', 'AU02_r')
    assert array.tolist() == [[0.5, 1.5]]
    (tmp_path / 'b.csv').write_text("name;frameTime;F0;loudness\n'b';0.0;1;2\n'b';0.1;3;4\n")
    assert read_features(tmp_path / 'b.csv')[0].tolist() == [[1, 2], [3, 4]]
    (tmp_path / 'c.csv').write_text('AU01_r,AU02_r\n1,x\n')
    with pytest.raises(MediaError, match=r'c.csv: a value that is no number; line 2'):
        read_features(tmp_path / 'c.csv')


def test_words_as_word_vectors(tmp_path, table):
    (tmp_path / 'glove.txt').write_text('i 1 0\nfeel 0 1\nnumber 1 1\n')
    assert prepare(table, tmp_path / 'out', f'--glove={tmp_path / "glove.txt"}', '--audio=none', '--vision=none') == 0
    source = RecordSource(tmp_path / 'out')
    assert source[0]['text'][:2].tolist() == [[1, 0], [0, 1]]
    assert source[0]['text'].shape == (5, 2)
    assert source.manifest['unknown_words'].tolist() == ['2'] * 9


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: ['--label_column=mood'], "the column 'mood' is missing; it has 'path', 'label'"),
        (lambda t: ['--audio=none', '--vision=none'], 'there is nothing to store'),
        (lambda t: ['--audio=mfc'], '--audio mfc is neither a kind of feature'),
        (lambda t: ['--tokenizer=a', '--glove=b'], '--tokenizer and --glove both say'),
        (lambda t: [f'--output={t.parent}'], 'is no shard directory'),
    ],
)
def test_what_cannot_be_is_one_line(table, tmp_path, capsys, change, message):
    assert prepare(table, tmp_path / 'out', *change(table)) in (1, 2)
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not (tmp_path / 'out').exists()


def test_an_id_that_stands_twice_is_refused(tmp_path):
    write_tone(tmp_path / 'a.wav', 0, 0.1)
    path = write_csv(tmp_path, ['path', 'label', 'id'], ['a.wav', 'x', 'one'], ['a.wav', 'y', 'one'])
    with pytest.raises(PreparationError, match=r"the id 'one' stands in lines 2 and 3"):
        read_clips(path)


@pytest.mark.parametrize(('name', 'family'), [('roberta-large', 'roberta'), ('all-minilm-l6-v2', 'bert')])
def test_the_next_command_of_words_is_one_that_takes_them(name, family, table, tmp_path, monkeypatch, capsys):
    """A csv of words alone: no path, no media."""
    folder = write_tokenizer(tmp_path / name)
    (folder / 'source.json').write_text(json.dumps({'family': family, 'fields': {}}))
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path))
    words = write_csv(tmp_path, ['label', 'text'], *([label, f'I {label}'] for label in (-1.5, 0.5, 2.0)))
    flags = [f'--csv={words}', f'--output={tmp_path / "out"}', '--audio=none', '--vision=none', f'--tokenizer={name}']
    assert clips.main([*flags, '--workers=0']) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if 'python -m mmer_jax.main' in line]
    rest, changes = overrides.split_arguments(line.split()[3:])
    config = main.read_config(main.parse(rest).config, changes)
    assert (config.modalities, config.model.encoder.name, config.pretrained.encoder) == (('text',), family, name)
    assert Path(config.data.directory) == tmp_path / 'out'
