"""A tokenizer that is damaged, not downloaded, or of another model is one error that names the file."""

import json

import numpy as np
import pytest

from mmer_jax.media import MediaError
from mmer_jax.media.tokens import TextTokenizer
from tests.iemocap_release import write_tokenizer

POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 231508\n'


@pytest.fixture
def folder(tmp_path):
    return write_tokenizer(tmp_path / 'tiny')


def size_of(folder):
    return len((folder / 'vocab.txt').read_text().split())


def test_ids_and_the_cut_at_the_end(folder):
    tokenizer = TextTokenizer(folder, max_length=4)
    ids = tokenizer('. , . , .')
    assert ids.dtype == np.int32
    assert tokenizer.tokens(ids) == ['[CLS]', '.', ',', '[SEP]']
    assert tokenizer.unknown_id == 1
    assert len(tokenizer) == size_of(folder)


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('vocab.txt', POINTER, 'git-LFS pointer'),
        ('vocab.txt', '', 'empty file'),
        ('vocab.txt', '<!DOCTYPE html><html>Sign in</html>', 'HTML page'),
        ('vocab.txt', '[PAD]\n[CLS]\n[SEP]\n', 'the tokenizer cannot be read'),  # no token for unknown words
        ('vocab.txt', '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\n', 'the tokenizer of another model'),
        ('tokenizer.json', POINTER, 'git-LFS pointer'),
        ('tokenizer.json', '{', 'cannot be read as JSON'),
        ('tokenizer.json', '[]', 'no content'),
        ('tokenizer.json', '{"version": "1.0"}', 'the tokenizer cannot be read'),
        ('vocab.json', '{}', 'no content'),
        ('merges.txt', POINTER, 'git-LFS pointer'),
        ('tokenizer_config.json', POINTER, 'git-LFS pointer'),
        ('special_tokens_map.json', '', 'empty file'),
        ('config.json', '[]', 'no content'),
    ],
)
def test_a_file_that_is_damaged_is_named(folder, name, content, reason):
    (folder / name).write_text(content)
    with pytest.raises(MediaError, match=reason) as error:
        TextTokenizer(folder)
    assert error.value.path == str(folder / name)


@pytest.mark.parametrize('rows', [-1, 20])
def test_the_tokenizer_of_another_model(folder, rows):
    """Ids behind the last row would be no numbers, and far fewer tokens would be unknown words."""
    config = json.loads((folder / 'config.json').read_text())
    found, expected = size_of(folder), size_of(folder) + rows
    (folder / 'config.json').write_text(json.dumps({**config, 'vocab_size': expected}))
    with pytest.raises(MediaError, match=f'{found} tokens, but vocab_size is {expected} in .*config.json'):
        TextTokenizer(folder)


def test_a_table_that_is_padded_a_little_is_fine(folder):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'vocab_size': size_of(folder) + 1}))
    assert len(TextTokenizer(folder)) == size_of(folder)
    (folder / 'config.json').unlink()
    (folder / 'vocab.txt').unlink()
    with pytest.raises(MediaError, match='tiny: no tokenizer files; expected one of tokenizer.json, vocab.txt'):
        TextTokenizer(folder)
