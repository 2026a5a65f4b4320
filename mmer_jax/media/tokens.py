"""Text -> the token ids of a pretrained model, by the tokenizer files that came with its weights.

A folder may lack some of the small files. What they would say is taken from the files that are there, and where these
do not tell, the folder is refused: a tokenizer that cuts text as the model never saw it gives no error later.
"""

import contextlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download
from mmer_jax.media.textfile import read_json, read_lines, read_text

VOCABULARIES = ('tokenizer.json', 'vocab.txt', 'vocab.json')
SETTINGS = 'tokenizer_config.json'
BESIDE = ('merges.txt', SETTINGS, 'special_tokens_map.json', 'added_tokens.json', 'config.json')
SENTENCEPIECE = ('sentencepiece.bpe.model', 'spiece.model', 'tokenizer.model')
PROBES = ('a film, 2 of 3', 'I LOVE Paris, caf\u00e9 and \u6771\u4eac.')
LEAST_SHARE = 0.9  # of config.json's vocabulary that a tokenizer knows; published tables are padded by less
CASED_SHARE = 0.005  # least of the pieces; none of bert-base-uncased has a capital, a third of bert-base-cased has
SPECIAL = re.compile(r'\[.*\]|<.*>')


class TextTokenizer:
    """The tokenizer of a folder of weights, converted ones or those of Hugging Face.

    tokenizer('so good') -> int32 (T,), with the model's own first and last token and without padding. Longer text than
    `max_length` tokens is cut at its end, the last token kept. MediaError names the file that is missing, a failed
    download, damaged, or of another model: where config.json lies beside, its vocabulary must have the same size.

    Whether a BERT lower-cases and strips accents is what tokenizer_config.json says, else tokenizer.json, else what the
    vocabulary shows: with capitals among its word pieces it is a cased one, with accents it keeps them.
    """

    def __init__(self, folder: str | os.PathLike, *, max_length: int = 512):
        folder = Path(folder)
        present = _present(folder)
        for path in (*present, *(folder / name for name in BESIDE if (folder / name).exists())):
            _check_file(path)
        _check_whole(folder, present)
        from transformers import AutoTokenizer  # seconds to import

        self.folder, self.max_length = folder, max_length
        settings = _case_settings(folder, present)
        try:
            with _as_utf8(folder) as place:
                self._tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, **settings)
            found = [self(probe) for probe in PROBES]
            self.unknown_id: int | None = self._tokenizer.unk_token_id
        except Exception as error:  # the library raises whatever its readers do: KeyError, OSError, ValueError ...
            said = ' '.join(str(error).split())
            detail = f'{type(error).__name__}: {said}; copy or download the tokenizer again'
            raise MediaError(present[0], 'the tokenizer cannot be read', detail) from error
        if not len(found[0]):
            raise MediaError(present[0], 'the tokenizer gives no tokens', f'for {PROBES[0]!r}; download it again')
        _check_size(present[0], folder / 'config.json', len(self))
        self._check_special(present[0])
        if present[0].name == 'tokenizer.json' and not (folder / SETTINGS).exists():
            _check_same(present[0], found)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str) -> np.ndarray:
        found = self._tokenizer(text, truncation=True, max_length=self.max_length)
        return np.array(found['input_ids'], np.int32)

    def with_context(self, text: str, before: str) -> np.ndarray:
        """int32 (T, 2): the tokens of a text and those of what was said before it, behind it; ids and types.

        Types are 0 of the text, with the tokens that the model puts around it, and 1 of the context. Where both are too
        long the context loses its beginning.
        """
        own = self(text)
        pair = np.array(self._tokenizer(text, before)['input_ids'], np.int32)[len(own) :] if before else own[:0]
        pair = pair[max(len(pair) - (self.max_length - len(own)), 0) :]
        types = np.repeat(np.array([0, 1], np.int32), [len(own), len(pair)])
        return np.stack([np.concatenate([own, pair]), types], axis=1)

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The token of each id."""
        return list(self._tokenizer.convert_ids_to_tokens(np.asarray(ids).tolist()))

    def _check_special(self, path: Path) -> None:
        """MediaError where a token that every text gets, or that of unknown words, is not in the files themselves."""
        known = _pieces(path) | _added(path.parent)
        used = [*self.tokens(self('')), *([] if self.unknown_id is None else self.tokens([self.unknown_id]))]
        if missing := [token for token in dict.fromkeys(used) if token not in known]:
            detail = (
                f'it has no {", ".join(missing)}; special_tokens_map.json or {SETTINGS} may be missing: copy them too'
            )
            raise MediaError(path, 'a vocabulary without the special tokens', detail)


def _present(folder: Path) -> list[Path]:
    present = [folder / name for name in VOCABULARIES if (folder / name).exists()]
    if present:
        return present
    expected = f'expected one of {", ".join(VOCABULARIES)} in the folder'
    if found := [name for name in SENTENCEPIECE if (folder / name).exists()]:
        expected += f', found {found[0]}: save tokenizer.json with AutoTokenizer.save_pretrained of transformers'
    raise MediaError(folder, 'no tokenizer files', expected)


def _check_file(path: Path) -> None:
    """MediaError where a file of a tokenizer is what a failed download leaves, no JSON object, or without a token."""
    check_download(path, 'a file of a tokenizer')
    if path.suffix != '.json':
        return
    content = read_json(path)
    if not isinstance(content, dict) or (path.name in VOCABULARIES and not content):
        found = 'nothing in it' if content == {} else f'a JSON {type(content).__name__}'
        raise MediaError(path, 'no content', f'found {found}, expected an object; copy or download it again')


def _check_whole(folder: Path, present: list[Path]) -> None:
    """MediaError where a file is missing without which nobody can say how text is cut."""
    names = [path.name for path in present]
    if 'tokenizer.json' in names:
        return
    if names == ['vocab.json'] and not (folder / 'merges.txt').exists():
        raise MediaError(folder, 'half a tokenizer', 'found vocab.json, expected merges.txt beside it: copy it too')
    if 'model_type' not in _object(folder / 'config.json') and 'tokenizer_class' not in _object(folder / SETTINGS):
        detail = f'found {names[0]}; config.json with model_type or {SETTINGS} says of which model: copy it too'
        raise MediaError(folder, 'a vocabulary alone', detail)


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


@contextlib.contextmanager
def _as_utf8(folder: Path) -> Iterator[Path]:
    """The folder, or a temporary copy of its text files where one is not UTF-8 without mark and blank last lines."""
    paths = [folder / name for name in (*VOCABULARIES, *BESIDE) if (folder / name).exists()]
    texts = {
        path.name: '\n'.join([*read_lines(path), '']) if path.suffix == '.txt' else read_text(path) for path in paths
    }
    if all(texts[path.name].encode() == path.read_bytes() for path in paths):
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        for name, text in texts.items():
            (Path(copy) / name).write_text(text, encoding='utf-8', newline='')
        yield Path(copy)


def _pieces(path: Path) -> set[str]:
    """The tokens of a vocabulary file."""
    if path.suffix == '.txt':
        return set(read_lines(path))
    content = read_json(path)
    if path.name == 'vocab.json':
        return set(content)
    vocabulary = content.get('model', {}).get('vocab', {})  # an object, or pairs with scores
    tokens = vocabulary if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    return {*tokens, *(token['content'] for token in content.get('added_tokens', ()))}


def _added(folder: Path) -> set[str]:
    """The tokens that the small files add to a vocabulary."""
    listed = _object(folder / SETTINGS).get('added_tokens_decoder', {})
    return {*_object(folder / 'added_tokens.json'), *(token['content'] for token in listed.values())}


def _case_settings(folder: Path, present: list[Path]) -> dict[str, Any]:
    """do_lower_case, strip_accents and tokenize_chinese_chars of a tokenizer of word pieces, where no setting says it.

    transformers lower-cases whatever tokenizer_config.json does not say, even where tokenizer.json keeps the case.
    """
    given, model = _object(folder / SETTINGS), {}
    if present[0].name == 'tokenizer.json':
        model = read_json(present[0])
    is_pieces = model.get('model', {}).get('type') == 'WordPiece' if model else present[0].name == 'vocab.txt'
    if not is_pieces or 'do_lower_case' in given:
        return {}
    found = _of_normalizer(model.get('normalizer')) if model else _of_vocabulary(present[0])
    return {key: value for key, value in found.items() if key not in given}


def _of_normalizer(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """What the normaliser of tokenizer.json does; None is one that does nothing."""
    parts = [] if normalizer is None else normalizer.get('normalizers', [normalizer])
    found = {'do_lower_case': False, 'strip_accents': False, 'tokenize_chinese_chars': False}
    for part in parts:
        if part['type'] == 'BertNormalizer':
            names = {'do_lower_case': 'lowercase', 'strip_accents': 'strip_accents'}
            found |= {key: part[name] for key, name in names.items()}
            found['tokenize_chinese_chars'] = part['handle_chinese_chars']
        found['do_lower_case'] = found['do_lower_case'] or part['type'] == 'Lowercase'
        found['strip_accents'] = True if part['type'] == 'StripAccents' else found['strip_accents']
    return found


def _of_vocabulary(path: Path) -> dict[str, Any]:
    """What the word pieces themselves show; MediaError where a few have capitals or accents, and most could have."""
    pieces = [piece.removeprefix('##') for piece in _pieces(path) if not SPECIAL.fullmatch(piece)]
    lower = _share(path, [(piece, piece.lower()) for piece in pieces], 'capitals', 'do_lower_case')
    if not lower:
        return {'do_lower_case': False}
    plain = _share(path, [(unicodedata.normalize('NFD', p), _strip(p)) for p in pieces], 'accents', 'strip_accents')
    return {'do_lower_case': True, 'strip_accents': None if plain else False}


def _strip(piece: str) -> str:
    return ''.join(c for c in unicodedata.normalize('NFD', piece) if unicodedata.category(c) != 'Mn')


def _share(path: Path, pairs: list[tuple[str, str]], what: str, key: str) -> bool:
    """Whether no piece changes, as in a vocabulary that was made of changed text."""
    changed = [old for old, new in pairs if old != new]
    if changed and len(changed) < CASED_SHARE * len(pairs):
        detail = f'{len(changed)} of {len(pairs)} pieces have {what}, such as {changed[0]!r}: say {key} in {SETTINGS}'
        raise MediaError(path, f'a vocabulary that does not show its {what}', detail)
    return not changed


def _check_same(path: Path, found: Sequence[np.ndarray]) -> None:
    """MediaError where tokenizer.json by itself cuts the probes in another way than it does with its model's class."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(read_text(path))
    for probe, ids in zip(PROBES, found, strict=True):
        if own.encode(probe).ids != ids.tolist():
            detail = f'{probe!r} becomes other tokens than by itself: copy {SETTINGS} too'
            raise MediaError(path, 'the settings of the tokenizer are missing', detail)


def _check_size(path: Path, config: Path, found: int) -> None:
    """MediaError where the tokenizer has more tokens than the model has rows, or far fewer."""
    expected = _object(config).get('vocab_size')
    if isinstance(expected, int) and not LEAST_SHARE * expected <= found <= expected:
        detail = f'{found} tokens, but vocab_size is {expected} in {config}; take both from one checkpoint'
        raise MediaError(path, 'the tokenizer of another model, or a damaged one', detail)
