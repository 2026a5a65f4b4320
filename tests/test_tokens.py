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


def test_context_stands_behind_and_is_cut_at_its_beginning(folder):
    tokenizer = TextTokenizer(folder)
    ids, types = tokenizer.with_context('. ,', ', . .').T
    assert tokenizer.tokens(ids) == ['[CLS]', '.', ',', '[SEP]', ',', '.', '.', '[SEP]']
    assert types.tolist() == [0] * 4 + [1] * 4
    assert tokenizer.with_context('. ,', '').tolist() == [[i, 0] for i in tokenizer('. ,').tolist()]
    ids, types = TextTokenizer(folder, max_length=6).with_context('. ,', ', . .').T
    assert tokenizer.tokens(ids) == ['[CLS]', '.', ',', '[SEP]', '.', '[SEP]']
    assert types.tolist() == [0] * 4 + [1] * 2


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


CASED = [
    '[PAD]',
    '[UNK]',
    '[CLS]',
    '[SEP]',
    '[MASK]',
    'I',
    'love',
    'Paris',
    'a',
    'film',
    'caf\u00e9',
    'of',
    ',',
    '.',
    '2',
    '3',
]
UNCASED = [token if token.startswith('[') else token.lower() for token in CASED]
SENTENCE = 'I love Paris, caf\u00e9'
WITH_CASE = ['I', 'love', 'Paris', ',', 'caf\u00e9']
WITHOUT = ['i', 'love', 'paris', ',', 'caf\u00e9']


def bare(folder, words, **files):
    """A BERT with a vocabulary and config.json, and of the small files those that are given."""
    folder.mkdir(exist_ok=True)
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    (folder / 'config.json').write_text(json.dumps({'model_type': 'bert', 'vocab_size': len(words)}))
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content))
    return folder


def cut(folder, text=SENTENCE):
    tokenizer = TextTokenizer(folder)
    return tokenizer.tokens(tokenizer(text))[1:-1]


def test_the_vocabulary_says_whether_case_and_accents_are_kept(tmp_path):
    """Without tokenizer_config.json, transformers lower-cases everything and strips accents with it."""
    assert cut(bare(tmp_path, CASED)) == WITH_CASE
    assert cut(bare(tmp_path, UNCASED)) == WITHOUT
    plain = [token.replace('\u00e9', 'e') for token in UNCASED]
    assert cut(bare(tmp_path, plain)) == ['i', 'love', 'paris', ',', 'cafe']
    assert cut(bare(tmp_path, CASED, tokenizer_config={'model_max_length': 512})) == WITH_CASE
    assert cut(bare(tmp_path, CASED, tokenizer_config={'do_lower_case': True}))[:2] == ['[UNK]', 'love']  # as it says


def test_a_vocabulary_that_does_not_tell_is_refused(tmp_path):
    """As bert-base-chinese, of whose 21,128 pieces eight have capitals."""
    few = [*UNCASED, 'K', *(f'piece{n}' for n in range(300))]
    with pytest.raises(
        MediaError, match=r"1 of \d+ pieces have capitals, such as 'K': say do_lower_case in tokenizer_c"
    ):
        TextTokenizer(bare(tmp_path, few))
    assert cut(bare(tmp_path, few, tokenizer_config={'do_lower_case': False}), 'K i') == ['K', 'i']


@pytest.mark.parametrize('lower', [True, False])
def test_the_normaliser_of_tokenizer_json_is_kept(tmp_path, lower):
    from transformers import BertTokenizer

    words = UNCASED if lower else CASED
    source = bare(tmp_path / 'source', words)
    BertTokenizer.from_pretrained(source, do_lower_case=lower, strip_accents=False).save_pretrained(tmp_path / 'saved')
    for names in (['config.json'], ['config.json', 'vocab.txt']):
        folder = tmp_path / '_'.join(names)
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes((source / name).read_bytes())
        (folder / 'tokenizer.json').write_bytes((tmp_path / 'saved' / 'tokenizer.json').read_bytes())
        assert cut(folder) == (WITHOUT if lower else WITH_CASE)


def test_tokenizer_json_whose_settings_are_lost_is_refused(tmp_path):
    """A normaliser that the class of the model would not make again."""
    from tokenizers import Regex, Tokenizer, normalizers
    from transformers import BertTokenizer

    BertTokenizer.from_pretrained(bare(tmp_path / 'source', CASED), do_lower_case=False).save_pretrained(
        tmp_path / 'out'
    )
    path = tmp_path / 'out' / 'tokenizer.json'
    own = Tokenizer.from_file(str(path))
    own.normalizer = normalizers.Replace(Regex('film'), 'love')
    own.save(str(path))
    (tmp_path / 'out' / 'tokenizer_config.json').unlink()
    bare(tmp_path / 'out', CASED)
    with pytest.raises(
        MediaError, match="'a film, 2 of 3' becomes other tokens than by itself: copy tokenizer_config.json"
    ):
        TextTokenizer(tmp_path / 'out')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'cp1252'])
def test_a_vocabulary_in_another_encoding(tmp_path, encoding):
    folder = bare(tmp_path, CASED)
    (folder / 'vocab.txt').write_bytes('\r\n'.join([*CASED, '', '']).encode(encoding))
    assert cut(folder) == WITH_CASE
    assert len(TextTokenizer(folder)) == len(CASED)


def test_what_is_missing_is_named(tmp_path):
    folder = bare(tmp_path, [word for word in CASED if word != '[CLS]'])
    (folder / 'config.json').write_text('{"model_type": "bert"}')
    with pytest.raises(MediaError, match=r'without the special tokens; it has no \[CLS\]; special_tokens_map.json or'):
        TextTokenizer(folder)
    (folder / 'config.json').write_text('{}')
    with pytest.raises(MediaError, match='a vocabulary alone; found vocab.txt; config.json with model_type or'):
        TextTokenizer(folder)
    (folder / 'vocab.txt').rename(folder / 'sentencepiece.bpe.model')
    with pytest.raises(
        MediaError, match=r'no tokenizer files; .*, found sentencepiece\.bpe\.model: save tokenizer\.json'
    ):
        TextTokenizer(folder)
    (folder / 'vocab.json').write_text(json.dumps({word: n for n, word in enumerate(CASED)}))
    with pytest.raises(MediaError, match=r'half a tokenizer; found vocab\.json, expected merges\.txt'):
        TextTokenizer(folder)
