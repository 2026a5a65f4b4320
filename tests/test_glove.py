"""mmer_jax.media.text: GloVe's text format in all its variants, and tokens looked up in it."""

import numpy as np
import pytest

from mmer_jax.media import MediaError
from mmer_jax.media.text import embed, is_pause, read_glove


def write(path, *lines):
    path.write_bytes('\n'.join(lines).encode() + b'\n')
    return path


@pytest.fixture
def glove(tmp_path):
    """Like glove.840B: words in two cases, words with spaces, one that looks like a number, a repeated word."""
    return write(
        tmp_path / 'glove.txt',
        ', 0.1 0.2 0.3',
        'film 1 2 3',
        'Film 4 5 6',
        '. . . 7 8 9',
        'at name@domain.com -1 -2 -3e-1',
        '1984 9 9 9',
        'caf\u00e9 0 1 0',
        'odd\u00a0word 0 0 1',
        'film 8 8 8',
    )


def test_reads_every_word(glove):
    vectors = read_glove(glove)
    words = [',', 'film', 'Film', '. . .', 'at name@domain.com', '1984', 'café', 'odd\u00a0word']
    assert list(vectors.rows) == words
    assert (vectors.size, len(vectors), vectors.array.dtype) == (3, 8, np.float32)
    for word, expected in {'film': [1, 2, 3], '. . .': [7, 8, 9], 'at name@domain.com': [-1, -2, -0.3]}.items():
        np.testing.assert_allclose(vectors.array[vectors.row(word)], expected, rtol=1e-6)


def test_keeps_the_wanted_words_and_their_lower_case(glove):
    vectors = read_glove(glove, ['FILM', 'café', 'absent', '. . .'])
    assert list(vectors.rows) == ['film', '. . .', 'café']
    assert vectors.array.shape == (3, 3)
    assert vectors.row('FILM') == vectors.row('film') == 0
    assert vectors.row('absent') is None
    assert read_glove(glove, ['absent']).array.shape == (0, 3)


def test_unwanted_words_are_not_parsed(tmp_path):
    path = write(tmp_path / 'g.txt', 'a 1 2', 'b x y', 'c 3 4')
    np.testing.assert_array_equal(read_glove(path, ['c']).array, [[3, 4]])
    with pytest.raises(MediaError, match=r'g\.txt: a value that is no number; line 2'):
        read_glove(path, ['b'])


def test_header_of_word2vec_windows_ends_and_trailing_spaces(tmp_path):
    path = write(tmp_path / 'g.txt', '2 3\r', 'a 1 2 3 \r', '', 'b 4 5 6\r')
    vectors = read_glove(path)
    assert list(vectors.rows) == ['a', 'b']
    np.testing.assert_array_equal(vectors.array, [[1, 2, 3], [4, 5, 6]])


def test_a_first_word_of_several_parts_does_not_change_the_size(tmp_path):
    assert read_glove(write(tmp_path / 'g.txt', '. . 1 2 3', 'a 4 5 6')).size == 3


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (['a 1 2 3', 'b 4 5'], 'line 2 has 2 values, expected 3'),
        (['a 1 2 3', 'b 4 nan 5'], 'not finite; line 2'),
        (['a 1 2 3', 'b 4 1e39 5'], 'not finite; line 2'),
        (['a 1 2 3', 'b 4 5 6x'], 'no number; line 2'),
        (['5 3', 'a 1 2'], 'line 2 has 2 values, expected 3'),
        (['5 3'], 'no word vectors'),
        (['some prose here'], "not word vectors; line 1 is 'some prose here'"),
        (['version https://git-lfs.github.com/spec/v1'], 'git-LFS pointer'),
        (['<!DOCTYPE html>'], 'HTML page'),
        (['PK\x03\x04'], 'zip archive'),
    ],
)
def test_bad_files_name_the_line(tmp_path, lines, message):
    path = write(tmp_path / 'g.txt', *lines)
    with pytest.raises(MediaError, match=message) as error:
        read_glove(path)
    assert str(path) in str(error.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(MediaError, match='no such file'):
        read_glove(tmp_path / 'absent.txt')
    (tmp_path / 'empty.txt').touch()
    with pytest.raises(MediaError, match='empty file'):
        read_glove(tmp_path / 'empty.txt')


TOKENS = ['sp', 'Film', 'FILM', 'zyx', 'sp', 'café']


def test_unknown_words_stay_as_zeros(glove):
    found = embed(TOKENS, read_glove(glove))
    np.testing.assert_array_equal(found.array, [[4, 5, 6], [1, 2, 3], [0, 0, 0], [0, 1, 0]])
    assert found.array.dtype == np.float32
    assert found.kept.tolist() == [1, 2, 3, 5]
    assert found.unknown == ['zyx']


def test_unknown_words_dropped_and_pauses_kept(glove):
    vectors = read_glove(glove)
    found = embed(TOKENS, vectors, unknown='drop', keep_pauses=True)
    np.testing.assert_array_equal(found.array, [[0, 0, 0], [4, 5, 6], [1, 2, 3], [0, 0, 0], [0, 1, 0]])
    assert found.kept.tolist() == [0, 1, 2, 4, 5]
    assert found.unknown == ['zyx']
    assert embed(['zyx', 'sp'], vectors, unknown='drop').array.shape == (0, 3)
    with pytest.raises(ValueError, match="unknown is 'mean'"):
        embed(TOKENS, vectors, unknown='mean')


def test_a_pause_is_never_the_word_of_that_name(tmp_path):
    vectors = read_glove(write(tmp_path / 'g.txt', 'sp 5 5', 'spa 1 1'))
    np.testing.assert_array_equal(embed(['sp', 'spa'], vectors, keep_pauses=True).array, [[0, 0], [1, 1]])
    assert [is_pause(token) for token in ('sp', ' SP ', '', '{sp}', 'spa')] == [True, True, True, True, False]


def test_no_known_word_at_all(glove):
    vectors = read_glove(glove, ['absent'])
    np.testing.assert_array_equal(embed(['absent', 'too'], vectors).array, np.zeros((2, 3)))
