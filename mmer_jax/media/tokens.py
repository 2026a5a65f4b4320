"""Text -> the token ids of a pretrained model, by the tokenizer files that came with its weights."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download

VOCABULARIES = ('tokenizer.json', 'vocab.txt', 'vocab.json')
BESIDE = ('merges.txt', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'config.json')
PROBE = 'a film, 2 of 3'
LEAST_SHARE = 0.9  # of config.json's vocabulary that a tokenizer knows; published tables are padded by less


class TextTokenizer:
    """The tokenizer of a folder of weights, converted ones or those of Hugging Face.

    tokenizer('so good') -> int32 (T,), with the model's own first and last token and without padding. Longer text than
    `max_length` tokens is cut at its end, the last token kept. MediaError names the file that is missing, a failed
    download, damaged, or of another model: where config.json lies beside, its vocabulary must have the same size.
    """

    def __init__(self, folder: str | os.PathLike, *, max_length: int = 512):
        folder = Path(folder)
        present = [folder / name for name in VOCABULARIES if (folder / name).exists()]
        if not present:
            raise MediaError(folder, 'no tokenizer files', f'expected one of {", ".join(VOCABULARIES)} in the folder')
        for path in (*present, *(folder / name for name in BESIDE if (folder / name).exists())):
            _check_file(path)
        from transformers import AutoTokenizer  # seconds to import

        self.folder, self.max_length = folder, max_length
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            probe = self(PROBE)
            self.unknown_id: int | None = self._tokenizer.unk_token_id
        except Exception as error:  # the library raises whatever its readers do: KeyError, OSError, ValueError ...
            detail = f'{type(error).__name__}: {error}; copy or download the tokenizer again'
            raise MediaError(present[0], 'the tokenizer cannot be read', detail) from error
        if not len(probe):
            raise MediaError(present[0], 'the tokenizer gives no tokens', f'for {PROBE!r}; download it again')
        _check_size(present[0], folder / 'config.json', len(self))

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str) -> np.ndarray:
        found = self._tokenizer(text, truncation=True, max_length=self.max_length)
        return np.array(found['input_ids'], np.int32)

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The token of each id."""
        return list(self._tokenizer.convert_ids_to_tokens(np.asarray(ids).tolist()))


def _check_file(path: Path) -> None:
    """MediaError where a file of a tokenizer is what a failed download leaves, no JSON object, or without a token."""
    check_download(path, 'a file of a tokenizer')
    if path.suffix != '.json':
        return
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise MediaError(path, 'cannot be read as JSON', f'{error}; copy or download it again') from error
    if not isinstance(content, dict) or (path.name in VOCABULARIES and not content):
        found = 'nothing in it' if content == {} else f'a JSON {type(content).__name__}'
        raise MediaError(path, 'no content', f'found {found}, expected an object; copy or download it again')


def _check_size(path: Path, config: Path, found: int) -> None:
    """MediaError where the tokenizer has more tokens than the model has rows, or far fewer."""
    expected = json.loads(config.read_text(encoding='utf-8')).get('vocab_size') if config.is_file() else None
    if isinstance(expected, int) and not LEAST_SHARE * expected <= found <= expected:
        detail = f'{found} tokens, but vocab_size is {expected} in {config}; take both from one checkpoint'
        raise MediaError(path, 'the tokenizer of another model, or a damaged one', detail)
