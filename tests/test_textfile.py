"""mmer_jax.media.textfile: what other programs save, decoded and cut into lines; faults name file and line."""

import json
import re

import pytest

from data_prep import iemocap_layout
from data_prep.mosi import read_transcripts
from mmer_jax.media import MediaError, textfile
from mmer_jax.media.text import read_glove
from mmer_jax.readers.words import tokenize

LINES = ['a caf\u00e9', 'well\u2026 I don\u2019t', '', 'end']
TEXT = 'v_1,"IT\u2019S, GOOD",1,1\r\nv_2,CAF\u00c9 WAS BAD,1,0\r\n'
ENCODINGS = {
    'utf-8': ('utf-8', b''),
    'utf-8 marked': ('utf-8', b'\xef\xbb\xbf'),
    'utf-16-le': ('utf-16-le', b'\xff\xfe'),
    'utf-16-be': ('utf-16-be', b'\xfe\xff'),
    'utf-32-le': ('utf-32-le', b'\xff\xfe\0\0'),
    'cp1252': ('cp1252', b''),
}


def save(path, text, encoding='utf-8'):
    name, mark = ENCODINGS[encoding]
    path.write_bytes(mark + text.encode(name))
    return path


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_lines_of_every_encoding_and_end(tmp_path, encoding, end):
    """The ellipsis of cp1252 is byte 0x85, at which str.splitlines cuts; blank last lines are none."""
    path = save(tmp_path / 'a.txt', end.join([*LINES, '', '  ', '']), encoding)
    assert textfile.read_lines(path) == LINES
    assert [line.decode(ENCODINGS[encoding][0] if encoding == 'cp1252' else 'utf-8') for line in
            textfile.stream_lines(path)][:4] == LINES  # fmt: skip


@pytest.mark.parametrize('separator', ['\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\x85', '\u2028', '\u2029'])
def test_other_separators_cut_nothing(tmp_path, separator):
    path = save(tmp_path / 'a.txt', f'one{separator}two\nthree\n')
    assert textfile.read_lines(path) == [f'one{separator}two', 'three']
    assert [line.decode() for line in textfile.stream_lines(path)] == [f'one{separator}two', 'three']
    rows = textfile.read_rows(save(tmp_path / 'a.csv', f'x{separator}y,1\nz,2\n'))
    assert rows == [(1, [f'x{separator}y', '1']), (2, ['z', '2'])]


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_tables_of_every_encoding(tmp_path, encoding):
    path = save(tmp_path / 'transcripts.csv', TEXT + '\r\n , \r\n', encoding)
    assert [line.text for line in read_transcripts(path)] == ['IT\u2019S, GOOD', 'CAF\u00c9 WAS BAD']
    table = save(tmp_path / 't.csv', 'a,b\r\n"x\r\ny",\u00e9\r\n\r\nz,2\r\n', encoding)
    assert textfile.read_table(table, ('a',)) == [(3, {'a': 'x\r\ny', 'b': '\u00e9'}), (5, {'a': 'z', 'b': '2'})]
    if encoding != 'cp1252':
        content = save(tmp_path / 'a.json', json.dumps({'a': '\u00e9'}, ensure_ascii=False), encoding)
        assert textfile.read_json(content) == {'a': '\u00e9'}


def test_a_transcript_is_cut_into_whole_words():
    assert tokenize("IT\u2019S a CAF\u00c9, don't_you?") == ["it's", 'a', 'caf\u00e9', "don't", 'you']


FAULTS = [
    (b'fine\r\nbad \x81\r\n', 'line 2: byte 0x81 is no utf-8 and none of Windows-1252'),
    ('caf\u00e9 caf\u00e9\nna\u00efve '.encode() + b'\xc3', 'line 2: byte 0xc3 is no utf-8'),  # cut in a character
    (b'\xff\xfea\0\n\0b', 'line 2: byte 0x62 is no utf-16-le'),
    ('a\nb'.encode('utf-16-le'), 'line 1 holds a byte 0; if it is UTF-16 without a mark'),
    (b'', 'empty file'),
    (b'version https://git-lfs.github.com/spec/v1', 'git-LFS pointer'),
]


@pytest.mark.parametrize(('content', 'message'), FAULTS)
def test_what_cannot_be_decoded_is_named(tmp_path, content, message):
    path = tmp_path / 'a.txt'
    path.write_bytes(content)
    with pytest.raises(MediaError, match=f'^{re.escape(str(path))}: .*{re.escape(message)}'):
        textfile.read_lines(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a,b\n1,"open\n2,3\n', 'line 3: unexpected end of data'),
        ('a,b\n1,"x"y\n', "line 2: ',' expected after '\"'"),
        ('a,b\n1,2,3\n', 'line 2: expected 2 values, found 3'),
        ('b,b\n', "line 1 has no column 'a'"),
        ('a,a\n1,2\n', "line 1 has 2 column 'a'"),
        (' \n', 'line 1 is blank'),
    ],
)
def test_damaged_tables_name_the_line(tmp_path, text, message):
    with pytest.raises(MediaError, match=re.escape(message)):
        textfile.read_table(save(tmp_path / 'a.csv', text), ('a',))
    with pytest.raises(MediaError, match='cannot be read as JSON; line 2: '):
        textfile.read_json(save(tmp_path / 'a.json', '{"a": 1,\n "b" 2}'))


def test_transcripts_of_iemocap_in_another_encoding(tmp_path):
    text = 'Ses01F_impro01_F000 [006.2901-008.2357]: Well\u2026 I don\u2019t know, it\u00b4s so good\r\n'
    path = save(tmp_path / 'a.txt', text, 'cp1252')
    skipped = []
    (line,) = iemocap_layout._lines(path, skipped)
    assert line.endswith('Well\u2026 I don\u2019t know, it\u00b4s so good')
    assert not skipped
    path.write_bytes(b'a\x8d')
    assert iemocap_layout._lines(path, skipped) == []
    assert 'a.txt: text that cannot be decoded; line 1: byte 0x8d' in skipped[0][1].detail


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_word_vectors_of_every_encoding(tmp_path, encoding):
    """As in glove.840B, blanks and other separators inside a word belong to it."""
    words = ['caf\u00e9', 'odd\u00a0word', '. .', '\u2026\u00a0'] + (
        [] if encoding == 'cp1252' else ['a\x85b', '\u2028']
    )
    lines = [f'{word} {n} 1' for n, word in enumerate(words)]
    vectors = read_glove(save(tmp_path / 'g.txt', '\n'.join(lines) + '\n', encoding), words)
    assert list(vectors.rows) == words
    assert vectors.array[:, 0].tolist() == list(range(len(words)))
